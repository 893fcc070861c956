"""Class names as prior pseudo-labels: how similar an image is to sentences about each class.

    t_c = unit(mean over prompts of unit(text(prompt of class c)))           (Radford et al. 2021, section 3.1.4)
    p_ic = softmax_c(cos(x_i, t_c) / T)

T is the model's own temperature, or where there are labels the one that fits them best, held near the model's own by a
normal prior on log T, since a handful of labels that are all right would else ask for T = 0. Similarities alone are
nearly flat, and a threshold on confidence would never see an unlabeled image.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from ..data.dataset import ImageDataset
from ..data.splits.splits import Split
from ..errors import UserError, unknown
from ..evaluation.neighbors import unit
from ..finetuning.graph import Graph
from ..finetuning.temperature import as_sure_as, temperature
from ..labeling.labels import read_classes
from ..models.two_towers import TwoTowers, check_two_towers, load_two_towers
from ..text import listed, series
from .feature_file import Features
from .features import extract
from .priors import NEIGHBORS

log = logging.getLogger("hf_lowlabel")

# sentences of a domain: Radford et al. 2021's seven best for ImageNet with its plain one, and those for EuroSAT and DTD
PROMPTS: dict[str, tuple[str, ...]] = {
    "photo": (
        "a photo of a {}.",
        "itap of a {}.",
        "a bad photo of the {}.",
        "a origami {}.",
        "a photo of the large {}.",
        "a {} in a video game.",
        "art of the {}.",
        "a photo of the small {}.",
    ),
    "satellite": (
        "a centered satellite photo of {}.",
        "a centered satellite photo of a {}.",
        "a centered satellite photo of the {}.",
    ),
    "texture": tuple(f"a photo of {a} {{}} {what}." for a in ("a", "the") for what in ("texture", "pattern", "thing")),
    "medical": (
        "a medical image of {}.",
        "a scan showing {}.",
        "a microscopy image of {}.",
        "a histology image of {}.",
    ),
    "plain": ("{}",),
}
SPREAD = 1.0  # standard deviation of log T around the model's own


@dataclass
class WordPriors:
    """priors: float32 [M, K], rows sum to 1. features: of the M images, by the text model. temperature: T.
    right: share of the labeled images whose class the words alone find, which no label has helped; None without labels.
    """

    priors: np.ndarray
    features: Features
    temperature: float
    right: float | None = None


def class_name_priors(
    text_model: str | TwoTowers,
    source: ImageDataset,
    class_names: Sequence[str],
    members: np.ndarray | None = None,
    *,
    prompts: Sequence[str] | None = None,
    labeled: np.ndarray | None = None,
    labels: np.ndarray | None = None,
    path: str | Path | None = None,
    revision: str | None = None,
    device: str | None = None,
    max_bad: float = 0.01,
) -> WordPriors:
    """Prior pseudo-labels of images from the names of their classes.

    Args:
        text_model: a Hub id or folder of a CLIP, SigLIP or other model of two towers, or the loaded model.
        source: the images.
        class_names: what stands in the sentences, one for each class: `in_words` makes such of names.
        members: positions of the images in the source, int64 [M] (None: all).
        prompts: sentences with {} in the place of the class, or a name in `PROMPTS` (None: "photo").
        labeled: positions of images with a label, int64 [L]; labels: their classes, int64 [L]. They fit the
            temperature, and get their own class for certain.
        path: the file to keep the features of the images in, or to take them from.
        revision: of a model on the Hub.
        device: such as "cpu" (None: the best there is).
        max_bad: share of unreadable images that is left out.

    Returns:
        Priors, features, the temperature, and what the words alone are worth.

    Raises:
        UserError: for a model without text, prompts without {}, fewer than two classes, or labeled images that cannot
            be read.
    """
    templates = checked_words(class_names, prompts)
    model = load_two_towers(text_model, revision) if isinstance(text_model, str) else text_model
    found = extract(model, source, members, path=path, device=device, max_bad=max_bad)
    similarities = unit(found.values) @ text_prototypes(model, class_names, templates).T
    rows, known = labeled_rows(found, source, labeled, labels)
    temperature = fit_temperature(similarities[rows], known, model.temperature)
    priors = softmax(similarities / temperature, axis=1).astype(np.float32)
    priors[rows] = np.eye(len(class_names), dtype=np.float32)[known]
    right = float((similarities[rows].argmax(1) == known).mean()) if len(rows) else None
    return WordPriors(priors, found, temperature, right)


def checked_words(
    class_names: Sequence[str],
    prompts: Sequence[str] | None,
    text_model: str | None = None,
    revision: str | None = None,
) -> tuple[str, ...]:
    """The sentences, after a look at them, at the classes, and at a text model by what its repository says.

    Raises:
        UserError: prompts without {}, fewer than two classes, a model without text; no weights are fetched before.
    """
    templates = prompt_templates(prompts)
    if len(class_names) < 2 or len(set(class_names)) < len(class_names):
        raise UserError(
            "Priors need two classes or more, each with a name of its own; there are "
            f"{series(class_names) or 'none'}. Give --classes NAME NAME ..."
        )
    if text_model is not None:
        check_two_towers(text_model, revision)
    return templates


def prompt_templates(prompts: Sequence[str] | None) -> tuple[str, ...]:
    """The sentences of a domain, or one's own after a check."""
    if prompts is None:
        return PROMPTS["photo"]
    if len(prompts) == 1 and "{}" not in prompts[0] and " " not in prompts[0]:
        if prompts[0] not in PROMPTS:
            raise unknown("kind of prompts", prompts[0], PROMPTS)
        return PROMPTS[prompts[0]]
    wrong = [p for p in prompts if p.count("{}") != 1 or re.sub(r"\{\}", "", p).count("{")]
    if wrong or not prompts:
        what = f"The prompt {wrong[0]!r} has not one {{}} in the place of the class" if wrong else "There is no prompt"
        raise UserError(f'{what}. Write for example "a photo of a {{}}.", or one of these words: {", ".join(PROMPTS)}.')
    return tuple(prompts)


def in_words(names: Sequence[str]) -> list[str]:
    """Class names as they stand in a sentence: AnnualCrop, annual_crop -> annual crop. It warns of numbers, which mean
    nothing to a model."""
    out = []
    for name in names:
        words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", re.sub(r"[_\-./]+", " ", name)).strip()
        out.append(words.lower() if words != name else words)
    numbers = [n for n in names if re.fullmatch(r"(LABEL_|class_?)?\d+|n\d{8}", n)]
    if numbers:
        log.warning(
            "class names such as %s mean nothing to a text model: give --classes %s=WORDS ...", numbers[0], numbers[0]
        )
    return out


def named_classes(given: Sequence[str]) -> tuple[list[str], list[str]]:
    """(names, words) of a list in which a class may be `name=what it is called in a sentence`."""
    pairs = [text.partition("=") for text in given]
    names = [name.strip() for name, _, _ in pairs]
    said = [words.strip() for _, _, words in pairs]
    empty = [
        text for text, name, (_, sign, words) in zip(given, names, pairs) if not name or sign and not words.strip()
    ]
    twice = sorted({n for n in names if names.count(n) > 1})
    if empty or twice:
        raise UserError(
            f"The classes {', '.join(map(repr, empty or twice))} {'are empty' if empty else 'are given twice'}. Give "
            "each once, as NAME or NAME=WORDS."
        )
    plain = in_words([name for name, words in zip(names, said) if not words])
    return names, [words or plain.pop(0) for words in said]


def listed_classes(given: str | Sequence[str] | None) -> list[str]:
    """The classes of a list, or of a text file of them."""
    listed = [given] if isinstance(given, str) else list(given or ())
    return read_classes(listed[0]) if len(listed) == 1 and Path(listed[0]).is_file() else listed


def class_words(
    given: str | Sequence[str] | None, manifest: Split | None, source: ImageDataset | None
) -> tuple[list[str], list[str]]:
    """(names, words) in the order of the manifest, where there is one.

    Args:
        given: NAME or NAME=WORDS of each class, or a text file of them (None: those of the manifest or the source).
        manifest: whose labels they have to fit.
        source: the images; without a manifest.

    Raises:
        UserError: there are no classes, or others than those of the manifest.
    """
    listed = listed_classes(given) or list(known.class_names if (known := manifest or source) else ())
    if not listed:
        raise UserError("The data name no classes. Give --classes NAME NAME ...")
    names, words = named_classes(listed)
    if manifest is None:
        return names, words
    if set(names) != set(manifest.class_names):
        raise UserError(
            f"The classes {series(names[:8])} do not fit the labels, which are of "
            f"{series(manifest.class_names[:8])}. Give --classes with those names, as NAME=WORDS where a model is "
            "to read other words, or leave it out."
        )
    said = dict(zip(names, words))
    return list(manifest.class_names), [said[name] for name in manifest.class_names]


def text_prototypes(model: TwoTowers, class_names: Sequence[str], templates: Sequence[str]) -> np.ndarray:
    """Unit vectors of the classes, float32 [K, D]: the mean over the templates of unit vectors of sentences."""
    sentences = [template.replace("{}", name) for name in class_names for template in templates]
    vectors = unit(model.sentences(sentences).numpy())
    return unit(vectors.reshape(len(class_names), len(templates), -1).mean(1)).astype(np.float32)


def fit_temperature(similarities: np.ndarray, labels: np.ndarray, own: float) -> float:
    """argmin_T  -sum_i log softmax(s_i / T)[y_i] + (log T - log T_own)^2 / (2 SPREAD^2).

    Args:
        similarities: of the labeled images, [L, K]; L may be 0.
        labels: int64 [L].
        own: the model's temperature, T_own.
    """
    if not len(labels):
        return own
    s, rows = similarities.astype(np.float64), np.arange(len(labels))

    def loss(log_t: float) -> float:
        fit = -log_softmax(s / np.exp(log_t), axis=1)[rows, labels].sum()
        return fit + (log_t - np.log(own)) ** 2 / (2 * SPREAD**2)

    return float(np.exp(minimize_scalar(loss, bounds=(np.log(own) - 5, np.log(own) + 5), method="bounded").x))


def spread_words(
    x: np.ndarray,
    priors: np.ndarray,
    labeled: np.ndarray,
    labels: np.ndarray,
    *,
    weight: float = 1.0,
    k: int = NEIGHBORS,
    alpha: float = 0.9,
    gamma: float = 3.0,
) -> np.ndarray:
    """Label spreading (`priors.graph_priors`) in which the words of a class count as `weight` labeled images more.

    Every unlabeled image is a seed of its class priors, scaled so that a class has `weight` in all; labeled images have
    1 / labeled images of their class, as without words. So what the features know corrects what the words get wrong.

    What comes out of a graph is nearly flat. Its temperature is the one under which the words alone, spread, are right
    about the labels as often as they are sure; without a label they stay as sure as the words were.

    Args:
        x: features of unit length, of any encoder, float32 [N, D].
        priors: of the same images by words, [N, K].
        labeled: rows with a label, int64 [L]; may be empty. labels: int64 [L].
        weight: of the words, in labeled images a class.
        k: neighbours of every image. alpha: share that comes from them. gamma: exponent of the similarity.

    Returns:
        float32 [N, K]; rows sum to 1.
    """
    free = np.setdiff1d(np.arange(len(x)), labeled)
    y = np.zeros(priors.shape)
    y[free] = weight * priors[free] / np.maximum(priors[free].sum(0, keepdims=True), 1e-12)
    graph = Graph(x, min(k, len(x) - 1), gamma)
    said = np.log(np.maximum(graph.solve(y, alpha), 1e-30))
    if len(labeled):
        t = temperature(said[labeled], labels)
        y[labeled, labels] = 1 / np.bincount(labels, minlength=priors.shape[1])[labels]
        said = np.log(np.maximum(graph.solve(y, alpha), 1e-30))
    else:
        t = as_sure_as(said, priors)
    z = softmax(said / t, axis=1)
    z[labeled] = np.eye(priors.shape[1])[labels]
    return z.astype(np.float32)


def labeled_rows(
    found: Features, source: ImageDataset, labeled: np.ndarray | None, labels: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """(rows of the features, classes) of the labeled images; those that could not be read are named and left out."""
    if labeled is None or labels is None or not len(labeled):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    read = np.isin(labeled, found.indices)
    if not read.all():
        lost = listed((source.ids[i] for i in labeled[~read]), 5)
        many = f"{(~read).sum()} of the {len(read)} labeled images cannot be read ({lost})"
        if not read.any():
            raise UserError(f"{many}, and there is no other label. Mend the files, or label other images.")
        log.warning("%s: their labels are left out. Mend the files to use them", many)
    return found.rows(labeled), np.asarray(labels, dtype=np.int64)[read]
