"""`select`: from a data set to a folder to label."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..arguments import DataArguments
from ..data.dataset import ImageDataset
from ..data.splits import Split
from ..distributed import barrier, is_main_process, join_processes
from ..errors import UserError, at_least, unknown
from ..evaluation.neighbors import unit
from ..tasks import get_task
from ..training.setup import logging_level
from .clustering import backend
from .features import Features, extract
from .kinds import Kind, kind_of
from .labeling import check_folder, export, reasons
from .labels import Task, read_classes
from .strategies import STRATEGIES, choose, identical

log = logging.getLogger("hf_lowlabel")


@dataclass(repr=False)
class Selection:
    """folder: what was written. ids: the chosen images. report: facts about the choice, also in selection.json."""

    folder: Path
    ids: list[str]
    report: dict

    def __repr__(self) -> str:
        return f"Selection({str(self.folder)!r}, {len(self.ids)} images)"


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
    """Choose images worth labeling and write a folder to label them in. Under several processes the first one writes.

    Args:
        model: a timm name, local folder or Hub id whose features decide.
        dataset: as for `load_source`, or a DataArguments with its split, columns and revision.
        budget: images to choose.
        output: folder to write.
        strategy: a name in `strategies.STRATEGIES`.
        task: "classification", or "segmentation" for images to paint masks for.
        split: a manifest; its validation and test images are left out, and so are those it has labels for.
        classes: a list or file of class names.
        seed: decides clusters and draws.
        features: file of the features (None: in `output`), reused when model and data are the same.
        image_size: side of the images the network sees, in px (None: the model's own).
        model_revision: of a model on the Hub.
        device: such as "cpu" (None: the best there is).
        max_bad: share of unreadable images that is left out and listed.

    Returns:
        The folder, the chosen ids, and facts about the choice.

    Raises:
        UserError: for bad input, before anything is written but the features.
    """
    at_least("budget", budget, 1)
    at_least("seed", seed, 0)
    if strategy not in STRATEGIES:
        raise unknown("strategy", strategy, STRATEGIES)
    kind, folder = kind_of(task), Path(output)
    start_processes(device)
    check_folder(folder)
    barrier()
    source = get_task(task).open_to_select(data_arguments(dataset), classes)
    base = Split.load(split) if split else None
    at = base.resolve(source) if base else None
    names = class_list(classes, base, source)
    members, labeled = (at.train, at.labeled) if at else (np.arange(len(source)), np.zeros(0, np.int64))
    free = np.setdiff1d(members, labeled)
    check_budget(budget, len(free), names, base, kind)
    found = extract(
        model,
        source,
        members,
        path=features or folder / "features.safetensors",
        image_size=image_size,
        revision=model_revision,
        device=device,
        max_bad=max_bad,
    )
    x, free = unit(found.values), found.rows(free)
    rows, first = choose_distinct(strategy, x, free, budget, seed, source.labels[found.indices])
    chosen = found.indices[rows]
    facts: dict = {}
    if is_main_process():
        why = reasons(x, rows, source, found.indices)
        facts = report_of(source, found, rows, free, first, why)
        asked = Task(
            dataset=source.name,
            fingerprint=source.fingerprint,
            files={},
            config=source.config,
            split=source.split,
            revision=source.revision,
            class_names=names,
            task=task,
            strategy=strategy,
            seed=seed,
            model=Path(model).name if Path(model).exists() else model,
            labeled=dict(base.labeled) if base else {},
            validation=list(base.validation) if base else [],
            test=list(base.test) if base else [],
            report=facts,
        )
        check_folder(folder)  # again: features take a while, and another process may have been here meanwhile
        export(folder, source, chosen, asked, why)
    barrier()
    return Selection(folder, [source.ids[i] for i in chosen], facts)


def data_arguments(dataset: str | DataArguments) -> DataArguments:
    return dataset if isinstance(dataset, DataArguments) else DataArguments(dataset)


def choose_distinct(
    strategy: str, x: np.ndarray, free: np.ndarray, budget: int, seed: int, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Choose among the rows `free` of unit features x [N, D] without their copies.

    Returns:
        The chosen rows, int64 [budget], and for each of `free` the first of them that it is a copy of (`identical`).
    """
    first = identical(x[free])
    distinct = free[first == np.arange(len(free))]
    if budget > len(distinct):
        raise UserError(
            f"There are {len(distinct)} images to choose from after leaving out {len(free) - len(distinct)} copies. "
            f"Use --budget {len(distinct)} or less."
        )
    return distinct[choose(strategy, x[distinct], budget, seed, labels[distinct])], first


def class_list(classes: str | list[str] | None, base: Split | None, source) -> list[str]:
    """The names a label may have, as far as they are known."""
    if isinstance(classes, list) and len(classes) != 1:
        return list(dict.fromkeys(classes))
    if classes:
        name = classes if isinstance(classes, str) else classes[0]
        return read_classes(name)
    return list(base.class_names) if base else list(source.class_names)


def check_budget(budget: int, available: int, names: list[str], base: Split | None, kind: Kind) -> None:
    """UserError for a budget that there are too few images for, or that cannot reach every class."""
    if not 1 <= budget <= available:
        raise UserError(
            f"A budget of {budget} does not fit {available} images without a label. Use --budget 1 to {available}."
        )
    missing = len(names) - (len(set(base.labeled.values())) if base else 0)
    if kind.covers and budget < missing:
        raise UserError(
            f"A budget of {budget} cannot cover the {missing} classes that have no label. "
            f"Use --budget {missing} or more."
        )


def report_of(
    source: ImageDataset, found: Features, rows: np.ndarray, free: np.ndarray, first: np.ndarray, why: list[dict]
) -> dict:
    """Facts about a choice: copies among the images, near-copies of chosen ones, classes covered if they are known."""
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
    if (labels >= 0).all():
        out["classes_covered"] = len(np.unique(labels))
        out["classes"] = len(source.class_names)
    return out


def start_processes(device: str | None) -> None:
    """Join the other processes of a launch, where there are any; only the first one tells what it does."""
    logging_level(is_main_process())
    join_processes(device)
