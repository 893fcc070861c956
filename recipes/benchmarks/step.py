"""End-to-end training step over the bare passes of the same networks on resident tensors.

    python recipes/benchmarks/step.py                                # FixMatch, WRN-28-2, 32 px, 8 + 2 x 56, CPU
    python recipes/benchmarks/step.py --model resnet18 --size 224 --batch-size 1 --pool 100                # 1 + 2 x 7
    python recipes/benchmarks/step.py --method-args concat_weak=False              # weak views without a backward pass
    python recipes/benchmarks/step.py --method byol --model resnet18 --size 224 --batch-size 256 --precision bf16

Bare: forward and backward of the network with its heads, and for a method with a teacher the forward of that, on one
resident batch; no views, loss of the method, optimizer or average. Both sides alternate in one process, on the same
precision, layout and batch. Goal: a ratio of at most 1.10.
"""

from __future__ import annotations

import argparse
import tempfile

import numpy as np
import torch
from timing import WARM, compare, report

import hf_lowlabel
from hf_lowlabel.cli.output import key_values
from hf_lowlabel.data.dataset import ArrayReader, ImageDataset, Origin, make_dataset
from hf_lowlabel.methods import verb_of
from hf_lowlabel.training.loop import Loop


def generated(side: int, count: int) -> ImageDataset:
    """Random images of ten classes, in memory."""
    rng = np.random.default_rng(0)
    reader = ArrayReader(rng.integers(0, 256, (count, side, side, 3), dtype=np.uint8))
    ids, names = [f"{i:06d}" for i in range(count)], [str(k) for k in range(10)]
    return make_dataset(Origin("generated", "train"), ids, np.arange(count) % 10, names, ids, reader)


class Bare:
    """The passes of the networks and no more, on copies of the first batch."""

    def __init__(self, verb: str):
        self.verb, self.x = verb, None

    def __call__(self, loop: Loop, batch: dict) -> None:
        if self.x is None:
            views = (
                batch["views"]
                if self.verb == "pretrain"
                else [batch["labeled"]["image"], *(v for v in batch["unlabeled"].values() if v.dim() == 4)]
            )
            self.x = loop.lay_out(torch.cat(views))
        inner, x = getattr(loop.inner, "objective", loop.inner), self.x
        with loop.accelerator.autocast():
            if self.verb == "finetune":
                out = inner.model(x).logits
            else:
                out = inner.encoder.pooled(x)
                for head in ("projector", "predictor"):
                    out = getattr(inner, head)(out) if hasattr(inner, head) else out
                if hasattr(inner, "teacher_encoder"):
                    with torch.no_grad():
                        inner.teacher_projector.module(inner.teacher_encoder.module.pooled(x))
            loss = out.float().square().mean()
        loss.backward()
        for p in loop.params:
            p.grad = None


def parse(flags: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", default="fixmatch")
    parser.add_argument("--model", default="wrn_28_2")
    parser.add_argument("--size", type=int, default=32, help="px")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--unlabeled-ratio", type=int, default=7)
    parser.add_argument("--lora-rank", type=int, help="train adapters of this rank and the head alone")
    parser.add_argument(
        "--method-args", nargs="+", default=[], metavar="KEY=VALUE", help="hyperparameters of the method"
    )
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--channels-last", action=argparse.BooleanOptionalAction)
    parser.add_argument("--steps", type=int, default=8, help="steps timed on each side")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--pool", type=int, default=2000, help="images")
    parser.add_argument("--output", help="JSON file for the result")
    return parser.parse_args(flags)


def measure(args: argparse.Namespace, bare: Bare | None = None) -> dict:
    """See `compare`; bare: what the other side runs, None for the passes of the networks."""
    torch.set_num_threads(args.threads)
    verb = verb_of(args.method)
    settings = dict(
        dataset=generated(args.size, args.pool),
        model=args.model,
        from_scratch=True,
        image_size=args.size,
        stored_size=args.size,
        method=args.method,
        method_args=key_values(args.method_args),
        batch_size=args.batch_size,
        max_steps=args.steps + WARM,
        compile=args.compile,
        precision=args.precision,
        channels_last=args.channels_last,
        eval_steps=10**6,
        logging_steps=10**6,
        save_steps=10**6,
    )
    if verb == "finetune":
        settings |= dict(num_labels=40, unlabeled_ratio=args.unlabeled_ratio, lora_rank=args.lora_rank)
    with tempfile.TemporaryDirectory() as folder:
        return compare(lambda: getattr(hf_lowlabel, verb)(**settings, output_dir=folder), bare or Bare(verb))


def main() -> None:
    args = parse()
    report(args, measure(args))


if __name__ == "__main__":
    main()
