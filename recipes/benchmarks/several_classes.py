"""Images that show several classes at once: `finetune` at its defaults, the attempts of `auto`, and a probe: one table.

    python recipes/benchmarks/several_classes.py --data DATA --strips flowers --quarters camvid --mask-ignore 11
        --model WEIGHTS --output several

DATA holds data sets with a train and a test split. A strip shows one to three images of a set with classes beside each
other and has the classes of all of them; a quarter of an image with masks has the classes that cover a hundredth of it.
The rows of a seed share their labels, the last weights count, and nothing is chosen by the test images. A run that is
in OUTPUT/runs.jsonl is not repeated. Cost: about two minutes a run on one core.
"""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from kept_rows import check_settings, rows_of
from PIL import Image

from hf_lowlabel import finetune, load_segmentation, load_source
from hf_lowlabel.files import write_text
from hf_lowlabel.records import collect_hardware, collect_versions
from hf_lowlabel.tasks.attempts import MULTILABEL

SIDE, STRIPS, SHARE = (128, 96), dict(train=1500, test=600), 0.01
Shown = tuple[Image.Image, list[str]]
ROWS: dict[str, dict[str, Any]] = {
    "linear probe": dict(method="probe"),
    "supervised": dict(method="supervised"),
    "FixMatch": dict(method="fixmatch"),
    **{f"{a.name} of auto": a.settings for a in MULTILABEL if not a.frozen},
}


def strips(data: str, split: str) -> Iterator[Shown]:
    """One to three images of a set, drawn at random, beside each other."""
    source, random = load_source(data, split=split), np.random.default_rng(0)
    for _ in range(STRIPS[split]):
        rows = random.choice(len(source), random.integers(1, 4), replace=False)
        out = Image.new("RGB", (64 * len(rows), 96))
        for k, i in enumerate(rows):
            out.paste(source.rgb(int(i)).resize((64, 96)), (64 * k, 0))
        yield out, sorted({source.class_names[source.labels[i]] for i in rows})


def quarters(data: str, split: str, ignore: Sequence[int]) -> Iterator[Shown]:
    """The quarters of a set's images, with the classes that their masks show. ignore: values that are no class."""
    source = load_segmentation(data, split=split, mask_ignore=ignore)
    number = len(source.class_names)
    for i in range(len(source)):
        image, mask = source.rgb(i), source.mask(i)
        h, w = mask.shape[0] // 2, mask.shape[1] // 2
        for top, left in itertools.product((0, h), (0, w)):
            count = np.bincount(mask[top : top + h, left : left + w].ravel(), minlength=256)[:number]
            names = [source.class_names[k] for k in np.flatnonzero(count >= SHARE * h * w)]
            yield image.crop((left, top, left + w, top + h)), names


def write(folder: Path, images: Iterable[Shown]) -> None:
    """A folder of images and the table of their classes."""
    folder.mkdir(parents=True)
    lines = []
    for i, (image, names) in enumerate(images):
        image.resize(SIDE).save(folder / f"{i:05d}.jpg", quality=92)
        lines.append(json.dumps(dict(file_name=f"{i:05d}.jpg", labels=names)))
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n")


def one(args: argparse.Namespace, *, set: str, row: str, seed: int) -> dict[str, float]:
    """Mean average precision on the test images."""
    photos, folder = Path(args.output) / "sets" / set, Path(args.output) / "run"
    if not photos.is_dir():
        part, data = photos.with_name(f"{set}.part"), str(Path(args.data) / set)
        images = partial(strips, data) if set in args.strips else partial(quarters, data, ignore=args.mask_ignore)
        shutil.rmtree(part, ignore_errors=True)
        for split in STRIPS:
            write(part / split, images(split))
        part.rename(photos)
    shutil.rmtree(folder, ignore_errors=True)
    sizes = dict(image_size=args.image_size, stored_size=args.image_size)
    given = dict(task="multilabel", dataset=str(photos), model=args.model, num_labels=args.labels, seed=seed, **sizes)
    trained = dict(max_steps=args.max_steps, batch_size=16, unlabeled_ratio=2)
    trained |= dict(metric_for_best_model="last", eval_steps=10**6, save_steps=10**6)
    own = ROWS[row] if ROWS[row]["method"] == "probe" else trained | ROWS[row]
    return dict(map=finetune(**given, **own, output_dir=str(folder)).metrics["map"])


def table(rows: list[dict]) -> str:
    """A line for each row, a column for each set: mean and standard deviation over the seeds."""
    sets = list(dict.fromkeys(r["set"] for r in rows))
    lines = ["| mean average precision | " + " | ".join(sets) + " |", "|---|" + "---:|" * len(sets)]
    for row in ROWS:
        cells = []
        for name in sets:
            of = np.array([100 * r["map"] for r in rows if (r["set"], r["row"]) == (name, row)])
            cells.append(f"{of.mean():.1f} ± {of.std(ddof=1):.1f} ({len(of)})" if len(of) > 1 else f"{len(of)} runs")
        lines.append(f"| {row} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=".", help="folder of data sets")
    parser.add_argument("--strips", nargs="*", default=[], help="names of sets with classes")
    parser.add_argument("--quarters", nargs="*", default=[], help="names of sets with masks")
    parser.add_argument("--mask-ignore", type=int, nargs="*", default=[], help="values of masks that are no class")
    parser.add_argument("--model", default="resnet18", help="timm name, Hub id or folder with pretrained weights")
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=ROWS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--labels", type=int, default=60, help="images with labels")
    parser.add_argument("--image-size", type=int, default=64, help="px")
    parser.add_argument("--max-steps", type=int, default=150)
    parser.add_argument("--output", required=True, help="folder")
    args = parser.parse_args()
    torch.set_num_threads(1)
    folder = Path(args.output)
    order = itertools.product(args.seeds, [*args.strips, *args.quarters], args.rows)
    cases = (dict(set=name, row=row, seed=seed) for seed, name, row in order)
    check_settings(folder / "runs.jsonl", args, "model", "labels", "image_size", "max_steps")
    rows = rows_of(folder / "runs.jsonl", cases, partial(one, args))
    settings = {k: v for k, v in vars(args).items() if k not in ("data", "output", "rows", "model")}
    text = f"{table(rows)}\n\n{settings}; machine: {collect_hardware(1)}; versions: {collect_versions()}\n"
    write_text(folder / "several-classes.md", text)
    print(text)


if __name__ == "__main__":
    main()
