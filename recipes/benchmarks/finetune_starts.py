"""What a finetuning of pretrained weights gains by each of its defaults, on real photos with few labels: one table.

    python recipes/benchmarks/finetune_starts.py --data DATA --sets flowers elpv --model WEIGHTS --output starts
    python recipes/benchmarks/finetune_starts.py --sets digits --model cnn6_32 --pretrain-steps 40 --image-size 16
        --per-class 2 --max-steps 120 --rows "as it is" "a tenth of the paper's rate" "linear probe" --output starts-40

DATA holds data sets with a train and a test split. A row changes one setting of `finetune --method METHOD` to what it
would be without the default, or starts from priors; all rows of a seed share the labels. The last weights count, and
nothing is chosen by the test images. With --pretrain-steps the network is first pretrained by BYOL from random weights,
on the images of the set. A run that is in OUTPUT/runs.jsonl is not repeated.
"""

from __future__ import annotations

import argparse
import itertools
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from kept_rows import check_settings, rows_of

from hf_lowlabel import finetune, load_source, make_split, pretrain
from hf_lowlabel.errors import Diverged
from hf_lowlabel.files import write_text
from hf_lowlabel.records import collect_hardware, collect_versions

ROWS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "a random head": dict(head_init="random"),
    "BatchNorm collects statistics": dict(freeze_norm=False),
    "ten times the rate": dict(learning_rate=3.75e-3),  # the paper's, scaled by the batch
    "a tenth of the paper's rate": dict(learning_rate=3.75e-4),
    "the paper's rate, not scaled by the batch": dict(learning_rate=0.03),
    "gradients clipped at 1": dict(max_grad_norm=1.0),
    "none of the three": dict(head_init="random", freeze_norm=False, learning_rate=0.03),
    "linear probe": dict(method="probe"),
    "propagation": dict(method="propagation"),
    "from propagation's priors": dict(prior=True),
}
FROZEN = ("probe", "propagation")


def one(args: argparse.Namespace, *, set: str, row: str, seed: int) -> dict[str, float | None]:
    """Accuracy on the test images; None where the run ended because its loss was no number."""
    name = set
    data = name if name == "digits" else str(Path(args.data) / name)
    folder, model = Path(args.output) / "run", args.model
    split = Path(args.output) / f"{name}-{seed}.json"
    if not split.is_file():
        source = load_source(data, split="train")
        labels = args.per_class * len(source.class_names)
        held = 0.2 if name == "digits" else 0.0  # the others have a test split
        make_split(source, labels, seed=seed, class_balanced=True, test_fraction=held).save(split)
    if args.pretrain_steps:
        model = str(Path(args.output) / f"backbone-{name}-{seed}")
        if not (Path(model) / "metrics.json").is_file():
            shutil.rmtree(model, ignore_errors=True)
            short = dict(max_steps=args.pretrain_steps, batch_size=64, method_args=dict(hidden=128, out=64, m0=0.97))
            short |= dict(optimizer="sgd", learning_rate=0.2, warmup_ratio=0.1, min_scale=0.7, from_scratch=True)
            sides = dict(image_size=args.image_size, stored_size=args.image_size)
            pretrain(data, args.model, "byol", split=str(split), seed=seed, output_dir=model, **short, **sides)
    given = dict(dataset=data, model=model, image_size=args.image_size, stored_size=args.image_size)
    given |= dict(split=str(split), seed=seed, output_dir=str(folder))
    trained = dict(method=args.method, batch_size=8, unlabeled_ratio=args.unlabeled_ratio, max_steps=args.max_steps)
    trained |= dict(metric_for_best_model="last", eval_steps=10**6, save_steps=10**6)
    own = dict(ROWS[row])
    if own.get("prior"):
        spread = split.with_suffix("")
        if not (spread / "priors.safetensors").is_file():
            shutil.rmtree(spread, ignore_errors=True)
            finetune(**{**given, "output_dir": str(spread)}, method="propagation")
        own["prior"] = str(spread / "priors.safetensors")
    shutil.rmtree(folder, ignore_errors=True)
    try:
        run = finetune(**given, **(own if own.get("method") in FROZEN else trained | own))
    except Diverged:
        return dict(accuracy=None)
    return dict(accuracy=run.metrics["accuracy"])


def table(rows: list[dict]) -> str:
    """A line for each setting, a column for each set: mean and standard deviation, difference on the same seeds."""
    ended = [r for r in rows if r["accuracy"] is not None]
    found = {(r["set"], r["row"], r["seed"]): 100 * r["accuracy"] for r in ended}
    sets, seeds = list(dict.fromkeys(r["set"] for r in rows)), sorted({r["seed"] for r in rows})
    lines = ["| | " + " | ".join(sets) + " |", "|---|" + "---|" * len(sets)]
    for row in ROWS:
        cells = []
        for name in sets:
            both = [s for s in seeds if (name, row, s) in found and (name, "as it is", s) in found]
            values = np.array([found[name, row, s] for s in both])
            gain = values - np.array([found[name, "as it is", s] for s in both])
            cells.append(f"{sum((r['set'], r['row']) == (name, row) for r in rows)} runs, {len(both)} with an end")
            if len(both) > 1:
                level, change = (f"{v.mean():.1f} ± {v.std(ddof=1):.1f}" for v in (values, gain))
                cells[-1] = f"{level} ({change}, {len(both)} seeds)"
        lines.append(f"| {row} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=".", help="folder of data sets")
    parser.add_argument("--sets", nargs="+", required=True, help="their names, or digits")
    parser.add_argument("--pretrain-steps", type=int, default=0, help="of BYOL from random weights")
    parser.add_argument("--model", default="resnet18", help="timm name, Hub id or folder with pretrained weights")
    parser.add_argument("--method", default="fixmatch")
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=ROWS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--per-class", type=int, default=8, help="labels")
    parser.add_argument("--image-size", type=int, default=64, help="px")
    parser.add_argument("--unlabeled-ratio", type=int, default=2, help="unlabeled images a label")
    parser.add_argument("--max-steps", type=int, default=80)
    parser.add_argument("--output", required=True, help="folder")
    args = parser.parse_args()
    torch.set_num_threads(1)
    folder = Path(args.output)
    order = itertools.product(args.seeds, args.sets, args.rows)
    cases = (dict(set=name, row=row, seed=seed) for seed, name, row in order)
    fixed = ("model", "pretrain_steps", "method", "per_class", "image_size", "unlabeled_ratio", "max_steps")
    check_settings(folder / "runs.jsonl", args, *fixed)
    rows = rows_of(folder / "runs.jsonl", cases, partial(one, args))
    settings = {k: v for k, v in vars(args).items() if k not in ("data", "output", "rows", "sets", "model")}
    text = f"{table(rows)}\n\n{settings}; machine: {collect_hardware(1)}; versions: {collect_versions()}\n"
    write_text(folder / "starts.md", text)
    print(text)


if __name__ == "__main__":
    main()
