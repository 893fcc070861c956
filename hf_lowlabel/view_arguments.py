"""What the network sees of an image: settings of `arguments`."""

from __future__ import annotations

from dataclasses import dataclass

from .fields import setting


@dataclass
class ViewArguments:
    """What the network sees of an image: sizes and random changes."""

    image_size: int | None = setting(
        None,
        "side of training views (with masks, crops); None: the model's (random weights or masks: the images' if "
        "smaller)",
        unit="px",
        min=1,
    )
    stored_size: int | None = setting(
        None,
        "side of stored images (with masks the longer); None: image_size if it is below 64 px, the images are no "
        "larger or the encoder's preprocessing squashes them to squares, else 8/7 of it; with masks the image's own. "
        "Pretraining stores squares: the centre crop or the squashed image, for segmentation as many crops as cover "
        "a wide image",
        unit="px",
        min=1,
    )
    image_height: int | None = setting(
        None, "height of a training view; None: image_size", unit="px", min=1, of_task=True, verb="finetune"
    )
    scale: list[float] | None = setting(
        None, "smallest and largest factor by which a training view is scaled", above=0, of_task=True, verb="finetune"
    )
    rotation: float = setting(
        0.0,
        "largest rotation of a training view, either way",
        unit="degrees",
        min=0,
        max=180,
        of_task=True,
        verb="finetune",
    )
    window: int | None = setting(
        None,
        "side of a sliding window on test images; None: whole images",
        unit="px",
        min=1,
        of_task=True,
        may_change=True,
        verb="finetune",
    )
    flip: bool | None = setting(None, "mirror images at random; None: as the data allows (never for digits)")
    augment: str = setting(
        "fixmatch-pytorch", "RandAugment preset of the strong view", choices=("fixmatch-pytorch", "usb")
    )
    min_scale: float | None = setting(None, "smallest share of the image area in a random resized crop", above=0, max=1)
    randaugment: bool = setting(
        False, "RandAugment, which also rotates and shears, on random resized crops too (pretraining)"
    )
    color: bool = setting(
        True, "change colours; off (for classes told by colour): only brightness, contrast and sharpness"
    )
