"""Classification: one class of an image."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from torch import nn

from ..arguments import Config, DataArguments
from ..data.dataset import ImageDataset
from ..data.pixels.images import decode, square_of
from ..data.sources.class_targets import ClassTargets
from ..data.splits.splits import Split, SplitIndices
from ..demo_stages import DIGITS
from ..distributed import choose_device, is_main_process
from ..errors import UserError
from ..evaluation import plots, sheets
from ..evaluation.checkpoints import sel
from ..evaluation.classification import softmax
from ..evaluation.inference import features_of, logits_of, logits_of_features, predict_images
from ..evaluation.modules import ClassificationScores
from ..finetuning.graph import weight_by_class
from ..missing_inputs import refuse_no_model
from ..models import LowLabelForImageClassification, create_classifier
from ..models.saved_models import open_model
from ..records import Metric, Row, RunRecord
from ..views.table import View, build_view
from ..views.transforms import BatchTransform, Separate
from . import classification_card as card
from .attempts import CLASSIFICATION
from .base import Task
from .caching import labeled_positions, square_cache, square_statistics
from .cross_validation import of_classes
from .data_classes import PRETRAINING, Attempt, Examples, LeftOut, label_rules
from .foundation import LABELS
from .networks import Network, timm_network

SEL_IMAGES = 2000  # unlabeled images at most by which the saved weights are chosen
MOST_PROBED = 10_000  # labels; above it the probe would take longer than it is worth


class Classification(Task):
    """The class of an image, out of classes that exclude each other."""

    name, product = "classification", "classifier"
    pipeline_tag = "image-classification"
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("accuracy", "Accuracy", hub="accuracy"),
        Metric("top5_accuracy", "Top-5 accuracy"),
        Metric("balanced_accuracy", "Balanced accuracy"),
        Metric("ece", "Calibration error", higher=False),
        Metric("nll", "Log loss (nats)", percent=False, higher=False),
    )
    takes = frozenset(
        "class_balanced prior prior_until drop_rate freeze lora_rank lora_alpha adapter_width head_init".split()
    )
    default_methods = {"pretrain": "byol", "finetune": "fixmatch"}
    fallbacks = {
        "pretrain": PRETRAINING,
        "finetune": dict(
            max_steps=5000,
            batch_size=64,
            optimizer="sgd",
            learning_rate=0.03,
            weight_decay=5e-4,
            lr_scheduler_type="fixmatch",
            warmup_ratio=0.0,
            head_lr=1.0,
            unlabeled_ratio=7,
        ),
    }
    presets, demo = LABELS, DIGITS
    has_neighbours = labels_score = climbs = True
    attempts: ClassVar[tuple[Attempt, ...]] = CLASSIFICATION
    model_class = LowLabelForImageClassification
    problem_type: str | None = None  # of the model's configuration

    # ---- data and model ---------------------------------------------------------------------------------------------
    def targets(self, data: DataArguments, names: Sequence[str] | None = None):
        return ClassTargets(data.label_column, label_rules(data))

    def open(self, data: DataArguments, split: str | None = None, *args: Any, **more: Any) -> ImageDataset:
        """What a manifest says of its images comes before what the data says."""
        dataset = super().open(data, split, *args, **more)
        if split is not None or not data.split or data.num_labels or str(data.split).endswith(".txt"):
            return dataset  # with a manifest and a budget to draw, `choose_split` refuses
        return Split.load(data.split).answered(dataset, several=self.labeling == "classes")

    def build(self, config: Config, dataset: ImageDataset, names: list[str]) -> Network:
        def create(**given):
            return create_classifier(
                num_labels=len(names), class_names=names, drop_rate=config.model.drop_rate or None, **given
            )

        network = timm_network(config.model, config.views, dataset, create)
        if self.problem_type is not None:
            network.model.config.problem_type = self.problem_type
        return network

    def owns(self, config: dict) -> bool:
        """Also of a model in timm's own layout, which has no model_type."""
        known = config.get("model_type", "timm_wrapper") == "timm_wrapper"
        return known and config.get("problem_type") == self.problem_type

    def load(self, model: str | Path | nn.Module, revision: str | None = None, device: str | None = None) -> nn.Module:
        if isinstance(model, (str, Path)):
            refuse_no_model(model)
            model = open_model(self.model_class, model, revision)
        return model.to(choose_device(device)).eval()

    # ---- caches and views -------------------------------------------------------------------------------------------
    def _cache(self, data: DataArguments, model: nn.Module, dataset: ImageDataset, indices, what: str, vital=None):
        return square_cache(
            data,
            dataset,
            indices,
            preprocessing=model.preprocessing,
            device=next(model.parameters()).device,
            what=what,
            vital=vital,
        )

    def caches(
        self, model: nn.Module, data: DataArguments, dataset: ImageDataset, at: SplitIndices
    ) -> tuple[Any, Examples]:
        cache = self._cache(data, model, dataset, at.train, "training", at.labeled)
        members, read = labeled_positions(cache, at.labeled), np.isin(at.labeled, cache.indices)
        return cache, Examples(cache, members, self.labels_of(dataset, at.labeled[read], at.labels[read]))

    def labels_of(self, dataset: ImageDataset, indices: np.ndarray, labels: np.ndarray | None) -> torch.Tensor:
        """Targets of images at `indices`: those of the manifest where it has them, else the data set's."""
        return torch.as_tensor(dataset.labels[indices] if labels is None else labels)

    def held(
        self, model: nn.Module, data: DataArguments, dataset: ImageDataset, indices: np.ndarray, names: list[str], what
    ) -> Examples:
        cache = self._cache(data, model, dataset, indices, what)
        return Examples(
            cache, torch.arange(len(cache)), self.labels_of(self.match(dataset, names), cache.indices, None)
        )

    def normalise(self, model: nn.Module, cache) -> None:
        mean, std = square_statistics(cache)
        model.config.pretrained_cfg.update(mean=mean, std=std)

    def views(self, kinds: dict[str, str], config: Config, dataset: ImageDataset, network: Network) -> BatchTransform:
        return separate_views(kinds, config, dataset, network.model, network.size[0])

    # ---- scores -----------------------------------------------------------------------------------------------------
    def predictions(self, model: nn.Module, cache, members: torch.Tensor | None = None) -> np.ndarray:
        """Probabilities, float64 [n, K], of images of a cache."""
        return softmax(logits_of(model, cache, eval_view(model), members).numpy())

    def predictions_of(self, model: nn.Module, features: np.ndarray) -> np.ndarray:
        """The same of images whose features [n, D] by the model are known."""
        return self.activated(logits_of_features(model, torch.from_numpy(features)).double()).numpy()

    def features(self, model: nn.Module, cache, members: torch.Tensor | None = None) -> np.ndarray:
        """Pooled features, float32 [N, D]."""
        return features_of(model, cache, eval_view(model), members).numpy()

    def known_labels(self, labeled: Examples, count: int) -> np.ndarray:
        """Labels of all `count` training images, int64 [count]; -1 where there is none."""
        labels = np.full(count, -1)
        labels[labeled.members.numpy()] = labeled.targets.numpy()
        return labels

    def scores(self, probabilities: np.ndarray, targets: np.ndarray, names: list[str]) -> dict[str, Any]:
        return ClassificationScores(names).compute(predictions=probabilities, references=targets)

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
        if window is not None:
            raise UserError(f"A window is for segmentation; this is a {self.product}. Leave out --window.")
        p = self.predictions(model, images.cache, images.members)
        return self.report(p, images, names, folder)

    def report(self, p: np.ndarray, images: Examples, names: list[str], folder: Path | None) -> dict[str, Any]:
        """Metrics of probabilities p, and with `folder` pictures of them, drawn by the main process."""
        targets = images.targets.numpy()
        metrics = self.scores(p, targets, names)
        if folder is not None and is_main_process():
            self.pictures(p, images, names, metrics, folder)
        return metrics

    def pictures(self, p: np.ndarray, images: Examples, names: list[str], metrics: dict, folder: Path) -> None:
        def pixels(i: int) -> np.ndarray:
            return images.cache.take(images.members[i : i + 1])[0].permute(1, 2, 0).cpu().numpy()

        sheets.predictions(pixels, p, images.targets.numpy(), names, folder / "predictions.png")
        plots.confusion(metrics, folder / "confusion.png")
        plots.reliability(metrics, folder / "reliability.png")

    def tallies(self, model: nn.Module, images: Examples, names: list[str], window: int | None = None) -> np.ndarray:
        """[n, 2, K]: probabilities, and 1 where a class is the image's."""
        return np.stack([self.predictions(model, images.cache, images.members), self.shares(images.targets, names)], 1)

    def shares(self, targets: torch.Tensor, names: list[str]) -> np.ndarray:
        """Targets as [n, K]."""
        return np.eye(len(names))[targets.numpy()]

    def total(self, tallies: np.ndarray, names: list[str]) -> float:
        right = tallies[:, 0].argmax(1) == tallies[:, 1].argmax(1)
        return float(np.average(right, weights=self.weights(tallies)))

    def weights(self, tallies: np.ndarray) -> np.ndarray | None:
        return weight_by_class(tallies[:, 1].argmax(1), tallies.shape[2])  # the only label of a class is never left out

    def unlabeled_score(self, model: nn.Module, cache) -> dict[str, float]:
        asked = torch.linspace(0, len(cache) - 1, min(SEL_IMAGES, len(cache))).long()
        return {"sel": sel(self.predictions(model, cache, asked))}

    def tallies_left_out(self, model: nn.Module, labeled: Examples, names: list[str]) -> LeftOut | None:
        return of_classes(self, model, labeled, names)

    def frozen_row(
        self, model: nn.Module, weights: str, labeled: Examples, test: Examples, names: list[str]
    ) -> Row | None:
        labels = labeled.targets.long().numpy()
        if len(labels) > MOST_PROBED or len(np.unique(labels)) < 2:
            return None
        x, tx = (self.features(model, images.cache, images.members) for images in (labeled, test))
        p = self.method("finetune", "probe")().fit_predict(x, labels, tx, num_classes=len(names))
        scores, key = self.scores(p, test.targets.numpy(), names), self.score.key
        score = {name: scores[name] for name in (key, f"{key}_error")}
        return Row(f"linear probe on {weights} at {model.preprocessing['input_size'][-1]} px, same labels", score)

    # ---- use --------------------------------------------------------------------------------------------------------
    def check_output(self, output: str | Path | None) -> Path | None:
        if output is not None and Path(output).suffix not in (".csv", ".parquet"):
            raise UserError(
                f"Predictions cannot be written to {str(output)!r}. Give a name that ends in .csv or .parquet."
            )
        return None if output is None else Path(output)

    def prepare(self, model: nn.Module, picture: Image.Image) -> torch.Tensor:
        return decode(picture, **square_of(model.preprocessing))

    def predict(
        self,
        model: nn.Module,
        images: Iterable[tuple[Path, str, torch.Tensor]],
        *,
        top: int = 1,
        batch_size: int = 64,
        window: int | None = None,
        output: Path | None = None,
    ) -> Generator[dict[str, Any], None, None]:
        names = self.names_of(model)
        if window is not None:
            raise UserError(f"A window is for segmentation; this is a {self.product}. Leave out --window.")
        if not 1 <= top <= len(names):
            raise UserError(f"--top {top} does not fit a model of {len(names)} classes. Give 1 to {len(names)}.")
        files: list[Path] = []  # of the batch
        left = iter(images)

        def batches() -> Iterator[torch.Tensor]:
            while batch := list(islice(left, batch_size)):
                files[:] = [file for file, _, _ in batch]
                yield torch.stack([square for _, _, square in batch])

        for logits in predict_images(model, batches(), eval_view(model)):
            for file, p in zip(files, self.activated(logits), strict=True):
                yield {"file": str(file), **self.answer(p, names, top)}

    def activated(self, logits: torch.Tensor) -> torch.Tensor:
        """Probabilities of logits [n, K]."""
        return logits.softmax(1)

    def answer(self, p: torch.Tensor, names: list[str], top: int = 1) -> dict[str, Any]:
        """The classes of largest probability p [K], as columns of a table."""
        row: dict[str, Any] = {}
        confidence, label = p.topk(top)
        for place, (c, k) in enumerate(zip(confidence.tolist(), label.tolist(), strict=True)):
            suffix = f"_{place + 1}" if place else ""
            row |= {f"class{suffix}": names[k], f"confidence{suffix}": round(c, 6)}
        return row

    # ---- card and report --------------------------------------------------------------------------------------------
    limits = staticmethod(card.limits)
    snippets = staticmethod(card.snippets)
    figures = staticmethod(card.figures)
    findings = card.findings

    def summary(self, record: RunRecord, data: str, method) -> str:
        return card.summary(record, data, method, "images", "labeled images")

    def space(self, record: RunRecord, model: Path) -> dict[str, Any]:
        return {"answer": "classes"}


def eval_view(model: nn.Module) -> View:
    """The view in which a saved model sees an image."""
    prep = model.preprocessing
    return build_view("eval", size=prep["input_size"][-1], mean=prep["mean"], std=prep["std"])


def separate_views(
    kinds: dict[str, str], config: Config, dataset: ImageDataset, model: nn.Module, size: int, **more
) -> Separate:
    """Views of `size` px, each with a geometry of its own. more: `multiple` of `build_view`, `geometry` of
    `Separate`."""
    args, prep = config.views, model.preprocessing
    flip = dataset.flip if args.flip is None else args.flip
    geometry, multiple = more.get("geometry", False), more.get("multiple", 1)
    views = {
        key: build_view(
            kind,
            size=size,
            mean=prep["mean"],
            std=prep["std"],
            flip=flip,
            preset=args.augment,
            min_scale=args.min_scale,
            color=args.color,
            randaugment=args.randaugment,
            multiple=multiple,
        )
        for key, kind in kinds.items()
    }
    return Separate(views, geometry=geometry)
