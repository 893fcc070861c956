"""Using a trained segmenter: metrics on images with masks, masks and overlays of image files."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm.auto import tqdm

from ..arguments import FinetuneConfig
from ..data.images import BadImage, load_rgb, open_image
from ..data.splits import Split
from ..distributed import best_device, interactive
from ..errors import UserError
from ..evaluation import plots
from ..evaluation.overlays import overlay, save_mask
from ..evaluation.segmentation import evaluate_segmentation, segment
from ..models.segmenter import LowLabelForSemanticSegmentation
from ..settings import read_yaml
from .checkpoint import write_json
from .segment_data import make_padded_cache, open_masks, test_source
from .segment_run import test_examples
from .serving import find_images, folder_for, names_of, tell_trained, write_table

log = logging.getLogger("hf_lowlabel")
DECLARED = ("classes", "mask_format", "mask_ignore", "mask_column")


def load_segmenter(
    model: str | LowLabelForSemanticSegmentation, revision: str | None = None, device: str | None = None
):
    """The segmenter in eval mode on its device."""
    if isinstance(model, (str, Path)):
        try:
            model = LowLabelForSemanticSegmentation.from_pretrained(model, revision=revision or "main")
        except OSError as error:
            raise UserError(
                f"found no segmenter in {model} ({str(error).splitlines()[0]}); expected a run folder, a saved model or a "
                "Hub id with model.safetensors; fix: another --model"
            ) from error
    return model.to(best_device(device)).eval()


def evaluate_masks(
    model: str,
    dataset: str,
    *,
    dataset_split: str | None = None,
    split: str | None = None,
    dataset_config: str | None = None,
    dataset_revision: str | None = None,
    image_column: str | None = None,
    mask_column: str | None = None,
    classes: Sequence[str] = (),
    mask_format: str | None = None,
    mask_ignore: Sequence[int] = (),
    window: int | None = None,
    output: str | None = None,
    device: str | None = None,
    max_bad: float = 0.01,
) -> dict:
    """Metrics of a segmenter on the images with masks of a data set (evaluation.segmentation.segmentation_metrics).

    What the masks mean is declared as for finetuning; left out, it is what the run folder `model` was trained with. Which
    images: as for classifiers (serving.evaluate). window: side in px of a sliding window; None: whole images.
    """
    network = load_segmenter(model, device=device)
    names, folder = names_of(network), Path(model)
    given = {k: v for k, v in zip(DECLARED, (list(classes), mask_format, list(mask_ignore), mask_column)) if v}
    trained = read_yaml(folder / "training.yaml") if (folder / "training.yaml").is_file() and not given else {}
    said = {k: trained[k] for k in DECLARED if trained.get(k)} | given
    config = FinetuneConfig(
        task="segmentation",
        dataset=dataset,
        dataset_config=dataset_config,
        dataset_revision=dataset_revision,
        image_column=image_column,
        stored_size=network.config.image_size,
        max_bad=max_bad,
        **said,
    )
    manifest = Path(split) if split else folder / "split.json"
    chosen = Split.load(manifest) if dataset_split is None and (split or manifest.is_file()) else None
    if chosen is not None and chosen.test:
        source = open_masks(config, "train", names)
        indices = chosen.resolve(source).test
    else:
        config.test_dataset_split = dataset_split
        source = test_source(config, names)
        if source is None:
            raise UserError(
                f"found neither a test nor a validation split with masks in {dataset!r}; expected one; fix: --dataset-split"
            )
        indices = np.flatnonzero(source.has_mask)
        tell_trained(folder / "split.json", source, indices)
    if source.class_names != names:
        raise UserError(
            f"found the classes {', '.join(source.class_names[:8])} in {source.name!r} and {', '.join(names[:8])} in the "
            "model; expected the same in the same order; fix: --classes"
        )
    where = next(network.parameters()).device
    pool = make_padded_cache(config, source, indices, where, "test", masks=True)
    seen = dict(mean=network.config.image_mean, std=network.config.image_std)
    metrics = evaluate_segmentation(network, pool, names, window=window and (window, window), **seen)
    if output:
        Path(output).mkdir(parents=True, exist_ok=True)
        write_json(Path(output) / "metrics.json", metrics)
        test_examples(network, pool, window, **seen).save(names, Path(output) / "predictions.png")
        plots.confusion({**metrics, "accuracy": metrics["pixel_accuracy"]}, Path(output) / "confusion.png")
    return metrics


def predict_masks(
    images: Sequence[str],
    model: str,
    *,
    output: str | None = "predictions",
    window: int | None = None,
    device: str | None = None,
    revision: str | None = None,
) -> tuple[list[dict], list[tuple[str, str]]]:
    """Masks of image files and folders: (rows, [(file, why it was skipped)]).

    OUTPUT/masks/NAME.png holds the classes at the image's size, with a palette; OUTPUT/overlays/NAME.png the image under
    their colours; OUTPUT/masks.csv the rows {"file", "mask", "overlay", "confidence", "share_CLASS": of the pixels, for each
    class}. window: side in px of a sliding window; None: whole images. Raises UserError when nothing can be read.
    """
    files, folder = find_images(images), folder_for(output) if output else None
    network = load_segmenter(model, revision, device)
    names, rows, skipped = names_of(network), [], []
    seen = dict(mean=network.config.image_mean, std=network.config.image_std, long_side=network.config.image_size)
    for file, name in zip(
        tqdm(files, desc="predicting", unit="img", disable=not interactive()), places(files, images), strict=True
    ):
        try:
            with open_image(file) as opened:
                pixels = np.asarray(load_rgb(opened))
        except BadImage as e:
            skipped.append((str(file), e.reason))
            continue
        mask, confidence = segment(network, pixels, window=window and (window, window), **seen)
        shares = np.bincount(mask.ravel(), minlength=len(names)) / mask.size
        row = {"file": str(file)}
        if folder:
            row |= {"mask": f"masks/{name}", "overlay": f"overlays/{name}"}
            for part in ("masks", "overlays"):
                (folder / part / name).parent.mkdir(parents=True, exist_ok=True)
            save_mask(mask, names, folder / row["mask"])
            Image.fromarray(overlay(pixels, mask, names)).save(folder / row["overlay"])
        rows.append(
            row
            | {"confidence": round(float(confidence.mean()), 6)}
            | {f"share_{k}": v for k, v in zip(names, shares.round(6).tolist(), strict=True)}
        )
    if not rows:
        raise UserError(f"none of {len(files)} images could be read, for example {skipped[0][0]}: {skipped[0][1]}")
    if folder:
        write_table(rows, folder / "masks.csv")
    return rows, skipped


def places(files: Sequence[Path], images: Sequence[str]) -> list[str]:
    """A .png of its own below the output folder for each file: its path inside the folder it was found in."""
    roots = [Path(os.path.expanduser(p)) for p in ([images] if isinstance(images, (str, Path)) else images)]
    out: list[str] = []
    for file in files:
        root = next((r for r in roots if r.is_dir() and file.is_relative_to(r)), file.parent)
        name = file.relative_to(root).with_suffix(".png")
        for k in range(len(files)):
            candidate = name if not k else name.with_stem(f"{name.stem}-{k + 1}")
            if candidate.as_posix() not in out:
                break
        out.append(candidate.as_posix())
    return out
