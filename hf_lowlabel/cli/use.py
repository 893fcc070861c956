"""The verbs that use a finished model: evaluate, predict; and shrink, which copies photos at a smaller size."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..errors import at_least
from ..missing_inputs import refuse_missing_images, refuse_no_model, refuse_written
from ..text import say
from .flags import Parser, data_flags, mask_flags, max_bad_flag, refuse_absent
from .output import json_flag, print_json


def evaluate(argv: list[str]) -> int:
    parser = Parser(
        prog="hf-lowlabel evaluate",
        description="Metrics of a classifier or a segmenter on labeled images. A segmenter that sees images at a "
        "stored size (--stored-size, or one that auto chose) is scored on images and masks of that size.",
    )
    parser.add_argument("--model", required=True, help="run folder, saved model or Hub id")
    parser.add_argument("--dataset", required=True, help="Hub id, local folder, parquet, or 'digits'")
    parser.add_argument(
        "--dataset-split", help="split to evaluate on (default: the manifest's test images, else 'test')"
    )
    parser.add_argument("--split", help="manifest of the test images (default: split.json of the run folder)")
    data_flags(parser)
    max_bad_flag(parser)
    masks = mask_flags(parser, "segmenters (default: as the run folder was trained)")
    masks.add_argument(
        "--window", type=int, help="side in px of a window that slides over the images (default: whole images)"
    )
    _threshold_flag(parser)
    _task_flag(parser)
    parser.add_argument("--output", help="write metrics (JSON) and pictures to this folder")
    parser.add_argument("--overwrite", action="store_true", help="replace an output that is there already")
    parser.add_argument("--card", action="store_true", help="also write the result into the card of the run folder")
    json_flag(parser)
    args = parser.parse_args(argv)
    refuse_absent(args, args.dataset, args.task)
    from ..api import evaluate
    from ..distributed import is_main_process
    from ..prediction import task_of
    from ..training.setup import logging_level

    logging_level(is_main_process())  # how far it is, now and then
    as_json = args.__dict__.pop("json")
    metrics, task = evaluate(**vars(args)), task_of(args.model)
    if as_json:
        print_json(metrics)
        return 0
    from ..hub.card_parts import columns

    shown = columns(task, [metrics], len(metrics.get("class_names") or ()))
    for name in ("images", *(metric.key for metric in shown)):
        if name in metrics:
            value, error = metrics[name], metrics.get(f"{name}_error")
            more = f" ± {error:.4f}, one standard error over the images" if error else ""
            say(f"{name:20} {value:.4f}{more}" if isinstance(value, float) else f"{name:20} {value}")
    for line in task.console(metrics):
        say(line)
    if args.output is not None:
        made = sorted(file.name for file in Path(args.output).glob("*.png"))
        say(f"wrote {', '.join(['metrics.json', *made])} to {args.output}")
    return 0


def predict(argv: list[str]) -> int:
    parser = Parser(
        prog="hf-lowlabel predict",
        description="Class and confidence for images; or masks and overlays of them. A multi-label model names the "
        "classes above a probability of --threshold, and the table has the probability of each.",
    )
    parser.add_argument("images", nargs="+", help="image files or folders (recursive)")
    parser.add_argument("--model", required=True, help="run folder, saved model or Hub id")
    parser.add_argument(
        "--output",
        help="file to write: .csv or .parquet (default: predictions.csv); "
        "for a segmenter a folder with masks/, overlays/ and masks.csv (default: predictions)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an output that is there already")
    parser.add_argument("--top", type=int, default=1, help="classes listed for every image (default: 1)")
    parser.add_argument("--batch-size", type=int, default=64, help="images at a time (default: 64)")
    parser.add_argument("--device", help="'cpu' to leave a GPU alone")
    parser.add_argument("--revision", help="revision of a model on the Hub")
    parser.add_argument("--pages", action="store_true", help="each TIFF page and GIF frame, not only the first")
    parser.add_argument("--window", type=int, help="segmenters: side in px of a sliding window (default: whole images)")
    _threshold_flag(parser)
    _task_flag(parser)
    json_flag(parser)
    args = parser.parse_args(argv)
    at_least("batch_size", args.batch_size, 1)
    refuse_missing_images(args.images)
    refuse_absent(args, None, args.task)
    refuse_no_model(args.model)
    if args.output is not None and Path(args.output).is_file():  # of a folder of masks the model says more
        refuse_written(args.output, args.overwrite)
    from ..distributed import is_main_process
    from ..prediction import predict, predictions, task_of
    from ..training.setup import logging_level

    logging_level(is_main_process())  # how far it is, now and then
    as_json = args.__dict__.pop("json")
    check = task_of(args.model, args.task, args.revision).check_output
    args.output = check("predictions.csv") if args.output is None else args.output
    place = check(args.output)
    if as_json:
        rows, skipped = predict(**vars(args))
        print_json({"output": place, "predictions": rows, "skipped": skipped})
        return 0
    skipped, count, such = [], 0, ""
    for row in predictions(skipped=skipped, **vars(args)):
        count, such = count + 1, such or f", such as {row['class']!r}" if "class" in row else ""
    unread = f", {len(skipped)} unreadable images skipped" if skipped else ""
    say(f"wrote {count} predictions to {place}{unread}")
    if count and Path(args.model).is_dir() and not Path(args.model, "run.json").is_file():
        say(f"{args.model} has no run.json that tells what it was trained for: its classes are its own{such}")
    for name, reason in skipped[:20]:
        say(f"  skipped {name}: {reason}", file=sys.stderr)
    return 0


def shrink(argv: list[str]) -> int:
    parser = Parser(
        prog="hf-lowlabel shrink",
        description="Copy a folder of large photos at a smaller size; folders, names and tables of labels stay. The "
        "same command resumes a stopped call.",
    )
    parser.add_argument("dataset", help="folder of photos")
    parser.add_argument("--output-dir", required=True, help="folder to make")
    parser.add_argument(
        "--side",
        type=int,
        default=512,
        help="shorter side in px, at least twice what networks see (default: 512)",
    )
    max_bad_flag(parser)
    json_flag(parser)
    args = parser.parse_args(argv)
    from tqdm.auto import tqdm

    from ..data.shrinking import shrink
    from ..distributed import interactive

    with tqdm(desc="shrink", unit="img", disable=not interactive(), leave=False) as bar:

        def show(done: int, of: int) -> None:
            bar.total = of
            bar.update()

        done = shrink(args.dataset, args.output_dir, args.side, max_bad=args.max_bad, progress=show)
    if args.json:
        print_json({**vars(done), "folder": str(done.folder)})
        return 0
    kept = f", {done.copied} copied as they are" if done.copied else ""
    found = f", {done.there} were there" if done.there else ""
    found += f", {len(done.removed)} went whose photo is gone" if done.removed else ""
    before, after = (f"{size / 1e6:,.1f} MB" for size in (done.bytes_before, done.bytes_after))
    say(f"wrote {done.smaller} smaller images to {done.folder}{kept}{found}: {before} -> {after}")
    if done.renamed:
        old, new = next(iter(done.renamed.items()))
        say(f"{len(done.renamed)} have another ending now, such as {old} -> {new}; a table of labels has to name it")
    return 0


def _threshold_flag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--threshold", type=float, help="multi-label models: a class is named above this probability (default: 0.5)"
    )


def _task_flag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--task",
        help="expected task of the model (default: its own)",
    )
