"""What a report computes anew from a run folder and its data: features of each stage for t-SNE, the worst mistakes or masks."""

from __future__ import annotations

import dataclasses
import io
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ..arguments import FinetuneConfig, PretrainConfig, RunConfig, from_dict, read_yaml
from ..data.dataset import ImageDataset
from ..data.image_cache import build_cache
from ..data.padded_cache import build_padded_cache
from ..distributed import best_device
from ..evaluation.classification import softmax
from ..evaluation.confusion import confusion_of, segmentation_metrics
from ..evaluation.overlays import IGNORE, overlay, palette
from ..evaluation.segmentation import evaluate_segmentation
from ..models import LowLabelBackbone, LowLabelForImageClassification, create_backbone
from ..models.segmenter import LowLabelForSemanticSegmentation
from ..records import RunRecord
from ..training import segment_data
from ..training.finetune_run import choose_split
from ..training.inference import features_of, logits_of
from ..training.serving import load_classifier, names_of
from ..training.setup import open_source
from ..views.table import build_view

log = logging.getLogger("hf_lowlabel")
MOST_TESTED = 10_000  # test images that are looked through for mistakes
MOST_DOTS = 600  # images in a t-SNE picture
MOST_MISTAKES = 24
MOST_SEGMENTED = 500  # test images that are segmented in search of the worst
MOST_MASKS = 12
TILE = 112  # px, side of a picture of a mistake


@dataclass
class Mistake:
    picture: bytes  # PNG
    predicted: str
    true: str
    confidence: float


@dataclass
class WorstMask:
    picture: bytes  # PNG: image, truth and prediction side by side
    id: str
    miou: float  # over the classes that truth or prediction show


@dataclass
class Computed:
    """`panels`: (title, points [n, 2], labels [n]) of one t-SNE each; `notes`: what could not be computed, and why."""

    class_names: list[str] = field(default_factory=list)
    panels: list[tuple[str, np.ndarray, np.ndarray]] = field(default_factory=list)
    mistakes: list[Mistake] = field(default_factory=list)
    masks: list[WorstMask] = field(default_factory=list)
    colors: dict[str, tuple[int, int, int]] = field(default_factory=dict)  # of the classes in the pictures of masks
    tested: int = 0
    notes: list[str] = field(default_factory=list)


def compute(folder: Path, facts: RunRecord) -> Computed:
    """Everything that needs the model and its images; a part that fails leaves a note in its place."""
    out = Computed()

    def part(what: str, make: Callable[[], None]) -> None:
        try:
            make()
        except (
            Exception
        ) as error:  # data that moved, weights not cached, no network: the rest of the page is still true
            log.warning("%s: no %s: %s", folder, what, error)
            out.notes.append(f"No {what}: {error}")

    if facts.kind == "segmentation":
        part("list of the worst masks", lambda: find_worst_masks(folder, out))
        return out
    images: list = []
    part("pictures of the data", lambda: images.extend(labeled_images(folder, facts)))
    if not images:
        return out
    source, chosen, labels, out.class_names = images
    if facts.kind == "classification":
        part("list of mistakes", lambda: find_mistakes(folder, source, chosen, labels, out))
    part("t-SNE", lambda: draw_features(folder, source, chosen, labels, out))
    return out


def config_of(folder: Path) -> RunConfig:
    """The settings of a run, as its training.yaml has them."""
    facts = RunRecord.from_json(folder / "run.json")
    cls = PretrainConfig if facts.kind == "backbone" else FinetuneConfig
    return from_dict(cls, read_yaml(folder / "training.yaml"), f"{folder}/training.yaml")


def labeled_images(folder: Path, facts: RunRecord) -> tuple[ImageDataset, np.ndarray, np.ndarray, list[str]]:
    """(source, which of its images, their classes, class names): test images, or for a backbone any that have a label."""
    config = config_of(folder)
    given = (
        dataclasses.replace(config, split=str(folder / "split.json"), num_labels=None)
        if facts.kind != "backbone"
        else config
    )
    if facts.kind == "segmentation":
        split, source, chosen = segment_data.choose_split(given, segment_data.open_masks(config))
        return source.images(), chosen, np.full(len(chosen), -1), list(split.class_names)
    source = segment_data.open_images(config) if config.task == "segmentation" else open_source(config)
    if facts.kind == "backbone":
        chosen = np.flatnonzero(source.labels >= 0)
        if not len(chosen):
            raise ValueError(f"none of the images of {source.name} has a label to colour it by")
        return source, chosen, source.labels[chosen], list(source.class_names)
    split, source, chosen = choose_split(given, source)
    if not len(chosen):
        raise ValueError("the run held out no test images")
    return source, chosen, source.with_classes(split.class_names).labels[chosen], list(split.class_names)


def _spread(n: int, most: int) -> np.ndarray:
    return np.unique(np.linspace(0, n - 1, min(n, most)).astype(int))


def find_mistakes(folder: Path, source: ImageDataset, chosen: np.ndarray, labels: np.ndarray, out: Computed) -> None:
    at = _spread(len(chosen), MOST_TESTED)
    model, view, side = load_classifier(folder)
    names = names_of(model)
    device = next(model.parameters()).device
    pool = build_cache(source, chosen[at], size=side, interpolation=model.preprocessing["interpolation"], device=device)
    truth = dict(zip(chosen[at].tolist(), labels[at].tolist(), strict=True))
    y = np.array([truth[i] for i in pool.indices.tolist()])
    probs = softmax(logits_of(model, pool, view).numpy())
    guess, sure = probs.argmax(1), probs.max(1)
    wrong = np.flatnonzero(guess != y)
    out.tested = len(y)
    for i in wrong[np.argsort(-sure[wrong], kind="stable")][:MOST_MISTAKES]:
        out.mistakes.append(
            Mistake(_png(source, int(pool.indices[i])), names[guess[i]], out.class_names[y[i]], float(sure[i]))
        )


def find_worst_masks(folder: Path, out: Computed) -> None:
    """The test images whose masks came out worst, by the mean IoU of each."""
    config = config_of(folder)
    given = dataclasses.replace(config, split=str(folder / "split.json"), num_labels=None)
    split, source, chosen = segment_data.choose_split(given, segment_data.open_masks(config))
    if not len(chosen):
        raise ValueError("the run held out no test images")
    model = LowLabelForSemanticSegmentation.from_pretrained(folder).to(best_device())
    names, window = list(split.class_names), config.window and (config.window,) * 2
    pool = build_padded_cache(
        source, chosen[_spread(len(chosen), MOST_SEGMENTED)], masks=True, long_side=config.stored_size
    )
    found: list[tuple[float, int, tuple]] = []

    def keep(i: int, image: torch.Tensor, target: torch.Tensor, p: torch.Tensor) -> None:
        prediction = p.argmax(0)
        matrix = confusion_of(prediction, target, len(names)).cpu().numpy()
        if not matrix.sum():
            return  # nothing but pixels that take no part
        found.append((segmentation_metrics(matrix, names)["miou"], i, (image.cpu(), target.cpu(), prediction.cpu())))
        found.sort(key=lambda f: f[:2])
        del found[MOST_MASKS:]

    evaluate_segmentation(
        model, pool, names, mean=model.config.image_mean, std=model.config.image_std, window=window, each=keep
    )
    out.tested = len(pool)
    for miou, i, (image, truth, prediction) in found:
        pixels, truth = image.permute(1, 2, 0).numpy(), truth.numpy()
        answer = np.where(truth == IGNORE, IGNORE, prediction.numpy()).astype(np.uint8)
        strip = [
            _small(Image.fromarray(p)) for p in (pixels, overlay(pixels, truth, names), overlay(pixels, answer, names))
        ]
        joined = Image.new("RGBA", (sum(s.width for s in strip) + 4 * (len(strip) - 1), strip[0].height))
        for n, s in enumerate(strip):
            joined.paste(s, (n * (strip[0].width + 4), 0))
        out.masks.append(WorstMask(_encoded(joined), str(pool.ids[i]), miou))
    out.colors = dict(zip(names, map(tuple, palette(names).tolist()), strict=False))


def _png(source: ImageDataset, index: int) -> bytes:
    """The image as a small PNG; tiny images keep their pixels."""
    with source.image(index) as image:
        return _encoded(_small(image.convert("RGB")))


def _small(shown: Image.Image) -> Image.Image:
    if max(shown.size) <= TILE // 2:
        scale = TILE // max(shown.size)
        shown = shown.resize([scale * side for side in shown.size], Image.Resampling.NEAREST)
    shown.thumbnail((TILE, TILE), Image.Resampling.LANCZOS)
    return shown


def _encoded(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return file.getvalue()


def stages(folder: Path) -> list[tuple[str, Callable[[], torch.nn.Module]]]:
    """(title, how to get the network) of every stage of a run: the weights it all began with first, itself last."""
    config, facts = config_of(folder), RunRecord.from_json(folder / "run.json")
    cls = LowLabelBackbone if facts.kind == "backbone" else LowLabelForImageClassification
    start, own = config.init_from or config.model, (f"after {facts.method}", lambda: cls.from_pretrained(folder))
    if Path(start, "run.json").is_file() and not config.from_scratch:
        return [*stages(Path(start)), own]

    def beginning() -> torch.nn.Module:
        torch.manual_seed(config.seed)
        return create_backbone(
            start, pretrained=not config.from_scratch, revision=config.model_revision, image_size=config.image_size
        )

    return [("random weights" if config.from_scratch else start, beginning), own]


def draw_features(folder: Path, source: ImageDataset, chosen: np.ndarray, labels: np.ndarray, out: Computed) -> None:
    """t-SNE (van der Maaten & Hinton 2008) of the same images at every stage."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    at = _spread(len(chosen), MOST_DOTS)
    if len(at) < 10:
        raise ValueError(f"{len(at)} labeled images are too few")
    for title, load in stages(folder):
        try:
            network = load().eval()
        except Exception as error:  # the weights it began with may be neither here nor cached
            out.notes.append(f"No t-SNE of {title}: {error}")
            continue
        prep = network.preprocessing
        size = prep["input_size"][-1]
        pool = build_cache(source, chosen[at], size=int(size / prep["crop_pct"]), interpolation=prep["interpolation"])
        view = build_view("eval", size=size, mean=prep["mean"], std=prep["std"])
        x = features_of(network, pool, view).numpy().astype(np.float64)
        x /= np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
        if min(x.shape) > 50:
            x = PCA(50, random_state=0).fit_transform(x)
        points = TSNE(2, init="pca", perplexity=min(30, (len(x) - 1) / 3), random_state=0).fit_transform(x)
        truth = dict(zip(chosen[at].tolist(), labels[at].tolist(), strict=True))
        out.panels.append((title, points, np.array([truth[i] for i in pool.indices.tolist()])))
