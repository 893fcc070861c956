"""Pictures for the run folder and the card: training curves, confusion matrix, reliability diagram (sheets.py: images).

Every function writes one PNG below 300 KB and returns its path. Figures are objects of their own: no pyplot, no
display, no global setting is touched. Colours are Okabe and Ito's, which colour-blind readers tell apart; mistakes are
also marked by a sign, never by colour alone.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter
from PIL import Image

from ..files import write_bytes
from .classification import most_confused, wilson
from .panels import LOSS, OTHER, PSEUDO, RATE, in_order, line_name, panel_of

BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK, GRAY = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#000000",
    "#767676",
)
CYCLE = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK)
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), "--", "-.")
LARGEST_FILE = 300_000  # bytes
LARGEST_SHEET = 1_500_000  # of photos, which 256 colours give bands
LEAST_SPAN = 2.0  # per cent, of an axis of shares


def curves(
    rows: Sequence[dict], path: str | Path, *, title: str | None = None, scores: Mapping[str, str] | None = None
) -> Path:
    """curves.png from the rows of log.jsonl: a dict per line with "step" and any numbers, in panels by what they are.

    Rows of training steps and of evaluations may alternate; a name is drawn where it occurs, gaps at NaN. scores:
    metric -> its title, for the panels of "test_METRIC" and "validation_METRIC".
    """
    panels: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for row in rows:
        for name, value in row.items():
            panel = panel_of(name, row, scores)
            if panel and isinstance(value, (int, float)) and not isinstance(value, bool):
                panels.setdefault(panel, {}).setdefault(name, []).append((row["step"], float(value)))
    names = in_order(panels)
    if not names:
        raise ValueError("found no row with a step and a number to draw; expected the rows of a log.jsonl")
    steps = {step for lines in panels.values() for points in lines.values() for step, _ in points}
    columns = min(2, len(names))
    fig = _figure(5.0 * columns, 2.9 * math.ceil(len(names) / columns) + 0.3 * bool(title))
    for i, name in enumerate(names):
        ax = fig.add_subplot(math.ceil(len(names) / columns), columns, i + 1)
        _panel_axes(ax, name, panels[name], scores or {})
        ax.set_xlim(0 if len(steps) == 1 or min(steps) < 0.1 * max(steps) else min(steps), max(*steps, 1))
    if title:
        fig.suptitle(_plain(_cut(title, 80)), fontsize=11)
    return _save(fig, path, tight=False)


def _panel_axes(ax: Any, panel: str, lines: dict[str, list[tuple[float, float]]], scores: Mapping[str, str]) -> None:
    scale = 100 if panel.endswith("(%)") else 1
    drawn = sorted(lines, key=lambda n: (n != "loss", n))[: len(CYCLE)]
    biggest = 0.0
    for color, dashes, name in zip(CYCLE, DASHES, drawn, strict=False):
        x, y = (np.array(column, float) for column in zip(*lines[name], strict=True))
        y = np.where(np.isfinite(y), y, np.nan) * scale
        biggest = max(biggest, np.nanmax(np.abs(y), initial=0))
        few = len(x) <= 30
        if len(x) > 60 and panel == LOSS:  # noisy per-step values: faint, with their running mean on top
            ax.plot(x, y, color=color, alpha=0.25, linewidth=0.8)
            y = _running_mean(y, max(3, len(y) // 40))
        label = _plain(_cut(line_name(name, scores), 28))
        mark = "o" if few else None
        ax.plot(x, y, color=color, linestyle=dashes, label=label, linewidth=1.6, marker=mark, markersize=3)
    ax.set_title(panel, fontsize=10, loc="left")
    ax.set_xlabel("step", fontsize=9)
    ax.tick_params(labelsize=8)
    ax.yaxis.set_major_formatter(_Numbers())
    ax.yaxis.get_offset_text().set_fontsize(8)
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.grid(alpha=0.25, linewidth=0.6)
    values = [abs(y) for points in lines.values() for _, y in points if math.isfinite(y)]
    if panel == OTHER and values and min(values) > 0 and max(values) > 100 * min(values):
        ax.set_yscale("log")
    if panel in (PSEUDO, RATE) or (panel == LOSS and biggest > 0):
        ax.set_ylim(bottom=min(0, ax.get_ylim()[0]))
    low, high = ax.get_ylim()
    if scale == 100 and high - low < LEAST_SPAN:  # a line that hardly moves is flat, and has no offset beside its axis
        ax.set_ylim(*(np.array([-0.5, 0.5]) * LEAST_SPAN + (low + high) / 2))
    if len(drawn) > 1 or drawn[0] != "loss":
        ax.legend(fontsize=8, frameon=False, loc="best", handlelength=2.2)
    _despine(ax)


class _Numbers(ScalarFormatter):
    """Numbers as plain text, which is laid out much sooner than mathematics; their common power of ten as 10⁻³."""

    def __init__(self) -> None:
        super().__init__()
        self.set_powerlimits((-3, 4))

    def get_offset(self) -> str:
        self.set_useMathText(True)
        try:
            return super().get_offset()
        finally:
            self.set_useMathText(False)


def _running_mean(y: np.ndarray, width: int) -> np.ndarray:
    """Centred mean over `width` points that leaves NaN out; shorter windows at both ends."""
    weight, kernel = np.isfinite(y).astype(float), np.ones(width)
    total, count = np.convolve(np.where(weight > 0, y, 0), kernel, "same"), np.convolve(weight, kernel, "same")
    return np.divide(total, count, out=np.full_like(y, np.nan), where=count > 0)


def confusion(metrics: dict, path: str | Path) -> Path:
    """confusion.png from `classification_scores`: named cells up to 60 classes, else an overview."""
    names = metrics["class_names"]
    if len(names) > 60 or metrics["confusion"] is None:
        return _overview(metrics, path)
    k, matrix = len(names), np.array(metrics["confusion"])
    share = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)  # rows sum to 1
    side = min(11.0, 2.6 + 0.42 * k) if k <= 20 else 11.0
    font = 9 if k <= 20 else 7.5 if k <= 40 else 6
    fig = _figure(side + 0.6, side)
    ax = fig.add_subplot()
    shown = ax.imshow(share, cmap="Blues", norm=PowerNorm(0.5, 0, 1), interpolation="nearest")
    labels = [_cut(n, 18) for n in names]
    ax.set_xticks(
        range(k), labels, rotation=90 if k > 6 or max(map(len, labels)) > 6 else 0, fontsize=font, parse_math=False
    )
    ax.set_yticks(range(k), labels, fontsize=font, parse_math=False)
    if k <= 30:
        digits = len(str(matrix.max()))
        size = min(10.0, 0.8 * 72 * (side - 1.6) / k / (0.62 * max(digits, 2)))
        for a, b in zip(*np.nonzero(matrix), strict=True):
            color = "white" if share[a, b] > 0.45 else "black"
            ax.text(b, a, str(matrix[a, b]), ha="center", va="center", fontsize=size, color=color)
    ax.set_xlabel("predicted", fontsize=9), ax.set_ylabel("true", fontsize=9)
    ax.set_title(_summary(metrics), fontsize=10, loc="left")
    bar = fig.colorbar(shown, ax=ax, fraction=0.04, pad=0.02, ticks=(0, 0.05, 0.25, 0.5, 1))
    bar.ax.set_yticklabels(("0", "5", "25", "50", "100 %"), fontsize=8)
    bar.set_label("share of the true class", fontsize=8)
    return _save(fig, path)


def _summary(metrics: dict) -> str:
    return f"{metrics['images']:,} test images, accuracy {100 * metrics['accuracy']:.1f} %"


def _overview(metrics: dict, path: str | Path) -> Path:
    """Many classes: the matrix as a texture, a histogram of what each class reaches, the ten most frequent
    confusions. Counts are of images, or where there is a `miou` of pixels."""
    matrix, (what, unit) = metrics["confusion"], ("IoU", "pixels") if "miou" in metrics else ("accuracy", "images")
    fig = _figure(11 if matrix else 6, 5.6)
    grid = fig.add_gridspec(2, 2 if matrix else 1, width_ratios=(1.15, 1) if matrix else (1,), height_ratios=(1, 1.3))
    if matrix:
        ax, share = fig.add_subplot(grid[:, 0]), np.array(matrix, float)
        share /= np.maximum(share.sum(1, keepdims=True), 1)
        ax.imshow(share, cmap="Blues", norm=PowerNorm(0.4, 0, 1), interpolation="antialiased")
        ax.set_title(_summary(metrics), fontsize=10, loc="left")
        ax.set_xlabel("predicted class (index)", fontsize=9), ax.set_ylabel("true class (index)", fontsize=9)
        ax.tick_params(labelsize=8)
    ax = fig.add_subplot(grid[0, -1])
    if not matrix:
        ax.set_title(_summary(metrics), fontsize=10, loc="left")
    measured = [100 * a for a in metrics["per_class"] if a is not None]
    ax.hist(measured, bins=np.arange(0, 101, 5), color=BLUE, edgecolor="white", linewidth=0.5)
    ax.set_xlabel(f"{what} of a class (%)", fontsize=9), ax.set_ylabel("classes", fontsize=9)
    ax.tick_params(labelsize=8), _despine(ax)
    ax = fig.add_subplot(grid[1, -1])
    pairs = most_confused(np.array(matrix), metrics["class_names"]) if unit == "pixels" else metrics["most_confused"]
    pairs = pairs[:10][::-1]
    labels = [f"{_cut(p['true'], 20)} as {_cut(p['predicted'], 20)}" for p in pairs]
    ax.barh(range(len(pairs)), [p["images"] for p in pairs], color=VERMILION, height=0.6)
    ax.set_yticks(range(len(pairs)), labels, fontsize=8, parse_math=False)
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.set_xlabel(f"{unit}, most frequent confusions", fontsize=9), ax.tick_params(axis="x", labelsize=8), _despine(ax)
    return _save(fig, path)


def reliability(metrics: dict, path: str | Path) -> Path:
    """Reliability diagram (Guo et al. 2017, figure 1): accuracy against confidence in 15 bins, each with an 80 %
    interval, and their sizes."""
    bins = metrics["reliability"]
    images, m = np.array(bins["images"]), len(bins["images"])
    acc, conf = (np.array([np.nan if v is None else 100 * v for v in bins[key]]) for key in ("accuracy", "confidence"))
    left, full = 100 * np.arange(m) / m, images > 0
    fig = _figure(4.6, 5.8)
    grid = fig.add_gridspec(2, 1, height_ratios=(3, 1))
    ax = fig.add_subplot(grid[0])
    ax.bar(left[full], acc[full], 100 / m, align="edge", color=SKY, edgecolor="white", label="accuracy")
    ax.plot((0, 100), (0, 100), color=GRAY, linewidth=1, linestyle="--", label="perfectly calibrated")
    low, high = wilson(acc[full] / 100, images[full])
    beside = np.maximum(0, (acc[full] - 100 * low, 100 * high - acc[full]))
    how = dict(ecolor=VERMILION, elinewidth=1, label="at the mean confidence, 80 % interval")
    ax.errorbar(conf[full], acc[full], beside, fmt="o", color=VERMILION, markersize=4, **how)
    ax.set_xlim(0, 100), ax.set_ylim(0, 102)
    ax.set_ylabel("accuracy (%)", fontsize=9), fig.legend(fontsize=8, loc="outside upper left", edgecolor="none")
    ax.set_title(f"Calibration: expected error {100 * metrics['ece']:.1f} %", fontsize=10, loc="left")
    ax.tick_params(labelsize=8, labelbottom=False), _despine(ax)
    ax = fig.add_subplot(grid[1])
    ax.bar(left, 100 * images / images.sum(), 100 / m, align="edge", color=GRAY, edgecolor="white")
    ax.set_xlim(0, 100), ax.set_xlabel("confidence (%)", fontsize=9), ax.set_ylabel("images (%)", fontsize=9)
    ax.tick_params(labelsize=8), _despine(ax)
    return _save(fig, path, tight=False)


def _figure(width: float, height: float, layout: str | None = "constrained") -> Figure:
    fig = Figure(figsize=(width, height), layout=layout, facecolor="white")
    FigureCanvasAgg(fig)
    return fig


def _save(
    fig: Figure, path: str | Path, dpis: Sequence[int] = (110,), tight: bool = True, photos: bool = False
) -> Path:
    """The figure as PNG: at the first of the resolutions that is below LARGEST_FILE, else in 256 colours, else smaller;
    of photos below LARGEST_SHEET, in all colours; atomic. tight: cut to what is drawn, for which it is drawn twice; one
    whose layout fits needs no cut."""
    path, largest = Path(path), LARGEST_SHEET if photos else LARGEST_FILE
    for dpi in dpis:
        buffer = io.BytesIO()
        fig.savefig(buffer, format="png", dpi=dpi, bbox_inches="tight" if tight else None, pad_inches=0.08)
        if buffer.tell() <= largest:
            break
    picture, shrink = Image.open(buffer), 1.0
    while buffer.getbuffer().nbytes > largest:
        picture, buffer = picture.convert("RGB"), io.BytesIO()
        small = [int(shrink * side) for side in picture.size]
        colors = picture.resize(small, Image.Resampling.LANCZOS) if shrink < 1 else picture
        # the median cut, Pillow's default, gives classes of a legend one colour
        few = colors if photos else colors.quantize(256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
        few.save(buffer, format="png", optimize=True)
        shrink *= min(0.95, 0.95 * math.sqrt(largest / buffer.tell()))
    write_bytes(path, buffer.getvalue())
    return path


def _despine(ax: Any) -> None:
    ax.spines[["top", "right"]].set_visible(False)


def _cut(text: Any, length: int) -> str:
    """Text on one line; what is too long loses its middle, because names often differ only at the end."""
    text, tail = " ".join(str(text).split()), length // 3
    return text if len(text) <= length else f"{text[: length - tail - 1]}…{text[-tail:]}"


def _plain(text: str) -> str:
    """Text in which a dollar sign is a dollar sign, where matplotlib offers no parse_math=False."""
    return text.replace("$", r"\$")
