"""The card of a run, written whenever its model is saved."""

from __future__ import annotations

from ..training.callbacks import Callback, RunState
from .card import write_card_safely


class CardCallback(Callback):
    """README.md beside the model, from what the run has recorded."""

    def on_save(self, state: RunState) -> None:
        if state.is_main_process and state.record is not None:
            write_card_safely(state.folder, state.record)
