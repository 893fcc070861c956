"""The verbs methods, env and demo."""

from __future__ import annotations

from ..demo_stages import DEMOS
from ..errors import UserError, unknown
from ..methods import METHODS, find, hyperparameters, methods_for
from ..text import say
from .flags import Parser
from .output import json_flag, print_json


def demo(argv: list[str]) -> int:
    numbers = ", ".join(f"{shown.num_labels} of {shown.dataset}" for shown in DEMOS.values())
    parser = Parser(
        prog="hf-lowlabel demo",
        description="Run each stage on a few labels of a built-in data set, and score it on the same test images.",
    )
    parser.add_argument("--task", help=f"{'. '.join(map(demo_words, DEMOS))} (default: classification)")
    parser.add_argument("--output-dir", help="folder for model, card and pictures (default: demo-DATA)")
    parser.add_argument(
        "--num-labels", type=int, help=f"number of labels to keep (default: {numbers}; with --active: 10)"
    )
    parser.add_argument(
        "--active", action="store_true", help="choose which images are labeled, and compare with random ones"
    )
    parser.add_argument("--seed", type=int, default=0, help="decides labels, weights and views (default: 0)")
    args = parser.parse_args(argv)
    if args.active:
        if args.task is not None:
            raise UserError("The demo of --active sorts digits. Leave out --active, or --task.")
        from ..demo_active import active_demo

        active_demo(args.output_dir or "demo-digits", args.num_labels or 10, args.seed)
        return 0
    from ..demo import demo

    demo(args.task or "classification", args.output_dir, args.num_labels, args.seed)
    return 0


def demo_words(task: str) -> str:
    """What the demonstration of a task does, for help."""
    shown = DEMOS[task]
    stages = "; ".join(f"{n} {stage.title}" for n, stage in enumerate(shown.stages, 1))
    return f"{task}, {shown.num_labels} labels of {shown.dataset}: {stages}"


def methods(argv: list[str]) -> int:
    parser = Parser(prog="hf-lowlabel methods", description="List all methods, or show one in detail.")
    parser.add_argument("name", nargs="?", help="show one method with its settings and presets")
    json_flag(parser)
    args = parser.parse_args(argv)
    if args.name is not None and args.name not in METHODS:
        raise unknown("method", args.name, METHODS)
    if args.json:
        names = METHODS if args.name is None else [args.name]
        print_json({name: _facts(name) for name in names})
        return 0
    if args.name is None:
        for verb in ("pretrain", "finetune"):
            say(f"{verb}:")
            for name in methods_for(verb):
                m = find(name)
                tasks = f"  [{', '.join(_tasks(name, verb))}]" if verb == "finetune" else ""
                say(f"  {name:22} {m.year}  {m.paper}; needs {m.needs}{tasks}")
        return 0
    m = find(args.name)
    say(f"{args.name}: {m.paper}, {m.year}" + (f", https://arxiv.org/abs/{m.arxiv}" if m.arxiv else ""))
    say(
        f"verb: {m.verb}   tasks: {', '.join(m.tasks)}   needs: {m.needs}"
        + (f"   --prior: {m.prior} be given" if m.prior else "")
    )
    for title, values in {
        "hyperparameters": hyperparameters(m),
        "defaults": m.defaults,
        **{f"preset {k}": v for k, v in m.presets.items()},
    }.items():
        say(f"{title}: " + (", ".join(f"{k}={v}" for k, v in values.items()) or "none"))
    return 0


def _tasks(name: str, verb: str) -> list[str]:
    """The tasks that a method is for."""
    from ..tasks import TASKS, get_task

    return [task for task in TASKS if name in get_task(task).methods(verb)]


def _facts(name: str) -> dict:
    m = find(name)
    return {
        "verb": m.verb,
        "paper": m.paper,
        "year": m.year,
        "arxiv": m.arxiv,
        "needs": m.needs,
        "tasks": _tasks(name, m.verb),
        "prior": m.prior,
        "hyperparameters": hyperparameters(m),
        "defaults": m.defaults,
        "presets": m.presets,
    }


def env(argv: list[str]) -> int:
    parser = Parser(prog="hf-lowlabel env", description="Versions and hardware, for a bug report.")
    json_flag(parser)
    args = parser.parse_args(argv)
    from ..records import collect_hardware, collect_versions

    if args.json:
        print_json({**collect_versions(), **collect_hardware()})
        return 0
    for name, value in {**collect_versions(), **collect_hardware()}.items():
        say(f"{name:20} {value}")
    return 0
