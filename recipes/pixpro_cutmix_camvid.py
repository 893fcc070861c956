"""CamVid (367 / 101 / 233 images, 11 classes) with 20 masks: four rows of Xu et al., table 3, on few images.

    accelerate launch recipes/pixpro_cutmix_camvid.py --dataset camvid/ --rows cutmix+ cutmix supervised+ supervised
    accelerate launch recipes/pixpro_cutmix_camvid.py --dataset camvid/ --num-labels 20 --seed 1
    accelerate launch recipes/pixpro_cutmix_camvid.py --dataset camvid/ --dry-run

camvid/ holds parquet files with an image and a mask column, or images/ and masks/ per split. A row with + starts from
target pretraining. No paper reports CamVid at 20 masks: the settings are the defaults of each method, with one learning
rate for all, and there is no number to compare with but the other rows. Cost: a row is 4,000 steps of 8 + 8
crops of 320 px.
"""

from __future__ import annotations

import argparse

from data_sets import before_masks, folder_of, launch, mask_arguments, run_settings, say, without_strong_views

from hf_lowlabel import finetune

CLASSES = [
    "sky",
    "building",
    "pole",
    "road",
    "pavement",
    "tree",
    "sign",
    "fence",
    "car",
    "pedestrian",
    "cyclist",
]  # 11 is void
ROWS = ("cutmix+", "cutmix", "supervised+", "supervised")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="camvid", help="folder, parquet or Hub id")
    parser.add_argument("--rows", nargs="+", default=["cutmix+"], choices=ROWS, help="+: after target pretraining")
    parser.add_argument("--num-labels", type=int, default=20, help="masks")
    parser.add_argument("--architecture", default="deeplabv3plus-os16")
    parser.add_argument("--output-stride", type=int, default=16, help="px per cell of the pretrained map: 8, 16 or 32")
    parser.add_argument("--image-size", type=int, default=320, help="side of a crop in px")
    parser.add_argument("--learning-rate", type=float, default=1e-4, help="of Adam")
    mask_arguments(parser, "runs/pixpro-cutmix-camvid", batch=8, steps=4000, epochs=200)
    args = parser.parse_args()
    if not args.pretrain_epochs and any(row.endswith("+") for row in args.rows):
        parser.error("found --pretrain-epochs 0 and a row with +; expected rows without it, or epochs")

    stages = ("rows", "num_labels", "max_steps", "batch_size", "learning_rate", "architecture")
    folder = folder_of(args, stages=stages)
    shared = dict(run_settings(args), task="segmentation", dataset=args.dataset, classes=CLASSES, mask_ignore=[11])
    tuned = dict(
        shared,
        num_labels=args.num_labels,
        architecture=args.architecture,
        learning_rate=args.learning_rate,
        batch_size=args.batch_size,
        image_size=args.image_size,
        max_steps=args.max_steps,
    )
    start = after = dict(model=args.model, from_scratch=args.from_scratch)
    if any(row.endswith("+") for row in args.rows):
        small = dict(output_stride=args.output_stride, image_size=min(224, args.image_size))
        after = before_masks(args, folder, "pixpro-affine", tuned, **shared, **small)
    for row in args.rows:
        run = finetune(
            **tuned,
            **(after if row.endswith("+") else start),
            **without_strong_views(row.rstrip("+")),
            output_dir=str(folder / f"{row}-{args.num_labels}"),
        )
        say(
            f"{row:12} {args.num_labels} masks: mean IoU {run.metrics['miou']:.2%}, "
            f"pixel accuracy {run.metrics['pixel_accuracy']:.2%}"
        )


if __name__ == "__main__":
    launch(main)
