"""Files to a Hub repository in one commit that arrives whole or not at all, and may be asked for again.

What the client leaves to its caller: it does not repeat a commit that got a 5xx or no answer, because that commit may
have gone through; it leaves out files that the repository had when it looked, so a commit made on top of somebody
else's would be a mixture of two models. So every commit here names the commit it was made for (412 when another came
first), what is there is compared by content before and after, and everything is tried again from the start.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import random
import re
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RevisionNotFoundError,
)
from huggingface_hub.utils import validate_repo_id

from ..errors import UserError
from ..records import TOKEN

log = logging.getLogger("hf_lowlabel")
WAITS = (1.0, 2.0, 4.0, 8.0)  # seconds before each further attempt
LONGEST_WAIT = 120.0  # seconds, where the Hub itself says how long
TRANSIENT = {408, 429, 500, 502, 503, 504}
CONFLICT = {409, 412}
HTTP_ERROR = next(c for c in HfHubHTTPError.__mro__ if c.__name__ == "HTTPError")  # of httpx or httpx2, as the client
PREFIX = {"model": "", "dataset": "datasets/", "space": "spaces/"}
Content = Path | bytes


class PushError(UserError):
    """The Hub did not take it; what is on this machine is untouched."""


@dataclass
class Uploaded:
    """Where it is now: `repo_id`, the `commit` it is in, its page, and the pull request if one was asked for."""

    repo_id: str
    commit: str
    url: str
    pull_request: str | None = None


@dataclass
class Remote:
    """The repository as it is at one commit; `read(path)` gives a file of it, and `holds` compares without that."""

    sha: str
    files: list[str]
    read: Callable[[str], bytes]
    holds: Callable[[dict[str, Content | None]], bool]


def upload(
    make: Callable[[Remote], dict[str, Content | None]],
    repo_id: str,
    *,
    type: str = "model",
    message: str,
    private: bool = False,
    create_pr: bool = False,
    revision: str | None = None,
    token: str | None = None,
) -> Uploaded:
    """Commit what `make` says, creating the repository when there is none. Raises PushError.

    make(remote) gives path -> content, None for a file to delete; it is asked again when somebody else commits first.
    """
    check_repo_id(repo_id)
    if create_pr and revision not in (None, "main"):
        raise UserError(
            f"create_pr opens a pull request against main, and there is a revision {revision!r} too. Leave one of them "
            "out."
        )
    job = _Job(HfApi(token=token), make, repo_id, type, message, private, create_pr, revision or "main")
    for attempt in range(len(WAITS) + 1):
        try:
            return job.run()
        except UserError:
            raise
        except Exception as error:  # sorted below: into what may pass and what will not
            last = attempt == len(WAITS)
            if last or not (transient(error) or conflict(error)):
                raise PushError(redact(explain(error, repo_id), token)) from None  # the chain may hold headers
            wait = seconds_to_wait(error, attempt)
            why = "somebody else committed first" if conflict(error) else redact(first_line(error), token)
            log.warning("%s: %s; trying again in %.0f s", repo_id, why, wait)
            time.sleep(wait)
    raise AssertionError("unreachable")


class _Job:
    def __init__(
        self, api: HfApi, make, repo_id: str, type: str, message: str, private: bool, create_pr: bool, revision: str
    ):
        self.api, self.make, self.repo_id, self.type, self.message = api, make, repo_id, type, message
        self.private, self.create_pr, self.revision = private, create_pr, revision
        self.pulls: set[str] | None = None  # pull requests from before the first attempt
        self.digests: dict[Path, Digest] = {}

    def run(self) -> Uploaded:
        api, where = self.api, dict(repo_id=self.repo_id, repo_type=self.type)
        extra = {"space_sdk": "gradio"} if self.type == "space" else {}
        api.create_repo(**where, private=self.private or None, exist_ok=True, **extra)
        info = self.head()
        if self.private and not info.private:
            raise PushError(
                f"A private repository was asked for, and {self.repo_id} is public. Make it private on its settings "
                "page, or take another name."
            )
        names = [s.rfilename for s in info.siblings or ()]
        read, holds = lambda path: self.read(path, info.sha), lambda some: self.is_there(some, info.sha)
        wanted = self.make(Remote(info.sha, names, read, holds))
        wanted = {path: content for path, content in wanted.items() if content is not None or path in names}
        if self.is_there(wanted, info.sha):
            return self.done(info.sha)
        if self.create_pr and (earlier := self.earlier_pull(wanted)):
            return self.done(*earlier)
        operations = [
            CommitOperationDelete(path) if content is None else CommitOperationAdd(path, content)
            for path, content in wanted.items()
        ]
        made = api.create_commit(
            **where,
            operations=operations,
            commit_message=self.message,
            revision=self.revision,
            create_pr=self.create_pr,
            parent_commit=info.sha,
        )
        if not self.is_there(wanted, made.oid):
            raise PushError(
                f"Not every file arrived in commit {made.oid[:12]} of {self.repo_id}, which should hold "
                f"{', '.join(wanted)}. Look for patterns in the .gitignore of the repository."
            )
        return self.done(made.oid, made.pr_url)

    def head(self):
        try:
            return self.api.repo_info(self.repo_id, repo_type=self.type, revision=self.revision)
        except RevisionNotFoundError:
            if self.revision == "main":
                raise
            self.api.create_branch(self.repo_id, repo_type=self.type, branch=self.revision, exist_ok=True)
            return self.api.repo_info(self.repo_id, repo_type=self.type, revision=self.revision)

    def read(self, path: str, sha: str) -> bytes:
        return Path(self.api.hf_hub_download(self.repo_id, path, repo_type=self.type, revision=sha)).read_bytes()

    def is_there(self, wanted: dict[str, Content | None], revision: str) -> bool:
        """Whether the repository holds exactly these contents at `revision`."""
        found = {
            f.path: f
            for f in self.api.get_paths_info(self.repo_id, list(wanted), repo_type=self.type, revision=revision)
        }
        for path, content in wanted.items():
            if (content is None) != (path not in found):
                return False
            if content is not None and not self.digest(content).fits(found[path]):
                return False
        return True

    def digest(self, content: Content) -> Digest:
        if isinstance(content, bytes):
            return Digest.of(content)
        if content not in self.digests:
            self.digests[content] = Digest.of(content)
        return self.digests[content]

    def earlier_pull(self, wanted: dict[str, Content | None]) -> tuple[str, str] | None:
        """(commit, page) of a pull request that an attempt before this one opened without hearing so."""
        refs = (
            self.api.list_repo_refs(self.repo_id, repo_type=self.type, include_pull_requests=True).pull_requests or ()
        )
        if self.pulls is None:
            self.pulls = {ref.ref for ref in refs}
        for ref in refs:
            if ref.ref not in self.pulls and self.is_there(wanted, ref.ref):
                return ref.target_commit, f"{self.page()}/discussions/{ref.ref.rpartition('/')[2]}"
        return None

    def page(self) -> str:
        return f"{self.api.endpoint}/{PREFIX[self.type]}{self.repo_id}"

    def done(self, commit: str, pull_request: str | None = None) -> Uploaded:
        return Uploaded(self.repo_id, commit, self.page(), pull_request)


@dataclass
class Digest:
    """Both names a content can have on the Hub: git's of a small file, sha256 of a large one."""

    git: str
    sha256: str

    @classmethod
    def of(cls, content: Content) -> Digest:
        size = len(content) if isinstance(content, bytes) else content.stat().st_size
        git, sha256 = hashlib.sha1(b"blob %d\0" % size), hashlib.sha256()
        for block in _blocks(content):
            git.update(block)
            sha256.update(block)
        return cls(git.hexdigest(), sha256.hexdigest())

    def fits(self, found: Any) -> bool:
        lfs = getattr(found, "lfs", None)
        return lfs.sha256 == self.sha256 if lfs else getattr(found, "blob_id", None) == self.git


def _blocks(content: Content) -> Iterator[bytes]:
    if isinstance(content, bytes):
        yield content
        return
    with open(content, "rb") as file:
        while block := file.read(1 << 20):
            yield block


# ---- errors ---------------------------------------------------------------------------------------------------------


def check_repo_id(repo_id: str) -> None:
    """UserError unless it reads org/name."""
    try:
        validate_repo_id(repo_id)
        if repo_id.count("/") != 1:
            raise HFValidationError("there is no namespace")
    except HFValidationError as error:
        raise UserError(
            f"{repo_id!r} cannot be the name of a repository ({error}). Give org/name or user/name."
        ) from None


def check_access(repo_id: str, token: str | None = None) -> None:
    """UserError for a name or a token that cannot work, before hours of training; a Hub that is down is a warning."""
    check_repo_id(repo_id)
    try:
        who = HfApi(token=token).whoami()
    except Exception as error:  # whatever the client raises without a token, with a wrong one, without a network
        if transient(error) or isinstance(error, OfflineModeIsEnabled):
            log.warning(
                "cannot ask the Hub whether it will take %s (%s); training goes on, the push comes at its end",
                repo_id,
                redact(first_line(error), token),
            )
            return
        raise PushError(redact(explain(error, repo_id), token)) from None
    if ((who.get("auth") or {}).get("accessToken") or {}).get("role") == "read":
        raise PushError(
            f"The token of {who.get('name')} may only read, and not write to {repo_id}. Run `hf auth login` with a "
            "write token."
        )


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
