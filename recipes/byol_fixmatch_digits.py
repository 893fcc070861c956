"""scikit-learn's digits, 40 or 10 labels: BYOL, prior pseudo-labels, FlexMatch; beside a baseline of the labels alone.

    accelerate launch recipes/byol_fixmatch_digits.py
    accelerate launch recipes/byol_fixmatch_digits.py --num-labels 10
    ACCELERATE_USE_CPU=true torchrun --nproc-per-node=2 recipes/byol_fixmatch_digits.py --output-dir runs/two-ranks

No FixMatch, in spite of its name: the chain is that of Wen et al. 2024 (AS3L) with labels at random. No paper has
numbers for digits; the baseline that it prints is what to beat. Cost: 2,700 steps of a small network,
minutes on a laptop.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from data_sets import arguments, folder_of, launch, run_settings, say

from hf_lowlabel import finetune, load_source, make_split, pretrain
from hf_lowlabel.demo_stages import DIGITS_FINETUNE, DIGITS_PRETRAIN, DIGITS_PRIORS, DIGITS_SHARED, FROM_PRIORS
from hf_lowlabel.distributed import barrier, rank
from hf_lowlabel.selection.prior_labels import priors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments(parser, [], "runs/digits")
    parser.add_argument("--num-labels", type=int, default=40, help="labels, evenly over the classes")
    args = parser.parse_args()
    folder, seed = folder_of(args, args.num_labels), args.seed
    split, prior, backbone = (str(folder / name) for name in ("split.json", "priors.safetensors", "pretrained"))
    common = dict(DIGITS_SHARED, **run_settings(args), from_scratch=True)
    if args.dry_run:  # FlexMatch would need the priors of a whole run
        finetune(**common, **DIGITS_FINETUNE, method="supervised", num_labels=args.num_labels, class_balanced=True)
        pretrain(**common, **DIGITS_PRETRAIN["byol"])
        return
    if rank() == 0:
        source = load_source("digits")
        make_split(source, args.num_labels, seed=seed, class_balanced=True, test_fraction=0.2).save(split)
        Path(prior).unlink(missing_ok=True)  # of a run that goes on: they are computed again
    barrier()
    common |= dict(split=split)
    baseline = str(folder / "supervised")
    alone = finetune(**common, **DIGITS_FINETUNE, method="supervised", output_dir=baseline)
    pretrain(**common, **DIGITS_PRETRAIN["byol"], output_dir=backbone)
    worth = priors(backbone, "digits", split=split, output=prior, seed=seed, **DIGITS_PRIORS)
    tuned = finetune(
        **{**common, "model": backbone, "from_scratch": False},
        **DIGITS_FINETUNE,
        **FROM_PRIORS,
        prior=prior,
        compare_supervised=baseline,
        output_dir=str(folder / "model"),
    )
    say(f"supervised: {alone.metrics['accuracy']:.2%}; {worth['accuracy']:.2%} of the prior pseudo-labels are right")
    say(f"BYOL, priors, FlexMatch: {tuned.metrics['accuracy']:.2%}")


if __name__ == "__main__":
    launch(main)
