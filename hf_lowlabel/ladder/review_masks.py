"""A second look at masks: the images and regions where a mask and what the other masks teach disagree most."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..commands import MASKS, ROUND, SOURCE, auto_command, data_flags, free
from ..data.masks.own_names import CLASSES_FILE
from ..data.pixels.mask_colors import Colors
from ..data.pixels.masks import list_classes
from ..data.splits.splits import Split
from ..errors import UserError
from ..evaluation.near_copies import copies_tested, near_copies, small_copies
from ..files import write_json
from ..hub.report_data import config_of
from ..labeling.labels import Asked
from ..labeling.mask_page import Shown
from ..labeling.mask_places import find_places
from ..labeling.next_steps import why_not_mixed
from ..labeling.other_rounds import goes_on
from ..tasks import get_task
from ..tasks.classification_card import any_bad
from ..tasks.data_classes import Examples
from ..tasks.disagreement import disagreements
from ..text import percent, series
from .review import SAME_LOOP

MOST = 20  # images whose masks disagree that are shown
ALIKE = 0.7  # mean IoU from which on the masks of two pictures that are all but the same are alike
NAME = "review.json"


@dataclass
class MaskReview:
    """images: id -> why it is shown, and where to look; the most doubtful first. task, folder, split, classes,
    value_range, mask_format: of the run, for the page. no_page: why the page cannot show them, where it cannot. then:
    what learns from them."""

    images: dict[str, Shown]
    task: str
    folder: Path
    split: str
    classes: list[str]
    no_page: str
    value_range: list[float]
    mask_format: str | None
    then: str


def of_masks(run: Path) -> bool:
    """Whether a finished run is of masks."""
    return (run / "training.yaml").is_file() and get_task(config_of(run).task).labeling == "mask"


def review_masks(run: str | Path, device: str | None = None) -> MaskReview:
    """Find the masks that a person should look at again, and list them in review.json of the run folder.

    Args:
        run: a finished run of masks; those that it learned from are judged.
        device: such as "cpu"; None: the best there is.

    Raises:
        UserError: the run or its data is not there, or there are fewer than two masks.
    """
    run = Path(run).expanduser()
    for name in ("split.json", "run.json", "training.yaml", "config.json"):
        if not (run / name).is_file():
            raise UserError(f"There is no {name} in {str(run)!r}. Give the folder of a finished run.")
    config, split = config_of(run), Split.load(run / "split.json")
    if len(split.labeled) < 2:
        raise UserError("There is one mask, and each is judged by the others. Paint more.")
    task: Any = get_task(config.task)
    data = any_bad(replace(config.data, split=str(run / "split.json"), num_labels=None))
    dataset = task.open(data)
    model = task.load(run, device=device)
    labeled = task.held(model, data, dataset, split.resolve(dataset).labeled, split.class_names, "labeled")
    names, found = list(split.class_names), dict[str, Shown]()
    for one in disagreements(model, labeled, names)[:MOST]:
        why = (
            f"{percent(one.wrong)} of its pixels disagree; most in a region of {percent(one.region)} of the image: "
            f"painted {names[one.given]}, looks like {names[one.like]}"
        )
        found[labeled.cache.ids[one.image]] = Shown(why, tuple(round(v, 4) for v in one.box))
    chosen = task.choose_split(data, config.training.seed, dataset)
    test = None
    if len(chosen.test_at):
        test = task.held(model, data, chosen.test, chosen.test_at, names, "test")
    for id, words in copied(labeled, test, len(names)).items():
        found[id] = Shown(f"{found[id].why}; {words}", found[id].box) if id in found else Shown(words)
    write_json(run / NAME, {"images": [{"image": id, **shown._asdict()} for id, shown in found.items()]})
    folder, no_page = Path(str(data.dataset)).expanduser(), ""
    try:
        if why := why_not_mixed(vars(data)) or without_colors(folder, names, data.mask_format):
            raise UserError(why)
        if not set(found) <= set(find_places(folder, data.dataset_split)):
            raise UserError("The page shows the masks of a folder of images alone.")
    except UserError as error:
        no_page = f"{error} Correct them with the tool they are from."
    said = {**data_flags(vars(config.data), (*SOURCE, *MASKS)), "model": config.model.model}
    if (run / "to_label" / "selection.json").is_file():  # which knows what was given for every round
        kept = Asked.load(run / "to_label").given
        said |= {name: kept[name] for name in ROUND if name in kept}
    coded = None if data.mask_format == "colors" else data.mask_format or "index"  # as the run has read them
    then = auto_command(said, config.task, split=run / "split.json", output_dir=free(run))
    if goes_on(run / "review"):  # a run of its own would not be of the rounds
        then = SAME_LOOP
    return MaskReview(found, config.task, folder, data.dataset_split, names, no_page, data.value_range, coded, then)


def without_colors(folder: Path, names: list[str], mask_format: str | None) -> str:
    """Why the page cannot paint over masks that are of colours: it has those from classes.txt beside the images."""
    file = folder / CLASSES_FILE
    known, colors = list_classes(file) if file.is_file() else (names, Colors())
    missing = [name for name in known if name not in colors]
    if mask_format != "colors" or not missing:
        return ""
    return (
        f"The masks are of colours, and {str(file)!r} says none of {series(missing[:8])}. Put the file of --classes "
        "there, and the page shows and paints them."
    )


def copied(labeled: Examples, test: Examples | None, K: int) -> dict[str, str]:
    """id -> why a labeled image is shown for a picture that is all but the same: one whose mask is another, or one that
    is tested on."""
    out: dict[str, list[str]] = defaultdict(list)
    ids = [labeled.cache.ids[int(i)] for i in labeled.members]
    for a, b in near_copies(small_copies(labeled.cache, labeled.members)):
        if (same := agreement(mask_of(labeled, a), mask_of(labeled, b), K)) < ALIKE:
            for one, other in ((a, b), (b, a)):
                out[ids[one]].append(f"nearly identical to {ids[other]}, with another mask (IoU {percent(same)})")
    for id, tested in copies_tested(labeled, test):
        out[id].append(f"nearly identical to {tested}, a test image")
    return {id: "; ".join(said) for id, said in out.items()}


def mask_of(images: Examples, i: int) -> np.ndarray:
    at = int(images.members[i])
    h, w = images.cache.sizes[at].tolist()
    return images.cache.take(torch.tensor([at]))[0, 3, :h, :w].cpu().numpy()


def agreement(a: np.ndarray, b: np.ndarray, K: int) -> float:
    """Mean IoU of two masks, the second at the size of the first; 1 where no pixel has a class in both."""
    if a.shape != b.shape:
        b = np.asarray(Image.fromarray(b).resize(a.shape[::-1], Image.Resampling.NEAREST))
    known = (a < K) & (b < K)
    either = [((a == k) | (b == k)) & known for k in range(K)]
    shares = [((a == k) & (b == k))[one].mean() for k, one in enumerate(either) if one.any()]
    return float(np.mean(shares)) if shares else 1.0
