"""Objects as annotation tools write them, as pixels: outlines, COCO's and Label Studio's run lengths."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...errors import UserError


def filled(points: np.ndarray, height: int, width: int) -> np.ndarray:
    """bool [H, W]: pixels whose centre lies inside the outline (even-odd rule).

    Args:
        points: float [N, 2], x and y in px from the upper left corner of the upper left pixel.
        height: of the picture in px.
        width: of the picture in px.
    """
    crossings = np.zeros((height, width + 1), dtype=np.uint8)
    for (x0, y0), (x1, y1) in zip(points, np.roll(points, -1, axis=0)):
        low, high = sorted((y0, y1))
        rows = np.arange(
            max(int(np.ceil(low - 0.5)), 0), min(int(np.ceil(high - 0.5)), height)
        )  # centres in [low, high)
        if len(rows):
            x = x0 + (rows + 0.5 - y0) * (x1 - x0) / (y1 - y0)
            columns = np.ceil(x - 0.5).clip(0, width).astype(np.int64)
            np.bitwise_xor.at(crossings, (rows, columns), np.uint8(1))  # the pixels right of the edge change sides
    return np.bitwise_xor.accumulate(crossings, axis=1)[:, :width].astype(bool)


def outline(flat: Sequence, closed: int = 3) -> np.ndarray | None:
    """float [N, 2] of x, y, x, y ... or of pairs; None where it is no outline."""
    try:
        points = np.asarray(flat, dtype=np.float64).reshape(-1, 2)
    except (ValueError, TypeError):
        return None
    return points if len(points) >= closed and np.isfinite(points).all() else None


def box(x0: float, y0: float, x1: float, y1: float) -> np.ndarray:
    return np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], dtype=np.float64)


def hull(points: np.ndarray) -> np.ndarray:
    """The smallest outline without a dent that has all points in it or on it."""
    ordered = sorted({(float(x), float(y)) for x, y in points})
    ends: list[tuple[float, float]] = []
    for side in (ordered, ordered[::-1]):
        chain: list[tuple[float, float]] = []
        for x, y in side:
            while len(chain) > 1:
                (x0, y0), (x1, y1) = chain[-2:]
                if (x1 - x0) * (y - y0) - (y1 - y0) * (x - x0) > 0:
                    break
                chain.pop()
            chain.append((x, y))
        ends += chain[:-1]
    return np.array(ends or ordered, dtype=np.float64)


def ellipse(x: float, y: float, rx: float, ry: float, degrees: float = 0.0) -> np.ndarray:
    """64 points of an ellipse around (x, y), turned clockwise."""
    t, turn = np.linspace(0, 2 * np.pi, 64, endpoint=False), np.deg2rad(degrees)
    dx, dy = rx * np.cos(t), ry * np.sin(t)
    return np.stack([x + dx * np.cos(turn) - dy * np.sin(turn), y + dx * np.sin(turn) + dy * np.cos(turn)], 1)


def turned(points: np.ndarray, x: float, y: float, degrees: float) -> np.ndarray:
    """The points turned clockwise about (x, y)."""
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return (points - (x, y)) @ np.array([[c, s], [-s, c]]) + (x, y)


def of_coco_runs(runs: dict[str, Any]) -> np.ndarray:
    """bool [H, W] of {"size": [H, W], "counts": ...}: lengths of runs of 0 and 1 in turn, down the columns."""
    (height, width), counts = runs["size"], runs["counts"]
    if isinstance(counts, str):
        return compressed().decode({"size": [height, width], "counts": counts.encode()}).astype(bool)
    return runs_of(counts, height * width).reshape(width, height).T


def coco_area(runs: dict[str, Any]) -> int:
    """How many pixels `of_coco_runs` would set, without setting them."""
    if isinstance(runs["counts"], str):
        return int(compressed().area({"size": runs["size"], "counts": runs["counts"].encode()}))
    return sum(runs["counts"][1::2])


def compressed() -> Any:
    """What reads COCO's compressed run lengths. Raises UserError where it is not installed."""
    try:
        from pycocotools import mask
    except ImportError:
        raise UserError(
            "These COCO masks are compressed run lengths, which pycocotools reads: pip install pycocotools."
        ) from None
    return mask


def runs_of(counts: Sequence[int], total: int) -> np.ndarray:
    """bool [total] of the lengths of runs of 0 and 1 in turn."""
    lengths = np.asarray(counts, dtype=np.int64)
    if (lengths < 0).any() or lengths.sum() != total:
        raise ValueError(f"run lengths add up to {lengths.sum()}, and the mask has {total} pixels")
    return np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)


def of_studio_runs(data: Sequence[int], height: int, width: int) -> np.ndarray:
    """bool [H, W] of Label Studio's brush: the opaque pixels of an RGBA picture in its bitwise run lengths.

    The bits say: count of values (32), bits of a value - 1 (5), bits of the four lengths - 1 (4 each); then for each
    run whether its values are equal (1), which of the lengths it has (2), its length - 1, and one value or as many as
    it is long.
    """
    bits = "".join(f"{byte:08b}" for byte in data)
    at = 0

    def read(count: int) -> int:
        nonlocal at
        at += count
        if at > len(bits):
            raise ValueError("the run lengths of a brush end early")
        return int(bits[at - count : at], 2) if count else 0

    total, word = read(32), read(5) + 1
    sizes = [read(4) + 1 for _ in range(4)]
    if total != height * width * 4:
        raise ValueError(f"a brush of {total} values for {height} x {width} px")
    out, i = np.zeros(total, dtype=np.uint8), 0
    while i < total:
        same = read(1)
        end = i + 1 + read(sizes[read(2)])
        if same:
            out[i:end] = read(word)
        else:
            out[i:end] = [read(word) for _ in range(end - i)]
        i = end
    return out.reshape(height, width, 4)[..., 3] > 0
