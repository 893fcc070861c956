"""Mean IoU on the embedded shapes: supervised, CutMix and PixPro + CutMix on the same masks, several seeds.

    python recipes/benchmarks/shapes_accuracy.py                                   # 20 masks, seeds 0-4
    python recipes/benchmarks/shapes_accuracy.py --labels 10 --seeds 0 1 --output shapes.json

200 test images of 64 px, the weights at the end (nothing is chosen by the test set). All rows share the network, the
geometry of the crops, the number of steps and the masks; the settings are the demo's. CutMix's labeled images are not
jittered in colour, nor are those of its baseline; the row "strong views" jitters them. Cost: about eight CPU-minutes a
seed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path

from hf_lowlabel import finetune, load_segmentation, pretrain
from hf_lowlabel.data.splits.drawing import make_split
from hf_lowlabel.demo_stages import SHAPES_FINETUNE, SHAPES_METHODS, SHAPES_SHARED
from hf_lowlabel.records import collect_hardware, collect_versions
from hf_lowlabel.training.preparing import Run

SHAPES_PRETRAIN = dict(
    method="pixpro",
    image_size=48,
    stored_size=64,
    max_steps=500,
    batch_size=32,
    learning_rate=0.02,
    warmup_ratio=0.1,
    min_scale=0.4,
    method_args=dict(hidden=256, out=64, m0=0.97),
)  # SGD collapses these small maps within 100 steps
METHODS = {**SHAPES_METHODS, "cutmix": dict(method="cutmix", method_args=dict(tau=0.9))}
ROWS = {
    "supervised": (False, "supervised"),
    "supervised, strong views": (False, "supervised, strong views"),
    "CutMix": (False, "cutmix"),
    "UniMatch": (False, "unimatch"),
    "PixPro + supervised": (True, "supervised"),
    "PixPro + CutMix": (True, "cutmix"),
}  # name -> (after target pretraining, settings)


def rows(folder: Path, num_labels: int, seed: int, wanted: list[str]) -> dict[str, Run]:
    """Runs by name, all on one split."""
    make_split(load_segmentation("shapes"), num_labels, seed=seed).save(folder / "split.json")
    common = dict(SHAPES_SHARED, seed=seed, split=str(folder / "split.json"))
    scratch, backbone = dict(from_scratch=True), folder / "pretrained"
    if any(ROWS[name][0] for name in wanted):
        print("target pretraining without masks (PixPro)", flush=True)
        pretrain(**common, **scratch, **SHAPES_PRETRAIN, output_dir=str(backbone))
    runs = {}
    for name in wanted:
        pretrained, method = ROWS[name]
        start = dict(model=str(backbone)) if pretrained else scratch
        settings = {**common, **start, **SHAPES_FINETUNE, **METHODS[method]}
        runs[name] = finetune(**settings, output_dir=str(folder / name))
    return runs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=int, nargs="+", default=[20], help="masks")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=list(ROWS))
    parser.add_argument("--output", help="JSON file for the results")
    args = parser.parse_args()
    result = {"hardware": collect_hardware(), "versions": collect_versions(), "miou": {}}
    for labels in args.labels:
        table: dict[str, list[float]] = {name: [] for name in args.rows}
        for seed in args.seeds:
            with tempfile.TemporaryDirectory() as folder:
                runs = rows(Path(folder), labels, seed, args.rows)
            for name, values in table.items():
                values.append(runs[name].metrics["miou"])
                print(f"{labels} masks, seed {seed}: {name} {values[-1]:.2%}", flush=True)
        result["miou"][labels] = table
        print(f"\n| {labels} masks | mean | std | seeds {' '.join(map(str, args.seeds))} |\n|---|---:|---:|---|")
        for name, values in table.items():
            spread = statistics.stdev(values) if len(values) > 1 else float("nan")
            print(f"| {name} | {statistics.mean(values):.2%} | {spread:.2%} | {' '.join(f'{v:.1%}' for v in values)} |")
    print(json.dumps({k: result[k] for k in ("hardware", "versions")}))
    if args.output:
        Path(args.output).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
