"""CIFAR-10 with 40 labels: BYOL target pretraining, then FixMatch (Xu et al., section 4.3.1; Sohn et al. 2020).

    accelerate launch recipes/byol_fixmatch_cifar10.py --output-dir runs/cifar10-40
    accelerate launch recipes/byol_fixmatch_cifar10.py --dataset path/to/cifar10 --num-labels 250 --seed 1
    ACCELERATE_USE_CPU=true torchrun --nproc-per-node=2 recipes/byol_fixmatch_cifar10.py --dry-run    # two CPU processes

Expected (Xu et al., tables 1 and 5; ResNet-18 at 224 px, mean and standard deviation over 5 runs, one V100):

    ImageNet -> BYOL -> FixMatch     40 labels 90.21 +- 0.88 (140 h)    250: 95.10 +- 0.85    1000: 95.51 +- 0.84
    ImageNet -> FixMatch             40 labels 75.33 +- 1.07 (90 h)     250: 94.46 +- 0.86    1000: 95.92 +- 0.81
    random -> BYOL -> FixMatch       40 labels 75.60 +- 1.11            250: 91.75 +- 0.85    1000: 94.37 +- 0.91

Far cheaper, and common in the literature: --model wrn_28_2 --from-scratch --image-size 32 --lr 0.03.
"""
from __future__ import annotations

import argparse
from pathlib import Path

from hf_lowlabel import finetune, pretrain


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="uoft-cs/cifar10", help="Hub id or a local copy")
    parser.add_argument("--dataset-revision", help="revision of the Hub data set")
    parser.add_argument("--num-labels", type=int, default=40, help="labels, the same number per class")
    parser.add_argument("--model", default="resnet18", help="timm name, Hub id or folder with pretrained weights")
    parser.add_argument("--from-scratch", action="store_true", help="start from random weights")
    parser.add_argument("--image-size", type=int, default=224, help="side of a view in px")
    parser.add_argument("--lr", type=float, default=0.1, help="learning rate of FixMatch; 0.03 from random weights")
    parser.add_argument("--pretrain-epochs", type=float, default=300, help="passes of BYOL over the 50,000 images; 0 leaves it out")
    parser.add_argument("--max-steps", type=int, default=2**20, help="FixMatch steps")
    parser.add_argument("--batch-size", type=int, default=64, help="labeled images per step; 7 times as many unlabeled")
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output-dir", default="runs/byol-fixmatch-cifar10")
    parser.add_argument("--resume", action="store_true", help="go on where an earlier launch stopped")
    parser.add_argument("--dry-run", action="store_true", help="two steps of each stage; nothing is kept")
    args = parser.parse_args()

    folder = Path(args.output_dir)
    common = dict(dataset=args.dataset, dataset_revision=args.dataset_revision, image_size=args.image_size, precision=args.precision,
                  seed=args.seed, resume=args.resume, dry_run=args.dry_run)
    start = dict(model=args.model, from_scratch=args.from_scratch)
    if args.pretrain_epochs:
        backbone = pretrain(**common, **start, method="byol", preset="target", epochs=args.pretrain_epochs,
                            output_dir=str(folder / "byol"))
        if not args.dry_run:
            start = dict(model=str(backbone.folder))
    run = finetune(**common, **start, method="fixmatch", preset="pretrained", lr=args.lr, num_labels=args.num_labels, class_balanced=True,
                   max_steps=args.max_steps, batch_size=args.batch_size, output_dir=str(folder / "fixmatch"))
    print(f"test accuracy with {args.num_labels} labels: {run.metrics['accuracy']:.2%}")


if __name__ == "__main__":
    main()
