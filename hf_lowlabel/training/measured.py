"""What advice says of a run without test images, and what later evaluations found of the same weights."""

from __future__ import annotations

import contextlib
from pathlib import Path

from ..errors import UserError
from ..files import sha256
from ..records import RunRecord

EVALUATED = "Evaluated on "  # begins a line of advice, which `evaluate` adds
NOT_MEASURED = "Without test images the finetuned model was not measured, but a linear layer"
SINCE = "In training, without test images, a linear layer"  # where it was measured since then
NOT_KNOWN = "No image is tested on"
CROSS_VALIDATED = "cross-validated on"


def noted(advice: list[str], lines: list[str]) -> list[str]:
    """The advice of a record with lines that say what was measured since."""
    return [*(said.replace(NOT_MEASURED, SINCE) for said in advice), *lines] if lines else advice


def measured(folder: Path) -> tuple[list[str], str]:
    """What a run folder says of evaluations, and the hash of the weights that they are of."""
    weights, found = folder / "model.safetensors", list[str]()
    with contextlib.suppress(UserError):  # nothing written yet, or damaged
        found = [line for line in RunRecord.from_json(folder / "run.json").advice if line.startswith(EVALUATED)]
    return found, sha256(weights) if found and weights.is_file() else ""
