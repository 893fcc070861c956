"""One table of results from run folders: a row per method, a column per number of labels and starting weights.

    accuracy = mean +- standard deviation over seeds (their number where it is not the same everywhere)
    margin   = mean +- standard deviation of (accuracy - that of the supervised baseline on the same seed)

and the same for the mean IoU of segmenters. Nothing is typed: all of it stands in the run.json of each folder.
"""

from __future__ import annotations

import logging
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..methods import METHODS, find, hyperparameters
from ..records import Metric, RunRecord
from ..tasks import TASKS, of_record, read_record
from ..text import cell as plain, series

log = logging.getLogger("hf_lowlabel")
SHARED = (  # settings of training that are told below the table
    "max_steps epochs batch_size unlabeled_ratio optimizer learning_rate weight_decay lr_scheduler_type warmup_ratio "
    "augment flip color freeze"
).split()
BASELINE = "supervised"
NOTHING = "–"
Scores = dict[int, float]  # by seed


def methods_table(folders: Sequence[str | Path]) -> str:
    """Markdown: the scores (mean IoU of segmenters), then the margins over every baseline that was run.

    Runs of pretrain are left out, with a note in the log.

    Raises:
        UserError: a folder is no finished run, the runs are not of one data set, network and number of test images, or
            two runs would count as one.
    """
    found = [(folder, read_record(folder)) for folder in folders]
    for folder, run in found:
        if run.kind not in TASKS:
            log.info("left out %s: a run of pretrain, which has no results on test images", folder)
    folders, runs = ([pair[i] for pair in found if pair[1].kind in TASKS] for i in (0, 1))
    check(folders, runs)
    metric = of_record(runs[0].kind).metrics[0]
    cells: dict[tuple[str, tuple[int, str]], Scores] = {}
    seconds: dict[str, list[float]] = {}
    for folder, run in zip(folders, runs, strict=True):
        row, column = row_name(run), (run.labels.number, start(run))
        scores = cells.setdefault((row, column), {})
        if run.seed in scores:
            raise UserError(
                f"{folder} is a second run of {row}, {column[0]} labels, {column[1]}, seed {run.seed}. A cell averages "
                "over seeds alone, so leave out one of them."
            )
        scores[run.seed] = run.metrics[metric.key]
        seconds.setdefault(row, []).append(run.seconds or 0.0)
    known = [*METHODS]
    place = {row_name(r): known.index(r.method) if r.method in known else len(known) for r in runs}
    rows = sorted(place, key=lambda row: (place[row], row))
    columns = sorted({c for _, c in cells}, key=lambda c: (c[1], c[0]))
    counts = {len(scores) for scores in cells.values()}
    heads = [f"{n} labels, {s}" for n, s in columns]
    body = {row: [cell(cells.get((row, c), {}), len(counts) > 1) for c in columns] for row in rows}
    body = {row: [*line, f"{statistics.median(seconds[row]):.0f}"] for row, line in body.items()}
    lines = [*grid([*heads, "seconds"], body), "", *notes(runs, metric, counts)]
    for base in (row for row in rows if row.split()[0] == BASELINE):
        body = {
            r: [margin(cells.get((r, c), {}), cells.get((base, c), {})) for c in columns] for r in rows if r != base
        }
        body = {row: line for row, line in body.items() if set(line) != {NOTHING}}
        if body:
            lines += ["", f"## Over {plain(base)}", "", *grid(heads, body), "", margin_note(metric, base)]
    return "\n".join(lines) + "\n"


def check(folders: Sequence[str | Path], runs: list[RunRecord]) -> None:
    if not runs:
        raise UserError("None of these folders is a finished run of finetune. Give at least one.")
    for folder, run in zip(folders, runs, strict=True):
        metric = of_record(run.kind).metrics[0]
        if run.metrics.get(metric.key) is None:
            known = next((row["by_labels"] for row in run.ladder if row["kept"]), None)
            has = "" if known is None else f" (cross-validated: {metric.show(known)}, as its card says)"
            raise UserError(
                f"The run in {folder} has no {metric.key} on test images, and a table compares runs on these. Leave it "
                f"out{has}, or train it again with --test-fraction."
            )
    for what, value in (
        ("task", lambda r: r.kind),
        ("data set", lambda r: r.data.fingerprint),
        ("network", lambda r: r.architecture),
        ("size of images", lambda r: of_record(r.kind).seen_at(r)),
        ("number of test images", lambda r: r.metrics.get("images")),
    ):
        of: dict[Any, list[str]] = {}
        for folder, run in zip(folders, runs, strict=True):
            of.setdefault(value(run), []).append(Path(folder).name)
        if what == "number of test images":
            of.pop(None, None)
        if len(of) > 1:
            shown = "; ".join(
                series(names[:5]) + ("" if what == "data set" else f": {known}") for known, names in of.items()
            )
            raise UserError(
                f"The runs differ in their {what} ({shown}), and a row compares methods alone. Make a table of each."
            )


def row_name(run: RunRecord) -> str:
    """The method, with adapters, hyperparameters that are not its defaults, and priors that it may do without."""
    spec, settings = find(run.method) if run.method in METHODS else None, run.hyperparameters
    default = {**hyperparameters(spec), **spec.defaults.get("method_args", {})} if spec else {}
    own = {k: v for k, v in (settings.get("method_args") or {}).items() if v != default.get(k)}
    own |= {k: settings[k] for k in ("lora_rank", "adapter_width") if settings.get(k)}
    priors = " + priors" if settings.get("prior") and not (spec and spec.prior == "must") else ""
    return run.method + priors + (f" ({', '.join(f'{k}={v}' for k, v in own.items())})" if own else "")


def start(run: RunRecord) -> str:
    """What the run started from, for the head of a column."""
    before = run.lineage[-2] if len(run.lineage) > 1 else None
    if before is None or before.what == "random weights":
        return "from scratch"
    return f"after {before.method}" if before.method else f"from {before.name or before.what}"


def grid(heads: list[str], body: dict[str, list[str]]) -> list[str]:
    """A markdown table, the first column left and the others right; names bring no markup of their own."""
    lines = ["| method | " + " | ".join(map(plain, heads)) + " |", "|---|" + "---:|" * len(heads)]
    return lines + [f"| {plain(row)} | " + " | ".join(line) + " |" for row, line in body.items()]


def cell(scores: Scores, count: bool) -> str:
    values = [*scores.values()]
    if not values:
        return NOTHING
    spread = f" ± {100 * statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{100 * statistics.mean(values):.1f}{spread}" + (f" ({len(values)})" if count else "")


def margin(scores: Scores, base: Scores) -> str:
    """ "+4.2 ± 1.1 (5) above": from the seeds that both have."""
    gains = [100 * (scores[seed] - base[seed]) for seed in scores.keys() & base.keys()]
    if not gains:
        return NOTHING
    mean = statistics.mean(gains)
    if len(gains) == 1:
        return f"{mean:+.1f} (1)"
    spread = statistics.stdev(gains)
    word = "within" if abs(mean) <= spread else "above" if mean > 0 else "below"
    return f"{mean:+.1f} ± {spread:.1f} ({len(gains)}) {word}"


def margin_note(metric: Metric, base: str) -> str:
    return (
        f"{metric.title} minus that of {base} on the same seed, in points: mean ± standard deviation (number of "
        "seeds). `above` or `below`: the mean is larger than the deviation; `within`: it is not."
    )


def notes(runs: list[RunRecord], metric: Metric, counts: set[int]) -> list[str]:
    """What all runs share."""
    one = runs[0]
    seeds = f"{min(counts)}" if len(counts) == 1 else f"{min(counts)} to {max(counts)} (in brackets)"
    trained = [run for run in runs if run.steps]
    values = {k: [r.hyperparameters.get(k) for r in trained] for k in SHARED}
    shared = {k: v[0] for k, v in values.items() if v and v[0] is not None and all(x == v[0] for x in v)}
    differ = [k for k, v in values.items() if any(x != v[0] for x in v)]
    where = one.hardware.get("gpu") or one.hardware.get("cpu")
    what = f"{metric.title} in percent on {one.metrics.get('images', '?')} test images"
    lines = [
        f"{what}, mean ± standard deviation over {seeds} {'seed' if counts == {1} else 'seeds'}; seconds of training, "
        "median.",
        plain(f"{one.data.name}, {one.architecture} at {of_record(one.kind).seen_at(one)}, on {where}."),
        plain("Every trained row: " + ", ".join(f"{k} {v}" for k, v in shared.items()) + ".") if shared else "",
        f"Not the same in every row: {', '.join(differ)} (training.yaml of each run)." if differ else "",
    ]
    return [line for line in lines if line]
