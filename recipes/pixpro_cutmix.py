"""What the recipes of VOC and Cityscapes share: PixPro target pretraining, then CutMix (Xu et al., section 4.3.2)."""

from __future__ import annotations

import argparse
from pathlib import Path

from data_sets import before_masks, folder_of, mask_arguments, run_settings, say, without_strong_views

from hf_lowlabel import finetune
from hf_lowlabel.methods import find

STAGES = ("method", "labeled", "num_labels", "max_steps", "batch_size", "architecture")


def pixpro_arguments(parser: argparse.ArgumentParser, output: str, *, masks: int, batch: int) -> None:
    """The flags of both; masks: how many by default."""
    parser.add_argument("--labeled", help="published list of the labeled images; else --num-labels")
    parser.add_argument("--num-labels", type=int, default=masks, help="masks drawn by seed, where no list is given")
    parser.add_argument("--method", default="cutmix", help="supervised for the baseline, or any other of segmentation")
    parser.add_argument("--pretrain-method", default="pixpro-affine", help="pixpro leaves the affine warp out")
    parser.add_argument("--output-stride", type=int, default=16, help="px per cell of the pretrained map: 8, 16 or 32")
    mask_arguments(parser, output, batch=batch, steps=40_000, epochs=200)


def run_both(args: argparse.Namespace, preset: str, data: dict, **sizes) -> None:
    """Pretraining and finetuning; every method is trained as CutMix is by its preset, whose views are `sizes` large."""
    folder = folder_of(args, *([args.pretrain_method] if args.pretrain_epochs else []), stages=STAGES)
    shared = dict(run_settings(args), task="segmentation", dataset=args.dataset, **data)
    small = dict(output_stride=args.output_stride, image_size=min(224, sizes["image_size"]))
    same, method = dict(find("cutmix").presets[preset]), without_strong_views(args.method)
    colors = same.pop("method_args")
    method["method_args"] |= colors if args.method == "cutmix" else {}
    labels = dict(split=args.labeled) if args.labeled else dict(num_labels=args.num_labels)
    lasts = dict(batch_size=args.batch_size, max_steps=args.max_steps)
    tuned = {**shared, **method, **labels, **same, **sizes, **lasts, "test_dataset_split": "val"}
    start = before_masks(args, folder, args.pretrain_method, tuned, **shared, **small)
    if start.get("from_scratch"):  # the BatchNorm of random weights knows nothing yet
        tuned["freeze_norm"] = False
    run = finetune(
        **tuned,
        **start,
        output_dir=str(folder / f"{args.method}-{Path(args.labeled).stem if args.labeled else args.num_labels}"),
    )
    say(f"{len(run.recorder.split.labeled)} masks: mean IoU {run.metrics['miou']:.2%}")
