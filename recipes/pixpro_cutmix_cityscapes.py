"""Cityscapes with 100 or 372 masks: PixPro target pretraining, then CutMix (Xu et al., section 4.3.2).

    accelerate launch recipes/pixpro_cutmix_cityscapes.py --dataset cityscapes/ --labeled cityscapes_100_seed0.txt
    accelerate launch recipes/pixpro_cutmix_cityscapes.py --dataset cityscapes/ --num-labels 372 --seed 1
    accelerate launch recipes/pixpro_cutmix_cityscapes.py --dataset cityscapes/ --dry-run

cityscapes/ holds leftImg8bit/{train,val}/CITY/*.png and gtFine/{train,val}/CITY/*_gtFine_labelIds.png. Images are
scaled to 1024 x 512 px for training and evaluation; crops are 512 x 256 px. Published lists of "372" differ: name
yours.

Expected (Xu et al., table 3; ResNet-50, mean IoU on val, mean and standard deviation over 5 runs, one V100):

    ImageNet PixPro -> PixPro -> CutMix    100 masks 59.20 +- 1.37 (148 h)    372: 68.02 +- 1.15
    ImageNet PixPro -> CutMix              100 masks 58.30 +- 1.35 (95 h)     372: 68.21 +- 1.24
    ImageNet PixPro -> supervised          100 masks 52.99 +- 1.52            372: 63.05 +- 1.27

Their start is ImageNet weights of PixPro; timm's resnet50, the default here, is supervised: give others with --model.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from data_sets import XU_MASKS, mask_arguments, pretrained, run_settings, without_strong_views

from hf_lowlabel import finetune


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="cityscapes", help="folder with leftImg8bit/ and gtFine/")
    parser.add_argument("--labeled", help="published list of the labeled images; else --num-labels")
    parser.add_argument("--num-labels", type=int, default=100, help="masks drawn by seed, where no list is given")
    parser.add_argument("--model", default="resnet50", help="timm name, Hub id or folder with pretrained weights")
    parser.add_argument("--from-scratch", action="store_true", help="start from random weights")
    parser.add_argument("--method", default="cutmix", help="supervised for the baseline, or any other of segmentation")
    parser.add_argument("--pretrain-method", default="pixpro-affine", help="pixpro leaves the affine warp out")
    parser.add_argument(
        "--pretrain-epochs", type=float, default=200, help="passes over the 2,975 images; 0 leaves it out"
    )
    parser.add_argument("--output-stride", type=int, default=16, help="px per cell of the pretrained map: 8, 16 or 32")
    parser.add_argument("--max-steps", type=int, default=40_000, help="CutMix steps")
    parser.add_argument("--batch-size", type=int, default=8, help="labeled images per step, and as many unlabeled")
    parser.add_argument(
        "--long-side", type=int, default=1024, help="px to which images are scaled; crops are half of it wide"
    )
    mask_arguments(parser, "runs/pixpro-cutmix-cityscapes")
    args = parser.parse_args()

    folder, crop = Path(args.output_dir), args.long_side // 2
    shared = dict(run_settings(args), task="segmentation", dataset=args.dataset)
    start = dict(model=args.model, from_scratch=args.from_scratch)
    if args.pretrain_epochs:
        start = pretrained(
            start,
            **shared,
            method=args.pretrain_method,
            preset="target",
            epochs=args.pretrain_epochs,
            output_stride=args.output_stride,
            image_size=min(224, crop),
            output_dir=str(folder / "pixpro"),
        )
    labels = dict(split=args.labeled) if args.labeled else dict(num_labels=args.num_labels)
    run = finetune(
        **shared,
        **start,
        **without_strong_views(args.method),
        **XU_MASKS,
        **labels,
        test_dataset_split="val",
        batch_size=args.batch_size,
        stored_size=args.long_side,
        image_size=crop,
        image_height=crop // 2,
        max_steps=args.max_steps,
        output_dir=str(folder / args.method),
    )
    print(f"{len(run.recorder.split.labeled)} masks: mean IoU {run.metrics['miou']:.2%}")


if __name__ == "__main__":
    main()
