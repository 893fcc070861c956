"""Flags that several verbs have: where images are, what their labels and masks mean, which labels there are."""

from __future__ import annotations

import argparse
import itertools
import re

from ..arguments import DataArguments
from ..commands import MASKS, SOURCE
from ..errors import UserError, unknown
from ..tasks import EMBEDDED, check_task
from ..there import refuse_missing_data, refuse_missing_labels, refuse_missing_split

UNLABELED = (
    "`pretrain` and `finetune` have it. Here images without a label lie in a folder unlabeled/ beside those of the "
    "classes, or have no row in the table of labels."
)
LABELS = {  # verb -> where labels in a table go that has no --labels
    "evaluate": "Put the table beside the images, as labels.csv; a column split in it says which are for the test.",
    "priors": "Read the table with `hf-lowlabel split --from TABLE --dataset DATA --output split.json`, and give "
    "--split split.json.",
}


class Parser(argparse.ArgumentParser):
    """One that offers the nearest flag for a flag there is none of, before it asks for what is missing."""

    def parse_args(self, args=None, namespace=None):  # type: ignore[override]
        flags = [name for name in self._option_string_actions if name.startswith("--")]
        for word in itertools.takewhile(lambda word: word != "--", args or ()):
            name = word.partition("=")[0]
            if re.fullmatch(r"--[A-Za-z][\w-]*", name) and not any(flag.startswith(name) for flag in flags):
                if (plain := name.replace("_", "-")) in flags:
                    raise UserError(f"{name} is written {plain}.")
                known = {"--unlabeled-dataset": UNLABELED, "--labels": LABELS.get(self.prog.split()[-1])}
                if advice := known.get(name):
                    raise UserError(f"There is no {name} of {self.prog.split()[-1]}. {advice}")
                raise unknown("flag", name, flags)
        return super().parse_args(args, namespace)


def label_flags(parser: argparse.ArgumentParser, title: str):
    """Which labels `auto` begins with. Returns their group."""
    labels = parser.add_argument_group(title)
    labels.add_argument(
        "--labels", help="finished labels: labels.csv, a folder of `select` or of a `loop`, a Label Studio export"
    )
    labels.add_argument("--split", help="manifest of labeled and held-out images")
    labels.add_argument("--num-labels", type=int, help="labels to keep, drawn by seed")
    labels.add_argument("--class-balanced", action="store_true", help="draw from all classes, as evenly as can be")
    labels.add_argument(
        "--test-fraction", type=float, default=0.0, help="share of the labeled images to test on (default: 0)"
    )
    return labels


def max_bad_flag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--max-bad",
        type=share,
        default=0.01,
        metavar="FLOAT",
        help="share of unreadable images that is left out and listed; above it nothing is computed (default: 0.01)",
    )


def share(text: str) -> float:
    """A number from 0 to 1; argparse makes its error of any other."""
    value = float(text)
    if not 0 <= value <= 1:
        raise ValueError
    return value


def data_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dataset-config", help="configuration of a Hub data set")
    parser.add_argument("--dataset-revision", help="revision of a Hub data set")
    parser.add_argument("--image-column", help="column that holds the image")
    parser.add_argument("--label-column", help="column that holds the class")
    parser.add_argument(
        "--no-label",
        nargs="+",
        default=[],
        metavar="WORD",
        help="words in a table that mean no label (default: nan none ..)",
    )
    parser.add_argument("--skip-missing", action="store_true", help="leave out rows of a table that name no image")
    parser.add_argument("--skip-conflicts", action="store_true", help="leave images unlabeled that have two labels")
    parser.add_argument(
        "--value-range", nargs=2, type=float, default=[], metavar=("LOW", "HIGH"), help="black and white of deep images"
    )
    parser.add_argument(
        "--pages",
        action="store_true",
        help="each page of a TIFF and frame of a GIF is an image, held out with the others of its file",
    )


def mask_flags(parser: argparse.ArgumentParser, title: str):
    """What masks mean; the group, for more flags."""
    masks = parser.add_argument_group(title)
    masks.add_argument("--mask-column", help="column that holds the mask")
    masks.add_argument(
        "--classes", nargs="+", metavar="NAME", default=[], help="classes in the order of their values, or a text file"
    )
    masks.add_argument("--mask-format", choices=("index", "binary", "colors"), help="what a mask's pixels are")
    masks.add_argument(
        "--mask-ignore", nargs="+", type=int, metavar="INT", default=[], help="values that take no part, beside 255"
    )
    masks.add_argument("--instances", action="store_true", help="values are numbers of objects, all of one class")
    return masks


def refuse_absent(args: argparse.Namespace, dataset: str | None, task: str | None = None) -> None:
    """UserError for a task there is none of, and for data, a manifest and labels that are not there."""
    if task is not None:
        check_task(task)
    if dataset is not None:
        refuse_missing_data(dataset, EMBEDDED.values() if task is None else [EMBEDDED[task]])
    refuse_missing_split(getattr(args, "split", None))
    refuse_missing_labels(getattr(args, "labels", None))


def data_source(args: argparse.Namespace) -> DataArguments:
    """What --dataset, `data_flags` and `mask_flags` said, taken out of `args`."""
    names = [*SOURCE, *(MASKS if hasattr(args, "mask_format") else ())]
    source = DataArguments(**{name: getattr(args, name) for name in names})
    for name in names:
        delattr(args, name)
    return source
