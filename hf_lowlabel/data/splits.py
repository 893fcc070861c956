"""Which images are labeled, which are held out: a JSON manifest, written once and re-read exactly.

    {"dataset", "config", "revision", "fingerprint", "seed", "class_names",
     "labeled": {id: class name}, "validation": [ids], "test": [ids], "unlabeled": "rest"}

Labeled images are also in the unlabeled pool; those for validation and test never are.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..errors import UserError, unknown
from .dataset import ImageDataset
from .permutation import epoch_permutation
from .published import fetch, is_published


class SplitIndices(NamedTuple):
    """A split as positions in its source, each int64 and ascending."""

    labeled: np.ndarray
    labels: np.ndarray  # of `labeled`, as indices into the split's class names; -1 = a mask
    validation: np.ndarray
    test: np.ndarray
    train: np.ndarray  # the unlabeled pool: all but validation and test


@dataclass
class Split:
    """A manifest: which images of a data set are labeled, and which are held out.

    dataset, config, revision, fingerprint: the ImageDataset it was made for. class_names: in the order of the classifier's
    outputs. labeled: image id -> class name (None: the label is a mask). validation, test: ids that are never trained on.
    seed: of the draw. unlabeled: always "rest", all but validation and test. `save`, `load` and `resolve` it.
    """

    dataset: str
    class_names: list[str]
    labeled: dict[str, str | None]  # null: the label is a mask
    config: str | None = None
    revision: str | None = None
    fingerprint: str | None = None  # None: a published list of ids, which knows no particular copy of the data
    seed: int | None = None
    validation: list[str] = field(default_factory=list)
    test: list[str] = field(default_factory=list)
    unlabeled: str = "rest"

    def __post_init__(self) -> None:
        if self.unlabeled != "rest":
            raise UserError(f"found \"unlabeled\": {self.unlabeled!r} in the split; expected 'rest'")
        for id, name in self.labeled.items():
            if name is not None and name not in self.class_names:
                raise unknown(f"class of image {id!r} in the split", name, self.class_names)
        seen: dict[str, str] = {}
        for part in ("labeled", "validation", "test"):
            for id in getattr(self, part):
                if id in seen:
                    raise UserError(f"found image {id!r} in {seen[id]} and in {part} of the split; expected each once")
                seen[id] = part

    @property
    def hash(self) -> str:
        """sha256 of the content; the order of the labeled images does not matter."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    def text(self) -> str:
        """The manifest as it is written."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False)

    def save(self, path: str | Path) -> None:
        """The whole file or none: written beside its place, then renamed."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            with open(part, "w", encoding="utf-8") as file:
                file.write(self.text())
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: str | Path) -> Split:
        """From a file, or from the Hub: "hub:org/name[/configuration][@revision]" (published.py)."""
        try:
            file = fetch(str(path), "split.json") if is_published(path) else Path(path)
            content = json.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise UserError(
                f"found no split file {str(path)!r}; fix the path, or write one with `hf-lowlabel split`"
            ) from None
        except ValueError as error:
            raise UserError(f"found a split file {str(path)!r} that is not JSON: {error}") from error
        return cls.from_dict(content, str(path))

    @classmethod
    def from_dict(cls, content: Mapping, where: str = "the split") -> Split:
        if not isinstance(content, Mapping):
            raise UserError(f"found a {type(content).__name__} in {where}; expected an object with 'labeled' in it")
        known = {f.name for f in fields(cls)}
        for key in content:
            if key not in known:
                raise unknown(f"key in {where}", key, known)
        for key, kind in {"dataset": str, "class_names": list, "labeled": dict}.items():
            if not isinstance(content.get(key), kind):
                raise UserError(f"found {key!r} = {content.get(key)!r:.60} in {where}; expected a {kind.__name__}")
        return cls(**content)

    def resolve(self, source: ImageDataset) -> SplitIndices:
        """Positions in `source`, after checking that it is the data this split was made for."""
        self.check(source)
        named = {*self.labeled, *self.validation, *self.test}
        position = {id: i for i, id in enumerate(source.ids) if id in named}  # not of all: there may be millions
        absent = [id for part in (self.labeled, self.validation, self.test) for id in part if id not in position]
        if absent:
            raise UserError(
                f"found {len(absent)} images in the split that {source.name!r} lacks, such as "
                f"{absent[0]!r}; expected ids such as {source.ids[0]!r} and {source.ids[-1]!r}; fix: give "
                "the data the split was made for (--dataset, --dataset-config, --dataset-revision)"
            )
        class_index = {name: k for k, name in enumerate(self.class_names)}
        labeled = sorted((position[id], class_index.get(name, -1)) for id, name in self.labeled.items())
        validation, test = (
            np.array(sorted(position[id] for id in ids), dtype=np.int64) for ids in (self.validation, self.test)
        )
        pool = np.ones(len(source), dtype=bool)
        pool[validation] = pool[test] = False
        pairs = np.array(labeled, dtype=np.int64).reshape(-1, 2)
        return SplitIndices(pairs[:, 0], pairs[:, 1], validation, test, np.flatnonzero(pool))

    def check(self, source: ImageDataset) -> None:
        if self.foreign(source):
            warnings.warn(
                f"found {', '.join(source.class_names[:10])} in {source.name!r}, none of them a class of the split "
                f"({', '.join(self.class_names[:10])}): the labels are those of the split alone"
            )
        else:
            for name in self.class_names if source.class_names else ():
                if name not in source.class_names:
                    raise unknown(f"class in the split (the data {source.name!r} lacks it)", name, source.class_names)
        if self.fingerprint is not None and self.fingerprint != source.fingerprint:
            raise UserError(
                f"found data {source.name!r} (fingerprint {source.fingerprint[:12]}) that differs from the "
                f"{self.dataset!r} the split was made for (fingerprint {self.fingerprint[:12]}, revision "
                f"{self.revision}): other images, ids, labels or files; fix: give the original data (--dataset, "
                "--dataset-revision), or make a new split with `hf-lowlabel split`"
            )

    def foreign(self, source: ImageDataset) -> bool:
        """Are the classes of `source` others altogether, as folders by day or by slide are? All labels are then the split's."""
        return bool(self.class_names and source.class_names) and set(self.class_names).isdisjoint(source.class_names)

    def targets(self, source: ImageDataset) -> np.ndarray:
        """int64 [N]: the label of each image of `source` as an index into the split's class names; -1 = none."""
        own = source.without_labels() if self.foreign(source) else source
        labels = own.with_classes(self.class_names).labels.copy()
        at = self.resolve(source)
        labels[at.labeled] = at.labels
        return labels


def manifest(
    source: ImageDataset,
    labeled: Mapping[str, str],
    *,
    validation: Sequence[str] = (),
    test: Sequence[str] = (),
    seed: int | None = None,
    class_names: Sequence[str] | None = None,
) -> Split:
    """A split of `source` from lists of ids (a published list, labels just collected), checked against it.

    `class_names` is for a source that has none; otherwise they are the source's.
    """
    names = list(class_names or source.class_names or sorted(set(labeled.values())))
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
    )
    split.resolve(source)
    warn_without_label(split)
    return split


def warn_without_label(split: Split) -> None:
    without = [name for name in split.class_names if name not in set(split.labeled.values())]
    if without and split.labeled:
        warnings.warn(
            f"{len(without)} of {len(split.class_names)} classes have no labeled image and cannot be "
            f"learned: {', '.join(without)}; fix: more labels, or "
            "--class-balanced",
            stacklevel=3,
        )


def make_split(
    source: ImageDataset,
    num_labels: int | None = None,
    *,
    seed: int = 0,
    class_balanced: bool = False,
    validation: int = 0,
    test_fraction: float = 0.0,
) -> Split:
    """Choose `num_labels` labeled images (None: every label there is) after setting test and validation aside.

    Test: `test_fraction` of the labeled images; validation: that many images more. Both are stratified. The test set
    depends on `seed` only, and a larger budget contains the smaller one where both are `class_balanced` (the same number
    per class). source: what `load_source` returns. Raises UserError for a budget that the labels there cannot meet.
    """
    if not hasattr(source, "labels"):
        raise UserError(
            f"found a {type(source).__name__}; expected a ImageDataset; fix: make_split(load_source(...), ...)"
        )
    has_label = np.flatnonzero(source.labels >= 0)
    check_budget(source, num_labels, class_balanced, validation, test_fraction, len(has_label))
    test = stratified(source, has_label, round(test_fraction * len(has_label)), seed, "split/test")
    rest = np.setdiff1d(has_label, test)
    held = stratified(source, rest, validation, seed, "split/validation")
    rest = np.setdiff1d(rest, held)
    wanted = len(rest) if num_labels is None else num_labels
    if wanted > len(rest):
        raise UserError(
            f"found {len(rest)} labeled images to choose from ({len(has_label)} less {len(test)} for test and "
            f"{len(held)} for validation); expected at least {wanted}, the label budget; fix: fewer labels, or a "
            "smaller test or validation set"
        )
    if class_balanced and num_labels is not None:
        chosen = balanced(source, rest, wanted, seed)
    else:
        chosen = rest[epoch_permutation(seed, "split/labeled", 0, wanted, len(rest))] if wanted else rest[:0]
    labeled = {source.ids[i]: source.class_names[source.labels[i]] for i in np.sort(chosen)}
    held_ids, test_ids = ([source.ids[i] for i in part] for part in (held, test))
    return manifest(source, labeled, validation=held_ids, test=test_ids, seed=seed)


def check_budget(
    source: ImageDataset, num_labels, class_balanced: bool, validation, test_fraction, available: int
) -> None:
    if not available:
        raise UserError(
            f"found no label in {source.name!r}; expected some to make a split from; fix: sort images into "
            "one folder per class, add metadata.csv with file_name and label, or give --split"
        )
    named = [source.class_names[k] for k in np.unique(source.labels[source.labels >= 0])]
    if len(named) < 2:
        raise UserError(
            f"found the one class {named[0]!r} among {available} labels of {source.name!r}; expected at "
            "least 2 to tell apart; fix: labels of another class, or --dataset with the folder that holds "
            "one folder per class"
        )
    classes = len(source.class_names)
    if num_labels is not None and num_labels < 1:
        raise UserError(f"found a budget of {num_labels} labels; expected at least 1")
    if class_balanced and num_labels is not None and num_labels < classes:
        raise UserError(
            f"found {num_labels} labels for {classes} classes; expected at least one each when "
            f"class-balanced; fix: --num-labels {classes} or more, or leave out "
            "--class-balanced"
        )
    if not 0 <= test_fraction < 1:
        raise UserError(f"found a test fraction of {test_fraction}; expected 0 <= fraction < 1")
    if validation < 0 or int(validation) != validation:
        raise UserError(f"found {validation} images for validation; expected a count, 0 or more")


def shuffled_class(source: ImageDataset, among: np.ndarray, k: int, seed: int, stream: str) -> np.ndarray:
    """Those of class k in an order of their own, so that a longer prefix contains a shorter one."""
    members = among[source.labels[among] == k]
    return members[epoch_permutation(seed, f"{stream}/{k}", 0, len(members), len(members))] if len(members) else members


def stratified(source: ImageDataset, among: np.ndarray, count: int, seed: int, stream: str) -> np.ndarray:
    """`count` images with each class in proportion, by largest remainder (ties to the lower class)."""
    if count > len(among):
        raise UserError(
            f"found {len(among)} labeled images left for {stream.removeprefix('split/')}; expected at least {count}"
        )
    if count == 0:
        return among[:0]
    sizes = np.bincount(source.labels[among], minlength=len(source.class_names))
    share = count * sizes / len(among)
    quota = np.floor(share).astype(np.int64)
    quota[np.argsort(-(share - quota), kind="stable")[: count - quota.sum()]] += 1
    parts = [shuffled_class(source, among, k, seed, stream)[:q] for k, q in enumerate(quota)]
    return np.sort(np.concatenate(parts))


def balanced(source: ImageDataset, among: np.ndarray, count: int, seed: int) -> np.ndarray:
    """`count` images, each class as often as any other; what does not divide goes to classes drawn at random."""
    classes = len(source.class_names)
    quota = np.full(classes, count // classes, dtype=np.int64)
    quota[epoch_permutation(seed, "split/extra", 0, classes, classes)[: count % classes]] += 1
    sizes = np.bincount(source.labels[among], minlength=classes)
    short = [k for k in range(classes) if sizes[k] < quota[k]]
    if short:
        found = ", ".join(f"{source.class_names[k]} has {sizes[k]}" for k in short[:10])
        raise UserError(
            f"found too few labeled images of {len(short)} classes ({found}); expected {int(quota.max())} "
            f"of each for {count} class-balanced labels; fix: --num-labels {int(sizes.min()) * classes} or "
            "fewer, or leave out --class-balanced"
        )
    parts = [shuffled_class(source, among, k, seed, "split/balanced")[: quota[k]] for k in range(classes)]
    return np.concatenate(parts)
