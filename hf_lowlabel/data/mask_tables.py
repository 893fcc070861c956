"""An image and a mask column of a parquet file or a data set on the Hub."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..errors import UserError, unknown
from .folders import is_table
from .segmentation import MASK_COLUMNS, Declared, SegmentationSource, build
from .tables import TableReader, card_license, find_ids, find_image, hub_facts, is_image, load, open_local


def load_parquet(
    path: Path, config: str | None, split: str, image_column: str | None, mask_column: str | None, declared: Declared
) -> SegmentationSource:
    dataset = open_local(path, config, split)
    name, split = (path.stem, split) if path.is_file() else (path.resolve().name, str(dataset.split))
    return from_dataset(dataset, name, config, split, None, card_license(path), image_column, mask_column, declared)


def load_hub(
    name: str,
    config: str | None,
    split: str,
    revision: str | None,
    image_column: str | None,
    mask_column: str | None,
    declared: Declared,
) -> SegmentationSource:
    revision, license = hub_facts(name, revision)
    dataset = load(name, config, split, revision=revision)
    config, split = dataset.config_name if dataset.config_name != "default" else config, str(dataset.split)
    return from_dataset(dataset, name, config, split, revision, license, image_column, mask_column, declared)


def from_dataset(
    dataset,
    name: str,
    config: str | None,
    split: str,
    revision: str | None,
    license: str | None,
    image_column: str | None,
    mask_column: str | None,
    declared: Declared,
) -> SegmentationSource:
    import datasets

    if not len(dataset):
        raise UserError(f"found no rows in {name!r} (split {split!r}); expected at least one image")
    if dataset._indices is not None:
        dataset = dataset.flatten_indices()
    mask = find_mask(dataset.features, mask_column)
    image = find_image({c: f for c, f in dataset.features.items() if c != mask}, image_column)
    images, masks = (
        TableReader(dataset.select_columns([c]).cast_column(c, datasets.Image(decode=False))) for c in (image, mask)
    )
    content = [f"{a}/{b}" for a, b in zip(images.content(), masks.content(), strict=True)]
    return build(
        name,
        split,
        find_ids(dataset),
        present(masks),
        images,
        masks,
        content,
        declared,
        config=config,
        revision=revision,
        license=license,
    )


def find_mask(features, asked: str | None) -> str:
    """The mask column: as asked, or by its name."""
    found = [column for column, feature in features.items() if is_image(feature)]
    if asked is not None:
        if asked not in features:
            raise unknown("mask column", asked, features)
        if asked not in found:
            raise UserError(
                f"found column {asked!r} of type {features[asked]}; expected masks as images; columns with "
                f"images: {', '.join(found) or 'none'}"
            )
        return asked
    for name in MASK_COLUMNS:
        if name in found:
            return name
    raise UserError(
        f"found no mask column among {', '.join(features)}; expected images in one called "
        f"{', '.join(MASK_COLUMNS[:4])} ...; fix: name it with --mask-column"
    )


def present(reader: TableReader) -> np.ndarray:
    """bool [N]: the row holds a mask."""
    _, contents, paths = reader.columns()
    parts = zip(contents, paths, strict=True)
    return np.concatenate([np.asarray(c.is_valid()) | np.asarray(p.is_valid()) for c, p in parts])


__all__ = ["is_table", "load_hub", "load_parquet"]
