"""The verbs that share a finished run: push, export, report, demo-app."""

from __future__ import annotations

import logging
from pathlib import Path

from ..errors import UserError
from ..text import say
from .flags import Parser
from .output import json_flag, print_json


def push(argv: list[str]) -> int:
    parser = Parser(
        prog="hf-lowlabel push",
        description="Put a finished run on the Hugging Face Hub in one commit: weights, configuration, card, split, "
        "metrics and pictures (predictions.png shows test images). Or publish a split manifest, as a configuration of "
        "a data set that others read with --split hub:ORG/NAME. May be repeated. Log in with `hf auth login`, or "
        "set HF_TOKEN.",
    )
    parser.add_argument("run", metavar="RUN", help="run folder, model folder with a card, or a split manifest (.json)")
    parser.add_argument("repo_id", metavar="ORG/NAME", help="repository, created if missing")
    parser.add_argument("--private", action="store_true", help="only for you and your organisation")
    parser.add_argument("--create-pr", action="store_true", help="open a pull request instead of writing")
    parser.add_argument("--revision", metavar="BRANCH", help="branch to push to (default: main)")
    parser.add_argument(
        "--as-smp", action="store_true", help="of a segmenter: the checkpoint that smp.from_pretrained loads"
    )
    parser.add_argument("--name", help="of a manifest: its configuration (default: data set, labels and seed)")
    parser.add_argument("--priors", metavar="FILE", help="of a manifest: prior pseudo-labels to publish with it")
    json_flag(parser)
    args = parser.parse_args(argv)
    _plain_log()
    manifest = args.run.endswith(".json")
    if manifest and args.as_smp:
        raise UserError(f"--as-smp is for the run of a segmenter, and {args.run} is a split manifest. Leave it out.")
    if not manifest and (args.name is not None or args.priors is not None):
        raise UserError(
            f"--name and --priors belong to a split manifest (.json), and {args.run} is none. Leave them out."
        )
    common = dict(private=args.private, create_pr=args.create_pr, revision=args.revision)
    if manifest:
        from ..hub.splits import push_split

        done = push_split(args.run, args.repo_id, name=args.name, priors=args.priors, **common)
    elif args.as_smp:
        from ..hub.smp_export import push_smp

        done = push_smp(args.run, args.repo_id, **common)
    else:
        from ..hub.push import push

        done = push(args.run, args.repo_id, **common)
    if args.json:
        print_json({"url": done.url, "pull_request": done.pull_request})
    else:
        say(done.pull_request or done.url)
    return 0


def export(argv: list[str]) -> int:
    parser = Parser(
        prog="hf-lowlabel export",
        description="Write a model as a file that runs without torch and this package (pip install "
        "'hf_lowlabel[export]', or [openvino]), checked against the model.",
    )
    parser.add_argument("model", metavar="RUN", help="run folder, saved model or Hub id")
    parser.add_argument("--format", default="onnx", help="kind of file: onnx, openvino (default: onnx)")
    parser.add_argument("--output", help="folder to write (default: RUN/onnx or RUN/openvino)")
    parser.add_argument(
        "--images", nargs="+", metavar="PATH", help="images or folders for the check, best your own (default: noise)"
    )
    parser.add_argument(
        "--int8",
        action="store_true",
        help="also write an 8-bit file, and report what that costs on the run's test images",
    )
    parser.add_argument("--revision", help="revision of a model on the Hub")
    json_flag(parser)
    args = parser.parse_args(argv)
    _plain_log()
    from dataclasses import asdict

    from ..hub.export import FORMATS, export

    how = dict(format=args.format, images=args.images, revision=args.revision, int8=args.int8)
    done = export(args.model, args.output, **how)
    if args.json:
        print_json(asdict(done))
        return 0
    print(
        f"{done}\nwrote {done.folder}: {FORMATS[args.format][1]}, preprocessing.json, README.md\n\nIn that folder:\n\n"
        f"{done.snippet}"
    )
    return 0


def report(argv: list[str]) -> int:
    parser = Parser(
        prog="hf-lowlabel report",
        description="One self-contained HTML page about a run, or several side by side: curves, confusion, "
        "calibration, t-SNE of the features at every stage, the worst mistakes as pictures. Opens without a network.",
    )
    parser.add_argument("runs", metavar="RUN", nargs="+", help="run folders")
    parser.add_argument("--output", help="file to write (default: report.html, with --table table.md)")
    parser.add_argument(
        "--table",
        action="store_true",
        help="one markdown table of all RUNs instead: methods by labels, mean, "
        "standard deviation over seeds and margin over the supervised baseline",
    )
    parser.add_argument("--quick", action="store_true", help="read only the runs' files: no t-SNE, no list of mistakes")
    json_flag(parser)
    args = parser.parse_args(argv)
    _plain_log()
    if args.table:
        from ..files import write_text
        from ..hub.table import methods_table

        text = methods_table(args.runs)
        path = Path(args.output or "table.md")
        write_text(path, text)
        print_json({"output": path, "table": text}) if args.json else say(text)
        return 0
    from ..hub import report as reports

    path = reports.report(args.runs, args.output or "report.html", compute=not args.quick)
    size = path.stat().st_size
    print_json({"output": path, "bytes": size}) if args.json else say(f"wrote {path} ({size / 1e6:.1f} MB)")
    return 0


def demo_app(argv: list[str]) -> int:
    parser = Parser(
        prog="hf-lowlabel demo-app",
        description="A page to try a model on (Gradio, pip install 'hf_lowlabel[demo]'): upload, camera or examples; "
        "classes with confidence and the nearest labeled images, or an overlay. Or the folder of a Space with it.",
    )
    parser.add_argument("run", metavar="RUN", help="run folder of a classifier or a segmenter")
    parser.add_argument(
        "--export-space", metavar="FOLDER", help="write a Space to this folder instead of starting the page"
    )
    parser.add_argument("--no-images", action="store_true", help="leave out labeled images and examples (your data)")
    parser.add_argument("--port", type=int, help="port of the page (default: the first free one from 7860)")
    parser.add_argument("--share", action="store_true", help="a public address for 72 hours, through gradio.live")
    json_flag(parser)
    args = parser.parse_args(argv)
    if args.json and not args.export_space:
        raise UserError("A page that is open has no answer to print. Give --export-space FOLDER with --json.")
    _plain_log()
    from ..hub.app import demo_app, export_space

    if not args.export_space:
        demo_app(args.run, port=args.port, images=not args.no_images, share=args.share)
        return 0
    folder = export_space(args.run, args.export_space, images=not args.no_images)
    if args.json:
        print_json({"folder": folder})
        return 0
    say(
        f"wrote {folder}; try it with `pip install -r {folder}/requirements.txt`, then `python {folder}/app.py`; "
        f"publish it with `hf upload ORG/NAME {folder} . --repo-type space`"
    )
    return 0


def _plain_log() -> None:
    """What the training verbs say; without torch, which a push has no use for."""
    logging.getLogger("hf_lowlabel").setLevel(logging.INFO)
