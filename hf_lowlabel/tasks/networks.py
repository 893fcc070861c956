"""From settings to a timm network with the sizes at which it sees images; the same for classifiers and backbones."""

from __future__ import annotations

import logging
import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from ..arguments import ModelArguments, ViewArguments
from ..data.dataset import ImageDataset
from ..errors import UserError
from ..models.image_processors import crop_share

log = logging.getLogger("hf_lowlabel")
LARGEST_VIEW = 321  # px: side of a training view of masks where none is asked for
SMALLEST_VIEW = 96  # px, of `auto`


@dataclass
class Network:
    """A model and how it sees images.

    model: a PreTrainedModel. size: (height, width) of a view in px. stored: side in px at which images are kept; for
    images at their own sizes the longer side, None: as they are.
    """

    model: nn.Module
    size: tuple[int, int]
    stored: int | None


def is_model_folder(path: str) -> bool:
    return (Path(path) / "config.json").is_file()


def timm_network(
    arguments: ModelArguments,
    views: ViewArguments,
    dataset: ImageDataset,
    create: Callable[..., nn.Module],
    *,
    whole: bool = True,
) -> Network:
    """The network of a run, with the preprocessing that evaluation will use written into its configuration.

    Args:
        create: `create_classifier` or `create_backbone` with all but name, weights and size filled in.
        whole: an encoder whose own preprocessing makes a square of a whole image gets such images, else their middle.
    """
    again = arguments.init_from and is_model_folder(arguments.init_from)
    name = arguments.init_from if again else arguments.model
    pretrained = not (arguments.from_scratch and name == arguments.model)
    model = create(
        name=name,
        pretrained=pretrained,
        revision=arguments.model_revision,
        image_size=views.image_size,
    )
    cfg = model.config.pretrained_cfg
    own, squash = model.preprocessing, whole and cfg.get("crop_mode") == "squash"
    side = typical_side(dataset)
    size, stored = sizes(
        views,
        own["input_size"][-1],
        side,
        own=bool(cfg.get("fixed_input_size")) or (pretrained and whole),
        share=own["crop_pct"] if squash else 7 / 8,
    )
    mode = "squash" if squash else "center"
    cfg.update(input_size=[3, size, size], crop_pct=crop_share(size, stored), crop_mode=mode)
    report = "" if pretrained else f"{model.load_report}, "  # of weights that are loaded, loading has told
    shape = ", whole ones squashed to squares as the encoder's own preprocessing does" if squash else ""
    at = f"{side} px, enlarged" if size > side else f"{stored} px"
    log.info("%sviews of %d px from images of %s%s", report, size, at, shape)
    return Network(model, (size, size), stored)


def encoder_of_runs(
    name: str, dataset: ImageDataset, image_size: int | None, revision: str | None, create: Callable[..., nn.Module]
) -> nn.Module:
    """An encoder that sees images as a run on them does, at their own size where that is below its own, so that the run
    takes its features over. create: `create_backbone`."""
    arguments, views = ModelArguments(model=name, model_revision=revision), ViewArguments(image_size=image_size)
    return timm_network(arguments, views, dataset, create).model


def sampled_sizes(dataset: ImageDataset) -> list[tuple[int, int]]:
    """(width, height) in px of up to 32 images spread over the data set."""
    found = []
    for i in range(0, len(dataset), max(1, len(dataset) // 32)):
        try:
            with dataset.image(i) as image:
                found.append(image.size)
        except UserError:  # an unreadable image is reported when the cache is built
            continue
    if not found:
        raise UserError(
            f"None of the sampled images of {dataset.name!r} could be read. Give image files that Pillow can open."
        )
    return found


def typical_side(dataset: ImageDataset) -> int:
    """Median short side in px of the sampled images."""
    return int(statistics.median_low(min(size) for size in sampled_sizes(dataset)))


def typical_ratio(dataset: ImageDataset) -> float:
    """Median ratio of the longer to the shorter side of the sampled images."""
    return statistics.median(max(size) / min(size) for size in sampled_sizes(dataset))


def squares_per_image(dataset: ImageDataset) -> int:
    """Square crops needed to cover an image of median aspect ratio: ceil(ratio - 0.1)."""
    return math.ceil(typical_ratio(dataset) - 0.1)


def sizes(
    views: ViewArguments, model_side: int | None, side: int, own: bool = False, share: float = 7 / 8
) -> tuple[int, int]:
    """(side of a view, side of a stored image) in px. own: the network takes its own size only, or its weights learned
    from images of that size, and smaller ones are enlarged: else its filters do not find what they learned. share:
    about what of the side of a stored image a view shows, where nothing else is said."""
    size = views.image_size or (model_side if own and model_side else min(model_side or 224, side))
    if views.stored_size is not None and views.stored_size < size:
        raise UserError(
            f"A stored_size of {views.stored_size} px is below the image_size of {size} px. Give at least as many."
        )
    margin = 4 * round(size * (1 - share) / (4 * share))
    stored = views.stored_size or (size if size < 64 or side <= size else size + margin)
    if (stored - size) % 4:
        nearest = size + 4 * round((stored - size) / 4)
        raise UserError(
            f"A stored_size of {stored} px is {stored - size} px above the image_size of {size} px. Give a multiple "
            f"of 4 above it, for example {nearest}: the saved image processor then cuts out the pixels of evaluation."
        )
    return size, stored


def whole_views(dataset: ImageDataset, asked: int | None = None) -> list[dict[str, int | None]]:
    """Of images with masks the usual view, then views of whole smaller images, so that a view keeps seeing what belongs
    together. asked: side of the only one."""
    short, ratio = typical_side(dataset), typical_ratio(dataset)
    if asked is not None:  # no image is enlarged
        return [dict(image_size=asked, stored_size=round(asked * ratio) if asked < short else None)]
    full = min(LARGEST_VIEW, short)
    smaller = dict.fromkeys(32 * round(share * full / 32) for share in (0.75, 0.5, 0.375, 0.3))
    return [dict(image_size=full, stored_size=None)] + [
        dict(image_size=side, stored_size=round(side * ratio)) for side in smaller if SMALLEST_VIEW <= side < full
    ]
