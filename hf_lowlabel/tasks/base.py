"""What a task is: one object that knows everything in which classification, segmentation and their like differ.

A run, a prediction, a card and a report are written once, for `Task`; a switch on a task's name stands nowhere else.
The defaults here are those of a task whose label is of the whole image; a task overrides what differs.
"""

from __future__ import annotations

import abc
import logging
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image
from torch import nn

from .. import methods
from ..arguments import Config, DataArguments
from ..data.dataset import ImageDataset, join
from ..data.drawing import make_split
from ..data.folders import has_unlabeled_split
from ..data.opening import open_dataset
from ..data.splits import Split, SplitIndices
from ..data.targets import Targets
from ..errors import MissingSplit, UserError, unknown
from ..files import read_json, verify, write_json
from ..objective import FinetuneObjective
from ..records import Metric, Row, RunRecord
from ..views.transforms import BatchTransform
from .demos import Demo
from .networks import Network
from .parts import MODEL_FILES, Chosen, Examples, Section, as_path
from .speaker import Speaker

log = logging.getLogger("hf_lowlabel")
LEADS_TO_CODE = {"auto_map", "custom_pipelines"}  # keys by which transformers finds code that is not its own


class Task(Speaker):
    """One kind of answer about an image.

    name: of `--task`. Of `metrics` the first is the score by which weights are kept and runs compared. takes: settings
    that only some tasks have. fallbacks: defaults by verb where the
    method has none of its own. own_methods: name -> "module:Class" where a method of that name is another class here.
    """

    name: ClassVar[str]
    takes: ClassVar[frozenset[str]] = frozenset()
    default_methods: ClassVar[dict[str, str]]
    fallbacks: ClassVar[dict[str, dict[str, Any]]]
    own_methods: ClassVar[dict[str, str]] = {}
    demo: ClassVar[Demo | None] = None
    labeling: ClassVar[str] = "class"  # how a person answers: with a "class", with "classes", with a "mask"
    packages: ClassVar[tuple[str, ...]] = (
        "torch",
        "transformers",
        "timm",
        "safetensors",
        "numpy",
        "pillow",
    )  # of a Space
    has_neighbours: ClassVar[bool] = False  # whether the demo page shows the nearest labeled images
    climbs: ClassVar[bool] = False  # whether `auto` finds a model for it
    labels_score: ClassVar[bool] = False  # whether `unlabeled_score` measures something

    # ---- methods and settings ---------------------------------------------------------------------------------------
    @property
    def score(self) -> Metric:
        return self.metrics[0]

    def methods(self, verb: str) -> list[str]:
        """Names of the methods for this task."""
        if verb == "pretrain":
            return methods.methods_for(verb)
        return [n for n in methods.methods_for(verb) if n in self.own_methods or self.name in methods.find(n).tasks]

    def method(self, verb: str, method: str | type) -> type:
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
        )
        if split is not None:
            return dataset
        if data.unlabeled_dataset is not None:
            return join(dataset, self.raw(data.unlabeled_dataset, data.unlabeled_dataset_split, dataset.class_names))
        path = as_path(data.dataset)
        if path is not None and data.dataset_split != "unlabeled" and has_unlabeled_split(path):
            log.warning(
                "the images in unlabeled/ of %r are not used; give --unlabeled-dataset %s --unlabeled-dataset-split "
                "unlabeled to use them",
                data.dataset,
                data.dataset,
            )
        return dataset

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
        return Split.load(data.split)

    def draw_split(self, dataset: ImageDataset, num_labels: int | None, **draw) -> Split:
        """Labeled, validation and test images by seed; see `make_split`."""
        return make_split(dataset, num_labels, **draw)

    def match(self, dataset: ImageDataset, names: Sequence[str]) -> ImageDataset:
        """The data set with these classes in this order, matched by name."""
        return dataset.with_classes(names)

    def test_dataset(self, data: DataArguments, names: Sequence[str] | None = None) -> ImageDataset | None:
        """The data set's own test images: of the split that is asked for, else the first of test and validation with
        labels."""
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
                raise UserError(f"{found}, so there is nothing to test on. Give another --test-dataset-split.")
            log.warning("%s: it is not the test set", found)
        return None

    def choose_split(self, data: DataArguments, seed: int, dataset: ImageDataset) -> Chosen:
        """Which images are labeled, and which are tested on.

        The test set is the manifest's own, else the data set's `test` (or `validation`) split if it has labels, else
        `test_fraction` of the labeled images.

        Raises:
            UserError: neither a budget nor a manifest is given, or both, or they do not fit the data.
        """
        if (data.split is None) == (data.num_labels is None):
            both = "not both" if data.split else "one of them is needed"
            raise UserError(f"Give --num-labels N (a budget to draw) or --split split.json (a manifest): {both}.")
        given = self.read_split(data, dataset) if data.split else None
        held_out = (
            "held out by the manifest" if data.split else f"{data.test_fraction:.0%} of the labeled images, held out"
        )
        if given is not None and given.test:
            return Chosen(given, dataset, given.resolve(dataset).test, held_out, None)
        only_this = data.dataset_split != "train" and data.test_dataset_split is None
        other = None if only_this else self.test_dataset(data, dataset.class_names)
        if given is None:
            given = self.draw_split(
                dataset,
                data.num_labels,
                seed=seed,
                class_balanced=data.class_balanced,
                validation=data.validation,
                test_fraction=0.0 if other is not None else data.test_fraction,
            )
        if other is None:
            return Chosen(given, dataset, given.resolve(dataset).test, held_out, None)
        at = np.flatnonzero(self.match(other, given.class_names).has_target)
        return Chosen(given, other, at, f"split {other.split!r}", other.split)

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

    def shown(self, labeled: Examples, names: list[str]) -> dict[str, int] | None:
        """Number of labeled images in which each class occurs; None: the manifest says so."""
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
    ) -> dict[str, Any]:
        """All metrics on some images, the same on every process; with `folder`, pictures of them are left there."""

    def unlabeled_score(self, model: nn.Module, cache) -> dict[str, float]:
        """What predictions on unlabeled images tell about a model."""
        return {}

    def frozen_row(self, model: nn.Module, weights: str, labeled: Examples, test: Examples) -> Row | None:
        """What the weights a run starts from are worth on the same images, for the table of its card."""

    # ---- use --------------------------------------------------------------------------------------------------------
    @abc.abstractmethod
    def check_output(self, output: str | Path | None) -> Path | None:
        """Where predictions go. Raises UserError for a name of the wrong kind."""

    def table_path(self, output: Path) -> Path:
        return output

    @abc.abstractmethod
    def predict(
        self,
        model: nn.Module,
        images: Iterable[tuple[Path, str, Image.Image]],
        *,
        top: int = 1,
        batch_size: int = 64,
        window: int | None = None,
        output: Path | None = None,
    ) -> Iterator[dict[str, Any]]:
        """A row for each of the images (file, its place below `output`, upright picture), in order."""

    # ---- card and report --------------------------------------------------------------------------------------------

    @abc.abstractmethod
    def space(self, record: RunRecord) -> dict[str, Any]:
        """What the demo page has to know: `answer` says how it shows one ("classes", "labels" or "mask")."""

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
