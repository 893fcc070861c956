"""The literature's small networks from random weights: CIFAR-10, CIFAR-100, SVHN and STL-10, any method.

    accelerate launch recipes/from_scratch.py --benchmark cifar10 --num-labels 40 --method flexmatch
    accelerate launch recipes/from_scratch.py --benchmark cifar100 --num-labels 200 --pretrain simsiam     # SelfMatch
    accelerate launch recipes/from_scratch.py --benchmark stl10 --num-labels 20 --pretrain simsiam

WRN-28-2 (CIFAR-100: WRN-28-8, STL-10: WRN-37-2). Each method has its preset `cifar`, mostly 64 labeled and 448
unlabeled images a step and 2^20 steps of SGD at 0.03 (`hf-lowlabel methods NAME` shows it: mixmatch and remixmatch have
AdamW at 0.002, sscl 200 epochs).
SelfMatch is self-supervised pretraining on the same images, then any method (Kim et al. 2021, arXiv 2101.06480).

Expected accuracy in percent, mean and deviation over 3 runs (Wen et al., table 2):

                         CIFAR-10: 10    40             CIFAR-100: 200  400            STL-10: 20      40
    fixmatch             60.01 +- 7.41   85.57 +- 5.21  35.83 +- 1.63   46.04 +- 1.41  43.24 +- 6.32   60.92 +- 5.60
    flexmatch            59.06 +- 19.80  94.86 +- 0.05  30.59 +- 1.69   46.11 +- 2.83  38.31 +- 16.69  54.90 +- 8.06
    comatch              65.10 +- 7.81   92.16 +- 4.97  32.51 +- 1.15   41.72 +- 2.04
    less                 64.40 +- 10.90  93.20 +- 2.10  42.50 +- 3.20   51.30 +- 2.40  48.98 +- 5.19   64.20 +- 5.10
    simsiam > flexmatch  57.03 +- 14.86  94.63 +- 0.34  28.63 +- 4.13   51.24 +- 1.02  44.78 +- 1.98   57.06 +- 5.99
    chosen by Sel        59.13 +- 15.43  94.79 +- 0.07  36.58 +- 3.31   53.05 +- 1.85  45.73 +- 4.11   63.14 +- 9.47

and the error on CIFAR-10 with 40, 250 and 4000 labels (Zhang et al., SsCL, table 1, 5 folds): sscl 10.29 +- 2.61, 5.12
+- 0.41, 4.51 +- 0.13; fixmatch 13.81 +- 3.37, 5.07 +- 0.65, 4.26 +- 0.05; remixmatch 19.10, 5.44, 4.72; uda 29.05,
8.82, 4.88; mixmatch 47.54, 11.05, 6.42; mean-teacher -, 32.21, 9.19. For SVHN with 40 labels these papers have
ResNet-18 at 224 px from random weights only: fixmatch 32.76 +- 2.45 (Xu et al., table 2). What is saved are the weights
that Sel picks; metrics.json has the median of the last 20 evaluations beside it. Cost (Wen et al., table 3): 99 h for
CIFAR-10, 354 h for CIFAR-100 on one RTX 3090.
"""

from __future__ import annotations

import argparse

from data_sets import SMALL, arguments, common, folder_of, held_out, launch, length, name_of, pretrained, say

from hf_lowlabel import finetune
from hf_lowlabel.methods import find

LABELS = {"cifar10": (40, 10, 250, 1000, 4000), "cifar100": (400, 200, 2500), "svhn": (40,), "stl10": (40, 20)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments(parser, list(LABELS), "runs/from-scratch")
    parser.add_argument(
        "--num-labels", type=int, help="labels, evenly over the classes (default: the first of the table above)"
    )
    parser.add_argument("--method", default="flexmatch", help="method of finetuning")
    parser.add_argument("--pretrain", default="none", help="self-supervised method before it, such as simsiam, or none")
    parser.add_argument("--pretrain-epochs", type=float, default=800, help="passes over the images")
    parser.add_argument("--max-steps", type=int, help="steps of finetuning (default: the preset's, else 2^20)")
    parser.add_argument("--model", help="another architecture")
    args = parser.parse_args()

    folder = folder_of(args, name_of(args), stages=("method", "num_labels", "pretrain", "max_steps"))
    number = LABELS[args.benchmark][0] if args.num_labels is None else args.num_labels
    shared = dict(common(args), **SMALL[args.benchmark])
    shared["model"] = args.model or shared["model"]
    presets = find(args.method).presets
    preset = "cifar" if "cifar" in presets else None
    of_paper = presets.get("cifar", {})
    lasts = length(args.method, preset, "max_steps", args.max_steps, 2**20)
    steps = {**of_paper, **lasts}.get("max_steps")  # a length in epochs leaves the evaluations to `finetune`
    rises = args.benchmark == "cifar100" and of_paper.get("weight_decay") == 5e-4
    tuned = dict(
        lasts,
        **(dict(weight_decay=1e-3) if rises else {}),  # Sohn et al., table 4
        method=args.method,
        preset=preset,
        num_labels=number,
        class_balanced=True,
        eval_steps=None if steps is None else max(1, steps // 1024),
    )
    network = dict(from_scratch=True)
    if args.pretrain != "none":
        preset = "cifar" if "cifar" in find(args.pretrain).presets else None
        network = pretrained(
            network,
            {**shared, **tuned},
            **shared,
            **held_out(args, folder),
            method=args.pretrain,
            preset=preset,
            epochs=args.pretrain_epochs,
            output_dir=str(folder / args.pretrain),
        )
    run = finetune(
        **{**shared, **network},
        **tuned,
        output_dir=str(folder / f"{'' if args.pretrain == 'none' else args.pretrain + '-'}{args.method}-{number}"),
    )
    say(f"{name_of(args)}, {number} labels: test accuracy {run.metrics['accuracy']:.2%} (weights chosen by Sel)")


if __name__ == "__main__":
    launch(main)
