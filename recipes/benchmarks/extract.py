"""What `auto` and `probe` wait for: features from image files, against the bare forward pass over decoded images.

    python recipes/benchmarks/extract.py                             # ResNet-18, 224 px, 64 photos of 375 x 500 px
    python recipes/benchmarks/extract.py --threads 16 --images 1024 --height 3024 --width 4032

Ours is `extract`: it opens, decodes, resizes and crops JPEG files in as many threads as the network has, and writes
nothing. Bare: the same network, in the memory layout it comes in, over the same pixels, decoded and normalised before.
Both alternate in one process; the ratio is the median of their ratios. On a CPU seconds are those of the processor, all
threads together. Goal: a ratio of at most 1.1. Cost: a minute on one core.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from timing import clock, report
from views import smooth_images

from hf_lowlabel import load_source
from hf_lowlabel.data.caches.decoding import decode_chunks
from hf_lowlabel.data.pixels.images import square_of
from hf_lowlabel.models import create_backbone
from hf_lowlabel.selection.features import BATCH, extract
from hf_lowlabel.views import build_view

DIFFERENT = 64  # photos; more images are copies of them


def write_photos(folder: Path, count: int, height: int, width: int) -> None:
    pixels = smooth_images(min(count, DIFFERENT), 512)
    for i in range(count):
        photo = Image.fromarray(pixels[i % DIFFERENT].permute(1, 2, 0).numpy()).resize((width, height))
        photo.save(folder / f"{i:06d}.jpg", quality=90)


@torch.inference_mode()
def measure(args: argparse.Namespace) -> dict:
    """Seconds of both sides over all images, their ratio, and the seconds of decoding alone."""
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as folder:
        write_photos(Path(folder), args.images, args.height, args.width)
        source = load_source(folder)
        bare, ours = (create_backbone(args.model, pretrained=False, image_size=args.size).eval() for _ in range(2))
        device = "cuda" if torch.cuda.is_available() else "cpu"
        prep, bare = bare.preprocessing, bare.to(device)
        view = build_view("eval", size=prep["input_size"][-1], mean=prep["mean"], std=prep["std"])

        def decode() -> torch.Tensor:
            rows, square = np.arange(args.images), square_of(prep)
            return torch.cat([part for _, part, _ in decode_chunks(source, rows, args.threads, **square)])

        pixels = decode()
        u = torch.zeros(BATCH, view.width, dtype=torch.float64)
        batches = [view(part.to(device), u[: len(part)]) for part in pixels.split(BATCH)]
        sides = {
            "ours": lambda: extract(ours, source, workers=args.threads, device=device),
            "bare": lambda: [bare.pooled(x).cpu() for x in batches],
            "decoding": decode,
        }
        times: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(args.rounds + 1):
            for name, side in sides.items():
                begin = clock()
                side()
                times[name].append(clock() - begin)
    kept = {name: values[1:] for name, values in times.items()}  # the first warms up
    ratio = statistics.median(a / b for a, b in zip(kept["ours"], kept["bare"], strict=True))
    return {**{f"{name}_s": statistics.median(values) for name, values in kept.items()}, "ratio": ratio, "rounds": kept}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--size", type=int, help="side of what the network sees in px; default: its own")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--height", type=int, default=375, help="of a photo in px")
    parser.add_argument("--width", type=int, default=500, help="of a photo in px")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1, help="of the network on a CPU, and as many that decode")
    parser.add_argument("--output", help="JSON file for the result")
    args = parser.parse_args()
    report(args, measure(args))


if __name__ == "__main__":
    main()
