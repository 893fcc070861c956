"""What a resumed run must share with the old one; names the differences."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from ..arguments import Config, known_settings
from ..data.dataset import ImageDataset
from ..data.splits.splits import Split
from ..errors import UserError
from ..settings import may_change, recorded
from ..text import listed
from ..yaml_files import read_yaml
from .checkpoint import newest_state

LENGTH = ("max_steps", "epochs")  # settings that a resumed run may have more of
IMAGES, SPLIT = "fingerprint of the images", "hash of the split"
USABLE = "list of usable images (see --streaming and --memory-budget)"
MEANS = {
    IMAGES: "images, or labels that lie beside them, were added, removed or replaced",
    SPLIT: "other images are labeled or held out, or have other labels",
    USABLE: "other images can be read, or are read (see --streaming and --memory-budget)",
}
SHOWN = 3  # names


def settings_of(config: Config) -> dict[str, Any]:
    """The settings that decide what is computed, as a checkpoint holds them."""
    kept = {k: v for k, v in recorded(config).items() if k not in may_change()}
    return dict(json.loads(json.dumps(kept)))


def check_early(config: Config, folder: Path, dataset: ImageDataset, split: Split | None) -> None:
    """Before the network is loaded: a run that goes on has the settings and the data of its checkpoint.

    What a run settles later (its length, what was left to the method or is still None) is for `check_same`.

    Raises:
        UserError: it has others; the message names the first few.
    """
    if not config.training.resume:
        return
    found, written = newest_state(folder / "checkpoints"), folder / "training.yaml"
    now = {k: v for k, v in settings_of(config).items() if v is not None and k not in config.filled}
    if found is None:
        if written.is_file() and (folder / "run.json").is_file():  # it ended, and frozen features leave no checkpoint
            refuse(folder, "settings", changes(read_yaml(written), now, LENGTH))
        return
    newest, state = found
    refuse(newest, "settings", changes(state.get("settings", {}), now, LENGTH))
    told, manifest = [], folder / "split.json"
    if split is not None and manifest.is_file():
        told = other_names(Split.load(manifest), split, {*dataset.ids})
    if not told and state.get("data", {}).get(IMAGES) != dataset.fingerprint:
        told = [MEANS[IMAGES]]
    refuse(newest, "data", told)


def check_same(path: Path, state: Mapping[str, Any], identity: Mapping[str, dict], steps: int) -> None:
    """Raises UserError where a checkpoint is of other settings or data than `identity`; steps: of the run now."""
    longer = LENGTH if steps > (state.get("settings", {}).get("max_steps") or steps) else ()
    refuse(path, "settings", changes(state.get("settings", {}), identity["settings"], longer))
    refuse(path, "data", changes(state.get("data", {}), identity["data"]))


def changes(was: Mapping[str, Any], now: Mapping[str, Any], free: Collection[str] = ()) -> list[str]:
    """What is another now, each in words; hashes say nothing to anybody. A setting that there was not yet had what is
    its default."""
    new = {k: s.default for k, s in known_settings().items() if k in now and k not in was}
    other = [k for k, v in now.items() if was.get(k, new.get(k)) != v and k not in free]
    return [MEANS.get(k) or f"{k} was {short(was.get(k))}, now {short(now[k])}" for k in other]


def refuse(path: Path, kind: str, told: list[str]) -> None:
    if told:
        raise UserError(
            f"{path.name} cannot be resumed with other {kind}: {'; '.join(told)}. Use the {kind} of the run, or "
            "--init-from to start a new run from its weights."
        )


def other_names(was: Split, now: Split, ids: Collection[str]) -> list[str]:
    """What of classes, images and labels of a manifest is not as it was, by name. ids: of all images there are."""
    old, new = ([name for name in a.class_names if name not in b.class_names] for a, b in ((was, now), (now, was)))
    told, renamed = [], len(old) == len(new) == 1
    if renamed:
        told.append(f"the class {old[0]!r} is now {new[0]!r}")
    elif old or new:
        told += [f"{what}: {listed(names, SHOWN)}" for what, names in (("classes gone", old), ("new", new)) if names]
    if gone := [id for id in (*was.labeled, *was.validation, *was.test) if id not in ids]:
        told.append(f"gone: {listed(gone, SHOWN)}")
    other = [
        f"{id} was {label!r}, now {now.labeled[id]!r}"
        for id, label in was.labeled.items()
        if id in now.labeled and now.labeled[id] != label and not (renamed and label == old[0])
    ]
    return told + ([f"labels: {listed(other, SHOWN)}"] if other else [])


def short(value: Any) -> str:
    """A setting, at most 40 characters of it."""
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:13]}...{text[-1]}"
