"""CIFAR-10 with 40 labels: ImageNet weights, BYOL on all images without labels, FixMatch (Xu et al., tables 1 and 5).

    accelerate launch recipes/byol_fixmatch_cifar10.py
    accelerate launch recipes/byol_fixmatch_cifar10.py --benchmark cifar10 --dataset copy-of-cifar10/ --seed 1

Expected test accuracy over 5 runs: 90.21 +- 0.88 % (FixMatch without BYOL 75.33 +- 1.07 %). Cost: 140 h on one V100.
It is target_pretraining.py with its defaults, and takes its flags.
"""

from data_sets import launch
from target_pretraining import main

if __name__ == "__main__":
    launch(main)
