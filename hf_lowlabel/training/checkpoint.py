"""Checkpoints that are whole or not there: safetensors and JSON in a temporary folder, hashes, fsync, one rename.

    checkpoints/step-00000200/   objective.safetensors  optimizer.safetensors  state.json  manifest.json (SHA-256 of
    each)

The older checkpoint goes only after the newer one is committed; one of the same step is called step-00000200.old until
then. A damaged one is found by its hashes, reported, and the one before it is taken; it is then called
step-00000200.damaged until a newer one is committed. Nothing is ever unpickled.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import re
import shutil
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..distributed import barrier, is_main_process
from ..errors import UserError
from ..files import as_neighbours, sha256 as _sha256, write_json
from ..models.timm_checkpoint import apart
from ..text import warn

DAMAGED = ".damaged"  # ending of the name of a checkpoint that a resumed run has passed over
_NAME = re.compile(r"^step-(\d{8})(\.old)?$")


def save_checkpoint(
    folder: Path, step: int, objective: dict[str, Tensor], optimizer: torch.optim.Optimizer, state: dict, keep: int
) -> Path:
    """Commit a checkpoint for `step` under `folder` and drop all but the newest `keep`. Called by the main process
    only."""
    folder.mkdir(parents=True, exist_ok=True)
    target, temporary = folder / f"step-{step:08d}", folder / f".step-{step:08d}.{os.getpid()}"
    aside = folder / f"{target.name}.old"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        tensors, scalars = _split_optimizer(optimizer)
        weights = apart({k: v.detach().cpu().contiguous() for k, v in objective.items()})
        save_file(weights, temporary / "objective.safetensors")
        save_file(tensors, temporary / "optimizer.safetensors")
        write_json(temporary / "state.json", {**state, "step": step, "optimizer": scalars})
        hashes = {p.name: _sha256(p) for p in sorted(temporary.iterdir())}
        write_json(temporary / "manifest.json", hashes)
        for path in temporary.iterdir():
            as_neighbours(path)
        for path in [*temporary.iterdir(), temporary]:
            _fsync(path)
        if target.exists():
            shutil.rmtree(aside, ignore_errors=True)
            os.replace(target, aside)
        os.replace(temporary, target)
        _fsync(folder)
    except (OSError, SafetensorError) as e:  # the latter from save_file, on a full disk too
        shutil.rmtree(temporary, ignore_errors=True)
        last = next(iter(checkpoints(folder)), None)
        kept = f"The last whole checkpoint is {last.name}." if last else "There is no earlier checkpoint."
        raise UserError(
            f"The checkpoint of step {step} could not be written: {getattr(e, 'strerror', None) or e}. {kept} Free "
            f"some space in {folder.parent} and start the same command again, a run with --resume."
        ) from e
    others = [p for p in checkpoints(folder) if not p.suffix and p != target]
    # what a process was writing that was killed; what the newer one replaces; what is of no use
    left = [p for name in (".step-*", "step-*.old", f"step-*{DAMAGED}") for p in folder.glob(name)]
    for old in [*left, *others[keep - 1 :]]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def checkpoints(folder: Path) -> list[Path]:
    """Committed checkpoints, newest first."""
    found = [p for p in folder.glob("step-*") if _NAME.match(p.name)] if folder.is_dir() else []
    return sorted(found, key=lambda p: (p.stem, not p.suffix), reverse=True)


def load_newest(folder: Path) -> tuple[Path, dict[str, Tensor], dict[str, Tensor], dict] | None:
    """(path, objective tensors, optimizer tensors, state) of the newest whole checkpoint; None when there is none at
    all.

    Raises UserError when checkpoints exist and every one is damaged.
    """
    found = checkpoints(folder)
    for path in found:
        reason = damage(path)
        if reason is None:
            state = json.loads((path / "state.json").read_text(encoding="utf-8"))
            return path, load_file(path / "objective.safetensors"), load_file(path / "optimizer.safetensors"), state
        warn(f"checkpoint {path.name} is damaged ({reason}); taking the one before it")
    if found:
        raise UserError(f"All {len(found)} checkpoints in {folder} are damaged. Start again in another --output-dir.")
    return None


def set_aside(taken: Path) -> None:
    """Rename the damaged checkpoints that were passed over for `taken`: they are counted no more, and go once a new one
    is committed. Called by all processes."""
    barrier()  # all have looked at them
    newer = itertools.takewhile(lambda path: path != taken, checkpoints(taken.parent))
    for path in newer if is_main_process() else ():
        with contextlib.suppress(OSError):  # a folder that cannot be written to is told of where it has to be
            os.replace(path, path.with_name(f"{path.name}{DAMAGED}"))


def newest_state(folder: Path) -> tuple[Path, dict] | None:
    """(path, state) of the newest checkpoint whose state is as it was written, without a look at its tensors."""
    for path in checkpoints(folder):
        try:
            content, known = (path / "state.json").read_bytes(), json.loads((path / "manifest.json").read_bytes())
        except (OSError, ValueError, RecursionError):
            continue
        if isinstance(known, dict) and known.get("state.json") == hashlib.sha256(content).hexdigest():
            return path, json.loads(content)
    return None


def load_objective(path: Path) -> dict[str, Tensor]:
    """The tensors of one checkpoint; without its manifest, of a file that somebody took out of one.

    Raises UserError when it is damaged.
    """
    reason = damage(path) if (path / "manifest.json").exists() else None
    try:
        if reason is None:
            return load_file(path / "objective.safetensors")
    except (OSError, SafetensorError) as error:
        reason = str(error)
    raise UserError(f"The checkpoint {path} is damaged ({reason}). Copy it again, or give another.")


def damage(path: Path) -> str | None:
    """What is wrong with a checkpoint, or None when every file has the hash it was written with."""
    try:
        hashes = json.loads((path / "manifest.json").read_bytes())
    except (OSError, ValueError, RecursionError):
        return "its manifest is missing or unreadable"
    if not isinstance(hashes, dict) or not {"objective.safetensors", "optimizer.safetensors", "state.json"} <= set(
        hashes
    ):
        return "its manifest is incomplete"
    for name, expected in hashes.items():
        file = path / name
        if not file.is_file():
            return f"{name} is missing"
        try:
            if _sha256(file) != expected:
                return f"{name} has changed since it was written"
        except OSError as error:
            return f"{name} cannot be read: {error.strerror}"
    return None


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], scalars: dict) -> None:
    """The inverse of what `save_checkpoint` stored; parameters are matched by their order.

    State of a parameter's shape takes its layout in memory too (channels_last), which fused optimizers rely on.
    """
    state: dict[int, dict] = {}
    params = [p for group in optimizer.param_groups for p in group["params"]]
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        like = params[int(index)]
        if value.shape == like.shape:
            value = torch.empty_like(like, dtype=value.dtype).copy_(value)
        state.setdefault(int(index), {})[name] = value
    for key, value in scalars.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _split_optimizer(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, object]]:
    tensors, scalars = {}, {}
    for index, values in optimizer.state_dict()["state"].items():
        for name, value in values.items():
            if torch.is_tensor(value):
                tensors[f"{index}.{name}"] = value.detach().cpu().contiguous()
            else:
                scalars[f"{index}.{name}"] = value
    return tensors, scalars


def _fsync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
