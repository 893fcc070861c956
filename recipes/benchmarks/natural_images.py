"""Methods that lose to labels alone on digits, on natural images: a few thousand of CIFAR-10 and six layers.

    python recipes/benchmarks/natural_images.py --dataset path/to/cifar10 --page recipes/results/natural_images.md
    python recipes/benchmarks/natural_images.py --blocks s4l --seeds 0      # a part; go on later
    python recipes/benchmarks/natural_images.py --cheap                     # a few steps of everything: does it run?
    python recipes/benchmarks/natural_images.py --table-only --page recipes/results/natural_images.md

One JSON line per finished run in OUTPUT/runs.jsonl, so that a rerun goes on where the last one stopped, seed by seed.
Each block has a baseline of labels alone: the same network, start, labels, views of labeled images, rate and steps.
Nothing is chosen by the test images: the last weights count. Of a page that exists, what stands from "## Why" on is
kept. `--table-only` runs nothing. Cost: 300 CPU-seconds of a 2.5 GHz Xeon for a seed of s4l, temporal and self-tuning.
"""

from __future__ import annotations

import argparse
import functools
import json
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
from datasets import load_dataset
from natural_table import page
from torch.nn.functional import cross_entropy

from hf_lowlabel import FinetuneObjective, finetune, load_source, make_split, pretrain
from hf_lowlabel.demo_active import answer
from hf_lowlabel.labeling.importing import import_labels
from hf_lowlabel.pretraining.rotnet import four_rotations
from hf_lowlabel.records import collect_hardware, collect_versions
from hf_lowlabel.selection.prior_labels import priors
from hf_lowlabel.selection.verbs import select

RECIPE = Path(__file__).parents[1] / "alternating_optimisation.py"
IMAGES, FEWER, TESTS = 500, 200, 200  # images of a class: in the pool, in the temporal methods' pool, to test on
VIEWS = dict(image_size=32, stored_size=32, device="cpu")
SILENT = dict(logging_steps=100, save_steps=10**6, eval_steps=10**6)
NETWORK = "cnn6_16"
TRAINED = dict(
    optimizer="sgd",
    learning_rate=0.03,
    weight_decay=5e-4,
    lr_scheduler_type="fixmatch",
    metric_for_best_model="last",
)


class LabelsTurned(FinetuneObjective):
    """`weight` times the loss of labels alone, every image turned four ways: the labeled half of S4L-Rotation, MOAM."""

    unlabeled_views: dict[str, str] = {}

    def __init__(self, model, *, weight: float = 1.0, ema_decay: float = 0.999):
        super().__init__(model, ema_decay=ema_decay)
        self.weight = weight

    def forward(self, batch: dict, t: float) -> dict[str, torch.Tensor]:
        x, _ = four_rotations(batch["labeled"]["image"])
        y = batch["labeled"]["target"].repeat(4)
        return {"loss": self.weight * cross_entropy(self.model(x).logits.float(), y)}


class LabelsCropped(FinetuneObjective):
    """Labels alone, `instances` views of every image, as the labeled half of S4L-Exemplar."""

    unlabeled_views: dict[str, str] = {}

    def __init__(self, model, *, instances: int = 4, ema_decay: float = 0.999):
        super().__init__(model, ema_decay=ema_decay)
        self.keys = ["image", *(f"view{i}" for i in range(2, instances + 1))]
        self.labeled_views = dict.fromkeys(self.keys, "exemplar")

    def forward(self, batch: dict, t: float) -> dict[str, torch.Tensor]:
        labeled = batch["labeled"]
        logits = self.model(torch.cat([labeled[k] for k in self.keys])).logits.float()
        return {"loss": cross_entropy(logits, labeled["target"].repeat(len(self.keys)))}


def moam(**weights: float) -> dict:
    """MOAM with the paper's weight of labels and other weights of the rest."""
    return dict(method="moam", method_args=dict(weights, w_sup=0.3))


WEAK = dict(method="supervised", method_args=dict(strong=False))
# block -> settings of all its rows, and row -> (settings, its baseline)
BLOCKS: dict[str, tuple[dict, dict[str, tuple[dict, str | None]]]] = {
    "s4l": (
        dict(start="scratch", labels=500, batch_size=16, unlabeled_ratio=1, max_steps=500),
        {
            "labels, weak views": (WEAK, None),
            "labels, turned four ways": (dict(method=LabelsTurned), None),
            "s4l-rotation": (dict(method="s4l-rotation"), "labels, turned four ways"),
            "labels, exemplar crops": (dict(method=LabelsCropped), None),
            "s4l-exemplar": (
                dict(method="s4l-exemplar", method_args=dict(instances=4)),
                "labels, exemplar crops",
            ),
            "moam": (dict(method="moam"), "labels, turned four ways"),
            "moam, labels at the paper's 0.3": (moam(), "labels, turned four ways"),
        },
    ),
    "moam": (
        dict(start="scratch", labels=500, batch_size=16, unlabeled_ratio=1, max_steps=500),
        {
            "labels at 0.3, turned four ways": (dict(method=LabelsTurned, method_args=dict(weight=0.3)), None),
            "no entropy, no adversaries": (moam(w_ent=0.0, w_vat=0.0), "labels at 0.3, turned four ways"),
            "no entropy": (moam(w_ent=0.0), "labels at 0.3, turned four ways"),
            "no adversaries": (moam(w_vat=0.0), "labels at 0.3, turned four ways"),
        },
    ),
    "temporal": (
        dict(start="scratch", labels=200, batch_size=8, unlabeled_ratio=7, max_steps=800, pool="fewer"),
        {
            "labels, weak views": (WEAK, None),
            "temporal-ensembling": (dict(method="temporal-ensembling"), "labels, weak views"),
            "temporal-consistency": (dict(method="temporal-consistency"), "labels, weak views"),
        },
    ),
    "self-tuning": (
        dict(
            start="simclr",
            labels=500,
            batch_size=16,
            unlabeled_ratio=1,
            max_steps=500,
            method="self-tuning",
            learning_rate=0.003,
            head_lr=10.0,
        ),
        {
            "labels, strong views": (dict(method_args=dict(lambda_l=0.0, lambda_u=0.0)), None),
            "self-tuning": ({}, "labels, strong views"),
        },
    ),
    "alternation": (
        dict(start="rotnet", labels=100, batch_size=8, max_steps=400),
        {
            "labels, weak views": (dict(WEAK, freeze=2), None),
            "labels, linear probe": (dict(method="probe"), None),
            "alternating optimisation": (dict(method=None), "labels, weak views"),
        },
    ),
    "as3l": (
        dict(
            start="simclr",
            labels=40,
            batch_size=8,
            unlabeled_ratio=7,
            max_steps=400,
            method="flexmatch",
            max_grad_norm=1.0,
        ),
        {
            "labels at random, weak and strong views": (dict(method="supervised"), None),
            "labels by AS3L, weak and strong views": (dict(method="supervised", chosen=True), None),
            "flexmatch, labels at random": ({}, "labels at random, weak and strong views"),
            "flexmatch, labels by AS3L": (dict(chosen=True), "labels by AS3L, weak and strong views"),
            "flexmatch, labels by AS3L, prior pseudo-labels": (
                dict(chosen=True, guided=True),
                "labels by AS3L, weak and strong views",
            ),
        },
    ),
}
STARTS = {
    "rotnet": dict(method="rotnet", batch_size=64, max_steps=600),
    "simclr": dict(
        method="simclr",
        batch_size=128,
        max_steps=400,
        learning_rate=0.5,
        optimizer="sgd",
        weight_decay=1e-4,
        warmup_ratio=0.1,
    ),
}


def children() -> float:
    """CPU-seconds of the processes that this one started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


class Runs:
    """Folder of the data, starts and finished runs of a session."""

    def __init__(self, root: Path, dataset: str, cheap: bool):
        self.root, self.dataset, self.cheap = root, dataset, cheap
        root.mkdir(parents=True, exist_ok=True)
        self.file = root / "runs.jsonl"

    def done(self) -> list[dict]:
        return [json.loads(line) for line in self.file.read_text().splitlines()] if self.file.is_file() else []

    @functools.cached_property
    def found(self):
        return load_dataset(self.dataset)

    def pool(self, name: str) -> Path:
        """A folder with the same images of every class, drawn once and for all seeds."""
        folder = self.root / f"pool-{name}"
        for part, each in (("train", FEWER if name == "fewer" else IMAGES), ("test", TESTS)):
            file = folder / f"{part}-00000-of-00001.parquet"
            if file.is_file():
                continue
            y, rng = np.array(self.found[part]["label"]), np.random.default_rng(0)
            kept = np.sort(np.concatenate([rng.permutation(np.flatnonzero(y == k))[:each] for k in np.unique(y)]))
            folder.mkdir(exist_ok=True)
            self.found[part].select(kept).to_parquet(file)
        return folder

    def start(self, name: str) -> dict:
        """Random weights, or weights pretrained once on the images of the pool."""
        if name == "scratch":
            return dict(model=NETWORK, from_scratch=True)
        folder = self.root / name
        if not ((folder / "metrics.json").is_file() and (folder / "run.json").is_file()):
            shutil.rmtree(folder, ignore_errors=True)
            settings = dict(STARTS[name], **(dict(max_steps=4) if self.cheap else {}))
            pretrain(
                dataset=str(self.pool("all")), model=NETWORK, from_scratch=True, output_dir=str(folder),
                **VIEWS, **SILENT, **settings,
            )  # fmt: skip
        return dict(model=str(folder))

    def split(self, pool: Path, number: int, seed: int, chosen: bool, backbone: str | None) -> Path:
        """The manifest: the same number of labels of every class at random, or images chosen by AS3L."""
        path = self.root / f"split-{pool.name}-{number}-{seed}{'-as3l' if chosen else ''}.json"
        if path.is_file():
            return path
        source = load_source(str(pool))
        if chosen:
            folder = self.root / f"to_label-{seed}"
            shutil.rmtree(folder, ignore_errors=True)
            select(backbone, str(pool), budget=number, output=str(folder), seed=seed, device="cpu")
            answer(folder, source)
            import_labels(folder, source=source)[0].save(path)
        else:
            make_split(source, number, seed=seed, class_balanced=True, test_fraction=0.0).save(path)
        return path

    def run(self, block: str, row: str, seed: int) -> dict:
        """One run: accuracy on the test images, and what it took."""
        common, rows = BLOCKS[block]
        settings = {**TRAINED, **common, **rows[row][0], "seed": seed}
        pool, start = self.pool(settings.pop("pool", "all")), self.start(settings.pop("start"))
        number, chosen, guided = (settings.pop(k, None) for k in ("labels", "chosen", "guided"))
        split = self.split(pool, number, seed, bool(chosen), start["model"])
        if guided:
            file = self.root / f"priors-{seed}.safetensors"
            file.unlink(missing_ok=True)  # of a run that was stopped
            priors(start["model"], str(pool), split=str(split), output=str(file), seed=seed, device="cpu")
            settings["prior"] = str(file)
        if self.cheap:
            settings["max_steps"] = 4
        begin, folder = time.process_time(), self.root / "now"
        shutil.rmtree(folder, ignore_errors=True)
        if settings["method"] is None:
            accuracy, seconds, facts = self.alternation(pool, start["model"], number, seed)
        else:
            if settings["method"] == "probe":
                settings = dict(method="probe", seed=seed)
            result = finetune(
                dataset=str(pool), split=str(split), output_dir=str(folder), **start, **VIEWS, **SILENT, **settings
            )
            accuracy, seconds, facts = result.metrics["accuracy"], time.process_time() - begin, {}
        return dict(
            block=block, row=row, seed=seed, accuracy=accuracy, baseline=rows[row][1], cpu_seconds=round(seconds, 1),
            steps=settings.get("max_steps", 0), labels=number, start=common["start"], cheap=self.cheap, **facts,
        )  # fmt: skip

    def alternation(self, pool: Path, prepared: str, number: int, seed: int) -> tuple[float, float, dict]:
        """The recipe, in a process of its own; its labels are those of this seed, as in the other rows."""
        cycles, epochs = ("1", "0.1") if self.cheap else ("4", "2")
        begin, folder = children(), self.root / "alternation"
        shutil.rmtree(folder, ignore_errors=True)
        command = [sys.executable, str(RECIPE), "--dataset", str(pool), "--backbone", prepared, "--seed", str(seed)]
        command += ["--num-labels", str(number), "--cycles", cycles, "--whole", "1", "--epochs", epochs]
        subprocess.run([*command, "--image-size", "32", "--output-dir", str(folder)], check=True)
        found = sorted(folder.glob("*/cycle-*/phase-2/metrics.json"))
        each = [json.loads(p.read_text())["accuracy"] for p in found]
        return each[-1], children() - begin, dict(cycles=each)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="uoft-cs/cifar10", help="Hub id or a local copy")
    parser.add_argument("--output", default="runs/natural-images", help="folder for runs and their figures")
    parser.add_argument("--blocks", nargs="+", default=[*BLOCKS], choices=BLOCKS)
    parser.add_argument("--rows", nargs="+", help="names of rows, such as s4l-rotation; None: all of the blocks")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--cheap", action="store_true", help="four steps of every row, one seed: does it run?")
    parser.add_argument("--table-only", action="store_true", help="run nothing")
    parser.add_argument("--page", help="markdown file to write the tables to")
    args = parser.parse_args()
    torch.set_num_threads(1)
    runs = Runs(Path(args.output + ("-cheap" if args.cheap else "")), args.dataset, args.cheap)
    plan = [(s, b, r) for s in args.seeds[: 1 if args.cheap else None] for b in args.blocks for r in BLOCKS[b][1]]
    plan = [p for p in plan if args.rows is None or p[2] in args.rows]
    for seed, block, row in [] if args.table_only else plan:
        if any((r["seed"], r["block"], r["row"]) == (seed, block, row) for r in runs.done()):
            continue
        found = dict(runs.run(block, row, seed), hardware=collect_hardware(), versions=collect_versions())
        with runs.file.open("a") as f:
            f.write(json.dumps(found) + "\n")
        print(f"{block}: {row}, seed {seed}: {found['accuracy']:.2%}, {found['cpu_seconds']} s", flush=True)
    text = page(runs.done(), {b: common for b, (common, _) in BLOCKS.items()}, STARTS, args.page)
    print(text)


if __name__ == "__main__":
    main()
