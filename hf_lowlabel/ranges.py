"""What kinds of numbers the hyperparameters of methods are, as types of their keywords, and what these ask of a value.

    def __init__(self, model, *, tau: Share = 0.95, temperature: Positive = 0.5, memory: Count = 128)

A method of one's own may use them, or plain `float` and `int` for numbers without bounds. No torch is imported here.
"""

from __future__ import annotations

import inspect
import math
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

from .errors import UserError
from .fields import Setting, check


@dataclass(frozen=True)
class Limits:
    """What is asked of a value, as in the metadata of `fields.setting`; a limit of None is none."""

    min: float | None = None
    max: float | None = None
    above: float | None = None
    below: float | None = None
    share: bool = False
    choices: tuple[str, ...] | None = None

    def meta(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if value is not None}


Share = Annotated[float, Limits(share=True)]  # from 0 to 1
BelowOne = Annotated[float, Limits(min=0, below=1)]  # a share that is kept; of 1 nothing would ever change
Average = Annotated[float, Limits(above=0, below=1)]  # the same, of a network that has to be there
Weight = Annotated[float, Limits(min=0)]  # of a loss, or of anything that may be left out
Positive = Annotated[float, Limits(above=0)]  # temperatures, exponents, lengths
Count = Annotated[int, Limits(min=1)]
Several = Annotated[int, Limits(min=2)]
CountOrNone = Annotated[int, Limits(min=0)]


def parameters_of(taker: Callable[..., Any] | None) -> dict[str, tuple[inspect.Parameter, dict[str, Any]]]:
    """What a class or function is told by name, each parameter with the names of its module.

    These are the keyword-only ones; of a class also those with a default, or behind the first, which is the network of
    a method that is not on frozen features, and where it passes **keywords on those of the classes that it is derived
    from.
    """
    out: dict[str, tuple[inspect.Parameter, dict[str, Any]]] = {}
    for owner in getattr(taker, "__mro__", (taker,)):
        made = vars(owner).get("__init__") if isinstance(owner, type) else owner
        if made is None or made is object.__init__:
            continue
        parameters, network_first = inspect.signature(made).parameters.values(), getattr(owner, "frozen", None) is False
        for at, p in enumerate(parameters):
            named = isinstance(owner, type) and (at > 1 or p.default is not p.empty and not network_first)
            if p.kind is p.KEYWORD_ONLY or p.kind is p.POSITIONAL_OR_KEYWORD and named:
                out.setdefault(p.name, (p, getattr(made, "__globals__", {})))
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return out


def settings_of(taker: Callable[..., Any] | None) -> dict[str, Setting]:
    """The parameters of a class or function that are of a plain type or one of those above, name -> what is asked."""
    out: dict[str, Setting] = {}
    for p, names in parameters_of(taker).values():
        if (found := _kind(p.annotation, names)) is not None:
            out[p.name] = Setting(p.name, None, found[0], str, found[2], p.default, found[1])
    return out


def _kind(hint: Any, names: dict[str, Any]) -> tuple[type, dict[str, Any], bool] | None:
    """(type, constraints, whether it may be None) of an annotation; None for others than numbers, truth and text."""
    if isinstance(hint, str):
        try:
            hint = _resolved(hint, names)
        except NameError:  # a type that is there for type checkers alone
            return None
    parts = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    some = [part for part in parts if part is not type(None)]
    if len(some) != 1:
        return None
    limits: dict[str, Any] = {}
    if typing.get_origin(some[0]) is Annotated:
        some[0], stated = typing.get_args(some[0])
        limits = stated.meta() if isinstance(stated, Limits) else {}
    return (some[0], limits, len(parts) > 1) if some[0] in (int, float, bool, str) else None


def _resolved(hint: str, names: dict[str, Any]) -> Any:
    """The type that a written annotation means in the module of these names."""

    def one() -> None: ...

    one.__annotations__ = {"it": hint}
    return typing.get_type_hints(one, names, include_extras=True)["it"]


def check_value(owner: str, s: Setting, value: Any) -> None:
    """A hyperparameter is of its kind and within its bounds. owner: the method, for the message.

    Raises:
        UserError: it is not.
    """
    if value is None and s.optional:
        return
    if s.kind is bool and value not in (0, 1):
        raise UserError(f"{s.name} of {owner} is {value!r}. It must be true or false.")
    number = isinstance(value, (int, float)) and math.isfinite(value)
    if s.kind is float and not number or s.kind is int and not (number and value == int(value)):
        raise UserError(f"{s.name} of {owner} is {value!r}. It must be a {'whole ' * (s.kind is int)}number.")
    check(s._replace(name=f"{s.name} of {owner}"), value)
