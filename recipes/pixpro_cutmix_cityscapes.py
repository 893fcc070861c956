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
What the paper leaves open (BatchNorm, colours, scale) is as in CutMix-Seg's scripts, the preset of `finetune`.
"""

from __future__ import annotations

import argparse

from data_sets import launch
from pixpro_cutmix import pixpro_arguments, run_both


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="cityscapes", help="folder with leftImg8bit/ and gtFine/")
    parser.add_argument(
        "--long-side", type=int, default=1024, help="px to which images are scaled; crops are half of it wide"
    )
    pixpro_arguments(parser, "runs/pixpro-cutmix-cityscapes", masks=100, batch=8)
    args = parser.parse_args()
    crop = args.long_side // 2
    run_both(args, "cityscapes", {}, stored_size=args.long_side, image_size=crop, image_height=crop // 2)


if __name__ == "__main__":
    launch(main)
