"""MOAM, the mix of all models in three steps (Zhai et al. 2019, S4L, section 5).

    accelerate launch recipes/moam.py --num-labels 128000                                   # ImageNet, 10 %
    accelerate launch recipes/moam.py --dataset path/to/photos --model resnet50 --num-labels 400 --epochs 50 5 5

    1  rotation + VAT + entropy minimisation in one loss, weight averaging, 200 epochs over the labeled images
    2  pseudo-labels of all images, from five crops x four rotations of each; the same loss on them, from the weights of
       step 1, 18 epochs over all images
       (tenfold drops of the learning rate after a third and two thirds)
    3  the labels alone, cropped and mirrored: learning rate 5e-4, weight decay 3e-3, 20 epochs

Expected on ImageNet with 10 % of the labels (table 2; ResNet-50 v2, four times as wide): top-5 / top-1 of 88.80 / 69.73
after step 1, 89.96 / 71.56 after step 2, 91.23 / 73.21 after step 3. Cost: the paper states neither machines nor hours;
200,000 + 180,000 + 20,000 steps of 1,024, 1,024 and 128 images of 224 px.
The nearest architecture in timm is resnetv2_50x3_bit; --model takes any. --dry-run tries step 1, the heaviest.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

from data_sets import arguments, common, folder_of, launch, name_of, passes, say, source_of
from safetensors.numpy import load_file

from hf_lowlabel import finetune
from hf_lowlabel.data.dataset import ImageDataset
from hf_lowlabel.data.splits.splits import Split
from hf_lowlabel.distributed import barrier, rank
from hf_lowlabel.tasks import get_task
from hf_lowlabel.training.copies import pictures
from hf_lowlabel.training.preparing import Run
from hf_lowlabel.training.pseudo_labels import pseudo_labels


def all_labeled(run: Run, source: ImageDataset, split: Split, beliefs: Path) -> Split:
    """The manifest in which every training image has its most probable class.

    An image without a label that is a copy of one with a label has that label, and a copy of a test image has none, so
    that each step is tested on the same images. Args: the run of step 1, its images and split, and its pseudo-labels.
    """
    task, data, names = get_task("classification"), run.config.data, split.class_names
    found = load_file(beliefs)
    guess = dict(zip(json.loads(found["ids"].tobytes()), found["priors"].argmax(1), strict=True))
    chosen = task.choose_split(data, run.config.training.seed, source)
    training = task.held(run.model, data, source, split.resolve(source).train, names, "training")
    seen, ids = pictures(training), training.cache.ids
    tested = set(pictures(task.held(run.model, data, chosen.test, chosen.test_at, names, "test")))
    label_of = {picture: split.labeled[id] for id, picture in zip(ids, seen, strict=True) if id in split.labeled}
    labeled = {}
    for id, picture in zip(ids, seen, strict=True):
        if id in split.labeled:
            labeled[id] = split.labeled[id]
        elif not picture:  # a blank image is nobody's copy
            labeled[id] = names[guess[id]]
        elif picture in label_of or picture not in tested:
            labeled[id] = label_of.setdefault(picture, names[guess[id]])
    return replace(split, labeled=labeled)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments(parser, ["imagenet", "cifar10"], "runs/moam")
    parser.add_argument("--num-labels", type=int, default=128_000)
    parser.add_argument("--model", default="resnet50", help="architecture")
    parser.add_argument("--image-size", type=int, default=224, help="side of a view in px")
    parser.add_argument(
        "--stored-size", type=int, default=256, help="side of a stored image in px, which the five crops are cut from"
    )
    parser.add_argument(
        "--epochs", type=passes, nargs=3, default=(200.0, 18.0, 20.0), metavar="E", help="of the three steps"
    )
    args = parser.parse_args()

    folder = folder_of(args, name_of(args), args.num_labels)
    shared = dict(common(args), image_size=args.image_size, stored_size=args.stored_size)
    first, second, third = args.epochs

    def steps(epochs: float, images: int, batch: int) -> int:
        return max(1, round(epochs * images / batch))

    loss = dict(method="moam", preset="imagenet-10")
    one = finetune(
        **shared,
        **loss,
        model=args.model,
        from_scratch=True,
        num_labels=args.num_labels,
        class_balanced=True,
        max_steps=steps(first, args.num_labels, 128),
        output_dir=str(folder / "1-all-losses"),
    )
    if args.dry_run:
        return
    source = source_of(shared)
    given = Split.load(one.folder / "split.json")
    pseudo_labels([one.folder], source, given, folder / "priors.safetensors", crops=True)
    guessed = all_labeled(one, source, given, folder / "priors.safetensors")
    if rank() == 0:
        guessed.save(folder / "pseudo-labels.json")
    barrier()
    two = finetune(
        **shared,
        **loss,
        lr_scheduler_type="steps-thirds",
        model=str(one.folder),
        split=str(folder / "pseudo-labels.json"),
        max_steps=steps(second, len(guessed.labeled), 128),
        output_dir=str(folder / "2-pseudo-labels"),
    )
    three = finetune(
        **shared,
        method="supervised",
        method_args=dict(strong=False),
        model=str(two.folder),
        split=str(one.folder / "split.json"),
        learning_rate=5e-4,
        weight_decay=3e-3,
        optimizer="momentum",
        lr_scheduler_type="steps-quarters",
        batch_size=128,
        max_steps=steps(third, args.num_labels, 128),
        output_dir=str(folder / "3-labels"),
    )
    for name, run in (("step 1", one), ("step 2", two), ("step 3", three)):
        say(f"{name}: top-5 {run.metrics['top5_accuracy']:.2%}, top-1 {run.metrics['accuracy']:.2%}")


if __name__ == "__main__":
    launch(main)
