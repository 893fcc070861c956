"""log.jsonl: a line for every logged step and every evaluation; and the progress bar beside it."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..distributed import is_main_process
from ..files import log_rows, write_text
from ..text import clock

log = logging.getLogger("hf_lowlabel")
LOG = "log.jsonl"
SHOWN = ("loss", "mask_ratio", "z_std", "train_accuracy")  # quantities on the progress bar


class Journal:
    """The rows of a run: `history` in memory on every process, log.jsonl and the trackers on the main one."""

    def __init__(self, folder: Path, accelerator: Any):
        self.path, self.accelerator = folder / LOG, accelerator
        self.history: list[dict] = []

    def record(self, row: dict) -> None:
        self.history.append(row)
        if is_main_process():
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        self.accelerator.log({k: v for k, v in row.items() if k != "step"}, step=row["step"])

    def cut(self, step: int) -> None:
        """Forget rows of steps that are trained again, a half-written last line among them."""
        self.history = [row for row in rows_of(self.path) if row["step"] <= step]
        if is_main_process() and self.path.exists():
            write_text(self.path, "".join(json.dumps(row) + "\n" for row in self.history))


def rows_of(path: Path) -> list[dict]:
    """The rows of a log; none where there is no log."""
    return log_rows(path.read_bytes().decode("utf-8", "replace")) if path.is_file() else []


def show(row: Mapping[str, Any], steps: int, bar) -> None:
    """The main quantities of a row on the bar, or as a line where there is no bar."""
    shown = "  ".join(f"{k} {'NaN' if v is None else format(v, '.4g')}" for k, v in row.items() if k in SHOWN)
    bar.set_postfix_str(shown)
    if bar.disable:
        speed = row["steps_per_second"]
        left = clock((steps - row["step"]) / speed)
        log.info("step %d/%d  %s  %.2f steps/s  %s left", row["step"], steps, shown, speed, left)


def number(value: float) -> float | None:
    """A float, or None where JSON has no word for it."""
    return float(value) if math.isfinite(value) else None
