"""The campaign for a machine with one GPU, in parts of at most nine minutes: is it right, is it fast, what is it worth?

    python recipes/benchmarks/gpu.py --part 1 --minutes 9 --output $OUT/gpu.jsonl
    python recipes/benchmarks/gpu.py --part 5 --minutes 9 --data $HOME/data        # again, until nothing is left
    python recipes/benchmarks/gpu.py --dry-run                                     # all parts, tiny, on any machine

    1  truth        views, steps of all methods and resumed runs on CUDA against the CPU; waiting; memory
    2  steps        end to end over the bare passes, the bare passes over the roofline; eager, compiled, CUDA graphs
    3  views        512 BYOL views at 224 px, 448 FixMatch pairs at 32 px, and what their time goes to
    4  peers        per-image FixMatch, lightly's BYOL, 16 workers each (kornia's views stand in part 3)
    5  headline     CIFAR-10 with 40 labels: accuracy against the clock, several seeds at once
    6  chains       PixPro and CutMix on polyps and streets, BYOL and FixMatch on CIFAR-10 at 96 px
    7  other rows   S4L, AS3L, SsCL on CIFAR-10

A figure is printed as a line of text and appended to --output as a line of JSON when it is known; one that stands there
is not measured again, one that failed is. Parts 5 to 7 need --data: a folder with cifar10/, cvc_clinicdb/, camvid/
(parquet with test images) and resnet18_in1k_pqf/ (weights); their runs lie in --work and go on where they were stopped.
lightly and kornia (`pip install '.[peers]'`) and peft are measured where they are installed.
Goals of the H100: end to end at most 1.10 of the bare passes and those at least 65 % of the roofline in bf16; 1.5 ms
for 512 BYOL views at 224 px; 0.5 ms for 448 FixMatch pairs; 2.5 and 4 times the peers; 94 % in 25 minutes.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import gpu_accuracy
import gpu_speed
import gpu_truth
import torch
from campaign import Campaign

from hf_lowlabel.records import collect_hardware, collect_versions

PARTS = {
    1: gpu_truth.truth,
    2: gpu_speed.steps,
    3: gpu_speed.views,
    4: gpu_speed.peers,
    5: gpu_accuracy.headline,
    6: gpu_accuracy.chains,
    7: gpu_accuracy.rows,
}


def parse(flags: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", type=int, nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument(
        "--minutes", type=float, default=9.0, help="after which nothing new begins and runs are stopped"
    )
    parser.add_argument("--output", type=Path, default=Path("gpu.jsonl"), help="file of figures, which is gone on with")
    parser.add_argument("--work", type=Path, default=Path("runs/gpu"), help="folder of run folders")
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of data sets and weights")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of part 5, all at once")
    parser.add_argument("--only", default="", help="figures whose key begins so")
    parser.add_argument("--dry-run", action="store_true", help="everything tiny; the figures mean nothing")
    args = parser.parse_args(flags)
    if not (args.dry_run or torch.cuda.is_available()):
        parser.error("There is no CUDA device. Give --dry-run to see that the parts run.")
    return args


def main() -> None:
    args = parse()
    with tempfile.TemporaryDirectory() as aside:
        work = Path(aside) if args.dry_run else args.work
        campaign = Campaign(args.output, work, args.data, args.dry_run, args.minutes, args.only)
        campaign.seeds = args.seeds
        machine = {**collect_hardware(), **collect_versions()}
        if not campaign.only:
            campaign.figure("machine", lambda: {"text": ", ".join(f"{k} {v}" for k, v in machine.items()), **machine})
        for part in args.part:
            PARTS[part](campaign)
    if campaign.left:
        print(f"left for another start: {', '.join(campaign.left)}", file=sys.stderr)


if __name__ == "__main__":
    main()
