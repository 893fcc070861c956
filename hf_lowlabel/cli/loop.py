"""The verbs loop and review: labeling in rounds, and checking labels."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..commands import MASKS, SOURCE, command, data_flags as data_flags_given
from ..errors import UserError, above_zero, at_least
from ..text import say
from .flags import Parser, data_source, flag, label_flags, mask_flags, refuse_absent, search_flags
from .output import json_flag, print_json

FIRST = ("labels", "split", "num_labels", "class_balanced", "test_fraction")


def loop(argv: list[str]) -> int:
    args = _parser().parse_args(argv)
    given = vars(data_source(args))
    at_least("budget", args.budget, 1)
    at_least("per_round", args.per_round, 1)
    above_zero("minutes", args.minutes)
    refuse_absent(args, given["dataset"], args.task)
    data = {k: v for k, v in given.items() if k in SOURCE and k != "dataset"}
    of_mask = data_flags_given(given, MASKS)
    from dataclasses import asdict

    from ..labeling.answer_kinds import kind_of
    from ..labeling.pages import label
    from ..ladder.rounds import State, loop

    rest = dict(vars(args))
    of_masks = kind_of(args.task).page == "mask"
    if of_mask and not of_masks:
        raise UserError(f"{flag(next(iter(of_mask)))} is only for masks. Leave it out, or give --task segmentation.")
    if (assist := rest.pop("assist")) and not of_masks:
        raise UserError("--assist is for masks. Leave it out, or give --task segmentation.")
    data |= of_mask
    as_json, page, browser = rest.pop("json"), not rest.pop("no_page"), not rest.pop("no_browser")
    first = {name: rest.pop(name) for name in FIRST}

    told: list[Any] = []  # rounds of this call: --partial is of its first page

    def ask(folder: Path, run: Path | None) -> None:
        begins = dict(model=str(run)) if of_masks and run is not None else {}  # with the masks of that model
        which = "with those that have an answer" if args.partial and not told else "once all have an answer"
        label(folder, open_browser=browser, assist=assist, then=f"the loop resumes, {which}", **begins)

    def tell(state: State) -> None:
        told.append(state)
        if not as_json:
            say(f"\n{state}\n", flush=True)

    state = loop(
        given["dataset"],
        ask=ask if page and not as_json else None,
        tell=tell,
        data=data,
        first=first,
        **rest,
    )
    if as_json:
        rounds = [asdict(one) for one in state.rounds]
        print_json({"rounds": rounds, "to_label": state.to_label, "open": state.open})
        return 0
    again = "the same command again"
    if state.to_label is None:
        table = "" if told and told[-1].rounds == state.rounds else f"{state}\n"  # told just now
        say(f"{table}The model is {state.rounds[-1].folder}.")
    else:
        answers = state.to_label / ("masks" if of_masks else "labels.csv")
        page_of = command("label", state.to_label, model=state.run if of_masks else None)
        where = f"{answers} (or on its page: {page_of})"
        what = "mask" if of_masks else "label"
        say(f"{state.open} images wait for a {what} in {where}; then {again}. --partial goes on without them.")
    return 0


def review(argv: list[str]) -> int:
    parser = Parser(
        prog="hf-lowlabel review",
        description="Check what `auto` flags: doubtful labels, copies with different labels or among the test images, "
        "outliers among labeled images. Your answer on the labeling page replaces the label; 'none of these' removes "
        "it, 'unsure' and 'skip' leave it. What you have answered is not shown again after a run that learned from it.",
    )
    parser.add_argument(
        "run", metavar="RUN", help="folder that `hf-lowlabel auto` wrote, or one of the rounds of `loop`"
    )
    parser.add_argument("--output", help="folder to write (default: RUN/review; masks are corrected where they are)")
    parser.add_argument("--device", help="for masks: 'cpu' to use no GPU")
    parser.add_argument("--no-page", action="store_true", help="no page: you fill in labels.csv by other means")
    parser.add_argument("--no-browser", action="store_true", help="print the address of the page only")
    json_flag(parser)
    args = parser.parse_args(argv)
    from ..labeling.labels import Asked
    from ..labeling.next_steps import after_labels
    from ..labeling.other_rounds import goes_on
    from ..labeling.pages import label
    from ..ladder.review import SAME_LOOP, review
    from ..ladder.review_masks import of_masks

    if of_masks(Path(args.run)):
        return _review_masks(args)
    folder, count = review(args.run, args.output)
    if args.json:
        print_json({"folder": folder if count else None, "images": count})
    elif not count:
        say(f"Nothing in {args.run} needs to be checked.")
    else:
        then = after_labels(folder, Asked.load(folder), Path(args.run))
        if goes_on(folder):  # a run of its own would take the answers out of the rounds
            then = SAME_LOOP
        many = "images" if count > 1 else "image"
        say(f"{count} {many} to check: {folder}; then {then}", flush=True)
        if not args.no_page:
            label(folder, open_browser=not args.no_browser, then=then)
    return 0


def _review_masks(args: argparse.Namespace) -> int:
    from ..labeling.pages import label
    from ..ladder.review_masks import NAME, review_masks

    if args.output:
        raise UserError("Masks are corrected where they are, beside the images. Leave out --output.")
    found = review_masks(args.run, args.device)
    if args.json:
        shown = [{"image": id, **one._asdict()} for id, one in found.images.items()]
        print_json({"folder": found.folder, "images": shown, "no_page": found.no_page or None})
        return 0
    if not found.images:
        say(f"No mask of {args.run} needs to be checked.")
        return 0
    for id, one in found.images.items():
        say(f"{id}: {one.why}")
    say(f"{len(found.images)} masks to check; {Path(args.run) / NAME} lists them.", flush=True)
    if found.no_page:
        say(found.no_page)
    elif not args.no_page:
        where = dict(task=found.task, split=found.split, classes=found.classes, model=args.run, only=found.images)
        where |= {"value_range": found.value_range, "mask_format": found.mask_format}
        label(found.folder, open_browser=not args.no_browser, then=found.then, **where)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="hf-lowlabel loop",
        description="Label in rounds: choose images worth labeling, show them on a page (Ctrl-C when you are done; "
        "masks start from those of the last model), train on all labels with `auto`, and choose the next images. "
        "OUTPUT_DIR holds everything, so the same command resumes. Each round ends with an estimate of the gain of "
        "another.",
    )
    parser.add_argument(
        "dataset",
        metavar="DATA",
        help="Hub id, local folder (a folder for each class, and unlabeled/ for the rest), parquet, or 'digits'",
    )
    masks = mask_flags(parser, "masks (--task segmentation), as in finetune")
    masks.add_argument("--assist", metavar="SAM", help="on the page for masks, as for `label`")
    parser.add_argument("--output-dir", default="runs/loop", help="folder of all rounds (default: runs/loop)")
    parser.add_argument(
        "--budget",
        type=int,
        help="if no image has a label: how many to label first (default: 40, 20 with masks, or all if fewer)",
    )
    parser.add_argument("--per-round", type=int, default=20, help="images to label in each further round (default: 20)")
    parser.add_argument("--partial", action="store_true", help="go on without the images that have no answer")
    parser.add_argument("--no-page", action="store_true", help="no page: you fill in labels.csv by other means")
    parser.add_argument("--no-browser", action="store_true", help="print the address of the page only")
    label_flags(parser, "initial labels (default: all in the data)")
    search_flags(parser, "minutes for `auto` per round")
    return parser
