"""One self-contained HTML page about one run or several: `report(["runs/a", "runs/b"], "report.html")`.

Everything is in the file, pictures too; it opens without a network and follows the reader's light or dark setting.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template

from ..errors import UserError
from ..evaluation import charts
from ..evaluation.panels import LOSS, OTHER, PSEUDO, RATE, SEL, in_order, line_name, panel_of
from ..files import A_RUN, by_name, log_rows, read_json, read_text, write_text
from ..records import Metric, RunRecord, Stage, weights_word, why_kept
from ..tasks import of_record, read_record
from ..text import duration, percent
from ..training.measured import CROSS_VALIDATED, EVALUATED
from .card_parts import columns, limits

FEW_RUNS = 8  # as many as have a colour of their own


@dataclass
class Shown:
    """A run folder as it is read: record, log rows, metrics, and what was computed anew (None: nothing was)."""

    name: str
    folder: Path
    record: RunRecord
    rows: list[dict]
    metrics: dict
    computed: object | None = None


def report(
    folders: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    output: str | Path = "report.html",
    *,
    compute: bool = True,
) -> Path:
    """Write the page and return its path.

    Args:
        folders: a run folder or a finished run, or several, side by side on the page.
        output: the page, .html.
        compute: load models and data for mistakes and t-SNE; else files alone.

    Raises:
        UserError: a folder is no run.
    """
    folders = list(folders) if isinstance(folders, (list, tuple)) else [folders]
    folders, output = [by_name("folders", one, A_RUN, needed=True) for one in folders], Path(output)
    if not 0 < len(folders) <= FEW_RUNS:
        raise UserError(
            f"A report shows 1 to {FEW_RUNS} runs, and {len(folders)} are given. Leave some out, or take --table."
        )
    if output.is_dir() or output.suffix not in (".html", ".htm"):
        raise UserError(f"A report cannot be written to {str(output)!r}. Give an --output that ends in .html.")
    runs = [read_run(Path(folder), name) for folder, name in zip(folders, short_names(folders), strict=True)]
    if compute:
        from .report_data import compute as compute_run

        for run in runs:
            run.computed = compute_run(run.folder, run.record)
    title = runs[0].name if len(runs) == 1 else " · ".join(run.name for run in runs)
    body = [
        head(runs),
        comparison(runs),
        *(section for run in runs for section in search_sections(run, len(runs) > 1)),
        curve_section(runs),
        *(section for run in runs for section in run_sections(run, len(runs) > 1)),
        *(made(run, len(runs) > 1) for run in runs),
    ]
    template = Template((Path(__file__).with_name("report.html")).read_text(encoding="utf-8"))
    write_text(output, template.substitute(title=escape(title), body="\n".join(filter(None, body))))
    return output


def short_names(folders: Sequence[str | Path]) -> list[str]:
    """The last part of each path, with as many parts before it as tell them apart."""
    parts = [Path(folder).resolve().parts for folder in folders]
    for n in range(1, max(map(len, parts)) + 1):
        names = ["/".join(p[-n:]) for p in parts]
        if len(set(names)) == len(names):
            return names
    raise UserError(f"A run is given twice: {', '.join(map(str, folders))}. Give different folders.")


def read_run(folder: Path, name: str) -> Shown:
    record = read_record(folder)
    log, metrics = folder / "log.jsonl", folder / "metrics.json"
    rows = log_rows(read_text(log)) if log.exists() else []
    found = read_json(metrics) if metrics.exists() else record.metrics
    of_record(record.kind).check(found, str(metrics))
    return Shown(name, folder, record, rows, found)


# ---- sections -------------------------------------------------------------------------------------------------------


def head(runs: list[Shown]) -> str:
    if len(runs) > 1:
        return f"<h1>{len(runs)} runs</h1><p class=sub>{escape(', '.join(run.name for run in runs))}</p>"
    run, record = runs[0], runs[0].record
    return f"<h1>{escape(record.name or run.name)}</h1><p class=sub>{escape(sentence(record))}</p>"


def sentence(record: RunRecord) -> str:
    speaks = of_record(record.kind)
    words = speaks.product if record.labels else "target pretraining"
    words += f" with {record.method}" if record.method else ""
    words += f" on {record.data.name}" if record.data else ""
    words += f", {record.labels.number:,} {speaks.label_words}" if record.labels else ""
    return words + (f", {record.architecture}" if record.architecture else "")


def comparison(runs: list[Shown]) -> str:
    """A row for each run and for each row its card compares it with."""
    entries = []
    for run in runs:
        entries.append((run.name, run.record, run.metrics))
        known = {r.record.method for r in runs if r is not run} if len(runs) > 1 else set()
        entries += [
            (f"· {row.name}", None, row.metrics)
            for row in run.record.comparisons
            if row.name.split(",")[0] not in known
        ]
    shown = metrics_of(runs, [m for *_, m in entries])
    if not shown:
        said = "There were no test images: cross-validation says below what to expect."
        said = said if all(map(_judged, runs)) else "It was not evaluated."
        return f"<h2>Results</h2>{_evaluated(runs) or f'<p>{said}</p>'}"
    best = {}
    for metric in shown:
        values = [m[metric.key] for *_, m in entries if m.get(metric.key) is not None]
        best[metric.key] = (max if metric.higher else min)(values)
    rows, labeled = [], any(run.record.labels for run in runs)
    for name, record, metrics in entries:
        cells = "".join(_value(m, metrics, best[m.key] if len(entries) > 1 else None) for m in shown)
        labels = f"<td>{record.labels.number:,}</td>" if record and record.labels else "<td></td>" if labeled else ""
        spent = duration(record.seconds) if record and record.seconds is not None else ""
        rows.append(f"<tr><td>{escape(name)}</td>{labels}{cells}<td>{spent}</td></tr>")
    heads = "<th>Labels</th>" if labeled else ""
    heads += "".join(f"<th>{escape(m.title)}</th>" for m in shown)
    return (
        f"<h2>Results</h2><div class=wide><table><thead><tr><th></th>{heads}<th>Training</th></tr>"
        f"</thead><tbody>{''.join(rows)}</tbody></table></div>{_comparable(runs)}{_evaluated(runs)}"
    )


def _judged(run: Shown) -> bool:
    """Whether cross-validation says something of a run."""
    scored = any(row["by_labels"] is not None for row in run.record.ladder)
    return scored or any(CROSS_VALIDATED in line for line in run.record.advice)


def _evaluated(runs: list[Shown]) -> str:
    """What later evaluations found."""
    named = [(f"{run.name}: " if len(runs) > 1 else "", line) for run in runs for line in run.record.advice]
    return "".join(f"<p>{escape(name + line)}</p>" for name, line in named if line.startswith(EVALUATED))


def search_sections(run: Shown, named: bool) -> list[str]:
    """Of a search what it says of new images, and what was tried; nothing of other runs."""
    of, record = f" of {escape(run.name)}" if named else "", run.record
    said = "".join(f"<li>{escape(line)}</li>" for line in record.advice if not line.startswith(EVALUATED))
    out = [f"<h2>Advice{of}</h2><ul>{said}</ul>"] if said else []
    if not record.ladder:
        return out
    rows = []
    for row in record.ladder:
        value = "–" if row["by_labels"] is None else percent(row["by_labels"])
        rows.append(f"<tr><td>{escape(row['name'])}</td><td{' class=best' if row['kept'] else ''}>{value}</td></tr>")
    title, why = of_record(record.kind).metrics[0].title, why_kept(record.ladder)
    return [
        *out,
        f"<h2>What was tried{of}</h2><div class=wide><table><thead><tr><th></th><th>{title}, cross-validated</th></tr>"
        f"</thead><tbody>{''.join(rows)}</tbody></table></div><p class=note>Bold: the one that was kept. {why}</p>",
    ]


def metrics_of(runs: list[Shown], rows: list[dict]) -> list[Metric]:
    """The metrics that any of the rows has, in the order of the runs' tasks."""
    found: dict[str, Metric] = {}
    for run in runs:
        for metric in columns(of_record(run.record.kind), rows, len(run.record.class_names)):
            found.setdefault(metric.key, metric)
    return list(found.values())


def _value(metric: Metric, metrics: dict, best: float | None) -> str:
    value = metrics.get(metric.key)
    if value is None:
        return "<td>–</td>"
    return f"<td{' class=best' if best is not None and value == best else ''}>{metric.of(metrics)}</td>"


def _comparable(runs: list[Shown]) -> str:
    """A warning where the runs were not tested or labeled alike."""
    notes = []
    tested = [run for run in runs if run.record.labels]
    if len({run.record.data.fingerprint for run in runs if run.record.data}) > 1:
        notes.append("The runs saw different data.")
    if len({run.record.labels.split_hash for run in tested}) > 1:
        notes.append("The runs had different labels or test images: small differences between them mean nothing.")
    count = {run.metrics.get("images") for run in tested if run.metrics.get("images")}
    if len(count) == 1 and (n := count.pop()) is not None:
        notes.insert(0, f"{n:,} test images.")
    if any(key.endswith("_error") for run in runs for key in run.metrics):
        notes.insert(0, "± is one standard error over the test images: that of other images of the same kind.")
    return "".join(f"<p class=note>{escape(note)}</p>" for note in notes)


def curve_section(runs: list[Shown]) -> str:
    """Loss, pseudo-labels, scores, spread: several quantities of one run together, or one quantity of several runs."""
    found: dict[str, dict[str, dict[str, tuple[list, list]]]] = {}  # panel -> quantity -> run -> points
    titles: dict[str, str] = {}
    for run in runs:
        scores = {m.key: m.title for m in of_record(run.record.kind).metrics}
        titles |= scores
        for row in run.rows:
            for name, value in row.items():
                panel = panel_of(name, row, scores)
                if panel not in (None, RATE, OTHER) and isinstance(value, (int, float)):
                    x, y = found.setdefault(panel, {}).setdefault(name, {}).setdefault(run.name, ([], []))
                    x.append(row["step"]), y.append(value)
    drawn = []
    for panel in in_order(found):
        quantities, title = found[panel], panel.split(" (")[0]
        shares, zero = panel.endswith("(%)"), panel in (LOSS, PSEUDO)
        if len(runs) == 1:
            by_name = sorted(quantities.items(), key=_loss_first)
            lines = [(line_name(name, titles), *points[runs[0].name]) for name, points in by_name]
            drawn += [charts.lines(title, lines[: charts.MOST_COLORS], percent=shares, zero=zero)] if lines else []
            continue
        for name, points in sorted(quantities.items(), key=_loss_first):
            if panel == LOSS and name != "loss":
                continue
            nothing = ([0], [float("nan")])  # each run keeps its colour
            lines = [(run.name, *points.get(run.name, nothing)) for run in runs]
            heading = f"{title}: {line_name(name, titles)}" if panel not in (LOSS, SEL) else title
            drawn.append(charts.lines(heading, lines, percent=shares, zero=zero))
    return f"<h2>Training</h2><div class=grid>{''.join(drawn)}</div>" if any(drawn) else ""


def _loss_first(item: tuple[str, object]) -> tuple[bool, str]:
    return item[0] != "loss", item[0]


def run_sections(run: Shown, named: bool) -> list[str]:
    """Charts of the results, features stage by stage, and what was found among the test images of one run."""
    of = f" of {escape(run.name)}" if named else ""
    names = run.metrics.get("class_names") or run.record.class_names
    figures = of_record(run.record.kind).figures(run.metrics, names)
    out = [f"<h2>Test results{of}</h2><div class=grid>{''.join(figures)}</div>"] if figures else []
    done = run.computed
    if done is not None and done.panels:
        panels = "".join(charts.scatter(*panel, done.class_names) for panel in done.panels)
        count, colors = len(done.panels[0][1]), charts.classes_legend(done.class_names)
        out.append(
            f"<h2>Features{of}, stage by stage</h2><p class=note>t-SNE of {count:,} images that have a label; one dot "
            f"each, coloured by class. Only neighbourhoods mean something, not distances.</p>{colors}"
            f"<div class='grid three'>{panels}</div>"
        )
    found = done.findings if done is not None else []
    out += [f"<h2>{title}{of}</h2><p class=note>{escape(note)}</p>{body}" for title, note, body in found]
    if not found and (run.folder / "predictions.png").is_file():
        picture = charts.inline((run.folder / "predictions.png").read_bytes())
        out.append(f"<h2>Examples{of}</h2><img class=picture alt='test images with predictions' src='{picture}'>")
    if done is not None and done.notes:  # under a heading of their own: the one above may be of another run
        out.append(f"<h2>Not shown{of}</h2>" + "".join(f"<p class=note>{escape(note)}</p>" for note in done.notes))
    return out


def made(run: Shown, named: bool) -> str:
    """Limits, lineage, command and settings."""
    record = run.record
    lineage = " → ".join(map(_stage, record.lineage))
    settings = {
        **record.hyperparameters,
        "seed": record.seed,
        **{f"version of {k}": v for k, v in record.versions.items()},
        **record.hardware,
    }
    rows = "".join(
        f"<tr><td>{escape(str(k))}</td><td class=text>{escape(str(v))}</td></tr>"
        for k, v in settings.items()
        if v not in (None, {}, [], "")
    )
    said = "".join(f"<li>{escape(_plain(line))}</li>" for line in limits(record))
    command = f"<pre>{escape(record.command)}</pre>" if record.command else ""
    title = f"How {escape(run.name)} was made" if named else "How it was made"
    return (
        f"<h2>{title}</h2><p>{escape(lineage)}</p>{command}<h3>Limits</h3><ul>{said}</ul>"
        f"<details><summary>Settings, versions, hardware</summary><div class=wide><table>{rows}</table></div></details>"
    )


def _stage(stage: Stage) -> str:
    words = " ".join(
        filter(None, [stage.what, weights_word(stage.name), f"({stage.method})" if stage.method else None])
    )
    return words + (f", {stage.steps:,} steps" if stage.steps else "")


def _plain(line: str) -> str:
    """A line of the card without its Markdown; names keep quotes."""
    return line.replace("**", "").replace("`", "'").replace("\\", "")
