"""`evaluate`: metrics of a trained model, whatever its task, on labeled images, and what its card says of them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..arguments import DataArguments
from ..data.caches.image_cache import workers_are_there
from ..data.masks.mask_faults import check_masks
from ..data.skipped import write_left_out
from ..data.splits.splits import Split, given_split
from ..distributed import barrier, is_main_process
from ..errors import MissingSplit, at_least
from ..files import as_folder, filling, write_json
from ..hub.measured import check_card, note_on_card
from ..models.lending import given_back
from ..prediction import task_of
from ..records import RunRecord
from ..tasks import with_threshold
from ..tasks.base import Task
from ..tasks.data_classes import refuse_foreign
from ..tasks.testing import report_folder, test_images
from ..training.measured import NOT_KNOWN, NOT_MEASURED, SINCE
from ..yaml_files import read_yaml

if TYPE_CHECKING:
    from ..input_types import Model
else:  # its parts are not imported for their names alone
    Model = Any


@given_back
def evaluate(
    model: Model,
    dataset: Any,
    *,
    dataset_split: str | None = None,
    split: str | os.PathLike[str] | Split | None = None,
    dataset_config: str | None = None,
    dataset_revision: str | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    no_label: Sequence[str] = (),
    skip_missing: bool = False,
    skip_conflicts: bool = False,
    plain_folders: bool = False,
    value_range: Sequence[float] = (),
    pages: bool = False,
    mask_column: str | None = None,
    classes: Sequence[str] = (),
    mask_format: str | None = None,
    mask_ignore: Sequence[int] = (),
    instances: bool = False,
    window: int | None = None,
    threshold: float | None = None,
    output: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    card: bool = False,
    device: str | None = None,
    task: str | None = None,
    max_bad: float = 0.01,
) -> dict[str, Any]:
    """Metrics of a saved model on the labeled images of a data set.

    Which images: those of `dataset_split` if given; else the test images of the manifest `split` or of the model's own
    split.json; else the data set's split "test" or "validation"; else, of data the model was not trained on, all that
    have a label. Classes are matched by name. All processes of a launch call it, each for a share of the images.

    Args:
        model: a run folder, a finished run, a saved model, a Hub id (org/name@revision), or a model in memory; its
            task is known by its configuration.
        dataset: a path, a Hub id, or data in memory, as for `finetune`.
        dataset_config, dataset_revision, image_column, label_column, pages: as for `finetune`.
        no_label, skip_missing, skip_conflicts, plain_folders: as for `finetune`.
        value_range: of images of more than 8 bits; left out, that of the model.
        mask_column, classes, mask_format, mask_ignore, instances: what masks mean; left out, as the run `model` was
            trained.
        window: side in px of a window that slides over images of a segmenter; None: whole images.
        threshold: probability above which a class counts as predicted (multi-label models); None: 0.5.
        output, overwrite: folder for metrics.json and pictures; whether those of another evaluation are replaced.
        card: the card in the run folder `model`, which `push` shares, says the result too, with the data, the number
            of images and the date.
        device: "cpu" to leave a GPU alone; None: the best there is.
        task: the task that is expected.
        max_bad: share of unreadable images that is left out.

    Returns:
        Numbers by name; see `classification_scores`, `segmentation_metrics` and `multilabel_scores`.

    Raises:
        UserError: no such model or data, other classes, nothing to evaluate on, another task than expected, or an
            output that is there already.
    """
    at_least("window", window, 1)
    folder = None if output is None else report_folder(output, overwrite)
    model = as_folder(model)
    if card:
        check_card(model)
    kind = with_threshold(task_of(model, task), threshold)
    network = kind.load(model, device=device)
    names = kind.names_of(network)
    given: dict[str, Any] = dict(label_column=label_column, plain_folders=plain_folders, mask_column=mask_column)
    given |= dict(classes=list(classes), mask_format=mask_format, mask_ignore=list(mask_ignore), instances=instances)
    data = DataArguments(
        dataset=dataset,
        dataset_config=dataset_config,
        dataset_revision=dataset_revision,
        image_column=image_column,
        no_label=list(no_label),
        skip_missing=skip_missing,
        skip_conflicts=skip_conflicts,
        value_range=list(value_range) or getattr(network.config, "value_range", []),
        pages=pages,
        test_dataset_split=dataset_split,
        max_bad=max_bad,
        **(declared(model, given, kind, dataset)),
    )
    refuse_foreign(data, kind)
    split = given_split(split)
    own = Path(model, "split.json") if isinstance(model, (str, Path)) else None
    try:
        images, indices = test_images(kind, data, names, split, own)
    except MissingSplit as error:
        raise MissingSplit(f"{error}{known_of(model)}") from error
    check_masks((images, indices))
    with workers_are_there():
        held = kind.held(network, data, images, indices, names, "test")
        with contextlib.nullcontext() if folder is None else filling(folder):
            metrics = kind.evaluate(network, held, names, window=window, folder=folder, source=images)
    if folder is not None and is_main_process():
        write_left_out(images, folder / "left_out.csv")
        write_json(folder / "metrics.json", metrics)
    if card and is_main_process():
        note_on_card(Path(model), kind, metrics, images)
    barrier()
    return metrics


def known_of(model: Model) -> str:
    """What a run folder says of a model that was trained without test images, after a blank."""
    record = Path(model, "run.json") if isinstance(model, (str, Path)) else None
    if record is None or not record.is_file():
        return ""
    return "".join(
        f" {line}" for line in RunRecord.from_json(record).advice if line.startswith((NOT_MEASURED, SINCE, NOT_KNOWN))
    )


def declared(model: Model, given: dict[str, Any], task: Task, dataset: Any = None) -> dict[str, Any]:
    """What is said of labels and masks; of what is not said, as the run folder was trained."""
    said = {k: v for k, v in given.items() if v}
    if not isinstance(model, (str, Path)) or not Path(model, "training.yaml").is_file():
        return said
    trained = read_yaml(Path(model, "training.yaml"))
    own = isinstance(dataset, (str, Path)) and Path(dataset).resolve() == Path(str(trained.get("dataset"))).resolve()
    takes = {*task.takes, "plain_folders"} if own else task.takes  # other folders may well be classes
    return {k: trained[k] for k in given if trained.get(k) and k in takes} | said
