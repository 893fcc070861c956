"""What is uploaded once, though every process of a launch asks for it."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from dataclasses import asdict
from typing import ParamSpec

from ..distributed import join_processes, text_of_first, while_others_wait, world
from ..errors import UserError
from .upload import PushError, Uploaded

P = ParamSpec("P")


def once(push: Callable[P, Uploaded]) -> Callable[P, Uploaded]:
    """`push`, which the first process of a launch does while the others wait, and whose answer all have: where it is by
    then, or the error."""

    @functools.wraps(push)
    def call(*args: P.args, **given: P.kwargs) -> Uploaded:
        join_processes()
        if world() == 1:
            return push(*args, **given)
        raised, answer = list[BaseException](), dict[str, object]()

        def work() -> None:
            try:
                answer["done"] = asdict(push(*args, **given))
            except BaseException as error:
                raised.append(error)
                answer[type(error).__name__] = str(error)

        while_others_wait(work)
        told = json.loads(text_of_first(json.dumps(answer)))
        if raised:
            raise raised[0]
        if "done" in told:
            return Uploaded(**told["done"])
        (kind, words), *_ = told.items()
        raise PushError(words) if kind == PushError.__name__ else UserError(words or kind)

    return call
