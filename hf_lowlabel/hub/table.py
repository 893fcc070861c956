"""One table of results from run folders: a row per method, a column per number of labels and starting weights.

    accuracy = mean +- standard deviation over seeds (their number where it is not the same everywhere)

Nothing is typed: all of it stands in the run.json of each folder.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

from ..errors import UserError
from ..methods import METHODS
from .facts import RunFacts

SHARED = (
    "max_steps",
    "epochs",
    "batch_size",
    "unlabeled_ratio",
    "optimizer",
    "lr",
    "weight_decay",
    "schedule",
    "warmup",
    "augment",
    "flip",
    "color",
    "freeze",
    "lora_rank",
)  # settings of training that are told below the table


def methods_table(folders: Sequence[str | Path], metric: str = "accuracy") -> str:
    """Markdown. Raises UserError where a folder is no finished run, or the runs are not of one data set and network."""
    runs = [RunFacts.from_json(Path(folder, "run.json")) for folder in folders]
    if not runs:
        raise UserError("found no run folders; expected at least one finished run")
    for folder, run in zip(folders, runs, strict=True):
        if run.labels is None or run.metrics.get(metric) is None:
            raise UserError(
                f"found no {metric} on test images in {folder}; expected finished runs of finetune; fix: leave it out"
            )
    for what, values in (
        ("data set", {r.data.fingerprint for r in runs}),
        ("network", {r.architecture for r in runs}),
        ("size of images", {r.image_size for r in runs}),
    ):
        if len(values) > 1:
            shown = ", ".join(sorted(map(str, values)))
            raise UserError(
                f"found runs with {len(values)} kinds of {what} ({shown}); expected one, since a "
                "row compares methods alone; fix: make a table of each"
            )
    cells: dict[tuple[str, tuple[int, str]], dict[int, RunFacts]] = {}
    for run in runs:
        cells.setdefault((run.method, (run.labels.number, start(run))), {})[run.seed] = run
    order = [*METHODS]
    methods = sorted({m for m, _ in cells}, key=lambda m: order.index(m) if m in order else len(order))
    columns = sorted({c for _, c in cells}, key=lambda c: (c[1], c[0]))
    counts = {len(seeds) for seeds in cells.values()}
    lines = [
        "| method | " + " | ".join(f"{n} labels, {s}" for n, s in columns) + " | seconds |",
        "|---|" + "---:|" * (len(columns) + 1),
    ]
    for method in methods:
        took = [run.seconds or 0.0 for c in columns for run in cells.get((method, c), {}).values()]
        row = [cell([r.metrics[metric] for r in cells.get((method, c), {}).values()], len(counts) > 1) for c in columns]
        lines.append(f"| {method} | " + " | ".join(row) + f" | {statistics.median(took):.0f} |")
    return "\n".join([*lines, "", *notes(runs, metric, counts)]) + "\n"


def start(run: RunFacts) -> str:
    """What the run started from, for the head of a column."""
    before = run.lineage[-2] if len(run.lineage) > 1 else None
    if before is None or before.what == "random weights":
        return "from scratch"
    return f"after {before.method}" if before.method else f"from {before.name or before.what}"


def cell(values: list[float], count: bool) -> str:
    if not values:
        return "–"
    spread = f" ± {100 * statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{100 * statistics.mean(values):.1f}{spread}" + (f" ({len(values)})" if count else "")


def notes(runs: list[RunFacts], metric: str, counts: set[int]) -> list[str]:
    """What all runs share, and which hyperparameters were set by hand."""
    one = runs[0]
    seeds = f"{min(counts)}" if len(counts) == 1 else f"{min(counts)} to {max(counts)} (in brackets)"
    trained = [run for run in runs if run.steps]
    values = {k: [r.hyperparameters.get(k) for r in trained] for k in SHARED}
    shared = {k: v[0] for k, v in values.items() if v and v[0] is not None and all(x == v[0] for x in v)}
    differ = [k for k, v in values.items() if any(x != v[0] for x in v)]
    where = one.hardware.get("gpu") or one.hardware.get("cpu")
    lines = [
        f"{metric.capitalize()} in percent on {one.metrics.get('images', '?')} test images, mean ± standard deviation "
        f"over {seeds} {'seed' if counts == {1} else 'seeds'}; seconds of training, median.",
        f"{one.data.name}, {one.architecture} at {one.image_size} px, on {where}.",
        "Every trained row: " + ", ".join(f"{k} {v}" for k, v in shared.items()) + "." if shared else "",
        f"Not the same in every row: {', '.join(differ)} (training.yaml of each run)." if differ else "",
    ]
    by_hand = {r.method: r.hyperparameters["method_args"] for r in runs if r.hyperparameters.get("method_args")}
    changed = {
        m: {k: v for k, v in args.items() if v != METHODS[m].defaults.get("method_args", {}).get(k)}
        for m, args in by_hand.items()
        if m in METHODS
    }
    lines += [f"{m}: " + ", ".join(f"{k}={v}" for k, v in args.items()) + "." for m, args in changed.items() if args]
    return [line for line in lines if line]
