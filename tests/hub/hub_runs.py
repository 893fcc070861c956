"""Folders as finished runs leave them, quick to push."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image

from tests.pictures import OF_CLASSES, draw_nothing


def make_run(folder: Path, value: float = 1.0, **facts) -> Path:
    """What a finished run leaves, with weights of three numbers: quick to push, and different for each `value`."""
    import numpy as np
    from safetensors.numpy import save_file

    from hf_lowlabel.hub.card import write_card
    from hf_lowlabel.records import Data, RunRecord, Stage

    folder.mkdir(parents=True)
    save_file({"w": np.full(3, value, np.float32)}, folder / "model.safetensors")
    for name, content in {
        "config.json": {"architecture": "resnet10t", "value": value},
        "split.json": {"seed": value},
        "preprocessor_config.json": {"size": value},
        "metrics.json": {"accuracy": 0.5},
    }.items():
        (folder / name).write_text(json.dumps(content))
    (folder / "training.yaml").write_text(f"learning_rate: {value}\noutput_dir: {folder}\ndataset: {folder}/photos\n")
    (folder / "log.jsonl").write_text('{"step": 1, "loss": 2.0}\n')
    Image.new("L", (4, 4), int(value) % 256).save(folder / "curves.png")
    (folder / "checkpoints" / "step-1").mkdir(parents=True)
    (folder / "checkpoints" / "step-1" / "objective.safetensors").write_bytes(b"big")
    (folder / ".card.part").write_text("half")
    (folder / "notes.txt").write_text("private")
    given = RunRecord(
        "classification",
        method="fixmatch",
        class_names=["cat", "dog"],
        data=Data("pets"),
        license="mit",
        lineage=[Stage("finetuning", method="fixmatch")],
        **facts,
    )
    given.to_json(folder / "run.json")
    write_card(folder, given)
    return folder


def unlicensed(folder, value=1.0):
    """A run as training leaves it: no licence is given."""
    from hf_lowlabel.hub.card import write_card
    from hf_lowlabel.records import RunRecord

    make_run(folder, value)
    record = RunRecord.from_json(folder / "run.json")
    record.license = None
    record.to_json(folder / "run.json")
    (folder / "README.md").unlink()
    write_card(folder, record)
    return folder


def card_there(hub, revision="main"):
    return hub.repos["model", "org/pets"].content(revision)["README.md"].decode()


def edit(hub, change):
    hub.add("model", "org/pets", {"README.md": change(card_there(hub)).encode()}, "edited")


def licensed(words):
    return lambda card: card.replace("---\n", f"---\n{words}\n", 1)


def asking(card):
    return card.replace("\n## Limits", "\nAsk me anything.\n\n## Limits")


def listing(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def without_pictures(patch) -> None:
    """Runs leave empty pictures: to draw them takes longer than the steps of a test that looks at something else."""
    draw_nothing(
        patch.setattr, *OF_CLASSES, instead=lambda *args, **kwargs: next(a for a in args if isinstance(a, Path)).touch()
    )
