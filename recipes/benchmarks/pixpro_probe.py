"""What PixPro teaches an encoder, by a linear probe of its frozen pixels: seconds where finetuning takes minutes.

    python recipes/benchmarks/pixpro_probe.py --camvid camvid/ --wbc wbc/ --weights resnet18/
    python recipes/benchmarks/pixpro_probe.py --table-only --page recipes/results/pixpro.md

CamVid (11 classes) and white blood cells (3), images of 96 or 128 px, `finetune --method probe` on 10 masks that each
seed draws. The row "at rate 0" is PixPro whose weights do not move: BatchNorm alone gets to know the images. One JSON
line per finished row in OUTPUT/rows.jsonl; a rerun goes on where the last one stopped. Of a page that exists, what
stands from "## Why" on is kept. Cost: 50 CPU-seconds of a 2.5 GHz Xeon for a row of cnn6_16 with 300 steps.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import time
from pathlib import Path

import torch

from hf_lowlabel import finetune, pretrain
from hf_lowlabel.files import write_text

CLASSES = {
    "camvid": "sky building pole road pavement tree sign fence car pedestrian cyclist".split(),
    "wbc": ["background", "cytoplasm", "nucleus"],
}
STILL = 1e-12  # a rate at which no weight moves
SMALL = dict(method_args=dict(hidden=256, out=64), long=96, image_size=64)
LARGE = dict(method_args=dict(hidden=512, out=128), long=128, image_size=96, output_stride=16, l2_sp=0.0)
# row -> settings of PixPro; None: none
FROM_NOTHING = {
    "as they are": None,
    "PixPro at rate 0, 30 steps": dict(SMALL, max_steps=30, learning_rate=STILL),
    "PixPro, 300 steps": dict(SMALL, max_steps=300, learning_rate=1e-3),
    "PixPro, 1,200 steps": dict(SMALL, max_steps=1200, learning_rate=1e-3),
    "PixPro, 300 steps at ten times the rate": dict(SMALL, max_steps=300, learning_rate=1e-2),
    "PixPro, 300 steps, colours kept": dict(SMALL, max_steps=300, learning_rate=1e-3, color=False),
}
FROM_IMAGENET = {
    "as they are": None,
    "PixPro at rate 0, 20 steps": dict(LARGE, max_steps=20, learning_rate=STILL),
    "PixPro, 120 steps": dict(LARGE, max_steps=120, learning_rate=1e-4),
}
WHY = "## Why"
TITLE = """# PixPro under a linear probe

Made by `python recipes/benchmarks/pixpro_probe.py --table-only --page recipes/results/pixpro.md` from its finished
rows; only the last section is written by hand. Mean IoU in per cent of a linear layer on the frozen encoder's maps,
fitted to 10 masks; mean and standard deviation over three draws of masks, and the difference on the same draws to the
encoder whose BatchNorm alone has seen the images. PixPro has AdamW, 8 images a step and two crops of each."""


def run(root: Path, data: dict, start: dict, settings: dict | None, long: int, seeds: list[int]) -> dict:
    """Pretrain once, then a probe for each draw of masks."""
    common, begin = dict(task="segmentation", device="cpu", **data), time.process_time()
    if settings is not None:
        folder = root / "pixpro"
        shutil.rmtree(folder, ignore_errors=True)
        pretrain(
            **common, **start, method="pixpro", optimizer="adamw", weight_decay=1e-5, batch_size=8, stored_size=long,
            logging_steps=100, save_steps=10**6, eval_steps=10**6, output_dir=str(folder),
            **{k: v for k, v in settings.items() if k != "long"},
        )  # fmt: skip
        start = dict(model=str(folder))
    found = []
    for seed in seeds:
        folder = root / "probe"
        shutil.rmtree(folder, ignore_errors=True)
        result = finetune(
            **common, **start, method="probe", num_labels=10, seed=seed, image_size=long, stored_size=long,
            output_dir=str(folder),
        )  # fmt: skip
        found.append(result.metrics["miou"])
    return dict(miou=found, cpu_seconds=round(time.process_time() - begin))


def spread(values: list[float]) -> str:
    return f"{100 * statistics.mean(values):.1f} ± {100 * statistics.stdev(values):.1f}"


def page(rows: list[dict], path: str | None) -> str:
    """The table, and where `path` is given, the page."""
    lines = ["| images, start | weights | mean IoU | over rate 0 | CPU-seconds |", "|---|---|---:|---:|---:|"]
    for r in rows:
        same = [o for o in rows if (o["data"], o["start"]) == (r["data"], r["start"]) and "rate 0" in o["row"]]
        gains = [a - b for a, b in zip(r["miou"], same[0]["miou"])] if same and same[0] is not r else []
        gain = ("+" if statistics.mean(gains) >= 0 else "") + spread(gains) if gains else "–"
        lines += [f"| {r['data']}, {r['start']} | {r['row']} | {spread(r['miou'])} | {gain} | {r['cpu_seconds']} |"]
    text = "\n".join(lines) + "\n"
    if path:
        before = Path(path).read_text() if Path(path).is_file() else ""
        said = before[before.index(WHY) :] if WHY in before else f"{WHY}\n"
        write_text(Path(path), f"{TITLE}\n\n{text}\n{said}")
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--camvid", help="folder, parquet or Hub id; None: left out")
    parser.add_argument("--wbc", help="likewise")
    parser.add_argument("--weights", help="folder or Hub id of a ResNet-18 with ImageNet weights; None: left out")
    parser.add_argument("--output", default="runs/pixpro-probe")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--table-only", action="store_true", help="run nothing")
    parser.add_argument("--page", help="markdown file to write the table to")
    args = parser.parse_args()
    torch.set_num_threads(1)
    root = Path(args.output)
    root.mkdir(parents=True, exist_ok=True)
    file = root / "rows.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
    starts = {"random cnn6_16": (dict(model="cnn6_16", from_scratch=True), FROM_NOTHING, 96)}
    if args.weights:
        starts["ImageNet ResNet-18"] = (dict(model=args.weights), FROM_IMAGENET, 128)
    for name in [] if args.table_only else [n for n in CLASSES if getattr(args, n)]:
        data = dict(dataset=getattr(args, name), classes=CLASSES[name], mask_ignore=[11] if name == "camvid" else [])
        for start, (model, kinds, long) in starts.items():
            for row, settings in kinds.items():
                if not any((r["data"], r["start"], r["row"]) == (name, start, row) for r in rows):
                    found = run(root, data, model, settings, long, args.seeds)
                    rows.append(dict(data=name, start=start, row=row, **found))
                    with file.open("a") as f:
                        f.write(json.dumps(rows[-1]) + "\n")
    print(page(rows, args.page))


if __name__ == "__main__":
    main()
