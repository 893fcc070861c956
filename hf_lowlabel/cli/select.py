"""The verbs about which images are labeled: select, label, split, priors."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..arguments import DataArguments
from ..commands import MASKS, SOURCE, auto_command, command, data_flags as given_data
from ..errors import UserError, at_least
from ..text import say, series
from .first_process import is_first
from .flags import Parser, data_flags, data_source, flag, mask_flags, max_bad_flag, refuse_absent, setting_flags
from .output import json_flag, key_values, print_json

if TYPE_CHECKING:
    from ..data.splits.splits import Split


def split(argv: list[str]) -> int:
    args = _split_parser().parse_args(argv)
    _check_split(args)
    data = data_source(args)
    refuse_absent(args, data.dataset, args.task)
    from ..data.skipped import list_left_out
    from ..tasks import get_task
    from ..tasks.data_classes import refuse_foreign

    task = get_task(args.task)
    refuse_foreign(data, task)
    if args.labels is not None and task.labeling == "mask":
        return _split_masks(args, data)
    source = None if data.dataset is None else task.open(data)
    name, left_out = (args.labels, []) if source is None else (source.name, [*source.left_out])
    how = dict(class_balanced=args.class_balanced, validation=args.validation, test_fraction=args.test_fraction)
    if args.labels is None:
        split, of = task.draw_split(source, args.num_labels, seed=args.seed, **how), f" of {len(source)} images"
    else:
        from ..data.splits.splits import Split
        from ..labeling.importing import drawn_from, import_labels
        from ..tasks.data_classes import label_rules
        from ..training.class_counts import count_names, tell_misspelt

        several = task.labeling == "classes"
        split, found = import_labels(
            args.labels,
            source=source,
            base=Split.load(args.base) if args.base else None,
            new_classes=args.new_classes,
            allow_missing=args.allow_missing,
            rules=label_rules(data),
            several=several,
        )
        tell_misspelt(count_names([*split.labeled.values(), *split.held_labels.values()], several))
        if drawn_flags(args):
            split = drawn_from(split, source, args.num_labels, seed=args.seed, several=several, **how)
        left_out += found.left_out
        for note in found.notes:
            say(f"note: {note}", file=sys.stderr)
        of = f", {len(found.skipped)} skipped"
    split.save(args.output)
    list_left_out(left_out, name, Path(args.output).with_suffix(".left_out.csv"))
    if args.json:
        print_json(facts_of(split, args.output))
        return 0
    say(
        f"wrote {args.output}: {len(split.labeled)} labeled, {len(split.validation)} validation, {len(split.test)} test"
        f"{of} in {len(split.class_names)} classes{in_brackets(split.class_names)}; hash {split.hash[:12]}"
    )
    return 0


def _split_masks(args: argparse.Namespace, data: DataArguments) -> int:
    """Masks that were painted in a folder of `select` go beside the images of the data set."""
    from ..labeling.labels import Asked
    from ..labeling.mask_import import import_masks
    from ..labeling.next_steps import settings_so_far

    if data.dataset is None or not Path(str(data.dataset)).is_dir():
        raise UserError("Name the folder of the images with --dataset: painted masks are put beside them.")
    if drawn_flags(args) or args.base or args.new_classes:
        raise UserError("Masks are read whole from a folder of `select`: give --from, --dataset and --output alone.")
    split, classes = import_masks(args.labels, str(data.dataset), allow_missing=args.allow_missing)
    split.save(args.output)
    if args.json:
        print_json({**facts_of(split, args.output), "classes": classes})
        return 0
    folder = Path(args.labels)
    said = {**settings_so_far(folder, Asked.load(folder)), **given_data(vars(data), (*SOURCE, *MASKS))}
    then = auto_command(said, args.task, split=args.output, classes=[classes])
    say(
        f"wrote {args.output}: {len(split.labeled)} masks beside the images of {data.dataset}, "
        f"{len(split.class_names)} classes{in_brackets(split.class_names)}; next: {then}"
    )
    return 0


def facts_of(split: Split, output: str) -> dict[str, Any]:
    counts = {part: len(getattr(split, part)) for part in ("labeled", "validation", "test")}
    return {"output": output, **counts, "class_names": split.class_names, "hash": split.hash}


def _split_parser() -> argparse.ArgumentParser:
    parser = Parser(prog="hf-lowlabel split", description="Write a manifest of labeled and held-out images.")
    parser.add_argument("--task", default="classification", help="task of the labels (default: classification)")
    parser.add_argument(
        "--from",
        dest="labels",
        metavar="FILE",
        help="finished labels: the folder of `select`, labels.csv, or a Label Studio export (.json)",
    )
    parser.add_argument("--allow-missing", action="store_true", help="with --from: images without a row stay unlabeled")
    parser.add_argument("--new-classes", action="store_true", help="with --from: accept labels of unknown classes")
    parser.add_argument(
        "--base", help="with --from: manifest whose labels and held-out images are kept (default: that of select)"
    )
    parser.add_argument(
        "--dataset", help="Hub id, local folder, parquet, or 'digits'; with --from: check the labels against it"
    )
    parser.add_argument("--dataset-split", default="train", help="split to draw from (default: train)")
    data_flags(parser)
    mask_flags(parser, "masks (with --task segmentation)")
    setting_flags(parser, ("num_labels", "class_balanced", "validation"))
    parser.add_argument(
        "--test-fraction", type=float, default=0.0, help="share of the labeled images to test on (default: 0)"
    )
    parser.add_argument("--seed", type=int, default=0, help="decides the draw (default: 0)")
    parser.add_argument("--output", default="split.json", help="file to write (default: split.json)")
    json_flag(parser)
    return parser


def _check_split(args: argparse.Namespace) -> None:
    """Flags of `split` that do not go together, and a manifest that would be lost."""
    if Path(args.output).exists():
        raise UserError(f"{args.output} exists already. Give another --output, so that no manifest is lost.")
    if args.labels is None and args.dataset is None:
        raise UserError("Give --dataset, the data to draw from, or --from, the finished labels.")
    reading = [name for name in ("base", "new_classes", "allow_missing") if getattr(args, name)]
    if args.labels is None and reading:
        raise UserError(
            f"{flag(reading[0])} says how finished labels are read. Add --from with the labels, or leave it out."
        )
    if args.labels is not None and args.dataset is None and (given := drawn_flags(args)):
        raise UserError(f"{given[0]} draws among the images of --dataset. Name the data too.")


DRAWING = dict(num_labels=None, class_balanced=False, validation=0, test_fraction=0.0)  # flags and their defaults


def drawn_flags(args: argparse.Namespace) -> list[str]:
    """Those of `DRAWING` that are given."""
    return [flag(name) for name, default in DRAWING.items() if getattr(args, name) != default]


def select(argv: list[str]) -> int:
    parser = Parser(prog="hf-lowlabel select", description="Choose which images are worth labeling.")
    parser.add_argument("--budget", type=int, required=True, help="images to choose")
    parser.add_argument(
        "--output",
        required=True,
        help="folder to write: images, contact sheet, labels.csv, Label Studio tasks; to send it to somebody else, "
        "leave out its hidden .here.json, which alone holds paths from the root and out of the working directory",
    )
    parser.add_argument(
        "--strategy",
        help="as3l, random, class-balanced, k-medoids, coreset, usl or typiclust; with a finished run as --model "
        "badge, margin or entropy, for masks entropy, margin or uncertain-pixels: uncertain images far from "
        "labeled ones (default: as3l; with a finished run the first of its own)",
    )
    parser.add_argument(
        "--strategy-args", nargs="+", default=[], metavar="KEY=VALUE", help="arguments of the strategy, such as k=20"
    )
    parser.add_argument("--split", help="manifest whose held-out images are left out, and whose labels count as given")
    parser.add_argument(
        "--labels", help="instead, finished labels: labels.csv, a folder of `select` (default: those of a finished run)"
    )
    parser.add_argument("--classes", nargs="+", metavar="NAME", help="class names, or a text file with one per line")
    parser.add_argument(
        "--prior", help="file of `priors` (for instance from class names): choose evenly over its pseudo-classes"
    )
    parser.add_argument(
        "--task", default="classification", help="classification, multilabel or segmentation (default: classification)"
    )
    feature_flags(parser, "OUTPUT/features.safetensors")
    json_flag(parser)
    args = parser.parse_args(argv)
    at_least("budget", args.budget, 1)
    refuse_absent(args, args.dataset, args.task)
    from ..labeling.answer_kinds import kind_of
    from ..selection.verbs import select

    args.strategy_args = key_values(args.strategy_args, "--strategy-args")
    as_json = args.__dict__.pop("json")
    done = select(dataset=data_source(args), **vars(args))
    if as_json:
        print_json(vars(done))
        return 0
    facts = done.report
    if facts.get("copies"):
        held = f", {count} of them of held-out images" if (count := facts["copies_of_held_out"]) else ""
        say(
            f"left out {facts['copies']} copies of other images{held}, such as {facts['copies_shown'][0][0]} of "
            f"{facts['copies_shown'][0][1]}"
        )
    for id, others in list(facts.get("near_copies", {}).items())[:5]:
        say(f"chosen {id} is nearly identical to {', '.join(others[:3])}")
    if "classes_covered" in facts:
        say(f"classes covered: {facts['classes_covered']} of {facts['classes']}")
    if facts:
        say(
            f"wrote {done.folder}: {len(done.ids)} images; look at index.html, then `{command('label', done.folder)}`"
            if kind_of(args.task).page and not facts.get("not_painted")
            else f"wrote {done.folder}: {len(done.ids)} images and tasks for Label Studio"
        )
    return 0


def in_brackets(names: list[str]) -> str:
    """The classes, so that folders which are none are seen at once."""
    return f" ({series(names[:10])}{', ...' if len(names) > 10 else ''})" if names else ""


def priors(argv: list[str]) -> int:
    parser = Parser(
        prog="hf-lowlabel priors",
        description="Prior pseudo-labels from the labels of a manifest, from the names of the classes, or from both.",
    )
    parser.add_argument("--split", help="manifest with the labels; not needed with --text-model")
    parser.add_argument(
        "--text-model", help="Hub id or folder of a CLIP or SigLIP: priors from the names of the classes"
    )
    parser.add_argument("--text-revision", help="revision of the text model on the Hub")
    parser.add_argument(
        "--classes",
        nargs="+",
        metavar="NAME",
        help="with --text-model: classes, each NAME or NAME=WORDS, or a file of them (default: those of the data)",
    )
    parser.add_argument(
        "--prompts",
        nargs="+",
        metavar="TEXT",
        help="with --text-model: sentences with {} for the class, or photo, satellite, texture, medical or plain "
        "(default: photo)",
    )
    parser.add_argument("--output", default="priors.safetensors", help="file to write (default: priors.safetensors)")
    parser.add_argument(
        "--propagation", default="clusters", help="clusters (AS3L) or label-spreading (default: clusters)"
    )
    parser.add_argument(
        "--clusters", type=int, nargs="+", metavar="K", help="clusters of each run (default: 1 to 6 times the classes)"
    )
    parser.add_argument(
        "--neighbors", type=int, help="neighbours of each image in the label-spreading graph (default: 50)"
    )
    parser.add_argument(
        "--balanced", action="store_true", help="give every class the same total weight, for similar class sizes"
    )
    parser.add_argument(
        "--hard",
        action="store_true",
        help="only the most likely class: label-spreading is too unsure for a confidence threshold",
    )
    parser.add_argument(
        "--no-finetune", dest="finetune", action="store_false", help="do not finetune the features (AS3L, Eq. 6)"
    )
    feature_flags(parser, "none kept", needs_model=False)
    json_flag(parser)
    args = parser.parse_args(argv)
    refuse_absent(args, args.dataset)
    from ..selection.prior_labels import manifest_beside, priors

    as_json = args.__dict__.pop("json")
    data = data_source(args)
    scores = priors(dataset=data, **vars(args))
    if as_json:
        print_json({"output": args.output, **scores})
    if as_json or not is_first():
        return 0
    say("  ".join(f"{k} {v:.4f}" if isinstance(v, float) else f"{k} {v}" for k, v in scores.items()))
    split = args.split or manifest_beside(args.output)
    holds = ("model_revision", "image_size", "seed", "device", "max_bad")
    more = {name: value for name in holds if (value := getattr(args, name)) != parser.get_default(name)}
    then = command("finetune", **given_data(vars(data)), model=args.model, prior=args.output, split=split, **more)
    say(f"wrote {args.output}; next: {then}")
    return 0


def feature_flags(parser: argparse.ArgumentParser, default: str, needs_model: bool = True) -> None:
    parser.add_argument(
        "--model", required=needs_model, help="timm name, local folder or Hub id whose features are compared"
    )
    parser.add_argument("--dataset", required=True, help="Hub id, local folder, parquet, or 'digits'")
    parser.add_argument("--dataset-split", default="train", help="split the images are in (default: train)")
    data_flags(parser)
    parser.add_argument(
        "--features",
        help=f"file (.safetensors) or folder of features, reused when model and data are the same (default: {default})",
    )
    parser.add_argument(
        "--image-size", type=int, help="side of the images the network sees, in px (default: the model's own)"
    )
    parser.add_argument("--model-revision", help="revision of a model on the Hub")
    parser.add_argument("--seed", type=int, default=0, help="decides clusters and draws (default: 0)")
    parser.add_argument("--device", help="'cpu' to leave a GPU alone")
    max_bad_flag(parser)
