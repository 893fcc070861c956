"""What the network sees of an image: settings of `arguments`."""

from __future__ import annotations

from dataclasses import dataclass

from .fields import setting


@dataclass
class ViewArguments:
    """What the network sees of an image: sizes and random changes."""

    image_size: int | None = setting(
        None, "side of a training view; the model's own, or the images' when smaller", unit="px", min=1
    )
    stored_size: int | None = setting(
        None,
        "side of a stored image, with masks the longer one; None: image_size below 64 px and where the encoder's own "
        "preprocessing squeezes whole images into squares, 8/7 of it else, with masks the image's own. Pretraining "
        "stores squares: an image's middle or such a whole one, for segmentation all that make up a wide one",
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
        "largest angle by which a training view is turned, either way",
        unit="degrees",
        min=0,
        max=180,
        of_task=True,
        verb="finetune",
    )
    window: int | None = setting(
        None,
        "side of a window that slides over test images; None: whole images",
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
        False, "RandAugment in randomly resized crops too (pretraining): it turns and shears, which crops do not"
    )
    color: bool = setting(
        True, "change colours (off: brightness, contrast and sharpness alone, where colours tell the classes)"
    )
