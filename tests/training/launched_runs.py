"""Short runs one after the other, as `main` all of them: what two processes are compared by."""

import json
from pathlib import Path

import torch
import torch.distributed as dist

from hf_lowlabel import cli, finetune
from tests.pictures import OF_CLASSES, OF_MASKS, draw_nothing
from tests.training.conftest import FINETUNE, NARROW, PRETRAIN, SEGMENT, trained
from tests.training.test_resume import digest, flags

ALGORITHMS = trained("segmentation")
LABELS = (10, 12, 13)  # below, equal to and above the batch of 12
COMPARED = {
    "finetune": dict(FINETUNE, method="fixmatch", max_steps=5, learning_rate=3e-4),
    "pretrain": dict(
        PRETRAIN,
        method="byol",
        model="cnn6_16",
        image_size=16,
        stored_size=16,
        max_steps=5,
        batch_size=48,
        gradient_accumulation_steps=2,  # what BatchNorm sees together is the same part of a batch
        optimizer="sgd",
        learning_rate=5e-4,
        method_args="hidden=64",
    ),
}


def command(verb: str, settings: dict, folder: Path) -> None:
    """A run of the command line."""
    assert cli.main([verb, *flags(settings), "--output-dir", str(folder)]) == 0


def classification(folder: Path) -> None:
    """Both verbs, log and checkpoint as they are compared."""
    for verb, settings in COMPARED.items():
        command(verb, dict(settings, logging_steps=1, save_steps=5), folder / verb)


def settings(method: str, folder) -> dict:
    return dict(SEGMENT, dataset=str(folder), method=method, method_args=NARROW.get(method, {}), save_total_limit=9)


def segmentation(data: str, folder: Path) -> None:
    for method in ALGORITHMS:
        run = finetune(
            **settings(method, data)
            | dict(max_steps=3, save_steps=9, seed=1, learning_rate=1e-4, optimizer="sgd", logging_steps=1),
            output_dir=str(folder / method),
        )
        if dist.is_initialized():
            hashes = [None] * dist.get_world_size()
            state = run.progress.inner.state_dict()
            dist.all_gather_object(hashes, digest({k: v for k, v in state.items() if torch.is_tensor(v)}))
            (folder / f"{method}.json").write_text(json.dumps(hashes))


def main(data: str, folder: Path) -> None:
    classification(folder)
    finetune(**settings("supervised", data) | dict(max_steps=1), output_dir=str(folder / "with-pictures"))
    draw_nothing(setattr, *OF_CLASSES, *OF_MASKS)
    for labels in LABELS:
        command(
            "finetune",
            dict(FINETUNE, num_labels=labels, class_balanced=False, max_steps=2, save_steps=9),
            folder / f"{labels}-labels",
        )
    segmentation(data, folder)
