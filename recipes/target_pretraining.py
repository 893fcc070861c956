"""Target pretraining, then semi-supervised finetuning, on CIFAR-10, CIFAR-100 and SVHN (Xu et al., section 4.3.1).

    accelerate launch recipes/target_pretraining.py --benchmark cifar10 --num-labels 40
    accelerate launch recipes/target_pretraining.py --benchmark cifar100 --num-labels 400 --method self-tuning
    accelerate launch recipes/target_pretraining.py --pretrain moco --method uda         # table 8
    accelerate launch recipes/target_pretraining.py --pretrain none                      # the baseline of each pair
    ACCELERATE_USE_CPU=true torchrun --nproc-per-node=2 recipes/target_pretraining.py --dry-run

Expected accuracy in percent (tables 1 and 2; ImageNet weights, ResNet-18 at 224 px, mean and deviation over 5 runs):

                           CIFAR-10: 40   250    1000   CIFAR-100: 400 2500           SVHN: 40
    BYOL -> FixMatch       90.21 +- 0.88  95.10  95.51  46.23 +- 1.66  72.19 +- 1.10  92.97 +- 0.90
    FixMatch               75.33 +- 1.07  94.46  95.92  44.34 +- 1.79  71.81 +- 1.08  79.89 +- 1.01
    BYOL -> Self-Tuning    62.62 +- 1.27  84.87  90.98  38.36 +- 2.12  67.31 +- 1.21  46.95 +- 1.72
    BYOL -> supervised     65.32 +- 1.19  82.19  87.86  34.63 +- 2.30  58.65 +- 1.36  35.82 +- 2.23

and with 40 labels of CIFAR-10 (table 8): MoCo v2 -> FixMatch 90.37, MoCo v2 -> UDA 87.04, BYOL -> UDA 78.43, BYOL ->
Mean Teacher 61.55. Random weights (--from-scratch): BYOL -> FixMatch 75.60 +- 1.11, FixMatch 60.83 +- 1.36.
Cost on one V100 (table 5): 140 h CIFAR-10 #40, 138 h CIFAR-100 #400, 201 h SVHN #40; 90, 88 and 129 h without BYOL.
Far cheaper, and common in the literature: recipes/from_scratch.py.
"""

from __future__ import annotations

import argparse

from data_sets import arguments, common, folder_of, held_out, launch, length, name_of, pretrained, say

from hf_lowlabel import finetune
from hf_lowlabel.methods import find

LABELS = {"cifar10": (40, 10, 250, 1000, 4000), "cifar100": (400, 200, 2500), "svhn": (40,)}  # the first is the default


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments(parser, list(LABELS), "runs/target-pretraining")
    parser.add_argument("--num-labels", type=int, help="labels, evenly over the classes (default: 40 or 400)")
    parser.add_argument("--model", default="resnet18", help="timm name, Hub id or folder with pretrained weights")
    parser.add_argument("--from-scratch", action="store_true", help="start from random weights")
    parser.add_argument("--image-size", type=int, default=224, help="side of a view in px")
    parser.add_argument("--pretrain", default="byol", help="method of target pretraining, or none")
    parser.add_argument("--pretrain-epochs", type=float, default=300, help="passes over the images")
    parser.add_argument("--method", default="fixmatch", help="method of finetuning")
    parser.add_argument(
        "--learning-rate", type=float, help="learning rate of finetuning (default: the method's for pretrained weights)"
    )
    parser.add_argument("--max-steps", type=int, help="steps of finetuning (default: the preset's, else 2^20)")
    args = parser.parse_args()

    stages = ("method", "num_labels", "pretrain", "learning_rate", "max_steps")
    folder = folder_of(args, name_of(args), stages=stages)
    number = LABELS[args.benchmark][0] if args.num_labels is None else args.num_labels
    shared = dict(common(args), image_size=args.image_size)
    preset = "pretrained" if "pretrained" in find(args.method).presets else None
    rate = args.learning_rate if preset or args.learning_rate is not None else 0.1  # section 4.2
    tuned = dict(
        length(args.method, preset, "max_steps", args.max_steps, 2**20),
        method=args.method,
        preset=preset,
        learning_rate=rate,
        num_labels=number,
        class_balanced=True,
    )
    network = dict(model=args.model, from_scratch=args.from_scratch)
    if args.pretrain != "none":
        network = pretrained(
            network,
            {**shared, **tuned},
            **shared,
            **held_out(args, folder),
            method=args.pretrain,
            preset="target",
            epochs=args.pretrain_epochs,
            output_dir=str(folder / args.pretrain),
        )
    run = finetune(
        **shared,
        **network,
        **tuned,
        output_dir=str(folder / f"{'' if args.pretrain == 'none' else args.pretrain + '-'}{args.method}-{number}"),
    )
    say(f"{name_of(args)}, {number} labels: test accuracy {run.metrics['accuracy']:.2%}")


if __name__ == "__main__":
    launch(main)
