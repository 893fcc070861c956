"""Masks as files and as pictures: palette PNGs, overlays, and a sheet of input, truth, prediction and confidence."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.patches import Patch
from PIL import Image

from ..mask_palette import IGNORE, IGNORE_COLOR, RGB, voc_color
from .plots import CYCLE, _cut, _figure, _save

OPACITY = 0.6  # of colours laid over an image
OUTLINED, LINE = 64, (255, 255, 255)  # px from which on an image is outlined, and by what
DPIS = (110, 90, 75, 62)  # the finest that needs no colours merged is taken, so that the legend holds
DARK = 64  # brightness that hardly a pixel of an image reaches which is shown brighter
BAND = 128  # rows of an image that are looked up at once: an index is eight bytes
# Trubetskoy's list of colours that are easy to tell apart
TWENTY = """#e6194b #3cb44b #ffe119 #4363d8 #f58231 #911eb4 #42d4f4 #f032e6 #bfef45 #fabed4
            #469990 #dcbeff #9a6324 #fffac8 #800000 #aaffc3 #808000 #ffd8b1 #000075 #a9a9a9"""
Declared = Sequence[Sequence[int]] | None  # the colour of each class, in order; None: the usual ones
BACKGROUND = ("background", "bg", "other", "others", "none", "nothing")  # names of a class that is no object


def palette(class_names: Sequence[str], declared: Declared = None) -> np.ndarray:
    """uint8 [256, 3]: the declared colours of the classes; else black for a first class that is the background, then
    Okabe and Ito's colours if they suffice, else twenty others, and PASCAL VOC's for more classes.
    """
    return _palette(tuple(class_names), tuple(map(tuple, declared or ())))


@lru_cache(maxsize=8)  # asked for with every mask that is written
def _palette(class_names: tuple[str, ...], declared: tuple[RGB, ...]) -> np.ndarray:
    first = [(0, 0, 0)] if class_names[0].lower() in BACKGROUND else []
    few = [c for c in CYCLE if c != "#000000"]
    listed = few if len(class_names) <= len(first) + len(few) else TWENTY.split()
    first += [tuple(int(255 * v + 0.5) for v in to_rgb(c)) for c in listed]
    colors = np.array([voc_color(k) for k in range(256)], np.uint8)
    colors[: len(first)] = first
    colors[: len(declared)] = np.reshape(declared, (-1, 3))
    colors[IGNORE] = IGNORE_COLOR
    colors.setflags(write=False)
    return colors


def save_mask(
    mask: np.ndarray,
    class_names: Sequence[str],
    path: str | Path,
    format: str = "PNG",
    *,
    declared: Declared = None,
) -> Path:
    """uint8 [H, W] as a palette picture whose values are the classes, and whose colours are theirs where they are
    declared; format: PNG, TIFF, BMP or GIF."""
    image = Image.fromarray(np.asarray(mask, np.uint8), mode="P")
    image.putpalette(palette(class_names, declared).tobytes())
    image.save(path, format, optimize=False)  # which gives the colours of a GIF other numbers
    return Path(path)


def overlay(image: np.ndarray, mask: np.ndarray, class_names: Sequence[str], declared: Declared = None) -> np.ndarray:
    """uint8 [H, W, 3]: the image in grey with the colours of the classes over it, which so are those of the legend, and
    a light line where a class ends, which shows on dark images too; a background stays as it is."""
    under, out, channels = (
        _under(tuple(class_names), tuple(map(tuple, declared or ()))),
        np.empty_like(image),
        np.arange(3),
    )
    covered = (palette(class_names, declared) != 0).any(1)
    for top in range(0, len(mask), BAND):
        band = slice(top, top + BAND)
        pixels, classes = image[band], mask[band][..., None]
        red, green, blue = pixels.astype(np.uint16).transpose(2, 0, 1)
        grey = ((77 * red + 150 * green + 29 * blue) >> 8).astype(np.uint8)[..., None]  # ITU-R BT.601
        out[band] = under[classes, np.where(covered[classes], grey, pixels), channels]
    if min(mask.shape) >= OUTLINED:
        ends = np.zeros(mask.shape, bool)
        ends[:, 1:] |= mask[:, 1:] != mask[:, :-1]
        ends[1:] |= mask[1:] != mask[:-1]
        out[ends] = LINE
    return out


@lru_cache(maxsize=8)
def _under(class_names: tuple[str, ...], declared: tuple[RGB, ...]) -> np.ndarray:
    """uint8 [256, 256, 3]: what a value of a channel becomes under the colour of a class."""
    colors = palette(class_names, declared)[:, None]
    values = np.arange(256)[:, None]
    covered = (colors != 0).any(2, keepdims=True)
    return np.where(covered, (1 - OPACITY) * values + OPACITY * colors, values).round().astype(np.uint8)


def lit(image: np.ndarray) -> np.ndarray:
    """uint8 [H, W, 3] as it is shown: brighter where it is all but black, as many of a microscope are."""
    top = float(np.percentile(image, 99.5))
    return np.minimum(image * (255 / top), 255).astype(np.uint8) if 0 < top < DARK else image


def examples(rows: Sequence[dict], class_names: Sequence[str], path: str | Path, declared: Declared = None) -> Path:
    """A row for each example: {"id", "image" uint8 [H, W, 3], "truth" uint8 [H, W] or None, "prediction" uint8 [H, W],
    "confidence" float [H, W]}. Wrong pixels are white in the last column, confident ones in the one before.
    """
    columns = ["image", "truth", "prediction", "confidence", "wrong"]
    fig = _figure(2.1 * len(columns), 2.2 * len(rows) * _aspect(rows) + 0.8)
    axes = fig.subplots(len(rows), len(columns), squeeze=False)
    k = len(class_names)
    for line, row in zip(axes, rows):
        truth, prediction, image = row.get("truth"), row["prediction"], lit(row["image"])
        wrong = None if truth is None else (truth != prediction) & (truth != IGNORE)
        pictures = [
            image,
            None if truth is None else overlay(image, truth, class_names, declared),
            overlay(image, prediction, class_names, declared),
            row["confidence"],
            wrong,
        ]
        for ax, name, picture in zip(line, columns, pictures):
            ax.set_xticks([])
            ax.set_yticks([])
            if picture is None:
                ax.axis("off")
                continue
            gray = dict(cmap="gray", vmin=1 / k if name == "confidence" else 0, vmax=1)
            ax.imshow(picture, **(gray if picture.ndim == 2 else {}), interpolation="nearest")
        line[0].set_ylabel(_cut(row.get("id", ""), 24), fontsize=9)
    scale = {"confidence": f"confidence\n(black {100 / k:.0f} %, white 100 %)"}
    for ax, name in zip(axes[0], columns):
        ax.set_title(scale.get(name, name), fontsize=9 if name in scale else 11)
    colors = palette(class_names, declared) / 255
    seen = sorted(
        {int(v) for row in rows for m in (row.get("truth"), row["prediction"]) if m is not None for v in np.unique(m)}
        - {IGNORE}
    )
    handles = [Patch(facecolor=colors[v], edgecolor="#767676", label=_cut(class_names[v], 18)) for v in seen[:24]]
    fig.legend(handles=handles, loc="outside lower center", ncols=min(6, len(handles)), fontsize=11, frameon=False)
    return _save(fig, path, DPIS)


def _aspect(rows: Sequence[dict]) -> float:
    return float(np.mean([row["image"].shape[0] / row["image"].shape[1] for row in rows]))


class Examples:
    """Collects rows for `examples` out of `evaluate_segmentation(each=...)`: the images at `positions` of the pool."""

    def __init__(self, positions: Sequence[int], ids: Sequence[str]):
        self.wanted, self.ids, self.rows = set(positions), ids, {}

    def __call__(self, position: int, image, target, probabilities) -> None:
        if position in self.wanted:
            confidence, prediction = probabilities.max(0)
            self.rows[position] = {
                "id": self.ids[position],
                "image": image.permute(1, 2, 0).cpu().numpy(),
                "truth": target.cpu().numpy(),
                "prediction": prediction.byte().cpu().numpy(),
                "confidence": confidence.cpu().numpy(),
            }

    def save(self, class_names: Sequence[str], path: str | Path, declared: Declared = None) -> Path:
        return examples([self.rows[p] for p in sorted(self.rows)], class_names, path, declared)
