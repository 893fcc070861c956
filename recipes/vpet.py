"""Self-training on the votes of several adapted foundation models (V-PET: Zhang et al. 2025, arXiv 2503.09707).

    accelerate launch recipes/vpet.py --benchmark cifar100 --num-labels 200
    accelerate launch recipes/vpet.py --dataset photos/ --num-labels 40 --backbones vit_small_patch14_dinov2.lvd142m

    1  every backbone is finetuned on the labels alone, once with each adapter
    2  each votes for a class of every training image; q = the mean of their one-hot votes
    3  the first backbone with the first adapter is finetuned anew on q (self-training), and is the result

The adapters are the paper's, LoRA and AdaptFormer. Its tables are of data sets of its own choice, so no number is
quoted; the runs of step 1 are the labels-only rows that it has to beat, and the recipe prints them. LoRA needs peft:
pip install 'hf_lowlabel[lora]'.
Cost: backbones x adapters short runs, one pass of each over all images, and one run over all images.
"""

from __future__ import annotations

import argparse

from data_sets import arguments, common, count, folder_of, launch, name_of, say, source_of

from hf_lowlabel import finetune
from hf_lowlabel.data.splits.splits import Split
from hf_lowlabel.training.pseudo_labels import pseudo_labels

BACKBONES = ["vit_base_patch14_dinov2.lvd142m", "vit_base_patch16_clip_224.openai"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments(parser, ["cifar100", "cifar10", "svhn"], "runs/vpet")
    parser.add_argument("--num-labels", type=int, default=200, help="labels, evenly over the classes")
    parser.add_argument(
        "--backbones", nargs="+", default=BACKBONES, metavar="NAME", help="timm names, Hub ids or folders"
    )
    parser.add_argument("--ranks", type=count, nargs="*", default=[16], metavar="R", help="of LoRA's adapters")
    parser.add_argument("--widths", type=count, nargs="*", default=[64], metavar="W", help="of AdaptFormer's branches")
    parser.add_argument("--image-size", type=int, default=224, help="side of a view in px")
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="learning rate (AdamW)")
    parser.add_argument(
        "--batch-size", type=int, default=32, help="labeled images in a step; 7 times as many unlabeled in step 3"
    )
    parser.add_argument("--max-steps", type=int, default=2000, help="steps of each run")
    args = parser.parse_args()
    adapters = {f"rank {r}": dict(lora_rank=r) for r in args.ranks}
    adapters |= {f"width {w}": dict(adapter_width=w) for w in args.widths}
    if not adapters:
        parser.error("found neither --ranks nor --widths; expected at least one adapter")

    folder = folder_of(args, name_of(args), args.num_labels)
    shared = dict(
        common(args),
        image_size=args.image_size,
        optimizer="adamw",
        learning_rate=args.learning_rate,
        weight_decay=1e-4,
        lr_scheduler_type="cosine",
        warmup_ratio=0.05,
        batch_size=args.batch_size,
        max_steps=args.max_steps,
    )
    labels = dict(num_labels=args.num_labels, class_balanced=True)
    voters = []
    for i, name in enumerate(args.backbones):
        for adapter, setting in adapters.items():
            place = str(folder / f"labels-only-{i}-{adapter.replace(' ', '-')}")
            run = finetune(**shared, **labels, **setting, model=name, method="supervised", output_dir=place)
            voters.append(run)
            say(f"labels only, {name} {adapter}: test accuracy {run.metrics['accuracy']:.2%}")
    if args.dry_run:
        return
    split, prior = voters[0].folder / "split.json", folder / "priors.safetensors"
    pseudo_labels([run.folder for run in voters], source_of(shared), Split.load(split), prior, votes=True)
    run = finetune(
        **shared,
        split=str(split),
        model=args.backbones[0],
        **next(iter(adapters.values())),
        method="self-training",
        prior=str(prior),
        output_dir=str(folder / "self-training"),
    )
    say(f"self-training on {len(voters)} votes: test accuracy {run.metrics['accuracy']:.2%}")


if __name__ == "__main__":
    launch(main)
