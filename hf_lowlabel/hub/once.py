"""Uploads from only one process of a launch."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict

from huggingface_hub import HfApi

from ..distributed import text_of_first, while_others_wait, world
from ..errors import UserError
from .upload import PREFIX, PushError, Uploaded


def by_another(repo_id: str, type: str = "model") -> Uploaded:
    """What a process that leaves an upload to the first one knows of it. It asks nobody: the first may be alone."""
    return Uploaded(repo_id, "", f"{HfApi().endpoint}/{PREFIX[type]}{repo_id}")


def once(push: Callable[[], Uploaded]) -> Uploaded:
    """`push`, which the first process of a launch does while the others wait, and whose answer all have: where it is by
    then, or the error. Every process has to be here."""
    if world() == 1:
        return push()
    raised, answer = list[BaseException](), dict[str, object]()

    def work() -> None:
        try:
            answer["done"] = asdict(push())
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
