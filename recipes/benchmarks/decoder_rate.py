"""What `finetune` makes of a few masks when a new decoder learns faster than its pretrained encoder: one table.

    python recipes/benchmarks/decoder_rate.py --data DATA --sets wbc cvc_clinicdb --model WEIGHTS --output decoder-rate

DATA holds data sets with masks, a train and a test split. A row is a method at its defaults with one `--head-lr`, the
rate of the decoder as a multiple of the encoder's; the rows of a seed share the masks, the last weights count, and
nothing is chosen by the test images. A run that is in OUTPUT/runs.jsonl is not repeated. Cost: about two minutes a run
on one core.
"""

from __future__ import annotations

import argparse
import itertools
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import torch
from kept_rows import check_settings, rows_of

from hf_lowlabel import finetune
from hf_lowlabel.files import write_text
from hf_lowlabel.records import collect_hardware, collect_versions


def one(args: argparse.Namespace, *, seed: int, set: str, method: str, head_lr: float) -> dict[str, float]:
    """Mean IoU on the test images, and that of a linear probe of the encoder's pixels."""
    folder = Path(args.output) / "run"
    shutil.rmtree(folder, ignore_errors=True)
    sizes = dict(image_size=args.image_size, stored_size=args.stored_size, architecture=args.architecture)
    given = dict(dataset=str(Path(args.data) / set), num_labels=args.labels, seed=seed, model=args.model)
    given |= dict(method=method, batch_size=8, head_lr=head_lr, max_steps=args.max_steps, output_dir=str(folder))
    last = dict(metric_for_best_model="last", eval_steps=10**6, save_steps=10**6)
    run = finetune(task="segmentation", **given, **sizes, **last)
    return dict(miou=run.metrics["miou"], probe=run.recorder.comparisons[0].metrics["miou"])


def table(rows: list[dict]) -> str:
    """A line for each set, method and rate: mean IoU of every seed, and their mean."""
    seeds = sorted({r["seed"] for r in rows})
    lines = ["| set, method | decoder's rate | " + " | ".join(f"seed {s}" for s in seeds) + " | mean |"]
    lines.append("|---|---:|" + "---:|" * (len(seeds) + 1))
    for key in dict.fromkeys((r["set"], r["method"], r["head_lr"]) for r in rows):
        of = {r["seed"]: 100 * r["miou"] for r in rows if (r["set"], r["method"], r["head_lr"]) == key}
        cells = [f"{of[s]:.1f}" if s in of else "" for s in seeds]
        lines.append(f"| {key[0]}, {key[1]} | {key[2]:g} | {' | '.join(cells)} | {np.mean([*of.values()]):.1f} |")
    for name in dict.fromkeys(r["set"] for r in rows):
        of = {r["seed"]: 100 * r["probe"] for r in rows if r["set"] == name}
        cells = [f"{of[s]:.1f}" if s in of else "" for s in seeds]
        lines.append(f"| {name}, linear probe of pixels | | {' | '.join(cells)} | {np.mean([*of.values()]):.1f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder of data sets")
    parser.add_argument("--sets", nargs="+", required=True, help="their names")
    parser.add_argument("--model", default="resnet18", help="timm name, Hub id or folder with pretrained weights")
    parser.add_argument("--methods", nargs="+", default=["supervised", "cutmix"])
    parser.add_argument("--head-lr", type=float, nargs="+", default=[1.0, 10.0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--labels", type=int, default=10, help="masks")
    parser.add_argument("--architecture", default="unet")
    parser.add_argument("--image-size", type=int, default=64, help="side of a crop in px")
    parser.add_argument("--stored-size", type=int, default=84, help="longer side of an image in px")
    parser.add_argument("--max-steps", type=int, default=150)
    parser.add_argument("--output", required=True, help="folder")
    args = parser.parse_args()
    torch.set_num_threads(1)
    folder = Path(args.output)
    order = itertools.product(args.seeds, args.sets, args.methods, args.head_lr)
    cases = (dict(seed=seed, set=name, method=method, head_lr=rate) for seed, name, method, rate in order)
    fixed = ("model", "labels", "architecture", "image_size", "stored_size", "max_steps")
    check_settings(folder / "runs.jsonl", args, *fixed)
    rows = rows_of(folder / "runs.jsonl", cases, partial(one, args))
    text = f"{table(rows)}\n\nmachine: {collect_hardware(1)}; versions: {collect_versions()}\n"
    write_text(folder / "decoder-rate.md", text)
    print(text)


if __name__ == "__main__":
    main()
