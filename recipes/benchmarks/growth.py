"""What grows with the pool: start-up, memory and step of a run, 10 thousand to 10 million images; ratio and ranks.

    python recipes/benchmarks/growth.py --output growth.json             # to 1 million images
    python recipes/benchmarks/growth.py --output growth.json --full      # 10 million too
    python recipes/benchmarks/growth.py --task segmentation --output growth-masks.json

Three tables, a process (or `torchrun`) for every row: pools of 10 thousand images and more; unlabeled ratio 1 to 14; 1
and 2 ranks on the same global batch. Images are 32 px and generated, 2,000 of them labeled, of which a run uses 40; the
network is small, so that a cost that grows would be seen. Classes train with FlexMatch, which keeps a table with a row
for every image, and masks with CutMix. Where the images exceed --memory-budget (1 GiB: 349,525 of them) the library
streams them, decoded as they are needed. start: from the call to the first step, and the part of it that reads images.
memory: the most the process held above what it had imported; of it the resident images. Seconds and milliseconds are of
the processor, those of a step a median, and hold on a busy machine; ranks are timed by the clock too. Two ranks need
two free cores: on fewer they show that they do the same, not what they gain.
Cost: minutes of one core.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SIDE, LABELED, DISTINCT, BATCH = 32, 2000, 10_000, 8  # px, images with a label, different images, labeled images a step
EARLY = 5  # step whose loss is compared
POOLS, FULL, RATIOS, RANKS = (10_000, 100_000, 1_000_000), 10_000_000, (1, 2, 4, 7, 14), (1, 2)


SEGMENT = dict(architecture="unet", architecture_args=dict(encoder_depth=3, decoder_channels=[16, 8, 8]))
METHODS = {"classification": "flexmatch", "segmentation": "cutmix"}


class Repeated:
    """Opens image i, or its mask, of a source of any length, from a few that are in memory."""

    def __init__(self, images):
        self.images = images

    def __call__(self, i: int):
        from PIL import Image

        return Image.fromarray(self.images[i % len(self.images)])


def generated(count: int, spent: dict, masks: bool = False):
    """A data set as `load_source` would open it: `count` images, the first of them labeled with ten classes or, with
    `masks`, with masks of two.

    It counts the seconds of the processor that reading images takes.
    """
    import numpy as np

    from hf_lowlabel.data.dataset import ImageDataset, Masks, fingerprint

    class Watched(ImageDataset):
        def _named(self, *args):
            begin = time.thread_time()
            try:
                return super()._named(*args)
            finally:
                spent["reading"] += time.thread_time() - begin

    rng, distinct = np.random.default_rng(0), (min(count, DISTINCT), SIDE, SIDE)
    ids, names = [f"{i:08d}.jpg" for i in range(count)], [str(k) for k in range(2 if masks else 10)]
    labels = np.where(np.arange(count) < LABELED, 0 if masks else np.arange(count) % 10, -1)
    images = Repeated(rng.integers(0, 256, (*distinct, 3), dtype=np.uint8))
    drawn = Masks(Repeated(rng.integers(0, 2, distinct, dtype=np.uint8))) if masks else None
    print_ = fingerprint(ids, labels, names, [3 * SIDE * SIDE] * count)
    return Watched("generated", None, "train", None, ids, labels, names, print_, None, True, images, masks=drawn)


def one(task: str, pool: int, ratio: int, steps: int, budget: float, output: str) -> None:
    """One run of the library's own `finetune`, watched; rank 0 writes what it saw."""
    import psutil
    import torch

    from hf_lowlabel import Callback, finetune
    from hf_lowlabel.methods import find

    torch.set_num_threads(1)
    spent, seen, wall, cpu, marks = {"reading": 0.0}, {}, [], [], {}

    def now() -> tuple[float, float]:
        return time.perf_counter(), time.process_time()

    class Watched(find(METHODS[task])):
        """The first batch ends the start-up."""

        def forward(self, batch, t):
            if "first" not in marks:
                marks["first"] = marks["step"] = now()
                seen["reading_s"] = spent["reading"]
            return super().forward(batch, t)

    class Clock(Callback):
        """A step lasts from the end of the last one: making its batch counts."""

        def on_step_end(self, state, scalars):
            before, marks["step"] = marks["step"], now()
            wall.append(1e3 * (marks["step"][0] - before[0]))
            cpu.append(1e3 * (marks["step"][1] - before[1]))

    source = generated(pool, spent, task == "segmentation")
    before = psutil.Process().memory_info().rss
    marks["start"] = now()
    done = finetune(
        dataset=source,
        task=task,
        model="cnn6_16",
        from_scratch=True,
        image_size=SIDE,
        stored_size=SIDE,
        method=Watched,
        num_labels=40,
        batch_size=BATCH,
        unlabeled_ratio=ratio,
        max_steps=steps,
        memory_budget=budget,
        workers=0,
        device="cpu",
        logging_steps=min(EARLY, steps),
        eval_steps=10**6,
        save_steps=10**6,
        output_dir=str(Path(output).parent / "run"),
        callbacks=[Clock()],
        **(SEGMENT if task == "segmentation" else {}),
    )
    seen["start_wall_s"], seen["start_s"] = (b - a for a, b in zip(marks["start"], marks["first"], strict=True))
    caches = done.recorder.caches
    seen |= {"pool": type(caches[0]).__name__, "images_mib": sum(cache.nbytes for cache in caches) / 2**20}
    seen["memory_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before / 2**20
    seen |= {"step_ms": statistics.median(cpu[2:]), "step_wall_ms": statistics.median(wall[2:])}
    seen["slowest_ms"] = max(cpu[1:])
    seen["loss"] = next(row["loss"] for row in done.history if "loss" in row)  # rounding doubles with every step
    if os.environ.get("RANK", "0") == "0":
        Path(output).write_text(json.dumps(seen))


def launch(pool: int, ratio: int, ranks: int, args: argparse.Namespace) -> dict:
    """The figures of one run in processes of its own."""
    with tempfile.TemporaryDirectory() as folder:
        out = str(Path(folder) / "seen.json")
        many = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"] if ranks > 1 else []
        asked = [str(v) for v in (args.task, pool, ratio, args.steps, args.memory_budget, out)]
        command = [sys.executable, *many, __file__, "--one", *asked]
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
        if done.returncode:
            raise SystemExit(done.stderr[-2000:])
        return {"images": pool, "ratio": ratio, "ranks": ranks, **json.loads(Path(out).read_text())}


def tables(rows: dict[str, list[dict]]) -> str:
    said = ["| images | pool | start s | of it reading s | memory MiB | of it images MiB | step ms | step / smallest |"]
    said += ["|---:|---|---:|---:|---:|---:|---:|---:|"]
    for r in rows["pools"]:
        said.append(
            f"| {r['images']:,} | {r['pool'].removesuffix('Cache').lower()} | {r['start_s']:.1f} | "
            f"{r['reading_s']:.1f} | {r['memory_mib']:.0f} | {r['images_mib']:.0f} | {r['step_ms']:.1f} | "
            f"{r['step_ms'] / rows['pools'][0]['step_ms']:.2f} |"
        )
    said += ["", "| unlabeled ratio | images a step | step ms | ms an image |", "|---:|---:|---:|---:|"]
    for r in rows["ratios"]:
        images = BATCH * (1 + 2 * r["ratio"])  # labeled, weak and strong views
        said.append(f"| {r['ratio']} | {images} | {r['step_ms']:.1f} | {r['step_ms'] / images:.2f} |")
    said += ["", f"| ranks | clock ms of a step | processor ms of a rank | loss of step {EARLY} |"]
    said += ["|---:|---:|---:|---:|"]
    for r in rows["ranks"]:
        said.append(f"| {r['ranks']} | {r['step_wall_ms']:.1f} | {r['step_ms']:.1f} | {r['loss']:.6f} |")
    return "\n".join(said)


def main() -> None:
    if sys.argv[1:2] == ["--one"]:
        task, pool, ratio, steps, budget, output = sys.argv[2:]
        return one(task, int(pool), int(ratio), int(steps), float(budget), output)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=METHODS, default="classification")
    parser.add_argument("--pools", type=int, nargs="+", default=list(POOLS))
    parser.add_argument("--full", action="store_true", help=f"{FULL:,} images too")
    parser.add_argument("--ratios", type=int, nargs="*", default=list(RATIOS), help="on the smallest pool")
    parser.add_argument("--ranks", type=int, nargs="*", default=list(RANKS), help="on the smallest pool, ratio 7")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--memory-budget", type=float, default=1.0, help="GiB that decoded images may take")
    parser.add_argument("--output", help="JSON file for the figures")
    args = parser.parse_args()
    pools = args.pools + [FULL] * args.full
    plan = {
        "pools": [(n, 7, 1) for n in pools],
        "ratios": [(pools[0], r, 1) for r in args.ratios],
        "ranks": [(pools[0], 7, r) for r in args.ranks],
    }
    known: dict[tuple, dict] = {}
    for run in dict.fromkeys(run for runs in plan.values() for run in runs):
        known[run] = launch(*run, args)
        print(known[run], file=sys.stderr, flush=True)
    rows = {name: [known[run] for run in runs] for name, runs in plan.items()}
    from hf_lowlabel.records import collect_hardware, collect_versions

    facts = {**collect_hardware(), **collect_versions()}
    print(tables(rows), ", ".join(f"{k} {v}" for k, v in facts.items()), sep="\n\n")
    if args.output:
        kept = {"settings": vars(args), "rows": rows, "facts": facts}
        Path(args.output).write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
