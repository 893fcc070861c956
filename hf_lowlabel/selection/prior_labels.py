"""`priors`: from labels, from the names of the classes, or from both, to prior pseudo-labels of every image."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..arguments import DataArguments
from ..data.skipped import write_left_out
from ..data.splits.splits import Split, SplitIndices, given_split
from ..distributed import barrier, is_main_process
from ..errors import UserError, at_least, unknown
from ..evaluation.neighbors import unit
from ..files import A_MODEL, by_name, read_bytes
from ..finetuning.graph import rooted
from ..tasks.classification import Classification
from ..text import brief
from ..training.priors import save_priors
from .as3l import finetune_features
from .features import extract
from .priors import NEIGHBORS, PROPAGATION, balance, cluster_priors, graph_priors, harden, report
from .verbs import data_arguments, start_processes
from .words import checked_words, class_name_priors, class_words, labeled_rows, spread_words

if TYPE_CHECKING:
    from ..input_types import Data

EXISTS = "{} exists. Give another --output, or remove the file."


def priors(
    model: str | os.PathLike[str] | None,
    dataset: Data | DataArguments,
    *,
    split: str | os.PathLike[str] | Split | None = None,
    output: str | os.PathLike[str] = "priors.safetensors",
    text_model: str | None = None,
    text_revision: str | None = None,
    classes: str | list[str] | None = None,
    prompts: list[str] | None = None,
    propagation: str = "clusters",
    finetune: bool = True,
    clusters: list[int] | None = None,
    neighbors: int | None = None,
    balanced: bool = False,
    hard: bool = False,
    seed: int = 0,
    features: str | None = None,
    image_size: int | None = None,
    model_revision: str | None = None,
    device: str | None = None,
    max_bad: float = 0.01,
) -> dict:
    """Prior pseudo-labels of all training images, written to a file: from the labels of a manifest, from the names of
    the classes, or from both.

    Args:
        model: a timm name, local folder, Hub id or finished run whose features decide. With text_model it may be None;
            the class-name priors are then not propagated.
        dataset: as for `load_source`, or a DataArguments with its split, columns and revision.
        split: manifest or Split with the labels; with text_model it may be None: no image has a label then, and a
            manifest that says so is written beside the output, for finetuning.
        output: file to write.
        text_model: a Hub id or folder of a CLIP, SigLIP or other model of images and text; `text_revision` of it.
        classes: names of the classes, each NAME or NAME=WORDS, or a text file of them (None: those of the manifest, or
            of the data).
        prompts: sentences with {} in the place of the class, or a name in `words.PROMPTS` (None: "photo").
        propagation: "clusters" (AS3L, section 4.3) or "label-spreading".
        finetune: on features after Eq. 6, with as many clusters as there are labels, as AS3L does.
        clusters: K of each run (None: 1 to 6 times the classes).
        neighbors: of every image in the graph of label-spreading (None: 50); fewer suit small data sets.
        balanced: every class gets the same mass, for classes of similar size.
        hard: only the most likely class, since rows of label-spreading are too flat for a confidence threshold.
        seed: decides the first centres.
        features: file of the features, or a folder of such, reused when model and data are the same (None: none is
            kept).
        image_size: side of the images the network sees, in px (None: the model's own).
        model_revision: of a model on the Hub.
        device: such as "cpu" (None: the best there is).
        max_bad: share of unreadable images that is left out and listed.

    Returns:
        Statistics of priors (`priors.report`); with text_model the temperature, and "words_right", the share of
        labeled images that the class names alone get right. Accuracy and calibration are included if the data set has
        the true labels, which are never used.

    Raises:
        UserError: for bad input, before anything is written but the features.
    """
    at_least("seed", seed, 0)
    at_least("neighbors", neighbors, 1)
    if clusters is not None and not isinstance(clusters, (list, tuple)):
        raise UserError(f"clusters is {brief(clusters)}. Give a list of whole numbers, such as [10, 20].")
    for number in clusters or ():
        at_least("clusters", number, 1)
    model, split = by_name("model", model, A_MODEL), given_split(split)
    words = (text_revision, classes, prompts)
    _check_priors(model, split, text_model, words, propagation, clusters, neighbors)
    start_processes(device)
    manifest = Split.load(split) if split else None
    beside = manifest_beside(output) if split is None else None
    if Path(output).exists():
        raise UserError(EXISTS.format(output))
    source = Classification().open(data_arguments(dataset))
    none = np.zeros(0, np.int64)
    at = manifest.resolve(source) if manifest else SplitIndices(none, none, none, none, np.arange(len(source)))
    names, said = class_words(classes, manifest, source) if text_model else ([], [])
    names = names or list(manifest.class_names)
    of = dict(config=source.config, revision=source.revision, fingerprint=source.fingerprint)
    unlabeled = Split(source.name, names, {}, **of)
    if beside is not None and beside.exists() and read_bytes(beside) != unlabeled.text().encode("utf-8", "replace"):
        raise UserError(EXISTS.format(beside))
    if text_model is not None:
        checked_words(said, prompts, text_model, text_revision)  # before the other model is fetched
    common = dict(path=features, device=device, max_bad=max_bad)
    facts: dict = {"split": manifest.hash if manifest else None, "seed": seed}
    found = None
    if model is not None:
        found = extract(model, source, at.train, image_size=image_size, revision=model_revision, **common)
        facts["model"] = Path(model).name
        common["path"] = None
    if text_model is not None:
        of = dict(prompts=prompts, labeled=at.labeled, labels=at.labels, revision=text_revision)
        by_words = class_name_priors(text_model, source, said, at.train, **of, **common)
        facts |= {"text_model": Path(text_model).name, "words": said, "temperature": by_words.temperature}
    labeled, labels = labeled_rows(found or by_words.features, source, at.labeled, at.labels)
    if text_model is None:
        facts["propagation"] = propagation
        y = _from_labels(found, labeled, labels, len(names), propagation, finetune, clusters, neighbors, seed)
    elif found is None:
        found, y = by_words.features, by_words.priors
    else:
        y = spread_words(rooted(found.values), by_words.priors, labeled, labels, k=neighbors or NEIGHBORS)
    y = balance(y) if balanced else y
    y = harden(y) if hard else y
    number = {name: k for k, name in enumerate(names)}
    known = np.array([number.get(name, -1) for name in source.class_names] + [-1])  # last: no label
    scores = report(y, known[source.labels[found.indices]], labeled)
    if text_model is not None:
        scores["temperature"] = by_words.temperature
        if by_words.right is not None:
            scores["words_right"] = by_words.right
    if is_main_process():
        write_left_out(source, Path(output).with_suffix(".left_out.csv"))
        if beside is not None:  # first: one that is there without the priors is of a call that was ended between them
            unlabeled.save(beside)
        save_priors(output, y, [source.ids[i] for i in found.indices], names, facts | scores)
    barrier()
    return scores


def manifest_beside(output: str | Path) -> Path:
    """Where `priors` without a split writes the manifest of its classes: priors.safetensors -> priors.json."""
    return Path(output).with_suffix(".json")


def _check_priors(model, split, text_model, words, propagation, clusters, neighbors) -> None:
    """What of the settings of `priors` does not go together."""
    if propagation not in PROPAGATION:
        raise unknown("propagation", propagation, PROPAGATION)
    if text_model is None:
        if model is None or split is None:
            raise UserError(
                "Priors come from labels and features (--split and --model), or from the names of the classes "
                "(--text-model). Give one of the two."
            )
        if any(words):
            raise UserError("The classes and prompts are words for a text model. Add --text-model, or leave them out.")
        other = {"clusters": ("neighbors", neighbors), "label-spreading": ("clusters", clusters)}[propagation]
        if other[1] is not None:
            raise UserError(
                f"The propagation {propagation!r} has no {other[0]}. Leave --{other[0]} out, or change --propagation."
            )
    elif clusters is not None:
        raise UserError("Priors by class names are spread over neighbours. Leave --clusters out, or --text-model.")
    elif neighbors is not None and model is None:
        raise UserError("There is no graph without features. Add --model, or leave --neighbors out.")


def _from_labels(found, labeled, labels, count, propagation, finetune, clusters, neighbors, seed) -> np.ndarray:
    x = unit(found.values, in_place=True)
    if finetune:
        x = finetune_features(x, max(len(labeled), 1), seed=seed)
    if propagation == "clusters":
        return cluster_priors(x, labeled, labels, count, counts=clusters, seed=seed)
    return graph_priors(unit(x, in_place=True), labeled, labels, count, k=neighbors or NEIGHBORS)
