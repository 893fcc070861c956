"""hf-lowlabel VERB: the command line. Everything heavy is imported inside the verb, so that --help answers at once."""

from __future__ import annotations

import argparse
import dataclasses
import errno
import importlib
import sys
import warnings

from .arguments import FinetuneConfig, PretrainConfig, RunConfig, field_type, from_dict, read_yaml
from .cli_select import data_flags, max_bad_flag
from .errors import UserError, unknown
from .methods import find, hyperparameters, methods_for

VERBS = {
    "pretrain": "adapt a pretrained network to your images, without labels",
    "finetune": "train a classifier or a segmenter from a few labels and all your images",
    "evaluate": "metrics of a model on labeled images",
    "predict": "class and confidence for every image of a folder, as CSV or parquet; or masks",
    "select": "choose which images are worth labeling; writes a folder to label them in",
    "label": "label the images of such a folder in a browser, with the keyboard",
    "split": "draw which images are labeled, held out and tested on, or read finished labels; writes a manifest",
    "priors": "prior pseudo-labels of all images from the few labels, for finetune --prior",
    "push": "put a finished run, or a manifest, on the Hugging Face Hub",
    "report": "one HTML page about a run, or several side by side",
    "demo-app": "a page to try a model on; or the folder of a Space with it",
    "demo": "the whole chain on 1,797 embedded digits, 40 of them labeled; or on shapes with masks",
    "methods": "the methods there are, their papers and settings",
    "env": "versions and hardware, for a bug report",
}

_FIXES = {  # what a disk refuses -> (what was expected, what helps)
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), ("a place to write to", "free some space, or another folder")),
    errno.EROFS: ("a place to write to", "another folder"),
    **dict.fromkeys((errno.EACCES, errno.EPERM), ("the right to read and write there", "the right, or another folder")),
}


def main(argv: list[str] | None = None) -> int:
    """Run a command; returns the exit code. Bad input prints one message and returns 2."""
    argv = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(
        prog="hf-lowlabel",
        description=__doc__.split(":")[0] + ": many images, almost no labels",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="verbs:\n" + "\n".join(f"  {v:10} {text}" for v, text in VERBS.items()),
    )
    parser.add_argument("verb", metavar="VERB", help="what to do; `hf-lowlabel VERB --help` says more")
    if not argv or argv[0] in ("-h", "--help"):
        parser.print_help()
        return 0
    formatted, warnings.formatwarning = warnings.formatwarning, lambda message, *_: f"warning: {message}\n"
    try:
        if argv[0] not in VERBS:
            raise unknown("verb", argv[0], VERBS)
        return _COMMANDS[argv[0]](argv[1:]) or 0
    except UserError as e:
        print(f"error: {e}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 141
    except OSError as e:
        if e.errno not in _FIXES:
            raise
        expected, fix = _FIXES[e.errno]
        print(
            f"error: {e.strerror}{f': {e.filename}' if e.filename else ''}; expected {expected}; fix: {fix}",
            file=sys.stderr,
        )
        return 2
    finally:
        warnings.formatwarning = formatted


# ---- training ---------------------------------------------------------------------------------------------------------
def training_parser(cls: type[RunConfig]) -> argparse.ArgumentParser:
    """One flag per field of the configuration, with its help, choices and default."""
    parser = argparse.ArgumentParser(
        prog=f"hf-lowlabel {cls.verb}", description=cls.__doc__.partition("\n")[0], allow_abbrev=False
    )
    parser.add_argument("--config", metavar="FILE.yaml", help="read settings from a YAML file; flags win over it")
    for f in dataclasses.fields(cls):
        kind, _ = field_type(f, cls)
        flag, help = f"--{f.name.replace('_', '-')}", f.metadata["help"].replace("%", "%%")
        default = f.default if f.default is not dataclasses.MISSING else None
        help += f" (default: {default})" if default not in (None, False) else ""
        if f.name == "method":
            parser.add_argument(
                flag,
                metavar="NAME",
                default=argparse.SUPPRESS,
                help=f"{help}; one of {', '.join(methods_for(cls.verb))}",
            )
        elif kind is bool:
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS, help=help)
        elif kind is dict:
            parser.add_argument(flag, nargs="+", metavar="KEY=VALUE", default=argparse.SUPPRESS, help=help)
        elif kind is list:
            of = f.metadata.get("of", str)
            parser.add_argument(
                flag,
                nargs="+",
                type=of,
                metavar="NAME" if of is str else of.__name__.upper(),
                default=argparse.SUPPRESS,
                help=help,
            )
        else:
            parser.add_argument(
                flag,
                type=kind,
                metavar=kind.__name__.upper() if kind is not str else f.name.upper(),
                default=argparse.SUPPRESS,
                help=help + (f"; {', '.join(map(str, f.metadata['choices']))}" if "choices" in f.metadata else ""),
            )
    return parser


def parse_config(cls: type[RunConfig], argv: list[str]) -> RunConfig:
    """Settings from --config, then flags; an unknown flag is an error that names the nearest."""
    parser = training_parser(cls)
    given, rest = parser.parse_known_args(argv)
    if rest:
        flags = [a for action in parser._actions for a in action.option_strings]
        raise unknown(f"argument of {cls.verb}", rest[0].split("=")[0], flags)
    flags = vars(given)
    values = read_yaml(flags.pop("config")) if given.config else {}
    flags.pop("config", None)
    for name in ("method_args", "architecture_args"):
        if name in flags:
            flags[name] = {**values.get(name, {}), **key_values(flags[name], f"--{name.replace('_', '-')}")}
    return from_dict(cls, {**values, **flags})


def key_values(pairs: list[str], flag: str = "--method-args") -> dict[str, object]:
    """["tau=0.9", "name=x"] -> {"tau": 0.9, "name": "x"}."""
    import ast

    out: dict[str, object] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals:
            raise UserError(f"found {pair!r} in {flag}; expected KEY=VALUE, for example tau=0.9")
        try:
            out[key.replace("-", "_")] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            out[key.replace("-", "_")] = text
    return out


def _train(cls: type[RunConfig]):
    def command(argv: list[str]) -> int:
        config = parse_config(cls, argv)
        config.resolved()  # errors that need neither data nor torch
        from .training import runs

        run = (runs.pretrain if cls is PretrainConfig else runs.finetune)(config)
        runs.summarise(run)
        return 0

    return command


# ---- the rest ---------------------------------------------------------------------------------------------------------
def _evaluate(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="hf-lowlabel evaluate", description="Metrics of a classifier or a segmenter on labeled images."
    )
    parser.add_argument("--model", required=True, help="run folder, saved model or Hub id")
    parser.add_argument("--dataset", required=True, help="Hub id, local folder, parquet, or 'digits'")
    parser.add_argument(
        "--dataset-split", help="split to evaluate on (default: the manifest's test images, else 'test')"
    )
    parser.add_argument("--split", help="manifest whose test images are meant (default: split.json of the run folder)")
    data_flags(parser)
    max_bad_flag(parser)
    masks = parser.add_argument_group("segmenters (default: as the run folder was trained)")
    masks.add_argument("--mask-column", help="column that holds the mask")
    masks.add_argument(
        "--classes", nargs="+", metavar="NAME", default=[], help="classes in the order of their values, or a text file"
    )
    masks.add_argument("--mask-format", choices=("index", "binary", "colors"), help="what a mask's pixels are")
    masks.add_argument(
        "--mask-ignore", nargs="+", type=int, metavar="INT", default=[], help="values that take no part, beside 255"
    )
    masks.add_argument(
        "--window", type=int, help="side in px of a window that slides over the images (default: whole images)"
    )
    _task_flag(parser)
    parser.add_argument("--output", help="write metrics (JSON) and pictures to this folder")
    args = parser.parse_args(argv)
    from .training.serving import evaluate

    metrics = evaluate(**vars(args))
    for name in (
        "images",
        "accuracy",
        "top5_accuracy",
        "balanced_accuracy",
        "nll",
        "ece",
        "miou",
        "miou_all",
        "dice",
        "pixel_accuracy",
        "object_iou",
        "object_jaccard",
    ):
        if name in metrics:
            print(
                f"{name:20} {metrics[name]:.4f}" if isinstance(metrics[name], float) else f"{name:20} {metrics[name]}"
            )
    if "miou" in metrics:
        from .training.runs import per_class

        print("IoU  " + per_class(metrics))
    return 0


def _predict(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="hf-lowlabel predict", description="Class and confidence for images; or masks and overlays of them."
    )
    parser.add_argument("images", nargs="+", help="image files or folders (searched through)")
    parser.add_argument("--model", required=True, help="run folder, saved model or Hub id")
    parser.add_argument(
        "--output",
        default="predictions.csv",
        help="file to write: .csv or .parquet (default: predictions.csv); "
        "for a segmenter a folder (default: predictions)",
    )
    parser.add_argument("--top", type=int, default=1, help="classes listed for every image (default: 1)")
    parser.add_argument("--batch-size", type=int, default=64, help="images at a time (default: 64)")
    parser.add_argument("--device", help="'cpu' to leave a GPU alone")
    parser.add_argument("--revision", help="revision of a model on the Hub")
    parser.add_argument("--window", type=int, help="segmenters: side in px of a sliding window (default: whole images)")
    _task_flag(parser)
    args = parser.parse_args(argv)
    from .training.serving import folder_for, predict

    rows, skipped = predict(**vars(args))
    where = folder_for(args.output) if "mask" in rows[0] else args.output
    print(
        f"wrote {len(rows)} predictions to {where}" + (f", {len(skipped)} unreadable images skipped" if skipped else "")
    )
    for name, reason in skipped[:20]:
        print(f"  skipped {name}: {reason}", file=sys.stderr)
    return 0


def _task_flag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--task",
        choices=("classification", "segmentation"),
        help="what the model is expected to do (default: as it says)",
    )


def _demo(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="hf-lowlabel demo",
        description="Target pretraining, prior pseudo-labels, FlexMatch and "
        "the supervised baseline on scikit-learn's digits with 40 labels, on the same test set; or the same for masks.",
    )
    parser.add_argument(
        "--task",
        default="classification",
        choices=("classification", "segmentation"),
        help="segmentation: PixPro, CutMix "
        "and the supervised baseline on 800 generated images of shapes with 20 masks (default: classification)",
    )
    parser.add_argument(
        "--output-dir", help="folder to leave model, card and pictures in (default: demo-digits; demo-shapes)"
    )
    parser.add_argument(
        "--num-labels",
        type=int,
        help="labels to keep, the same number per class (default: 40; with --active: 10); masks to keep (default: 20)",
    )
    parser.add_argument(
        "--active", action="store_true", help="choose which images are labeled, and compare with random ones"
    )
    parser.add_argument("--seed", type=int, default=0, help="decides labels, weights and views (default: 0)")
    args = parser.parse_args(argv)
    if args.task == "segmentation":
        if args.active:
            raise UserError(
                "found --active with --task segmentation; expected one of them: the demo of selection sorts digits"
            )
        from .training.segment_demo import segment_demo

        segment_demo(args.output_dir or "demo-shapes", args.num_labels or 20, args.seed)
        return 0
    args.output_dir = args.output_dir or "demo-digits"
    if args.active:
        from .selection.demo import active_demo

        active_demo(args.output_dir, args.num_labels or 10, args.seed)
        return 0
    from .training.demo import demo

    demo(args.output_dir, args.num_labels or 40, args.seed)
    return 0


def _methods(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="hf-lowlabel methods", description="The methods there are; NAME for one in detail."
    )
    parser.add_argument("name", nargs="?", help="show one method with its settings and presets")
    args = parser.parse_args(argv)
    if args.name is None:
        for verb in ("pretrain", "finetune"):
            print(f"{verb}:")
            for name in methods_for(verb):
                m = find(name)
                tasks = "" if m.tasks == ("classification",) else f"  [{', '.join(m.tasks)}]"
                print(f"  {name:22} {m.year}  {m.paper}; needs {m.needs}{tasks}")
        return 0
    m = find(args.name)
    print(f"{args.name}: {m.paper}, {m.year}" + (f", https://arxiv.org/abs/{m.arxiv}" if m.arxiv else ""))
    print(
        f"verb: {m.verb}   tasks: {', '.join(m.tasks)}   needs: {m.needs}"
        + (f"   --prior: {m.prior} be given" if m.prior else "")
    )
    for title, values in {
        "hyperparameters": hyperparameters(m),
        "defaults": m.defaults,
        **{f"preset {k}": v for k, v in m.presets.items()},
    }.items():
        print(f"{title}: " + (", ".join(f"{k}={v}" for k, v in values.items()) or "none"))
    return 0


def _env(argv: list[str]) -> int:
    argparse.ArgumentParser(prog="hf-lowlabel env", description="Versions and hardware, for a bug report.").parse_args(
        argv
    )
    from .records import collect_hardware, collect_versions

    for name, value in {**collect_versions(), **collect_hardware()}.items():
        print(f"{name:20} {value}")
    return 0


def _later(module: str, name: str):
    def command(argv: list[str]) -> int:
        return getattr(importlib.import_module(f"hf_lowlabel.{module}"), name)(argv)

    return command


_COMMANDS = {
    "pretrain": _train(PretrainConfig),
    "finetune": _train(FinetuneConfig),
    "evaluate": _evaluate,
    "predict": _predict,
    **{verb: _later("cli_select", verb) for verb in ("select", "label", "split", "priors")},
    "push": _later("cli_share", "push"),
    "report": _later("cli_share", "report"),
    "demo-app": _later("cli_share", "demo_app"),
    "demo": _demo,
    "methods": _methods,
    "env": _env,
}

if __name__ == "__main__":
    sys.exit(main())
