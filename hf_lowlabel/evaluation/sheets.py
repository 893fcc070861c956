"""Contact sheets for the run folder and the card: images, and what the model answered below each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.patches import Rectangle
from PIL import Image

from .plots import BLACK, VERMILION, _cut, _figure, _save

COLUMNS = 6
DRAWN, WORST = 18, 6  # images of a sheet of `predictions`
MOST_CAPTIONED = 18  # images of a sheet of `captioned`
GAP, HEADING, LINE = 0.12, 0.28, 0.155  # inches
DARK, FRAME = "#A84300", "#BBBBBB"


class Cell(NamedTuple):
    """pixels: uint8 [H, W, 3]. words: lines below them. wrong: whether it is a mistake, whose frame is thick."""

    pixels: np.ndarray
    words: str
    wrong: bool


def choose_examples(probs: np.ndarray, targets: np.ndarray) -> list[int]:
    """Positions for a contact sheet: `DRAWN` at random, then the `WORST` most confident mistakes of the rest."""
    draw = np.random.default_rng(0).permutation(len(probs))[:DRAWN]
    wrong = np.flatnonzero((probs.argmax(1) != targets) & (targets >= 0))
    wrong = np.setdiff1d(wrong, draw)
    return [*map(int, draw), *map(int, wrong[np.argsort(-probs[wrong].max(1), kind="stable")][:WORST])]


def predictions(
    image: Callable[[int], np.ndarray],
    probs: np.ndarray,
    targets: np.ndarray,
    class_names: Sequence[str],
    path: str | Path,
) -> Path:
    """predictions.png: `DRAWN` test images at random, then the `WORST` most confident mistakes, six in a row.

    `image(i)` gives image i as uint8 [H, W, 3]; it is called for those shown only. Below each: what was
    predicted with its confidence, and the true class where that was wrong (-1: not known).
    """
    probs, targets = np.asarray(probs), np.asarray(targets)
    if not len(probs):
        raise ValueError("found no images; expected at least one to draw")
    chosen, start = choose_examples(probs, targets), min(DRAWN, len(probs))
    cells = [_answered(_small(image(i)), probs[i], int(targets[i]), class_names) for i in chosen]
    drawn, mistakes = _rows(cells[:start]), _rows(cells[start:])  # which begin a row of their own
    headings = {0: f"{start} test images drawn at random"}
    headings |= {len(drawn): "The most confident mistakes among the others"} if mistakes else {}
    return _sheet([*drawn, *mistakes], path, side=1.4, lines=4, headings=headings)


def _answered(pixels: np.ndarray, p: np.ndarray, target: int, class_names: Sequence[str]) -> Cell:
    guess = int(p.argmax())
    wrong = target >= 0 and guess != target
    words = f"✗ {_cut(class_names[guess], 22)}" if wrong else _cut(class_names[guess], 24)
    words += f"\n{100 * p[guess]:.0f} % sure" + (f"\ntrue: {_cut(class_names[target], 19)}" if wrong else "")
    return Cell(pixels, words, wrong)


def captioned(images: Sequence[np.ndarray], captions: Sequence[tuple[str, str, bool]], path: str | Path) -> Path:
    """A contact sheet, six in a row: images uint8 [H, W, 3] with (answer, truth, whether they are the same) below
    each."""
    cells = []
    for image, (answer, truth, right) in zip(images, captions, strict=True):
        words = f"✓ {_cut(answer, 28)}" if right else f"✗ {_cut(answer, 28)}\ntrue: {_cut(truth, 24)}"
        cells.append(Cell(_small(image), words, not right))
    return _sheet(_rows(cells), path, side=1.8, lines=3)


def _rows(cells: list[Cell]) -> list[list[Cell]]:
    return [cells[i : i + COLUMNS] for i in range(0, len(cells), COLUMNS)]


def _sheet(
    rows: list[list[Cell]], path: str | Path, side: float, lines: int, headings: Mapping[int, str] | None = None
) -> Path:
    """side: of an image's square, in inches. lines: of words below it. headings: row -> what stands above it."""
    headings = headings or {}
    width = max(max(map(len, rows)) * (side + GAP) + GAP, 3.4)
    top = height = len(rows) * (side + lines * LINE) + len(headings) * HEADING
    fig = _figure(width, height, layout=None)
    sheet = fig.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(0, height), autoscale_on=False)  # one, in inches
    sheet.set_axis_off()
    for r, row in enumerate(rows):
        if r in headings:
            top -= HEADING
            sheet.text(GAP, top + 0.07, headings[r], fontsize=9, fontweight="bold")
        for c, cell in enumerate(row):
            _draw(sheet, GAP + c * (side + GAP), top - side, side, cell)
        top -= side + lines * LINE
    return _save(fig, path, photos=True)


def _draw(sheet: Any, left: float, foot: float, side: float, cell: Cell) -> None:
    """An image in the middle of the foot of its square, framed, and the words below it."""
    h, w = cell.pixels.shape[:2]
    wide, high = side * w / max(h, w), side * h / max(h, w)
    left += (side - wide) / 2
    smooth = "nearest" if max(h, w) < 64 else "antialiased"
    sheet.imshow(cell.pixels, extent=(left, left + wide, foot, foot + high), interpolation=smooth, aspect="auto")
    edge = dict(edgecolor=VERMILION if cell.wrong else FRAME, linewidth=3 if cell.wrong else 0.8)
    sheet.add_patch(Rectangle((left, foot), wide, high, fill=False, **edge))
    how = dict(fontsize=7.5, color=DARK if cell.wrong else BLACK, parse_math=False, ha="center", va="top")
    sheet.text(left + wide / 2, foot - 0.05, cell.words, **how)


def _small(pixels: np.ndarray) -> np.ndarray:
    """uint8 [H, W, 3], at most 160 px on the longer side."""
    image = Image.fromarray(pixels)
    image.thumbnail((160, 160), Image.Resampling.LANCZOS)
    return np.asarray(image)
