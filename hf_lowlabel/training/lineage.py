"""Origin of a run's weights, their training images, and the runs to compare with."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from ..arguments import ModelArguments
from ..data.dataset import ImageDataset
from ..data.splits.splits import Split
from ..distributed import all_mean
from ..records import HEAVY, Row, RunRecord, Stage

log = logging.getLogger("hf_lowlabel")
MOST_LABELS = 5000  # that a record carries on


def lineage_of(start: str | Path, revision: str | None = None) -> list[Stage]:
    """The stages that led to a model: a run folder, or one that was pushed; empty when it has no run.json."""
    path = beside(start, "run.json", revision)
    if path is None:
        return []
    facts = RunRecord.from_json(path)
    if facts.lineage and facts.hub_id:
        facts.lineage[-1].hub_id = facts.hub_id
        facts.lineage[-1].revision = revision
    return facts.lineage


def start_of(given: ModelArguments, revision: str | None) -> tuple[str, str | None] | None:
    """(folder or Hub id, revision) of the weights a run starts from; None: random ones, or a module in memory."""
    if (given.from_scratch or not isinstance(given.model, str)) and not given.init_from:
        return None
    return given.init_from or given.model, revision or given.model_revision


def began_at_random(given: ModelArguments, revision: str | None) -> bool:
    """Whether the weights a run starts from were trained by this library from random ones; the same in all
    processes."""
    start = start_of(given, revision)
    stages = lineage_of(*start) if start else []
    known = bool(stages) and stages[0].what == "random weights"
    return bool(all_mean(torch.tensor(float(known))) > 0)


def beside(start: str | Path, file: str, revision: str | None) -> Path | None:
    """A file beside the weights that a run starts from, in a folder or on the Hub; None where there is none."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    if Path(start).is_dir():
        folder = Path(start).resolve()
        places = [folder, folder.parents[1]] if folder.parent.name == "checkpoints" else [folder]  # one of a run
        return next((place / file for place in places if (place / file).is_file()), None)
    repo, _, at = re.sub("^hf[_-]hub:", "", str(start)).partition("@")
    if repo.count("/") != 1:
        return None
    try:
        return Path(hf_hub_download(repo, file, revision=revision or at or None))
    except EntryNotFoundError:
        return None
    except Exception as error:  # whichever the client raises; the model itself was loaded
        log.warning("the lineage of %s is not known: %s: %s", repo, type(error).__name__, error)
        return None


def images_seen(start: str | Path, source: ImageDataset, test: Sequence[str], revision: str | None = None) -> int:
    """How many of the `test` ids of `source` the run that made the weights `start` was trained on.

    It was trained on all images of its source that its own manifest does not hold out. The sources are the same when
    their fingerprints are, or name and ids: labels that were added since change only the first. 0 where
    nothing is known.
    """
    path = beside(start, "run.json", revision)
    data = RunRecord.from_json(path).data if path is not None else None
    if data is None or not (
        data.fingerprint == source.fingerprint or (data.name, data.ids_hash) == (source.name, source.ids_hash)
    ):
        return 0
    manifest = beside(start, "split.json", revision)
    split = Split.load(manifest) if manifest is not None else None
    held = {*split.validation, *split.test} if split is not None else set()
    return sum(id not in held for id in test)


def labels_seen(
    start: str | Path, source: ImageDataset, labeled: Mapping[str, str | None], revision: str | None = None
) -> int:
    """How many of the `labeled` ids of `source` are among those whose labels taught the weights `start`, in any stage.

    A head on frozen features leaves the weights as they were. The data are the same when their names are; or all their
    ids, and the classes of these labels: a copy in another folder, or of another size, and not another data set whose
    rows are numbered alike. 0 where nothing is known.

    Args:
        start: folder or Hub id.
        source: the data.
        labeled: image id -> class, None where the data has it.
        revision: of a model on the Hub.
    """
    path = beside(start, "run.json", revision)
    facts, seen, ids = RunRecord.from_json(path) if path is not None else None, set[str](), source.ids_hash
    for stage in facts.lineage if facts is not None else []:
        if stage.what != "finetuning" or not stage.steps:
            continue
        known, data = stage.labels, stage.ids_hash
        if known is None and facts is not None and stage is facts.lineage[-1]:  # a record of before they were in it
            manifest = beside(start, "split.json", revision)
            known = taught_by(Split.load(manifest)) if manifest is not None else None
            data = facts.data.ids_hash if facts.data is not None else None
        if known and (stage.dataset == source.name or data == ids):
            common = {id: known[key] for id in labeled if (key := short(id)) in known}
            if stage.dataset == source.name or all(labeled[id] == name for id, name in common.items()):
                seen |= common.keys()
    return len(seen)


def taught_by(split: Split) -> dict[str, str | None]:
    """The labels of a manifest, for `Stage.labels`; `MOST_LABELS` of them at most."""
    return dict(sorted((short(id), name) for id, name in split.labeled.items())[:MOST_LABELS])


def short(id: str) -> str:
    return hashlib.sha256(id.encode("utf-8", "surrogatepass")).hexdigest()[:12]


def starting_weights(source: str, revision: str | None = None, license: str | None = None) -> Stage:
    """The first stage of a lineage, with its place on the Hub. source: timm name, Hub id, folder, "random weights
    (x)"."""
    if source.startswith("random weights"):
        return Stage("random weights", name=source.removeprefix("random weights (").rstrip(")"))
    hub_id = None
    if not Path(source).is_dir():
        repo = re.sub("^hf[_-]hub:", "", source).partition("@")[0]
        hub_id = repo if "/" in repo else _timm_hub_id(source)
    return Stage("pretrained weights", name=source, hub_id=hub_id, revision=revision, license=license)


def _timm_hub_id(name: str) -> str | None:
    import timm

    cfg = timm.get_pretrained_cfg(name)
    return cfg.hf_hub_id if cfg is not None and cfg.hf_hub_id else None


def compare_with(facts: RunRecord, folder: str | Path, name: str) -> Row:
    """The results of another run as a row of this card; the name says so when the labels are not the same."""
    other = RunRecord.from_json(Path(folder, "run.json"))
    ours, theirs = facts.labels and facts.labels.split_hash, other.labels and other.labels.split_hash
    if ours is None or ours != theirs:
        name = name.removesuffix(", same labels")
        name += f", {other.labels.number} labels of another split" if other.labels else ", labels not recorded"
    return Row(name, {k: v for k, v in other.metrics.items() if k not in HEAVY})
