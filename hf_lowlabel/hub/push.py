"""A run folder on the Hub: `push("runs/classifier", "org/name")`.

One commit holds weights, configuration, image processor, card, split manifest, metrics and pictures; what a reader has
no use for stays here (checkpoints, locks, half-written files, whatever else lies in the folder). Nothing is pickled,
and no path of this machine travels.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml
from safetensors import SafetensorError, safe_open

from ..arguments import marked
from ..commands import command
from ..distributed import is_main_process
from ..errors import UserError
from ..files import A_RUN, by_name, read_json, read_text, verify, write_text
from ..licences import license_in
from ..locks import lock
from ..methods import METHODS, find
from ..records import RunRecord, public_values
from ..yaml_files import read_yaml
from .card import PICTURES
from .hub_card import MESSAGE, agreed, hub_card, text_of, values_of
from .once import by_another
from .upload import PushError, Remote, Uploaded, check_target, upload

log = logging.getLogger("hf_lowlabel")
NEEDED = ("config.json", "model.safetensors", "README.md")
JSON_FILES = ("config.json", "preprocessor_config.json", "split.json", "metrics.json", "run.json")
SHARED = (*JSON_FILES, "model.safetensors", "README.md", "training.yaml", "log.jsonl", *PICTURES)
PICKLED = {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".msgpack", ".h5"}


def push(
    folder: str | os.PathLike[str],
    repo_id: str,
    private: bool = False,
    create_pr: bool = False,
    revision: str | None = None,
    token: str | None = None,
) -> Uploaded:
    """Push a finished run, or its folder (or a model folder that has a card) to `repo_id` on the Hub, in one commit.

    private: the repository when it is created here; a public one is then refused. create_pr: as a pull request.
    revision: branch (default "main"). token: default is HF_TOKEN or the login. May be repeated: unchanged files
    make no commit, and those of an open pull request open no other. The folder stays as it is, but for the Hub id in
    its card and run.json once a push to main succeeded. What was written into the card on the Hub stays, or the push is
    refused, as it always is where the folder has no run.json to note what was pushed.
    What `evaluate(..., card=True)` found is on the card. Note that predictions.png shows test images. Of a launch of
    several processes the first one uploads, whether it calls this alone or all do; in the others it returns at once,
    with an empty `commit`. Raises UserError, and PushError where the Hub did not take it.
    """
    folder = Path(by_name("folder", folder, A_RUN, needed=True))
    again = dict(private=private, create_pr=create_pr, revision=revision)
    return push_folder(folder, repo_id, run=folder, again=again, token=token)


def push_folder(
    folder: Path, repo_id: str, *, run: Path, again: dict[str, Any], token: str | None = None, as_smp: bool = False
) -> Uploaded:
    """`push` of a folder that may have been made of a run for this.

    Args:
        folder: what is uploaded.
        repo_id: where to.
        run: what messages name, and learns its Hub id where it is the folder itself.
        again: private, create_pr and revision.
        token: of `push`.
        as_smp: whether the command to push again has --as-smp.

    Returns:
        Where it is.

    Raises:
        UserError: of `push`.
    """
    create_pr, revision = again["create_pr"], again["revision"]
    check_target(repo_id, create_pr, revision)
    if not is_main_process():
        return by_another(repo_id)
    branch = None if revision == "main" else revision
    files = contents(folder)
    mine = hub_card(folder, repo_id, branch)
    there, told = [mine], folder == run and not create_pr and branch is None
    learns = told and os.access(folder, os.W_OK)

    def make(remote):
        there[0] = card = agreed(mine, remote, folder, run, repo_id, branch, create_pr, learns)
        files["README.md"] = card.text.encode()
        if card.record is not None and mine.record is not None:
            own, stays = [[r.license, r.license_link] for r in (mine.record, card.record)]
            card.record.license_here = own if own != stays and not learns else None
            files["run.json"] = text_of(card.record).encode()
        had = _code_there(remote)
        stale = {name: None for name in remote.files if (is_ours(name) or name in had) and name not in files}
        return {**files, **stale}

    message = f"{_name_of(folder)}: {MESSAGE}"
    try:
        done = upload(make, repo_id, message=message, token=token, **again)
    except PushError as error:
        words = command("push", run, repo_id, as_smp=as_smp, **again)
        raise PushError(f"{error} Nothing is lost: the run is whole in {run}. Push it again with `{words}`.") from None
    card = there[0]
    if not license_in(card.text):
        log.warning("the card of %s states no licence; add `license:` to the block at the top of its README.md", run)
    if told and card.record is not None:
        try:
            write_text(folder / "README.md", card.text)
            write_text(folder / "run.json", text_of(card.record))
        except OSError as error:
            log.warning("pushed; the Hub id could not be noted in %s: %s", folder, error.strerror or error)
    log.info("%s is at %s (commit %s)", run, done.pull_request or done.url, done.commit[:12])
    return done


def contents(folder: Path) -> dict[str, Path | bytes]:
    """Name -> file, or content, of all that is shared; UserError when the folder is not a whole model."""
    if not folder.is_dir():
        raise UserError(f"There is no folder {str(folder)!r}. Give a run folder or a saved model.")
    if (pid := _in_use(folder)) is not None:
        raise UserError(f"Process {pid} trains in {folder}. Wait until it has finished, or stop it (Ctrl-C saves).")
    _check_is_a_model(folder)
    for name in NEEDED:
        if not (folder / name).is_file():
            give = "Push the run folder itself, or write a model card."
            if name != "README.md":
                give = "Give a finished run or a saved model."
            raise UserError(f"There is no {name} in {folder}. {give}")
    present = sorted(p for p in folder.iterdir() if not p.name.startswith("."))
    pickled = [p.name for p in present if p.suffix.lower() in PICKLED]
    if pickled:
        raise UserError(
            f"There are pickled files in {folder} ({', '.join(pickled)}), and to open a pickle can run code. Remove "
            "them; weights are shared as safetensors alone."
        )
    code = _code(
        _read_json(folder / "config.json"),
        {p.name: p for p in present},
        lambda path: read_text(path, "Save it as UTF-8."),
    )
    shared = [p for p in present if is_ours(p.name) or p.name in code]
    links = [p.name for p in shared if p.is_symlink() or not p.is_file()]
    if links:
        raise UserError(f"In {folder}, {', '.join(links)} is no plain file. Copy what the link leads to.")
    check_weights(folder / "model.safetensors")
    out: dict[str, Path | bytes] = {p.name: p for p in shared}
    for name in JSON_FILES:
        if name in out:
            _read_json(folder / name)
    if "training.yaml" in out:
        out["training.yaml"] = public_yaml(folder / "training.yaml").encode()
    left = [p.name for p in present if p not in shared and p.name != "checkpoints"]
    if left:
        log.info("not shared: %s", ", ".join(left))
    return out


def _check_is_a_model(folder: Path) -> None:
    """UserError for a run of a method that is no network, with what can be pushed in its place."""
    if (folder / "config.json").is_file() or not (folder / "run.json").is_file():
        return
    record = RunRecord.from_json(folder / "run.json")
    if record.method in METHODS and find(record.method).frozen:
        priors, split = folder / "priors.safetensors", folder / "split.json"
        raise UserError(
            f"The run of {record.method} in {folder} has left classes of its own images and no network. Push the model "
            f"that `{command('finetune', method='probe', prior=priors, split=split)}` makes of them (or "
            "self-training), or publish its pseudo-labels with the split: "
            f"`{command('push', split, 'ORG/NAME', priors=priors)}`."
        )


def is_ours(name: str) -> bool:
    return name in SHARED


def _code(config: dict, there: Mapping[str, Any], read: Callable[[Any], str]) -> set[str]:
    """Files of code that a model which is loaded by trust_remote_code needs.

    Args:
        config: whose auto_map names the first of them, each by itself or in a list with None.
        there: name -> what `read` takes, of the files that there are.
        read: gives the text of one.

    Returns:
        Names: of those files, of what they import, and so on.
    """
    mapped = config.get("auto_map")
    named = mapped.values() if isinstance(mapped, dict) else ()
    listed = [n for value in named for n in (value if isinstance(value, list) else [value]) if isinstance(n, str)]
    left, found = re.findall(r"[A-Za-z_]\w*(?=\.)", " ".join(listed)), set[str]()
    while left:
        name = f"{left.pop()}.py"
        if name in there and name not in found:
            found.add(name)
            left += re.findall(r"^[ \t]*from[ \t]+\.(\w+)[ \t]+import", read(there[name]), re.M)
    return found


def _code_there(remote: Remote) -> set[str]:
    """Files of code that the model on the Hub needed, which this one replaces."""
    code = {name: name for name in remote.files if name.endswith(".py")}
    if not code or "config.json" not in remote.files:
        return set()
    return _code(values_of(remote.read("config.json")), code, lambda name: remote.read(name).decode("utf-8", "replace"))


def _in_use(folder: Path) -> str | None:
    """The process that trains in the folder, by the lock it holds."""
    path = folder / ".lock"
    if not path.is_file():
        return None
    with open(path) as mark:
        try:
            lock(mark, shared=True)
        except BlockingIOError:
            return mark.read().strip() or "?"
    return None


def _read_json(path: Path) -> dict:
    values = read_json(path, "Save the model again.")
    if not isinstance(values, dict):
        raise UserError(f"The {path.name} in {path.parent} is damaged: it holds no mapping. Save the model again.")
    return values


def check_weights(path: Path) -> None:
    """Raises UserError where model.safetensors is not whole, also without a checksum."""
    verify(path)
    try:
        with safe_open(path, framework="numpy") as file:
            if not list(file.keys()):
                raise UserError(f"There is no tensor in {path}. Save the model again.")
    except SafetensorError as error:
        raise UserError(
            f"The {path.name} in {path.parent} is damaged: it is no whole safetensors file ({error}). Save the model "
            "again."
        ) from None


def public_yaml(path: Path) -> str:
    """training.yaml without what belongs to this machine.

    What is a path was seen where the run was trained, so that text stands as run.json has it: from another working
    directory `clinic/patients` looks like the name of a data set.
    """
    values, record = read_yaml(path), path.with_name("run.json")
    known = RunRecord.from_json(record).hyperparameters if record.is_file() else {}
    seen = {k: known[k] if k in known and isinstance(v, (str, list)) else v for k, v in values.items()}
    kept = {k: v for k, v in public_values(seen).items() if k not in marked("private") and not k.endswith("token")}
    return yaml.safe_dump(kept, sort_keys=False)


def _name_of(folder: Path) -> str:
    path = folder / "run.json"
    if not path.is_file():
        return "Model"
    record = RunRecord.from_json(path)
    return f"{record.method or 'model'} on {record.data.name if record.data else 'images'}"
