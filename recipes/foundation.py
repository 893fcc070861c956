"""From an encoder of the Hub to a model of one's own images: class names or labels, frozen features, then all images.

    python recipes/foundation.py --dataset photos/ --class-names cat dog
    python recipes/foundation.py --dataset photos/ --labels runs/foundation/frozen/to_label --output-dir runs/labeled
    python recipes/foundation.py --dataset photos/ --num-labels 40 --class-names cat dog
    python recipes/foundation.py --dataset photos/ --task segmentation --num-labels 20

classes  1  auto: every encoder's features once, a probe and labels that spread; without labels, what the names say
         2  the first encoder with AdaptFormer's branches, FixMatch on all images, from the priors of step 1
masks    1  the nearest pixels and a linear layer on the frozen maps (`--method knn`, `probe`), seconds
         2  the preset `foundation` on the masks alone, and with all images (UniMatch V2)
         3  the same with a frozen encoder

What to expect is printed first, with its source. No figure of it was measured with this library.
Cost: one pass of each encoder over all images, then short runs of ViT-S at the size that is asked for.
"""

from __future__ import annotations

import argparse
import shlex
import tempfile
from pathlib import Path

from data_sets import launch, say

from hf_lowlabel import auto, finetune
from hf_lowlabel.commands import free
from hf_lowlabel.distributed import barrier, join_processes, text_of_first

ENCODERS = ["facebook/dinov2-small"]
WORDS = "google/siglip2-base-patch16-224"
EXPECT = {
    "classification": (
        "What to expect: adapters on labels alone often end above semi-supervised training of the whole network, and "
        "votes of several encoders above one (Zhang et al. 2025, arXiv 2503.09707, tables of their own data sets). "
        "Judge by the cross-validation that step 1 reports, not by these."
    ),
    "segmentation": (
        "What to expect on VOC with 92 masks, mean IoU of DINOv2-S: masks alone 67.0, UniMatch V2 79.1, the same with "
        "a frozen encoder 82.0; DINOv2-B 76.9, 86.4, 84.8 (logs of UniMatch V2's authors at f6afb4d; their head is "
        "DPT, here it is linear, so expect less)."
    ),
}

FOREIGN = {  # flags that a task has no use for
    "classification": ["classes"],
    "segmentation": ["class_names", "text_model", "labels", "minutes"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", required=True, help="folder, parquet file or Hub id")
    parser.add_argument("--task", default="classification", choices=sorted(EXPECT))
    parser.add_argument("--encoders", nargs="+", default=ENCODERS, metavar="ID", help="masks take the first")
    parser.add_argument("--text-model", default=WORDS, metavar="ID", help="knows what class names mean")
    parser.add_argument(
        "--class-names", nargs="+", default=[], metavar="NAME", help="used instead of labels, and beside them"
    )
    parser.add_argument("--classes", nargs="+", default=[], metavar="NAME", help="what the values of masks mean")
    parser.add_argument("--labels", help="finished labels of classes: a folder of `hf-lowlabel label`, or a table")
    parser.add_argument("--num-labels", type=int, help="labels or masks to keep of those there are; None: all")
    parser.add_argument("--test-fraction", type=float, default=0.2, help="share of the labeled images to test on")
    parser.add_argument("--image-size", type=int, help="side of a view in px; None: the encoder's, or 518 for masks")
    parser.add_argument("--batch-size", type=int, help="labeled images a step; None: the preset's, 16")
    parser.add_argument("--max-steps", type=int, help="steps of each run; None: the preset's length")
    parser.add_argument("--minutes", type=float, default=20.0, help="for auto")
    parser.add_argument("--seed", type=int, default=0, help="decides labels, weights and views")
    parser.add_argument("--output-dir", default="runs/foundation")
    parser.add_argument("--dry-run", action="store_true", help="frozen features, then two steps of each run")
    args = parser.parse_args()
    for flag in FOREIGN[args.task]:
        if getattr(args, flag) != parser.get_default(flag):
            parser.error(f"found --{flag.replace('_', '-')}, which is not for --task {args.task}; leave it out")
    say(EXPECT[args.task])
    join_processes()
    with tempfile.TemporaryDirectory(prefix="hf-lowlabel-dry-") as aside:
        folder = Path(text_of_first(aside) if args.dry_run else args.output_dir)
        for name, score in (masks if args.task == "segmentation" else classes)(args, folder).items():
            say(f"{name}: {'no test image' if score is None else f'{score:.1%}'}")
        barrier()  # the folder of the first process is that of all


def shared(args: argparse.Namespace) -> dict:
    return dict(dataset=args.dataset, task=args.task, image_size=args.image_size, seed=args.seed)


def training(args: argparse.Namespace) -> dict:
    return dict(preset="foundation", batch_size=args.batch_size, max_steps=args.max_steps, dry_run=args.dry_run)


def classes(args: argparse.Namespace, folder: Path) -> dict[str, float | None]:
    """Name of a stage -> accuracy on the test images."""
    words = dict(text_model=args.text_model, class_names=args.class_names) if args.class_names else {}
    best = auto(
        **shared(args) | dict(model=args.encoders),
        **words,
        labels=args.labels,
        num_labels=args.num_labels,
        test_fraction=args.test_fraction,
        minutes=args.minutes,
        train=False,
        output_dir=folder / "frozen",
    )
    for line in best.advice.sentences:
        say(line)
    scores = {f"auto, {best.folder}": best.run.metrics.get("accuracy")}
    if not best.ladder:  # names alone: there is no label to train on
        if best.to_label and not args.dry_run:
            place = shlex.quote(str(best.to_label))
            again = f"--labels {place} --output-dir {shlex.quote(str(free(folder)))}"
            say(f"Label images (`hf-lowlabel label {place}`), then give the same command {again}.")
        return scores
    run = finetune(
        **shared(args),
        **training(args),
        split=str(best.folder / "split.json"),
        model=args.encoders[0],
        method="fixmatch",
        prior=str(best.folder / "priors.safetensors"),
        output_dir=str(folder / "fixmatch"),
    )
    return scores | {f"FixMatch with branches, {run.folder}": run.metrics.get("accuracy")}


def masks(args: argparse.Namespace, folder: Path) -> dict[str, float | None]:
    """Name of a stage -> mean IoU on the test images."""
    given = shared(args) | dict(model=args.encoders[0], classes=args.classes)
    drawn = dict(num_labels=args.num_labels, test_fraction=args.test_fraction)
    probe = finetune(**given, **drawn, method="probe", output_dir=str(folder / "probe"))
    scores = {f"linear probe, {probe.folder}": probe.metrics.get("miou")}
    given |= dict(split=str(probe.folder / "split.json"))
    nearest = finetune(**given, method="knn", output_dir=str(folder / "knn"))
    scores[f"nearest pixels, {nearest.folder}"] = nearest.metrics.get("miou")
    given |= training(args)
    for name, settings in {
        "masks alone": dict(method="supervised"),
        "UniMatch V2": dict(method="unimatch-v2"),
        "UniMatch V2, encoder frozen": dict(method="unimatch-v2", freeze_encoder=True),
    }.items():
        place = folder / name.lower().replace(",", "").replace(" ", "-")
        run = finetune(**given, **settings, output_dir=str(place))
        scores[f"{name}, {run.folder}"] = run.metrics.get("miou")
    return scores


if __name__ == "__main__":
    launch(main)
