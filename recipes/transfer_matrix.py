"""Target pretraining on one data set, finetuning on another: the transfer matrix of Xu et al., table 9.

    accelerate launch recipes/transfer_matrix.py
    accelerate launch recipes/transfer_matrix.py --sources none svhn --targets svhn --local svhn=data/svhn

Supervised finetuning on 40, 400 and 40 labels. Expected accuracy in percent (table 9; ImageNet weights, ResNet-18):

    pretrained on     CIFAR-10 #40   CIFAR-100 #400   SVHN #40
    nothing more             49.69            30.85      16.92
    CIFAR-10                 65.13            29.51      19.71
    CIFAR-100                49.46            34.63      20.06
    SVHN                     24.91            12.12      35.82

Cost: three times the BYOL of recipes/target_pretraining.py (48 to 72 h each on one V100, from table 5), 12 short runs.
A finished run is not run again: the matrix is printed from the run folders of the same flags, and each start and seed
has its own.
"""

from __future__ import annotations

import argparse

from data_sets import arguments, check, common, folder_of, launch, say

from hf_lowlabel import finetune, pretrain
from hf_lowlabel.records import RunRecord

LABELS = {"cifar10": 40, "cifar100": 400, "svhn": 40}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments(parser, [], "runs/transfer")
    parser.add_argument("--sources", nargs="+", default=["none", *LABELS], choices=["none", *LABELS], metavar="NAME")
    parser.add_argument("--targets", nargs="+", default=list(LABELS), choices=list(LABELS), metavar="NAME")
    parser.add_argument("--local", nargs="+", default=[], metavar="NAME=PATH", help="local copies of data sets")
    parser.add_argument("--model", default="resnet18", help="timm name, Hub id or folder with pretrained weights")
    parser.add_argument("--from-scratch", action="store_true", help="start from random weights")
    parser.add_argument("--image-size", type=int, default=224, help="side of a view in px")
    parser.add_argument("--pretrain-epochs", type=float, default=300, help="passes of BYOL over the images")
    parser.add_argument("--max-steps", type=int, default=20_000, help="steps of finetuning")
    args = parser.parse_args()
    local = {}
    for pair in args.local:
        name, _, path = pair.partition("=")
        if name not in LABELS or not path:
            parser.error(f"found --local {pair}; expected NAME=PATH, where NAME is one of {', '.join(LABELS)}")
        local[name] = path

    def settings(name: str) -> dict:
        where = dict(dataset=local[name], dataset_config=None) if name in local else {}
        return {**common(args, name), **where, "image_size": args.image_size}

    def tuned(name: str) -> dict:
        """Settings of finetuning on it, whatever it starts from."""
        labels = dict(num_labels=LABELS[name], class_balanced=True)
        return dict(settings(name), **labels, method="supervised", learning_rate=0.1, max_steps=args.max_steps)

    start = dict(model=args.model, from_scratch=args.from_scratch)
    root = folder_of(args, stages=("sources", "targets"))
    cells: dict[tuple[str, str], float] = {}
    for source in args.sources:
        weights, folder = start, root / f"byol-{source}"
        if source != "none":
            if not (folder / "metrics.json").is_file():
                for target in args.targets:
                    check(**start, **tuned(target))
                pretrain(
                    **settings(source),
                    **start,
                    method="byol",
                    preset="target",
                    epochs=args.pretrain_epochs,
                    output_dir=str(folder),
                )
            weights = start if args.dry_run else dict(model=str(folder))
        for target in args.targets:
            out = root / f"{source}-{target}"
            if (out / "metrics.json").is_file():
                cells[source, target] = RunRecord.from_json(out / "run.json").metrics["accuracy"]
                continue
            run = finetune(**tuned(target), **weights, output_dir=str(out))
            cells[source, target] = run.metrics["accuracy"]
    say(
        "| pretrained on | "
        + " | ".join(f"{t} #{LABELS[t]}" for t in args.targets)
        + " |\n|---|"
        + "---:|" * len(args.targets)
    )
    for source in args.sources:
        say(f"| {source} | " + " | ".join(f"{100 * cells[source, t]:.2f}" for t in args.targets) + " |")


if __name__ == "__main__":
    launch(main)
