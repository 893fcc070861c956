"""End-to-end training step over the bare forward and backward of the same network on resident tensors.

    python recipes/benchmarks/step.py                                        # FixMatch, WRN-28-2, 32 px, 8 + 2 x 56, CPU
    python recipes/benchmarks/step.py --method byol --model resnet18 --size 224 --batch-size 256 --precision bf16   # GPU

Both sides run interleaved in one process, on the same precision, layout and batch; the ratio is of medians.
"""
from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from hf_lowlabel.data import digits, sources
from hf_lowlabel.hub.facts import collect_hardware, collect_versions
from hf_lowlabel.methods import METHODS
from hf_lowlabel.training import finetune_run, pretrain_run, runs
from hf_lowlabel.training.loop import Loop


def generated(side: int, count: int) -> sources.Source:
    """Random images of ten classes, in memory."""
    rng = np.random.default_rng(0)
    labels = np.arange(count) % 10
    return sources.Source("generated", None, "train", None, [f"{i:06d}" for i in range(count)], labels, [str(k) for k in range(10)], "0" * 64,
                          None, True, sources.ArrayReader(rng.integers(0, 256, (count, side, side, 3), dtype=np.uint8)))


def sync(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


class Bare:
    """The passes of the method's own network and no more: forward, cross-entropy to fixed targets, backward."""

    def __init__(self, loop: Loop, batch: dict, verb: str):
        self.loop, self.verb = loop, verb
        if verb == "finetune":
            self.x = torch.cat([batch["labeled"]["image"], *(v for k, v in batch["unlabeled"].items() if v.dim() == 4)]).clone()
        else:
            self.x = torch.cat(batch["views"]).clone()
        self.x = loop.lay_out(self.x)

    def __call__(self) -> None:
        inner = self.loop.inner
        with self.loop.accelerator.autocast():
            if self.verb == "finetune":
                loss = inner.model(self.x).logits.float().logsumexp(1).mean()
            else:
                objective = getattr(inner, "objective", inner)
                loss = objective.encoder.pooled(self.x).float().square().mean()
                with torch.no_grad():
                    objective.teacher_encoder.module.pooled(self.x)
        loss.backward()
        for p in self.loop.params:
            p.grad = None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", default="fixmatch")
    parser.add_argument("--model", default="wrn_28_2")
    parser.add_argument("--size", type=int, default=32, help="px")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--unlabeled-ratio", type=int, default=7)
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--steps", type=int, default=8, help="steps timed on each side")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--pool", type=int, default=2000, help="images")
    parser.add_argument("--output", help="JSON file for the result")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    verb = METHODS[args.method].verb
    digits.digits = lambda split="train": generated(args.size, args.pool)
    times: dict[str, list[float]] = {"step": [], "bare": []}
    original = Loop.train_step

    def timed(self, batch):
        device = self.accelerator.device
        bare = Bare(self, batch, verb)
        if self.step == 0:
            bare()
        begin = sync(device)
        bare()
        times["bare"].append(sync(device) - begin)
        out = original(self, batch)
        timed.end = sync(device)
        return out

    def batches(iterator):
        while True:
            begin = time.perf_counter()
            batch = next(iterator)
            timed.views = time.perf_counter() - begin
            yield batch

    def whole(self, batch):
        out = timed(self, batch)
        times["step"].append(timed.end - bare_end[0] + timed.views)
        return out

    bare_end = [0.0]
    real_bare = Bare.__call__

    def noting(self):
        real_bare(self)
        bare_end[0] = sync(self.loop.accelerator.device)

    Bare.__call__ = noting
    Loop.train_step = whole
    for module, name in ((finetune_run, "finetune_batches"), (pretrain_run, "pretrain_batches")):
        made = getattr(module, name)
        setattr(module, name, lambda *a, made=made: batches(made(*a)))
    settings = dict(dataset="digits", model=args.model, from_scratch=True, image_size=args.size, pool_size=args.size, method=args.method,
                    batch_size=args.batch_size, max_steps=args.steps + 3, precision=args.precision, compile=args.compile,
                    eval_every=10**6, log_every=10**6, save_every=10**6)
    if verb == "finetune":
        settings |= dict(num_labels=40, unlabeled_ratio=args.unlabeled_ratio)
    with tempfile.TemporaryDirectory() as folder:
        getattr(runs, verb)(**settings, output_dir=folder)
    step, bare = (statistics.median(times[k][3:]) for k in ("step", "bare"))
    result = {"command": vars(args), "end_to_end_s": step, "bare_s": bare, "ratio": step / bare, "hardware": collect_hardware(),
              "versions": collect_versions()}
    print(json.dumps(result, indent=1))
    if args.output:
        Path(args.output).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
