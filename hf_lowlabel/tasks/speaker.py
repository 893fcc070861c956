"""What cards, reports and the console ask: of a task, and of `Backbone` for the runs of pretrain."""

from __future__ import annotations

import abc
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from torch import nn

from ..models import needs_package
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

    @abc.abstractmethod
    def summary(self, record: RunRecord, data: str, method: Callable[[str], str]) -> str:
        """One or two sentences: what it does, from how many labels. data: words for the data set; method: name ->
        link."""

    @abc.abstractmethod
    def limits(self, record: RunRecord) -> list[str]:
        """What a user should know before trusting it, each sentence from a number that was recorded."""

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

    def needs_package(self, record: RunRecord) -> bool:
        """Whether the model loads only after `import hf_lowlabel.models`."""
        return record.architecture is not None and needs_package(record.architecture)

    def save(self, model: nn.Module, folder: Path) -> None:
        """As others load it."""
        model.save_pretrained(folder)
