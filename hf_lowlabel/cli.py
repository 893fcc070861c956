"""hf-lowlabel VERB: the command line. Everything heavy is imported inside the verb, so that --help answers at once."""
from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path

from .config import FinetuneConfig, PretrainConfig, RunConfig, field_type, from_dict, methods_for, read_yaml
from .errors import UserError, unknown
from .methods import METHODS, hyperparameters

VERBS = {
    "pretrain": "adapt a pretrained network to your images, without labels",
    "finetune": "train a classifier from a few labels and all your images",
    "evaluate": "metrics of a model on labeled images",
    "predict": "class and confidence for every image of a folder, as CSV or parquet",
    "split": "draw which images are labeled, held out and tested on; writes a manifest",
    "demo": "the whole chain on 1,797 embedded digits, 40 of them labeled",
    "methods": "the methods there are, their papers and settings",
    "env": "versions and hardware, for a bug report",
}


def main(argv: list[str] | None = None) -> int:
    """Run a command; returns the exit code. Bad input prints one message and returns 2."""
    argv = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(prog="hf-lowlabel", description=__doc__.split(":")[0] + ": many images, almost no labels",
                                     formatter_class=argparse.RawDescriptionHelpFormatter,
                                     epilog="verbs:\n" + "\n".join(f"  {v:10} {text}" for v, text in VERBS.items()))
    parser.add_argument("verb", metavar="VERB", help="what to do; `hf-lowlabel VERB --help` says more")
    if not argv or argv[0] in ("-h", "--help"):
        parser.print_help()
        return 0
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


# ---- training ---------------------------------------------------------------------------------------------------------
def training_parser(cls: type[RunConfig]) -> argparse.ArgumentParser:
    """One flag per field of the configuration, with its help, choices and default."""
    parser = argparse.ArgumentParser(prog=f"hf-lowlabel {cls.verb}", description=cls.__doc__, allow_abbrev=False)
    parser.add_argument("--config", metavar="FILE.yaml", help="read settings from a YAML file; flags win over it")
    for f in dataclasses.fields(cls):
        kind, _ = field_type(f, cls)
        flag, help = f"--{f.name.replace('_', '-')}", f.metadata["help"].replace("%", "%%")
        default = f.default if f.default is not dataclasses.MISSING else None
        help += f" (default: {default})" if default not in (None, False) else ""
        if f.name == "method":
            parser.add_argument(flag, metavar="NAME", default=argparse.SUPPRESS,
                                help=f"{help}; one of {', '.join(methods_for(cls.verb))}")
        elif kind is bool:
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS, help=help)
        elif kind is dict:
            parser.add_argument(flag, nargs="+", metavar="KEY=VALUE", default=argparse.SUPPRESS, help=help)
        elif kind is list:
            parser.add_argument(flag, nargs="+", metavar="NAME", default=argparse.SUPPRESS, help=help)
        else:
            parser.add_argument(flag, type=kind, metavar=kind.__name__.upper() if kind is not str else f.name.upper(),
                                default=argparse.SUPPRESS, help=help + (f"; {', '.join(f.metadata['choices'])}"
                                                                        if "choices" in f.metadata else ""))
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
    if "method_args" in flags:
        flags["method_args"] = {**values.get("method_args", {}), **key_values(flags["method_args"])}
    return from_dict(cls, {**values, **flags})


def key_values(pairs: list[str]) -> dict[str, object]:
    """["tau=0.9", "name=x"] -> {"tau": 0.9, "name": "x"}."""
    import ast

    out: dict[str, object] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals:
            raise UserError(f"found {pair!r} in --method-args; expected KEY=VALUE, for example tau=0.9")
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
    parser = argparse.ArgumentParser(prog="hf-lowlabel evaluate", description="Metrics of a classifier on labeled images.")
    parser.add_argument("--model", required=True, help="run folder, saved model or Hub id")
    parser.add_argument("--dataset", required=True, help="Hub id, local folder, parquet, or 'digits'")
    parser.add_argument("--dataset-split", help="split to evaluate on (default: the manifest's test images, else 'test')")
    parser.add_argument("--split", help="manifest whose test images are meant (default: split.json of the run folder)")
    _data_flags(parser)
    parser.add_argument("--output", help="write metrics (JSON) and pictures to this folder")
    args = parser.parse_args(argv)
    from .training.serving import evaluate

    metrics = evaluate(**vars(args))
    for name in ("images", "accuracy", "top5_accuracy", "balanced_accuracy", "nll", "ece"):
        print(f"{name:20} {metrics[name]:.4f}" if isinstance(metrics[name], float) else f"{name:20} {metrics[name]}")
    return 0


def _predict(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="hf-lowlabel predict", description="Class and confidence for images.")
    parser.add_argument("images", nargs="+", help="image files or folders (searched through)")
    parser.add_argument("--model", required=True, help="run folder, saved model or Hub id")
    parser.add_argument("--output", default="predictions.csv", help="file to write: .csv or .parquet (default: predictions.csv)")
    parser.add_argument("--top", type=int, default=1, help="classes listed for every image (default: 1)")
    parser.add_argument("--batch-size", type=int, default=64, help="images at a time (default: 64)")
    parser.add_argument("--device", help="'cpu' to leave a GPU alone")
    parser.add_argument("--revision", help="revision of a model on the Hub")
    args = parser.parse_args(argv)
    from .training.serving import predict

    rows, skipped = predict(**vars(args))
    print(f"wrote {len(rows)} predictions to {args.output}" + (f", {len(skipped)} unreadable images skipped" if skipped else ""))
    for name, reason in skipped[:20]:
        print(f"  skipped {name}: {reason}", file=sys.stderr)
    return 0


def _split(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="hf-lowlabel split", description="Write a manifest of labeled and held-out images.")
    parser.add_argument("--dataset", required=True, help="Hub id, local folder, parquet, or 'digits'")
    parser.add_argument("--dataset-split", default="train", help="split to draw from (default: train)")
    _data_flags(parser)
    parser.add_argument("--num-labels", type=int, help="labels to keep (default: all there are)")
    parser.add_argument("--class-balanced", action="store_true", help="the same number from every class")
    parser.add_argument("--validation", type=int, default=0, help="labeled images held out to choose by (default: 0)")
    parser.add_argument("--test-fraction", type=float, default=0.0, help="share of the labeled images to test on (default: 0)")
    parser.add_argument("--seed", type=int, default=0, help="decides the draw (default: 0)")
    parser.add_argument("--output", default="split.json", help="file to write (default: split.json)")
    args = parser.parse_args(argv)
    if Path(args.output).exists():
        raise UserError(f"{args.output} exists; give another --output, so that no manifest is lost")
    from .data.sources import load_source
    from .data.splits import make_split

    source = load_source(args.dataset, config=args.dataset_config, split=args.dataset_split, revision=args.dataset_revision,
                         image_column=args.image_column, label_column=args.label_column)
    split = make_split(source, args.num_labels, seed=args.seed, class_balanced=args.class_balanced, validation=args.validation,
                       test_fraction=args.test_fraction)
    split.save(args.output)
    print(f"wrote {args.output}: {len(split.labeled)} labeled, {len(split.validation)} validation, {len(split.test)} test of "
          f"{len(source)} images in {len(split.class_names)} classes; hash {split.hash[:12]}")
    return 0


def _data_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dataset-config", help="configuration of a Hub data set")
    parser.add_argument("--dataset-revision", help="revision of a Hub data set")
    parser.add_argument("--image-column", help="column that holds the image")
    parser.add_argument("--label-column", help="column that holds the class")


def _demo(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="hf-lowlabel demo", description="Target pretraining, FixMatch and the supervised "
                                     "baseline on scikit-learn's digits with 40 labels, evaluated on the same test set.")
    parser.add_argument("--output-dir", default="demo-digits", help="folder to leave model, card and pictures in")
    parser.add_argument("--num-labels", type=int, default=40, help="labels to keep, the same number per class (default: 40)")
    parser.add_argument("--seed", type=int, default=0, help="decides labels, weights and views (default: 0)")
    args = parser.parse_args(argv)
    from .training.demo import demo

    demo(**vars(args))
    return 0


def _methods(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="hf-lowlabel methods", description="The methods there are; NAME for one in detail.")
    parser.add_argument("name", nargs="?", help="show one method with its settings and presets")
    args = parser.parse_args(argv)
    if args.name is None:
        for verb in ("pretrain", "finetune"):
            print(f"{verb}:")
            for name in methods_for(verb):
                m = METHODS[name]
                tasks = "" if m.tasks == ("classification",) else f"  [{', '.join(m.tasks)}]"
                print(f"  {name:22} {m.year}  {m.paper}; needs {m.needs}{tasks}")
        return 0
    if args.name not in METHODS:
        raise unknown("method", args.name, METHODS)
    m = METHODS[args.name]
    print(f"{args.name}: {m.paper}, {m.year}" + (f", https://arxiv.org/abs/{m.arxiv}" if m.arxiv else ""))
    print(f"verb: {m.verb}   tasks: {', '.join(m.tasks)}   needs: {m.needs}")
    for title, values in {"hyperparameters": hyperparameters(m), "defaults": m.defaults,
                          **{f"preset {k}": v for k, v in m.presets.items()}}.items():
        print(f"{title}: " + (", ".join(f"{k}={v}" for k, v in values.items()) or "none"))
    return 0


def _env(argv: list[str]) -> int:
    argparse.ArgumentParser(prog="hf-lowlabel env", description="Versions and hardware, for a bug report.").parse_args(argv)
    from .hub.facts import collect_hardware, collect_versions

    for name, value in {**collect_versions(), **collect_hardware()}.items():
        print(f"{name:20} {value}")
    return 0


_COMMANDS = {"pretrain": _train(PretrainConfig), "finetune": _train(FinetuneConfig), "evaluate": _evaluate, "predict": _predict,
             "split": _split, "demo": _demo, "methods": _methods, "env": _env}

if __name__ == "__main__":
    sys.exit(main())
