"""CIFAR-10 with 10 or 40 labels, chosen by AS3L (Wen et al. 2024): SimSiam, selection, priors, FlexMatch.

    accelerate launch recipes/as3l_cifar10.py --num-labels 10
    accelerate launch recipes/as3l_cifar10.py --num-labels 40 --strategy random --no-priors    # the baseline of table 5

Expected of WRN-28-2 after 2^20 steps with the weights that Sel picks (table 2, 3 runs; random labels in brackets):

    10 labels  83.80 +- 10.57 (59.13 +- 15.43)      40 labels  94.32 +- 0.09 (94.79 +- 0.07)

and of the priors (tables 6 and 8): 71.41 +- 4.10 right at 10 labels, which cover 9.5 classes, 74.91 +- 1.66 at 40.
Cost: 99 h on one RTX 3090 (table 3); a quarter of the steps reaches 82.17 +- 11.09 at 10 labels.
The true labels stand in for the person; with images of your own, run `hf-lowlabel label` after `hf-lowlabel select`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from data_sets import arguments, check, folder_of, launch, run_settings, say

from hf_lowlabel import finetune, load_source, pretrain
from hf_lowlabel.demo_active import answer
from hf_lowlabel.distributed import barrier, rank
from hf_lowlabel.errors import UserError
from hf_lowlabel.labeling.importing import import_labels
from hf_lowlabel.labeling.to_label import is_complete
from hf_lowlabel.selection.prior_labels import priors
from hf_lowlabel.selection.strategies import STRATEGIES
from hf_lowlabel.selection.verbs import select


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments(parser, [], "runs/as3l-cifar10")
    parser.add_argument("--dataset", default="uoft-cs/cifar10", help="Hub id or a local copy")
    parser.add_argument("--num-labels", type=int, default=10)
    parser.add_argument(
        "--strategy", default="as3l", choices=[s for s in STRATEGIES if s != "class-balanced"], help="which images"
    )
    parser.add_argument(
        "--priors", action=argparse.BooleanOptionalAction, default=True, help="guide the start by prior pseudo-labels"
    )
    parser.add_argument("--backbone", help="a pretrained run folder, instead of SimSiam here")
    parser.add_argument("--pretrain-epochs", type=float, default=800, help="passes of SimSiam over the images")
    parser.add_argument("--max-steps", type=int, default=2**20, help="FlexMatch steps")
    parser.add_argument(
        "--prior-until", type=float, default=60 / 1024, help="share of the steps that priors guide (section 5.1.2)"
    )
    args = parser.parse_args()

    shared = dict(run_settings(args), dataset=args.dataset)
    flexmatch = dict(method="flexmatch", preset="cifar", max_steps=args.max_steps)
    refuse(args, dict(shared, **flexmatch))
    folder = folder_of(args, args.strategy, args.num_labels, *([] if args.priors else ["no-priors"]))
    backbone = args.backbone or simsiam(args, shared, folder / "simsiam")
    if args.dry_run:
        if args.backbone:  # labels at random take as long as chosen ones
            finetune(**shared, **flexmatch, model=backbone, num_labels=args.num_labels)
        return
    split = str(label_chosen(args, backbone, folder))
    run = finetune(
        **shared,
        **flexmatch,
        **(guide(args, backbone, split, folder) if args.priors else {}),
        model=backbone,
        split=split,
        eval_steps=max(1, args.max_steps // 1024),
        output_dir=str(folder / "flexmatch"),
    )
    say(f"test accuracy with {args.num_labels} labels: {run.metrics['accuracy']:.2%} (weights chosen by Sel)")


def refuse(args: argparse.Namespace, settings: dict) -> None:
    """UserError for flags and data that would end the recipe after SimSiam; settings: of FlexMatch."""
    guided = dict(prior_until=args.prior_until) if args.priors else {}
    chosen = check(**settings, **guided, model=args.backbone or "wrn_28_2")
    if chosen.published is None:
        raise UserError(f"{args.dataset} has no test split, which this recipe reports on. Give --dataset one that has.")
    least, most = len(chosen.split.class_names), len(chosen.split.labeled)
    if not least <= args.num_labels <= most:
        raise UserError(f"Found --num-labels {args.num_labels}. Give {least}, one for each class, to {most}.")


def simsiam(args: argparse.Namespace, shared: dict, folder: Path) -> str:
    """A run folder of SimSiam on all images."""
    network = dict(model="wrn_28_2", from_scratch=True, image_size=32)
    how = dict(method="simsiam", preset="cifar", epochs=args.pretrain_epochs, output_dir=str(folder))
    return str(pretrain(**shared, **network, **how).folder)


def label_chosen(args: argparse.Namespace, backbone: str, folder: Path) -> Path:
    """The manifest of labels of the images that the strategy chooses, or has chosen in the run that goes on."""
    if args.resume and (folder / "split.json").is_file():
        return folder / "split.json"
    to_label, how = folder / "to_label", dict(budget=args.num_labels, strategy=args.strategy, seed=args.seed)
    if not (args.resume and is_complete(to_label)):
        select(backbone, args.dataset, output=str(to_label), **how)
    if rank() == 0:
        source = load_source(args.dataset)
        answer(to_label, source)
        import_labels(to_label, source=source)[0].save(folder / "split.json")
    barrier()
    return folder / "split.json"


def guide(args: argparse.Namespace, backbone: str, split: str, folder: Path) -> dict:
    """Prior pseudo-labels, as settings of finetuning."""
    prior, features = str(folder / "priors.safetensors"), str(folder / "to_label" / "features.safetensors")
    if rank() == 0:
        Path(prior).unlink(missing_ok=True)  # of a run that goes on: they are computed again
    barrier()
    worth = priors(backbone, args.dataset, split=split, output=prior, seed=args.seed, features=features)
    say("priors: " + ", ".join(f"{k} {v:.4g}" for k, v in worth.items()))
    return dict(prior=prior, prior_until=args.prior_until)


if __name__ == "__main__":
    launch(main)
