"""What the processes of a launch send each other in one training step, counted from the networks, not measured.

    python recipes/benchmarks/communication.py
    python recipes/benchmarks/communication.py --gpus 64 --batch-size 4096 --models resnet50 --methods byol fixmatch

Counted are the float32 gradients of all trainable parameters (one all-reduce, overlapped with the backward pass), the
sums of synchronised BatchNorm (mean and variance of every channel forward, as many gradients backward, for each pass of
a branch; a teacher has no backward pass but is counted like the student), and the embeddings that contrastive methods
gather. A ring sends 2 (n - 1) / n times the size of what it
reduces from every GPU. Cost: seconds, on a CPU.
"""

from __future__ import annotations

import argparse

from torch import nn

from hf_lowlabel.methods import verb_of
from hf_lowlabel.models import create_backbone, create_classifier
from hf_lowlabel.objective import build_objective

GATHERED = {
    "simclr": 2 * 128,
    "moco": 128,
}  # numbers per image that every process gets from all others: both views, or keys
PASSES = {
    "byol": 2,
    "simsiam": 2,
}  # passes of each branch in a step; the others send both views at once or one per branch


def counted(method: str, model: str) -> tuple[int, int, int]:
    """(trainable parameters, BatchNorm channels summed over train-mode passes, BatchNorm layers) of a step."""
    if verb_of(method) == "pretrain":
        objective = build_objective(method, create_backbone(model, pretrained=False), {}, num_images=1000)
    else:
        network = create_classifier(model, num_labels=10, class_names=[str(k) for k in range(10)], pretrained=False)
        objective = build_objective(method, network, {"ema_decay": 0}, num_classes=10, num_images=1000, num_labeled=40)
    layers = [m.num_features for m in objective.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    passes = PASSES.get(method, 1)
    return sum(p.numel() for p in objective.parameters() if p.requires_grad), sum(layers) * passes, len(layers) * passes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpus", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=2048, help="images of a step over all GPUs")
    parser.add_argument("--models", nargs="+", default=["resnet18", "resnet50"])
    parser.add_argument("--methods", nargs="+", default=["byol", "simclr", "moco", "fixmatch"])
    args = parser.parse_args()
    ring = 2 * (args.gpus - 1) / args.gpus
    print(
        f"| {args.gpus} GPUs, {args.batch_size} images | gradients MB | BatchNorm MB (collectives) | gathered MB "
        "| sent per GPU and step MB |"
    )
    print("|---|---:|---:|---:|---:|")
    for model in args.models:
        for method in args.methods:
            parameters, channels, layers = counted(method, model)
            gradient, norm = 4 * parameters / 1e6, 4 * 4 * channels / 1e6
            gathered = 4 * GATHERED.get(method, 0) * args.batch_size / 1e6
            sent = ring * (gradient + norm) + gathered / args.gpus * (args.gpus - 1)
            print(f"| {method}, {model} | {gradient:.0f} | {norm:.2f} ({2 * layers}) | {gathered:.2f} | {sent:.0f} |")


if __name__ == "__main__":
    main()
