"""What a later evaluation found, on the card of a run."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

from ..data.dataset import ImageDataset
from ..data.sources.memory import NAME as MEMORY
from ..errors import UserError
from ..files import A_RUN
from ..records import RunRecord
from ..tasks.base import Task
from ..text import brief, cell, warn
from ..training.measured import EVALUATED, noted
from .card import write_card
from .card_parts import columns
from .hub_card import hub_card


def check_card(model: Any) -> None:
    """Raises UserError where there is no run whose card could say more."""
    if not isinstance(model, (str, Path)) or not all(Path(model, name).is_file() for name in ("run.json", "README.md")):
        raise UserError(f"card is for {A_RUN}, and {brief(model)} has no card. Leave card out.")


def note_on_card(folder: Path, task: Task, metrics: dict[str, Any], images: ImageDataset) -> None:
    """Let run.json and the card say what was measured, in the place of what they said of the same data. A card with
    words of somebody's own stays as it is."""
    record = RunRecord.from_json(folder / "run.json")
    shown = columns(task, [metrics], len(metrics.get("class_names") or ()))
    scores = ", ".join(f"{m.title[0].lower()}{m.title[1:]} {m.of(metrics)}" for m in shown)
    scores += " (± is one standard error over the images)" * ("±" in scores)
    data = "data in memory" if images.name == MEMORY else cell(images.name)
    split = f"split {images.split}, " if images.split != "train" else ""
    of = f"images of {data} ({split}fingerprint {images.fingerprint[:8]}) on "  # many a data set has the same name
    line = f"{EVALUATED}{metrics['images']:,} {of}{datetime.date.today()}: {scores}."
    if not hub_card(folder, record.hub_id or folder.resolve().name).pristine:
        warn(f"the card in {folder} has been edited, and stays as it is. Add to it: {line}")
        return
    before = [said for said in record.advice if not (said.startswith(EVALUATED) and of in said)]
    record.advice = noted(before, [line])
    write_card(folder, record)
    record.to_json(folder / "run.json")
