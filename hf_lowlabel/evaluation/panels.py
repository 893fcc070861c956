"""Which panel of a figure a logged quantity belongs to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

NOT_PLOTTED = {"step", "epoch", "t", "time", "seconds", "progress", "images", "samples", "memory", "grad_norm"}
NO_LOSS = {
    "distance",
    "hard",
    "pairs",
    "positive",
    "valid",
    "teacher_entropy",
    "norm",
}  # logged beside losses, other scales

LOSS, PSEUDO, ACCURACY = "Loss", "Pseudo-labels: share of the unlabeled batch (%)", "Accuracy (%)"
SEL = "Sel: unlabeled images named with confidence, and evenly"
SPREAD, RATE, OTHER = "Spread of features: 1 in all directions alike, 0 collapsed", "Learning rate", "Other"


def in_order(panels: Iterable[str]) -> list[str]:
    """Loss first, then pseudo-labels and scores, what is left last."""
    known, found = (LOSS, PSEUDO, ACCURACY, SEL, SPREAD, RATE, OTHER), list(panels)
    scores = [p for p in found if p not in known]
    return [p for p in (LOSS, PSEUDO, ACCURACY, *scores, SEL, SPREAD, RATE, OTHER) if p in found]


def panel_of(name: str, row: dict, scores: Mapping[str, str] | None = None) -> str | None:
    """The panel that a logged name belongs to, None for what is not drawn."""
    last = name.rsplit("/", 1)[-1]
    if "step" not in row or last in NOT_PLOTTED or last.endswith(("_per_second", "_seconds", "skipped")):
        return None
    if last.startswith("learning_rate"):
        return RATE
    title = (scores or {}).get(last.removeprefix("test_").removeprefix("validation_"))
    if title is not None and last.startswith(("test_", "validation_")):
        return f"{title} (%)"
    if "accuracy" in last or last == "acc":
        return ACCURACY
    if last == "sel":
        return SEL
    if last.endswith("std"):
        return SPREAD
    if last in ("mask_ratio", "mask") or any(word in last for word in ("rate", "coverage", "threshold", "share")):
        return PSEUDO
    return LOSS if "loss" in last or ("loss" in row and last not in NO_LOSS) else OTHER


def line_name(name: str, scores: Mapping[str, str]) -> str:
    """What a logged quantity is called in a figure: "test_miou" is "test mean IoU"."""
    last = name.rsplit("/", 1)[-1]
    part = next((part for part in ("test_", "validation_") if last.startswith(part)), "")
    title = scores.get(last.removeprefix(part)) if part else None
    last = f"{part}{title[0].lower()}{title[1:]}" if title else last
    return last.replace("_", " ")
