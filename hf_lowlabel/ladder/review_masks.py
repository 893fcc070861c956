"""A second look at masks: the images and regions where a mask and what the other masks teach disagree most."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..data.splits import Split
from ..errors import UserError
from ..files import write_json
from ..hub.report_data import config_of
from ..selection.mask_page import Shown
from ..selection.mask_places import find_places
from ..tasks import get_task
from ..tasks.disagreement import disagreements
from ..text import percent

MOST = 20  # images shown
NAME = "review.json"


@dataclass
class MaskReview:
    """images: id -> why it is shown, and where to look; the most doubtful first. task, folder, split, classes: of the
    run, for the page. no_page: why the page cannot show them, where it cannot."""

    images: dict[str, Shown]
    task: str
    folder: Path
    split: str
    classes: list[str]
    no_page: str


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
    data = replace(config.data, split=str(run / "split.json"), num_labels=None)
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
    write_json(run / NAME, {"images": [{"image": id, **shown._asdict()} for id, shown in found.items()]})
    folder, no_page = Path(str(data.dataset)).expanduser(), ""
    try:
        if data.mask_format not in (None, "index"):
            raise UserError(f"The masks are of --mask-format {data.mask_format}, and the page writes class numbers.")
        if not set(found) <= set(find_places(folder, data.dataset_split)):
            raise UserError("The page shows the masks of a folder of images alone.")
    except UserError as error:
        no_page = f"{error} Correct them with the tool they are from."
    return MaskReview(found, config.task, folder, data.dataset_split, names, no_page)
