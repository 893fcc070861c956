"""What transformers' image processors do to a photo, in timm's terms: resize, crop, normalise."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
import timm
from PIL import Image
from transformers import AutoImageProcessor

from ..errors import UserError

log = logging.getLogger(__name__)
PHOTO = (96, 64)  # px, width and height of what an image processor is tried on
ALIKE = 4.0  # of 255 levels, mean difference of two ways to prepare a photo: twice what a shift by a pixel makes
INTERPOLATION = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}


def preprocessing_of(folder: Path, source: str) -> dict:
    """timm's fields of what the repository's own image processor does to a picture; "flip_channels" where it takes blue
    first.

    folder: holds preprocessor_config.json or processor_config.json.

    Raises:
        UserError: transformers cannot read it without code of the repository.
    """
    try:
        own = AutoImageProcessor.from_pretrained(folder, trust_remote_code=False)
        out = _fields(own)
    except Exception as error:  # whatever a class of transformers raises for fields it does not take
        raise UserError(
            f"The preprocessor_config.json of {source} describes no image processor that transformers reads "
            f"({type(error).__name__}: {' '.join(str(error).split())[:200]}). Correct it, remove it and give the image "
            "size, or take another model."
        ) from error
    if getattr(own, "max_num_patches", None):
        log.warning("%s sees photos in their own shape, and here as squares of as many patches", source)
    else:
        _check_pixels(own, out, source)
    return out


def _fields(own) -> dict:
    """timm's fields of an image processor of transformers. Raises ValueError for one that transformers cannot use."""
    resample = 2 if own.resample is None else own.resample
    if resample not in INTERPOLATION:
        raise ValueError(f"resample is {resample!r}, and one of {', '.join(map(str, INTERPOLATION))} is known")
    out = {"interpolation": INTERPOLATION[int(resample)], **_sizes(own)}
    factor = 255 * own.rescale_factor if own.do_rescale else 255.0  # timm's mean and std are those of pixels in 0..1
    normalised = getattr(own, "do_normalize", False)
    mean = _three("image_mean", own.image_mean) if normalised else [0.0] * 3
    std = _three("image_std", own.image_std) if normalised else [1.0] * 3
    if not all(std):
        raise ValueError(f"image_std is {own.image_std!r}, and nothing can be divided by 0")
    if getattr(own, "include_top", False):  # EfficientNet's divides by std twice
        std = [s * s for s in std]
    if getattr(own, "rescale_offset", False):
        mean = [m + 1 for m in mean]
    if getattr(own, "do_flip_channel_order", False):
        out["flip_channels"] = True
    return out | {"mean": [m / factor for m in mean], "std": [s / factor for s in std]}


def _three(name: str, value: Any) -> list[float]:
    """A number for each channel; one number is that of all."""
    listed = [value] * 3 if isinstance(value, (int, float)) else list(value or ())
    if len(listed) != 3 or not all(isinstance(v, (int, float)) and math.isfinite(v) for v in listed):
        raise ValueError(f"{name} is {value!r}, and three numbers are needed where do_normalize is on")
    return [float(v) for v in listed]


def _sizes(own) -> dict:
    """input_size, crop_pct and crop_mode of an image processor of transformers."""
    if getattr(own, "max_num_patches", None):  # SigLIP 2 keeps the aspect ratio; here a square of as many patches
        return _square(own.patch_size * round(own.max_num_patches**0.5), "squash")
    size, crop = dict(own.size or {}), dict(getattr(own, "crop_size", None) or {})
    short, share = size.get("shortest_edge"), getattr(own, "crop_pct", None)
    cut = crop.get("height") if getattr(own, "do_center_crop", False) else None
    side = short or size.get("height") or 224
    if share and not cut:  # ConvNeXT's processor: from 384 px on it squashes
        return _square(side, "squash") if side >= 384 else _square(side, "center", int(side / share))
    if short and type(own).__name__.startswith("Levit"):
        share = 224 / 256
    resized = int(side / share) if share else side
    return _square(cut or resized, "center" if short or share else "squash", resized)


def _square(side: int, mode: str, resized: int | None = None) -> dict:
    """timm's fields of a square of `side` px out of an image resized to `resized` px."""
    return {"input_size": [3, side, side], "crop_pct": min(1.0, crop_share(side, resized or side)), "crop_mode": mode}


def _check_pixels(own, cfg: dict, source: str) -> None:
    """Whether timm's transform of these fields makes of a wide photo what the processor itself makes of it.

    Rounding, and a crop one pixel beside where an odd rest is halved, pass.

    Raises:
        UserError: it makes something else.
    """
    wide = np.random.default_rng(0).integers(0, 256, (8, 12, 3), dtype=np.uint8)
    photo = Image.fromarray(wide).resize(PHOTO, Image.Resampling.BICUBIC)
    told = f"The image processor of {source} ({type(own).__name__}) "
    advice = "Take another encoder, or a local copy without its preprocessor_config.json, which is then given squares."
    try:
        theirs = np.asarray(own(photo, return_tensors="np")["pixel_values"][0], dtype=np.float64)
    except Exception as error:  # whatever a class of transformers raises for a picture it does not take
        raise UserError(
            f"{told}takes no photo of {PHOTO[0]} x {PHOTO[1]} px ({type(error).__name__}). {advice}"
        ) from error
    side = cfg["input_size"][-1]
    if theirs.shape != (3, side, side):
        size = " x ".join(str(n) for n in reversed(theirs.shape[-2:]))
        raise UserError(
            f"{told}makes {size} px of a photo of {PHOTO[0]} x {PHOTO[1]} px, and networks see squares of one size "
            f"here. {advice}"
        )
    shown = timm.data.resolve_data_config(pretrained_cfg={k: v for k, v in cfg.items() if k != "flip_channels"})
    ours = timm.data.create_transform(**shown, is_training=False)(photo).numpy().astype(np.float64)
    theirs = theirs[::-1] if cfg.get("flip_channels") else theirs
    levels = 255 * np.abs(ours - theirs) * np.reshape(cfg["std"], (3, 1, 1))
    if levels.mean() > ALIKE:
        raise UserError(
            f"{told}does more to a photo than resize, crop and normalise it, so that features would not be those of "
            f"the repository. {advice}"
        )


def crop_share(size: int, stored: int) -> float:
    """size / stored, rounded so that floor(size / share) is `stored` again: processors resize the short side to
    that."""
    share = size / stored
    return share if math.floor(size / share) == stored else math.nextafter(share, 0.0)
