"""Files to a Hub repository in one commit that arrives whole or not at all, and may be asked for again.

What the client leaves to its caller: it does not repeat a commit that got a 5xx or no answer, because that commit may
have gone through; it leaves out files that the repository had when it looked, so a commit made on top of somebody
else's would be a mixture of two models. So every commit here names the commit it was made for (412 when another came
first), what is there is compared by content before and after, and everything is tried again from the start.
"""

from __future__ import annotations

import hashlib
import logging
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import (
    HFValidationError,
    OfflineModeIsEnabled,
    RevisionNotFoundError,
)
from huggingface_hub.utils import validate_repo_id

from ..errors import UserError
from .hub_errors import WAITS, PushError, conflict, explain, first_line, redact, seconds_to_wait, transient, unreachable

log = logging.getLogger("hf_lowlabel")
PREFIX = {"model": "", "dataset": "datasets/"}
Content = Path | bytes


@dataclass
class Uploaded:
    """Where it is now: `repo_id`, the `commit` it is in, its page, and the pull request if one was asked for."""

    repo_id: str
    commit: str
    url: str
    pull_request: str | None = None


@dataclass
class Remote:
    """The repository as it is at one commit; `read(path)` gives a file of it, or of an earlier commit where one is
    named, `holds` compares without that, and `commits` are the name and title of each up to it, newest first."""

    sha: str
    files: list[str]
    read: Callable[..., bytes]
    holds: Callable[[dict[str, Content | None]], bool]
    commits: Callable[[], list[tuple[str, str]]]


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
    check_target(repo_id, create_pr, revision)
    job = _Job(HfApi(token=token), make, repo_id, type, message, private, create_pr, revision or "main")
    for attempt in range(len(WAITS) + 1):
        try:
            return job.run()
        except UserError:
            raise
        except Exception as error:  # sorted below: into what may pass and what will not
            last = attempt >= (1 if unreachable(error) else len(WAITS))  # it may go away after other trouble
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
        self.digests: dict[Path, Digest] = {}

    def run(self) -> Uploaded:
        api, where = self.api, dict(repo_id=self.repo_id, repo_type=self.type)
        api.create_repo(**where, private=self.private or None, exist_ok=True)
        info = self.head()
        if self.private and not info.private:
            raise PushError(
                f"A private repository was asked for, and {self.repo_id} is public. Make it private on its settings "
                "page, or take another name."
            )
        names, sha = [s.rfilename for s in info.siblings or ()], info.sha
        remote = Remote(
            sha,
            names,
            lambda path, at=sha: self.read(path, at),
            lambda some: self.is_there(some, sha),
            lambda: [(commit.commit_id, commit.title) for commit in api.list_repo_commits(**where, revision=sha)],
        )
        wanted = self.make(remote)
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
        where = dict(repo_id=self.repo_id, repo_type=self.type)
        try:
            return self.api.repo_info(**where, revision=self.revision)
        except RevisionNotFoundError:
            if self.revision == "main":
                raise
            self.api.create_branch(**where, branch=self.revision, exist_ok=True)
            return self.api.repo_info(**where, revision=self.revision)

    def read(self, path: str, sha: str) -> bytes:
        with tempfile.TemporaryDirectory() as aside:  # what is cached may be of a repository that is gone
            where = dict(repo_type=self.type, revision=sha, local_dir=aside)
            return Path(self.api.hf_hub_download(self.repo_id, path, **where)).read_bytes()

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
        """(commit, page) of an open pull request that has these contents, of an earlier push or of an attempt that did
        not hear that it had opened one."""
        where = dict(repo_id=self.repo_id, repo_type=self.type)
        asked = dict(discussion_type="pull_request", discussion_status="open")
        for pull in self.api.get_repo_discussions(**where, **asked):
            if self.is_there(wanted, pull.git_reference):
                commit = self.api.repo_info(**where, revision=pull.git_reference).sha
                return commit, f"{self.page()}/discussions/{pull.num}"
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


def check_target(repo_id: str, create_pr: bool, revision: str | None) -> None:
    """UserError unless a repository can have this name, and a pull request is asked for of main."""
    check_repo_id(repo_id)
    if create_pr and revision not in (None, "main"):
        raise UserError(
            f"create_pr opens a pull request against main, and there is a revision {revision!r} too. Leave one of them "
            "out."
        )


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
                "cannot ask the Hub whether it will take %s (%s); training continues, the push comes at its end",
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
