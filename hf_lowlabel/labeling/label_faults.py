"""What is wrong with labels as they were read: names that are no class, and lists that may be names."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable
from typing import Any

from ..data.labels.labels import NOTHING, class_order, parts_of
from ..data.labels.several import COMMA, contradiction, contradicts, list_fault, lists_among
from ..text import series
from .label_rows import SHOWN


def several_hint(one: str, other: str, several: bool) -> str:
    """What to do with two labels of an image."""
    if several:
        return f"; {NOTHING} says that no class applies"
    return f"; several classes are written {one};{other} in one row, with --task multilabel" if one and other else ""


def list_faults(labels: dict[str, str], where: dict[str, str], classes: Iterable[str]) -> list[str]:
    """Classes that are lists of classes, as "a, b", where they are not known themselves."""
    of = {part: where[id] for id, label in reversed(labels.items()) for part in parts_of(label)}
    lists = lists_among([*of, *classes], signs=COMMA)
    return [f"{of[name]}: {list_fault(name, parts)}" for name, parts in lists.items() if name not in {*classes}]


def class_faults(
    labels: dict[str, str], where: dict[str, str], classes: list[str] | None, new_classes: bool, several: bool = False
) -> list[str]:
    """Labels that are no class, and classes that differ in capitals only."""
    if several:
        parts: dict[Any, str] = {(id, part): part for id, label in labels.items() for part in parts_of(label)}
        torn = {id: some for id, label in labels.items() if (some := contradicts(label))}
        return [
            *(f"{where.get(id, repr(id))}: {labels[id]!r} {contradiction(some)}" for id, some in torn.items()),
            *class_faults(parts, {key: where.get(key[0], key[0]) for key in parts}, classes, new_classes),
        ]
    faults = []
    used = class_order(set(labels.values()))
    of, counts, known = dict[str, str](), Counter(labels.values()), set(classes or ())
    for id, label in labels.items():
        of.setdefault(label, where.get(id, id))
    if classes and not new_classes and used and not set(used) & set(classes):
        faults.append(
            f"no label ({series(used[:10])}) is one of the classes that are known: {series(classes[:10])}; if "
            "those are folders that say nothing of the class, give --new-classes"
        )
    elif classes and not new_classes:
        for name in used:
            if name not in known:
                near = difflib.get_close_matches(name, classes, n=1, cutoff=0.5) if len(faults) < SHOWN else []
                faults.append(
                    f"{of[name]}: {name!r} ({counts[name]} labels) is no class; "
                    + (f"did you mean {near[0]!r}? " if near else "")
                    + f"known: {series(classes[:20])}; give --new-classes to add it"
                )
    spelled: dict[str, str] = {}
    for name in dict.fromkeys([*(classes or ()), *used]):
        other = spelled.setdefault(name.casefold(), name)
        if other != name and name in of and not known >= {name, other}:
            faults.append(f"{of[name]}: {name!r} and {other!r} differ in capitals only; use one of them")
    return faults
