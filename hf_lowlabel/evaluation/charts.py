"""Charts of the report as inline SVG. Colours are CSS variables of the page, so that light and dark both fit; every
mark carries its numbers in a <title>, which a browser shows under the pointer."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from html import escape

import numpy as np
from matplotlib.ticker import MaxNLocator

from .classification import wilson
from .plots import LEAST_SPAN, _running_mean

WIDTH, HEIGHT = 460, 230  # px
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 10, 34  # px, around the plot
MOST_POINTS = 400  # of a line
SQUARE, LABEL, LETTER = 360, 13, 0.62  # px of a t-SNE picture and of its letters; width of one as a share of its height
MOST_COLORS = 8  # --c0 .. --c7 of the page
Line = tuple[str, Sequence[float], Sequence[float]]  # name, x, y


def lines(title: str, drawn: Sequence[Line], *, percent: bool = False, zero: bool = False, x_name: str = "step") -> str:
    """A line chart; NaN leaves a gap. Many points of a noisy line are shown faint, with their running mean on top."""
    drawn = [(name, np.asarray(x, float), np.asarray(y, float) * (100 if percent else 1)) for name, x, y in drawn]
    every = np.concatenate([y[np.isfinite(y)] for _, _, y in drawn])
    if not len(every):
        return ""
    xs = np.concatenate([x for _, x, _ in drawn])
    frame = _Frame(
        xs.min() if xs.max() > xs.min() else 0,
        max(xs.max(), xs.min() + 1),
        min(every.min(), 0.0) if zero else every.min(),
        every.max(),
        LEAST_SPAN if percent else 0.0,
    )
    parts = [frame.grid("%" if percent else "", x_name)]
    for i, (name, x, y) in enumerate(drawn):
        color = f"var(--c{i % MOST_COLORS})"
        if len(x) > 60:
            parts.append(frame.path(x, y, color, 0.25, 1.0))
            y = _running_mean(y, max(3, len(y) // 40))
        parts.append(frame.path(x, y, color, 1.0, 2.0))
        last = np.flatnonzero(np.isfinite(y))
        if len(last):
            at = last[-1]
            parts.append(
                f'<circle cx="{frame.x(x[at]):.1f}" cy="{frame.y(y[at]):.1f}" r="3.5" fill="{color}">'
                f"<title>{escape(name)}: {y[at]:.4g}{' %' if percent else ''} at {x_name} {x[at]:g}</title></circle>"
            )
    legend = _legend([name for name, _, _ in drawn]) if len(drawn) > 1 else ""
    return _figure(
        title,
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">{"".join(parts)}</svg>',
        legend,
    )


def _figure(title: str, svg: str, legend: str = "", note: str = "") -> str:
    note = f"<p class=note>{escape(note)}</p>" if note else ""
    return f"<figure><figcaption>{escape(title)}</figcaption>{legend}{svg}{note}</figure>"


def _legend(names: Sequence[str]) -> str:
    items = "".join(
        f'<span><i style="background:var(--c{i % MOST_COLORS})"></i>{escape(n)}</span>' for i, n in enumerate(names)
    )
    return f"<div class=legend>{items}</div>"


class _Frame:
    """Data to pixels, and the axes."""

    def __init__(self, x0: float, x1: float, y0: float, y1: float, span: float = 0.0):
        if y1 - y0 < span:  # a line that hardly moves is flat
            y0, y1 = (y0 + y1 - span) / 2, (y0 + y1 + span) / 2
        pad = 0.04 * (y1 - y0) or 0.05 * abs(y1) or 1.0
        self.x0, self.x1 = x0, x1
        self.y0, self.y1 = (0.0 if y0 == 0 else y0 - pad), y1 + pad

    def x(self, v: float) -> float:
        return LEFT + (v - self.x0) / (self.x1 - self.x0) * (WIDTH - LEFT - RIGHT)

    def y(self, v: float) -> float:
        return HEIGHT - BOTTOM - (v - self.y0) / (self.y1 - self.y0) * (HEIGHT - TOP - BOTTOM)

    def grid(self, unit: str, x_name: str) -> str:
        out = []
        for v in MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]).tick_values(self.y0, self.y1):
            if self.y0 <= v <= self.y1:
                y = self.y(v)
                out.append(
                    f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" class=grid />'
                    f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{_short(v)}{unit}</text>'
                )
        for v in MaxNLocator(5, integer=True).tick_values(self.x0, self.x1):
            if self.x0 <= v <= self.x1:
                out.append(
                    f'<text x="{self.x(v):.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{_short(v)}</text>'
                )
        out.append(f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 3}" text-anchor="end" class=axis>{escape(x_name)}</text>')
        return "".join(out)

    def path(self, x: np.ndarray, y: np.ndarray, color: str, opacity: float, width: float) -> str:
        step = max(1, math.ceil(len(x) / MOST_POINTS))
        d, pen = [], "M"
        for a, b in zip(x[::step], y[::step], strict=True):
            if not math.isfinite(b):
                pen = "M"
                continue
            d.append(f"{pen}{self.x(a):.1f} {self.y(b):.1f}")
            pen = "L"
        return f'<path d="{"".join(d)}" fill="none" stroke="{color}" stroke-width="{width}" opacity="{opacity}" stroke-linejoin="round"/>'


def _short(v: float) -> str:
    if v and (abs(v) >= 1e5 or abs(v) < 1e-3):
        return f"{v:.0e}".replace("e-0", "e-").replace("e+0", "e")
    return f"{v:,.6g}"


def confusion(title: str, matrix: Sequence[Sequence[int]], names: Sequence[str], pixels: bool = False) -> str:
    """A heat map, rows are the truth; numbers up to 20 classes. pixels: per cent of the row instead of images."""
    counts = np.array(matrix)
    k, share = len(counts), counts / np.maximum(counts.sum(1, keepdims=True), 1)
    cell = 40 if k <= 6 else 26 if k <= 20 else 14 if k <= 40 else 9
    letters = max(min(max(map(len, names)), 18), 3)
    left = 16 + 7 * letters
    size, rows = left + k * cell + 4, []
    for a, b in zip(*np.nonzero(counts), strict=True):
        x, y, s = left + b * cell, 4 + a * cell, share[a, b]
        color = "--good" if a == b else "--bad"
        words = f"{100 * s:.1f} % of its pixels" if pixels else f"{counts[a, b]} of {counts[a].sum()}"
        rows.append(
            f'<rect x="{x}" y="{y}" width="{cell - 1}" height="{cell - 1}" rx="2" fill="var({color})" '
            f'fill-opacity="{0.12 + 0.88 * s**0.6:.2f}"><title>{escape(names[a])} called {escape(names[b])}: {words}</title></rect>'
        )
        if k <= 20:
            strong, number = " class=on" if s > 0.35 else "", f"{100 * s:.0f}" if pixels else counts[a, b]
            rows.append(
                f'<text x="{x + (cell - 1) / 2}" y="{y + (cell - 1) / 2 + 4}" text-anchor="middle"{strong}>{number}</text>'
            )
    font = min(12, cell)
    for i, name in enumerate(names):
        text = escape(name if len(name) <= letters else name[: letters - 1] + "…")
        middle = 4 + i * cell + cell / 2 + 4
        rows.append(f'<text x="{left - 6}" y="{middle}" text-anchor="end" style="font-size:{font}px">{text}</text>')
        x, y = left + i * cell + cell / 2 + 4, 4 + k * cell + 6
        rows.append(
            f'<text x="{x}" y="{y}" text-anchor="end" transform="rotate(-90 {x} {y})" style="font-size:{font}px">{text}</text>'
        )
    height = 4 + k * cell + 12 + 7 * letters
    svg = (
        f'<svg viewBox="0 0 {size} {height}" style="max-width:{size}px" role="img" aria-label="{escape(title)}">'
        f"<g>{''.join(rows)}</g></svg>"
    )
    unit = " Per cent of the pixels of the row." if pixels else ""
    return _figure(title, svg, note=f"Rows are the true class, columns the answer.{unit}")


def reliability(title: str, bins: dict, ece: float) -> str:
    """Accuracy against confidence in bins of equal width (Guo et al. 2017), how sure it is by the images in each, and
    their number."""
    images = np.array(bins["images"])
    m, frame = len(images), _Frame(0, 100, 0, 100)
    frame.y1 = 100
    parts = [frame.grid("%", "confidence (%)")]
    parts.append(f'<line x1="{frame.x(0)}" y1="{frame.y(0)}" x2="{frame.x(100)}" y2="{frame.y(100)}" class=diagonal />')
    for i, (n, acc, conf) in enumerate(zip(images, bins["accuracy"], bins["confidence"], strict=True)):
        if not n:
            continue
        x0, x1, y = frame.x(100 * i / m), frame.x(100 * (i + 1) / m), frame.y(100 * acc)
        low, high = (float(v) for v in wilson(acc, n))
        words = f"{n} images, confidence {100 * conf:.1f} %, accuracy {100 * acc:.1f} % ({100 * low:.0f} to {100 * high:.0f})"
        weight = 0.25 + 0.75 * math.sqrt(n / images.max())
        parts.append(
            f'<rect x="{x0 + 1:.1f}" y="{y:.1f}" width="{x1 - x0 - 2:.1f}" height="{max(frame.y(0) - y, 0.5):.1f}" rx="2" '
            f'fill="var(--c0)" fill-opacity="{weight:.2f}"><title>{words}</title></rect>'
        )
        x, top, bottom = frame.x(100 * conf), frame.y(100 * high), frame.y(100 * low)
        parts.append(
            f'<path d="M{x:.1f} {top:.1f}V{bottom:.1f}M{x - 3:.1f} {top:.1f}h6M{x - 3:.1f} {bottom:.1f}h6" '
            'stroke="var(--c1)" stroke-width="1.2"/>'
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="var(--c1)"><title>{words}</title></circle>'
        )
    svg = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">{"".join(parts)}</svg>'
    note = (
        f"Expected calibration error {100 * ece:.1f} %. Bars: accuracy, stronger where more images are; dots: the same "
        "at the mean confidence, with 80 % intervals. Where an interval meets the dashed line, confidence may be right."
    )
    return _figure(title, svg, note=note)


def scatter(title: str, points: np.ndarray, labels: np.ndarray, names: Sequence[str]) -> str:
    """t-SNE: a dot per image, its class by colour and, for up to 20 classes, by the name at the middle of its dots."""
    low, high = points.min(0), points.max(0)
    xy = 8 + (points - low) / np.maximum(high - low, 1e-9) * 344  # [n, 2] in px
    parts = []
    for k in np.unique(labels):
        mine = xy[labels == k]
        dots = "".join(f'<circle cx="{x:.0f}" cy="{y:.0f}" r="2.6"/>' for x, y in mine)
        parts.append(f'<g fill="{_class_color(k)}" fill-opacity=".8">{dots}<title>{escape(names[k])}</title></g>')
    if len(names) <= 20:
        parts += _labels_apart([(names[k], *np.median(xy[labels == k], 0)) for k in np.unique(labels)])
    return _figure(title, f'<svg viewBox="0 0 360 360" role="img" aria-label="{escape(title)}">{"".join(parts)}</svg>')


def _class_color(k: int) -> str:
    return f"hsl({(k * 137.508) % 360:.0f} 65% var(--dot))"


def classes_legend(names: Sequence[str]) -> str:
    """The colours of the classes in `scatter`, for up to 20 of them; else nothing, a dot says its class."""
    if len(names) > 20:
        return ""
    items = "".join(
        f'<span><i class=dot style="background:{_class_color(k)}"></i>{escape(name)}</span>'
        for k, name in enumerate(names)
    )
    return f"<div class=legend>{items}</div>"


def _labels_apart(wanted: Sequence[tuple[str, float, float]]) -> list[str]:
    """Names as near as possible to where they are wanted, (name, x, y) in px of the square, whole, inside it, and none
    on another; the letters of one that is too long for it are smaller."""
    placed: list[tuple[float, float, float]] = []  # middle, half width, base line
    out = []
    for name, x, y in sorted(wanted, key=lambda one: one[2]):
        font = min(LABEL, (SQUARE - 8) / (LETTER * max(len(name), 1)))
        half = LETTER * font * len(name) / 2
        x = min(max(x, half + 4), SQUARE - half - 4)
        rows = [float(y) + 4 + sign * step for step in range(0, SQUARE, 3) for sign in (1, -1)]
        inside = [row for row in rows if LABEL <= row <= SQUARE - 5]
        free = (r for r in inside if all(abs(x - a) >= half + w or abs(r - b) >= LABEL for a, w, b in placed))
        row = next(free, inside[0])
        placed.append((x, half, row))
        size = f' style="font-size:{font:.1f}px"' if font < LABEL else ""
        out.append(f'<text x="{x:.0f}" y="{row:.0f}" text-anchor="middle" class=halo{size}>{escape(name)}</text>')
    return out


def bars(title: str, rows: Sequence[tuple[str, float, str]], note: str = "") -> str:
    """Horizontal bars of shares (0..1), each with its name and words of its own."""
    out = "".join(
        f'<div class=bar><span>{escape(name)}</span><b><i style="width:{100 * value:.1f}%"></i></b><em>{escape(words)}</em></div>'
        for name, value, words in rows
    )
    return _figure(title, f"<div class=bars>{out}</div>", note=note)


def inline(png: bytes) -> str:
    """A picture as the address of an <img>."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
