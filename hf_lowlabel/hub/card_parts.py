"""Pieces of a model card that every task has: the table of results, warnings, settings."""

from __future__ import annotations

from ..arguments import known_settings
from ..methods import METHODS, find
from ..records import Metric, RunRecord, why_kept
from ..tasks import of_record
from ..text import cell, code, percent


def columns(speaks, rows: list[dict], classes: int) -> list[Metric]:
    """The metrics that a row has, in the task's order; no top-5 accuracy for up to five classes."""
    found = [m for m in speaks.metrics if any(row.get(m.key) is not None for row in rows)]
    return [m for m in found if not (m.key == "top5_accuracy" and classes <= 5)]


def results_table(record: RunRecord) -> str:
    """A row for this model and for each comparison, a column for every metric that a row has; "" without metrics."""
    rows = [("**this model**", record.metrics), *((cell(row.name), row.metrics) for row in record.comparisons)]
    shown = columns(of_record(record.kind), [metrics for _, metrics in rows], len(record.class_names))
    if not shown or not record.metrics:
        return ""
    lines = ["| | " + " | ".join(m.title for m in shown) + " |", "|---|" + "---:|" * len(shown)]
    lines += [f"| {name} | " + " | ".join(m.show(metrics.get(m.key)) for m in shown) + " |" for name, metrics in rows]
    images = record.metrics.get("images")
    if not images:
        return "\n".join(lines)
    which = f" ({cell(record.data.test)})" if record.data and record.data.test else ""
    first = shown[0]
    error = record.metrics.get(f"{first.key}_error")
    title = first.title[0].lower() + first.title[1:]
    error = f"; standard error of this model's {title} {percent(error)}" if error is not None else ""
    return "\n".join([*lines, "", f"{images:,} test images{which}{error}."])


def ladder_table(record: RunRecord) -> str:
    """Table of the candidates for this model, best first, with cross-validated scores; "" for none."""
    if not record.ladder:
        return ""
    score = of_record(record.kind).metrics[0].title
    lines = [f"| | {score}, cross-validated |", "|---|---:|"]
    for row in record.ladder:
        name = f"**{cell(row['name'])}**" if row["kept"] else cell(row["name"])
        lines.append(f"| {name} | {'–' if row['by_labels'] is None else percent(row['by_labels'])} |")
    why = why_kept(record.ladder)
    return "\n".join([*lines, "", why] if why else lines)


def limits(record: RunRecord) -> list[str]:
    """What a user should know before trusting it, each sentence from a number that was recorded."""
    lines = [*_seen_before(record), *of_record(record.kind).limits(record), *_no_better(record)]
    measured = record.ladder or any(metric.key in record.metrics for metric in of_record(record.kind).metrics)
    return lines if measured else [*lines, "It was not evaluated."]


def _seen_before(record: RunRecord) -> list[str]:
    """The warning that results are too good, because test images had been trained on."""
    return [
        f"**Earlier stages had trained on {stage.saw_test:,} test images of its {cell(stage.what)}**, with or "
        "without labels: results on them may be too good."
        for stage in record.lineage
        if stage.saw_test
    ]


def _no_better(record: RunRecord) -> list[str]:
    """Comparisons that score as high on the same test images, by the first metric."""
    score, lines = of_record(record.kind).metrics[0], []
    for row in record.comparisons:
        own, other = record.metrics.get(score.key), row.metrics.get(score.key)
        if own is not None and other is not None and own <= other:
            lines.append(f"{score.title}: {percent(own)}, no better than {percent(other)} ({cell(row.name)}).")
    return lines


def settings(record: RunRecord) -> str:
    """Hyperparameters, versions and hardware as one table; None is left out, and so is a setting at its default."""
    defaults = {name: s.default for name, s in known_settings().items() if name != "seed"}
    given = record.hyperparameters.items()
    rows = [(name, value) for name, value in given if name not in defaults or value != defaults[name]]
    rows += [("seed", record.seed)] if "seed" not in record.hyperparameters else []
    of_encoder = "encoder" if "architecture" in record.hyperparameters else "architecture"  # of a segmenter
    rows += [(of_encoder, record.architecture), ("weights", record.parameters and f"{record.parameters:,}")]
    rows += [(f"version of {name}", version) for name, version in record.versions.items()]
    rows += [(name.replace("_", " ").replace("gib", "(GiB)"), value) for name, value in record.hardware.items()]
    lines = [f"| {cell(name)} | {code(value)} |" for name, value in rows if value not in (None, {}, [], "")]
    return "\n".join(["| setting | value |", "|---|---|", *lines]) if lines else ""


def method_name(name: str) -> str:
    """The method as a link to its paper, when it is one of ours and has one."""
    paper = find(name) if name in METHODS else None
    return f"[{name}](https://arxiv.org/abs/{paper.arxiv})" if paper and paper.arxiv else cell(name)
