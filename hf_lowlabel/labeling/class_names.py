"""Valid class names: any text on one line, in any script."""

from __future__ import annotations

import unicodedata

from ..errors import UserError
from .labels import clean

TURNING = {*"\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"}  # the direction of what follows
MARK = "\ufeff"  # of UTF-8, which text may bring along from a file: at the head of classes.txt it would be dropped
NO_TEXT = ("Cc", "Cs", "Zl", "Zp")  # control characters, halves of one, ends of lines and paragraphs


def typed(name: object) -> str:
    """A name as it was typed, with a plain blank for every other one: no-break, ideographic and the like."""
    text = str(name or "")
    text = text.replace(MARK, "") or text  # alone it is no name, but no empty one either, which deletes a class
    return clean("".join(" " if unicodedata.category(c) == "Zs" else c for c in text))


def check_text(name: str) -> None:
    """UserError for what is no text on one line; joiners, which Persian, Indic scripts and emoji need, are text."""
    if strange := [c for c in name if c in TURNING or unicodedata.category(c) in NO_TEXT]:
        raise UserError(
            f"The name of a class is text on one line, and this one holds U+{ord(strange[0]):04X}. Give one without "
            "control characters, which end a line or turn the direction of text."
        )
    if name and all(unicodedata.category(c) == "Cf" for c in name):
        raise UserError("The name of a class that was given has no letter that is seen. Give another one.")


def alike(name: str) -> str:
    """The same for names that differ in capitals or in kinds of blanks alone."""
    return typed(name).casefold()
