"""End-to-end step of a segmentation method over the bare passes of its own networks on resident tensors.

    python recipes/benchmarks/segment_step.py            # CutMix, ResNet-18 and DeepLabV3+, 2 + 2 crops of 161 px, CPU
    python recipes/benchmarks/segment_step.py --model resnet50 --size 321 --batch-size 20 --precision bf16      # GPU

Bare: forward and backward of the student on all crops of the step, and the forward of the teacher on the unlabeled ones
where the method has one. Both sides alternate in one process, on the same precision, layout and batch.
The end-to-end step makes its own crops and colours out of a pool of 375 x 500 px photos. Cost: a minute on one core.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable

import numpy as np
import torch
from timing import WARM, compare, report

from hf_lowlabel import finetune
from hf_lowlabel.data.dataset import ArrayReader, ImageDataset, Masks, Origin, make_dataset
from hf_lowlabel.training.loop import Loop

CLASSES, PHOTO = 21, (375, 500)


def generated(count: int) -> ImageDataset:
    """Random photos and masks, in memory."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, *PHOTO, 3), dtype=np.uint8)
    masks = Masks(ArrayReader(rng.integers(0, CLASSES, (count, *PHOTO), dtype=np.uint8)))
    ids, names = [f"{i:06d}" for i in range(count)], [f"class {k}" for k in range(CLASSES)]
    known, reader = np.ones(count, dtype=bool), ArrayReader(images)
    return make_dataset(Origin("generated", "train"), ids, known, names, ids, reader, masks=masks)


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


def parse(flags: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", default="cutmix", choices=("supervised", "cutmix", "classmix", "fixmatch"))
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--architecture", default="deeplabv3plus-os16")
    parser.add_argument("--size", type=int, default=161, help="side of a crop in px")
    parser.add_argument("--batch-size", type=int, default=2, help="labeled crops, and as many unlabeled")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--steps", type=int, default=8, help="steps timed on each side")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--pool", type=int, default=100, help="images")
    parser.add_argument("--output", help="JSON file for the result")
    return parser.parse_args(flags)


def measure(args: argparse.Namespace, passes: Callable[[Loop, dict], None] = bare) -> dict:
    """See `compare`; passes: what the other side runs."""
    torch.set_num_threads(args.threads)
    settings = dict(
        task="segmentation",
        dataset=generated(args.pool),
        model=args.model,
        from_scratch=True,
        method=args.method,
        architecture=args.architecture,
        image_size=args.size,
        batch_size=args.batch_size,
        num_labels=10,
        test_fraction=0.02,
        max_steps=args.steps + WARM,
        compile=args.compile,
        precision=args.precision,
        eval_steps=10**6,
        logging_steps=10**6,
        save_steps=10**6,
    )
    with tempfile.TemporaryDirectory() as folder:
        return compare(lambda: finetune(**settings, output_dir=folder), passes)


def main() -> None:
    args = parse()
    report(args, measure(args))


if __name__ == "__main__":
    main()
