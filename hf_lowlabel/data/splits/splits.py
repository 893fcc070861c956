"""Which images are labeled, which are held out: a JSON manifest, written once and re-read exactly.

    {"dataset", "config", "revision", "fingerprint", "seed", "class_names",
     "labeled": {id: class name}, "validation": [ids], "test": [ids], "unlabeled": "rest"}

Labeled images are also among the unlabeled ones; those for validation and test never are. Where the labels are of a
table of the user, "held_labels": {id: class name} has those of validation and test, which the data may not have.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...errors import UserError, unknown
from ...fields import check_types
from ...files import by_name, read_json, write_text
from ...text import series, warn
from ..dataset import ImageDataset
from ..labels.labels import parts_of
from ..labels.several import contradiction, contradicts
from .published import fetch, is_published


class SplitIndices(NamedTuple):
    """A split as positions in its source, each int64 and ascending."""

    labeled: np.ndarray
    labels: np.ndarray  # of `labeled`, as indices into the split's class names; -1: none, or more than one class
    validation: np.ndarray
    test: np.ndarray
    train: np.ndarray  # unlabeled: all but validation and test


@dataclass(repr=False)
class Split:
    """A manifest: which images of a data set are labeled, and which are held out.

    dataset, config, revision, fingerprint: the ImageDataset it was made for. class_names: in the order of the
    classifier's outputs. labeled: image id -> class name, or several as a;b, "none" for none of them (None: a mask, or
    several classes, which the data has).
    validation, test: ids that are never trained on. held_labels: id of one of those -> label, where it is not the
    data's: only for scores. seed: of the draw. unlabeled: always "rest", all but validation
    and test. passed_over: ids that a person gave no label when asked; they are not asked for again. reviewed: ids whose
    label a person has looked at a second time; `review` does not show it again. `save`, `load` and `resolve` it.
    """

    dataset: str
    class_names: list[str]
    labeled: dict[str, str | None]
    config: str | None = None
    revision: str | None = None
    fingerprint: str | None = None  # None: a published list of ids, which knows no particular copy of the data
    seed: int | None = None
    validation: list[str] = field(default_factory=list)
    test: list[str] = field(default_factory=list)
    unlabeled: str = "rest"
    held_labels: dict[str, str] = field(default_factory=dict)
    passed_over: list[str] = field(default_factory=list)
    reviewed: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.unlabeled != "rest":
            raise UserError(f"The split has \"unlabeled\": {self.unlabeled!r}; only 'rest' is known.")
        known, held = set(self.class_names), {*self.validation, *self.test}
        if strange := [id for id in self.held_labels if id not in held]:
            raise UserError(f"The split has a held label of {strange[0]!r}, which is not in validation or test.")
        for id, name in (*self.labeled.items(), *self.held_labels.items()):
            if name is not None and name not in known:
                if some := contradicts(name):
                    raise UserError(f"The label {name!r} of image {id!r} in the split {contradiction(some)}.")
                for part in parts_of(name):
                    if part not in known:
                        raise unknown(f"class of image {id!r} in the split", part, self.class_names)
        seen: dict[str, str] = {}
        for part in ("labeled", "validation", "test"):
            for id in getattr(self, part):
                if id in seen:
                    raise UserError(
                        f"The image {id!r} is in {seen[id]} and in {part} of the split. List each image once."
                    )
                seen[id] = part

    def __repr__(self) -> str:
        return (
            f"Split({self.dataset!r}, labeled={len(self.labeled)}, validation={len(self.validation)}, "
            f"test={len(self.test)}, classes={len(self.class_names)})"
        )

    @property
    def hash(self) -> str:
        """sha256 of the content; the order of the labeled images does not matter."""
        return hashlib.sha256(json.dumps(self.content(), sort_keys=True).encode()).hexdigest()

    def content(self) -> dict[str, Any]:
        """The fields as they are written; a manifest without those that came later is as it always was."""
        later = ("held_labels", "passed_over", "reviewed")
        return {name: value for name, value in asdict(self).items() if name not in later or value}

    def text(self) -> str:
        """The manifest as it is written."""
        return json.dumps(self.content(), indent=1, ensure_ascii=False)

    def save(self, path: str | Path) -> None:
        """The whole file or none."""
        write_text(path, self.text())

    @classmethod
    def load(cls, path: str | Path | Split) -> Split:
        """From a file, or from the Hub: "hub:org/name[/configuration][@revision]" (published.py); a Split as it is."""
        if isinstance(path, Split):
            return path
        file = fetch(str(path), "split.json") if is_published(path) else Path(path)
        content = read_json(file, "Correct the path, or write a split with `hf-lowlabel split`.")
        return cls.from_dict(content, str(path))

    @classmethod
    def from_dict(cls, content: Mapping, where: str = "the split") -> Split:
        if not isinstance(content, Mapping):
            raise UserError(f"{where} holds a {type(content).__name__}, not an object with 'labeled' in it.")
        known = {f.name for f in fields(cls)}
        for key in content:
            if key not in known:
                raise unknown(f"key in {where}", key, known)
        check_types(cls, content, where)
        return cls(**content)

    def resolve(self, source: ImageDataset) -> SplitIndices:
        """Positions in `source`, after checking that it is the data this split was made for."""
        self.check(source)
        named = {*self.labeled, *self.validation, *self.test}
        position = {id: i for i, id in enumerate(source.ids) if id in named}  # not of all: there may be millions
        absent = [id for part in (self.labeled, self.validation, self.test) for id in part if id not in position]
        if absent:
            raise UserError(
                f"{len(absent)} images of the split are not in {source.name!r}, such as {absent[0]!r}; ids there are "
                f"such as {source.ids[0]!r} and {source.ids[-1]!r}. "
                + made_again(absent[0], source.ids)
                + "Give the data the split was made for (--dataset, --dataset-config, --dataset-revision)."
            )
        class_index = {name: k for k, name in enumerate(self.class_names)}
        labeled = sorted((position[id], class_index.get(name, -1)) for id, name in self.labeled.items())
        validation, test = (
            np.array(sorted(position[id] for id in ids), dtype=np.int64) for ids in (self.validation, self.test)
        )
        free = np.ones(len(source), dtype=bool)
        free[validation] = free[test] = False
        pairs = np.array(labeled, dtype=np.int64).reshape(-1, 2)
        of_data = pairs[:, 1] < 0
        if of_data.any() and source.masks is None and source.labels.ndim == 1:
            own = self.without_foreign(source).with_classes(self.class_names).labels
            pairs[of_data, 1] = own[pairs[of_data, 0]]
        return SplitIndices(pairs[:, 0], pairs[:, 1], validation, test, np.flatnonzero(free))

    def check(self, source: ImageDataset) -> None:
        if self.foreign(source) and self.fingerprint is None:  # else it was made of these very data, and said so
            warn(
                f"{series(source.class_names[:10])} in {source.name!r} are none of the classes of the split "
                f"({series(self.class_names[:10])}): the labels are those of the split alone"
            )
        if not self.foreign(source):
            there = set(source.class_names)
            for name in self.class_names if there else ():
                if name not in there:
                    having = [id for id, label in self.labeled.items() if label == name]
                    of = f"; {len(having)} labels are of it, such as that of {having[0]}" if having else ""
                    raise unknown(
                        f"class in the split (the data {source.name!r} lacks it{of})", name, source.class_names
                    )
        if self.fingerprint is not None and self.fingerprint != source.fingerprint:
            raise UserError(
                f"The data {source.name!r} (fingerprint {source.fingerprint[:12]}) differs from the {self.dataset!r} "
                f"the split was made for (fingerprint {self.fingerprint[:12]}, revision {self.revision}): other "
                "images, ids, labels or files. Give the original data (--dataset, --dataset-revision), or make a new "
                "split with `hf-lowlabel split`."
            )

    def without_passed_over(self, rows: np.ndarray, ids: Sequence[str]) -> np.ndarray:
        """Those of some rows, int64, that a person can be asked for. ids: of all rows."""
        passed = {*self.passed_over}  # without any, not a look at millions of names
        return np.array([row for row in rows if ids[row] not in passed], np.int64) if passed else rows

    def foreign(self, source: ImageDataset) -> bool:
        """Are the classes of `source` others altogether, as folders by day or by slide are? All labels are then the
        split's."""
        return bool(self.class_names and source.class_names) and set(self.class_names).isdisjoint(source.class_names)

    @property
    def several(self) -> bool:
        """Whether a label that stands here is of several classes."""
        known = set(self.class_names)
        given = (*self.labeled.values(), *self.held_labels.values())
        return any(name is not None and name not in known for name in given)

    def answered(self, source: ImageDataset, several: bool) -> ImageDataset:
        """`source` with the labels that stand here in the place of its own: of held-out images, and where an image may
        have `several` classes of labeled ones too."""
        if not several:
            return self.scored(source)
        given, names = {**self.labeled, **self.held_labels}, list(self.class_names)
        texts = {id: name for id, name in given.items() if name is not None}
        if not texts:
            return source
        known = source.labels.ndim == 2 and set(source.class_names) <= set(names)
        labels = source.with_classes(names).labels.copy() if known else np.full((len(source), len(names)), -1)
        column = {name: k for k, name in enumerate(names)}
        for i, id in enumerate(source.ids):
            if id in texts:
                labels[i] = 0
                labels[i, [column[part] for part in parts_of(texts[id])]] = 1
        return replace(source, labels=labels, class_names=names)

    def scored(self, source: ImageDataset) -> ImageDataset:
        """`source` with one class an image: the labels of held-out images that stand here in the place of its own."""
        if not self.held_labels or self.several:
            return source
        own, index = self.without_foreign(source), {name: k for k, name in enumerate(self.class_names)}
        labels = own.with_classes(self.class_names).labels.copy()
        for i, id in enumerate(source.ids):
            if id in self.held_labels:
                labels[i] = index[self.held_labels[id]]
        return replace(source, labels=labels, class_names=list(self.class_names))

    def without_foreign(self, source: ImageDataset) -> ImageDataset:
        """`source` without labels where its classes are others altogether."""
        return source.without_targets() if self.foreign(source) else source

    def targets(self, source: ImageDataset) -> np.ndarray:
        """The labels of the images of `source` by the split's class names, int64 [N] or int8 [N, K]; -1 = none."""
        labels = self.without_foreign(source).with_classes(self.class_names).labels.copy()
        at = self.resolve(source)
        if labels.ndim == 1:  # of several classes the data has them
            labels[at.labeled] = at.labels
        return labels


def given_split(split: Any) -> Any:
    """What was given as `split`: a Split, a path, or None. Raises UserError for anything else."""
    return split if isinstance(split, Split) else by_name("split", split, "a Split, or the path of a manifest")


def manifest(
    source: ImageDataset,
    labeled: Mapping[str, str | None],
    *,
    validation: Sequence[str] = (),
    test: Sequence[str] = (),
    seed: int | None = None,
    class_names: Sequence[str] | None = None,
    held_labels: Mapping[str, str] | None = None,
    passed_over: Sequence[str] = (),
    reviewed: Sequence[str] = (),
    drawn: bool = False,
) -> Split:
    """A split of `source` from lists of ids (a published list, labels just collected), checked against it.

    labeled: id -> class name, or None for a mask or several classes, which the data then has to have.
    held_labels: of validation and test, where they are not the data's. `class_names` is for a source that has none;
    otherwise they are the source's. drawn: a budget has taken `labeled` from the labels of the source.
    """
    names = list(class_names or source.class_names or sorted(set(labeled.values()) - {None}))
    split = Split(
        dataset=source.name,
        config=source.config,
        revision=source.revision,
        fingerprint=source.fingerprint,
        seed=seed,
        class_names=names,
        labeled=dict(labeled),
        validation=list(validation),
        test=list(test),
        held_labels=dict(held_labels or {}),
        passed_over=list(passed_over),
        reviewed=list(reviewed),
    )
    at, has_target = split.resolve(source), source.has_target
    if None in labeled.values():
        for i in np.concatenate([at.labeled[at.labels < 0], at.validation, at.test]):
            if not has_target[i] and source.ids[i] not in split.held_labels:
                what = "mask" if source.masks else "label"
                raise UserError(
                    f"The image {source.ids[i]!r} is without a {what}, and each labeled, validation and test image of "
                    f"{source.name!r} needs one. Add it, or take the image off the list."
                )
    else:
        warn_without_label(split, source if drawn else None)
    return split


def warn_without_label(split: Split, source: ImageDataset | None = None) -> None:
    """source: the data whose labels a budget has drawn from: it may have others of such a class."""
    used = {part for name in split.labeled.values() if name is not None for part in (name, *parts_of(name))}
    without = [name for name in split.class_names if name not in used]
    if without and split.labeled:
        shown = series(without[:40]) + (", ..." if len(without) > 40 else "")
        do = "Label some images of them."
        if source is not None and has_more(split, source, without):
            do = "Give more labels" + (", or draw with --class-balanced." if source.labels.ndim == 1 else ".")
        warn(
            f"{len(without)} of {len(split.class_names)} classes have no labeled image and cannot be "
            f"learned: {shown}. {do}"
        )


def has_more(split: Split, source: ImageDataset, names: Sequence[str]) -> bool:
    """Whether the data have labels of these classes that a split neither uses nor holds out."""
    used, wanted = {*split.labeled, *split.validation, *split.test}, {*names} & {*source.class_names}
    at = [source.class_names.index(name) for name in wanted]
    shows = np.isin(source.labels, at) if source.labels.ndim == 1 else (source.labels[:, at] > 0).any(1)
    return any(source.ids[i] not in used for i in np.flatnonzero(shows))


def made_again(lost: str, ids: Sequence[str]) -> str:
    """What to do about an id of a split with the folders above images/train/ in it, as those of version 0.1.0."""
    parts, there = lost.split("/"), {*ids}
    k = next((k for k in range(1, len(parts)) if "/".join(parts[k:]) in there), None)
    if k is None:
        return ""
    above = "/".join(parts[:k])
    return f"They are there without {above}/ before them: if the data is the same, make the split again. "
