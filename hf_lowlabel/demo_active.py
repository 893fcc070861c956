"""The whole story on scikit-learn's digits: nobody has labeled anything yet, and there is time for ten labels.

hold out a test set -> target pretraining -> choose 10 images (AS3L) -> "label" them -> prior pseudo-labels
-> FlexMatch that starts from the priors;  beside it the same without choosing: 10 random images, no priors
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from .api import finetune, pretrain
from .data.dataset import ImageDataset
from .data.opening import load_source
from .data.splits.drawing import make_split
from .data.splits.splits import Split
from .demo import empty_folder
from .demo_stages import DIGITS_FINETUNE, DIGITS_PRETRAIN, DIGITS_PRIORS, DIGITS_SHARED, FROM_PRIORS
from .errors import UserError
from .files import write_json
from .labeling.importing import import_labels
from .labeling.labels import Asked, Labels, write_labels
from .selection.prior_labels import priors
from .selection.verbs import select
from .text import percent
from .training.preparing import Run


def active_demo(
    output_dir: str = "demo-digits", num_labels: int = 10, seed: int = 0, strategy: str = "as3l"
) -> dict[str, Run]:
    """Run the story in `output_dir`; returns the runs by name. The finished model lies in output_dir/model.

    Raises:
        UserError: before anything is computed; there are fewer labels than classes, or `output_dir` is not empty.
    """
    begin, source = time.perf_counter(), load_source("digits")
    if num_labels < (count := len(source.class_names)):
        raise UserError(f"{num_labels} labels cannot cover the {count} classes. Give --num-labels {count} or more.")
    folder = empty_folder(output_dir)
    random = make_split(source, num_labels, seed=seed, test_fraction=0.2)
    random.save(folder / "random.json")
    replace(random, labeled={}).save(folder / "nothing-labeled.json")
    common = dict(DIGITS_SHARED, seed=seed)
    print("1/4 target pretraining without labels")
    backbone, held_out = str(folder / "pretrained"), str(folder / "nothing-labeled.json")
    pretrained = pretrain(**common, **DIGITS_PRETRAIN["simclr"], from_scratch=True, split=held_out, output_dir=backbone)
    print(f"2/4 choosing {num_labels} images to label ({strategy}); their prior pseudo-labels")
    chosen = select(
        backbone,
        "digits",
        budget=num_labels,
        strategy=strategy,
        output=str(folder / "to_label"),
        seed=seed,
        split=held_out,
    )
    answer(folder / "to_label", source)  # here a person would run `hf-lowlabel label`
    split, _ = import_labels(folder / "to_label", source=source)
    split.save(folder / "split.json")
    worth = priors(
        backbone,
        "digits",
        split=str(folder / "split.json"),
        output=str(folder / "priors.safetensors"),
        seed=seed,
        features=str(folder / "to_label" / "features.safetensors"),
        **DIGITS_PRIORS,
    )
    settings = {**common, **DIGITS_FINETUNE, "model": backbone}
    from_priors = dict(FROM_PRIORS, prior=str(folder / "priors.safetensors"))
    print(f"3/4 FlexMatch with {num_labels} random labels")
    settings["method"] = from_priors.pop("method")
    plain = finetune(**settings, split=str(folder / "random.json"), output_dir=str(folder / "random"))
    print("4/4 FlexMatch with the chosen labels, from their priors")
    model = finetune(**settings, **from_priors, split=str(folder / "split.json"), output_dir=str(folder / "model"))
    results = {
        "labels": num_labels,
        "strategy": strategy,
        "classes_random": classes(random),
        "classes_chosen": classes(split),
        "prior_accuracy": worth["accuracy"],
        "random": plain.metrics["accuracy"],
        "chosen + priors": model.metrics["accuracy"],
        "seconds": round(time.perf_counter() - begin, 1),
    }
    write_json(folder / "results.json", results)
    tell(results, folder, chosen.folder)
    return {"pretrained": pretrained, "random": plain, "model": model}


def tell(results: dict, folder: Path, chosen: Path) -> None:
    """Print what came of it."""
    n, right = results["labels"], percent(results["prior_accuracy"])
    print(
        f"\n{n} random labels: {results['classes_random']} of 10 classes, test accuracy {percent(results['random'])}\n"
        f"{n} chosen labels: {results['classes_chosen']} of 10 classes, priors {right} right, test accuracy "
        f"{percent(results['chosen + priors'])}   ({results['seconds']:.0f} s)\n"
        f"model, card and pictures: {folder / 'model'}; why these images: {chosen / 'index.html'}"
    )


def answer(folder: Path, source: ImageDataset) -> None:
    """Fill in labels.csv with the true labels, as a person would who makes no mistakes."""
    task = Asked.load(folder)
    name = {id: source.class_names[label] for id, label in zip(source.ids, source.labels, strict=True)}
    write_labels(folder / "labels.csv", task, Labels({id: name[id] for id in task.files.values()}))


def classes(split: Split) -> int:
    return len(np.unique(list(split.labeled.values())))
