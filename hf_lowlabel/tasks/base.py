"""What a task is: one object that knows everything in which classification, segmentation and their like differ.

A run, a prediction, a card and a report are written once, for `Task`; a switch on a task's name stands nowhere else.
The defaults here are those of a task whose label is of the whole image; a task overrides what differs.
"""

from __future__ import annotations

import abc
import logging
import shutil
from collections.abc import Generator, Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image
from torch import nn

from .. import methods
from ..arguments import Config, DataArguments
from ..data.dataset import ImageDataset
from ..data.joining import join
from ..data.opening import open_dataset
from ..data.pages import as_asked, look
from ..data.sources.targets import Targets
from ..data.splits.drawing import make_split
from ..data.splits.split_roots import has_unlabeled_split
from ..data.splits.splits import Split, SplitIndices
from ..demo_stages import Demo
from ..errors import MissingSplit, UserError, unknown
from ..files import read_json, verify, write_json
from ..objective import FinetuneObjective
from ..records import Metric, Row, RunRecord
from ..text import listed
from ..views.transforms import BatchTransform
from .choosing import choose_split
from .data_classes import MODEL_FILES, Attempt, Chosen, Examples, Section, as_path
from .judging import Judging
from .networks import Network
from .speaker import Speaker
from .uncertainty import Doubting

log = logging.getLogger("hf_lowlabel")
LEADS_TO_CODE = {"auto_map", "custom_pipelines"}  # keys by which transformers finds code that is not its own


class Task(Doubting, Judging, Speaker):
    """One kind of answer about an image.

    name: of `--task`. Of `metrics` the first is the score by which weights are kept and runs compared. takes: settings
    that only some tasks have. fallbacks: defaults by verb where the method has none of its own. own_methods: name ->
    "module:Class" where a method of that name is another class here.
    """

    name: ClassVar[str]
    takes: ClassVar[frozenset[str]] = frozenset()
    default_methods: ClassVar[dict[str, str]]
    fallbacks: ClassVar[dict[str, dict[str, Any]]]
    own_methods: ClassVar[dict[str, str]] = {}
    presets: ClassVar[dict[str, dict[str, Any]]] = {}  # settings of `finetune` by name, for all methods that train
    demo: ClassVar[Demo | None] = None
    labeling: ClassVar[str] = "class"  # how a person answers: with a "class", with "classes", with a "mask"
    packages: ClassVar[tuple[str, ...]] = (*"torch transformers timm safetensors numpy pillow".split(),)  # of a Space
    has_neighbours: ClassVar[bool] = False  # whether the demo page shows the nearest labeled images
    climbs: ClassVar[bool] = False  # whether `auto` begins with heads on frozen features
    attempts: ClassVar[tuple[Attempt, ...]] = ()  # of `auto` to train; without frozen heads the plainest first
    threshold: float | None = None  # a class counts as predicted above it, where an image has several
    labels_score: ClassVar[bool] = False  # whether `unlabeled_score` measures something

    def sides(self, dataset: ImageDataset, asked: int | None = None) -> list[dict[str, int | None]]:
        """Sizes (settings of `finetune`, px) at which `auto` may train, the usual one first; none to choose from.
        asked: the side that the user gave, which leaves one."""
        return []

    # ---- methods and settings ---------------------------------------------------------------------------------------
    @property
    def score(self) -> Metric:
        return self.metrics[0]

    def methods(self, verb: str) -> list[str]:
        """Names of the methods for this task."""
        if verb == "pretrain":
            return methods.methods_for(verb)
        return [n for n in methods.methods_for(verb) if n in self.own_methods or self.name in methods.find(n).tasks]

    def method(self, verb: str, method: str | type) -> type[Any]:
        """The class of a method.

        Raises:
            UserError: there is no such method, or it is for other tasks.
        """
        if not isinstance(method, str):
            return method
        if method in self.own_methods and verb == "finetune":
            return methods.load(self.own_methods[method])
        if method not in methods.methods_for(verb):
            raise unknown(f"{verb} method", method, methods.methods_for(verb))
        found = methods.find(method)
        if verb == "finetune" and self.name not in found.tasks:
            raise UserError(
                f"{method} is a method for {' and '.join(found.tasks)}, and this is a run of {self.name}. Give --task "
                f"{found.tasks[0]}, or --method with one of {', '.join(self.methods(verb))}."
            )
        return found

    # ---- data -------------------------------------------------------------------------------------------------------
    @abc.abstractmethod
    def targets(self, data: DataArguments, names: Sequence[str] | None = None) -> Targets:
        """How labels are read (data.opening); `names`: the classes, where they are known already."""

    def open(
        self,
        data: DataArguments,
        split: str | None = None,
        names: Sequence[str] | None = None,
        targets: Targets | None = None,
    ) -> ImageDataset:
        """The images of a run, the second, unlabeled source joined on; or those of another `split`.

        Args:
            names: the classes, where they are known already.
            targets: another way to read labels than the task's own.
        """
        dataset = open_dataset(
            data.dataset,
            targets or self.targets(data, names),
            config=data.dataset_config,
            split=split or data.dataset_split,
            revision=data.dataset_revision,
            image_column=data.image_column,
            value_range=data.value_range,
            pages=data.pages,
        )
        look(dataset)
        if split is None and data.unlabeled_dataset is not None:
            return join(dataset, self.second(data, dataset.class_names))
        path = as_path(data.dataset) if split is None else None
        if path is not None and data.dataset_split != "unlabeled" and has_unlabeled_split(path):
            log.warning(
                "the images in unlabeled/ of %r are not used; `finetune` and `pretrain` take --unlabeled-dataset %s "
                "--unlabeled-dataset-split unlabeled, other verbs an unlabeled/ that lies in the folder of the split",
                data.dataset,
                data.dataset,
            )
        return dataset

    def second(self, data: DataArguments, names: Sequence[str]) -> ImageDataset:
        """The second source, read as the first."""
        found = self.raw(data.unlabeled_dataset, data.unlabeled_dataset_split, names)
        return as_asked(found, data.value_range, data.pages)

    def raw(self, dataset: Any, split: str, names: Sequence[str]) -> ImageDataset:
        """Images alone, whatever labels they may have."""
        return open_dataset(dataset, self.targets(DataArguments()), split=split)

    def open_images(self, data: DataArguments) -> ImageDataset:
        """What target pretraining sees."""
        return self.open(data)

    def open_to_select(self, data: DataArguments, classes: Any = None) -> ImageDataset:
        """The images among which some are chosen to be labeled. classes: names, or a text file of them."""
        return self.open(data)

    def squares(self, dataset: ImageDataset) -> int:
        """Squares that target pretraining cuts an image into."""
        return 1

    def read_split(self, data: DataArguments, dataset: ImageDataset) -> Split:
        split = Split.load(data.split)
        if split.several and self.labeling != "classes":
            raise UserError(f"{data.split} has several classes an image. Give --task multilabel, or another --split.")
        return split

    def draw_split(self, dataset: ImageDataset, num_labels: int | None, **draw) -> Split:
        """Labeled, validation and test images by seed; see `make_split`."""
        return make_split(dataset, num_labels, **draw)

    def match(self, dataset: ImageDataset, names: Sequence[str]) -> ImageDataset:
        """The data set with these classes in this order, matched by name."""
        return dataset.with_classes(names)

    def shared(self, dataset: ImageDataset, names: Sequence[str]) -> ImageDataset:
        """The data set without the labels that a model of the classes `names` does not know, which are listed."""
        found, gone = dataset.only_classes(names)
        if gone:
            said = ", ".join(f"{name} ({count} images)" for name, count in gone.items())
            log.warning("classes of %r that the model was not taught are left out: %s", dataset.name, said)
        absent = [name for name in names if name not in found.class_names]
        if absent and found.class_names:
            log.warning("%d classes of the model are not in %r: %s", len(absent), dataset.name, listed(absent, 20))
        return found

    def test_dataset(
        self, data: DataArguments, names: Sequence[str] | None = None, flag: str = "--test-dataset-split"
    ) -> ImageDataset | None:
        """The data set's own test images: of the split that is asked for (by `flag`), else the first of test and
        validation with labels."""
        for name in [data.test_dataset_split] if data.test_dataset_split else ["test", "validation"]:
            try:
                other = self.open(data, name, names)
            except MissingSplit:
                if data.test_dataset_split:
                    raise
                continue
            if other.has_target.any():
                return other
            found = f"No image in split {name!r} of {other.name!r} has a label"
            if data.test_dataset_split:
                raise UserError(f"{found}, so there is nothing to test on. Give another {flag}.")
            log.warning("%s: it is not the test set", found)
        return None

    def choose_split(self, data: DataArguments, seed: int, dataset: ImageDataset) -> Chosen:
        """Which images are labeled, and which are tested on (tasks.choosing)."""
        return choose_split(self, data, seed, dataset)

    # ---- model, caches, views ---------------------------------------------------------------------------------------
    @abc.abstractmethod
    def build(self, config: Config, dataset: ImageDataset, names: list[str]) -> Network:
        """The network of a run, with the head of this task."""

    @abc.abstractmethod
    def owns(self, config: dict) -> bool:
        """Whether a saved model with this config.json is one of this task."""

    @abc.abstractmethod
    def load(self, model: str | Path | nn.Module, revision: str | None = None, device: str | None = None) -> nn.Module:
        """A saved model in eval mode on its device."""

    def names_of(self, model: nn.Module) -> list[str]:
        config: Any = model.config
        return [config.id2label[i] for i in range(config.num_labels)]

    @abc.abstractmethod
    def caches(
        self, model: nn.Module, data: DataArguments, dataset: ImageDataset, at: SplitIndices
    ) -> tuple[Any, Examples]:
        """(all training images, the labeled ones with their targets), as the model wants them, on its device."""

    @abc.abstractmethod
    def held(
        self,
        model: nn.Module,
        data: DataArguments,
        dataset: ImageDataset,
        indices: np.ndarray,
        names: list[str],
        what: str,
    ) -> Examples:
        """Images that are not trained on, with their targets."""

    @abc.abstractmethod
    def normalise(self, model: nn.Module, cache) -> None:
        """Give a network with random weights the mean and standard deviation of these images."""

    @abc.abstractmethod
    def views(
        self, kinds: dict[str, str], config: Config, dataset: ImageDataset, network: Network
    ) -> BatchTransform: ...

    def unlabeled_views(self, objective: FinetuneObjective) -> dict[str, str]:
        """The kinds of view of an unlabeled image that a method asks for."""
        return objective.unlabeled_views

    def shows(self, labeled: Examples, names: list[str]) -> np.ndarray | None:
        """Which classes each labeled image shows, bool [n, K]; None: one each, as the manifest says."""
        return None

    # ---- scores -----------------------------------------------------------------------------------------------------
    @abc.abstractmethod
    def evaluate(
        self,
        model: nn.Module,
        images: Examples,
        names: list[str],
        *,
        window: int | None = None,
        folder: Path | None = None,
        source: ImageDataset | None = None,
    ) -> dict[str, Any]:
        """All metrics on some images, the same on every process; with `folder`, pictures of them are left there, and
        masks are scored at their own size too, with the `source` of the images."""

    @abc.abstractmethod
    def tallies(self, model: nn.Module, images: Examples, names: list[str], window: int | None = None) -> np.ndarray:
        """What `total` needs of each image, float64 [n, ...]: kept, it scores any of the images together."""

    def unlabeled_score(self, model: nn.Module, cache) -> dict[str, float]:
        """What predictions on unlabeled images tell about a model."""
        return {}

    def frozen_row(
        self, model: nn.Module, weights: str, labeled: Examples, test: Examples, names: list[str]
    ) -> Row | None:
        """What frozen features of the starting weights are worth, or None. Raises UserError where none are read."""

    # ---- use --------------------------------------------------------------------------------------------------------
    @abc.abstractmethod
    def check_output(self, output: str | Path | None) -> Path | None:
        """Where predictions go. Raises UserError for a name of the wrong kind."""

    def table_path(self, output: Path) -> Path:
        return output

    @abc.abstractmethod
    def prepare(self, model: nn.Module, picture: Image.Image) -> Any:
        """Of an upright RGB picture what `predict` takes; made in threads."""

    @abc.abstractmethod
    def predict(
        self,
        model: nn.Module,
        images: Iterable[tuple[Path, str, Any]],
        *,
        top: int = 1,
        batch_size: int = 64,
        window: int | None = None,
        output: Path | None = None,
    ) -> Generator[dict[str, Any], None, None]:
        """A row for each of the images (file, its place below `output`, what `prepare` made), in order."""

    # ---- card and report --------------------------------------------------------------------------------------------

    @abc.abstractmethod
    def space(self, record: RunRecord, model: Path) -> dict[str, Any]:
        """What the demo page of a model has to know: `answer` says how it answers ("classes", "labels", "mask")."""

    def export(self, run: Path, folder: Path) -> None:
        """Copy the model of a run folder for the demo page; what leads to code is left out."""
        for name in MODEL_FILES:
            if not name.endswith(".json"):
                verify(run / name)
                shutil.copyfile(run / name, folder / name)
                continue
            values = read_json(run / name)
            if not isinstance(values, dict):
                raise UserError(f"{run / name} holds no mapping. Give the folder of a finished run.")
            write_json(folder / name, {key: value for key, value in values.items() if key not in LEADS_TO_CODE})

    def findings(
        self, folder: Path, config: Config, dataset: ImageDataset, chosen: np.ndarray, names: list[str]
    ) -> list[Section]:
        """What a report shows of the test images: mistakes, worst masks."""
        return []
