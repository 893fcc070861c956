"""Speed of the joint views of image and mask: batches of 8 at 321 px, against torchvision v2 and kornia per sample.

    python recipes/benchmarks/joint_views.py --output joint_views.json

Everyone takes decoded uint8 images of 375 x 500 px with masks and gives, for each sample with draws of its own, a
normalised window of 321 x 321 px at a scale of 0.5 to 1.5, its mask, and a second view with UniMatch's colours (jitter,
gray, blur). torchvision runs sample by sample, as its transforms draw once per call; kornia, if it is installed, in a
batch with same_on_batch=False, and only for the geometry it offers, a random resized crop. One CPU thread, CPU seconds,
the median of rounds in which the sides alternate; with a CUDA device milliseconds a batch there, too.
Cost: about one CPU-minute.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torchvision
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as TF

from hf_lowlabel.views.counter_rng import uniforms
from hf_lowlabel.views.joint import JointView

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BATCH, SIZE, H, W = 8, 321, 375, 500


def ours(images: torch.Tensor) -> Callable[[int], None]:
    view = JointView({"weak": "weak", "strong": "strong"}, size=(SIZE, SIZE), mean=MEAN, std=STD)
    sizes = torch.tensor([[H, W]] * BATCH)
    return lambda round_: view(images, sizes, uniforms(0, "joint", round_ * BATCH, BATCH, view.width))


def torchvision_per_sample(images: torch.Tensor) -> Callable[[int], None]:
    colors = v2.Compose(
        [
            v2.RandomApply([v2.ColorJitter(0.5, 0.5, 0.5, 0.25)], p=0.8),
            v2.RandomGrayscale(0.2),
            v2.RandomApply([v2.GaussianBlur(2 * (SIZE // 20) + 1, (0.1, 2.0))], p=0.5),
        ]
    )

    def one(packed: torch.Tensor) -> None:
        scale = random.uniform(0.5, 1.5)
        size = [round(H * scale), round(W * scale)]
        image = TF.resize(packed[:3], size, TF.InterpolationMode.BILINEAR, antialias=False)
        mask = TF.resize(packed[3:], size, TF.InterpolationMode.NEAREST)
        below, right = max(SIZE - size[0], 0), max(SIZE - size[1], 0)
        if below or right:
            image, mask = TF.pad(image, [0, 0, right, below]), TF.pad(mask, [0, 0, right, below], fill=255)
        top, left = (random.randint(0, side - SIZE) for side in image.shape[-2:])
        image, mask = (TF.crop(x, top, left, SIZE, SIZE) for x in (image, mask))
        if random.random() < 0.5:
            image, mask = TF.horizontal_flip(image), TF.horizontal_flip(mask)
        weak = TF.to_dtype(image, torch.float32, scale=True)
        for x in (weak, colors(weak)):
            TF.normalize(x, MEAN, STD)
        mask.long()

    def make(round_: int) -> None:
        for packed in images:
            one(packed)

    return make


def kornia_batch(images: torch.Tensor) -> Callable[[int], None]:
    import kornia.augmentation as K

    geometry = K.AugmentationSequential(
        K.RandomResizedCrop((SIZE, SIZE), scale=(0.3, 1.0)),
        K.RandomHorizontalFlip(),
        data_keys=["input", "mask"],
        same_on_batch=False,
    )
    colors = K.AugmentationSequential(
        K.ColorJitter(0.5, 0.5, 0.5, 0.25, p=0.8),
        K.RandomGrayscale(p=0.2),
        K.RandomGaussianBlur((2 * (SIZE // 20) + 1,) * 2, (0.1, 2.0), p=0.5),
        same_on_batch=False,
    )
    normalize = K.Normalize(torch.tensor(MEAN), torch.tensor(STD))

    def make(round_: int) -> None:
        weak, mask = geometry(images[:, :3].float() / 255, images[:, 3:].float())
        normalize(weak), normalize(colors(weak)), mask.long()

    return make


def measure(sides: dict[str, Callable[[int], None]], rounds: int, clock: Callable[[], float]) -> dict[str, float]:
    """Median seconds of a batch."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for round_ in range(rounds + 1):
        for name, make in sides.items():
            start = clock()
            make(round_)
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if round_:  # the first warms up
                times[name].append(clock() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("joint_views.json"), help="JSON file to write")
    parser.add_argument("--rounds", type=int, default=9, help="timed rounds")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    images = torch.randint(0, 256, (BATCH, 4, H // 25, W // 25), generator=torch.Generator().manual_seed(0)).float()
    images = torch.nn.functional.interpolate(images, size=(H, W), mode="bilinear").to(torch.uint8)
    images[:, 3] %= 21
    makers = {"ours": ours, "torchvision": torchvision_per_sample}
    if importlib.util.find_spec("kornia"):
        makers["kornia"] = kornia_batch
    else:
        print("kornia is not installed: no row for it")
    result = {"torch": torch.__version__, "torchvision": torchvision.__version__, "batch": BATCH, "px": SIZE}
    result["cpu_s"] = measure({k: m(images) for k, m in makers.items()}, arguments.rounds, time.process_time)
    if torch.cuda.is_available():
        cuda = images.cuda()
        result["cuda_s"] = measure({k: m(cuda) for k, m in makers.items()}, arguments.rounds, time.perf_counter)
    for clock, row in ((k, v) for k, v in result.items() if k.endswith("_s")):
        print(clock, "  ".join(f"{name} {1e3 * s:.1f} ms ({s / row['ours']:.2f} x ours)" for name, s in row.items()))
    arguments.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
