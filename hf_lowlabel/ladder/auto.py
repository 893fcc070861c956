"""`auto`: images and a few labels in, the best model for them out.

features of each encoder, once -> frozen rungs -> the best by the labels -> an ordinary run folder, with advice
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from .. import methods
from ..api.running import named, settled
from ..arguments import Config
from ..data.dataset import ImageDataset
from ..distributed import is_main_process
from ..errors import UserError
from ..hub.callback import CardCallback
from ..records import Row
from ..selection.importing import import_labels
from ..tasks import get_task
from ..tasks.base import Task
from ..tasks.parts import label_rules
from ..training.folder import KEPT, claim, forget, release
from ..training.frozen import Fit
from ..training.preparing import Prepared, Run, close, prepare
from ..training.priors import save_priors
from .checks import check_labels, without_copies
from .frozen import Features, Tried, climb
from .keeping import features_of_encoder
from .report import Advice, advise, write_advice

if TYPE_CHECKING:
    from ..api.types import Data, Model

log = logging.getLogger("hf_lowlabel")
MINUTES = 20.0


@dataclass
class Best:
    """What `auto` found.

    run: the finished run; its folder is a model. ladder: what was tried, the best first. advice: how good it is, and
    what to do next. to_label: a folder of images to label next, for `hf-lowlabel label`.
    """

    run: Run
    ladder: list[Tried]
    advice: Advice
    to_label: Path | None

    @property
    def model(self):
        return self.run.model

    @property
    def folder(self) -> Path:
        return self.run.folder


@named
def auto(
    dataset: Data,
    model: Model | Sequence[Model] = "resnet18",
    *,
    task: str = "classification",
    labels: str | Path | None = None,
    split: str | Path | None = None,
    num_labels: int | None = None,
    class_balanced: bool = False,
    test_fraction: float = 0.0,
    minutes: float = MINUTES,
    to_label: int = 20,
    features: str | Path | None = None,
    dataset_config: str | None = None,
    dataset_split: str = "train",
    dataset_revision: str | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    no_label: Sequence[str] = (),
    skip_missing: bool = False,
    skip_conflicts: bool = False,
    value_range: Sequence[float] = (),
    pages: bool = False,
    test_dataset_split: str | None = None,
    image_size: int | None = None,
    max_bad: float = 0.01,
    seed: int = 0,
    device: str | None = None,
    output_dir: str | Path | None = None,
) -> Best:
    """The best model for some images of which a few have a label, and how good it is.

    Args:
        dataset: Images: Hub id, local folder, parquet file or folder, 'digits', or data in memory.
        model: Timm name, Hub id, local folder or a module of timm; several are tried and vote.
        task: What is learned: classification.
        labels: Finished labels: the folder of `select`, labels.csv, or a Label Studio export (.json).
        split: Split manifest (JSON) instead.
        num_labels: Labels to keep of those in the data, drawn by seed; None: all of them.
        class_balanced: Draw the same number of labels from every class.
        test_fraction: Share of the images with a label that is held out to test on.
        minutes: How long it may take, in minutes.
        to_label: Images that are chosen to be labeled next; 0: none.
        features: Folder in which features are kept and looked for; None: in the run folder.
        dataset_config: Configuration of a Hub data set.
        dataset_split: Split that training images come from.
        dataset_revision: Revision (commit, tag or branch) of a Hub data set.
        image_column: Column that holds the image; found by itself when None.
        label_column: Column that holds the class; found by itself when None.
        no_label, skip_missing, skip_conflicts, value_range, pages: As for `finetune`.
        test_dataset_split: Split of the data set to test on; None: 'test', then 'validation', where they have labels.
        image_size: Side of what the network sees, in px; the model's own, or the images' when smaller.
        max_bad: Share of unreadable images that is skipped and listed; above it the run stops.
        seed: Decides the labels drawn and which are left out together.
        device: 'cpu' to leave a GPU alone; None: the best there is.
        output_dir: Run folder: model, card, metrics, advice; None: runs/auto-DATA.

    Returns:
        The run, what was tried, and advice.

    Raises:
        UserError: bad input, before anything is computed.
    """
    begin = time.perf_counter()
    models = list(model) if isinstance(model, (list, tuple)) else [model]
    if not models or minutes <= 0:
        raise UserError("Give at least one --model and --minutes above 0.")
    kind = get_task(task)
    if not kind.climbs:
        raise UserError(f"auto is for classification, and this is {task}. Use `hf-lowlabel finetune --task {task}`.")
    data = dict(
        dataset=dataset,
        dataset_config=dataset_config,
        dataset_split=dataset_split,
        dataset_revision=dataset_revision,
        image_column=image_column,
        label_column=label_column,
        no_label=list(no_label),
        skip_missing=skip_missing,
        skip_conflicts=skip_conflicts,
        value_range=list(value_range),
        pages=pages,
        test_dataset_split=test_dataset_split,
        max_bad=max_bad,
    )
    more = dict(task=task, method="probe", model=models[0], image_size=image_size, seed=seed, device=device)
    drawn = dict(num_labels=num_labels, class_balanced=class_balanced, test_fraction=test_fraction)
    name = output_dir or default_folder(dataset)
    with manifest_of(kind, data, labels, split, drawn, seed) as path:
        config = settled("finetune", {**data, **more, "split": path, "output_dir": name, "callbacks": ()})
        with claimed(name) as folder:
            keep = Path(features) if features is not None else folder / KEPT
            return climbed(kind, config, folder, models, keep, to_label, begin, 60 * minutes)


@contextlib.contextmanager
def claimed(output_dir: str | Path) -> Iterator[Path]:
    """The run folder; one that was left before its end is gone on with, from the features it has."""
    path = Path(output_dir).expanduser()
    unfinished = (path / KEPT).is_dir() and not (path / "run.json").exists()
    folder = claim(path, unfinished)
    try:
        yield folder
    except UserError:
        if is_main_process():
            forget(folder)
        raise
    finally:
        release(folder)


def default_folder(dataset: Any) -> str:
    name = Path(dataset).name if isinstance(dataset, (str, Path)) else "memory"
    return f"runs/auto-{''.join(c if c.isalnum() else '-' for c in name).strip('-').lower() or 'data'}"


@contextlib.contextmanager
def manifest_of(
    task: Task, data: dict[str, Any], labels: Any, split: Any, drawn: dict[str, Any], seed: int
) -> Iterator[str]:
    """Path of a manifest that says which images are labeled: that of the user, or one made of his labels.

    Raises:
        UserError: both are given, or there are too few labels to learn from.
    """
    given = [flag for flag, value in (("labels", labels), ("split", split)) if value is not None]
    if len(given) == 2 or given and any(drawn.values()):
        more = "split" if len(given) == 2 else next(n for n, v in drawn.items() if v).replace("_", "-")
        raise UserError(f"--{given[0]} and --{more} cannot be given together. Leave one of them out.")
    if split is not None:
        yield str(split)
        return
    where = Config.from_flat("finetune", {**data, "task": task.name}).data
    dataset = task.open(where)
    if labels is not None:
        made, found = import_labels(
            labels, source=dataset, new_classes=True, allow_missing=True, rules=label_rules(where)
        )
        for note in found.notes:
            log.warning("%s", note)
    else:
        if not dataset.has_target.any():
            raise NoLabels(dataset)
        made = task.draw_split(dataset, drawn["num_labels"], seed=seed, **{k: drawn[k] for k in DRAW}, validation=0)
    check_labels(made)
    with tempfile.TemporaryDirectory(prefix="hf-lowlabel-") as aside:
        made.save(Path(aside) / "split.json")
        yield str(Path(aside) / "split.json")


DRAW = ("class_balanced", "test_fraction")


class NoLabels(UserError):
    """No image has a label: what to do about it stands in the message; the command line does it."""

    def __init__(self, dataset: ImageDataset):
        super().__init__(
            f"No image of {dataset.name!r} has a label. Choose some (`hf-lowlabel select --budget 40`), label them "
            "(`hf-lowlabel label`), and give the folder as --labels."
        )


# ---- the run --------------------------------------------------------------------------------------------------------
def climbed(
    task: Task,
    config: Config,
    folder: Path,
    models: list[Any],
    keep: Path,
    to_label: int,
    begin: float,
    seconds: float,
) -> Best:
    """From settings to a finished run folder."""
    ready = prepare(task, config, folder)
    y, rows = ready.labeled.targets.numpy(), ready.labeled.members.numpy()
    check_labels(ready.chosen.split)
    without_copies(ready)
    readies, encoders = [ready], list[Features]()
    for number, model in enumerate(models):
        if number:
            readies.append(beside(ready, model))
        started = time.perf_counter()
        x = features_of_encoder(readies[-1], keep)
        name = unique(name_of(model), [e.name for e in encoders])
        encoders.append(Features(name, x, rows, y, len(ready.names)))
        log.info("features of %d images by %s in %.0f s", len(x), name, time.perf_counter() - started)
        if time.perf_counter() - begin > 0.7 * seconds and number + 1 < len(models):
            log.warning("no time is left for %s: give more --minutes", ", ".join(map(name_of, models[number + 1 :])))
            break
    tried = climb(encoders, y, seed=config.training.seed)
    best = tried[0]
    at = [encoder.name for encoder in encoders].index(best.encoder)
    ready, encoder = readies[at], encoders[at]
    take(ready, tried)
    metrics = tested(ready, encoder, tried)
    advice = advise(ready, encoders, tried, metrics, to_label)
    ready.recorder.advice = advice.sentences
    run = save(ready, encoder, best, metrics, time.perf_counter() - begin)
    chosen = write_advice(ready, advice, encoder.x, folder) if is_main_process() else None
    return Best(run, tried, advice, chosen)


def beside(ready: Prepared, model: Any) -> Prepared:
    """The same run with another encoder: its network, and the images as that sees them."""
    from dataclasses import replace

    config = ready.config.replace(model=model)
    network = ready.task.build(config, ready.dataset, ready.names)
    net = network.model.to(ready.accelerator.device)
    training, labeled = ready.task.caches(net, config.data, ready.dataset, ready.at)
    where = {"validation": (ready.dataset, ready.at.validation), "test": (ready.chosen.test, ready.chosen.test_at)}
    held = {part: ready.task.held(net, config.data, *where[part], ready.names, part) for part in ready.held}
    return replace(ready, config=config, network=network, training=training, labeled=labeled, held=held)


def name_of(model: Any) -> str:
    if isinstance(model, (str, Path)):
        return Path(model).name if Path(model).exists() else str(model)
    return type(model).__name__


def unique(name: str, taken: list[str]) -> str:
    return name if name not in taken else unique(f"{name} again", taken)


def take(ready: Prepared, tried: list[Tried]) -> None:
    """Go on as a run of the best rung, so that training.yaml says how to make the same by hand."""
    best, recorder = tried[0], ready.recorder
    method = methods.find(best.rung.method)
    manifest = str(ready.folder / "split.json")  # the one that labels were drawn into may be gone by then
    ready.config = ready.config.replace(method=method, method_args=dict(best.rung.args), split=manifest)
    recorder.takes(ready.config, ready.network.model.load_report)
    recorder.ladder = [
        {"name": one.name, "by_labels": one.accuracy, "score": one.score, "kept": one is best} for one in tried
    ]


def tested(ready: Prepared, encoder: Features, tried: list[Tried]) -> dict[str, Any]:
    """Give the network the best head; its metrics, where there are test images, and a row for the other rungs."""
    model, metrics, key = ready.network.model, dict[str, Any](), ready.task.score.key
    if "test" in ready.held:
        for one in tried[1:]:
            if one.encoder == encoder.name and not one.votes:
                set_head(model, encoder.head(one))
                value = ready.task.evaluate(model, ready.held["test"], ready.names)[key]
                ready.recorder.comparisons.append(Row(one.name, {key: value}))
    set_head(model, encoder.head(tried[0]))
    if "test" in ready.held:
        metrics = ready.task.evaluate(model, ready.held["test"], ready.names, folder=ready.folder)
    return metrics


def save(ready: Prepared, encoder: Features, best: Tried, metrics: dict[str, Any], seconds: float) -> Run:
    """Model, priors, metrics, record and card in the run folder."""
    recorder, model = ready.recorder, ready.network.model
    done = Fit(ready, seconds, [CardCallback()])
    if recorder.main:
        facts = {"method": best.rung.method, "rung": best.name}
        save_priors(ready.folder / "priors.safetensors", encoder.say(best), ready.training.ids, ready.names, facts)
    done.state.record = recorder.save(done, metrics, final=True)
    close(done, ready.accelerator)
    return Run(ready.config, ready.folder, model, metrics, done, recorder)


def set_head(model, head: tuple[np.ndarray, np.ndarray]) -> None:
    weight, bias = (torch.from_numpy(v) for v in head)
    model.set_classifier(weight, bias)
