"""A folder with one of everything that the verbs read, made in seconds; and each verb as a command on it."""

from __future__ import annotations

import importlib
import os
import shutil
import stat
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from hf_lowlabel.cli import main
from hf_lowlabel.labeling import browser
from hf_lowlabel.methods import find, methods_for

from ..pictures import OF_CLASSES, draw_nothing
from .injector import Fault, Outcome, attempt
from .visitor import visit

NET = "--model cnn6_16 --from-scratch --image-size 16 --batch-size 4 --max-steps 4 --save-steps 2 --logging-steps 2"
TRAIN = f"--dataset photos --split split.json {NET} --unlabeled-ratio 2"
SEGMENT = (
    f"--task segmentation --dataset masked --num-labels 4 {NET} --architecture unet --scale 0.8 1.2 "
    "--architecture-args encoder_depth=3 decoder_channels=[16,8,8]"
)
VERBS = {  # what a case calls it: (the command, what it leaves)
    "split": ("split --dataset photos --num-labels 6 --output out.json", "out.json"),
    "split --from": ("split --from to_label --allow-missing --output out.json", "out.json"),
    "select": ("select --model pre --dataset photos --budget 3 --output out", "out"),
    "select --features": (
        "select --model pre --dataset photos --budget 3 --output out --features to_label/features.safetensors",
        "out",
    ),
    "priors": ("priors --model pre --dataset photos --split split.json --output out.safetensors", "out.safetensors"),
    "evaluate": ("evaluate --model run --dataset photos --output out", "out"),
    "evaluate masks": ("evaluate --model seg --dataset masked --output out", "out"),
    "predict": ("predict photos --model run --output out.csv", "out.csv"),
    "predict parquet": ("predict photos --model run --output out.parquet", "out.parquet"),
    "predict masks": ("predict masked/images --model seg --output out", "out"),
    "shrink": ("shrink photos --output-dir out", "out"),
    "report": ("report run --output out.html", "out.html"),
    "report --quick": ("report run --quick --output out.html", "out.html"),
    "report --table": ("report run --table --output out.md", "out.md"),
    "demo-app": ("demo-app run --export-space out", "out"),
    "demo-app masks": ("demo-app seg --export-space out", "out"),
    "knn": ("finetune --dataset photos --split split.json --model run --method knn --output-dir out", "out"),
    "probe": (
        "finetune --dataset photos --split split.json --model pre --method probe --prior knn/priors.safetensors "
        "--output-dir out",
        "out",
    ),
    "finetune": (f"finetune {TRAIN} --output-dir out", "out"),
    "pretrain": (f"pretrain --dataset photos {NET} --method simclr --output-dir out", "out"),
    "pretrain --config": ("pretrain --config settings.yaml --dry-run", "out"),
    "auto": ("auto --dataset photos --split split.json --model pre --no-train --to-label 4 --output-dir out", "out"),
    "auto masks": (
        "auto --task segmentation --dataset masked --num-labels 6 --model pre --architecture linear --image-size 16 "
        "--minutes 0.001 --to-label 0 --output-dir out",
        "out",
    ),
    "loop": (
        "loop photos --model pre --num-labels 8 --no-train --per-round 4 --no-page --output-dir out",
        "out",
    ),
    "review": ("review best --no-page --output out", "out"),
    "export": ("export run --images photos/dark --output out", "out"),
    "label": ("label out", "out"),
    "label masks": ("label out --task segmentation --classes ground one two", "out"),
    "methods": ("methods fixmatch", "out"),
    "env": ("env", "out"),
}
BEGINS = {"label": "best/to_label", "label masks": "masked"}  # with a copy of this folder as `out`
NOT_SWEPT = {  # the verbs that are in no sweep, and why
    "push": "what it sends goes to a server: tests/hub ends and refuses its requests at every place",
    "demo": "minutes of pretrain, finetune and auto, which are swept one by one",
}
READS = {  # file -> the verbs that read it
    "run/config.json": ("evaluate", "predict", "demo-app"),
    "run/model.safetensors": ("evaluate", "predict"),
    "run/preprocessor_config.json": ("demo-app",),
    "run/run.json": ("report --quick", "report --table", "demo-app", "report"),
    "run/split.json": ("evaluate", "report"),
    "run/training.yaml": ("evaluate", "report"),
    "run/metrics.json": ("report --quick",),
    "run/log.jsonl": ("report --quick",),
    "run/checksums.json": ("predict",),
    "seg/config.json": ("evaluate masks", "predict masks", "demo-app masks"),
    "seg/model.safetensors": ("predict masks",),
    "pre/config.json": ("select", "probe"),
    "pre/model.safetensors": ("select",),
    "pre/run.json": ("probe",),
    "split.json": ("knn", "priors"),
    "to_label/selection.json": ("split --from",),
    "to_label/labels.csv": ("split --from",),
    "to_label/classes.txt": ("split --from",),
    "to_label/features.safetensors": ("select --features",),
    "knn/priors.safetensors": ("probe",),
    "photos/dark/0.png": ("predict", "split", "knn", "shrink"),
    "masked/masks/00.png": ("evaluate masks",),
    "settings.yaml": ("pretrain --config",),
    "best/advice.json": ("review",),
    "best/split.json": ("review",),
    "best/run.json": ("review",),
    "best/training.yaml": ("review",),
    **{f"best/to_label/{name}": ("label",) for name in ("selection.json", "history.jsonl", "suggestions.json")},
    "masked/masks/13.png": ("label masks",),
}
SETTINGS = """dataset: photos
model: cnn6_16
from_scratch: true
image_size: 16
batch_size: 4
max_steps: 2
method: simclr
method_args: {hidden: 8}
report_to: []
l2_sp: 0.0
"""


WARM = (  # imported once, before the processes fork
    *("api.finetuning", "api.pretraining", "prediction", "hub.report_data", "hub.app", "hub.push", "hub.table"),
    *(
        "selection.verbs",
        "labeling.importing",
        "labeling.pages",
        "tasks.multilabel",
        "tasks.segmentation",
        "data.sources.tables",
        "ladder.rounds",
        "ladder.review",
        "hub.export",
    ),
)
EXPORTS = (  # half of the seconds of an export
    *("onnxscript.function_libs.torch_lib.ops", "onnxscript.rewriter", "onnxruntime", "networkx", "sympy"),
    *(
        "torch._dynamo",
        "torch._export.serde.serialize",
        "torch._inductor.config",
        "torch.onnx._internal.exporter._core",
    ),
)


def warm() -> None:
    for name in (*(f"hf_lowlabel.{name}" for name in WARM), "datasets", "pyarrow.parquet", "sklearn.linear_model"):
        importlib.import_module(name)
    for name in methods_for("finetune"):
        find(name)


def build(root: Path, parts: Iterable[str] = ("run", "pre", "knn", "seg", "to_label", "best")) -> None:
    """Fill an empty folder: data, a manifest, settings, and of runs and the like the `parts`."""
    warm()
    for name in EXPORTS if "best" in parts else ():
        importlib.import_module(name)
    pictures(root)
    (root / "settings.yaml").write_text(SETTINGS)
    commands = {
        "split": "split --dataset photos --num-labels 8 --class-balanced --test-fraction 0.25 --output split.json",
        "run": f"finetune {TRAIN} --output-dir run",
        "pre": f"pretrain --dataset photos {NET} --method simclr --output-dir pre",
        "knn": "finetune --dataset photos --split split.json --model run --method knn --output-dir knn",
        "seg": f"finetune {SEGMENT} --output-dir seg",
        "to_label": "select --model pre --dataset photos --budget 4 --output to_label",
        "best": "auto --dataset odd --num-labels 20 --model pre --no-train --to-label 4 --output-dir best",
    }
    for part, command in commands.items():
        if part in ("split", *parts):
            done = run(root, command, seconds=300)
            assert done.code == 0, done.text
    if "to_label" in parts:
        table = root / "to_label" / "labels.csv"
        table.write_text(table.read_text().replace(",,\n", ",dark,\n"))
    if "best" in parts:
        done = run(root, "label best/to_label")
        assert done.code == 0, done


def pictures(root: Path) -> None:
    """Two classes of photos as folders, the same with labels that are wrong, and images with masks."""
    rng = np.random.default_rng(0)
    for k, name in enumerate(("dark", "light")):
        (root / "photos" / name).mkdir(parents=True)
        for i in range(12):
            pixels = rng.integers(0, 100, (24, 24 + i, 3), dtype=np.uint8) + np.uint8(150 * k)
            Image.fromarray(pixels).save(root / "photos" / name / f"{i}.png")
    shutil.copytree(root / "photos", root / "odd")
    for i in range(2):
        with Image.open(root / "odd" / "light" / f"{i}.png") as image:
            image.putpixel((0, 0), (0, 0, 0))
            image.save(root / "odd" / "dark" / f"other{i}.png")
    shutil.copytree(root / "photos", root / "tagged")
    rows = [
        f"{p.relative_to(root / 'tagged')},{p.parent.name};{'odd' if int(p.stem) % 2 else 'even'}"
        for p in sorted((root / "tagged").rglob("*.png"))
    ]
    (root / "tagged" / "metadata.csv").write_text("\n".join(["file_name,label", *rows]) + "\n")
    for part in ("images", "masks"):
        (root / "masked" / part).mkdir(parents=True)
    for i in range(18):
        pixels, mask = rng.integers(90, 160, (24, 24, 3), dtype=np.uint8), np.zeros((24, 24), np.uint8)
        for k, value in ((1, 230), (2, 20)):
            y, x = rng.integers(0, 16, 2)
            pixels[y : y + 8, x : x + 8], mask[y : y + 8, x : x + 8] = value, k
        Image.fromarray(pixels).save(root / "masked" / "images" / f"{i:02d}.png")
        if i < 14:
            Image.fromarray(mask).save(root / "masked" / "masks" / f"{i:02d}.png")


def run(root: Path, command: str | list[str], fault: Fault | None = None, seconds: float = 60) -> Outcome:
    """A command in a process of its own, in the folder, with a fault or without; no pictures are drawn, and at a page
    there is a visitor."""
    words = command.split() if isinstance(command, str) else command
    name = next((name for name in BEGINS if VERBS[name][0].split() == words), None)
    if name and not (root / "out").exists():
        copied(root / BEGINS[name], root / "out")

    def call() -> int:
        browser.window = lambda: visit
        draw_nothing(setattr, *OF_CLASSES)
        os.chdir(root)
        return main(words)

    return attempt(call, folder=root, fault=fault, seconds=seconds)


def copied(folder: Path, to: Path) -> None:
    """A copy of all there is, FIFOs and the like too."""
    to.mkdir()
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            copied(path, to / path.name)
        elif stat.S_ISFIFO(path.lstat().st_mode):
            os.mkfifo(to / path.name)
        else:
            shutil.copyfile(path, to / path.name, follow_symlinks=False)


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def clear(root: Path) -> None:
    """What a verb has left goes, and so does what it left half."""
    for path in [*root.glob("out*"), *root.glob(".out*")]:
        remove(path)


def content(path: Path) -> dict[str, bytes]:
    """Relative name -> bytes of a file or of all files of a folder, but for the record of when each was made."""
    if path.is_file():
        return {path.name: path.read_bytes()}
    return {
        p.relative_to(path).as_posix(): p.read_bytes()
        for p in sorted(path.rglob("*"))
        if p.is_file() and p.name != ".shrunk.jsonl"
    }
