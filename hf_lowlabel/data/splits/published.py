"""Split manifests and prior pseudo-labels that somebody published: `hub:org/name[/configuration][@revision]`.

A data set repository holds one folder per manifest (`hub/splits.py` writes them); a pushed model has its own split.json
and is read where no data set has that name.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from ...errors import UserError, hub_is_down, unknown

PREFIX = "hub:"
SHAPE = re.compile(r"hub:(?P<repo>[\w.-]+/[\w.-]+)(?:/(?P<name>[\w.-]+))?(?:@(?P<revision>[\w./-]+))?")


class Reference(NamedTuple):
    repo: str
    name: str | None  # configuration
    revision: str | None


def is_published(path: str | Path) -> bool:
    return str(path).startswith(PREFIX)


def parse(text: str) -> Reference:
    found = SHAPE.fullmatch(text)
    if not found or ".." in text:
        raise UserError(
            f"{text!r} is neither hub:org/name nor hub:org/name/configuration, with or without @revision after it."
        )
    return Reference(*found.group("repo", "name", "revision"))


def fetch(text: str, file: str) -> Path:
    """`file` ("split.json", "priors.safetensors") of a reference, in the client's cache. Raises UserError."""
    reference = parse(text)
    try:
        return _of_data_set(reference, file)
    except RepositoryNotFoundError as error:
        if reference.name is not None:
            raise _missing(text, error) from None
    except Exception as error:
        raise _failed(text, file, error) from error
    try:
        return Path(hf_hub_download(reference.repo, file, revision=reference.revision))
    except Exception as error:
        raise _failed(text, file, error) from error


def _of_data_set(reference: Reference, file: str) -> Path:
    where = dict(repo_type="dataset", revision=reference.revision)
    name = reference.name
    if name is not None:
        try:
            return Path(hf_hub_download(reference.repo, f"{name}/{file}", **where))
        except LocalEntryNotFoundError:
            raise
        except EntryNotFoundError:
            pass
    files = HfApi().list_repo_files(reference.repo, **where)
    names = sorted(
        path.removesuffix(f"/{file}") for path in files if path.count("/") == 1 and path.endswith(f"/{file}")
    )
    if name is not None or not names:
        raise unknown(f"configuration with a {file} in {reference.repo}", name or "(none given)", names)
    if len(names) > 1:
        raise UserError(
            f"There are {len(names)} configurations in {reference.repo}: {', '.join(names)}. Name one, as in "
            f"hub:{reference.repo}/{names[0]}."
        )
    return Path(hf_hub_download(reference.repo, f"{names[0]}/{file}", **where))


def _missing(text: str, error: Exception) -> UserError:
    return UserError(
        f"There is no data set or model {text} on the Hub that is open to you. Check the spelling, or log in with "
        "`hf auth login`."
    )


def _failed(text: str, file: str, error: Exception) -> UserError:
    """What to tell of any error of the client."""
    if isinstance(error, UserError):
        return error
    if isinstance(error, RevisionNotFoundError):
        return UserError(f"There is no such revision: {text}. Give a branch, a tag or a commit after the @.")
    if isinstance(error, LocalEntryNotFoundError):
        return UserError(
            f"There is no cached {file} of {text}, and the Hub cannot be reached. Connect, or give a local file."
        )
    if isinstance(error, RepositoryNotFoundError):
        return _missing(text, error)
    if isinstance(error, EntryNotFoundError):
        return UserError(f"There is no {file} in {text}. Take another repository or revision.")
    if down := hub_is_down(error):
        return UserError(f"{down}, or give a local file in the place of {text}.")
    if isinstance(error, HfHubHTTPError):
        said = error.server_message or str(error).strip().splitlines()[0]
        return UserError(f"The Hub refused {file} of {text} ({said}). Check that it is open to you.")
    return UserError(
        f"{file} of {text} could not be read ({type(error).__name__}: {error}). Try again, or give a local file."
    )
