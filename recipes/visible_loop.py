"""FixMatch with the loop in sight: what `finetune` does, step by step, from the public parts of the library.

    accelerate launch recipes/visible_loop.py                                            # digits, minutes on a CPU
    accelerate launch recipes/visible_loop.py --dataset photos/ --model resnet18 --pretrained --image-size 224
    accelerate launch recipes/visible_loop.py --method flexmatch --dry-run

A place to start from where a method needs a loop of its own. What `finetune` adds: checkpoints and --resume, a guard
against NaN, BatchNorm over all processes, the card, and Sel to choose the weights; here the last ones count. With 40
labels and seed 0 it names about 97 % of the digits' test images right, a little more or less on other machines.
"""

from __future__ import annotations

import argparse
import os

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed

from hf_lowlabel import create_classifier, load_source, make_split
from hf_lowlabel.data import build_cache
from hf_lowlabel.data.pixels.images import square_of
from hf_lowlabel.errors import UserError
from hf_lowlabel.evaluation import classification
from hf_lowlabel.evaluation.inference import logits_of
from hf_lowlabel.methods import find
from hf_lowlabel.objective import build_objective
from hf_lowlabel.tasks.caching import labeled_positions, square_statistics
from hf_lowlabel.training.batches import ViewStream
from hf_lowlabel.training.optim import learning_rate
from hf_lowlabel.views import build_view
from hf_lowlabel.views.transforms import Separate


def flags() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="digits", help="digits, a folder, parquet or a Hub id")
    parser.add_argument("--num-labels", type=int, default=40, help="labels, evenly over the classes")
    parser.add_argument("--method", default="fixmatch", help="method of finetuning")
    parser.add_argument("--model", default="cnn6_32", help="timm name, Hub id or folder")
    parser.add_argument("--pretrained", action="store_true", help="start from the weights of that name")
    parser.add_argument("--image-size", type=int, default=16, help="side of an image and of a view in px")
    parser.add_argument("--no-color", dest="color", action="store_false", help="colours tell the classes: keep them")
    parser.add_argument("--flip", action="store_true", help="mirror images at random")
    parser.add_argument("--batch-size", type=int, default=16, help="labeled images in a step, all processes")
    parser.add_argument("--unlabeled-ratio", type=int, default=5, help="unlabeled images per labeled one")
    parser.add_argument("--learning-rate", type=float, default=0.03)
    parser.add_argument("--max-steps", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output-dir", default="runs/visible-loop", help="folder for the model")
    parser.add_argument("--dry-run", action="store_true", help="2 steps and an evaluation; nothing is kept")
    args = parser.parse_args()
    method = find(args.method)
    if method.frozen or method.verb != "finetune" or "classification" not in method.tasks or method.prior == "must":
        parser.error(f"--method {args.method} is none for this loop; expected one that trains a classifier from labels")
    if not args.dry_run and os.path.isdir(args.output_dir) and os.listdir(args.output_dir):
        parser.error(f"--output-dir {args.output_dir} is not empty; give another, so that no model is written over")
    return args


def main() -> None:
    args = flags()
    accelerator = Accelerator(cpu=not torch.cuda.is_available())
    device, rank, world = accelerator.device, accelerator.process_index, accelerator.num_processes
    set_seed(args.seed)

    # data: which images are labeled, which are held out
    dataset = load_source(args.dataset)
    split = make_split(dataset, args.num_labels, seed=args.seed, class_balanced=True, test_fraction=0.2)
    at, names = split.resolve(dataset), split.class_names

    # network, which says how it wants its images; they are decoded once and lie on the device
    start = dict(pretrained=args.pretrained, class_names=names, image_size=args.image_size, crop_pct=1.0)
    model = create_classifier(args.model, len(names), **start)
    store = dict(square_of(model.preprocessing), device=device)
    cache, test = build_cache(dataset, at.train, **store), build_cache(dataset, at.test, **store)
    if not args.pretrained:
        mean, std = square_statistics(cache)
        model.config.pretrained_cfg.update(mean=mean, std=std)
    look = dict(size=args.image_size, mean=model.preprocessing["mean"], std=model.preprocessing["std"])

    # method: an Objective gives the loss of a batch, and averages the weights after each step
    facts = dict(num_classes=len(names), num_images=len(cache), num_labeled=len(at.labeled))
    objective = build_objective(args.method, model, {}, **facts).to(device)

    # views: the method says which kinds of view it wants of an image; a stream draws images and makes the views
    def stream(name: str, kinds: dict[str, str], members: torch.Tensor, per_step: int, targets=None) -> ViewStream:
        views = {key: build_view(kind, flip=args.flip, color=args.color, **look) for key, kind in kinds.items()}
        where = dict(name=name, seed=args.seed, rank=rank, world=world)
        return ViewStream(cache, members, per_step, Separate(views), targets=targets, **where)

    read = np.isin(at.labeled, cache.indices)  # not those of images that cannot be read
    known, labels = labeled_positions(cache, at.labeled), torch.as_tensor(at.labels[read])
    labeled = stream("labeled", objective.labeled_views, known, args.batch_size, labels)
    everything, per_step = torch.arange(len(cache)), args.batch_size * args.unlabeled_ratio
    unlabeled = stream("unlabeled", objective.unlabeled_views, everything, per_step)

    def accuracy() -> float:
        logits = logits_of(objective.evaluated, test, build_view("eval", **look))
        return classification.accuracy(logits.numpy(), dataset.labels[test.indices])

    optimizer = torch.optim.SGD(
        objective.model.parameters(), lr=args.learning_rate, momentum=0.9, nesterov=True, weight_decay=5e-4
    )
    trained, optimizer = accelerator.prepare(objective, optimizer)  # `objective` is what lies inside `trained`
    steps = 2 if args.dry_run else args.max_steps
    batches = zip(labeled(0), unlabeled(0), strict=False)  # both are endless
    for step in range(steps):
        few, many = next(batches)
        t = step / steps  # progress in [0, 1)
        for group in optimizer.param_groups:
            group["lr"] = args.learning_rate * learning_rate("fixmatch", t)
        out = trained({"labeled": few, "unlabeled": many}, t)  # "loss", and scalars to log
        accelerator.backward(out["loss"])
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        objective.after_step(t)
        if (step + 1) % max(1, steps // 10) == 0:
            said = "  ".join(f"{name} {value.item():.3f}" for name, value in out.items())
            accelerator.print(f"step {step + 1}/{steps}  {said}  test accuracy {accuracy():.2%}", flush=True)
            objective.train()
    if accelerator.is_main_process and not args.dry_run:
        objective.evaluated.save_pretrained(args.output_dir)
        print(f"saved to {args.output_dir}; try it: hf-lowlabel predict IMAGES --model {args.output_dir}")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:  # bad input, in one sentence
        raise SystemExit(f"error: {error}") from None
