"""Images and labels that `auto` flags, as a folder for the labeling page; corrections replace labels."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..data.dataset import ImageDataset
from ..data.labels.labels import joined
from ..data.splits.splits import Split
from ..errors import UserError
from ..files import seal
from ..hub.report_data import config_of
from ..labeling.labels import Asked, Labels, write_labels, write_text
from ..labeling.suggestions import Suggestions, write_suggestions
from ..labeling.to_label import LAST, alone, check_folder, is_complete, write_images
from ..tasks import get_task
from ..text import listed
from .advice_files import read_advice

log = logging.getLogger("hf_lowlabel")
SAME_LOOP = "the same `hf-lowlabel loop` again, whose next round learns from them"


def review(run: str | Path, output: str | Path | None = None) -> tuple[Path, int]:
    """Write a folder with the images of a run of `auto` that a person should look at again.

    Doubtful labels come first, then copies whose labels differ or are known of one only, then labeled images
    that are outliers. All wait for an answer; those that are left without one, or of which a person is unsure, keep the
    label they have, and "none of these" takes it off. What was answered once is not asked for again.

    Args:
        run: folder that `auto` wrote, of one class an image.
        output: folder to write; None: review/ in the run folder. An existing one is resumed.

    Returns:
        The folder, and how many images are in it; of none no folder is written.

    Raises:
        UserError: the run or its data is not there, no image can be read any more, or `output` holds something else.
    """
    run = Path(run).expanduser()
    folder = run / "review" if output is None else Path(output).expanduser()
    if is_complete(folder):
        return folder, len(Asked.load(folder).files)
    for name in ("advice.json", "split.json", "run.json", "training.yaml"):
        if not (run / name).is_file():
            raise UserError(f"There is no {name} in {str(run)!r}. Give a folder that `hf-lowlabel auto` wrote.")
    split, advice = Split.load(run / "split.json"), read_advice(run)
    if not odd(advice, split.labeled, split.reviewed):
        return folder, 0
    check_folder(folder)
    config = config_of(run)
    dataset = get_task(config.task).open(config.data)
    found = odd(advice, labels_of(split, dataset), split.reviewed)
    at = {id: i for i, id in enumerate(dataset.ids)}
    gone = [id for id in {**split.labeled, **found} if id not in at]
    if 2 * len(gone) > len({**split.labeled, **found}):
        raise UserError(f"{len(gone)} images are not in {dataset.name!r} any more, such as {gone[0]!r}. Put them back.")
    if gone := [id for id in gone if id in found]:
        many = "images are" if len(gone) > 1 else "image is"
        log.warning("%d %s not in %r any more, and left out: %s", len(gone), many, dataset.name, listed(gone, 5))
        found = {id: said for id, said in found.items() if id in at}
    if not found:
        return folder, 0
    with alone(folder):
        if not (folder / LAST).is_file():  # else another process was faster
            own = labels_of(split, dataset)
            write(folder, dataset, [at[id] for id in found], split, config.task, found, own)
            seal(folder, [LAST])
    return folder, len(Asked.load(folder).files)


def write(
    folder: Path,
    dataset: ImageDataset,
    rows: Sequence[int],
    split: Split,
    task: str,
    said: Suggestions,
    own: Mapping[str, str],
) -> None:
    """The folder to label the images `rows` in once more; selection.json comes last. own: the labels they have."""
    shutil.rmtree(folder / "images", ignore_errors=True)  # of one that was killed
    (folder / "images").mkdir()
    files = {file: dataset.ids[rows[n]] for file, n in write_images(dataset, rows, folder).items()}
    write_suggestions(folder, said, own)
    asked = Asked.of(dataset, split, files=files, task=task, strategy="review")
    write_text(folder / "classes.txt", "\n".join(asked.class_names) + "\n")
    write_labels(folder / "labels.csv", asked, Labels())
    asked.save(folder)


def labels_of(split: Split, dataset: ImageDataset) -> dict[str, str]:
    """Of the labeled images, those of several classes as a;b where the data have them."""
    given = {id: label for id, label in split.labeled.items() if label is not None}
    if len(given) == len(split.labeled) or dataset.labels.ndim < 2:
        return given
    rows = {id: row for id, row in zip(dataset.ids, dataset.labels, strict=True) if id in split.labeled}
    own = {id: joined(n for n, v in zip(dataset.class_names, row, strict=True) if v > 0) for id, row in rows.items()}
    return {**own, **given}


def odd(advice: dict, labeled: dict[str, str], reviewed: Sequence[str] = ()) -> Suggestions:
    """Images to look at again, each once, the most doubtful labels first; no test image, which gets no label here, and
    none that a person has looked at again before."""
    out: Suggestions = {}
    for remark in advice["doubtful"]:
        like = remark.get("looks_like")
        out.setdefault(remark["images"][0], (like and (like[0], float(like[1])), remark["why"]))
    for remark in advice["copies"]:
        pair = remark["images"]
        if remark.get("tested"):
            own, test = pair[0], pair[-1]
            out.setdefault(own, (None, f"labeled {labeled.get(own)}; nearly identical to {test}, a test image"))
            continue
        if labeled.get(pair[0]) == labeled.get(pair[-1]):
            continue
        for id, other in (pair, pair[::-1]):
            own, theirs = labeled.get(id), labeled.get(other)
            like = (theirs, 1.0) if own is None and theirs is not None else None
            words = f"{f'labeled {own}' if own else 'no label'}; nearly identical to {other}"
            out.setdefault(id, (like, f"{words}, {f'labeled {theirs}' if theirs else 'without a label'}"))
    for remark in advice["strangers"]:
        id = remark["images"][0]
        if id in labeled:
            out.setdefault(id, (None, f"labeled {labeled[id]}; {remark['why']}"))
    before = {*reviewed}
    return {id: said for id, said in out.items() if id not in before}
