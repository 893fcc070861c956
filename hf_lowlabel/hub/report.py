"""One self-contained HTML page about one run or several: `write_report(["runs/a", "runs/b"], "report.html")`.

Everything is in the file, pictures too; it opens without a network and follows the reader's light or dark setting.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template

from ..errors import UserError
from ..evaluation.plots import ACCURACY, LOSS, PSEUDO, SPREAD, _panel
from ..records import RunRecord, Stage, write_text
from . import report_charts as charts
from .card_parts import SHORT, duration, limits, percent

MOST_BARS = 20  # classes listed
FEW_RUNS = 8  # as many as have a colour of their own


@dataclass
class Shown:
    """A run folder as it is read: facts, log rows, metrics, and what was computed anew (None: nothing was)."""

    name: str
    folder: Path
    facts: RunRecord
    rows: list[dict]
    metrics: dict
    computed: object | None = None


def write_report(folders: Sequence[str | Path], output: str | Path = "report.html", *, compute: bool = True) -> Path:
    """Write the page and return its path. compute: load models and data for mistakes and t-SNE; else files alone.

    Raises UserError for a folder that is no run.
    """
    if not folders or len(folders) > FEW_RUNS:
        raise UserError(f"found {len(folders)} runs; expected 1 to {FEW_RUNS}")
    output = Path(output)
    if output.is_dir() or output.suffix not in (".html", ".htm"):
        raise UserError(f"found --output {str(output)!r}; expected a file that ends in .html")
    runs = [read_run(Path(folder), name) for folder, name in zip(folders, short_names(folders), strict=True)]
    if compute:
        from .report_data import compute as compute_run

        for run in runs:
            run.computed = compute_run(run.folder, run.facts)
    title = runs[0].name if len(runs) == 1 else " · ".join(run.name for run in runs)
    body = [
        head(runs),
        comparison(runs),
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
    raise UserError(f"found a run twice: {', '.join(map(str, folders))}; expected different folders")


def read_run(folder: Path, name: str) -> Shown:
    if not (folder / "run.json").is_file():
        raise UserError(f"found no run.json in {folder}; expected a run folder; fix the path")
    facts = RunRecord.from_json(folder / "run.json")
    log, metrics = folder / "log.jsonl", folder / "metrics.json"
    rows = [json.loads(line) for line in log.read_text().splitlines() if line.strip()] if log.is_file() else []
    return Shown(name, folder, facts, rows, json.loads(metrics.read_text()) if metrics.is_file() else facts.metrics)


# ---- sections -------------------------------------------------------------------------------------------------------


def head(runs: list[Shown]) -> str:
    if len(runs) > 1:
        return f"<h1>{len(runs)} runs</h1><p class=sub>{escape(', '.join(run.name for run in runs))}</p>"
    run, facts = runs[0], runs[0].facts
    return f"<h1>{escape(facts.name or run.name)}</h1><p class=sub>{escape(sentence(facts))}</p>"


def sentence(facts: RunRecord) -> str:
    words = {"backbone": "target pretraining", "classification": "classifier", "segmentation": "segmenter"}[facts.kind]
    words += f" with {facts.method}" if facts.method else ""
    words += f" on {facts.data.name}" if facts.data else ""
    words += (
        f", {facts.labels.number:,} {'masks' if facts.kind == 'segmentation' else 'labels'}" if facts.labels else ""
    )
    return words + (f", {facts.architecture}" if facts.architecture else "")


def comparison(runs: list[Shown]) -> str:
    """A row for each run and for each row its card compares it with."""
    entries = []
    for run in runs:
        entries.append((run.name, run.facts, run.metrics))
        known = {r.facts.method for r in runs if r is not run} if len(runs) > 1 else set()
        entries += [
            (f"· {row.name}", None, row.metrics) for row in run.facts.comparisons if row.name.split(",")[0] not in known
        ]
    columns = [key for key in SHORT if any(m.get(key) is not None for *_, m in entries)]
    if not columns:
        return "<h2>Results</h2><p>It was not evaluated.</p>"
    best = {key: max((m[key] for *_, m in entries if m.get(key) is not None), default=None) for key in columns}
    best |= {
        key: min(m[key] for *_, m in entries if m.get(key) is not None) for key in columns if key in ("ece", "nll")
    }
    rows = []
    for name, facts, metrics in entries:
        cells = "".join(_value(key, metrics, best[key] if len(entries) > 1 else None) for key in columns)
        labels = f"{facts.labels.number:,}" if facts and facts.labels else ""
        spent = duration(facts.seconds) if facts and facts.seconds is not None else ""
        rows.append(f"<tr><td>{escape(name)}</td><td>{labels}</td>{cells}<td>{spent}</td></tr>")
    heads = "".join(f"<th>{escape(SHORT[key][0])}</th>" for key in columns)
    return (
        f"<h2>Results</h2><div class=wide><table><thead><tr><th></th><th>Labels</th>{heads}<th>Training</th></tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table></div>{_comparable(runs)}"
    )


def _value(key: str, metrics: dict, best: float | None) -> str:
    value = metrics.get(key)
    if value is None:
        return "<td>–</td>"
    text = percent(value) if SHORT[key][1] else f"{value:.3f}"
    if key == "accuracy" and metrics.get("accuracy_error"):
        text += f" ± {100 * metrics['accuracy_error']:.1f}"
    return f"<td{' class=best' if best is not None and value == best else ''}>{text}</td>"


def _comparable(runs: list[Shown]) -> str:
    """A warning where the runs were not tested or labeled alike."""
    notes = []
    tested = [run for run in runs if run.facts.labels]
    if len({run.facts.data.fingerprint for run in runs if run.facts.data}) > 1:
        notes.append("The runs saw different data.")
    if len({run.facts.labels.split_hash for run in tested}) > 1:
        notes.append("The runs had different labels or test images: small differences between them mean nothing.")
    count = {run.metrics.get("images") for run in tested if run.metrics.get("images")}
    if len(count) == 1 and (n := count.pop()) is not None:
        notes.insert(0, f"{n:,} test images; ± is one standard error of an accuracy.")
    return "".join(f"<p class=note>{escape(note)}</p>" for note in notes)


def curve_section(runs: list[Shown]) -> str:
    """Loss, pseudo-labels, accuracy, spread: several quantities of one run together, or one quantity of several runs."""
    found: dict[str, dict[str, dict[str, tuple[list, list]]]] = {}  # panel -> quantity -> run -> points
    for run in runs:
        for row in run.rows:
            for name, value in row.items():
                panel = _panel(name, row)
                if panel in (LOSS, PSEUDO, ACCURACY, SPREAD) and isinstance(value, (int, float)):
                    x, y = found.setdefault(panel, {}).setdefault(name, {}).setdefault(run.name, ([], []))
                    x.append(row["step"]), y.append(value)
    drawn = []
    for panel in (LOSS, PSEUDO, ACCURACY, SPREAD):
        quantities = found.get(panel, {})
        shares, title = panel in (PSEUDO, ACCURACY), panel.split(" (")[0]
        zero = panel in (LOSS, PSEUDO)
        if len(runs) == 1:
            lines = [
                (_words(name), *points[runs[0].name]) for name, points in sorted(quantities.items(), key=_loss_first)
            ]
            drawn += [charts.lines(title, lines[: charts.MOST_COLORS], percent=shares, zero=zero)] if lines else []
            continue
        for name, points in sorted(quantities.items(), key=_loss_first):
            if panel == LOSS and name != "loss":
                continue
            lines = [
                (run.name, *points.get(run.name, ([0], [float("nan")]))) for run in runs
            ]  # each run keeps its colour
            drawn.append(
                charts.lines(f"{title}: {_words(name)}" if panel != LOSS else title, lines, percent=shares, zero=zero)
            )
    return f"<h2>Training</h2><div class=grid>{''.join(drawn)}</div>" if any(drawn) else ""


def _loss_first(item: tuple[str, object]) -> tuple[bool, str]:
    return item[0] != "loss", item[0]


def _words(name: str) -> str:
    return name.rsplit("/", 1)[-1].replace("_", " ")


def run_sections(run: Shown, named: bool) -> list[str]:
    """Confusion, calibration, classes, t-SNE and mistakes of one run."""
    of, metrics, figures = f" of {escape(run.name)}" if named else "", run.metrics, []
    names = metrics.get("class_names") or run.facts.class_names
    if metrics.get("confusion") and len(names) <= 60:
        figures.append(
            charts.confusion("Confusion", metrics["confusion"], names, pixels=run.facts.kind == "segmentation")
        )
    elif metrics.get("most_confused"):
        most = metrics["most_confused"][:12]
        figures.append(
            charts.bars(
                "Most frequent confusions",
                [
                    (f"{p['true']} as {p['predicted']}", p["images"] / most[0]["images"], f"{p['images']:,} images")
                    for p in most
                ],
            )
        )
    if metrics.get("reliability"):
        figures.append(charts.reliability("Calibration", metrics["reliability"], metrics["ece"]))
    if metrics.get("per_class") and run.facts.kind == "segmentation":
        per = sorted(
            (v, share, name)
            for name, v, share in zip(names, metrics["per_class"], metrics["per_class_share"], strict=True)
            if v is not None
        )
        rows = [(name, v, f"{percent(v)}, {percent(share)} of pixels") for v, share, name in per]
        figures.append(
            charts.bars(
                "IoU of the classes, worst first",
                rows[:MOST_BARS],
                f"and {len(rows) - MOST_BARS:,} more" if len(rows) > MOST_BARS else "",
            )
        )
    elif metrics.get("per_class"):
        per = [
            (a, n, name)
            for name, a, n in zip(names, metrics["per_class"], metrics["per_class_images"], strict=True)
            if a is not None
        ]
        rows = [(name, a, f"{percent(a)} of {n:,}") for a, n, name in sorted(per, key=lambda p: p[0])]
        figures.append(
            charts.bars(
                "Accuracy of the classes, worst first",
                rows[:MOST_BARS],
                f"and {len(rows) - MOST_BARS:,} more" if len(rows) > MOST_BARS else "",
            )
        )
    out = [f"<h2>Test results{of}</h2><div class=grid>{''.join(figures)}</div>"] if figures else []
    done = run.computed
    if done is not None and done.panels:
        panels = "".join(
            charts.scatter(title, points, labels, done.class_names) for title, points, labels in done.panels
        )
        count = len(done.panels[0][1])
        out.append(
            f"<h2>Features{of}, stage by stage</h2><p class=note>t-SNE of {count:,} images that have a label; one dot each, "
            f"coloured by class. Only neighbourhoods mean something, not distances.</p><div class='grid three'>{panels}</div>"
        )
    if done is not None and done.mistakes:
        tiles = "".join(_tile(m) for m in done.mistakes)
        out.append(
            f"<h2>Worst mistakes{of}</h2><p class=note>The most confident wrong answers among {done.tested:,} test "
            f"images.</p><div class=tiles>{tiles}</div>"
        )
    elif done is not None and done.masks:
        tiles = "".join(_strip(m) for m in done.masks)
        items = "".join(
            f'<span><i class=box style="background:rgb{color}"></i>{escape(name)}</span>'
            for name, color in done.colors.items()
        )
        out.append(
            f"<h2>Worst masks{of}</h2><p class=note>The test images of lowest mean IoU among {done.tested:,}: image, true mask, "
            f"answer.</p><div class=legend>{items}</div><div class='tiles strips'>{tiles}</div>"
        )
    elif (run.folder / "predictions.png").is_file():
        out.append(
            f"<h2>Examples{of}</h2><img class=picture alt='test images with predictions' src='{_inline(run.folder / 'predictions.png')}'>"
        )
    return out + [f"<p class=note>{escape(note)}</p>" for note in (done.notes if done is not None else [])]


def _tile(mistake) -> str:
    picture = base64.b64encode(mistake.picture).decode()
    return (
        f"<div class=tile><img alt='' src='data:image/png;base64,{picture}'><b>✗ {escape(mistake.predicted)}</b> "
        f"{100 * mistake.confidence:.0f} %<br>true: {escape(mistake.true)}</div>"
    )


def _strip(mask) -> str:
    picture = base64.b64encode(mask.picture).decode()
    return f"<div class=tile><img alt='' src='data:image/png;base64,{picture}'>{escape(mask.id)}: IoU {percent(mask.miou)}</div>"


def _inline(path: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"


def made(run: Shown, named: bool) -> str:
    """Limits, lineage, command and settings."""
    facts = run.facts
    lineage = " → ".join(map(_stage, facts.lineage))
    settings = {
        **facts.hyperparameters,
        "seed": facts.seed,
        **{f"version of {k}": v for k, v in facts.versions.items()},
        **facts.hardware,
    }
    rows = "".join(
        f"<tr><td>{escape(str(k))}</td><td class=text>{escape(str(v))}</td></tr>"
        for k, v in settings.items()
        if v not in (None, {}, [], "")
    )
    said = "".join(f"<li>{escape(_plain(line))}</li>" for line in limits(facts))
    command = f"<pre>{escape(facts.command)}</pre>" if facts.command else ""
    title = f"How {escape(run.name)} was made" if named else "How it was made"
    return (
        f"<h2>{title}</h2><p>{escape(lineage)}</p>{command}<h3>Limits</h3><ul>{said}</ul>"
        f"<details><summary>Settings, versions, hardware</summary><div class=wide><table>{rows}</table></div></details>"
    )


def _stage(stage: Stage) -> str:
    words = " ".join(filter(None, [stage.what, stage.name, f"({stage.method})" if stage.method else None]))
    return words + (f", {stage.steps:,} steps" if stage.steps else "")


def _plain(line: str) -> str:
    """A line of the card without its Markdown; names keep quotes."""
    return line.replace("**", "").replace("`", "'").replace("\\", "")
