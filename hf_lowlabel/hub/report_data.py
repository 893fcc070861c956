"""What a report computes anew from a run folder and its data: features of each stage for t-SNE, the worst mistakes."""
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

from ..config import FinetuneConfig, PretrainConfig, RunConfig, from_dict, read_yaml
from ..data.pools import build_pool
from ..data.sources import Source
from ..evaluation.metrics import softmax
from ..models import LowLabelBackbone, LowLabelForImageClassification, create_backbone
from ..training.finetune_run import choose_split
from ..training.inference import features_of, logits_of
from ..training.serving import load_classifier, names_of
from ..training.setup import open_source
from ..views.table import build_view
from .facts import RunFacts

log = logging.getLogger("hf_lowlabel")
MOST_TESTED = 10_000  # test images that are looked through for mistakes
MOST_DOTS = 600  # images in a t-SNE picture
MOST_MISTAKES = 24
TILE = 112  # px, side of a picture of a mistake


@dataclass
class Mistake:
    picture: bytes  # PNG
    predicted: str
    true: str
    confidence: float


@dataclass
class Computed:
    """`panels`: (title, points [n, 2], labels [n]) of one t-SNE each; `notes`: what could not be computed, and why."""

    class_names: list[str] = field(default_factory=list)
    panels: list[tuple[str, np.ndarray, np.ndarray]] = field(default_factory=list)
    mistakes: list[Mistake] = field(default_factory=list)
    tested: int = 0
    notes: list[str] = field(default_factory=list)


def compute(folder: Path, facts: RunFacts) -> Computed:
    """Everything that needs the model and its images; a part that fails leaves a note in its place."""
    out = Computed()

    def part(what: str, make: Callable[[], None]) -> None:
        try:
            make()
        except Exception as error:  # data that moved, weights not cached, no network: the rest of the page is still true
            log.warning("%s: no %s: %s", folder, what, error)
            out.notes.append(f"No {what}: {error}")

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
    facts = RunFacts.from_json(folder / "run.json")
    cls = PretrainConfig if facts.kind == "backbone" else FinetuneConfig
    return from_dict(cls, read_yaml(folder / "training.yaml"), f"{folder}/training.yaml")


def labeled_images(folder: Path, facts: RunFacts) -> tuple[Source, np.ndarray, np.ndarray, list[str]]:
    """(source, which of its images, their classes, class names): test images, or for a backbone any that have a label."""
    config = config_of(folder)
    source = open_source(config)
    if facts.kind == "backbone":
        chosen = np.flatnonzero(source.labels >= 0)
        if not len(chosen):
            raise ValueError(f"none of the images of {source.name} has a label to colour it by")
        return source, chosen, source.labels[chosen], list(source.class_names)
    given = dataclasses.replace(config, split=str(folder / "split.json"), num_labels=None)
    split, source, chosen = choose_split(given, source)
    if not len(chosen):
        raise ValueError("the run held out no test images")
    return source, chosen, source.with_classes(split.class_names).labels[chosen], list(split.class_names)


def _spread(n: int, most: int) -> np.ndarray:
    return np.unique(np.linspace(0, n - 1, min(n, most)).astype(int))


def find_mistakes(folder: Path, source: Source, chosen: np.ndarray, labels: np.ndarray, out: Computed) -> None:
    at = _spread(len(chosen), MOST_TESTED)
    model, view, side = load_classifier(folder)
    names = names_of(model)
    device = next(model.parameters()).device
    pool = build_pool(source, chosen[at], size=side, interpolation=model.preprocessing["interpolation"], device=device)
    truth = dict(zip(chosen[at].tolist(), labels[at].tolist(), strict=True))
    y = np.array([truth[i] for i in pool.indices.tolist()])
    probs = softmax(logits_of(model, pool, view).numpy())
    guess, sure = probs.argmax(1), probs.max(1)
    wrong = np.flatnonzero(guess != y)
    out.tested = len(y)
    for i in wrong[np.argsort(-sure[wrong], kind="stable")][:MOST_MISTAKES]:
        out.mistakes.append(Mistake(_png(source, int(pool.indices[i])), names[guess[i]], out.class_names[y[i]], float(sure[i])))


def _png(source: Source, index: int) -> bytes:
    """The image as a small PNG; tiny images keep their pixels."""
    with source.image(index) as image:
        shown = image.convert("RGB")
    if max(shown.size) <= TILE // 2:
        scale = TILE // max(shown.size)
        shown = shown.resize([scale * side for side in shown.size], Image.Resampling.NEAREST)
    shown.thumbnail((TILE, TILE), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    shown.save(file, "PNG", optimize=True)
    return file.getvalue()


def stages(folder: Path) -> list[tuple[str, Callable[[], torch.nn.Module]]]:
    """(title, how to get the network) of every stage of a run: the weights it all began with first, itself last."""
    config, facts = config_of(folder), RunFacts.from_json(folder / "run.json")
    cls = LowLabelBackbone if facts.kind == "backbone" else LowLabelForImageClassification
    start, own = config.init_from or config.model, (f"after {facts.method}", lambda: cls.from_pretrained(folder))
    if Path(start, "run.json").is_file() and not config.from_scratch:
        return [*stages(Path(start)), own]

    def beginning() -> torch.nn.Module:
        torch.manual_seed(config.seed)
        return create_backbone(start, pretrained=not config.from_scratch, revision=config.model_revision,
                               image_size=config.image_size)

    return [("random weights" if config.from_scratch else start, beginning), own]


def draw_features(folder: Path, source: Source, chosen: np.ndarray, labels: np.ndarray, out: Computed) -> None:
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
        pool = build_pool(source, chosen[at], size=int(size / prep["crop_pct"]), interpolation=prep["interpolation"])
        view = build_view("plain", size=size, mean=prep["mean"], std=prep["std"])
        x = features_of(network, pool, view).numpy().astype(np.float64)
        x /= np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
        if min(x.shape) > 50:
            x = PCA(50, random_state=0).fit_transform(x)
        points = TSNE(2, init="pca", perplexity=min(30, (len(x) - 1) / 3), random_state=0).fit_transform(x)
        truth = dict(zip(chosen[at].tolist(), labels[at].tolist(), strict=True))
        out.panels.append((title, points, np.array([truth[i] for i in pool.indices.tolist()])))
