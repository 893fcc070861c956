"""Words and numbers for people: percentages, durations, and text that may stand in Markdown."""

from __future__ import annotations

import logging
import numbers
import re
import sys
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePath
from typing import Any


def percent(share: float, digits: int = 1) -> str:
    """0.123 -> "12.3 %"."""
    return f"{100 * share:.{digits}f} %"


def duration(seconds: float) -> str:
    """ "1 h 2 min", "2 min 3 s" or "3 s"."""
    minutes, s = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {s} s" if minutes else f"{seconds:.0f} s"


def clock(seconds: float) -> str:
    """1:02:03 or 2:03, for a line that is written again and again."""
    hours, rest = divmod(int(max(seconds, 0)), 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"


def cell(text: Any) -> str:
    """Text that may stand in a Markdown line or table: one line, no markup of its own."""
    text = printable(" ".join(str(text).split()))
    text = re.sub(r"([\\`*\[\]|]|(?<!\w)_|_(?!\w))", r"\\\1", text)
    return text.replace("<", "&lt;")


def code(text: Any) -> str:
    """Text in code quotes."""
    text = printable(" ".join(str(text).split())).replace("|", "¦")
    return f"`` {text} ``" if "`" in text else f"`{text}`"


def printable(text: str) -> str:
    """Text for a terminal: names may hold characters that move its cursor or are none; they are written as escapes."""
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)


def warn(text: str) -> None:
    """A UserWarning at the line outside of this package that called into it."""
    frame, level, inside = sys._getframe(1), 2, (__package__, "contextlib")
    while (above := frame.f_back) and frame.f_globals.get("__name__", "").partition(".")[0] in inside:
        frame, level = above, level + 1
    warnings.warn(text, stacklevel=level)


def say(text: Any = "", **where: Any) -> None:
    """`print` of what may hold names of files and classes."""
    print(printable(str(text)), **where)


def brief(value: Any, most: int = 60) -> str:
    """A value in a message: words and numbers as they are, on one line; of any other object what kind it is."""
    if isinstance(value, (list, tuple)):
        inside = ", ".join(brief(one, most) for one in value[:3]) + (", ..." if len(value) > 3 else "")
        text = f"[{inside}]" if isinstance(value, list) else f"({inside})"
    elif value is None or isinstance(value, (str, bytes, numbers.Number, dict, PurePath)):
        text = " ".join(repr(value).split())
    elif isinstance(value, type):
        text = f"the class {value.__name__}"
    else:
        shape = getattr(value, "shape", None)
        kind = type(value).__name__.removeprefix("nd")  # ndarray
        text = f"{article(kind)}{f' of shape {tuple(shape)}' if isinstance(shape, tuple) else ''}"
    return text if len(text) <= most else f"{text[: most - 4]} ..."


def article(noun: str) -> str:
    return f"{'an' if noun[0] in 'AEIOUaeiou' else 'a'} {noun}"


def in_memory(value: Any) -> str:
    """What stands in a file for an object that has no name, such as "a ResNet in memory"."""
    return f"{article(type(value).__name__)} in memory"


def was_in_memory(text: Any) -> bool:
    """Whether `text` is what `in_memory` wrote."""
    return isinstance(text, str) and re.fullmatch(r"an? \w+ in memory", text) is not None


def series(names: Iterable[str]) -> str:
    """Names with commas between them, quoted where one holds a comma of its own."""
    names = list(names)
    return ", ".join(map(repr, names) if any("," in name for name in names) else names)


def listed(items: Iterable[str], most: int) -> str:
    """The first `most` items, and how many more there are."""
    items = list(items)
    return ", ".join(items[:most]) + (f" and {len(items) - most:,} more" if len(items) > most else "")


class Stderr(logging.StreamHandler):
    """Writes plain lines to what sys.stderr is by then: notebooks and tests exchange it, and close the old one.

    Silent where the root logger has handlers, which get the lines too; always: not then either, as of the command line.
    """

    always = False

    def __init__(self):
        logging.Handler.__init__(self)

    @property
    def stream(self):
        return sys.stderr

    def emit(self, record: logging.LogRecord) -> None:
        if self.always or not logging.getLogger().handlers:
            super().emit(record)


def speaks(by_itself: bool = False) -> None:
    """Give the library's logger its handler, unless it has one; by_itself: the command line, whose lines go to stderr
    and nowhere else, whatever handlers other packages have added."""
    log = logging.getLogger("hf_lowlabel")
    if not log.handlers:
        log.addHandler(Stderr())
    for handler in log.handlers:
        if by_itself and isinstance(handler, Stderr) and not handler.always:
            handler.always, log.propagate = True, False


def files_of(ids: Sequence[str], file_of: Mapping[str, str]) -> list[int] | None:
    """Number of the file that each image is of, by `ImageDataset.file_of`; None where no two are pages of one."""
    number: dict[str, int] = {}
    found = [number.setdefault(file_of.get(id, id), len(number)) for id in ids] if file_of else []
    return found if len(number) < len(found) else None
