"""scikit-learn's digits, 40 or 10 labels, minutes on a laptop: BYOL, prior pseudo-labels, FlexMatch; a baseline.

accelerate launch recipes/byol_fixmatch_digits.py
accelerate launch recipes/byol_fixmatch_digits.py --num-labels 10
ACCELERATE_USE_CPU=true torchrun --nproc-per-node=2 recipes/byol_fixmatch_digits.py --output-dir runs/two-ranks
"""

from __future__ import annotations

import argparse
from pathlib import Path

from hf_lowlabel import finetune, load_source, make_split, pretrain
from hf_lowlabel.demo_stages import DIGITS_FINETUNE, DIGITS_PRETRAIN, DIGITS_PRIORS, DIGITS_SHARED, FROM_PRIORS
from hf_lowlabel.distributed import barrier, rank
from hf_lowlabel.selection.prior_labels import priors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-labels", type=int, default=40, help="labels, evenly over the classes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output-dir", default="runs/digits")
    args = parser.parse_args()
    folder, seed = Path(args.output_dir), args.seed
    split, prior, backbone = (str(folder / name) for name in ("split.json", "priors.safetensors", "pretrained"))
    if rank() == 0:
        source = load_source("digits")
        make_split(source, args.num_labels, seed=seed, class_balanced=True, test_fraction=0.2).save(split)
    barrier()
    common = dict(DIGITS_SHARED, seed=seed, split=split)
    baseline = str(folder / "supervised")
    alone = finetune(**common, **DIGITS_FINETUNE, method="supervised", from_scratch=True, output_dir=baseline)
    pretrain(**common, **DIGITS_PRETRAIN["byol"], from_scratch=True, output_dir=backbone)
    worth = priors(backbone, "digits", split=split, output=prior, seed=seed, **DIGITS_PRIORS)
    tuned = finetune(
        **{**common, "model": backbone},
        **DIGITS_FINETUNE,
        **FROM_PRIORS,
        prior=prior,
        compare_supervised=baseline,
        output_dir=str(folder / "model"),
    )
    print(f"supervised: {alone.metrics['accuracy']:.2%}; {worth['accuracy']:.2%} of the prior pseudo-labels are right")
    print(f"BYOL, priors, FlexMatch: {tuned.metrics['accuracy']:.2%}")


if __name__ == "__main__":
    main()
