"""The words in the names of folders and files that say a split: train2017/, val_images/, testset/, test_ids.csv."""

from __future__ import annotations

import re
from collections.abc import Sequence

from .folders import SPLITS

OF_IMAGES = ("train", "validation", "test")
IMAGE_WORDS = frozenset("image images img imgs picture pictures photo photos set data".split())
LIST_WORDS = IMAGE_WORDS | {*"autosplit list split ids files names label labels metadata info".split()}
ALONE = r"(?<![^\W\d_]){}(?![^\W\d_])"  # no letters beside it
GLUED = re.compile(
    ALONE.format(f"({'|'.join(word for of in OF_IMAGES for word in SPLITS[of])})({'|'.join(IMAGE_WORDS)})")
)
TEST_DEV = re.compile(ALONE.format("test[-_]?dev"))  # COCO's test images


def words_in(name: str) -> set[str]:
    """The words of a name in small letters, "testset" as two."""
    return {*re.findall(r"[^\W\d_]+", GLUED.sub(r"\1 \2", TEST_DEV.sub("test", name.lower())))}


def splits_in(name: str) -> set[str]:
    """The splits of images that words of a name say."""
    words = words_in(name)
    return {split for split in OF_IMAGES if not words.isdisjoint(SPLITS[split])}


def split_said(parts: Sequence[str]) -> str | None:
    """The split that the last of some names says which says one, as in instances_train2017; None for two of them."""
    for part in reversed(parts):
        if said := splits_in(part):
            return said.pop() if len(said) == 1 else None
    return None


def besides(name: str, split: str) -> frozenset[str]:
    """The words of a name but for those that say a split or images."""
    return frozenset(words_in(name) - {*SPLITS[split]} - IMAGE_WORDS)


def called_as_split(folder: str) -> str | None:
    """The split that the name of a folder says with no other words than those for images, as train2017 and val_images:
    test_tubes may be a class."""
    split = split_said([folder])
    return split if split is not None and not besides(folder, split) else None


def is_called(stem: str, split: str) -> bool:
    """Whether the name of a list or a table says its split and nothing else."""
    return words_in(stem) <= {*SPLITS[split], *LIST_WORDS}
