"""What tasks and runs hand to each other."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..arguments import DataArguments
from ..data.annotations.annotations import json_and_xml, outlines_in_text
from ..data.dataset import ImageDataset
from ..data.files.folders import is_table, listing
from ..data.labels.labels import NO_LABEL, LabelRules
from ..data.masks.mask_folders import layout
from ..data.splits.splits import Split
from ..errors import UserError

UNKNOWN_RANGE = "floating-point pixels, or values outside 0..65535; give --value-range LOW HIGH"
MODEL_FILES = ("config.json", "model.safetensors", "preprocessor_config.json")
# defaults of target pretraining where a method has none of its own; the same for all tasks
PRETRAINING: dict[str, Any] = dict(
    max_steps=1000,
    batch_size=256,
    optimizer="lars",
    learning_rate=0.3,
    weight_decay=1e-6,
    lr_scheduler_type="cosine",
    warmup_ratio=0.0,
    head_lr=1.0,
    l2_sp=1e-2,
)

# defaults of finetuning on masks, where a method has none of its own
OF_MASKS: dict[str, Any] = dict(
    max_steps=10_000,
    batch_size=10,
    optimizer="adam",
    learning_rate=1e-4,
    weight_decay=0.0,
    lr_scheduler_type="constant",
    warmup_ratio=0.0,
    head_lr=10.0,  # of a new decoder on a pretrained encoder; else 1 (`settings.resolve`)
    unlabeled_ratio=1,
    scale=[0.5, 1.5],
)


def photo_code(value_range: Sequence[float] | None, name: str = "image") -> str:
    """Python that reads photo.jpg into `name` as `predict` does: upright, RGB, more than 8 bits from `value_range`;
    without one whole numbers of 16 bits alone.

    It needs NumPy as np, and Image and ImageOps of Pillow.
    """
    low, high = value_range or (0, 65535)
    scaled = f"(np.interp({name}, ({low:.15g}, {high:.15g}), (0, 255)) + 0.5).astype(np.uint8)"
    refused = (
        f'    if {name}.mode == "F" or np.min({name}) < 0 or np.max({name}) > 65535:\n'
        f'        raise ValueError("{UNKNOWN_RANGE}")\n'
    )
    return (
        f'{name} = ImageOps.exif_transpose(Image.open("photo.jpg"))\n'
        f'if {name}.mode[0] in "IF":  # more than 8 bits, which Pillow alone would clip\n'
        f"{'' if value_range else refused}"
        f"    {name} = Image.fromarray({scaled})\n"
        f'{name} = {name}.convert("RGB")\n'
    )


def label_rules(data: DataArguments) -> LabelRules:
    """How labels in tables are taken."""
    return LabelRules(
        tuple(data.no_label) or NO_LABEL, data.skip_missing, data.skip_conflicts, plain_folders=data.plain_folders
    )


def refuse_foreign(data: DataArguments, task: Any) -> None:
    """UserError for a setting of masks that this task does not take."""
    for name in ("mask_column", "classes", "mask_format", "mask_ignore", "instances"):
        if getattr(data, name) and name not in task.takes:
            raise UserError(f"{name} says what masks mean, and this is for a {task.product}. Leave it out.")


def as_path(dataset: Any) -> Path | None:
    """The local path that a data set may be; None for data in memory."""
    return Path(dataset).expanduser() if isinstance(dataset, (str, Path)) else None


def of_images_alone(path: Path) -> bool:
    """Whether a folder has no layout of masks, no table and no file of annotations."""
    if not path.is_dir() or layout(path) is not None or is_table(path):
        return False
    drawn = itertools.chain(json_and_xml(path), outlines_in_text(path, path, listing(path)))
    return next(drawn, None) is None


class LeftOut(NamedTuple):
    """Of each image that is judged: what `Task.total` makes a score of, [m, ...], and the number of its group, int [m]:
    images of one have much in common (`near_copies.copies_of_each`)."""

    tallies: np.ndarray
    group: np.ndarray


@dataclass
class Examples:
    """Images with what is known of them.

    cache: decoded images. members: int64 [n], which of them. targets: [n] or [n, K], None where masks lie in the cache.
    """

    cache: Any
    members: Tensor
    targets: Tensor | None

    def some(self, rows: np.ndarray) -> Examples:
        """Those at `rows`, int64 [m]."""
        at = torch.as_tensor(rows)
        return Examples(self.cache, self.members[at], None if self.targets is None else self.targets[at])


@dataclass
class Chosen:
    """Which images are labeled, and where the test images are: `test_at` are positions in `test`.

    words: which images are the test set, for the card. published: name of a published split where they are exactly
    that.
    """

    split: Split
    test: ImageDataset
    test_at: np.ndarray
    words: str
    published: str | None


@dataclass(frozen=True, eq=False)
class Attempt:
    """A way to train that `auto` tries.

    name: in tables. settings: of `finetune`. unlabeled: whether it uses images without a label. frozen: whether its
    method trains no network. floor: whether others are taken only where they are clearly better, since the answer of a
    search is not to fall below it.
    """

    name: str
    settings: Mapping[str, Any]
    unlabeled: bool = True
    frozen: bool = False
    floor: bool = False


Section = tuple[str, str, str]  # of a report, what it shows of a run beside its numbers: (title, note, HTML)
