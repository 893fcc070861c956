"""Commas and other signs in labels of several classes: between the classes, or of their names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

from ...errors import UserError
from ...text import warn
from .labels import is_list, raw_parts
from .numbers import NUMBER
from .several import COMMA, lists_among, parts_between


def at_commas(cells: Sequence[Any], where: str, known: Collection[str] = ()) -> list[Any]:
    """The labels, each a list of classes where commas stand between these.

    That is so where no label has another separator, and what stands between commas is found in other labels too, as a
    whole or in other places there.

    Args:
        cells: the labels, None without one.
        where: the name of the table.
        known: classes that are there already, whose commas are of their names.

    Raises:
        UserError: the labels may be lists, and may be names.
    """
    names = {cell.strip() for cell in cells if isinstance(cell, str)}
    plain = {cell.strip() for cell in cells if isinstance(cell, str) and not is_list(cell)}
    tell_lists({part.strip() for cell in plain for part in raw_parts(cell)} - {*known}, where, known)
    other = any(isinstance(cell, (list, tuple, dict)) for cell in cells)
    if other or any(is_list(name) or len(raw_parts(name)) > 1 for name in names):
        return [*cells]
    with_commas = sorted(name for name in names - {*known} if "," in name)
    if not with_commas or lists_among(names, signs=COMMA):  # which are refused, with what to write
        return [*cells]
    parts = {name: [part for part in map(str.strip, name.split(",")) if part] for name in with_commas}
    alone = Counter(part for some in parts.values() for part in {*some})
    counts = alone + Counter(names - {*with_commas})
    places = {(part, k) for some in parts.values() for k, part in enumerate(some)}
    moves = len(places) > len(alone)  # "pink" first here and last there, as no family of names is written
    touching, whole = ([n for n in with_commas if test(counts[p] > 1 for p in parts[n])] for test in (any, all))
    lists = touching == with_commas and (moves or whole == with_commas)
    first = (whole or touching or with_commas)[0]
    several, one = ";".join(parts_between(first, names) or parts[first]), f'["{first}"]'
    alike = sum(any(alone[part] > 1 for part in some) for some in parts.values())
    if not lists and all(map(NUMBER.fullmatch, names)):  # decimal commas, and no classes at all (`of_numbers`)
        return [*cells]
    if not lists and (whole or 2 * alike > len(with_commas)):
        raise UserError(
            f"{where}: {first!r} may be several classes with commas between them, or the name of one. Write several as "
            f"{several}, and one as {one}."
        )
    warn(
        f"{where}: commas as in {first!r} are taken to stand between classes. Write {one} if it is the name of one."
        if lists
        else f"{where}: labels with commas, such as {first!r}, count as one class each. Write {several} for several."
    )
    return [parts.get(cell.strip(), cell) if isinstance(cell, str) else cell for cell in cells] if lists else [*cells]


def tell_lists(names: Collection[str], where: str, known: Collection[str]) -> None:
    """A warning of names that may be lists of those known, as "a/b": no fault, as many a class is called "a and b"."""
    lists = lists_among([name for name in names if "," not in name], {*names, *known})
    if first := next(iter(lists), None):
        warn(f"{where}: labels such as {first!r} count as one class each. Write {';'.join(lists[first])} for several.")
