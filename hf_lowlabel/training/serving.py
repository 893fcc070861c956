"""Using a trained model: `evaluate` on labeled images, `predict` on files. Segmenters are in segment_serving.py."""

from __future__ import annotations

import csv
import os
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from tqdm.auto import tqdm

from ..data.dataset import ImageDataset, load_source
from ..data.folders import EXTENSIONS
from ..data.image_cache import build_cache
from ..data.images import BadImage, decode, open_image
from ..data.splits import Split
from ..distributed import best_device, interactive
from ..errors import MissingSplit, UserError
from ..evaluation import plots
from ..evaluation.metrics import classification_metrics, softmax
from ..models import LowLabelForImageClassification
from ..models.checkpoint_resolver import model_type
from ..views.table import build_view
from .checkpoint import write_json
from .inference import logits_of, predict_images
from .setup import tell_skipped


def load_classifier(
    model: str | LowLabelForImageClassification, revision: str | None = None, device: str | None = None
):
    """(classifier in eval mode on its device, view that prepares its images, side in px at which images are decoded)."""
    if isinstance(model, (str, Path)):
        if Path(model).is_dir() and not (Path(model) / "config.json").is_file():
            raise UserError(
                f"found no config.json in {model}; expected a run folder or a saved model; a run that was stopped before "
                "its first checkpoint has none, nor has one of knn or label-spreading, which leave predictions.parquet"
            )
        model = LowLabelForImageClassification.from_pretrained(model, revision=revision or "main")
    device = best_device(device)
    prep = model.preprocessing
    size = prep["input_size"][-1]
    view = build_view("eval", size=size, mean=prep["mean"], std=prep["std"])
    return model.to(device).eval(), view, int(size / prep["crop_pct"])


def names_of(model) -> list[str]:
    return [model.config.id2label[i] for i in range(model.config.num_labels)]


def evaluate(
    model: str,
    dataset: str,
    *,
    dataset_split: str | None = None,
    split: str | None = None,
    dataset_config: str | None = None,
    dataset_revision: str | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    output: str | None = None,
    device: str | None = None,
    task: str | None = None,
    max_bad: float = 0.01,
    **masks,
) -> dict:
    """Metrics of a saved classifier on the labeled images of a data set (see `classification_metrics`).

    A segmenter is recognised by its config (`task` says which is expected); `masks` and its metrics are in
    `segment_serving.evaluate_masks`. Which images: those of `dataset_split` if given; else the test images of the manifest
    `split` or of the model's own split.json; else the data set's split "test". Classes are matched by name. `model` is a run
    folder, a saved model or a Hub id; `dataset`, `dataset_config`, `dataset_revision`, `image_column` and `label_column` are
    those of `load_source`; `output` a folder for metrics.json and pictures; `device` None the best there is; `max_bad` the share of
    unreadable images that is left out. Raises UserError.
    """
    if task_of(model, task) == "segmentation":
        from .segment_serving import evaluate_masks

        return evaluate_masks(
            model,
            dataset,
            dataset_split=dataset_split,
            split=split,
            dataset_config=dataset_config,
            output=output,
            dataset_revision=dataset_revision,
            image_column=image_column,
            device=device,
            max_bad=max_bad,
            **masks,
        )
    refuse(masks)
    manifest = Path(split) if split else Path(model) / "split.json"
    chosen = Split.load(manifest) if dataset_split is None and (split or manifest.is_file()) else None
    use = chosen is not None and bool(chosen.test)
    try:
        source = load_source(
            dataset,
            config=dataset_config,
            split="train" if use else dataset_split or "test",
            revision=dataset_revision,
            image_column=image_column,
            label_column=label_column,
        )
    except MissingSplit as error:
        if use or dataset_split:
            raise
        pushed = "" if Path(model).is_dir() else f", which of a pushed model is hub:{model}"
        raise MissingSplit(
            f"{error}; or --dataset-split with another split, or --split with a manifest that has test images{pushed}"
        ) from error
    network, view, side = load_classifier(model, device=device)
    names = names_of(network)
    labels = source.with_classes(names).labels
    indices = chosen.resolve(source).test if use else np.flatnonzero(labels >= 0)
    if not len(indices):
        raise UserError(f"found no labeled image in {dataset!r} (split {source.split!r}); expected some to evaluate on")
    if not use:
        tell_trained(Path(model) / "split.json", source, indices)
    pool = build_cache(
        source,
        indices,
        size=side,
        interpolation=network.preprocessing["interpolation"],
        device=next(network.parameters()).device,
        max_bad=max_bad,
    )
    tell_skipped(pool, len(indices), "test")
    logits, targets = logits_of(network, pool, view).numpy(), labels[pool.indices]
    metrics = classification_metrics(logits, targets, names)
    if output:
        folder = Path(output)
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "metrics.json", metrics)
        plots.confusion(metrics, folder / "confusion.png")
        plots.reliability(metrics, folder / "reliability.png")
        plots.predictions(
            lambda i: pool.take(torch.tensor([i]))[0].permute(1, 2, 0).cpu().numpy(),
            softmax(logits),
            targets,
            names,
            folder / "predictions.png",
        )
    return metrics


def tell_trained(manifest: Path, source: ImageDataset, indices: np.ndarray) -> None:
    """Warn of images whose labels the model has been trained with, of which results say nothing."""
    own = Split.load(manifest) if manifest.is_file() else None
    if own is not None and own.fingerprint == source.fingerprint:
        trained = sum(source.ids[i] in own.labeled for i in indices)
        if trained:
            warnings.warn(
                f"{trained} of the {len(indices)} images are labeled ones the model was trained with: results on them are too "
                "good; fix: another --dataset-split",
                stacklevel=3,
            )


def predict(
    images: Sequence[str],
    model: str,
    *,
    output: str | None = "predictions.csv",
    top: int = 1,
    batch_size: int = 64,
    device: str | None = None,
    revision: str | None = None,
    task: str | None = None,
    window: int | None = None,
) -> tuple[list[dict], list[tuple[str, str]]]:
    """Class and confidence for image files and folders: (rows, [(file, why it was skipped)]).

    A segmenter, recognised by its config (`task` says which is expected), writes masks and overlays instead, into the folder
    `output` less its ending (segment_serving.predict_masks, where `window` is). A row is {"file", "class", "confidence"}, and
    with top > 1 also {"class_2", "confidence_2", ...}. `output` (.csv or .parquet) is written whole or not at all. `images`:
    files or folders, searched through. `model`: a run folder, a saved model or a Hub id, at `revision`. `batch_size` images
    at a time, on `device` (None: the best there is). Raises UserError when nothing can be read.
    """
    if task_of(model, task, revision) == "segmentation":
        from .segment_serving import predict_masks

        return predict_masks(images, model, output=output, window=window, device=device, revision=revision)
    refuse({"window": window})
    if output and Path(output).suffix not in (".csv", ".parquet"):
        raise UserError(f"found --output {output!r}; expected a name that ends in .csv or .parquet")
    files = find_images(images)
    network, view, side = load_classifier(model, revision, device)
    names, interpolation = names_of(network), network.preprocessing["interpolation"]
    if not 1 <= top <= len(names):
        raise UserError(f"found --top {top}; expected 1 to {len(names)}, the number of classes")
    rows, skipped, kept = [], [], []

    def batches() -> Iterable[torch.Tensor]:
        waiting = []
        for file in tqdm(files, desc="predicting", unit="img", disable=not interactive()):
            try:
                with open_image(file) as image:
                    waiting.append(decode(image, side, interpolation))
                kept.append(file)
            except BadImage as e:
                skipped.append((str(file), e.reason))
            if len(waiting) == batch_size:
                yield torch.stack(waiting)
                waiting = []
        if waiting:
            yield torch.stack(waiting)

    for probabilities in predict_images(network, batches(), view):
        confidence, label = probabilities.topk(top)
        for c, k in zip(confidence.tolist(), label.tolist(), strict=True):
            row = {"file": str(kept[len(rows)])}
            for place in range(top):
                suffix = f"_{place + 1}" if place else ""
                row |= {f"class{suffix}": names[k[place]], f"confidence{suffix}": round(c[place], 6)}
            rows.append(row)
    if not rows:
        raise UserError(f"none of {len(files)} images could be read, for example {skipped[0][0]}: {skipped[0][1]}")
    if output:
        write_table(rows, Path(output))
    return rows, skipped


def task_of(model, asked: str | None = None, revision: str | None = None) -> str:
    """ "classification" or "segmentation", by the model's own config; an error where another task was asked for."""
    if (
        isinstance(model, (str, Path))
        and not Path(model).is_dir()
        and ("/" not in str(model) or str(model).startswith((".", "~", "/")))
    ):
        raise UserError(
            f"found no model {str(model)!r}; expected a run folder, a saved model or a Hub id (org/name); fix: another --model"
        )
    kind = model_type(str(model), revision) if isinstance(model, (str, Path)) else model.config.model_type
    task = "segmentation" if kind == "lowlabel-segmenter" else "classification"
    if asked not in (None, task):
        raise UserError(f"found a model for {task}; expected one for {asked}; fix: --task {task}, or another --model")
    return task


def folder_for(output: str) -> Path:
    """Where a segmenter writes: "predictions" for the file "predictions.csv" that a classifier would write."""
    return Path(output).with_suffix("") if Path(output).suffix in (".csv", ".parquet") else Path(output)


def refuse(masks: dict) -> None:
    for name, value in masks.items():
        if value not in (None, [], ()):
            raise UserError(f"found {name} for a classifier; expected it for a segmenter only; fix: leave it out")


def find_images(paths: Sequence[str]) -> list[Path]:
    """Image files, folders searched through, in a stable order."""
    found: list[Path] = []
    for name in [paths] if isinstance(paths, (str, Path)) else paths:
        path = Path(name).expanduser()
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in EXTENSIONS and not p.name.startswith("."))
            if not inside:
                raise UserError(f"found no image in the folder {name}; expected files such as .jpg or .png")
            found += inside
        elif path.is_file():
            found.append(path)
        else:
            raise UserError(f"found no file or folder {name!r}; expected images or folders of images")
    return found


def write_table(rows: list[dict], path: Path) -> None:
    """Rows as CSV or parquet, moved into place when complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        if path.suffix == ".csv":
            with open(part, "w", newline="", encoding="utf-8") as f:
                writer = csv.DictWriter(f, fieldnames=list(rows[0]))
                writer.writeheader()
                writer.writerows(rows)
        else:
            import pyarrow as pa
            import pyarrow.parquet as pq

            pq.write_table(pa.Table.from_pylist(rows), part)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
