"""The images and masks of a run of segmentation: source, split, test images, canvases, and what they say of themselves."""

from __future__ import annotations

import math
import statistics
from pathlib import Path

import numpy as np
import torch
from tqdm.auto import tqdm

from ..arguments import RunConfig
from ..data.dataset import ImageDataset, load_source
from ..data.folders import is_table
from ..data.mask_folders import layout
from ..data.mask_splits import make_mask_split, split_from_lists
from ..data.padded_cache import build_padded_cache
from ..data.segmentation import SegmentationSource, join_images, load_segmentation
from ..data.splits import Split
from ..distributed import interactive
from ..errors import MissingSplit, UserError
from . import setup


def open_masks(config: RunConfig, split: str | None = None, names: list[str] | None = None) -> SegmentationSource:
    """The images and masks a run trains on, the second, unlabeled source joined on; or those of another `split`, whose
    classes are `names`."""
    source = load_segmentation(
        config.dataset,
        config=config.dataset_config,
        split=split or config.dataset_split,
        revision=config.dataset_revision,
        image_column=config.image_column,
        mask_column=config.mask_column,
        classes=declared_classes(config) or names,
        mask_format=config.mask_format,
        mask_ignore=config.mask_ignore,
    )
    if config.unlabeled_dataset and split is None:
        source = join_images(
            source, raw_images(config.unlabeled_dataset, config.unlabeled_dataset_split, source.class_names)
        )
    return source


def declared_classes(config: RunConfig) -> list[str] | str | None:
    """Names, or the one text file of them."""
    given = list(config.classes)
    return given[0] if len(given) == 1 else given or None


def raw_images(dataset: str, split: str, names: list[str]) -> ImageDataset:
    """Images alone; a folder with masks beside its images does not count the masks among them."""
    path = Path(dataset).expanduser()
    if path.is_dir() and layout(path) is not None:
        return load_segmentation(path, split=split, classes=names).images()
    return load_source(dataset, split=split)


def open_images(config: RunConfig) -> ImageDataset:
    """What target pretraining for segmentation sees: the images of a source with masks, or plain images. No mask is read."""
    path = Path(config.dataset).expanduser()
    if path.exists() and layout(path) is None and not is_table(path):
        return setup.open_source(config)
    return open_masks(
        config, names=None if config.split else ["background", "object"]
    ).images()  # a manifest knows the classes


def squares_of(source: ImageDataset) -> int:
    """Squares that target pretraining cuts an image into, so that together they hold all of it: two for photos of 4:3, for
    16:9 and for Cityscapes' 2:1. By the median ratio of the sides; up to a tenth over is cut off, half at each end."""
    return math.ceil(statistics.median(max(size) / min(size) for size in setup.sampled_sizes(source)) - 0.1)


def read_split(config: RunConfig, source: SegmentationSource) -> Split:
    """The manifest `config.split`, or that of a published list of the labeled ids (.txt), checked against the masks."""
    split = split_from_lists(source, config.split) if str(config.split).endswith(".txt") else Split.load(config.split)
    if split.class_names != source.class_names:
        raise UserError(
            f"found the classes {', '.join(split.class_names[:8])} in the split and {', '.join(source.class_names[:8])} in "
            f"{source.name!r}; expected the same in the same order, since masks hold their numbers; fix: --classes"
        )
    at = split.resolve(source)
    for part in (at.labeled, at.validation, at.test):
        for i in part[~source.has_mask[part]]:
            raise UserError(
                f"found image {source.ids[i]!r} of the split without a mask in {source.name!r}; expected one for each "
                "labeled, validation and test image; fix: add it, or take the image out of the split"
            )
    return split


def choose_split(config: RunConfig, source: SegmentationSource) -> tuple[Split, SegmentationSource, np.ndarray]:
    """(which images have their masks used, where the test images are, which they are); as in finetune_run."""
    if (config.split is None) == (config.num_labels is None):
        raise UserError(
            "expected either --num-labels N (a budget to draw) or --split split.json (a manifest, or a list of ids), found "
            + ("neither" if config.split is None else "both")
        )
    given = read_split(config, source) if config.split else None
    if given is not None and given.test:
        return given, source, given.resolve(source).test
    other = (
        None
        if config.dataset_split != "train" and config.test_dataset_split is None
        else test_source(config, source.class_names)
    )
    if given is None:
        given = make_mask_split(
            source,
            config.num_labels,
            seed=config.seed,
            validation=config.validation,
            test_fraction=0.0 if other is not None else config.test_fraction,
        )
    if other is not None:
        return given, other, np.flatnonzero(other.has_mask)
    return given, source, given.resolve(source).test


def test_source(config: RunConfig, names: list[str]) -> SegmentationSource | None:
    """The data set's own test images: of the split that is asked for, else the first of test and validation with masks."""
    for name in [config.test_dataset_split] if config.test_dataset_split else ["test", "validation"]:
        try:
            other = open_masks(config, name, names)
        except MissingSplit:
            if config.test_dataset_split:
                raise
            continue
        if other.has_mask.any():
            return other
        if config.test_dataset_split:
            raise UserError(
                f"found no mask in split {name!r} of {config.dataset!r}; expected some to test on; fix: --test-dataset-split"
            )
    return None


def make_padded_cache(
    config: RunConfig, source, indices, device, what: str, *, masks: bool, max_bad: float | None = None
):
    """A pool of images at their own size, or scaled to stored_size px on the longer side."""
    with tqdm(total=len(indices), desc=f"reading {what}", unit="img", disable=not interactive(), leave=False) as bar:
        pool = build_padded_cache(
            source,
            indices,
            masks=masks,
            long_side=config.stored_size,
            device=device,
            memory_budget=setup.budget(config, device),
            workers=config.workers,
            max_bad=config.max_bad if max_bad is None else max_bad,
            streaming="auto" if config.streaming is None else config.streaming,
            progress=lambda done, total: bar.update(done - bar.n),
        )
    setup.tell_skipped(pool, len(indices), what)
    return pool


def statistics_of(pool, sample: int = 256) -> tuple[list[float], list[float]]:
    """Channel mean and standard deviation (0..1) of up to `sample` images spread over the pool."""
    total, square, count = torch.zeros(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64), 0
    for i in torch.linspace(0, len(pool) - 1, min(sample, len(pool))).long():
        h, w = pool.sizes[i].tolist()
        x = pool.take(i[None])[0, :3, :h, :w].cpu().double() / 255
        total, square, count = total + x.sum((1, 2)), square + x.square().sum((1, 2)), count + h * w
    mean = total / count
    std = (square / count - mean.square()).clamp_min(0).sqrt().clamp_min(1e-3)
    return [round(v, 6) for v in mean.tolist()], [round(v, 6) for v in std.tolist()]


def shown_in(pool, classes: int) -> list[int]:
    """Images of a pool with masks that show each class."""
    counts = np.zeros(256, dtype=np.int64)
    for packed in pool.stream(torch.arange(len(pool)).split(1)):
        counts[np.unique(packed[0, 3].cpu().numpy())] += 1
    return counts[:classes].tolist()
