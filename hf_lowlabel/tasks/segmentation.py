"""Segmentation: the class of every pixel."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from ..arguments import Config, DataArguments
from ..data.dataset import ImageDataset
from ..data.files.folders import is_table
from ..data.masks.mask_faults import refuse_mixed
from ..data.masks.mask_folders import layout
from ..data.opening import load_source
from ..data.sources.class_targets import ClassTargets
from ..data.sources.mask_targets import MaskTargets
from ..data.splits.split_lists import split_from_lists
from ..data.splits.splits import Split, SplitIndices
from ..demo_stages import SHAPES
from ..distributed import choose_device, is_main_process
from ..errors import OneClass, UserError
from ..evaluation import plots
from ..evaluation.confusion import errors_over_images, segmentation_metrics
from ..evaluation.segmentation import Confusions, all_of, evaluate_segmentation, scores_of, unsure
from ..finetuning.pixel_probe import PixelProbe
from ..models.segmentation import architecture_of, copy_code
from ..objective import FinetuneObjective
from ..records import Metric, Row
from ..text import series
from ..views.joint import JointView
from ..views.transforms import BatchTransform, Joint
from . import LABELING, segmentation_card as card
from .attempts import SEGMENTATION
from .base import Task
from .caching import padded_cache, padded_statistics
from .cross_validation import of_other_masks
from .data_classes import OF_MASKS, PRETRAINING, Examples, as_path, label_rules, of_images_alone
from .foundation import MASKS, whole_patches
from .judging import JudgingMasks
from .networks import LARGEST_VIEW, Network, squares_per_image, typical_side, whole_views
from .pixels import fit_probe
from .predicted_masks import mask_rows
from .segmenters import load_segmenter, of_own_size, seen, segmenter_for
from .uncertainty import Doubt

NO_CLASSES = ("background", "object")  # for images of which no mask is read


class Segmentation(JudgingMasks, Task):
    """The class of every pixel of an image."""

    name = "segmentation"
    product = "segmenter"
    label_words = "masks"
    labeling = LABELING["segmentation"]
    pipeline_tag = "image-segmentation"
    first_picture = "predictions.png"  # overlays say more than curves
    metrics = (
        Metric("miou", "Mean IoU", hub="mean_iou"),
        Metric("miou_all", "Mean IoU, absent classes as 0"),
        Metric("dice", "Mean Dice"),
        Metric("pixel_accuracy", "Pixel accuracy"),
        Metric("object_iou", "IoU of the object"),
        Metric("object_jaccard", "IoU of the object, per image"),
    )
    takes = frozenset(
        "mask_column classes mask_format mask_ignore instances "
        "architecture architecture_args freeze_encoder image_height scale rotation window".split()
    )
    default_methods = {"pretrain": "pixpro", "finetune": "unimatch"}
    own_methods = {
        "probe": "finetuning.pixel_probe:PixelProbe",
        "knn": "finetuning.pixel_probe:PixelKNN",
    }
    fallbacks = {"pretrain": PRETRAINING, "finetune": OF_MASKS}

    attempts, presets = SEGMENTATION, MASKS
    doubts = ("entropy", "margin", "uncertain-pixels")
    demo = SHAPES
    packages = (*Task.packages, "segmentation-models-pytorch")

    # ---- data -------------------------------------------------------------------------------------------------------
    def targets(self, data: DataArguments, names: Sequence[str] | None = None):
        given = list(data.classes)
        declared: Any = given[0] if len(given) == 1 else given or None  # one entry is a text file of them
        how = data.mask_format, tuple(data.mask_ignore), data.instances
        usual = Split.load(data.split).class_names if str(data.split).endswith(".json") else ()
        return MaskTargets(data.mask_column, declared or names, *how, skip_missing=data.skip_missing, usual=usual)

    def raw(self, dataset: Any, split: str, names: Sequence[str]) -> ImageDataset:
        """A folder with masks beside its images does not count the masks among them."""
        path = as_path(dataset)
        if path is not None and path.is_dir() and layout(path) is not None:
            return self.open(DataArguments(dataset=dataset), split, names).without_targets()
        return load_source(dataset, split=split)

    def open_images(self, data: DataArguments) -> ImageDataset:
        """The images of a source with masks, or plain images. No mask is read."""
        path = as_path(data.dataset)
        if path is not None and path.exists() and layout(path) is None and not is_table(path):
            return self.open(data, targets=ClassTargets(data.label_column, label_rules(data)))
        names = None if data.split else NO_CLASSES  # a manifest knows the classes
        return self.open(data, targets=replace(self.targets(data, names), images_alone=True)).without_targets()

    def open_to_select(self, data: DataArguments, classes: Any = None) -> ImageDataset:
        """Plain images too: their masks, and the names of the classes, come later."""
        path, given = as_path(data.dataset), [classes] if isinstance(classes, str) else list(classes or data.classes)
        if path is not None and of_images_alone(path):
            return replace(self.open_images(data).without_targets(), class_names=[])
        try:
            found = self.open(replace(data, classes=given))
        except UserError:
            plain = self.open(data, targets=replace(self.targets(data, NO_CLASSES), images_alone=True))
            if classes or plain.has_target.any():
                raise
            return plain.without_targets()
        refuse_mixed((found, np.flatnonzero(found.has_target)))  # among which others are painted
        return replace(found.without_targets(), class_names=found.class_names, labels=found.labels)  # which have one

    def squares(self, dataset: ImageDataset) -> int:
        return squares_per_image(dataset)

    def read_split(self, data: DataArguments, dataset: ImageDataset) -> Split:
        """A manifest, or a published list of the labeled ids (.txt), checked against the masks."""
        split = split_from_lists(dataset, data.split) if str(data.split).endswith(".txt") else Split.load(data.split)
        self.match(dataset, split.class_names)
        at = split.resolve(dataset)
        for part in (at.labeled, at.validation, at.test):
            for i in part[~dataset.has_target[part]]:
                raise UserError(
                    f"Image {dataset.ids[i]!r} of the split has no mask in {dataset.name!r}. Add it, or take the "
                    "image out of the split: labeled, validation and test images need one."
                )
        return split

    def match(self, dataset: ImageDataset, names: Sequence[str]) -> ImageDataset:
        """Masks hold numbers, so that classes and their order have to be the same."""
        if list(dataset.class_names) != list(names):
            raise UserError(
                f"The classes of {dataset.name!r} are {series(dataset.class_names[:8])}, and those of the model or "
                f"split {series(list(names)[:8])}. Masks hold the numbers of classes, so give the same in the same "
                "order with --classes."
            )
        return dataset

    # ---- model ------------------------------------------------------------------------------------------------------
    def build(self, config: Config, dataset: ImageDataset, names: list[str]) -> Network:
        """A fresh head on the encoder `model`, or all of an earlier segmenter (--init-from FOLDER)."""
        side = config.views.image_size or min(LARGEST_VIEW, typical_side(dataset))
        model = segmenter_for(config.model, names)
        if config.model.architecture is None:
            config.model.architecture = architecture_of(model.config)
        side = config.views.image_size = whole_patches(model, side)
        model.config.image_size = config.views.stored_size
        return Network(model, (config.views.image_height or side, side), config.views.stored_size)

    def sides(self, dataset: ImageDataset, asked: int | None = None) -> list[dict[str, int | None]]:
        return whole_views(dataset, asked)

    def owns(self, config: dict) -> bool:
        return config.get("model_type") == "lowlabel-segmenter"

    def load(self, model: str | Path | nn.Module, revision: str | None = None, device: str | None = None) -> nn.Module:
        return load_segmenter(model, revision).to(choose_device(device)).eval()

    def save(self, model: nn.Module, folder: Path) -> None:
        """With its code beside it, for processes without this package."""
        model.save_pretrained(folder)

    # ---- caches and views -------------------------------------------------------------------------------------------
    def _cache(self, model: nn.Module, data: DataArguments, dataset: ImageDataset, indices, what: str, **more):
        device, side = next(model.parameters()).device, model.config.image_size
        return padded_cache(data, dataset, indices, long_side=side, device=device, what=what, **more)

    def caches(
        self, model: nn.Module, data: DataArguments, dataset: ImageDataset, at: SplitIndices
    ) -> tuple[Any, Examples]:
        most = min(1.0, data.max_bad * len(at.train) / max(len(at.labeled), 1))  # a share of all images
        labeled = self._cache(model, data, dataset, at.labeled, "labeled", masks=True, max_bad=most)
        config: Any = model.config
        self._check_taught(Examples(labeled, torch.arange(len(labeled)), None), dataset, config.image_size)
        training = self._cache(model, data, dataset, at.train, "training", masks=False, measured=False)
        return training, Examples(labeled, torch.arange(len(labeled)), None)

    def _check_taught(self, labeled: Examples, dataset: ImageDataset, side: int | None) -> None:
        """Masks that all hold one class teach nothing: read in another way they may, or larger. side: px to which the
        longer side is scaled."""
        names = dataset.class_names
        present = [name for name, there in zip(names, self.shows(labeled, names).any(0), strict=True) if there]
        if len(present) != 1:
            return
        advice = {
            "binary": "Below 128 is the background: give --mask-format index if the values are class numbers, or look "
            "at the masks.",
            "instances": "0 is the background: look at the masks.",
        }.get(dataset.masks.format.kind, "Label images that show other classes too, or look at --classes.")
        scaled = side is not None and len(labeled.members) and int(labeled.cache.sizes.max()) >= side
        small = f", scaled to {side} px on the longer side," if scaled else ""
        larger = "Give a larger size if they show others as they are. " if scaled else ""
        raise OneClass(
            f"The {len(labeled.members)} labeled masks of {dataset.name!r}{small} hold nothing but {present[0]!r}, and "
            f"at least two classes are needed to tell apart. {larger}{advice}"
        )

    def held(
        self,
        model: nn.Module,
        data: DataArguments,
        dataset: ImageDataset,
        indices: np.ndarray,
        names: list[str],
        what: str,
    ) -> Examples:
        cache = self._cache(model, data, self.match(dataset, names), indices, what, masks=True)
        return Examples(cache, torch.arange(len(cache)), None)

    def normalise(self, model: nn.Module, cache) -> None:
        model.config.image_mean, model.config.image_std = padded_statistics(cache)

    def views(self, kinds: dict[str, str], config: Config, dataset: ImageDataset, network: Network) -> BatchTransform:
        flip = dataset.flip if config.views.flip is None else config.views.flip
        settings = dict(scale=tuple(config.views.scale), rotation=config.views.rotation, color=config.views.color)
        return Joint(JointView(kinds, size=network.size, flip=flip, **settings, **seen(network.model)))

    def unlabeled_views(self, objective: FinetuneObjective) -> dict[str, str]:
        return getattr(objective, "dense_views", objective.unlabeled_views)

    def shows(self, labeled: Examples, names: list[str]) -> np.ndarray:
        out = np.zeros((len(labeled.members), 256), bool)
        for row, packed in zip(out, labeled.cache.stream(labeled.members.split(1)), strict=True):
            row[np.unique(packed[0, 3].cpu().numpy())] = True
        return out[:, : len(names)]

    def fit_pixels(self, method: PixelProbe, model: nn.Module, labeled: Examples, names: list[str]) -> None:
        """Give the model the layer that a method fits to its feature maps and the masks."""
        fit_probe(method, model, labeled, len(names), **seen(model))

    # ---- scores and use ---------------------------------------------------------------------------------------------
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
        square = window and (window, window)
        each = None if folder is None else Confusions(len(images.cache), len(names))
        own = of_own_size(model, images, names, source)
        of = dict(indices=images.members, window=square, each=all_of(each, own), **seen(model))
        metrics = evaluate_segmentation(model, images.cache, names, **of) | card.size_scored(model)
        metrics |= own.scores(names) if own is not None else {}
        if each is not None:
            metrics |= errors_over_images(each.all())
        if folder is not None and is_main_process():
            examples = card.examples(model, images.cache, window, **seen(model))
            examples.save(metrics["class_names"], folder / "predictions.png", card.declared_by(model))
            plots.confusion({**metrics, "accuracy": metrics["pixel_accuracy"]}, folder / "confusion.png")
        return metrics

    def tallies(self, model: nn.Module, images: Examples, names: list[str], window: int | None = None) -> np.ndarray:
        """Confusion matrices [n, K, K], pixels; the rows are the truth."""
        each = Confusions(len(images.cache), len(names))
        more = dict(indices=images.members, window=window and (window, window), each=each)
        scores_of(model, images.cache, names, **more, **seen(model))
        return each.all()[images.members.numpy()]

    def frozen_row(
        self, model: nn.Module, weights: str, labeled: Examples, test: Examples, names: list[str]
    ) -> Row | None:
        tallies = of_other_masks(model, labeled, test, len(names))
        score = {
            self.score.key: segmentation_metrics(tallies.sum(0), names)[self.score.key],
            **errors_over_images(tallies),
        }
        return Row(f"linear probe of pixels on {weights}, same masks", score)

    def look(self, model: nn.Module, data: DataArguments, dataset: ImageDataset, indices: np.ndarray) -> Any:
        return self._cache(model, data, dataset, indices, "unlabeled", masks=False)

    def doubt(self, model: nn.Module, cache: Any, members: torch.Tensor, by: str | None = None) -> Doubt:
        """By the mean over the pixels of an image, or by the share of them that is uncertain. Padding takes no part."""
        return Doubt(*unsure(model, cache, members, by=by or self.doubts[0], **seen(model)))

    def check_output(self, output: str | Path | None) -> Path | None:
        """A folder; the name of a table that a classifier would write stands for the folder of that name."""
        if output is None:
            return None
        return Path(output).with_suffix("") if Path(output).suffix in (".csv", ".parquet") else Path(output)

    def table_path(self, output: Path) -> Path:
        return output / "masks.csv"

    def prepare(self, model: nn.Module, picture: Image.Image) -> np.ndarray:
        return np.asarray(picture)

    def predict(
        self,
        model: nn.Module,
        images: Iterable[tuple[Path, str, np.ndarray]],
        *,
        top: int = 1,
        batch_size: int = 64,
        window: int | None = None,
        output: Path | None = None,
    ) -> Generator[dict[str, Any], None, None]:
        """OUTPUT/masks/NAME.png holds the classes at the image's size, with a palette; OUTPUT/overlays/NAME.png the
        image under their colours.

        A row: file, mask, overlay, mean confidence, and the share of the pixels of each class.
        """
        more = dict(batch_size=batch_size, window=window and (window, window), output=output)
        return mask_rows(model, images, self.names_of(model), **more)

    # ---- card and report --------------------------------------------------------------------------------------------
    summary = staticmethod(card.summary)
    seen_at = staticmethod(card.seen_at)
    limits = staticmethod(card.limits)
    snippets = staticmethod(card.snippets)
    space = staticmethod(card.space)
    figures = staticmethod(card.figures)
    findings = card.findings

    def export(self, run: Path, folder: Path) -> None:
        super().export(run, folder)
        copy_code(folder)

    def console(self, metrics: dict[str, Any]) -> list[str]:
        return ["IoU  " + card.per_class(metrics), *card.size_note(metrics)] if "per_class" in metrics else []
