"""`select`: from a data set to a folder to label."""

from __future__ import annotations

import inspect
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from ..arguments import DataArguments
from ..data.pixels.masks import list_classes
from ..data.skipped import write_left_out
from ..data.splits.splits import Split, given_split
from ..distributed import barrier, is_main_process, join_processes
from ..errors import UserError, at_least, unknown
from ..evaluation.neighbors import rows_of, unit
from ..files import A_MODEL, by_name
from ..labeling.answer_kinds import Kind, kind_of
from ..labeling.labels import Asked, read_classes
from ..labeling.mask_places import why_unpainted
from ..labeling.next_steps import declared_colors, given_to_select, keep_here
from ..labeling.to_label import check_folder, export
from ..methods import check_arguments
from ..models import create_backbone
from ..prediction import task_of
from ..ranges import settings_of
from ..tasks import get_task
from ..tasks.networks import encoder_of_runs
from ..tasks.uncertainty import Doubt
from ..training.priors import classes_of_priors, load_priors
from ..training.setup import logging_level
from .already_labeled import labels_so_far, positions
from .by_class import within_classes
from .by_model import BY_MODEL, as_trained, is_finished, look, said_of_each, strategies_of
from .feature_file import with_more
from .features import extract
from .reasons import reasons, report_of
from .strategies import STRATEGIES, choose, identical

if TYPE_CHECKING:
    from ..input_types import Data

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
    model: str | os.PathLike[str],
    dataset: Data | DataArguments,
    *,
    budget: int,
    output: str | os.PathLike[str],
    strategy: str | None = None,
    strategy_args: Mapping[str, Any] | None = None,
    task: str = "classification",
    split: str | os.PathLike[str] | Split | None = None,
    labels: str | os.PathLike[str] | None = None,
    classes: str | list[str] | None = None,
    prior: str | os.PathLike[str] | None = None,
    seed: int = 0,
    features: str | None = None,
    image_size: int | None = None,
    model_revision: str | None = None,
    device: str | None = None,
    max_bad: float = 0.01,
    at_most: bool = False,
    as_runs: bool = False,
) -> Selection:
    """Choose images worth labeling and write a folder to label them in. Under several processes the first one writes.

    Args:
        model: a timm name, local folder or Hub id whose features decide; or a finished model of the task, by whose
            uncertainty images are chosen (`by_model.BY_MODEL`), and whose run says how data are read by default.
        dataset: as for `load_source`, or a DataArguments with its split, columns and revision.
        budget: images to choose.
        output: folder to write. Paths from the root, and others that lead out of the working directory, are in its
            `.here.json` alone: leave that out when it is sent.
        strategy: a name in `strategies.STRATEGIES` or `by_model.BY_MODEL`; None: for the folder of a finished run of
            the task the first of its own, by uncertainty, else "as3l".
        strategy_args: of the strategy, by name.
        task: "classification", "multilabel", or "segmentation" for images to paint masks for.
        split: a manifest or Split; its validation and test images are left out, and so are those it has labels for.
        labels: instead, finished labels as `split --from` reads them, beside those that a finished run has learned
            from. Without `split`, what that run tests on is left out; and images that have a mask are never chosen.
        classes: a list or file of class names.
        prior: prior pseudo-labels of `priors`, for instance from class names: the budget is divided over
            their classes, and the strategy chooses within each.
        seed: decides clusters and draws.
        features: file of the features (.safetensors), or a folder of such (None: in `output`), reused when model and
            data are the same.
        image_size: side of the images the network sees, in px (None: the model's own).
        model_revision: of a model on the Hub.
        device: such as "cpu" (None: the best there is).
        max_bad: share of unreadable images that is left out and listed.
        at_most: fewer than `budget` are chosen where no more are left without copies, instead of an error.
        as_runs: the network sees images as a run of one class an image does, which takes the `features` over.

    Returns:
        The folder, the chosen ids, and facts about the choice. Then label the folder (`hf-lowlabel label FOLDER`) and
        learn from it: `auto(dataset, model, labels=chosen.folder)`; or, of data that has labels already,
        `finetune(dataset, model, split=make_split(load_source(dataset), labeled=chosen.ids, test_fraction=0.2))`.

    Raises:
        UserError: for bad input, before anything is written but the features.
    """
    at_least("budget", budget, 1)
    at_least("seed", seed, 0)
    model = str(by_name("model", model, A_MODEL, needed=True))
    split, labels, prior = given_split(split), by_name("labels", labels), by_name("prior", prior)
    kind, of, folder, data = kind_of(task), get_task(task), Path(output), data_arguments(dataset)
    strategy, arguments = known_strategy(strategy, strategy_args, of, model)
    asks = strategy in BY_MODEL
    check_prior(prior, kind, strategy)
    if asks:
        check_asked(strategy, {"prior": prior, "features": features, "image-size": image_size})
        task_of(model, task, model_revision)
    start_processes(device)
    check_folder(folder)
    barrier()
    data = as_trained(of, model, data)
    unpainted = tell_unpainted(data, kind)
    source = of.open_to_select(data, classes)
    base, left_out = labels_so_far(split, labels, model, source, kind, data)
    names = class_list(classes, base, source, kind) or (classes_of_priors(prior) if prior else [])
    members, labeled, free = positions(source, base, painted=kind.page == "mask" and split is None)
    if at_most:
        budget = max(min(budget, len(free)), 1)
    check_budget(budget, len(free), names, base, kind)
    how = dict(revision=model_revision, device=device)
    every = np.arange(len(source))  # also those that are held out, whose copies are not asked for either
    looked = look(of, model, replace(data, max_bad=max_bad), source, every, strategy, **how) if asks else None
    held = np.setdiff1d(every, members)
    path = features or folder / "features.safetensors"
    more = dict(path=path, image_size=image_size, max_bad=max_bad)
    encoder: str | nn.Module = model
    if as_runs and of.climbs and not looked:
        encoder = encoder_of_runs(model, source, image_size, model_revision, create_backbone)
    found = looked.found if looked else extract(encoder, source, members, **how, **more)
    if looked is None and len(held):  # apart, so that the file is of what others ask for too
        found = with_more(found, extract(encoder, source, held, image_size=image_size, max_bad=1.0, **how))
    x, free, seen = unit(found.values, in_place=True), found.rows(free), found.rows(members)
    known = found.rows(np.intersect1d(labeled, members))  # held-out images have masks too
    believed = np.zeros((len(x), len(names)), np.float32)
    if prior:
        believed[seen] = load_priors(prior, [source.ids[i] for i in found.indices[seen]], names).numpy()

    def of_features(some: np.ndarray, count: int) -> np.ndarray:
        return choose(strategy, rows_of(x, some), count, seed, source.labels[found.indices[some]], arguments, x[known])

    def pick(rows: np.ndarray) -> np.ndarray:
        if prior:
            return within_classes(believed, rows, budget, of_features)
        if looked is None:
            return of_features(rows, budget)
        doubt = Doubt(*(v[rows] for v in looked.doubt))
        return BY_MODEL[strategy](doubt, looked.doubt.x[known], budget, seed, **arguments)

    first = first_alike(x, free)
    distinct = free[first == free]
    if at_most and len(distinct):
        budget = min(budget, len(distinct))
        check_budget(budget, len(distinct), names, base, kind)
    if budget > len(distinct):
        raise too_few(len(distinct), len(free), int((~np.isin(first, free)).sum()))
    rows = distinct[pick(distinct)]
    chosen = found.indices[rows]
    facts: dict = {}
    if is_main_process():
        why = reasons(rows_of(x, seen), np.searchsorted(seen, rows), source, found.indices[seen])
        facts = {"images": len(seen), **report_of(source, found, rows, free, first, why, kind)}
        facts["copies_of_held_out"] = int(np.isin(first, found.rows(held)).sum())
        facts |= {"not_painted": True} if unpainted else {}
        if looked is not None:
            facts["labeled"] = len(labeled)
        named = None if asks else model
        as_given = dict(image_size=image_size, seed=seed, device=device, max_bad=max_bad)
        asked = Asked.of(
            source,
            base,
            class_names=names or (looked.names if looked else []),
            task=task,
            strategy=strategy,
            seed=seed,
            model=Path(model).name if Path(model).exists() else model,
            given=given_to_select(data, named, **as_given),
            report=facts,
            class_colors=declared_colors(data if not classes else replace(data, classes=listed(classes))),
        )
        check_folder(folder)  # again: features take a while, and another process may have been here meanwhile
        doubt = looked.doubt if looked else None
        said = said_of_each(doubt.p, doubt.unsure, rows, looked.names, strategy, kind) if doubt else []
        write_left_out(replace(source, left_out=[*source.left_out, *left_out]), folder / "left_out.csv")
        keep_here(folder, {"dataset": data.dataset, "model": named})
        export(folder, source, chosen, asked, why, dict(zip([source.ids[i] for i in chosen], said, strict=False)))
    barrier()
    return Selection(folder, [source.ids[i] for i in chosen], facts)


def known_strategy(
    strategy: str | None, arguments: Mapping[str, Any] | None, task: Any, model: str
) -> tuple[str, dict[str, Any]]:
    """(its name, its arguments), checked.

    Raises:
        UserError: there is no such strategy for the task, or it takes no such argument.
    """
    asking = strategies_of(task)
    if strategy is None:
        strategy = asking[0] if is_finished(task, model) else "as3l"
    if strategy not in STRATEGIES and strategy not in asking:
        raise unknown("strategy", strategy, [*STRATEGIES, *asking])
    if strategy == "class-balanced" and task.labeling != "class":
        raise UserError("class-balanced is for one class an image. Take another --strategy.")
    function, given = {**STRATEGIES, **BY_MODEL}[strategy], dict(arguments or {})
    takes = {p.name: p.default for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY}
    for own in ("labels", "known"):  # those of the data, which class-balanced and coreset are told
        takes.pop(own, None)
    if given and not takes:
        raise UserError(f"The strategy {strategy} takes no arguments. Leave out --strategy-args.")
    check_arguments(f"the strategy {strategy}", given, takes, settings_of(function))
    return strategy, given


def check_prior(prior: str | None, kind: Kind, strategy: str) -> None:
    """UserError for a file that holds no priors, or what has no use for them: before features are computed."""
    if prior and strategy == "class-balanced":
        raise UserError("class-balanced draws by the labels, not by --prior. Leave one of them out.")
    if prior:
        classes_of_priors(prior)
    if prior and kind.page == "mask":
        raise UserError("Prior pseudo-labels are of one class an image. Leave out --prior, or --task segmentation.")


def check_asked(strategy: str, given: dict[str, Any]) -> None:
    """UserError for a setting, flag -> value, that a strategy that asks a finished model has no use for."""
    for flag in (flag for flag, value in given.items() if value):
        raise UserError(f"{strategy} asks the finished model, which sees images as it does. Leave out --{flag}.")


def tell_unpainted(data: DataArguments, kind: Kind) -> str:
    """Why no masks can be painted for these data; "" where they can, or none are."""
    why = why_unpainted(data) if kind.page == "mask" else ""
    if why:
        log.warning("%s", why)
    return why


def data_arguments(dataset: Data | DataArguments) -> DataArguments:
    return dataset if isinstance(dataset, DataArguments) else DataArguments(dataset)


def first_alike(x: np.ndarray, free: np.ndarray) -> np.ndarray:
    """For each of the rows `free` of unit features x [N, D] the row that it is a copy of (`identical`), or itself. All
    other rows come first: those that have a label, are held out, or were given none when a person was asked."""
    others = np.setdiff1d(np.arange(len(x)), free)
    rows = np.concatenate([others, free])
    return rows[identical(rows_of(x, rows))][len(others) :]


def too_few(distinct: int, free: int, known: int) -> UserError:
    """known: copies of images that are not asked for."""
    return UserError(
        f"There are {distinct} images to choose from after leaving out {free - distinct} copies"
        f"{f', {known} of them of images that have a label or are held out' if known else ''}. "
        + (f"Use --budget {distinct} or less." if distinct else "There is nothing new to label.")
    )


def listed(classes: str | list[str] | None) -> list[str]:
    """Names, or one file of them."""
    return [classes] if isinstance(classes, str) else list(classes or [])


def class_list(classes: str | list[str] | None, base: Split | None, source, kind: Kind) -> list[str]:
    """The names a label may have, as far as they are known."""
    given = listed(classes)
    if len(given) > 1:
        return list(dict.fromkeys(given))
    for name in given:
        return list_classes(name)[0] if kind.page == "mask" else read_classes(name)
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


def start_processes(device: str | None) -> None:
    """Join the other processes of a launch, where there are any; only the first one tells what it does."""
    logging_level(is_main_process())
    join_processes(device)
