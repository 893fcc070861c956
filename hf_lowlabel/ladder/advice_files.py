"""The advisor's files in a run folder: advice.json, the page, and the images to label next."""

from __future__ import annotations

import html
import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ..commands import DONE
from ..errors import UserError
from ..files import COPY, read_json, write_json, write_text
from ..finetuning.graph import rooted
from ..labeling.answer_kinds import kind_of
from ..labeling.contact_sheet import thumbnail
from ..labeling.labels import Asked
from ..labeling.mask_places import why_unpainted
from ..labeling.next_steps import declared_colors
from ..labeling.suggestions import Suggestions
from ..labeling.to_label import NoneReadable, export, is_complete
from ..records import why_kept
from ..selection.reasons import reasons
from ..text import percent
from ..training.preparing import Prepared
from .advice import SHOWN, Remark
from .report import Advice, why_less

log = logging.getLogger("hf_lowlabel")
LISTS = ("next", "copies", "doubtful", "strangers")


def write_advice(
    ready: Prepared, advice: Advice, x: np.ndarray, folder: Path, asked: np.ndarray | None = None
) -> Path | None:
    """advice.json, advice.html, and to_label/ with the images to label next. Returns that folder, if there is one.

    x: features [M, D] of the training images, or of those at `asked`, int64 [M] in order.
    """
    write_json(folder / "advice.json", as_json(ready, advice))
    asked = np.arange(len(x)) if asked is None else asked
    painted = bool(advice.next) and kind_of(ready.task.name).page == "mask"
    why = why_unpainted(ready.config.data, folder / "to_label" / "images") if painted else ""
    chosen = to_label_folder(ready, advice, x, asked, folder / "to_label", bool(why)) if advice.next else None
    write_text(folder / DONE, page(ready, advice, why))
    return chosen


def as_json(ready: Prepared, advice: Advice) -> dict[str, Any]:
    ids = ready.training.ids

    def listed(remarks: list[Remark]) -> list[dict[str, Any]]:
        return [{"images": [ids[i] for i in r.rows], "why": r.why, "looks_like": r.looks_like} for r in remarks]

    numbers = {k: asdict(v) if v else None for k, v in vars(advice).items() if k in ("accuracy", "gain", "forecast")}
    remarks = {k: listed(getattr(advice, k)) for k in LISTS}
    remarks["copies"] += [
        {"images": list(pair), "why": "nearly identical; the second is tested on", "looks_like": None, "tested": True}
        for pair in advice.tested
    ]
    words = {"sentences": advice.sentences, "helps": advice.helps, "trained_on": advice.trained_on}
    words |= {"guessing": advice.guessing}
    return {**words, **numbers, **remarks}


def read_advice(run: Path) -> dict[str, Any]:
    """What `as_json` wrote beside a run; people may have edited it.

    Raises:
        UserError: it is not there, or holds something else.
    """
    file = run / "advice.json"
    said = read_json(file)
    try:
        for key in ("accuracy", "gain", "forecast"):
            if said[key] is not None:
                _ = [float(said[key][name]) for name in ("value", "low", "high")]
        for remark in [one for key in LISTS for one in said[key]]:
            like = remark["looks_like"]
            words = [remark["why"], *remark["images"], *([like[0]] if like else [])]
            if not remark["images"] or not all(isinstance(word, str) for word in words):
                raise TypeError("words that are none")
            _ = like and float(like[1])
    except (KeyError, TypeError, ValueError, IndexError, AttributeError):
        raise UserError(f"{file} does not hold what `hf-lowlabel auto` writes there. {COPY}") from None
    return said


def to_label_folder(
    ready: Prepared, advice: Advice, x: np.ndarray, seen: np.ndarray, folder: Path, unpainted: bool
) -> Path | None:
    """A folder for `hf-lowlabel label`, which knows the labels there are already; None where no image can be read any
    more, which is no fault of the run. unpainted: its masks are drawn elsewhere."""
    if is_complete(folder):  # of a search that was killed after it: somebody may have labeled since
        return folder
    dataset, split = ready.dataset, ready.chosen.split
    rows = np.array([r.rows[0] for r in advice.next])
    at = np.asarray(ready.training.indices)
    colors, report = declared_colors(ready.config.data), {"not_painted": True} if unpainted else {}
    asked = Asked.of(dataset, split, task=ready.task.name, strategy="doubt", class_colors=colors, report=report)
    why = reasons(rooted(x), np.searchsorted(seen, rows), dataset, at[seen])
    ids = ready.training.ids
    said: Suggestions = {ids[r.rows[0]]: (r.looks_like, r.why) for r in advice.next}
    try:
        export(folder, dataset, at[rows], asked, why, said)
    except NoneReadable:
        log.warning("None of the images to label next can be read any more: %s is left out", folder)
        return None
    return folder


INTERVALS = "80 % intervals, four of five of which contain the score on new images."
STYLE = """
 :root { color-scheme: light dark; }
 body { font: 15px/1.5 system-ui, sans-serif; margin: 1.5rem auto; max-width: 60rem; padding: 0 1rem; }
 table { border-collapse: collapse; } td, th { text-align: left; padding: .25rem .9rem .25rem 0; }
 td:last-child, th:last-child { text-align: right; } tr.kept td { font-weight: 600; }
 figure { display: inline-block; width: 150px; margin: .3rem; vertical-align: top; font-size: .8rem; }
 figure img { height: 96px; margin-right: 3px; } figcaption { overflow-wrap: anywhere; }
"""


def page(ready: Prepared, advice: Advice, unpainted: str = "") -> str:
    """One HTML page without scripts: sentences, the ladder, and the images behind them. unpainted: why our page cannot
    take the masks of the images to label next."""
    ids, at = ready.training.ids, ready.training.indices

    def figures(remarks: list[Remark]) -> str:
        out = []
        for r in remarks[:SHOWN]:
            images = "".join(f'<img alt="" src="{thumbnail(ready.dataset, int(at[i]))}">' for i in r.rows)
            names = html.escape(" and ".join(ids[i] for i in r.rows))
            out.append(f"<figure>{images}<figcaption>{names}<br>{html.escape(r.why)}</figcaption></figure>")
        more = f"<p>and {len(remarks) - SHOWN} more, in advice.json</p>" if len(remarks) > SHOWN else ""
        return "".join(out) + more

    score, rows = ready.task.score.title, []
    for row in ready.recorder.ladder:
        value = "–" if row["by_labels"] is None else percent(row["by_labels"])
        kept = ' class="kept"' if row["kept"] else ""
        rows.append(f"<tr{kept}><td>{html.escape(row['name'])}</td><td>{value}</td></tr>")
    less = why_less(ready.recorder.ladder, advice.accuracy)
    parts = [
        f"<p>{'<br>'.join(html.escape(s) for s in advice.sentences)}</p>"
        + (f"<p>In brackets behind a score: {INTERVALS}</p>" if advice.accuracy else ""),
        f"<h2>What was tried</h2><table><tr><th></th><th>{score}, cross-validated</th></tr>"
        + "".join(rows)
        + "</table>"
        + ("<p>Each class is weighted by its likely share of all images.</p>" if ready.task.climbs else "")
        + "".join(f"<p>{why}</p>" for why in (less, why_kept(ready.recorder.ladder)) if why),
    ]
    titles = (
        ("next", "Label these next"),
        ("doubtful", "Labels to check"),
        ("copies", "Near-duplicates"),
        ("strangers", "Outliers"),
    )
    said = {"next": f"<p>{html.escape(unpainted)}</p>" if unpainted else ""}
    lists = ((key, title, getattr(advice, key)) for key, title in titles)
    parts += [f"<h2>{title}</h2>{said.get(key, '')}{figures(found)}" for key, title, found in lists if found]
    title = html.escape(f"Advice on {ready.dataset.name}")
    return (
        f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width, '
        f'initial-scale=1"><title>{title}</title><style>{STYLE}</style>\n<h1>{title}</h1>\n' + "\n".join(parts) + "\n"
    )
