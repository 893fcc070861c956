"""Which images to label next, by what a finished model says of them.

Each strategy is a function (doubt, known, budget, seed, *, arguments) -> int64 [budget]: a `Doubt` of the n images to
choose from, and the features [L, D] of those that are labeled already. `BY_MODEL` is the whole list.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from ..arguments import DataArguments
from ..commands import MASKS, SOURCE
from ..data.dataset import ImageDataset
from ..data.labels.labels import joined
from ..errors import UserError
from ..evaluation.inference import seen_by_all
from ..finetuning.graph import rooted
from ..labeling.answer_kinds import Kind
from ..ranges import Share
from ..records import RunRecord
from ..tasks.base import Task
from ..tasks.uncertainty import Doubt
from ..text import percent
from ..yaml_files import read_yaml
from .feature_file import Features

SHARE = 0.5  # of the images, the doubtful ones, among which those far from each other are taken
COLUMNS = "dataset_config dataset_revision image_column label_column mask_column".split()  # of a run's own data
AS_TRAINED = [name for name in (*SOURCE, *MASKS) if name not in (*COLUMNS, "dataset", "dataset_split")]  # of any
CERTAIN = 0.005  # a probability this near to 0 or 1 is shown as 0 or 100 %, and is no doubt
UNUSUAL = 0.5  # times as far from 1/2 as usual, below which a class is a reason to ask


def in_doubt(doubt: Doubt, known: np.ndarray, budget: int, seed: int = 0, *, share: Share = SHARE) -> np.ndarray:
    """Of the `share` of images in doubt the first the most doubtful, then each the farthest from those chosen and from
    the labeled ones. share=0: the most doubtful alone."""
    return spread_out(doubt.unsure, doubt.x, budget, known, share)


def badge(doubt: Doubt, known: np.ndarray, budget: int, seed: int = 0) -> np.ndarray:
    """BADGE (Ash et al. 2020, arXiv 1906.03671): k-means++ on the gradients of the last layer,

        g_i = (p_i - e_argmax p_i) x_i^T,   P(next = i) ~ min_{j chosen} |g_i - g_j|^2

    for the class that the model names; the first is the largest, as in the authors' code. x_i are the features `rooted`
    (their square root behind a ReLU, centred, of length 1), as for the other strategies and in recipes/benchmarks; the
    paper has the activations themselves, whose length weighs in there. Of products no K D is stored:
    |g_i - g_j|^2 = |a_i|^2 |x_i|^2 + |a_j|^2 |x_j|^2 - 2 (a_i . a_j)(x_i . x_j).
    """
    a, x = doubt.p - (np.arange(doubt.p.shape[1]) == doubt.p.argmax(1)[:, None]), doubt.x.astype(np.float64)
    size = (a * a).sum(1) * (x * x).sum(1)
    random, chosen = np.random.default_rng(seed), [int(size.argmax())]
    distance = np.full(len(a), np.inf)
    while len(chosen) < budget:
        last = chosen[-1]
        distance = np.minimum(distance, np.maximum(size + size[last] - 2 * (a @ a[last]) * (x @ x[last]), 0))
        distance[chosen] = 0
        weights = distance if distance.sum() > 0 else np.isin(np.arange(len(a)), chosen, invert=True).astype(float)
        chosen.append(int(random.choice(len(a), p=weights / weights.sum())))
    return np.array(chosen)


BY_MODEL: dict[str, Callable[..., np.ndarray]] = {
    "margin": in_doubt,
    "entropy": in_doubt,
    "uncertain-pixels": in_doubt,
    "badge": badge,
}


def spread_out(
    doubt: np.ndarray, z: np.ndarray, count: int, known: np.ndarray | None = None, share: float = SHARE
) -> np.ndarray:
    """Rows of `count` images of the share in doubt: the first the most doubtful, then each the farthest from those
    chosen and from those known.

    Args:
        doubt: [n], the larger the more doubtful. z: where images are, [n, D]. known: where labeled ones are, [L, D].
    """
    doubtful = np.argsort(-doubt, kind="stable")[: max(count, int(share * len(doubt)))]
    z = z[doubtful]
    chosen, distance = [0], ((z - z[0]) ** 2).sum(1)
    for one in known if known is not None else ():
        distance = np.minimum(distance, ((z - one) ** 2).sum(1))
    while len(chosen) < min(count, len(doubtful)):
        distance[chosen] = -1
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, ((z - z[chosen[-1]]) ** 2).sum(1))
    return doubtful[chosen]


class Looked(NamedTuple):
    """What a model says of images. found: their features, readable ones alone. doubt: of the same rows, x `rooted`.
    names: the classes of p."""

    found: Features
    doubt: Doubt
    names: list[str]


def look(
    task: Task,
    model: str,
    data: DataArguments,
    source: ImageDataset,
    members: np.ndarray,
    by: str,
    revision: str | None,
    device: str | None,
) -> Looked:
    """Ask a finished model about images.

    Args:
        task: of the model.
        model: a run folder, a saved model or a Hub id at `revision`.
        data: how images are read.
        source: the images.
        members: positions of those that are asked for, int64 [M].
        by: a strategy in BY_MODEL.
        device: such as "cpu"; None: the best there is.

    Raises:
        UserError: it is no finished model, or more images than `data.max_bad` allows cannot be read.
    """
    try:
        network = task.load(model, revision, device)
    except UserError as error:
        raise UserError(
            f"{by} asks a finished {task.product} for uncertain images, and {model!r} is none: {error}"
        ) from error
    cache = task.look(network, data, source, members)
    every = torch.arange(len(cache))
    doubt = task.doubt(network, cache, every, by if by in task.doubts else None)
    own = (seen_by_all(cache, every) == every).numpy()  # the others cannot be read
    indices, doubt = np.asarray(cache.indices, dtype=np.int64)[own], Doubt(*(v[own] for v in doubt))
    order = np.argsort(indices, kind="stable")
    found = Features(doubt.x[order].astype(np.float32), indices[order], skipped=list(cache.skipped))
    return Looked(found, Doubt(doubt.unsure[order], doubt.p[order], rooted(found.values)), task.names_of(network))


def strategies_of(task: Task) -> list[str]:
    """The strategies that ask a finished model of a task, the usual one first (recipes/benchmarks/rounds.py)."""
    return [*(["badge"] if task.labeling == "class" else []), *task.doubts]


def is_finished(task: Task, model: str) -> bool:
    """Whether `model` is the folder of a finished run of this task, and not an encoder alone."""
    record = Path(model, "run.json")
    return record.is_file() and RunRecord.from_json(record).kind == task.name


def as_trained(task: Task, model: str, data: DataArguments) -> DataArguments:
    """How a finished run of the task reads images and labels, where nothing else is said: its manifest is of those.

    Columns, and which configuration it is, are those of its own data alone.
    """
    path = Path(model, "training.yaml")
    if not (is_finished(task, model) and path.is_file()):
        return data
    trained = read_yaml(path)
    own, given = trained.get("dataset"), data.dataset
    same = isinstance(own, str) and isinstance(given, (str, Path))
    same = same and (own == str(given) or Path(own).resolve() == Path(given).expanduser().resolve())
    names = [*AS_TRAINED, *(COLUMNS if same else ())]
    known = {name: trained[name] for name in names if trained.get(name) and not getattr(data, name)}
    if len(listed := known.get("classes", [])) == 1 and not Path(listed[0]).is_file():  # a text file that is gone
        known["classes"] = RunRecord.from_json(Path(model, "run.json")).class_names
    return replace(data, **known)


def usual_leads(p: np.ndarray, kind: Kind) -> np.ndarray | None:
    """How far the probabilities [n, K] of a class are from 1/2 on the mean of the images, [K]: one in the middle is no
    doubt of an image where it is there on every other too, as of a class that is not learned. None where an image has
    no several classes."""
    return np.abs(p - 0.5).mean(0) if kind.several else None


def said_of_each(
    p: np.ndarray, unsure: np.ndarray, rows: np.ndarray, names: list[str], by: str, kind: Kind
) -> list[tuple[tuple[str, float] | None, str]]:
    """`said_of` of these rows, int64 [n], of all images: p [N, K], unsure [N]."""
    usual = usual_leads(p, kind)
    return [said_of(p[r], unsure[r], names, by, kind, usual) for r in rows]


def said_of(
    p: np.ndarray, unsure: float, names: list[str], by: str, kind: Kind, usual: np.ndarray | None
) -> tuple[tuple[str, float] | None, str]:
    """(what a model takes an image for, why it is chosen).

    Args:
        p: [K], as in a `Doubt`. unsure: of the same image, by the measure `by`. names: the K classes.
        kind: how the image is answered. usual: `usual_leads` of the images that it was chosen from.
    """
    if kind.page == "mask":
        words = {
            "uncertain-pixels": f"{percent(unsure, 0)} of its pixels are uncertain",
            "margin": f"two classes are within {percent(1 - unsure, 0)} of each other, on the mean of its pixels",
        }
        return None, words.get(by, f"its pixels are uncertain by {percent(unsure, 0)} (100 %: all classes as likely)")
    if usual is not None:
        lead = np.abs(p - 0.5)
        near = [k for k in np.argsort(lead, kind="stable") if CERTAIN < p[k] < 1 - CERTAIN]
        near = [k for k in near if lead[k] < UNUSUAL * usual[k]][:3]
        likely = (joined(name for name, q in zip(names, p, strict=True) if q > 0.5), float(np.maximum(p, 1 - p).min()))
        if not near:
            return likely, f"no single class is uncertain, probably {likely[0]} ({percent(likely[1], 0)})"
        return likely, "uncertain: " + ", ".join(f"{names[k]} ({percent(p[k], 0)})" for k in near)
    second, first = np.argsort(p)[-2:] if len(p) > 1 else (0, 0)
    between = f"uncertain: {names[first]} ({percent(p[first], 0)}) or {names[second]} ({percent(p[second], 0)})"
    return (names[first], float(p[first])), between
