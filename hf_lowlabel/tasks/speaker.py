"""Interface of tasks (and of `Backbone` for pretrain runs) to cards, reports and the console."""

from __future__ import annotations

import abc
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from torch import nn

from ..errors import UserError
from ..models.travelling import NETWORKS, brings_code
from ..records import Metric, RunRecord


class Speaker(abc.ABC):
    """name: in `RunRecord.kind`. product: what a run leaves. metrics: the table of its numbers. pipeline_tag: the
    Hub's.
    first_picture: of a card. label_words: what its labels are called.
    """

    name: ClassVar[str]
    product: ClassVar[str]
    label_words: ClassVar[str] = "labels"
    pipeline_tag: ClassVar[str]
    first_picture: ClassVar[str] = "curves.png"  # of a card
    metrics: ClassVar[tuple[Metric, ...]]

    def check(self, metrics: Any, where: str) -> None:
        """Raises UserError where metrics that were read from a file are none: each of the table is a finite number."""
        advice = f"Copy {where} again, or give another run."
        if not isinstance(metrics, dict):
            raise UserError(f"The metrics in {where} are no mapping. {advice}")
        for key in ("images", *(k for metric in self.metrics for k in (metric.key, f"{metric.key}_error"))):
            value = metrics.get(key)
            if value is not None and (type(value) not in (int, float) or not math.isfinite(value)):
                raise UserError(f"{key!r} of the metrics in {where} is {value!r:.60}, and no number. {advice}")
        names, bins = metrics.get("class_names"), metrics.get("reliability")
        lists = {key: metrics[key] for key in metrics if key.startswith("per_class")}
        lists |= {"confusion": metrics.get("confusion")} | (bins if isinstance(bins, dict) else {"reliability": bins})
        for key, value in lists.items():
            wide = len(names) if isinstance(names, list) and key not in (bins or ()) else None
            if value is not None and not _numbers(value, wide, deep=key == "confusion"):
                raise UserError(f"{key!r} of the metrics in {where} is {value!r:.60}. {advice}")
        if names is not None and not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
            raise UserError(f"'class_names' of the metrics in {where} is {names!r:.60}. {advice}")
        if bins and (metrics.get("ece") is None or len({len(column) for column in bins.values()}) != 1):
            raise UserError(f"The metrics in {where} are not whole. {advice}")

    @abc.abstractmethod
    def summary(self, record: RunRecord, data: str, method: Callable[[str], str]) -> str:
        """One or two sentences: what it does, from how many labels. data: words for the data set; method: name ->
        link."""

    @abc.abstractmethod
    def limits(self, record: RunRecord) -> list[str]:
        """What a user should know before trusting it, each sentence from a number that was recorded."""

    def seen_at(self, record: RunRecord) -> str:
        """Size of the images that the network sees, for a card and a table; "" where it was not recorded."""
        return f"{record.image_size} px" if record.image_size else ""

    def next_step(self, model_id: str) -> str:
        """Markdown before the snippets of a card: what to do with the model first."""
        return ""

    @abc.abstractmethod
    def snippets(self, record: RunRecord, model_id: str) -> list[str]:
        """Python to copy."""

    def console(self, metrics: dict[str, Any]) -> list[str]:
        """Lines for the end of a run, beside the numbers of `metrics`."""
        return []

    def figures(self, metrics: dict[str, Any], names: list[str]) -> list[str]:
        """Charts of a report, HTML."""
        return []

    def code(self, record: RunRecord) -> tuple[str, ...]:
        """Files of `hf_lowlabel/models` that hold the network where timm lacks it; none where timm has it."""
        return NETWORKS if brings_code(record.architecture) else ()

    def save(self, model: nn.Module, folder: Path) -> None:
        """As others load it."""
        model.save_pretrained(folder)


def _numbers(value: Any, wide: int | None, deep: bool = False) -> bool:
    """Whether it is a list of finite numbers and None, `wide` of them; `deep`: a list of such lists."""
    if not isinstance(value, list) or wide is not None and len(value) != wide:
        return False
    if deep:
        return all(_numbers(row, len(value)) for row in value)
    return all(v is None or type(v) in (int, float) and math.isfinite(v) for v in value)
