"""What recipes share: flags, and settings of `pretrain` and `finetune` by the name of a data set or of a paper.

--dataset is one's own images, with labels as the library finds them. Beside --benchmark it is a local copy of that data
set, whose columns and splits have to be the same.
"""

from __future__ import annotations

import argparse

from hf_lowlabel import load_source, pretrain

DATA: dict[str, dict] = {
    "cifar10": dict(dataset="uoft-cs/cifar10"),
    "cifar100": dict(dataset="uoft-cs/cifar100", label_column="fine_label"),
    "svhn": dict(dataset="ufldl-stanford/svhn", dataset_config="cropped_digits", flip=False),
    "stl10": dict(dataset="jxie/stl10", unlabeled_dataset="jxie/stl10", unlabeled_dataset_split="unlabeled"),
    "imagenet": dict(dataset="ILSVRC/imagenet-1k", test_dataset_split="validation", streaming=True),
}
# the network and its image side in px that the literature trains from random weights
SMALL: dict[str, dict] = {
    "cifar10": dict(model="wrn_28_2", image_size=32),
    "cifar100": dict(model="wrn_28_8", image_size=32),
    "svhn": dict(model="wrn_28_2", image_size=32),
    "stl10": dict(model="wrn_37_2", image_size=96),
}
# how Xu et al. finetune on masks (section 4.2)
XU_MASKS: dict = dict(
    optimizer="adam",
    learning_rate=1e-5,
    head_lr=1.0,
    weight_decay=0.0,
    lr_scheduler_type="constant",
    unlabeled_ratio=1,
)


def arguments(parser: argparse.ArgumentParser, names: list[str], output: str) -> None:
    """The flags that every recipe has; names: data sets to choose from, none for a recipe of several at once."""
    parser.set_defaults(published=False)
    if names:
        parser.add_argument(
            "--benchmark", action=Published, default=names[0], choices=names, help=f"data set (default: {names[0]})"
        )
        parser.add_argument("--dataset", help="your own images; beside --benchmark a copy of that data set")
        parser.add_argument("--unlabeled-dataset", help="a local copy of the images without labels (STL-10)")
    parser.add_argument("--seed", type=int, default=0, help="decides labels, weights and views")
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"))
    _ending(parser, output)


def mask_arguments(parser: argparse.ArgumentParser, output: str, seed: int = 0) -> None:
    """The flags that every recipe of segmentation ends with."""
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"))
    parser.add_argument("--seed", type=int, default=seed)
    _ending(parser, output)


def _ending(parser: argparse.ArgumentParser, output: str) -> None:
    parser.add_argument("--output-dir", default=output)
    parser.add_argument("--resume", action="store_true", help="go on where an earlier launch stopped")
    parser.add_argument("--dry-run", action="store_true", help="two steps of each stage; nothing is kept")


class Published(argparse.Action):
    """--benchmark, which tells a copy of a published data set from one's own images."""

    def __call__(self, parser, namespace, values, option_string=None):
        namespace.benchmark, namespace.published = values, True


def is_own(args: argparse.Namespace) -> bool:
    """Whether the images are the user's own."""
    return bool(args.dataset) and not args.published


def name_of(args: argparse.Namespace) -> str:
    """The data set, in names of folders and in results."""
    return "own" if is_own(args) else args.benchmark


def common(args: argparse.Namespace, benchmark: str | None = None) -> dict:
    """Settings that all stages of a recipe share; benchmark: of a recipe of several data sets."""
    data = dict(DATA[benchmark or args.benchmark])
    if benchmark is None:
        if args.dataset:
            data = dict({} if is_own(args) else data, dataset=args.dataset, dataset_config=None)
        if args.unlabeled_dataset:
            data |= dict(unlabeled_dataset=args.unlabeled_dataset)
    return dict(data, **run_settings(args))


def run_settings(args: argparse.Namespace) -> dict:
    """Settings that say how the stages run, whatever the data."""
    return dict(seed=args.seed, precision=args.precision, resume=args.resume, dry_run=args.dry_run)


def for_pretrain(settings: dict) -> dict:
    """The part of them that `pretrain` takes."""
    return {k: v for k, v in settings.items() if k != "test_dataset_split"}


def pretrained(start: dict, **settings) -> dict:
    """`start` of finetuning after `pretrain` with these settings: its network, or the same after a dry run."""
    run = pretrain(**start, **settings)
    return start if settings["dry_run"] else dict(model=str(run.folder))


def without_strong_views(method: str) -> dict:
    """A method of segmentation without strong views: CutMix sees none, neither does its baseline."""
    return dict(method=method, method_args=dict(strong=False) if method == "supervised" else {})


def source_of(settings: dict):
    """The images of these settings, opened."""
    return load_source(
        settings["dataset"], config=settings.get("dataset_config"), label_column=settings.get("label_column")
    )
