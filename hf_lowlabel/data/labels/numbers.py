"""Labels that are numbers: whole ones that became fractions on their way, and measurements, which are no classes."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from ...errors import UserError
from ...text import warn

NUMBER = re.compile(r"[-+]?([0-9]+[.,]?[0-9]*|[.,][0-9]+)(e[-+]?[0-9]+)?", re.IGNORECASE)
WHOLE = re.compile(r"([-+]?[0-9]+)\.0+")
FEW = 10  # labels that say nothing yet


def of_numbers(labels: Sequence[Sequence[str]], where: str, known: Collection[str] = ()) -> dict[str, str]:
    """What to read in the place of labels, where all are numbers: "1" for "1.0", as pandas writes whole numbers beside
    empty cells.

    Args:
        labels: the classes of each image that has some.
        where: the column.
        known: classes that keep their names.

    Raises:
        UserError: they are measurements: fractions, most of which occur once.
    """
    given = [label for of_image in labels for label in of_image]
    names = set(given)
    if not names or not all(map(NUMBER.fullmatch, names)) or any("." in name and name in known for name in names):
        return {}
    out = {name: match[1] for name in names if (match := WHOLE.fullmatch(name))}
    whole = {out.get(name, name) for name in names}
    if len(given) >= FEW and len(whole) * 2 > len(given) and whole.isdisjoint(known):
        if not all(name.lstrip("+-").isdecimal() for name in whole):
            raise UserError(
                f"{where} holds {len(given)} numbers with {len(whole)} different values, such as {given[0]}: "
                "measurements, not classes. Give another column of labels, or sort the numbers into classes, such as "
                "low and high."
            )
        values = sorted(map(int, whole))
        if len(whole) == len(given) and values[-1] - values[0] >= len(values):
            warn(
                f"{where}: each of the {len(given)} labels is another number, such as {given[0]}, so that no class has "
                "two images. Give another column if these are measurements or numbers of the images."
            )
    return out
