"""The verbs that train: pretrain, finetune. One flag for every setting, in the groups that `arguments` declares."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from ..arguments import GROUPS, Config, known_settings
from ..errors import UserError, unknown
from ..fields import Setting
from ..foreign_names import no_such_setting
from ..methods import METHODS, methods_for
from ..missing_inputs import refuse_no_data
from ..yaml_files import read_settings
from .flags import Parser, as_flag, flag, refuse_absent, refuse_out_of_range
from .output import json_flag, key_values, print_json

DOES = {
    "pretrain": "Target pretraining: adapt weights to your images without labels.",
    "finetune": "Supervised or semi-supervised finetuning from a few labels.",
}
SHORT = {"learning_rate": "--lr"}


def pretrain(argv: list[str]) -> int:
    return _train("pretrain", argv)


def finetune(argv: list[str]) -> int:
    return _train("finetune", argv)


def _train(verb: str, argv: list[str]) -> int:
    as_json = "--json" in argv
    given = parse_config(verb, argv).flat()
    refuse_no_data(given["dataset"])
    if given["method"] is not None and given["method"] not in METHODS:
        raise unknown(f"{verb} method", given["method"], methods_for(verb))
    refuse_absent(argparse.Namespace(split=given["split"]), given["dataset"], given["task"])
    from .. import api
    from ..api.summary import summarise

    run = getattr(api, verb)(**given)
    if as_json:
        print_json({"folder": run.folder, "metrics": run.metrics, "steps": run.progress.step})
        return 0
    summarise(run)
    return 0


def parse_config(verb: str, argv: list[str]) -> Config:
    """Settings from --config, then flags, which win over it.

    Raises:
        UserError: an unknown flag or key; the message names the right or the nearest one. Or a value out of its range.
    """
    parser = training_parser(verb, *asked_defaults(verb, argv))
    given, rest = parser.parse_known_args(argv)
    if rest and not rest[0].startswith("-"):
        raise UserError(f"{rest[0]!r} belongs to no setting. Settings are given as --NAME VALUE.")
    if rest:
        flags_of_all = (name for name in parser._option_string_actions if name.startswith("--"))
        names = [name.lstrip("-").replace("-", "_") for name in flags_of_all]
        raise no_such_setting(rest[0].split("=")[0], names, verb, known_settings())
    flags = vars(given)
    file = flags.pop("config")
    flags.pop("json", None)
    config = Config.from_flat(verb, read_settings(file) if file else {}, f"file {file}")
    for name in ("method_args", "architecture_args"):
        if name in flags:
            flags[name] = {**config.flat()[name], **key_values(flags[name], flag(name))}
    config = config.replace(**flags)
    refuse_out_of_range(config.flat())
    return config


def asked_defaults(verb: str, argv: list[str]) -> tuple[str, dict[str, object]]:
    """With --help beside --method, --task or --preset: the method, and the defaults that it has."""
    asked = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for name in ("--method", "--task", "--preset"):
        asked.add_argument(name)
    given = vars(asked.parse_known_args(argv)[0])
    if not {"-h", "--help"} & {*argv} or not any(given.values()):
        return "", {}
    from ..settings import filled_in  # with the class of a method comes torch

    return filled_in(verb, **given)


def training_parser(verb: str, method: str = "", own: Mapping[str, object] = {}) -> argparse.ArgumentParser:
    """One flag per setting of a verb, with its help, choices, unit and default; `own`: the defaults of a method."""
    parser = Parser(
        prog=f"hf-lowlabel {verb}",
        description=DOES[verb],
        allow_abbrev=False,
        epilog=f"Defaults are those of {method}."
        if method
        else f"`hf-lowlabel {verb} --method NAME --help` shows the defaults that a method has.",
    )
    parser.add_argument("--config", metavar="FILE.yaml", help="read settings from a YAML file; flags win over it")
    json_flag(parser)
    titles = {None: ("what is learned", None)}
    titles |= {name: (name, cls.__doc__.partition("\n")[0]) for name, cls in GROUPS.items()}
    groups = {name: parser.add_argument_group(*title) for name, title in titles.items()}
    for s in known_settings(verb).values():
        names = [flag(s.name), *([SHORT[s.name]] if s.name in SHORT else [])]
        groups[s.group].add_argument(*names, dest=s.name, default=argparse.SUPPRESS, **_kind(s, verb, method, own))
    return parser


def _kind(s: Setting, verb: str, method: str = "", own: Mapping[str, object] = {}) -> dict:
    """What argparse has to know of a setting, with the default that a method has."""
    how = as_flag(s)
    if own.get(s.name) not in (None, ""):
        how["help"] += f" (default of {method}: {own[s.name]})".replace("%", "%%")
    if s.name == "method":
        return dict(metavar="NAME", help=f"{how['help']}; one of {', '.join(methods_for(verb))}")
    return how
