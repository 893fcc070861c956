"""How a setting is declared as a dataclass field, and what a field's type and metadata ask of a value.

Nothing here knows a single setting. No torch is imported.
"""

from __future__ import annotations

import dataclasses
import math
import numbers
import operator
import os
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from .errors import UserError, unknown
from .text import brief


def setting(default: Any, help: str, **metadata) -> Any:
    """A dataclass field with its help text and, in `metadata`, its unit, its constraints and its marks.

    Args:
        default: the value; a list or dict is copied for every instance.
        help: what the setting does, in a few words.
        metadata: `unit` ("px", "steps"); constraints on a number `min`, `max` (both included), `above`, `below` (both
            excluded) and `share=True` (0 to 1); `choices`; `verb`, the only verb that has it; and the marks that are
            True or absent: `of_task` (only some tasks take it), `trains` (means nothing to a method on frozen
            features), `draw` (settled by a split manifest), `may_change` (on a resume), `private` (says nothing about
            the model).
    """
    metadata["help"] = help
    if isinstance(default, (list, dict)):
        return dataclasses.field(default_factory=lambda: type(default)(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


class Setting(NamedTuple):
    """One setting, as read from its dataclass field."""

    name: str
    group: str | None  # the group of arguments it is in; None: the configuration itself
    kind: type  # str, int, float, bool, list, dict, or object where anything may pass
    of: type  # type of a list's entries
    optional: bool  # whether it may be None
    default: Any
    meta: Mapping[str, Any]

    @property
    def text(self) -> str:
        """Its help, and what it is chosen from."""
        choices = self.meta.get("choices")
        return self.meta["help"] + (f"; {', '.join(map(str, choices))}" if choices else "")

    @property
    def bounds(self) -> dict[str, float]:
        """What a number must be: {"at least": 0, "below": 1}; empty where anything goes."""
        words = {"min": "at least", "above": "above", "max": "at most", "below": "below"}
        limits = {"min": 0, "max": 1} if self.meta.get("share") else self.meta
        return {word: limits[key] for key, word in words.items() if key in limits}


def settings_in(cls: type, group: str | None = None) -> list[Setting]:
    """The settings that the fields of a dataclass declare."""
    hints, out = typing.get_type_hints(cls), []
    for f in dataclasses.fields(cls):
        if "help" not in f.metadata:  # a group
            continue
        hint, optional = hints[f.name], False
        if typing.get_origin(hint) in (typing.Union, types.UnionType):
            kinds = [k for k in typing.get_args(hint) if k is not type(None)]
            hint, optional = kinds[0], len(kinds) < len(typing.get_args(hint))
        kind = object if hint is Any else typing.get_origin(hint) or hint
        of = typing.get_args(hint)[0] if kind is list else str
        default = f.default if f.default_factory is dataclasses.MISSING else f.default_factory()
        out.append(Setting(f.name, group, kind, of, optional or kind is object, default, f.metadata))
    return out


def settings_text(settings: Iterable[Setting]) -> str:
    """Settings with their defaults and what they do, one a line, for help()."""
    lines = [
        f"    {s.name} ({s.default!r}{', ' + s.meta['unit'] if 'unit' in s.meta else ''}): {s.text}" for s in settings
    ]
    return "\n".join(["\n\n    Settings (default, unit):", *lines, ""])


_NOUNS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    list: "a list",
    dict: "a mapping",
}


def coerce(s: Setting, value: Any) -> Any:
    """`value` as the type of a setting.

    Text is read as the number it spells, since YAML reads 1e-2 as text, and as a list where it has commas. What may be
    any object (`dataset`, `model`, `method`) passes as it is.

    Raises:
        UserError: the value is of another type.
    """
    if value is None and s.optional:
        return None
    if isinstance(value, str) and not value and s.kind in (str, object):  # such as a variable that is not set
        raise UserError(f"{s.name} is empty. Give it a value, or leave it out.")
    if s.kind is object:
        return os.fspath(value) if isinstance(value, os.PathLike) else value
    if s.kind is list and isinstance(value, (str, list, tuple)):
        entries = [v.strip() for v in value.split(",") if v.strip()] if isinstance(value, str) else value
        listed = [_entry(s, v) for v in entries]
        if None not in listed:
            return listed
        raise UserError(f"{s.name} is {brief(value)}. Every entry of the list must be {_NOUNS[s.of]}.")
    found = dict(value) if s.kind is dict and isinstance(value, Mapping) else _scalar(s.kind, value)
    if found is None:
        nothing = " or nothing" if s.optional else ""
        raise UserError(f"{s.name} is {brief(value)} ({type(value).__name__}). It must be {_NOUNS[s.kind]}{nothing}.")
    if s.kind is dict and not all(isinstance(key, str) for key in found):
        raise UserError(f"{s.name} is {brief(value)}. Each of its keys must be a name.")
    return found


def _scalar(kind: type, value: Any) -> Any:
    """`value` as text, number or truth value; None where it is none."""
    if kind is str:
        return os.fspath(value) if isinstance(value, (str, os.PathLike)) else None
    if kind is bool or isinstance(value, bool):
        return value if kind is bool and isinstance(value, bool) else None
    if kind not in (int, float) or not isinstance(value, (str, numbers.Real)):
        return None
    if kind is int and isinstance(value, numbers.Integral):
        return int(value)
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if kind is float else int(number) if number.is_integer() else None


def _entry(s: Setting, value: Any) -> Any:
    """An entry of a list; a number among names is a name (the classes 0, 1, 2)."""
    if s.of is str and isinstance(value, numbers.Real) and not isinstance(value, bool):
        return str(value)
    return _scalar(s.of, value)


def check(s: Setting, value: Any) -> None:
    """The constraints of a setting's field; None always passes.

    Raises:
        UserError: a number that is out of range, not a number or infinite; a value that is not among the choices.
    """
    choices = s.meta.get("choices")
    if choices and value is not None and value not in choices:
        raise unknown(s.name, value, choices)
    for number in value if isinstance(value, list) else [value]:
        if isinstance(number, bool) or not isinstance(number, numbers.Real):
            continue
        if not math.isfinite(number):
            raise UserError(f"{s.name} is {value}. It must be a finite number.")
        if not all(_KEPT[word](number, limit) for word, limit in s.bounds.items()):
            raise UserError(f"{s.name} is {value}. It must be {_asked(s.bounds)}.")


_KEPT = {"at least": operator.ge, "above": operator.gt, "at most": operator.le, "below": operator.lt}


def _asked(bounds: dict[str, float]) -> str:
    """Bounds in words."""
    if bounds == {"at least": 0, "at most": 1}:
        return "a share from 0 to 1"
    return " and ".join(f"{word} {limit}" for word, limit in bounds.items())


# ---- values that come from a file -----------------------------------------------------------------------------------


def check_types(cls: type, values: Mapping[str, Any], where: str) -> None:
    """What a file holds for the fields of a dataclass is of their types: text, numbers, and lists and mappings of them.

    Raises:
        UserError: a value of another type, or a field without a default that is not there.
    """
    hints = typing.get_type_hints(cls)
    for f in dataclasses.fields(cls):
        if f.name not in values:
            if f.default is f.default_factory is dataclasses.MISSING:
                raise UserError(f"{f.name!r} is missing in {where}. Copy the file again, or make it anew.")
        elif not _is(hints[f.name], values[f.name]):
            raise UserError(
                f"{f.name!r} in {where} is {brief(values[f.name])}. It must be {_wanted(hints[f.name])}: copy the "
                "file again, or make it anew."
            )


def _is(hint: Any, value: Any) -> bool:
    origin, inside = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return True
    if origin in (typing.Union, types.UnionType):
        return any(_is(kind, value) for kind in inside)
    if origin is list:
        return isinstance(value, list) and all(_is(inside[0], entry) for entry in value)
    if origin is dict:
        return isinstance(value, dict) and all(_is(inside[1], entry) for entry in value.values())
    if hint is type(None) or dataclasses.is_dataclass(hint):
        return value is None if hint is type(None) else isinstance(value, dict)
    if isinstance(value, bool) or hint is bool:
        return isinstance(value, bool) and hint is bool
    if isinstance(value, str):
        return issubclass(hint, str) and is_text(value)
    if hint is float:
        return isinstance(value, (int, float)) and math.isfinite(value)
    return isinstance(value, hint)


def is_text(value: str) -> bool:
    """Whether text can be written down: JSON may hold halves of characters."""
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _wanted(hint: Any) -> str:
    origin, inside = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join("nothing" if kind is type(None) else _wanted(kind) for kind in inside)
    words = "a mapping" if dataclasses.is_dataclass(hint) or hint is dict else _NOUNS.get(origin or hint, str(hint))
    return words + _SEVERAL.get(inside[-1], "") if origin in (list, dict) else words


_SEVERAL = {str: " of text", int: " of whole numbers", float: " of numbers"}
