"""Speed of the views against kornia and the per-image PIL pipeline: torchvision v2 on PIL images, Pillow's RandAugment.

    python recipes/benchmarks/views.py --output views.json          # kornia's row needs pip install '.[peers]'

All sides take images that are already decoded and in memory (PIL images there, a uint8 tensor here) and give
normalised float32 tensors; ours includes its random draws. A pair is FixMatch's weak and strong view of one image;
BYOL's pair is its two views. kornia works in batches like ours, but its RandAugment draws the operations once for
the whole batch, which is less work, and not what the methods ask for. One CPU thread, CPU seconds, the median of rounds
in which the sides alternate, so that a busy machine slows all. With a CUDA device ours and kornia are also timed there,
all images in one call, against the same PIL figures.
Cost: about three CPU-minutes.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL
import torch
import torchvision
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageOps
from torchvision.transforms import v2

from hf_lowlabel.views import build_view, uniforms

KORNIA = importlib.util.find_spec("kornia") is not None
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CASES = {  # name: (the two kinds of view, px, images per call on a CPU, images per call on CUDA)
    "FixMatch pairs, 32 px": (("weak", "strong"), 32, 1024, 7168),
    "FixMatch pairs, 224 px": (("weak", "strong"), 224, 24, 448),
    "BYOL pairs, 32 px": (("byol1", "byol2"), 32, 1024, 4096),
    "BYOL pairs, 224 px": (("byol1", "byol2"), 224, 24, 256),
}
AFFINE = Image.Transform.AFFINE
PIL_OPS = [  # fixmatch-pytorch's FixMatch operations at level 1 .. 9 of 10
    lambda image, level: image,
    lambda image, level: ImageOps.autocontrast(image),
    lambda image, level: ImageOps.equalize(image),
    lambda image, level: ImageEnhance.Brightness(image).enhance(level * 0.9 / 10 + 0.05),
    lambda image, level: ImageEnhance.Color(image).enhance(level * 0.9 / 10 + 0.05),
    lambda image, level: ImageEnhance.Contrast(image).enhance(level * 0.9 / 10 + 0.05),
    lambda image, level: ImageEnhance.Sharpness(image).enhance(level * 0.9 / 10 + 0.05),
    lambda image, level: ImageOps.posterize(image, int(level * 4 / 10) + 4),
    lambda image, level: ImageOps.solarize(image, 256 - int(level * 256 / 10)),
    lambda image, level: image.rotate(random.choice((-1, 1)) * int(level * 30 / 10)),
    lambda image, level: image.transform(image.size, AFFINE, (1, random.choice((-1, 1)) * level * 0.03, 0, 0, 1, 0)),
    lambda image, level: image.transform(image.size, AFFINE, (1, 0, 0, random.choice((-1, 1)) * level * 0.03, 1, 0)),
    lambda image, level: image.transform(image.size, AFFINE, (1, 0, shift(image, level), 0, 1, 0)),
    lambda image, level: image.transform(image.size, AFFINE, (1, 0, 0, 0, 1, shift(image, level))),
]


def shift(image: Image.Image, level: int) -> int:
    return int(random.choice((-1, 1)) * level * 0.03 * image.width)


def pil_randaugment(image: Image.Image) -> Image.Image:
    """Two of the operations, each with chance one half, and a gray square of half the side."""
    for op in random.choices(PIL_OPS, k=2):
        level = random.randint(1, 9)
        if random.random() < 0.5:
            image = op(image, level)
    side, image = image.width // 2, image.copy()
    x0, y0 = (int(max(0, random.uniform(0, image.width) - side / 2)) for _ in range(2))
    x1, y1 = min(image.width, x0 + side), min(image.height, y0 + side)
    ImageDraw.Draw(image).rectangle((x0, y0, x1, y1), (127, 127, 127))
    return image


def pil_blur(image: Image.Image) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(random.uniform(0.1, 2.0)))


def pil_pipeline(kind: str, size: int) -> Callable[[Image.Image], torch.Tensor]:
    """The same view of one PIL image."""
    tensor = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
    if kind in ("weak", "strong"):
        shift = [v2.RandomHorizontalFlip(), v2.RandomCrop(size, padding=size // 8, padding_mode="reflect")]
        return v2.Compose([*shift, *([v2.Lambda(pil_randaugment)] if kind == "strong" else []), *tensor])
    blur, solarize = {"byol1": (1.0, 0.0), "byol2": (0.1, 0.2)}[kind]
    steps = [
        v2.RandomResizedCrop(size, interpolation=v2.InterpolationMode.BICUBIC),
        v2.RandomHorizontalFlip(),
        v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.2, 0.1)], p=0.8),
        v2.RandomGrayscale(0.2),
    ]
    if size >= 64:
        steps.append(v2.RandomApply([v2.Lambda(pil_blur)], p=blur))
    return v2.Compose([*steps, v2.RandomSolarize(128, p=solarize), *tensor])


def smooth_images(n: int, size: int) -> torch.Tensor:
    """uint8 [n, 3, size, size] with the smoothness of photographs: coarse noise, enlarged, and a little fine noise."""
    rng = np.random.default_rng(0)
    coarse = torch.from_numpy(rng.random((n, 3, 8, 8), dtype=np.float32))
    x = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bicubic")
    return ((x + 0.05 * torch.from_numpy(rng.random(x.shape, dtype=np.float32))) * 255).clamp(0, 255).to(torch.uint8)


def ours(kinds: tuple[str, str], images: torch.Tensor, size: int) -> Callable[[int], None]:
    """A call that makes both views of every image, with fresh draws for every round."""
    views = [build_view(kind, size=size, mean=MEAN, std=STD) for kind in kinds]

    def make(round_: int) -> None:
        for position, view in enumerate(views):
            view(images, uniforms(0, str(position), round_ * len(images), len(images), view.width))

    return make


def theirs(kinds: tuple[str, str], images: torch.Tensor, size: int) -> Callable[[int], None]:
    pipelines = [pil_pipeline(kind, size) for kind in kinds]
    opened = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in images]

    def make(round_: int) -> None:
        for image in opened:
            for pipeline in pipelines:
                pipeline(image)

    return make


def kornia_side(kinds: tuple[str, str], images: torch.Tensor, size: int) -> Callable[[int], None]:
    import kornia.augmentation as K
    from kornia.augmentation.auto import RandAugment

    def pipeline(kind: str) -> torch.nn.Module:
        if kind in ("weak", "strong"):
            strong = [RandAugment(2, 9), K.RandomErasing(scale=(0.25, 0.25), ratio=(1.0, 1.0), value=0.5, p=1.0)]
            steps = [
                K.RandomHorizontalFlip(),
                K.RandomCrop((size, size), padding=size // 8, padding_mode="reflect"),
                *(strong if kind == "strong" else []),
            ]
        else:
            blur, solarize = {"byol1": (1.0, 0.0), "byol2": (0.1, 0.2)}[kind]
            steps = [
                K.RandomResizedCrop((size, size), resample="bicubic"),
                K.RandomHorizontalFlip(),
                K.ColorJitter(0.4, 0.4, 0.2, 0.1, p=0.8),
                K.RandomGrayscale(p=0.2),
            ]
            if size >= 64:
                steps.append(K.RandomGaussianBlur((2 * (size // 20) + 1,) * 2, (0.1, 2.0), p=blur))
            steps.append(K.RandomSolarize(0.0, 0.0, p=solarize))
        return torch.nn.Sequential(*steps, K.Normalize(torch.tensor(MEAN), torch.tensor(STD)))

    pipelines = [pipeline(kind).to(images.device) for kind in kinds]

    def make(round_: int) -> None:
        for pipeline in pipelines:
            pipeline(images.float() / 255)

    return make


def seconds(make: Callable[[int], None], round_: int, clock: Callable[[], float], cuda: bool = False) -> float:
    start = clock()
    make(round_)
    if cuda:
        torch.cuda.synchronize()
    return clock() - start


def measure(name: str, rounds: int, images_per_call: tuple[int, int] | None = None) -> dict:
    """Pairs per second of every side and their ratios to ours; images_per_call: on a CPU and on CUDA."""
    kinds, size, n, n_cuda = CASES[name]
    n, n_cuda = images_per_call or (n, n_cuda)
    images = smooth_images(n, size)
    few = images[: max(8, n // 4)]
    sides = {"ours": (n, ours(kinds, images, size)), "pil": (len(few), theirs(kinds, few, size))}
    if KORNIA:
        sides["kornia"] = (n, kornia_side(kinds, images, size))
    times = [[seconds(make, k, time.process_time) for _, make in sides.values()] for k in range(rounds + 1)]
    times = times[1:]  # the first warms up
    row: dict = {"case": name}
    for (side, (count, _)), values in zip(sides.items(), zip(*times, strict=True), strict=True):
        row[f"{side}_per_cpu_s"] = count / statistics.median(values)
    row["ratio"] = row["ours_per_cpu_s"] / row["pil_per_cpu_s"]
    if KORNIA:
        row["ratio_kornia"] = row["ours_per_cpu_s"] / row["kornia_per_cpu_s"]
    if torch.cuda.is_available():
        many = images.cuda().repeat(-(-n_cuda // n), 1, 1, 1)[:n_cuda]
        for side, make in {"ours": ours, **({"kornia": kornia_side} if KORNIA else {})}.items():
            made = make(kinds, many, size)
            wall = statistics.median([seconds(made, k, time.perf_counter, cuda=True) for k in range(rounds + 1)][1:])
            row |= {f"{side}_cuda_per_s": n_cuda / wall, f"{side}_cuda_ms_per_call": wall * 1e3}
        row |= {"cuda_images": n_cuda, "ratio_cuda": row["ours_cuda_per_s"] / row["pil_per_cpu_s"]}
    return row


def machine() -> dict:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":")[1].strip() for line in lines if "model name" in line] or [platform.processor()]
    return {
        "cpu": names[0],
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "pillow": PIL.__version__,
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "threads": 1,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("views.json"), help="JSON file to write")
    parser.add_argument("--rounds", type=int, default=7, help="timed rounds per case")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    result = {"machine": machine(), "rows": []}
    print(json.dumps(result["machine"]))
    if not KORNIA:
        print("kornia is not installed: no row for it")
    for name in CASES:
        row = measure(name, arguments.rounds)
        result["rows"].append(row)
        print(f"{name}: " + ", ".join(f"{k} {v:.3g}" for k, v in row.items() if k != "case"), flush=True)
    arguments.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
