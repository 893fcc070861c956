"""What each finetuning algorithm costs beside its network: ms per step above FixMatch at equal passes, and its tables.

    python recipes/benchmarks/method_overhead.py [--pool 1000000] [--device cuda] [--methods flexmatch simmatch]

The network is one matrix product, so that nearly all that is measured is the algorithm: pseudo-labels, masks, memories,
losses and their gradients. "above FixMatch" subtracts FixMatch's step on as many images as the method's own; VAT's
adversarial passes, teachers and rotations are further images and count as such. "table" is the change from a pool of
1,000 to --pool images at the same batch: what looking up and writing rows of a table by image costs. Batch 64 + 7 x 64,
10 classes, 128 features. Costs a few minutes on one core; prints a markdown table; CPU times are those of the thread.
Expected on one CPU core: table below 0.5 ms at a pool of 1,000,000 for every method.
"""

from __future__ import annotations

import argparse
import statistics
import time
from types import SimpleNamespace

import torch
from torch import nn

from hf_lowlabel.methods import find, methods_for
from hf_lowlabel.objective import build_objective

FEATURES, CLASSES, LABELED, BATCH, RATIO, SIDE = 128, 10, 400, 64, 7, 8


class Linear(nn.Module):
    """The cheapest network with the interface of a classifier; counts the images it is shown."""

    num_features = FEATURES

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(3 * SIDE * SIDE, FEATURES), nn.Linear(FEATURES, CLASSES)
        self.seen = 0

    def features(self, x):
        self.seen += len(x)
        return self.body(x.flatten(1))

    def classify(self, f):
        return self.head(f)

    def forward(self, x):
        return SimpleNamespace(logits=self.classify(self.features(x)))

    def body_parameters(self):
        return self.body.parameters()


def build(name: str, pool: int, device: str) -> nn.Module:
    facts = dict(num_classes=CLASSES, num_images=pool, num_labeled=LABELED)
    return build_objective(name, Linear(), {}, **facts, priors=torch.full((pool, CLASSES), 1 / CLASSES)).to(device)


def batch(objective: nn.Module, pool: int, device: str, labeled: int, unlabeled: int) -> dict:
    image = lambda n: torch.randn(n, 3, SIDE, SIDE, device=device)  # noqa: E731
    part = lambda kinds, n, size: {  # noqa: E731
        "index": torch.randint(size, (n,), device=device),
        **{k: image(n) for k in kinds},
    }
    target = torch.randint(CLASSES, (labeled,), device=device)
    return {
        "labeled": {**part(objective.labeled_views, labeled, LABELED), "target": target},
        "unlabeled": part(objective.unlabeled_views, unlabeled, pool),
    }


class Timed:
    """A method over a pool, stepped again and again."""

    def __init__(self, name: str, pool: int, device: str, unlabeled: int = BATCH * RATIO):
        self.objective, self.device = build(name, pool, device), device
        self.networks = [m for m in self.objective.modules() if isinstance(m, Linear)]
        self.batches = [batch(self.objective, pool, device, BATCH, unlabeled) for _ in range(5)]
        self.ms: list[float] = []
        self.step(), self.step()
        self.images, self.ms = sum(m.seen for m in self.networks), []

    def step(self) -> None:
        """One forward, backward and after_step; a busy neighbour takes no part in a CPU's time."""
        wait = torch.cuda.synchronize if self.device == "cuda" else lambda: None
        clock = time.perf_counter if self.device == "cuda" else time.thread_time
        for m in self.networks:
            m.seen = 0
        self.objective.zero_grad(set_to_none=True)
        wait()
        begin = clock()
        self.objective(self.batches[len(self.ms) % 5], 0.5)["loss"].backward()
        self.objective.after_step(0.5)
        wait()
        self.ms.append(1e3 * (clock() - begin))


def compare(name: str, pool: int, device: str, steps: int) -> tuple[int, float, float, float]:
    """(images, ms per step, ms above FixMatch on as many images, ms above the same method over 1,000 images)."""
    full, small = Timed(name, pool, device), Timed(name, 1000, device)
    fixmatch = Timed("fixmatch", 1000, device, max(1, (full.images - BATCH) // 2))
    for _ in range(steps):  # in turns, so that a slow moment hits all of them
        for timed in (full, small, fixmatch):
            timed.step()
    median = lambda a, b: statistics.median(x - y for x, y in zip(a.ms, b.ms, strict=True))  # noqa: E731
    return full.images, statistics.median(full.ms), median(full, fixmatch), median(full, small)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pool", type=int, default=1_000_000, help="images in the unlabeled pool")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--steps", type=int, default=31, help="steps whose median is printed")
    parser.add_argument("--methods", nargs="*", help="a few of them; default: all")
    args = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, {args.device}, 1 thread, pool {args.pool:,}\n")
    print("| method | images | step ms | above FixMatch ms | table ms |\n|---|---:|---:|---:|---:|")
    known = [n for n in methods_for("finetune") if "classification" in find(n).tasks and not find(n).frozen]
    for name in args.methods or known:
        images, ms, above, table = compare(name, args.pool, args.device, args.steps)
        print(f"| {name} | {images} | {ms:.2f} | {above:+.2f} | {table:+.2f} |", flush=True)


if __name__ == "__main__":
    main()
