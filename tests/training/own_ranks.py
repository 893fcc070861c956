"""A method of one's own, some of whose parameters a step does not use, as every process of a launch runs it."""

from pathlib import Path

import torch
import torch.nn.functional as F

from hf_lowlabel import FinetuneObjective, finetune
from hf_lowlabel.distributed import all_gather
from tests.training.conftest import FINETUNE


class Spare(FinetuneObjective):
    """Supervised, with a layer of every other step and one of none; what it logs has a graph of its own. Of
    its two memories one is of the images of all processes."""

    unlabeled_views: dict[str, str] = {}

    def __init__(self, model, *, ema_decay: float = 0.9):
        super().__init__(model, ema_decay=ema_decay)
        torch.manual_seed(0)
        self.odd, self.never, self.logged = (torch.nn.Linear(10, 10) for _ in range(3))
        for name in ("bank", "alone"):
            self.register_buffer(name, torch.zeros(64, 10))

    def forward(self, batch, t):
        logits = self.model(batch["labeled"]["image"]).logits
        if round(4 * t) % 2:
            logits = logits + self.odd(logits)
        z, own = self.so_far(t, all_gather(logits), logits)
        bank, alone = (torch.cat([new, old])[:64] for new, old in ((z, self.bank), (own, self.alone)))
        self.later(bank=bank, alone=alone)
        return {"loss": F.cross_entropy(logits, batch["labeled"]["target"]), "aside": self.logged(logits).mean()}


def main(folder: Path) -> None:
    settings = dict(FINETUNE, method=Spare, max_steps=4, gradient_accumulation_steps=2, logging_steps=1, save_steps=4)
    settings |= dict(
        learning_rate=1e-3, optimizer="sgd", unlabeled_ratio=None, model="test_vit", image_size=32, stored_size=32
    )  # no BatchNorm
    finetune(**settings, output_dir=str(folder))
