"""scikit-learn's digits, 40 or 10 labels, minutes on a laptop: BYOL, prior pseudo-labels, FlexMatch; a baseline.

accelerate launch recipes/byol_fixmatch_digits.py
accelerate launch recipes/byol_fixmatch_digits.py --num-labels 10
ACCELERATE_USE_CPU=true torchrun --nproc-per-node=2 recipes/byol_fixmatch_digits.py --output-dir runs/two-ranks
"""

from __future__ import annotations

import argparse

from hf_lowlabel.training.demo import demo


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-labels", type=int, default=40, help="labels, the same number per class")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output-dir", default="runs/digits")
    args = parser.parse_args()
    demo(args.output_dir, args.num_labels, args.seed, pretraining="byol")


if __name__ == "__main__":
    main()
