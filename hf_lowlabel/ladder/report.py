"""The advisor: what can be said about a model without a test set, as text and as a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..evaluation.near_copies import copies_tested
from ..finetuning.graph import class_shares
from ..text import duration, listed, percent
from ..training.preparing import Prepared
from . import advice as find
from .advice import Remark
from .encoders import Features
from .estimates import FARTHEST, MORE, Curve, Help, Interval, accuracy, confidence, labels_for, unlabeled_help
from .fair_sample import Likeness, likeness, some_without
from .rungs import Tried

NEXT = 20  # labels to give before another look
OVER, LEAST_OVER = 1.25, 60.0  # times the minutes, and seconds, from which on a search says that it took longer


@dataclass
class Advice:
    """Estimates of `auto`, and remarks on images, by position among the training images.

    sentences: the summary. accuracy: on new images, by cross-validation; None with too few labels. helps: whether
    unlabeled images help, "yes", "no" or "unclear". tested: ids of nearly identical labeled and test images.
    trained_on: the model was finetuned from frozen features; `accuracy` is that of the features. guessing: the interval
    of `accuracy` holds what naming the most frequent class each time would score. later: what there was no time to try
    -> from how many minutes of a new search it is.
    """

    sentences: list[str]
    accuracy: Interval | None
    helps: str
    gain: Interval | None
    forecast: Interval | None
    next: list[Remark] = field(default_factory=list)
    copies: list[Remark] = field(default_factory=list)
    doubtful: list[Remark] = field(default_factory=list)
    strangers: list[Remark] = field(default_factory=list)
    tested: list[tuple[str, str]] = field(default_factory=list)
    trained_on: bool = False
    guessing: bool = False
    later: dict[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        return "\n".join(self.sentences)

    def __repr__(self) -> str:
        whose = " by the frozen features" if self.trained_on else ""
        known = (
            f"{self.accuracy} on new images{whose}" if self.accuracy else "how good it is on new images is not known"
        )
        return f"Advice({known}; {len(self.sentences)} sentences, which print shows)"


def advise(
    ready: Prepared,
    encoders: list[Features],
    tried: list[Tried],
    metrics: dict[str, Any],
    count: int,
    curve: Curve | None,
    trained_on: bool = False,
) -> Advice:
    """Advice from labels, images and candidates. curve: the learning curve over parts of the labels.
    trained_on: whether the answer is a network that was finetuned from the frozen features."""
    best, names = tried[0], ready.names
    encoder = next(e for e in encoders if e.name == best.encoder)
    y, rows, x, p = encoder.y, encoder.rows, encoder.x, encoder.say(best)
    free = np.setdiff1d(np.arange(len(p)), rows)
    now = accuracy(best, confidence(encoder, best))
    help = unlabeled_help(tried)
    out = Advice([], now, help.verdict, help.gain, curve.forecast if curve else None, trained_on=trained_on)
    out.next = find.next_to_label(p, x, ready.chosen.split.without_passed_over(free, ready.training.ids), names, count)
    chosen = [i for one in out.next for i in one.rows]
    out.copies = find.copies(ready.training, np.array([*chosen, *rows], np.int64))
    out.strangers = find.strangers(x, out.copies)
    out.tested = copies_tested(ready.labeled, ready.held.get("test"))
    doubtful = find.doubtful_labels(best, y, rows, names)
    out.doubtful = find.unreviewed(doubtful, ready.training.ids, ready.chosen.split)
    words = "labels" if encoder.copies is None else "labeled pictures"  # copies of one say no more than it
    how = f"cross-validation over {len(best.asked)} {words}"
    if len(best.weight) < len(best.asked):
        words = "files and films with labels"
        how += f", grouped by file or film ({len(best.weight)} {words})"
    if trained_on:
        how += "; that is for the frozen features, and the network finetuned from them does better (see below)"
    shares = class_shares(y, len(names), even=best.even)
    most = float(shares.max())
    above = metrics.get(ready.task.score.key, 0.0) > most  # on test images, which say more than the interval
    out.guessing = now is not None and not trained_on and not above and bool(now.low <= most)
    out.sentences = [
        *said_accuracy(ready, out, tried, metrics, how, said_guessing(out, names[int(shares.argmax())], most)),
        *find.said_shares(best.even if best.evenly else None, names),
        said_help(help, len(free), any(one.adapted for one in tried)),
        *said_more(out, curve, len(encoder.first), len(free), words),
        *said_unlike(likeness(x[rows[encoder.once]], x[some_without(len(x), rows)])),
        *said_images(ready, out, find.confused(p, names)),
    ]
    return out


def said_accuracy(
    ready: Prepared, out: Advice, tried: list[Tried], metrics: dict[str, Any], how: str, guessing: list[str]
) -> list[str]:
    lines, best = [], tried[0]
    if out.accuracy is None:
        lines.append("Cross-validation needs two labeled pictures of a class: the accuracy is not known.")
    else:
        lines += [f"On new images: {between(out.accuracy)} right, from {how}.", *guessing]
        tested = {int(k) for k in np.unique(ready.labeled.targets.numpy()[best.asked])}
        if alone := [name for k, name in enumerate(ready.names) if k not in tested]:
            whose = "its" if len(alone) == 1 else "their"
            lines.append(f"No label of {listed(alone, 5)} could be held out: {whose} accuracy is not known.")
    lines += said_tested(ready, metrics)
    probe = max((one for one in tried if not one.unlabeled), key=lambda one: one.score)
    if probe is not best and probe.accuracy is not None:
        more = probe.accuracy > (best.accuracy or 0)
        why = ", more by a few labels only, which may be luck" if more else ""
        given = ", on the original encoder" if best.adapted else ""
        lines.append(f"A linear probe on the same labels{given}: {percent(probe.accuracy)} right{why}.")
    return lines


def said_guessing(out: Advice, name: str, share: float) -> list[str]:
    """share: of the most frequent class among the images."""
    said = f"This may be no better than guessing: {name} as the answer for every image is {percent(share, 0)} right."
    return [said] if out.guessing else []


def said_tested(ready: Prepared, metrics: dict[str, Any]) -> list[str]:
    score = ready.task.score
    if score.key not in metrics:
        return []
    return [f"On the {metrics['images']} test images: {score.of(metrics)} right."]


def between(interval: Interval) -> str:
    return f"{100 * interval.value:.0f} % ({100 * interval.low:.0f} to {100 * interval.high:.0f})"


def why_less(ladder: Sequence[Mapping[str, Any]], expected: Interval | None) -> str:
    """A sentence where less is expected on new images than the kept row of the table shows; "" otherwise, and of a
    network, of which nothing is expected: that is of the frozen features it was finetuned from."""
    kept = next((row["by_labels"] for row in ladder if row["kept"] and not row.get("halves")), None)
    if kept is None or expected is None or round(100 * expected.value) >= round(100 * kept):
        return ""
    return (
        f"Expect less on new images ({percent(expected.value, 0)}): the best of several rows is partly luck, and a "
        "few labels say little."
    )


HELP = {"yes": "they probably help", "no": "they do not help", "unclear": "whether they help is unclear"}


def said_help(help: Help, unlabeled: int, adapted: bool = False) -> str:
    """adapted: whether an encoder has learned from them."""
    if not unlabeled:
        return "Unlabeled images: there are none."
    gain = ""
    if help.gain is not None:
        low, high = help.gain.low, help.gain.high
        gain = f", {100 * help.gain.value:+.0f} points of accuracy ({100 * low:+.0f} to {100 * high:+.0f})"
        if help.verdict != "unclear" and low < 0 < high:  # right answers are too few to show it
            more = "more" if help.verdict == "yes" else "less"
            gain += f"; with them the true classes of held-out labels are clearly {more} probable"
        if adapted:
            gain += "; compared with a linear probe on the original encoder"
    return f"Unlabeled images: {HELP[help.verdict]}{gain}."


def said_more(out: Advice, curve, labels: int, unlabeled: int, words: str) -> list[str]:
    """unlabeled: images that could get a label."""
    if curve is None or out.accuracy is None:
        return ["More labels: too few for a forecast." + " Label 3 of each class, then ask again." * bool(unlabeled)]
    lines = [f"With {round(MORE * labels)} {words} instead of {labels}: {between(curve.forecast)}."]
    goal = next((t for t in (0.7, 0.8, 0.9, 0.95, 0.98) if t > out.accuracy.value + 0.03), None)
    if goal is not None:
        then = f" Label {min(unlabeled, NEXT)}, then ask again." if unlabeled else " All images here have a label."
        lines.append(f"For {100 * goal:.0f} %: {said_needed(curve, goal, labels, words)}.{then}")
    return lines


def said_needed(curve: Curve, goal: float, labels: int, words: str) -> str:
    """How many labels an accuracy takes, with the range that the forecast's own interval leaves."""
    wide = (curve.forecast.high - curve.forecast.low) / 2
    few, needed, many = (labels_for(curve, goal + shift, labels) for shift in (-wide, 0.0, wide))

    def rounded(number: int | None) -> str:
        return f"{int(float(f'{number:.2g}')):,}" if number else f"more than {FARTHEST} times as many"

    if needed is None:
        best = f" ({rounded(few)} at best)" if few and few > labels else ""
        return f"probably more than {FARTHEST} times as many {words}{best}; how many cannot be said from so few"
    return f"about {rounded(needed)} {words} ({rounded(few)} to {rounded(many)})"


def said_unlike(found: Likeness | None) -> list[str]:
    return [found.sentence] if found is not None and found.sentence else []


def said_overrun(minutes: float, seconds: float, computed: float, on_cpu: bool) -> str:
    """That a search took much longer than `minutes`; "" where it did not.

    Args:
        minutes: that were asked for. seconds: that it took.
        computed: seconds of the processor that this process had. on_cpu: the network runs there too.
    """
    if seconds < max(OVER * 60 * minutes, LEAST_OVER):
        return ""
    why = (
        f": it had the processor for {duration(computed)} of them and waited for the rest, for other work, reading or "
        "downloads, and the times said here are of that"
    )
    why = why if on_cpu and 2 * computed < seconds else ". With a smaller --image-size it takes less"
    return f"The search took {duration(seconds)}, with --minutes {minutes:g}{why}."


def said_later(later: Mapping[str, int]) -> list[str]:
    each = "; ".join(f"{name} (from about --minutes {least})" for name, least in later.items())
    return [f"There was no time for {each}. A new search in another --output-dir tries it."] if later else []


def said_images(ready: Prepared, out: Advice, confused: list[tuple[str, str, float]]) -> list[str]:
    lines = []
    if confused and confused[0][2] > 0.01:
        pairs = ", ".join(
            f"{a} and {b} ({percent(share, 0)} of the images)" for a, b, share in confused[:3] if share > 0.01
        )
        lines.append(f"Hard to tell apart: {pairs}.")
    named = (
        ("doubtful", "labels may be wrong", "label may be wrong"),
        ("copies", "pairs of images are nearly identical", "pair of images is nearly identical"),
        ("strangers", "images are outliers", "image is an outlier"),
    )
    for key, many, one in named:
        found: list[Remark] = getattr(out, key)
        if found:
            ids = ", ".join(ready.training.ids[i] for i in found[0].rows)
            lines.append(f"{len(found)} {one if len(found) == 1 else many}, such as {ids}.")
    return [*lines, *said_copied(out)]


def said_copied(out: Advice) -> list[str]:
    if not out.tested:
        return []
    (a, b), count = out.tested[0], len({test for _, test in out.tested})
    many = f"{count} test images are" if count > 1 else "1 test image is"
    return [f"{many} nearly identical to labeled ones, such as {b} and {a}: the test is easier than new images."]
