"""What PixPro teaches an encoder, by a linear probe of its frozen pixels: seconds where finetuning takes minutes.

    python recipes/benchmarks/pixpro_probe.py --camvid camvid/ --wbc wbc/
    python recipes/benchmarks/pixpro_probe.py --camvid camvid/ --pretraining-seed 1 --output other \
        --rows "random weights" "30 steps at rate 0" "1,200 steps at 2e-3"
    python recipes/benchmarks/pixpro_probe.py --table-only --page recipes/results/pixpro.md

CamVid (11 classes) and white blood cells (3), images of 96 px, cnn6_16 from random weights, `finetune --method probe`
on 10 masks that each seed draws. The row "at rate 0" is PixPro whose weights do not move: BatchNorm alone gets to know
the images. One JSON line per finished row in OUTPUT/rows.jsonl; a rerun goes on where the last one stopped. Of a page
that exists, what stands from "## Why" on is kept. Cost: 50 CPU-seconds of a 2.5 GHz Xeon for a row of 300 steps.
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
LONG, SMALL = 96, dict(method_args=dict(hidden=256, out=64), image_size=64)  # long side and crops in px
# row -> steps and learning rate of PixPro (pretraining takes 8 / 256 of it), and more; None: no PixPro
ROWS: dict[str, dict | None] = {
    "random weights": None,
    "30 steps at rate 0": dict(max_steps=30, learning_rate=1e-12),
    "300 steps at 3e-5": dict(max_steps=300, learning_rate=1e-3),
    "300 steps at 3e-5, colours kept": dict(max_steps=300, learning_rate=1e-3, color=False),
    "300 steps at 3e-4": dict(max_steps=300, learning_rate=1e-2),
    "300 steps at 2e-3": dict(max_steps=300, learning_rate=6e-2),
    "1,200 steps at 3e-5": dict(max_steps=1200, learning_rate=1e-3),
    "1,200 steps at 2e-3": dict(max_steps=1200, learning_rate=6e-2),
}
WHY = "## Why"
TITLE = """# PixPro under a linear probe

Made by `python recipes/benchmarks/pixpro_probe.py --table-only --page recipes/results/pixpro.md` from its finished
rows; only the last section is written by hand. Mean IoU in per cent of a linear layer on the maps of a frozen encoder
(cnn6_16), fitted to 10 masks; mean and standard deviation over three draws of masks, and the difference on the same
draws to the encoder whose BatchNorm alone has seen the images. PixPro starts from random weights, with AdamW, 8 images
of 96 px a step and two crops of 64 px of each. [The sets](../benchmarks/README.md#data-and-weights)."""


def run(root: Path, data: dict, settings: dict | None, seeds: list[int], weights: int) -> dict:
    """Pretrain once from random weights of this seed, then a probe for each draw of masks."""
    common, begin = dict(task="segmentation", device="cpu", stored_size=LONG, **data), time.process_time()
    start = dict(model="cnn6_16", from_scratch=True)
    if settings is not None:
        folder = root / "pixpro"
        shutil.rmtree(folder, ignore_errors=True)
        pretrain(
            **common, **start, **SMALL, **settings, seed=weights, method="pixpro", optimizer="adamw", weight_decay=1e-5,
            batch_size=8, logging_steps=100, save_steps=10**6, eval_steps=10**6, output_dir=str(folder),
        )  # fmt: skip
        start = dict(model=str(folder))
    found = []
    for seed in seeds:
        folder = root / "probe"
        shutil.rmtree(folder, ignore_errors=True)
        probe = dict(method="probe", num_labels=10, seed=seed, image_size=LONG)
        found.append(finetune(**common, **start, **probe, output_dir=str(folder)).metrics["miou"])
    return dict(miou=found, cpu_seconds=round(time.process_time() - begin))


def spread(values: list[float]) -> str:
    return f"{100 * statistics.mean(values):.1f} ± {100 * statistics.stdev(values):.1f}"


def page(rows: list[dict], path: str | None) -> str:
    """The table, and where `path` is given, the page."""
    lines = ["| images | PixPro | mean IoU | over rate 0 | CPU-seconds |", "|---|---|---:|---:|---:|"]
    for r in rows:
        same = [o for o in rows if o["data"] == r["data"] and o["row"].endswith("rate 0")]
        gains = [a - b for a, b in zip(r["miou"], same[0]["miou"])] if same and same[0] is not r else []
        gain = ("+" if statistics.mean(gains) >= 0 else "") + spread(gains) if gains else "–"
        lines += [f"| {r['data']} | {r['row']} | {spread(r['miou'])} | {gain} | {r['cpu_seconds']} |"]
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
    parser.add_argument("--output", default="runs/pixpro-probe", help="folder for runs and their figures")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=ROWS, metavar="ROW")
    parser.add_argument(
        "--pretraining-seed", type=int, default=0, help="of weights and views; each has its own --output"
    )
    parser.add_argument("--table-only", action="store_true", help="run nothing")
    parser.add_argument("--page", help="markdown file to write the table to")
    args = parser.parse_args()
    torch.set_num_threads(1)
    root = Path(args.output)
    root.mkdir(parents=True, exist_ok=True)
    file = root / "rows.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
    for name in [] if args.table_only else [n for n in CLASSES if getattr(args, n)]:
        data = dict(dataset=getattr(args, name), classes=CLASSES[name], mask_ignore=[11] if name == "camvid" else [])
        for row in args.rows:
            if not any((r["data"], r["row"]) == (name, row) for r in rows):
                rows.append(dict(data=name, row=row, **run(root, data, ROWS[row], args.seeds, args.pretraining_seed)))
                with file.open("a") as f:
                    f.write(json.dumps(rows[-1]) + "\n")
    print(page(rows, args.page))


if __name__ == "__main__":
    main()
