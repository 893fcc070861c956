"""`auto`: finds the best model for images with a few labels.

features of each encoder, once -> heads on them -> the best by cross-validation -> an ordinary run folder, with advice

For segmentation and multi-label, every attempt of the task is trained on parts of the labels, and the best on all.
"""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..api.running import named, settled
from ..arguments import Config
from ..commands import MASKS, MODEL, SOURCE, UNKNOWN, command, data_flags, default_folder, free, refuse_finished
from ..data.dataset import ImageDataset
from ..data.splits.splits import Split
from ..distributed import is_main_process, join_processes
from ..errors import UserError
from ..labeling.answer_kinds import kind_of
from ..labeling.importing import drawn_from, import_labels
from ..labeling.mask_places import refuse_half
from ..labeling.next_steps import why_not_mixed
from ..tasks import get_task
from ..tasks.base import Task
from ..tasks.data_classes import as_path, label_rules
from ..training.preparing import Run, check_labels, prepare
from ..training.setup import logging_level
from .answers import tell_folders, without_masks
from .class_names import by_names, check_names, with_names
from .encoders import name_of
from .from_words import from_words
from .on_features import from_features
from .on_training import from_training
from .report import Advice, said_overrun
from .request import DRAW, checked
from .rungs import Tried
from .search_state import check_unseen, claimed, readable, take_up
from .trials import Trial

if TYPE_CHECKING:
    from ..input_types import Data, Model

log = logging.getLogger("hf_lowlabel")
MINUTES = 20.0
GIVEN = (  # settings of `finetune` that are taken as they are
    *(*SOURCE, *MASKS),
    *"test_dataset_split architecture image_size stored_size max_bad task seed device".split(),
)


@dataclass
class Best:
    """Result of `auto`.

    run: the finished run; its folder is a model. ladder: the candidates, the best first. advice: how good it is, and
    what to do next. to_label: a folder of images to label next, for `hf-lowlabel label`.
    """

    run: Run
    ladder: list[Tried | Trial]
    advice: Advice
    to_label: Path | None

    def __fspath__(self) -> str:
        """Its folder: it may be given wherever a run folder may."""
        return self.run.__fspath__()

    def __repr__(self) -> str:
        kept = next((row["name"] for row in self.run.recorder.ladder if row["kept"]), None)
        name = kept or (self.ladder[0].name if self.ladder else self.run.folder.name)
        known = self.advice.accuracy
        score = get_task(self.run.config.task).score.title
        whose = " by the frozen features it was finetuned from" if self.advice.trained_on else ""
        said = f"{score} {known} on new images{whose}" if known else f"{score} on new images not known"
        more = f", to label next: {self.to_label}" if self.to_label else ""
        return f"Best({name}: {said}, model in {self.folder}{more})"

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
    labels: str | os.PathLike[str] | None = None,
    split: str | os.PathLike[str] | Split | None = None,
    num_labels: int | None = None,
    class_balanced: bool = False,
    test_fraction: float = 0.0,
    minutes: float = MINUTES,
    train: bool = True,
    to_label: int = 20,
    features: str | os.PathLike[str] | None = None,
    text_model: str | None = None,
    class_names: Sequence[str] = (),
    prompts: Sequence[str] = (),
    dataset_config: str | None = None,
    dataset_split: str = "train",
    dataset_revision: str | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    no_label: Sequence[str] = (),
    skip_missing: bool = False,
    skip_conflicts: bool = False,
    plain_folders: bool = False,
    value_range: Sequence[float] = (),
    pages: bool = False,
    test_dataset_split: str | None = None,
    mask_column: str | None = None,
    classes: Sequence[str] = (),
    mask_format: str | None = None,
    mask_ignore: Sequence[int] = (),
    instances: bool = False,
    architecture: str | None = None,
    image_size: int | None = None,
    stored_size: int | None = None,
    max_bad: float = 0.01,
    seed: int = 0,
    device: str | None = None,
    output_dir: str | os.PathLike[str] | None = None,
) -> Best:
    """Find the best model for images of which a few are labeled, and score it.

    Args:
        dataset: Images: Hub id, local folder, parquet file or folder, 'digits', or data in memory.
        model: Timm name, Hub id, local folder or a timm module; or several, which vote for classification, and of
            which with masks the best on frozen features is trained.
        task: What is learned: classification, multilabel or segmentation.
        labels: Finished labels: a folder of `select`, labels.csv, or a Label Studio export (.json).
        split: Split manifest (JSON), or a Split, instead.
        num_labels: Labels to keep of those in the data, drawn by seed; None: all of them.
        class_balanced: Draw labels from all classes, as evenly as can be.
        test_fraction: Share of the images with a label that is held out to test on.
        minutes: How long it may take, in minutes.
        train: Also train networks, if time allows; False: only heads on frozen features, in seconds.
        to_label: How many images to choose for labeling; 0: none.
        features: Folder that caches features; None: in the run folder.
        text_model: A CLIP, SigLIP or other image-text model: pseudo-labels if no image has a label, else a source
            beside the labels.
        class_names: Class names for text_model, each NAME or NAME=WORDS; empty: those of the data.
        prompts: Sentences with {} for the class; empty: usual ones for photos.
        dataset_config: Configuration of a Hub data set.
        dataset_split: Split that training images come from.
        dataset_revision: Revision (commit, tag or branch) of a Hub data set.
        image_column: Column that holds the image; None: detected.
        label_column: Column that holds the class; None: detected.
        no_label, skip_missing, skip_conflicts, plain_folders, value_range, pages: As for `finetune`.
        test_dataset_split: Split of the data set to test on; None: the manifest's, else 'test' or 'validation'.
        mask_column: Column that holds the mask; None: detected.
        classes: Classes of the masks in the order of their values, or a text file of them.
        mask_format: Encoding of masks: index, binary or colors; None: that of the layout.
        mask_ignore: Mask values to ignore, besides 255.
        instances: Mask values are object numbers, all of one class.
        architecture: Decoder for segmentation; None: the default of `finetune`.
        image_size: Side of the network's input in px; None: the model's, to which smaller images are enlarged. With
            masks the shorter side to which images are scaled down; None: what the time allows.
        stored_size: Side of stored images in px (with masks the longer); None: as in `finetune`.
        max_bad: Share of unreadable images that is skipped and listed; above it the run stops.
        seed: Decides the labels drawn and the folds.
        device: 'cpu' to use no GPU; None: the best available.
        output_dir: Run folder: model, card, metrics, advice; None: runs/auto-DATA.

    Returns:
        The run, the candidates, and advice.

    Raises:
        UserError: bad input, before anything is computed.
    """
    begin, computed, said = time.perf_counter(), time.process_time(), dict(locals())
    said |= checked(said)
    logging_level(is_main_process())
    models, labels, features, split = (said[name] for name in ("models", "labels", "features", "split"))
    kind = get_task(task)
    if len(models) > 1 and not kind.climbs and kind_of(task).page != "mask":
        raise UserError(f"auto tries one encoder for {task}, and {len(models)} are given. Give one --model.")
    given = {name: said[name] for name in GIVEN} | {"model": models[0]}
    drawn = {name: said[name] for name in ("num_labels", *DRAW)}
    name = said["output_dir"] or default_folder(dataset)
    refuse_finished(name)
    first = dict(method="probe") if kind.climbs else kind.attempts[0].settings
    if (class_names or prompts) and text_model is None:
        raise UserError(
            "Class names need a model that knows words. Give --text-model, such as google/siglip2-base-patch16-224."
        )
    if text_model is not None and not kind.climbs:
        raise UserError(
            f"The names of classes are used for one class an image, not for {task}. Leave --text-model out."
        )
    try:
        with manifest_of(kind, given, labels, split, drawn, class_names) as (path, left_out):
            words = check_names(text_model, Split.load(path), class_names, prompts)  # before anything is fetched
            config = settled("finetune", {**given, **first, "split": path, "output_dir": name, "callbacks": ()})
            with claimed(name) as folder:
                keep = Path(features) if features is not None else folder / "features"
                ready = prepare(kind, config, folder, left_out)
                if not len(ready.unseen.get("test", [0])):
                    raise UserError("Every test image is a copy of a labeled one. Hold out others.")
                check_unseen(ready, models)
                asked = (text_model, words, list(prompts))
                take_up(ready, models, [name_of(one) for one in models], minutes, train, asked)
                if kind.climbs:
                    ready = readable(ready, keep)
                known = ready, text_model, words, prompts, keep, device, max_bad
                names = None if text_model is None else by_names(*known)
                left = 60 * minutes - (time.perf_counter() - begin)
                best = (
                    Best(*from_features(ready, given, models, keep, to_label, left, train, names))
                    if kind.climbs
                    else Best(*from_training(ready, given, models, keep, to_label, left, train))
                )
            took = time.perf_counter() - begin, time.process_time() - computed
            if is_main_process() and (late := said_overrun(minutes, *took, ready.accelerator.device.type == "cpu")):
                log.warning(late)
            return best
    except NoLabels as missing:
        if text_model is None or not kind.climbs:
            raise
        join_processes(device)  # the first one is the only one to write, and the others wait for it
        with claimed(name) as folder:
            keep = Path(features) if features is not None else folder / "features"
            of, images = (kind, given, text_model, class_names, prompts), missing.fingerprint
            return Best(*from_words(*of, folder, keep, to_label, images))


@contextlib.contextmanager
def manifest_of(
    task: Task, given: dict[str, Any], labels: Any, split: Any, drawn: dict[str, Any], class_names: Sequence[str] = ()
) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Path of a manifest that says which images are labeled, that of the user or one made of his labels; and which of
    those labels were left out, and why.

    Raises:
        UserError: both are given, or there are too few labels to learn from.
    """
    known = [flag for flag, value in (("labels", labels), ("split", split)) if value is not None]
    if len(known) == 2 or split is not None and any(drawn.values()):
        more = "split" if len(known) == 2 else next(n for n, v in drawn.items() if v).replace("_", "-")
        raise UserError(f"--{known[0]} and --{more} cannot be given together. Leave one of them out.")
    if split is not None:
        with written(split) as path:
            yield path, []
        return
    where, held = Config.from_flat("finetune", given).data, {k: drawn[k] for k in DRAW} | {"validation": 0}
    painted, left_out = kind_of(task.name).page == "mask", []
    if painted:
        refuse_half(where.dataset)
    try:
        dataset = task.open(where)
    except UserError:
        if not painted or (plain := without_masks(task, where)) is None:
            raise
        raise NoLabels(plain, task, given) from None
    if labels is not None:
        made, found = import_labels(
            labels,
            source=dataset,
            new_classes=True,
            allow_missing=True,
            rules=label_rules(where),
            several=kind_of(task.name).several,
        )
        for note in found.notes:
            log.warning("%s", note)
        left_out = found.left_out
        if any(drawn.values()):
            several = kind_of(task.name).several
            made = drawn_from(made, dataset, drawn["num_labels"], seed=given["seed"], several=several, **held)
    else:
        if not dataset.has_target.any():
            raise NoLabels(dataset, task, given)
        tell_folders(dataset)
        made = task.draw_split(dataset, drawn["num_labels"], seed=given["seed"], **held)
    if task.climbs:
        check_labels(made)
        made = with_names(made, class_names)
    with written(made) as path:
        yield path, left_out


@contextlib.contextmanager
def written(split: Split | str) -> Iterator[str]:
    """The path of a manifest, which is a file for as long."""
    if not isinstance(split, Split):
        yield str(split)
        return
    with tempfile.TemporaryDirectory(prefix="hf-lowlabel-") as aside:
        split.save(Path(aside) / "split.json")
        yield str(Path(aside) / "split.json")


BUDGETS = {False: 40, True: 20}  # images that are chosen to be labeled first: with classes, with masks


class NoLabels(UserError):
    """No image has a label: what to do about it stands in the message; the command line does it.

    images: how many there are. on_page: whether the page can label them.
    """

    def __init__(self, dataset: ImageDataset, task: Task, given: Mapping[str, Any]):
        kind = kind_of(task.name)
        painted, of = kind.page == "mask", None if task.climbs else task.name
        path = as_path(given["dataset"])
        mixed = why_not_mixed(given) if painted else ""
        self.on_page = not painted or not mixed and path is not None and path.is_dir()
        self.fingerprint, self.images, self.budget = dataset.fingerprint, len(dataset), BUDGETS[painted]
        known = {**data_flags(given), "task": of, "classes": list(given["classes"])}
        known["dataset"] = data = str(given["dataset"]) if path is not None else UNKNOWN
        model = str(given["model"]) if isinstance(given["model"], (str, Path)) else MODEL
        budget, folder = min(self.budget, self.images), free("to_label")
        choose = command("select", **known, model=model, budget=budget, output=folder)
        if not isinstance(given["dataset"], (str, Path)):  # images in memory, which no command line can name
            more = f", task={of!r}" if of else ""
            choose = (
                f"select({model if model == MODEL else repr(model)}, images, budget={budget}, output={folder!r}{more})"
            )
        take = command("split", **{"from": folder}, task=of, dataset=data)
        every = command("loop", data, **data_flags(given, MASKS) | known | {"dataset": None}, model=model)
        no_label = f"No image of {dataset.name!r} has {task.label_words if painted else 'a label'}."
        if mixed:
            flag = "--instances" if given["instances"] else "--mask-ignore among masks of 0 and 255"
            return super().__init__(
                f"{no_label} The page paints class numbers, and no masks of {flag}. Draw these with another tool and "
                "put them beside the images, or leave the flag out."
            )
        if painted and given["mask_format"] in ("binary", "colors"):  # which `select` knows of a finished model alone
            return super().__init__(f"{no_label} Choose some (`{every}`) and paint them on its page.")
        then = (
            f"and put the masks beside the images (`{take}`), or do all by `{every}`."
            if painted
            else "and give the folder as --labels."
        )
        super().__init__(f"{no_label} Choose some (`{choose}`), label them (`{command('label', folder)}`), {then}")
