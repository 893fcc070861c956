"""PASCAL VOC 2012 (augmented) with 1, 2 or 5 % of the masks: PixPro pretraining, then CutMix (Xu et al., 4.3.2).

    accelerate launch recipes/pixpro_cutmix_voc.py --dataset VOCdevkit/VOC2012 --labeled voc_aug_1pct.txt
    accelerate launch recipes/pixpro_cutmix_voc.py --dataset VOCdevkit/VOC2012 --num-labels 106 --seed 1
    ACCELERATE_USE_CPU=true torchrun --nproc-per-node=2 recipes/pixpro_cutmix_voc.py --dataset ... --dry-run

VOC2012/ holds JPEGImages/, SegmentationClassAug/ (the 10,582 masks of SBD and VOC together) and
ImageSets/Segmentation/trainaug.txt and val.txt. --labeled is a published list of ids, such as the first 106, 212 or 529
of CutMix-Seg's permutation; without it --num-labels are drawn by seed.

Expected (Xu et al., table 3; ResNet-50, mean IoU on val, mean and standard deviation over 5 runs, one V100):

    ImageNet PixPro -> PixPro -> CutMix    1 % 52.20 +- 1.57 (120 h)    2 % 61.25 +- 1.38    5 % 68.59 +- 1.17
    ImageNet PixPro -> CutMix              1 % 49.58 +- 1.62 (75 h)     2 % 61.63 +- 1.32    5 % 67.61 +- 1.20
    ImageNet PixPro -> supervised          1 % 38.20 +- 2.07            2 % 49.95 +- 1.56    5 % 60.35 +- 1.34

Their start is ImageNet weights of PixPro; timm's resnet50, the default here, is supervised: give others with --model.
What the paper leaves open (BatchNorm, colours, scale) is as in CutMix-Seg's scripts, the preset of `finetune`.
The affine pretraining (section 3.1) warps feature maps back, of which half a 7 x 7 map is lost: --output-stride is 16.
"""

from __future__ import annotations

import argparse

from data_sets import launch
from pixpro_cutmix import pixpro_arguments, run_both


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="VOCdevkit/VOC2012", help="folder with JPEGImages/")
    parser.add_argument(
        "--train-split", default="trainaug", help="list in ImageSets/Segmentation of all training images"
    )
    parser.add_argument(
        "--architecture", default="deeplabv3plus-os16", help="or deeplabv2-two-rates, CutMix-Seg's other network"
    )
    parser.add_argument("--image-size", type=int, default=321, help="side of a crop in px")
    pixpro_arguments(parser, "runs/pixpro-cutmix-voc", masks=106, batch=20)
    args = parser.parse_args()
    data = dict(dataset_split=args.train_split)
    run_both(args, "voc", data, image_size=args.image_size, architecture=args.architecture)


if __name__ == "__main__":
    launch(main)
