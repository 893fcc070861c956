"""What a report computes anew from a run folder and its data: mistakes, and features of each stage for t-SNE."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from ..arguments import Config, DataArguments
from ..data.caches.image_cache import build_cache
from ..data.dataset import ImageDataset
from ..data.pixels.images import square_of
from ..errors import Nameless
from ..evaluation.inference import features_of
from ..records import RunRecord, weights_word
from ..tasks import get_task, of_record
from ..tasks.backbone import starting_backbone
from ..tasks.classification import eval_view
from ..tasks.classification_card import spread
from ..tasks.data_classes import Section
from ..yaml_files import read_settings

log = logging.getLogger("hf_lowlabel")
MOST_DOTS = 600  # images in a t-SNE picture
FEWEST_DOTS = 10


@dataclass
class Computed:
    """`panels`: (title, points [n, 2], labels [n]) of one t-SNE each; `notes`: what could not be computed, and why."""

    class_names: list[str] = field(default_factory=list)
    panels: list[tuple[str, np.ndarray, np.ndarray]] = field(default_factory=list)
    findings: list[Section] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass
class Images:
    """Images of a run that have a label: test images, or for a backbone any."""

    dataset: ImageDataset
    chosen: np.ndarray
    class_names: list[str]


def compute(folder: Path, record: RunRecord) -> Computed:
    """Everything that needs the model and its images; a part that fails leaves a note in its place."""
    out, found = Computed(), []

    def part(what: str, make: Callable[[], None]) -> None:
        try:
            make()
        except Exception as error:  # data that moved, no network: the rest of the page is still true
            log.warning("%s: no %s: %s", folder, what, error)
            out.notes.append(f"No {what}: {told(error)}")

    part("pictures of the data", lambda: found.append(labeled_images(folder, record)))
    if not found:
        return out
    images, speaks = found[0], of_record(record.kind)
    out.class_names = images.class_names
    if record.labels is not None and record.saved_model:

        def look() -> None:
            config = config_of(folder)
            out.findings = speaks.findings(folder, config, images.dataset, images.chosen, images.class_names)

        part("list of the worst answers", look)
    if images.dataset.masks is None and images.dataset.labels.ndim == 1:
        part("t-SNE", lambda: draw_features(folder, record, images, out))
    return out


def told(error: Exception) -> str:
    """What a page that travels says of an error, whose own words may name what else lies on this machine."""
    if isinstance(error, Nameless):
        return str(error)
    return "the images or weights it needs could not be read; the command line said why."


def config_of(folder: Path) -> Config:
    """The settings of a run, as its training.yaml has them."""
    record = RunRecord.from_json(folder / "run.json")
    verb = "finetune" if record.labels is not None else "pretrain"
    return Config.from_flat(verb, read_settings(folder / "training.yaml"), f"{folder}/training.yaml")


def labeled_images(folder: Path, record: RunRecord) -> Images:
    """The images that a report looks at.

    Raises:
        UserError: the run's data is not there, or nothing in it has a label.
    """
    config = config_of(folder)
    task = get_task(config.task)
    if record.labels is None:
        dataset = task.open_images(config.data)
        chosen = np.flatnonzero(dataset.has_target)
        if not len(chosen):
            raise Nameless("None of the images has a label to colour it by.")
        return Images(dataset, chosen, list(dataset.class_names))
    data: DataArguments = replace(config.data, split=str(folder / "split.json"), num_labels=None)
    found = task.choose_split(data, config.training.seed, task.open(data))
    if not len(found.test_at):
        raise Nameless("The run held out no test images.")
    return Images(found.test, found.test_at, list(found.split.class_names))


def stages(folder: Path, record: RunRecord) -> list[tuple[str, Callable[[], torch.nn.Module]]]:
    """(title, how to get the network) of every stage of a run: the weights it all began with first, itself last."""
    config = config_of(folder)

    def own() -> torch.nn.Module:
        return of_record(record.kind).load(folder, device="cpu")

    start, last = config.model.init_from or config.model.model, (f"after {record.method}", own)
    if Path(start, "run.json").is_file() and not config.model.from_scratch:
        return [*stages(Path(start), RunRecord.from_json(Path(start, "run.json"))), last]

    title = "random weights" if config.model.from_scratch else weights_word(start)
    return [(title, lambda: starting_backbone(config, start)), last]


def draw_features(folder: Path, record: RunRecord, images: Images, out: Computed) -> None:
    """t-SNE (van der Maaten & Hinton 2008) of the same images at every stage."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    chosen = images.chosen[spread(len(images.chosen), MOST_DOTS)]
    if len(chosen) < FEWEST_DOTS:
        raise Nameless(f"{len(chosen)} labeled images are too few.")
    labels = images.dataset.with_classes(images.class_names).labels
    for title, load in stages(folder, record):
        try:
            network = load().eval()
        except Exception as error:  # the weights it began with may be neither here nor cached
            log.warning("no t-SNE of %s: %s", title, error)
            out.notes.append(f"No t-SNE of {title}: {told(error)}")
            continue
        cache = build_cache(images.dataset, chosen, **square_of(network.preprocessing))
        x = features_of(network, cache, eval_view(network)).numpy().astype(np.float64)
        x /= np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
        if min(x.shape) > 50:
            x = PCA(50, random_state=0).fit_transform(x)
        points = TSNE(2, init="pca", perplexity=min(30, (len(x) - 1) / 3), random_state=0).fit_transform(x)
        out.panels.append((title, points, labels[cache.indices]))
