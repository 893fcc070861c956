"""ImageNet with 1 % or 10 % of the labels, images decoded as they are needed (streaming).

    accelerate launch recipes/imagenet.py --percent 1 --method sscl
    accelerate launch recipes/imagenet.py --percent 10 --method s4l-rotation
    accelerate launch recipes/imagenet.py --percent 1 --method fixmatch-eman --backbone runs/byol-eman     # SelfMatch
    accelerate launch recipes/imagenet.py --percent 1 --method fixmatch-eman --pretrain byol-eman
    accelerate launch recipes/imagenet.py --percent 10 --method supervised
    accelerate launch recipes/imagenet.py --percent 10 --label-with runs/imagenet/imagenet-resnet50-0/supervised-10

ResNet-50 at 224 px, each method's own preset (imagenet-1, imagenet-10 or imagenet). 13 images of every class are 1 %,
128 are 10 %. Methods of pretraining without a preset for ImageNet need --pretrain-epochs.
Expected top-1 / top-5 in percent:

    Zhang et al., SsCL, table 2       supervised 1 % 25.4 / 48.4, 10 % 56.4 / 80.4     pseudo-label -/51.6, -/82.4
                                      fixmatch 10 % 71.5 / 89.1    uda 10 % 68.8 / 88.5    vat -/47.0, -/83.4
                                      sscl (800 epochs) 1 % 60.2 / 82.8, 10 % 72.1 / 90.9
    Zhai et al., S4L, table 1         s4l-rotation 1 % -/53.37, 10 % -/83.82   s4l-exemplar -/47.02, -/83.72
    (ResNet-50 v2)                    vat-entmin -/46.96, -/83.39
    Wen et al., AS3L, table 4         byol -> flexmatch 1 % 57.3 / 80.1   byol-eman -> fixmatch-eman 1 % 59.6 / 81.6

Cost: SsCL trains on 32 V100s; fixmatch-eman here is 50 epochs from a pretrained backbone (Wen et al., section 5.2).
The last is Pseudo-Label. The data set asks for an agreement on the Hub; a local copy in the same columns and splits
does as well (--benchmark imagenet --dataset copy/).
"""

from __future__ import annotations

import argparse
from pathlib import Path

from data_sets import (
    arguments,
    check,
    common,
    folder_of,
    for_pretrain,
    held_out,
    launch,
    length,
    name_of,
    passes,
    pretrained,
    say,
    source_of,
)

from hf_lowlabel import finetune
from hf_lowlabel.data.splits.splits import Split
from hf_lowlabel.errors import UserError
from hf_lowlabel.files import sha256
from hf_lowlabel.methods import find
from hf_lowlabel.training.pseudo_labels import pseudo_labels

PER_CLASS = {"1": 13, "10": 128}  # of 1000 classes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments(parser, ["imagenet"], "runs/imagenet")
    parser.add_argument("--percent", default="1", choices=list(PER_CLASS), help="labels, in percent of the images")
    parser.add_argument("--num-labels", type=int, help="another number of labels, the same for every class")
    parser.add_argument("--method", default="sscl", help="method of finetuning, with its preset for ImageNet")
    parser.add_argument("--pretrain", default="none", help="self-supervised method before it, or none")
    parser.add_argument("--pretrain-epochs", type=passes, help="passes over the images (default: the preset's)")
    parser.add_argument("--backbone", help="weights that are pretrained already: a run folder, a timm name or a Hub id")
    parser.add_argument("--label-with", help="finished run whose classes of all images are learned (self-training)")
    parser.add_argument("--model", default="resnet50", help="architecture")
    parser.add_argument("--image-size", type=int, default=224, help="side of a view in px")
    parser.add_argument(
        "--epochs", type=float, help="passes over the unlabeled images (default: the preset's, else 50)"
    )
    parser.add_argument("--workers", type=int, default=8, help="processes that decode images")
    args = parser.parse_args()

    stages = ("percent", "num_labels", "method", "pretrain", "pretrain_epochs", "label_with", "epochs")
    shared = dict(common(args), image_size=args.image_size, workers=args.workers)
    network = dict(model=args.backbone) if args.backbone else dict(model=args.model, from_scratch=True)
    number = 1000 * PER_CLASS[args.percent] if args.num_labels is None else args.num_labels
    labels, method = dict(num_labels=number, class_balanced=True), args.method
    name = f"{method}-{args.percent if args.num_labels is None else f'{number}-labels'}"
    if args.label_with:  # the classes of all images take a pass over them, which is too long for a dry run
        labels, method = dict(split=str(Path(args.label_with, "split.json"))), "self-training"
        if args.dry_run:
            method = "supervised"
        else:
            name = f"self-training-of-{Path(args.label_with).name}-{weights_of(args.label_with)}"
    presets = find(method).presets
    preset = next((name for name in (f"imagenet-{args.percent}", "imagenet") if name in presets), None)
    tuned = dict(length(method, preset, "epochs", args.epochs, 50.0), **labels, method=method, preset=preset)
    before = before_it(args)
    first = args.pretrain if args.pretrain_epochs is None else f"{args.pretrain}-{args.pretrain_epochs:g}-epochs"
    folder = folder_of(args, name_of(args), stages=stages)
    if args.label_with and not args.dry_run:
        tuned["prior"] = str(folder / f"pseudo-labels-of{name.removeprefix('self-training-of')}.safetensors")
        check(**shared, **network, **tuned)
        pseudo_labels([args.label_with], source_of(shared), Split.load(labels["split"]), tuned["prior"])
    if before:
        shown = for_pretrain(shared) | held_out(args, folder)
        network = pretrained(network, {**shared, **tuned}, **shown, **before, output_dir=str(folder / first))
    run = finetune(
        **shared,
        **network,
        **tuned,
        output_dir=str(folder / (f"{first}-{name}" if before else name)),
    )
    known = f"{len(run.recorder.split.labeled)} labels"
    if args.num_labels is None and not args.label_with:
        known = f"{args.percent} % of the labels"
    say(f"{known}: top-1 {run.metrics['accuracy']:.2%}, top-5 {run.metrics['top5_accuracy']:.2%}")


def before_it(args: argparse.Namespace) -> dict:
    """Settings of the pretraining, {} for none. Raises UserError where nobody says how long it is."""
    if args.pretrain == "none":
        return {}
    preset = "imagenet" if "imagenet" in find(args.pretrain).presets else None
    lasts = length(args.pretrain, preset, "epochs", args.pretrain_epochs, 0)
    if not lasts.get("epochs", 1):
        raise UserError(f"{args.pretrain} has no preset for ImageNet that says how long it is. Give --pretrain-epochs.")
    return dict(lasts, method=args.pretrain, preset=preset)


def weights_of(run: str) -> str:
    """What tells the weights of a run folder from those of another of the same name."""
    file = Path(run, "model.safetensors")
    if not file.is_file():
        raise UserError(f"There is no model.safetensors in {run}. Give --label-with the folder of a finished run.")
    return sha256(file)[:8]


if __name__ == "__main__":
    launch(main)
