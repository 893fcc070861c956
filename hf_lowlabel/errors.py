"""Errors a user can act on: what was found, and what to do."""

from __future__ import annotations

import difflib
import numbers
from collections.abc import Iterable

from .text import brief, series


class UserError(ValueError):
    """Bad input, found before anything is computed. The command line prints its message without a traceback."""


class MissingSplit(UserError):
    """The data set has no split of that name."""


class OneClass(UserError):
    """Masks hold one class alone, so that there is nothing to tell apart."""


class Nameless(UserError):
    """Its words name nothing of this machine: a page that travels may quote them."""


class TooManyBad(UserError):
    """More images cannot be read than may be left out; skipped: (id, reason) of each. count: of those seen."""

    def __init__(self, message: str, skipped: Iterable[tuple[str, str]], count: int):
        super().__init__(message)
        self.skipped, self.count = list(skipped), count


class Diverged(UserError):
    """The loss was not finite for too many steps in a row, or a network answers with what is no number."""


def at_least(name: str, value: int | None, least: int, most: int | None = None) -> None:
    """Raises UserError where what is given is no whole number, below `least` or above `most`."""
    if value is None:
        return
    range_ = f"{least} or more" if most is None else f"{least} to {most}"
    if not is_number(value):
        raise UserError(f"{name} is {brief(value)}, which is no number. Give {range_}.")
    if not isinstance(value, numbers.Integral):
        raise UserError(f"{name} is {value}, which is no whole number. Give {range_}.")
    if not value >= least or most is not None and value > most:
        raise UserError(f"{name} is {value}. Give {range_}.")


def above_zero(name: str, value: float) -> None:
    """Raises UserError where what is given is no number above 0."""
    if not is_number(value) or not value > 0:
        raise UserError(f"{name} is {brief(value)}. Give a number above 0.")


def is_number(value: object) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def one_image(batch_size: int, parts: int) -> UserError:
    """The error for a batch of which a network sees one image alone, where its layers or the loss compare images."""
    return UserError(
        f"A batch_size of {batch_size} in {parts} part{'s' * (parts > 1)} leaves one image a forward pass, which has "
        f"nothing to be compared with. Give --batch-size {2 * parts} or more."
    )


def hub_is_down(error: Exception) -> str:
    """What a Hub that is down or busy says, in words; "" for an answer that asking again does not change."""
    status = getattr(getattr(error, "response", None), "status_code", 0)
    return f"The Hub did not answer ({status}). Try again in a while" if status >= 500 or status == 429 else ""


def nearest(name: str, files: Iterable[str]) -> list[str]:
    """The file that may be meant by a name, if one is close; that both end in .jpg says nothing."""
    bare = {file.rpartition(".")[0] or file: file for file in files}
    near = difflib.get_close_matches(name.rpartition(".")[0] or name, list(bare), n=1, cutoff=0.75)
    return [bare[stem] for stem in near]


def unknown(kind: str, found: str, known: Iterable[str], error: type[UserError] = UserError) -> UserError:
    """The error for a name that is not one of `known`; offers the nearest ones first."""
    names = sorted({str(k) for k in known})
    near = difflib.get_close_matches(str(found), names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(repr(n) for n in near)}? " if near else ""
    if near and len(names) > 40:  # nobody looks for another one among so many
        return error(f"unknown {kind} {found!r}: {hint}({len(names):,} are known)")
    shown = series(names[:40]) + (f", ... ({len(names)} in all)" if len(names) > 40 else "")
    return error(f"unknown {kind} {found!r}: {hint}known: {shown or '(none)'}")
