"""The verb auto: finds the best model."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..commands import (
    MASKS,
    ROUND,
    SOURCE,
    auto_command,
    command,
    default_folder,
    elsewhere,
    free,
    refuse_finished,
    without,
)
from ..errors import UserError, above_zero, at_least
from ..files import read_json
from ..text import say
from .first_process import is_first
from .flags import Parser, data_source, label_flags, mask_flags, refuse_absent, search_flags
from .output import print_json


def auto(argv: list[str]) -> int:
    args = _parsed(argv)
    data = data_source(args)
    at_least("budget", args.budget, 1)
    at_least("to_label", args.to_label, 0)
    above_zero("minutes", args.minutes)
    refuse_absent(args, data.dataset, args.task)
    refuse_finished(args.output_dir or default_folder(data.dataset), ["hf-lowlabel", "auto", *argv])
    from ..ladder.answers import tell_budget
    from ..ladder.auto import NoLabels, auto
    from ..tasks import get_task

    if is_first():
        tell_budget(args.budget, vars(args), get_task(args.task), data)
    given = {k: v for k, v in vars(args).items() if k not in ("budget", "no_browser", "json")}
    where = {k: v for k, v in vars(data).items() if k in (*SOURCE, *MASKS)}
    try:
        best = auto(**where, **given)
    except NoLabels as error:
        if not error.on_page or args.json:  # a program is not asked to label
            raise
        usual, count = args.budget is None, args.budget or min(error.budget, error.images)
        if is_first():
            upto = "up to " * usual
            say(f"{str(error).partition('. Choose some (')[0]}: {upto}{count} are chosen to be labeled.")
        return _select(args, data, error.fingerprint, budget=count, at_most=usual)
    from ..distributed import is_main_process
    from ..labeling.next_steps import remember

    if not is_main_process():
        return 0
    if args.features is None and (kept := best.folder / "features").is_dir():  # for the next round too
        args.features = str(kept)
    if best.to_label is not None:
        remember(best.to_label, of_round(args))
    if args.json:
        advice = read_json(best.folder / "advice.json")
        ladder, metrics = best.run.recorder.ladder, best.run.metrics
        print_json(
            {"folder": best.folder, "to_label": best.to_label, "ladder": ladder, "metrics": metrics, "advice": advice}
        )
        return 0
    from ..api.summary import summarise
    from ..labeling.answer_kinds import kind_of
    from ..labeling.mask_places import why_unpainted
    from ..ladder.report import why_less
    from ..records import why_kept

    say()
    for row in best.run.recorder.ladder:
        value = "    –" if row["by_labels"] is None else f"{100 * row['by_labels']:5.1f}"
        say(f"{'*' if row['kept'] else ' '} {value} %  {row['name']}")
    title = get_task(args.task).score.title
    ladder = best.run.recorder.ladder
    whys = [f"(* kept; {title}, cross-validated)", why_less(ladder, best.advice.accuracy), why_kept(ladder)]
    say(f"{' '.join(filter(None, whys))}\n\n{best.advice}\n")
    summarise(best.run)
    if later := best.advice.later:
        longer = [*without("--minutes", ["hf-lowlabel", "auto", *argv]), "--minutes", str(max(later.values()))]
        say(f"with more time: {elsewhere(longer, best.folder)}")
    say(f"look at {best.folder / 'advice.html'}")
    if best.to_label is not None and kind_of(args.task).page == "mask":
        paint = command("label", best.to_label, model=best.folder)
        why = why_unpainted(data, best.to_label / "images")
        say(why or f"next: {paint}; it then prints the next command for the painted masks")
    elif best.to_label is not None:
        then = again(args, data, best.to_label, free(best.folder))
        say(f"next: {command('label', best.to_label)}, then {then}")
    return 0


def again(args: argparse.Namespace, data, labels: Path, output: Path) -> str:
    """The command with the labels of a folder, and what else holds for the next round."""
    said = {**{name: getattr(data, name) for name in (*SOURCE, *MASKS)}, "model": args.model, **of_round(args)}
    return auto_command(said, args.task, labels=labels, output_dir=output)


def of_round(args: argparse.Namespace) -> dict[str, Any]:
    """What was given that holds for every round, by the names of the flags."""
    usual = _parser()
    known = {name: getattr(args, name) for name in ROUND if name != "no_train"}
    given = {name: value for name, value in known.items() if value != usual.get_default(name)}
    return given if args.train else {**given, "no_train": True}


def _select(args: argparse.Namespace, data, fingerprint: str, **how: Any) -> int:
    """No label yet: choose images, and open the page to label them; that of a folder whose page was closed again."""
    from ..distributed import is_main_process
    from ..labeling.answer_kinds import kind_of
    from ..labeling.labels import Asked
    from ..labeling.next_steps import remember
    from ..labeling.pages import label
    from ..ladder.search_state import resumable
    from ..selection.by_model import is_finished
    from ..selection.verbs import select
    from ..tasks import get_task

    folder = Path(args.output_dir or default_folder(data.dataset)) / "to_label"
    model, keep = str(args.model[0]), str(args.features or folder.parent / "features")
    if is_finished(get_task(args.task), model):  # which sees images as it does
        seen: dict[str, Any] = {}
    else:
        seen = dict(image_size=args.image_size, features=keep, as_runs=True)
    if not (folder / "selection.json").is_file():
        with resumable(folder.parent):
            select(
                model,
                data,
                task=args.task,
                output=str(folder),
                seed=args.seed,
                device=args.device,
                max_bad=args.max_bad,
                classes=list(data.classes) or None,
                **seen,
                **how,
            )
    elif (there := Asked.load(folder)).fingerprint != fingerprint:
        raise UserError(f"The images in {folder} are from other data, {there.dataset}. Give another --output-dir.")
    if not is_main_process():
        return 0
    args.features = keep if seen and Path(keep).is_dir() else args.features
    remember(folder, of_round(args))
    if kind_of(args.task).page == "mask":  # the page knows what takes them over, of those that are painted
        say("Paint them on the page that opens; its last line is the next command.", flush=True)
        label(folder, open_browser=not args.no_browser)
        return 0
    then = again(args, data, folder, free(folder.parent / "first"))
    say(f"Label them on the page that opens, then: {then}", flush=True)
    label(folder, open_browser=not args.no_browser, then=then)
    return 0


def _parsed(argv: list[str]) -> argparse.Namespace:
    """The flags, with the data by its flag or bare."""
    parser = _parser()
    args = parser.parse_args(argv)
    bare = args.__dict__.pop("data")
    if bare is None and args.dataset is None:
        parser.error("auto needs DATA, such as a folder of images")
    if bare is not None and args.dataset is not None:
        raise UserError(f"The data are given twice, as {bare} and as --dataset {args.dataset}. Give one of them.")
    args.dataset = args.dataset if bare is None else bare
    return args


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="hf-lowlabel auto",
        description="Find the best model for images of which a few are labeled, within some minutes: heads on frozen "
        "features and label propagation, then finetuned networks (for masks and multi-label: trained networks), "
        "chosen by cross-validation.",
    )
    parser.add_argument(
        "data",
        nargs="?",
        metavar="DATA",
        help="Hub id, local folder (a folder for each class, and unlabeled/ for the rest), parquet, or 'digits'",
    )
    parser.add_argument("--dataset", metavar="DATA", help="DATA, as a flag")
    labels = label_flags(parser, "labels (default: all there are in the data)")
    labels.add_argument(
        "--budget",
        type=int,
        help="if no image has a label: images to choose and label (default: 40, with masks 20, or all if fewer)",
    )
    words = parser.add_argument_group("class names, instead of labels or beside them")
    words.add_argument("--text-model", help="CLIP, SigLIP or other image-text model: Hub id or folder")
    words.add_argument("--class-names", nargs="+", default=[], help="NAME or NAME=WORDS (default: those of the data)")
    words.add_argument("--prompts", nargs="+", default=[], help="sentences with {} for the class")
    search_flags(parser, "how long it may take")
    parser.add_argument(
        "--to-label", type=int, default=20, help="images to choose for the next round of labels (default: 20; 0: none)"
    )
    parser.add_argument("--features", help="folder that caches features (default: OUTPUT_DIR/features)")
    parser.add_argument("--output-dir", help="run folder to write (default: runs/auto-DATA)")
    parser.add_argument(
        "--test-dataset-split", help="split to test on (default: that of the manifest, else test or validation)"
    )
    parser.add_argument("--stored-size", type=int, help="side of stored images (with masks the longer), in px")
    masks = mask_flags(parser, "masks (--task segmentation), as in finetune")
    masks.add_argument("--architecture", help="decoder (default: that of finetune)")
    parser.add_argument("--no-browser", action="store_true", help="do not open a browser")
    return parser
