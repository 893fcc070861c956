"""What `auto` makes of a few masks, against training on the masks alone: the same masks, sizes, rates and steps.

    python recipes/benchmarks/auto_masks.py --data DATA --sets wbc cvc_clinicdb --model WEIGHTS --output auto-masks
    python recipes/benchmarks/auto_masks.py --data DATA --sets camvid --labels 20 --seeds 0 1 --minutes 30

DATA holds data sets with a train and a test split and a mask of every image; LABELS of them are kept, drawn by SEED.
For each draw `auto` has MINUTES. Then every attempt that it had is trained by hand on all masks, with the steps of its
last run, so that the table shows on the test images: what was taken, supervised, the best in hindsight, and whether the
80 % interval held. A draw that is in OUTPUT/draws.jsonl is not repeated: stop it and start it again.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path
from statistics import mean

import torch
from kept_rows import check_settings

from hf_lowlabel import auto, finetune
from hf_lowlabel.files import read_json, write_text
from hf_lowlabel.records import collect_hardware, collect_versions
from hf_lowlabel.tasks import get_task


def drawn(args: argparse.Namespace, name: str, labels: int, seed: int) -> dict:
    """One draw: what was taken, and the test scores of all attempts."""
    folder = Path(args.output) / f"{name}-{labels}-{seed}"
    given = dict(task="segmentation", dataset=str(Path(args.data) / name), model=args.model, seed=seed)
    given |= dict(image_size=args.image_size, stored_size=args.stored_size, architecture=args.architecture)
    best = auto(**given, num_labels=labels, minutes=args.minutes, to_label=0, output_dir=folder / "auto")
    given |= dict(image_size=best.run.config.views.image_size, stored_size=best.run.config.views.stored_size)
    plan = read_json(folder / "auto" / "trials" / "plan.json", "")
    scores = {best.ladder[0].name: best.run.metrics["miou"]}
    for attempt in get_task("segmentation").attempts:
        if attempt.name in plan["attempts"] and attempt.name not in scores:
            more = dict(split=str(folder / "auto" / "split.json"), output_dir=str(folder / attempt.name))
            if not attempt.frozen:
                more["max_steps"] = plan["last"]
            scores[attempt.name] = finetune(**{**given, **attempt.settings, **more}).metrics["miou"]
    interval = best.advice.accuracy
    return {
        "set": name,
        "labels": labels,
        "seed": seed,
        "taken": best.ladder[0].name,
        "by_masks": {one.name: one.score for one in best.ladder},
        "test": scores,
        "interval": interval and [interval.low, interval.high],
        "helps": best.advice.helps,
        "plan": {key: plan[key] for key in ("folds", "steps", "last")},
    }


def table(draws: list[dict]) -> str:
    rows = [
        "| set | masks | draws | auto | supervised | best in hindsight | interval held | taken |",
        "|---|--:|--:|--:|--:|--:|--:|---|",
    ]
    groups = defaultdict(list)
    for draw in draws:
        groups[draw["set"], draw["labels"]].append(draw)
    for (name, labels), found in groups.items():
        took = [d["test"][d["taken"]] for d in found]
        plain, best = [plainest(d) for d in found], [max(d["test"].values()) for d in found]
        sure = [d for d in found if d["interval"]]
        held = sum(d["interval"][0] <= d["test"][d["taken"]] <= d["interval"][1] for d in sure)
        numbers = " | ".join(f"{100 * mean(v):.1f}" for v in (took, plain, best))
        taken = ", ".join(f"{n} {sum(d['taken'] == n for d in found)}" for n in sorted({d["taken"] for d in found}))
        rows.append(f"| {name} | {labels} | {len(found)} | {numbers} | {held} of {len(sure)} | {taken} |")
    worst = min(d["test"][d["taken"]] - plainest(d) for d in draws)
    return "\n".join([*rows, "", f"The largest loss against supervised: {100 * min(worst, 0):.1f} points."])


def plainest(draw: dict) -> float:
    """Supervised; in a draw without time for it, what was taken."""
    return draw["test"].get("supervised", draw["test"][draw["taken"]])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder of data sets")
    parser.add_argument("--sets", nargs="+", required=True)
    parser.add_argument("--model", default="resnet18", help="timm name, Hub id or folder with pretrained weights")
    parser.add_argument("--architecture", help="None: the default of finetune")
    parser.add_argument("--labels", type=int, nargs="+", default=[10], help="masks")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--image-size", type=int)
    parser.add_argument("--stored-size", type=int)
    parser.add_argument("--threads", type=int, help="of the processor")
    parser.add_argument("--output", default="auto-masks")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    path = Path(args.output) / "draws.jsonl"
    check_settings(path, args, "model", "architecture", "minutes", "image_size", "stored_size")
    draws = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    known = {(d["set"], d["labels"], d["seed"]) for d in draws}
    for one in [(n, k, s) for s in args.seeds for n in args.sets for k in args.labels]:
        if one not in known:
            draws.append(drawn(args, *one))
            write_text(path, "".join(json.dumps(d) + "\n" for d in draws))
            print(json.dumps(draws[-1]), flush=True)
    print(table(draws), collect_hardware(), collect_versions(), sep="\n")


if __name__ == "__main__":
    main()
