"""Methods of segmentation on a data set with few masks, small enough for one CPU core: one table from run folders.

    python recipes/benchmarks/masks_accuracy.py --dataset cvc_clinicdb/ --classes tissue polyp --model resnet18
    python recipes/benchmarks/masks_accuracy.py --dataset camvid/ --mask-ignore 11 --classes sky ... --starts pixpro
    python recipes/benchmarks/masks_accuracy.py --dataset cvc_clinicdb/ --table-only

A finished run folder is not run again, so it may be stopped at any time. All rows share the masks, the starting
weights, the network (a U-Net of four stages), the geometry of the crops, the steps and the rate; nothing is chosen by
the test images. The baseline sees weak and strong views, supervised-weak weak ones alone, as CutMix does. Cost: 2 to 7
minutes a run on one 2.5 GHz core, 20 runs for five seeds of four rows; PixPro takes 10 minutes a seed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from digits_methods import once

from hf_lowlabel import finetune, pretrain
from hf_lowlabel.files import write_text
from hf_lowlabel.hub.table import methods_table
from hf_lowlabel.records import collect_hardware

ROWS = {
    "supervised-weak": ("supervised", dict(strong=False, ema_decay=0.99)),
    "supervised": ("supervised", dict(ema_decay=0.99)),
    "cutmix": ("cutmix", {}),
    "classmix": ("classmix", {}),
    "fixmatch": ("fixmatch", dict(ema_decay=0.99)),
    "unimatch": ("unimatch", {}),
}
NETWORK = dict(
    architecture="unet", architecture_args=dict(encoder_depth=4, decoder_channels=[64, 48, 32, 16]), channels_last=True
)
PIXPRO = dict(
    method="pixpro", preset="target", batch_size=8, learning_rate=3.0, warmup_ratio=0.1, output_stride=16
)  # the paper's rate is for 200 epochs
TRAINED = dict(
    optimizer="adamw",
    learning_rate=3e-4,
    head_lr=1.0,
    weight_decay=1e-4,
    lr_scheduler_type="cosine",
    batch_size=8,
    unlabeled_ratio=1,
    scale=[0.5, 1.5],
    metric_for_best_model="last",
    eval_steps=10**6,
    save_steps=10**6,
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--dataset", required=True, help="folder, parquet or Hub id with images and masks, and test images of its own"
    )
    parser.add_argument("--classes", nargs="+", default=[], help="their names, in the order of the masks' values")
    parser.add_argument("--mask-ignore", type=int, nargs="+", default=[])
    parser.add_argument("--model", default="resnet18", help="timm name, Hub id or folder with pretrained weights")
    parser.add_argument(
        "--methods", nargs="+", default=["supervised-weak", "supervised", "cutmix", "unimatch"], choices=ROWS
    )
    parser.add_argument("--starts", nargs="+", default=["weights"], choices=["weights", "pixpro"])
    parser.add_argument("--labels", type=int, default=20, help="masks")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--max-steps", type=int, default=400)
    parser.add_argument("--pretrain-steps", type=int, default=600, help="of PixPro, 8 images each")
    parser.add_argument(
        "--long-side", type=int, default=96, help="px to which images are scaled, for training and evaluation"
    )
    parser.add_argument("--image-size", type=int, default=64, help="side of a crop in px")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--output", default="runs/masks-accuracy", help="folder of all run folders, and of table.md")
    parser.add_argument("--table-only", action="store_true", help="run nothing")
    args = parser.parse_args()
    if args.device == "cpu":
        torch.set_num_threads(1)
    root, data = (
        Path(args.output),
        dict(task="segmentation", dataset=args.dataset, classes=args.classes, mask_ignore=args.mask_ignore),
    )
    common = dict(data, device=args.device, image_size=args.image_size, logging_steps=100)
    for seed in [] if args.table_only else args.seeds:
        for start in args.starts:
            model = args.model
            if start == "pixpro":
                model = str(root / f"pixpro-{seed}")
                once(
                    pretrain,
                    Path(model),
                    **common,
                    **PIXPRO,
                    seed=seed,
                    model=args.model,
                    max_steps=args.pretrain_steps,
                    stored_size=args.long_side,
                )
            for row in args.methods:
                method, arguments = ROWS[row]
                once(
                    finetune,
                    root / start / f"{row}-{args.labels}-{seed}",
                    **common,
                    **NETWORK,
                    **TRAINED,
                    seed=seed,
                    model=model,
                    method=method,
                    method_args=arguments,
                    num_labels=args.labels,
                    max_steps=args.max_steps,
                    stored_size=args.long_side,
                )
    text = methods_table(sorted(p.parent for p in root.glob("*/*/metrics.json")))
    write_text(root / "table.md", text)
    print(text, collect_hardware())


if __name__ == "__main__":
    main()
