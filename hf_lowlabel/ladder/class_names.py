"""Class names beside labels: an extra source for propagation, and its cross-validated gain."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..data.splits.splits import Split
from ..distributed import barrier
from ..selection.words import checked_words, class_name_priors, class_words, listed_classes, named_classes
from ..text import percent
from ..training.folder import WORDS
from ..training.preparing import Prepared
from ..training.priors import save_priors
from .rungs import Tried, clearly_more


@dataclass(frozen=True)
class ByNames:
    """p: what the names say of every training image, float64 [N, K], which no label has helped. file: the same, for
    `--prior`. model: who knows the names. y, rows: classes of the labeled images, and which of all these are."""

    p: np.ndarray
    file: Path
    model: str
    y: np.ndarray
    rows: np.ndarray

    @property
    def right(self) -> float:
        """Share of the labeled images whose class the names alone find."""
        return float((self.p[self.rows].argmax(1) == self.y).mean())

    def row(self) -> dict[str, Any]:
        """A line of what was tried."""
        score = float(self.p[self.rows, self.y].mean())
        return {"name": f"class names alone, {self.model}", "by_labels": self.right, "score": score, "kept": False}

    def sentence(self, tried: Sequence[Tried]) -> str:
        """Their accuracy alone, and in cross-validation with and without them."""
        said = f"Class names, as {self.model} knows them: {percent(self.right)} of the labeled images by these alone"
        judged = [one for one in tried if one.accuracy is not None]
        if not judged:
            return f"{said}."
        with_, without = (max((o for o in judged if o.rung.names is n), key=lambda o: o.score) for n in (True, False))
        verdict = "what they add is unclear"
        if clearly_more(with_.correct, without.correct):
            verdict = "they help"
        elif clearly_more(without.correct, with_.correct):
            verdict = "they do harm"
        a, b = percent(with_.accuracy or 0.0), percent(without.accuracy or 0.0)
        return f"{said}; in cross-validation {a} right with them, {b} without: {verdict}."


def by_names(
    ready: Prepared,
    text_model: str,
    words: Sequence[str],
    prompts: Sequence[str],
    keep: Path,
    device: str | None,
    max_bad: float,
) -> ByNames:
    """Ask an image-text model about every training image.

    Args:
        ready: the run; its labels are asked only for what the names are worth.
        text_model: Hub id or folder.
        words: what stands in the sentences, one for each class (`check_names`).
        prompts: sentences with {} in the place of the class; none: usual ones for photos.
        keep: folder of features.
        device, max_bad: as for `finetune`.

    Raises:
        UserError: not all weights of the model are there.
    """
    p = said_of_images(ready, text_model, words, prompts, keep, device, max_bad)
    file = ready.folder / WORDS
    if ready.recorder.main:
        save_priors(
            file, p, ready.training.ids, ready.names, {"text_model": Path(text_model).name, "words": list(words)}
        )
    barrier()
    y, rows = ready.labeled.targets, ready.labeled.members
    return ByNames(p, file, Path(text_model).name, y.numpy(), rows.numpy())


def said_of_images(
    ready: Prepared,
    text_model: str,
    words: Sequence[str],
    prompts: Sequence[str],
    keep: Path,
    device: str | None,
    max_bad: float,
) -> np.ndarray:
    """What the names say of every training image, float64 [N, K]. As `by_names`."""
    members = np.asarray(ready.training.indices, dtype=np.int64)
    path = keep / f"names-{re.sub(r'[^A-Za-z0-9.-]+', '-', Path(text_model).name)}.safetensors"
    keep.mkdir(parents=True, exist_ok=True)
    found = class_name_priors(
        text_model,
        ready.dataset,
        words,
        members,
        prompts=list(prompts) or None,
        path=path,
        device=device,
        max_bad=max_bad,
    )
    p = np.full((len(members), len(words)), 1 / len(words))  # nothing, of an image that cannot be read any more
    p[np.isin(members, found.features.indices)] = found.priors[found.features.rows(members)]
    return p


def check_names(text_model: str | None, split: Split, class_names: Sequence[str], prompts: Sequence[str]) -> list[str]:
    """What stands in the sentences, one for each class of a manifest; without a text model none.

    Raises:
        UserError: names that do not fit the labels, prompts without {}, a model without text.
    """
    if text_model is None:
        return []
    words = class_words(list(class_names) or None, split, None)[1]
    checked_words(words, list(prompts) or None, text_model)
    return words


def with_names(split: Split, class_names: Sequence[str]) -> Split:
    """A manifest that knows classes too which have a name and no label yet."""
    named = named_classes(listed_classes(list(class_names)))[0] if class_names else []
    if set(split.class_names) <= set(named):
        split.class_names += [name for name in named if name not in split.class_names]
    return split
