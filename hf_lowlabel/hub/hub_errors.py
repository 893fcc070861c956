"""Errors of the Hub's client: whether to retry, how long to wait, and which message to show."""

from __future__ import annotations

import errno
import json
import os
import random
import re
import socket
from collections.abc import Iterable

from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled

from ..errors import UserError
from ..records import TOKEN

WAITS = (1.0, 2.0, 4.0, 8.0)  # seconds before each further attempt
LONGEST_WAIT = 120.0  # seconds, where the Hub itself says how long
TRANSIENT = {408, 429, 500, 502, 503, 504}
CONFLICT = {409, 412}
NO_WAY = {errno.ENETUNREACH, errno.ENETDOWN, errno.EHOSTUNREACH}
HTTP_ERROR = next(c for c in HfHubHTTPError.__mro__ if c.__name__ == "HTTPError")  # of httpx or httpx2, as the client


class PushError(UserError):
    """The Hub did not take it; what is on this machine is untouched."""


def _causes(error: BaseException | None) -> Iterable[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def status(error: BaseException) -> int | None:
    """The HTTP status behind an error of the client, which wraps some."""
    for e in _causes(error):
        if isinstance(e, HTTP_ERROR) and getattr(e, "response", None) is not None:
            return e.response.status_code
    return None


def transient(error: BaseException) -> bool:
    """Whether the same request may work later: the Hub's own trouble, or the network's."""
    if isinstance(error, OfflineModeIsEnabled):
        return False
    code = status(error)
    if code is not None:
        return code in TRANSIENT
    passing = (HTTP_ERROR, ConnectionError, TimeoutError, json.JSONDecodeError, RuntimeError)  # Xet's are RuntimeErrors
    return any(isinstance(e, passing) for e in _causes(error))


def unreachable(error: BaseException) -> bool:
    """Whether there is no way to the Hub, not even to look up its name, as on a machine without a network: to wait for
    long is no use."""
    found: BaseException | None = error
    while found is not None and not (isinstance(found, socket.gaierror) or getattr(found, "errno", None) in NO_WAY):
        found = found.__cause__ or found.__context__  # the client raises its own error in the place of the cause
    return found is not None


def conflict(error: BaseException) -> bool:
    return status(error) in CONFLICT


def seconds_to_wait(error: BaseException, attempt: int) -> float:
    asked = None
    for e in _causes(error):
        response = getattr(e, "response", None) if isinstance(e, HTTP_ERROR) else None
        asked = response.headers.get("Retry-After") if response is not None else asked
    wait = WAITS[attempt] * (1 + random.random() / 4)  # two that clash do not clash again
    return min(float(asked), LONGEST_WAIT) if asked and asked.isdigit() else wait


def explain(error: BaseException, repo_id: str) -> str:
    """What went wrong and what to do."""
    code, said = status(error), first_line(error)
    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE=1 forbids a connection to the Hub. Unset it."
    if isinstance(error, LocalTokenNotFoundError):
        return "There is no access token that may write. Run `hf auth login`, or set HF_TOKEN."
    if code == 401:
        return (
            f"There is no valid access token for {repo_id} ({said}). Run `hf auth login` with one that may write "
            "there, or set HF_TOKEN."
        )
    if code == 403:
        return (
            f"This token may not write to {repo_id} ({said}). Ask for access, run `hf auth login` with a write token, "
            "take another name, or open a pull request."
        )
    if code == 404:
        return f"There is no {repo_id} that this token may see ({said}). Give another name, or another token."
    if conflict(error):
        return f"Somebody else committed to {repo_id} first each time. Try again."
    if unreachable(error):
        return f"The Hub cannot be reached ({said}). Look whether this machine is connected to the internet."
    if transient(error):
        return f"The Hub did not answer as it should ({said}). Try again later."
    return f"The Hub refused {repo_id} ({said})."


def first_line(error: BaseException) -> str:
    """What went wrong, without the pages of text around it."""
    http = [e for e in _causes(error) if isinstance(e, HTTP_ERROR)]
    shown = http[0] if http and isinstance(error, RuntimeError) else error  # "Error while uploading ..." hides it
    text = " ".join(str(shown).split()) or type(shown).__name__
    server = getattr(shown, "server_message", None)
    return (server or re.split(r" For more information| \(Request ID| For more details", text)[0])[:300]


def redact(text: str, token: str | None) -> str:
    """Text without access tokens: the one in use, and all that look like one."""
    for secret in (token, os.environ.get("HF_TOKEN")):
        if secret:
            text = text.replace(secret, "TOKEN")
    return TOKEN.sub("TOKEN", text)
