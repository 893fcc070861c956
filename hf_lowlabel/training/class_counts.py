"""Classes that cannot be learned: shown by no labeled image, or by every one."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np

from ..data.dataset import ImageDataset
from ..data.labels.labels import parts_of, raw_parts
from ..data.labels.several import lists_among
from ..data.splits.splits import SplitIndices
from ..errors import UserError
from ..text import listed

log = logging.getLogger("hf_lowlabel")
MOST = 20  # names that are listed
FEWEST, SHORT = 4, 4  # labels, and letters of a name, below which a class with one label is no sign of a slip
NUMBERS, WORDS = re.compile(r"\d+"), re.compile(r"[\s_-]+")
KIND = re.compile("[a-z]|[ivx]+")  # what a word of a name is that tells kinds of one thing apart


def tell_counts(task: Any, dataset: ImageDataset, at: SplitIndices, names: list[str]) -> None:
    """Say it before anything is computed; of masks it is known when they are read (`tell_without`).

    Raises:
        UserError: of several classes an image, each is shown by all labeled images or by none.
    """
    number = len(at.labeled)
    if task.labeling == "mask" or not number:
        return
    if task.labeling == "class":
        check_known(dataset, at)
        tell_without([name for k, name in enumerate(names) if not (at.labels == k).any()])
        labels_of = dict(zip(names, np.bincount(at.labels, minlength=len(names)).tolist(), strict=True))
        tell_lists(labels_of)
        tell_misspelt(labels_of)
        return
    counts = (np.asarray(task.match(dataset, names).labels)[at.labeled] > 0).sum(0)
    tell_misspelt(dict(zip(names, counts.tolist(), strict=True)))
    always = [name for name, n in zip(names, counts, strict=True) if n == number]
    never = [name for name, n in zip(names, counts, strict=True) if n == 0]
    if len(always) + len(never) == len(names):
        what = f"shows {listed(always, MOST)}" if always else f"shows none of {listed(never, MOST)}"
        other = f"without {'it' if len(always) == 1 else 'them'}, as none" if always else "that show some"
        raise UserError(
            f"Every one of the {number} labeled images {what}, so that there is nothing to tell apart. Label some "
            f"images {other}."
        )
    if always:
        log.warning(
            "every labeled image shows %s, and nothing can be learned of a class that all of them show: label some "
            "images without it",
            listed(always, MOST),
        )
    tell_without(never)


def check_known(dataset: ImageDataset, at: SplitIndices) -> None:
    """UserError for labeled images of which neither the split nor the data says the class."""
    if len(none := at.labeled[at.labels < 0]):
        raise UserError(
            f"{len(none)} labeled images of the split, such as {dataset.ids[none[0]]!r}, have no label, neither "
            "there nor in the data. Add them, or take the images off the list."
        )


def tell_lists(counts: dict[str, int]) -> None:
    """Warn of classes that are several others at once, as `a|b`, or may be, as `a/b`. counts: labels by class."""
    often = Counter(part for name in counts for part in raw_parts(name))
    lists = lists_among(counts, [part for part, count in often.items() if count > 1])
    if several := [name for name, count in counts.items() if count and (name in lists or ";" in name)]:
        count, parts = sum(counts[name] for name in several), lists.get(several[0], raw_parts(several[0]))
        if all(len(raw_parts(name)) > 1 for name in several):
            what = f"name{'s' if count == 1 else ''} several at once: --task multilabel"
        else:
            what = f"may name several at once; if so, --task multilabel with {';'.join(parts)}"
        labels = "1 label" if count == 1 else f"{count} labels"
        log.warning("%s such as %r %s learns each of the classes", labels, several[0], what)


def count_names(labels: Iterable[str | None], several: bool) -> dict[str, int]:
    """Labels by class. several: a label may name several classes; None: the data has it."""
    known = [label for label in labels if label is not None]
    return Counter(name for label in known for name in (parts_of(label) if several else [label]))


def tell_misspelt(counts: dict[str, int]) -> None:
    """Warn of classes with one label whose name is a letter off that of another with more. counts: labels by class."""
    rare = [name for name, count in counts.items() if count == 1]
    if sum(counts.values()) < FEWEST or not rare:
        return
    by_rest: dict[str, list[str]] = {}  # names that are a letter off share what is left without it
    for name in (name for name, count in counts.items() if count > 1):
        for rest in without_a_letter(name):
            by_rest.setdefault(rest, []).append(name)
    for name in rare:
        alike = {other: None for rest in without_a_letter(name) for other in by_rest.get(rest, ())}
        if near := [other for other in alike if a_letter_off(name, other)]:
            meant = max(near, key=lambda other: counts[other])
            log.warning(
                "one label is of the class %r, and %d are of %r: did you mean %r? Correct the label, or leave it where "
                "it is a class of its own",
                name,
                counts[meant],
                meant,
                meant,
            )


def without_a_letter(name: str) -> list[str]:
    """A name without regard to case, whole and without each of its letters, each once."""
    name = name.casefold()
    return list(dict.fromkeys([name, *(name[:i] + name[i + 1 :] for i in range(len(name)))]))


def a_letter_off(one: str, other: str) -> bool:
    """Whether two names differ in case, or by a letter that is missing, another or in its neighbour's place; short ones
    and those that are told apart by numbers, or by a word of one letter, do not count."""
    a, b = sorted((one.casefold(), other.casefold()), key=len)
    by_design = a != b and (NUMBERS.sub("", a) == NUMBERS.sub("", b) or kinds(a, b))
    if len(a) < SHORT or abs(len(a) - len(b)) > 1 or by_design:
        return False
    at = next((i for i in range(len(a)) if a[i] != b[i]), len(a))
    swapped = a[:at] + a[at + 1 : at + 2] + a[at : at + 1] + a[at + 2 :]
    return b in (a, swapped) or (a[at:] == b[at + 1 :] if len(a) < len(b) else a[at + 1 :] == b[at + 1 :])


def kinds(a: str, b: str) -> bool:
    """Whether names differ in one word alone that is a letter or a Roman number in both: `type a` and `type b`."""
    mine, theirs = WORDS.split(a), WORDS.split(b)
    differ = [pair for pair in zip(mine, theirs) if pair[0] != pair[1]]
    return len(mine) == len(theirs) and len(differ) == 1 and all(map(KIND.fullmatch, differ[0]))


def tell_without(names: list[str]) -> None:
    if names:
        log.warning("%s", without(names))


def without(names: list[str]) -> str:
    """What it means that no labeled image shows these classes."""
    them = "it is" if len(names) == 1 else "they are"
    return f"no labeled image shows {listed(names, MOST)}: {them} never named. Label some images that do"
