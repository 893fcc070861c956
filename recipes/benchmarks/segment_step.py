"""End-to-end step of a segmentation method over the bare passes of its own networks on resident tensors.

    python recipes/benchmarks/segment_step.py                                     # CutMix, ResNet-18 and DeepLabV3+, 2 + 2 crops of 161 px, CPU
    python recipes/benchmarks/segment_step.py --model resnet50 --size 321 --batch-size 20 --precision bf16      # GPU

Bare: forward and backward of the student on all crops of the step, and the forward of the teacher on the unlabeled ones where
the method has one. Both sides run interleaved in one process, on the same precision, layout and batch; the ratio is of medians.
The end-to-end step makes its own crops and colours out of a pool of 375 x 500 px photos. Cost: a minute on one core.
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

from hf_lowlabel import finetune
from hf_lowlabel.data import shapes
from hf_lowlabel.data.masks import Coding
from hf_lowlabel.data.segmentation import SegmentationSource
from hf_lowlabel.data.sources import ArrayReader
from hf_lowlabel.hub.facts import collect_hardware, collect_versions
from hf_lowlabel.training import segment_run
from hf_lowlabel.training.loop import Loop

CLASSES, PHOTO = 21, (375, 500)


def generated(split: str, count: int) -> SegmentationSource:
    """Random photos and masks, in memory."""
    rng = np.random.default_rng(0)
    count = count if split == "train" else 2
    images, masks = (rng.integers(0, top, (count, *PHOTO, *deep), dtype=np.uint8) for top, deep in ((256, (3,)), (CLASSES, ())))
    return SegmentationSource("generated", None, split, None, [f"{i:06d}" for i in range(count)], np.ones(count, bool),
                              [f"class {k}" for k in range(CLASSES)], Coding(), "0" * 64, None, True, ArrayReader(images), ArrayReader(masks))


def sync(device: torch.device) -> float:
    """Seconds: of the clock on a GPU, of the processor on a CPU, which others may share."""
    if device.type != "cuda":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def bare(loop: Loop, batch: dict) -> None:
    """The passes of the method's networks and no more."""
    views = [loop.lay_out(v) for part in batch.values() for k, v in part.items() if v.dim() == 4]
    inner = loop.inner
    with loop.accelerator.autocast():
        if type(inner).__name__ in ("CutMixSeg", "ClassMix", "UniMatchV2"):  # the teacher labels the weak views
            with torch.no_grad():
                inner.ema.module(loop.lay_out(batch["unlabeled"]["weak"]))
        if type(inner).__name__ in ("ClassMix", "UniMatchV2"):
            views = [v for v in views if v is not batch["unlabeled"]["weak"]]
        loss = inner.model(torch.cat(views)).logits.float().logsumexp(1).mean()
    loss.backward()
    for p in loop.params:
        p.grad = None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", default="cutmix", choices=("supervised", "cutmix", "classmix", "fixmatch"))
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--architecture", default="deeplabv3plus-os16")
    parser.add_argument("--size", type=int, default=161, help="side of a crop in px")
    parser.add_argument("--batch-size", type=int, default=2, help="labeled crops, and as many unlabeled")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--steps", type=int, default=8, help="steps timed on each side")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--pool", type=int, default=100, help="images")
    parser.add_argument("--output", help="JSON file for the result")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    shapes.shapes = lambda split="train": generated(split, args.pool)
    times: dict[str, list[float]] = {"step": [], "bare": []}
    waited, clock = [0.0], time.perf_counter if torch.cuda.is_available() else time.process_time
    original, made = Loop.train_step, segment_run.finetune_batches

    def batches(*arguments):
        iterator = made(*arguments)
        while True:
            begin = clock()
            batch = next(iterator)
            waited[0] = clock() - begin
            yield batch

    def train_step(self, batch):
        device = self.accelerator.device
        begin = sync(device)  # what is left of the views counts as the step's
        views = waited[0] + (sync(device) - begin)
        begin = sync(device)
        bare(self, batch)
        middle = sync(device)
        out = original(self, batch)
        times["bare"].append(middle - begin)
        times["step"].append(sync(device) - middle + views)
        return out

    Loop.train_step, segment_run.finetune_batches = train_step, batches
    with tempfile.TemporaryDirectory() as folder:
        finetune(task="segmentation", dataset="shapes", model=args.model, from_scratch=True, architecture=args.architecture, method=args.method,
                 image_size=args.size, batch_size=args.batch_size, num_labels=10, max_steps=args.steps + 3, precision=args.precision,
                 eval_every=10**6, log_every=10**6, save_every=10**6, output_dir=folder)
    step, passes = (statistics.median(times[k][3:]) for k in ("step", "bare"))
    result = {"command": vars(args), "end_to_end_s": step, "bare_s": passes, "ratio": step / passes, "hardware": collect_hardware(),
              "versions": collect_versions()}
    print(json.dumps(result, indent=1))
    if args.output:
        Path(args.output).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
