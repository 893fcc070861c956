"""Flags that several verbs share: data, labels and masks."""

from __future__ import annotations

import argparse
import itertools
import re
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

from ..arguments import DataArguments, known_settings
from ..commands import MASKS, SOURCE
from ..errors import UserError, unknown
from ..fields import Setting, check
from ..missing_inputs import refuse_missing_data, refuse_missing_labels, refuse_missing_split
from ..tasks import EMBEDDED, check_task
from .output import json_flag

UNLABELED = (
    "`pretrain` and `finetune` have it. Here images without a label lie in a folder unlabeled/ beside those of the "
    "classes, or have no row in the table of labels."
)
LABELS = {  # verb -> where labels in a table go that has no --labels
    "evaluate": "Put the table beside the images, as labels.csv; a column split in it says which are for the test.",
    "priors": "Read the table with `hf-lowlabel split --from TABLE --dataset DATA --output split.json`, and give "
    "--split split.json.",
}

RESUME = dict.fromkeys(("auto", "loop", "shrink"), "The same command resumes where it was stopped.")
RESUME |= dict.fromkeys(("select", "priors"), "Run the same command again: it starts over.")


class Parser(argparse.ArgumentParser):
    """Suggests the nearest flag for an unknown one before it asks for missing ones; an error is one line, without the
    list of all flags."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}. See {self.prog} --help.")

    def parse_args(self, args=None, namespace=None):  # type: ignore[override]
        flags = [name for name in self._option_string_actions if name.startswith("--")]
        for word in itertools.takewhile(lambda word: word != "--", args or ()):
            name = word.partition("=")[0]
            if re.fullmatch(r"--[A-Za-z][\w-]*", name) and not any(flag.startswith(name) for flag in flags):
                if (plain := name.replace("_", "-")) in flags:
                    raise UserError(f"{name} is written {plain}.")
                verb = self.prog.split()[-1]
                known = {"--unlabeled-dataset": UNLABELED, "--labels": LABELS.get(verb), "--resume": RESUME.get(verb)}
                if advice := known.get(name):
                    raise UserError(f"There is no {name} of {verb}. {advice}")
                raise unknown("flag", name, flags)
        return super().parse_args(args, namespace)


def label_flags(parser: argparse.ArgumentParser, title: str):
    """Which labels `auto` begins with. Returns their group."""
    labels = parser.add_argument_group(title)
    labels.add_argument(
        "--labels", help="finished labels: labels.csv, a folder of `select` or of a `loop`, a Label Studio export"
    )
    labels.add_argument("--split", help="manifest of labeled and held-out images")
    setting_flags(labels, ("num_labels", "class_balanced"))
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


def as_flag(s: Setting) -> dict[str, Any]:
    """What argparse has to know of a setting."""
    help = s.text + ("" if s.default in (None, False, [], {}) else f" (default: {s.default})")
    help = help.replace("%", "%%")
    if s.kind is bool:
        return dict(action=argparse.BooleanOptionalAction, help=help)
    if s.kind is dict:
        return dict(nargs="+", metavar="KEY=VALUE", help=help)
    unit = s.meta.get("unit", "").upper()
    if s.kind is list:
        return dict(nargs="+", type=s.of, metavar="NAME" if s.of is str else s.of.__name__.upper(), help=help)
    kind = str if s.kind is object else s.kind
    return dict(type=kind, metavar=unit or (s.name.upper() if kind is str else kind.__name__.upper()), help=help)


def flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def setting_flags(parser: argparse._ActionsContainer, names: Iterable[str]) -> None:
    """Flags of settings that `arguments` declares, in its words and with its defaults."""
    known = known_settings()
    for name in names:
        parser.add_argument(flag(name), default=known[name].default, **as_flag(known[name]))


def data_flags(parser: argparse.ArgumentParser) -> None:
    """How the data are read, but for --dataset and --dataset-split, which each verb has in words of its own."""
    setting_flags(parser, [name for name in SOURCE if name not in ("dataset", "dataset_split")])


def mask_flags(parser: argparse.ArgumentParser, title: str):
    """What masks mean; the group, for more flags."""
    masks = parser.add_argument_group(title)
    setting_flags(masks, MASKS)
    return masks


def search_flags(parser: argparse.ArgumentParser, minutes: str) -> None:
    """What `auto` and a `loop` of it have in common. minutes: what --minutes limits."""
    parser.add_argument(
        "--model",
        nargs="+",
        default=["resnet18"],
        help="timm names, folders or Hub ids to try, for multilabel one (default: resnet18)",
    )
    parser.add_argument(
        "--task",
        default="classification",
        help="what is learned: classification, multilabel, segmentation (default: classification)",
    )
    parser.add_argument("--minutes", type=float, default=20.0, help=f"{minutes} (default: 20)")
    parser.add_argument(
        "--no-train", dest="train", action="store_false", help="only fit heads on frozen features: seconds beyond these"
    )
    parser.add_argument("--dataset-split", default="train", help="split the images are in (default: train)")
    data_flags(parser)
    parser.add_argument(
        "--image-size",
        type=int,
        help="side of the network's input, in px (default: its own); with masks the shorter side to which images are "
        "scaled down (default: what the time allows)",
    )
    parser.add_argument("--seed", type=int, default=0, help="decides the draw (default: 0)")
    parser.add_argument("--device", help="'cpu' to leave a GPU alone")
    max_bad_flag(parser)
    json_flag(parser)


def refuse_out_of_range(values: Mapping[str, Any]) -> None:
    """UserError for a setting, by its name, whose value is out of the range that is declared for it."""
    known = known_settings()
    for name, value in values.items():
        if name in known:
            check(known[name], value)


def refuse_absent(args: argparse.Namespace, dataset: str | None, task: str | None = None) -> None:
    """UserError for a setting out of its range, a task there is none of, and for data, a manifest and labels that are
    not there."""
    refuse_out_of_range(vars(args))
    if task is not None:
        check_task(task)
    if dataset is not None:
        refuse_missing_data(dataset, EMBEDDED.values() if task is None else [EMBEDDED[task]])
    refuse_missing_split(getattr(args, "split", None))
    refuse_missing_labels(getattr(args, "labels", None))


def data_source(args: argparse.Namespace) -> DataArguments:
    """What --dataset, `data_flags` and `mask_flags` said, taken out of `args`."""
    refuse_out_of_range(vars(args))
    names = [*SOURCE, *(MASKS if hasattr(args, "mask_format") else ())]
    source = DataArguments(**{name: getattr(args, name) for name in names})
    for name in names:
        delattr(args, name)
    return source
