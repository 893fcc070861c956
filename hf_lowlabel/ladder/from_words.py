"""The answer of `auto` where no image has a label and the classes have names: a model from these alone.

what an image-text model says of every image -> spread over the graph of the encoder -> a linear layer on the encoder
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..api.running import settled
from ..arguments import Config
from ..data.splits.splits import Split
from ..distributed import barrier, is_main_process
from ..errors import UserError
from ..evaluation.neighbors import unit
from ..files import write_json
from ..finetuning.graph import rooted
from ..hub.callback import CardCallback
from ..selection.by_class import within_classes
from ..selection.strategies import choose, identical
from ..selection.words import checked_words, class_words, spread_words
from ..tasks.base import Task
from ..text import percent
from ..training import frozen
from ..training.folder import SEARCH, WORDS
from ..training.preparing import prepare
from ..training.priors import load_priors, save_priors
from .advice import Remark
from .advice_files import write_advice
from .class_names import said_of_images
from .on_features import Answer
from .report import Advice
from .search_state import (
    TRIALS,
    check_same,
    features_of_encoder,
    forget_trials,
    print_of,
    print_of_words,
    read_kept,
    readable,
)


def from_words(
    task: Task,
    given: Mapping[str, Any],
    text_model: str,
    names: Sequence[str],
    prompts: Sequence[str] | None,
    folder: Path,
    keep: Path,
    to_label: int,
    images: str,
) -> Answer:
    """A run folder without any label.

    Args:
        task: classification.
        given: settings of `finetune`: data, model, seed, device.
        text_model: a model of images and text, Hub id or folder.
        names: classes, each NAME or NAME=WORDS; none: those of the data.
        prompts: sentences with {} in the place of the class.
        folder: the run folder.
        keep: folder of features.
        to_label: images to choose for a first round of labels.
        images: fingerprint of the data set.

    Raises:
        UserError: a model without text, fewer than two classes, a network in memory.
        OtherSearch: the folder's is of labels, or of other settings, images or names.
    """
    if not isinstance(given["model"], (str, Path)):
        raise UserError(
            "Class names need a --model by name, and this is a network in memory. Save it to a folder first."
        )
    said, known = folder / TRIALS / WORDS, read_kept(folder / SEARCH)
    facts = {  # by the names that a search with labels gives them: it is another
        "settings": print_of([str(given["model"]), given["seed"], given["image_size"]]),
        "images": images,
        "labels": "none",
        "words": print_of_words(text_model, names, prompts or ()),
    }
    barrier()  # all have read
    check_same(folder, known, facts)
    if is_main_process():
        if "facts" not in known:  # nothing says what trials are of
            forget_trials(folder)
        write_json(folder / SEARCH, {**known, "facts": facts})
    barrier()  # what is kept is of this search
    config = Config.from_flat("finetune", given)
    source = task.open(config.data)
    classes, spoken = class_words(list(names) or None, None, source)
    checked_words(spoken, prompts or None, text_model)  # before anything is fetched
    manifest, done = said.with_suffix(".json"), said.is_file()  # of a search that was killed after it
    barrier()  # all have looked
    if is_main_process():
        of = dict(config=source.config, revision=source.revision, fingerprint=source.fingerprint)
        said.parent.mkdir(parents=True, exist_ok=True)
        Split(source.name, classes, {}, **of).save(manifest)
    barrier()
    more = dict(method="probe", split=str(manifest), prior=str(said), output_dir=str(folder), callbacks=())
    ready = readable(prepare(task, settled("finetune", {**given, **more}), folder), keep)
    x = features_of_encoder(ready, keep)  # kept for the next round
    if not done:
        p = said_of_images(ready, text_model, spoken, prompts or (), keep, given["device"], given["max_bad"])
        none, by = np.zeros(0, np.int64), {"text_model": Path(text_model).name, "words": spoken}
        if ready.recorder.main:
            save_priors(said, spread_words(rooted(x), p, none, none), ready.training.ids, ready.names, by)
        barrier()
    p = load_priors(said, ready.training.ids, ready.names).double().numpy()
    shares = ", ".join(f"{name} {percent(share, 0)}" for name, share in zip(ready.names, p.mean(0)))
    out = Advice(
        [
            f"No label was used: the classes are told apart by their names, as {text_model} knows them.",
            f"How good that is is not known without labels. Classes by it: {shares}.",
            "Label the images to label next: with two labels of each class it can be said, and is mostly better.",
        ],
        None,
        "unclear",
        None,
        None,
    )
    out.next = first_to_label(p, x, ready.names, to_label, given["seed"])
    ready.recorder.advice = list(out.sentences)
    ready.recorder.ladder = [{"name": f"class names, {text_model}", "by_labels": None, "score": 0.0, "kept": True}]
    run = frozen.fit(ready, [CardCallback()], x)
    chosen = write_advice(ready, out, x, folder) if is_main_process() else None
    return run, [], out, chosen


def first_to_label(p: np.ndarray, x: np.ndarray, names: Sequence[str], count: int, seed: int) -> list[Remark]:
    """The first images worth a label: as many of each class by its name, there the middles of its clusters; copies
    once.

    Args:
        p: what the names say, [N, K]. x: features [N, D]. names: of the classes.
    """
    z = unit(rooted(x))
    rows = np.flatnonzero(identical(z) == np.arange(len(z)))

    def middles(some: np.ndarray, n: int) -> np.ndarray:
        return choose("k-medoids", z[some], n, seed)

    chosen = rows[within_classes(p, rows, min(count, len(rows)), middles)] if count > 0 else rows[:0]
    return [
        Remark((int(i),), f"typical of {names[k]}, by its name ({percent(p[i, k], 0)})", (names[k], float(p[i, k])))
        for i, k in zip(chosen, p[chosen].argmax(1), strict=True)
    ]
