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
The affine pretraining (section 3.1) warps feature maps back, of which half a 7 x 7 map is lost: --output-stride is 16.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from data_sets import XU_MASKS, mask_arguments, pretrained, run_settings, without_strong_views

from hf_lowlabel import finetune


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="VOCdevkit/VOC2012", help="folder with JPEGImages/")
    parser.add_argument(
        "--train-split", default="trainaug", help="list in ImageSets/Segmentation of all training images"
    )
    parser.add_argument("--labeled", help="published list of the labeled ids; else --num-labels")
    parser.add_argument("--num-labels", type=int, default=106, help="masks drawn by seed, where no list is given")
    parser.add_argument("--model", default="resnet50", help="timm name, Hub id or folder with pretrained weights")
    parser.add_argument("--from-scratch", action="store_true", help="start from random weights")
    parser.add_argument(
        "--architecture", default="deeplabv3plus-os16", help="or deeplabv2-two-rates, CutMix-Seg's other network"
    )
    parser.add_argument("--method", default="cutmix", help="supervised for the baseline, or any other of segmentation")
    parser.add_argument("--pretrain-method", default="pixpro-affine", help="pixpro leaves the affine warp out")
    parser.add_argument(
        "--pretrain-epochs", type=float, default=200, help="passes over the 10,582 images; 0 leaves it out"
    )
    parser.add_argument("--output-stride", type=int, default=16, help="px per cell of the pretrained map: 8, 16 or 32")
    parser.add_argument("--max-steps", type=int, default=40_000, help="CutMix steps")
    parser.add_argument("--batch-size", type=int, default=20, help="labeled images per step, and as many unlabeled")
    parser.add_argument("--image-size", type=int, default=321, help="side of a crop in px")
    mask_arguments(parser, "runs/pixpro-cutmix-voc")
    args = parser.parse_args()

    folder = Path(args.output_dir)
    shared = dict(run_settings(args), task="segmentation", dataset=args.dataset, dataset_split=args.train_split)
    start = dict(model=args.model, from_scratch=args.from_scratch)
    if args.pretrain_epochs:
        start = pretrained(
            start,
            **shared,
            method=args.pretrain_method,
            preset="target",
            epochs=args.pretrain_epochs,
            output_stride=args.output_stride,
            image_size=min(224, args.image_size),
            output_dir=str(folder / "pixpro"),
        )
    labels = dict(split=args.labeled) if args.labeled else dict(num_labels=args.num_labels)
    run = finetune(
        **shared,
        **start,
        **without_strong_views(args.method),
        **XU_MASKS,
        **labels,
        architecture=args.architecture,
        test_dataset_split="val",
        batch_size=args.batch_size,
        image_size=args.image_size,
        max_steps=args.max_steps,
        output_dir=str(folder / args.method),
    )
    print(f"{len(run.recorder.split.labeled)} masks: mean IoU {run.metrics['miou']:.2%}")


if __name__ == "__main__":
    main()
