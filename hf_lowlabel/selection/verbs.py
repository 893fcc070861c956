"""`select`, from a data set to a folder to label, and `priors`, from labels to prior pseudo-labels."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ..arguments import DataArguments
from ..data.dataset import ImageDataset, load_source
from ..data.segmentation import SegmentationSource, load_segmentation
from ..data.splits import Split, SplitIndices
from ..distributed import barrier, rank
from ..errors import UserError, unknown
from ..training.priors import save_priors
from ..training.setup import logging_level
from .as3l import finetune_features
from .clustering import backend, unit
from .features import Features, extract
from .labeling import check_folder, export, reasons
from .labels import Task, read_classes
from .priors import PROPAGATION, balance, harden, report
from .strategies import STRATEGIES, choose, identical

log = logging.getLogger("hf_lowlabel")
TASKS = ("classification", "segmentation")


@dataclass
class Selection:
    """folder: what was written. ids: the chosen images. report: facts about the choice, also in selection.json."""

    folder: Path
    ids: list[str]
    report: dict


def select(
    model: str,
    dataset: str | DataArguments,
    *,
    budget: int,
    output: str,
    strategy: str = "as3l",
    task: str = "classification",
    split: str | None = None,
    classes: str | list[str] | None = None,
    seed: int = 0,
    features: str | None = None,
    image_size: int | None = None,
    model_revision: str | None = None,
    device: str | None = None,
    max_bad: float = 0.01,
) -> Selection:
    """Choose `budget` images worth labeling and write a folder to label them in.

    model: a timm name, local folder or Hub id whose features decide. dataset: as for `load_source`, or a DataArguments with
    its split, columns and revision. split: a manifest; its validation and test images are left out, and so are those it
    has labels for. classes: a list or file of class names. features: file of the features (None: in `output`), reused
    when model and data are the same. max_bad: share of unreadable images that is left out and listed. Under several
    processes the first one writes.
    """
    if strategy not in STRATEGIES:
        raise unknown("strategy", strategy, STRATEGIES)
    if task not in TASKS:
        raise unknown("task", task, TASKS)
    start_processes(device)
    folder = Path(output)
    check_folder(folder)
    barrier()
    source = open_images(dataset, task, classes)
    base = Split.load(split) if split else None
    at = base.resolve(source) if base else None
    names = class_list(classes, base, source)
    members, labeled = (at.train, at.labeled) if at else (np.arange(len(source)), np.zeros(0, np.int64))
    check_budget(
        budget,
        len(np.setdiff1d(members, labeled)),
        len(names) - len(set(base.labeled.values())) if base else len(names),
        task,
    )
    images = source.images() if isinstance(source, SegmentationSource) else source
    found = extract(
        model,
        images,
        members,
        path=features or folder / "features.safetensors",
        image_size=image_size,
        revision=model_revision,
        device=device,
        max_bad=max_bad,
    )
    x = unit(found.values)
    free = found.rows(np.setdiff1d(members, labeled))  # rows of the features
    first = identical(x[free])
    distinct = free[first == np.arange(len(free))]
    if budget > len(distinct):
        raise UserError(
            f"found {len(distinct)} images to choose from after leaving out {len(free) - len(distinct)} copies; "
            f"expected at "
            f"least {budget}, the budget; fix: a smaller --budget"
        )
    labels = source.labels[found.indices]
    rows = distinct[choose(strategy, x[distinct], budget, seed, labels[distinct])]
    if rank() > 0:
        barrier()
        return Selection(folder, [source.ids[i] for i in found.indices[rows]], {})
    why = reasons(x, rows, source, found.indices)
    facts = report_of(source, found, rows, free, first, why, task)
    job = Task(
        source.name,
        source.fingerprint,
        {},
        source.config,
        source.split,
        source.revision,
        names,
        task,
        strategy,
        seed,
        Path(model).name if Path(model).exists() else model,
        dict(base.labeled) if base else {},
        list(base.validation) if base else [],
        list(base.test) if base else [],
        facts,
    )
    job = export(folder, source, found.indices[rows], job, why)
    barrier()
    return Selection(folder, list(job.files.values()), facts)


def open_images(dataset: str | DataArguments, task: str, classes=None) -> ImageDataset | SegmentationSource:
    where = (dataset if isinstance(dataset, DataArguments) else DataArguments(dataset)).where()
    if task == "classification":
        return load_source(**where)
    where.pop("label_column")
    return load_segmentation(classes=classes, **where)


def class_list(classes: str | list[str] | None, base: Split | None, source) -> list[str]:
    """The names a label may have, as far as they are known."""
    if isinstance(classes, list) and len(classes) != 1:
        return list(dict.fromkeys(classes))
    if classes:
        name = classes if isinstance(classes, str) else classes[0]
        return read_classes(name)
    return list(base.class_names) if base else list(source.class_names)


def check_budget(budget: int, available: int, classes_without: int, task: str) -> None:
    if not 1 <= budget <= available:
        raise UserError(
            f"found a budget of {budget} for {available} images without a label; expected 1 to {available}; fix: "
            f"--budget"
        )
    if budget < classes_without and task == "classification":
        raise UserError(
            f"found a budget of {budget} for {classes_without} classes without a label; expected at least one image "
            f"each; fix: "
            f"--budget {classes_without} or more"
        )


def report_of(
    source, found: Features, rows: np.ndarray, free: np.ndarray, first: np.ndarray, why: list[dict], task: str
) -> dict:
    """Facts about a choice: copies among the images, near-copies of chosen ones, classes covered where they are known."""
    copies = np.flatnonzero(first != np.arange(len(first)))
    name = [source.ids[i] for i in found.indices]
    near = {
        name[row]: [n["id"] for n in reason["neighbours"] if n["same"]] for row, reason in zip(rows, why, strict=True)
    }
    out = {
        "images": len(found),
        "unreadable": [list(s) for s in found.skipped],
        "kmeans": backend(),
        "copies": len(copies),
        "copies_shown": [[name[free[i]], name[free[first[i]]]] for i in copies[:20]],
        "near_copies": {id: others for id, others in near.items() if others},
    }
    labels = source.labels[found.indices[rows]]
    if task == "classification" and (labels >= 0).all():
        out["classes_covered"] = len(np.unique(labels))
        out["classes"] = len(source.class_names)
    return out


def start_processes(device: str | None) -> None:
    """Join the other processes of a launch, where there are any."""
    import os

    logging_level(int(os.environ.get("RANK", "0")) == 0)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not torch.distributed.is_initialized():
        from accelerate import PartialState

        PartialState(cpu=device == "cpu" or not torch.cuda.is_available())


# ---- priors ----------------------------------------------------------------------------------------------------------
def priors(
    model: str,
    dataset: str | DataArguments,
    *,
    split: str,
    output: str = "priors.safetensors",
    propagation: str = "clusters",
    finetune: bool = True,
    clusters: list[int] | None = None,
    neighbors: int | None = None,
    balanced: bool = False,
    hard: bool = False,
    seed: int = 0,
    features: str | None = None,
    image_size: int | None = None,
    model_revision: str | None = None,
    device: str | None = None,
    max_bad: float = 0.01,
) -> dict:
    """Prior pseudo-labels of all training images from the labels of a manifest; returns and prints what they are worth.

    propagation: "clusters" (AS3L, section 4.3) or "label-spreading". finetune: on features after Eq. 6, with as many clusters as
    there are labels, as AS3L does. clusters: K of each run (None: 1 to 6 times the classes). neighbors: of every image
    in the graph of label-spreading (None: 50); fewer suit small data sets. balanced: every class gets the same mass, for classes of
    similar size. hard: the most likely class alone, for the rows of label-spreading are so flat that a confidence threshold never
    sees them. Accuracy and calibration are told where the data set has the true labels; they are never used.
    """
    if propagation not in PROPAGATION:
        raise unknown("propagation", propagation, PROPAGATION)
    other = {"clusters": ("neighbors", neighbors), "label-spreading": ("clusters", clusters)}[propagation]
    if other[1] is not None:
        raise UserError(
            f"found {other[0]} with the propagation {propagation!r}, which has none; expected it with the "
            "other one; fix: leave it out, or change --propagation"
        )
    start_processes(device)
    manifest = Split.load(split)
    if Path(output).exists():
        raise UserError(f"found {output}; expected a name that is free; fix: another --output, or remove the file")
    source = open_images(dataset, "classification")
    at: SplitIndices = manifest.resolve(source)
    found = extract(
        model,
        source,
        at.train,
        path=features,
        image_size=image_size,
        revision=model_revision,
        device=device,
        max_bad=max_bad,
    )
    labeled = found.rows(at.labeled)
    if len(labeled) < len(at.labeled):
        lost = [source.ids[i] for i in np.setdiff1d(at.labeled, found.indices)]
        raise UserError(
            f"found {len(lost)} labeled images that cannot be read, such as {lost[0]!r}; expected all; fix the files"
        )
    x = unit(found.values)
    if finetune:
        x = finetune_features(x, max(len(labeled), 1), seed=seed)
    more = (
        {"counts": clusters, "seed": seed}
        if propagation == "clusters"
        else {}
        if neighbors is None
        else {"k": neighbors}
    )
    y = PROPAGATION[propagation](
        x if propagation == "clusters" else unit(x), labeled, at.labels, len(manifest.class_names), **more
    )
    y = balance(y) if balanced else y
    y = harden(y) if hard else y
    number = {name: k for k, name in enumerate(manifest.class_names)}
    known = np.array([number.get(name, -1) for name in source.class_names] + [-1])  # last: no label
    truth = known[source.labels[found.indices]]
    scores = report(y, truth, labeled)
    if rank() == 0:
        facts = {"split": manifest.hash, "propagation": propagation, "model": Path(model).name, "seed": seed, **scores}
        save_priors(output, y, [source.ids[i] for i in found.indices], manifest.class_names, facts)
    barrier()
    return scores
