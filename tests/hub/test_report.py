"""The report: one file that needs nothing else, true to its runs, and what it says when something is missing."""

from __future__ import annotations

import base64
import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from hub_runs import without_pictures
from PIL import Image

from hf_lowlabel.errors import UserError
from hf_lowlabel.evaluation import charts
from hf_lowlabel.evaluation.classification import classification_scores, softmax
from hf_lowlabel.hub.report import report, short_names
from hf_lowlabel.records import Data, Labels, Row, RunRecord, Stage
from tests.quick import few_digits

NAMES = ["cat", "<b>owl</b>", 'q"uote']
VOID = {"meta", "img", "br", "line", "circle", "rect", "path", "text"}


class Page(HTMLParser):
    """Checks that tags are balanced and that nothing is fetched; collects the text."""

    def __init__(self, html: str):
        super().__init__()
        self.open, self.text, self.tags = [], [], []
        self.feed(html)
        assert not self.open, self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        for name, value in attrs:
            assert name not in ("src", "srcset", "poster") or value.startswith("data:image/png;base64,"), value
            assert name != "href" and not name.startswith("on") and tag not in ("script", "link", "iframe")
        if tag not in ("meta", "img", "br", "line"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def make(folder, accuracy_of=0.8, split_hash="a" * 64, method="fixmatch", **changes):
    folder.mkdir()
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 3, 60)
    guess = np.where(rng.random(60) < accuracy_of, targets, (targets + 1) % 3)
    metrics = classification_scores(softmax(np.eye(3)[guess] * 3), targets, NAMES)
    (folder / "metrics.json").write_text(json.dumps(metrics))
    rows = [{"step": s, "loss": 2 / s, "mask_ratio": 0.5, "learning_rate": 0.1} for s in range(1, 100)] + [
        {"step": 50, "test_accuracy": 0.6}
    ]
    (folder / "log.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    facts = dict(
        kind="classification",
        method=method,
        class_names=NAMES,
        data=Data("pets", fingerprint="f"),
        labels=Labels(12, {n: 4 for n in NAMES}, split_hash=split_hash),
        metrics=metrics,
        seconds=70.0,
        lineage=[Stage("pretrained weights", "resnet18"), Stage("finetuning", method=method, steps=99)],
        command="hf-lowlabel finetune --dataset <pets>",
    )
    RunRecord(**{**facts, **changes}).to_json(folder / "run.json")
    return folder, metrics


def test_one_run(tmp_path):
    folder, metrics = make(tmp_path / "run", comparisons=[Row("supervised, same labels", {"accuracy": 0.4})])
    html = report([folder], tmp_path / "report.html", compute=False).read_text()
    page = Page(html)
    text = " ".join(page.text)
    assert "http" not in re.sub(r"<pre>.*?</pre>", "", html, flags=re.S)
    for words in (
        f"{100 * metrics['accuracy']:.1f} %",
        "supervised, same labels",
        "40.0 %",
        "60 test images",
        "hf-lowlabel finetune --dataset <pets>",
        "Expected calibration error",
        "1 min 10 s",
        "<b>owl</b>",
        "pretrained weights resnet18 → finetuning (fixmatch), 99 steps",
    ):
        assert words in text, words
    assert "<b>owl" not in html and "Worst classes: '" in text  # names are told from numbers
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", html)
    assert captions == [
        "Loss",
        "Pseudo-labels: share of the unlabeled batch",
        "Accuracy",
        "Confusion",
        "Calibration",
        "Accuracy of the classes, worst first",
    ]
    cells = [
        a for tag, a in page.tags if tag == "rect" and "rx" in a and a.get("fill") in ("var(--good)", "var(--bad)")
    ]
    assert len(cells) == np.count_nonzero(metrics["confusion"])


def test_curves_are_where_the_numbers_are(tmp_path):
    folder, _ = make(tmp_path / "run")
    (folder / "log.jsonl").write_text(
        "".join(json.dumps({"step": s, "loss": v}) + "\n" for s, v in ((0, 4.0), (5, None), (10, 0.0), (20, 2.0)))
    )
    html = report([folder], tmp_path / "report.html", compute=False).read_text()
    (path,) = re.findall(r'<path d="([^"]+)" fill', html)
    points = [tuple(map(float, p.split())) for p in re.split("[ML]", path)[1:]]
    assert len(points) == 3 and points[0][1] < points[2][1] < points[1][1]  # up is less
    assert points[1][0] - points[0][0] == pytest.approx((points[2][0] - points[0][0]) / 2, abs=0.2)
    assert (points[1][1] - points[0][1]) == pytest.approx(2 * (points[2][1] - points[0][1]), abs=0.3)


def test_runs_side_by_side(tmp_path):
    a, _ = make(tmp_path / "a")
    b, _ = make(tmp_path / "b", 0.5, method="supervised")
    html = report([a, b], tmp_path / "report.html", compute=False).read_text()
    Page(html)
    assert "2 runs" in html and "different labels" not in html and html.count("<figcaption>Loss</figcaption>") == 1
    assert html.count("<td class=best>") >= 2 and "Test results of a" in html and "How b was made" in html
    c, _ = make(tmp_path / "c", split_hash="c" * 64)
    html = report([a, c], tmp_path / "report.html", compute=False).read_text()
    assert "The runs had different labels or test images" in html


def test_what_is_wrong_is_said(tmp_path):
    folder, _ = make(tmp_path / "run")
    with pytest.raises(UserError, match="There is no .*run.json"):
        report([tmp_path], tmp_path / "report.html")
    with pytest.raises(UserError, match="ends in .html"):
        report([folder], tmp_path / "report.pdf")
    with pytest.raises(UserError, match="A run is given twice"):
        report([folder, folder], tmp_path / "report.html")
    with pytest.raises(UserError, match="folders is a Linear. Give a run folder or a finished run."):
        report(torch.nn.Linear(2, 2), tmp_path / "report.html")
    alone = report(str(folder), tmp_path / "report.html", compute=False).read_text()
    assert alone == report([folder], tmp_path / "report.html", compute=False).read_text()
    assert short_names(["x/a", "y/a", "z/b"]) == ["x/a", "y/a", "z/b"] and short_names(["x/a", "y/b"]) == ["a", "b"]


def test_data_that_moved_leaves_a_note(tmp_path):
    folder, _ = make(tmp_path / "run")
    (folder / "training.yaml").write_text("dataset: /nowhere/pets\n")
    html = report([folder], tmp_path / "report.html").read_text()
    Page(html)
    assert "No pictures of the data" in html and "Worst mistakes" not in html and "Calibration" in html
    other, _ = make(tmp_path / "other")
    (other / "training.yaml").write_text("dataset: /nowhere/pets\n")
    parts = report([folder, other], tmp_path / "report.html").read_text().split("<h2>")
    held = [part.split("</h2>")[0] for part in parts if "No pictures of the data" in part]
    assert held == ["Not shown of run", "Not shown of other"]  # each at its own place


def test_mistakes_and_features_of_a_real_run(tmp_path, monkeypatch):
    from hf_lowlabel import evaluate, finetune, pretrain
    from hf_lowlabel.hub import report_data
    from hf_lowlabel.tasks import classification_card

    monkeypatch.setattr(report_data, "MOST_DOTS", 40)
    few_digits(monkeypatch.setattr, 400)
    without_pictures(monkeypatch)
    tiny = dict(
        dataset="digits",
        image_size=16,
        stored_size=16,
        color=False,
        max_steps=2,
        logging_steps=1,
        eval_steps=9,
        batch_size=10,
    )
    start = pretrain(**tiny, model="cnn6_16", from_scratch=True, method="byol", output_dir=str(tmp_path / "byol"))
    run = finetune(**tiny, model=str(start.folder), num_labels=20, unlabeled_ratio=1, output_dir=str(tmp_path / "run"))
    done = report_data.compute(run.folder, RunRecord.from_json(run.folder / "run.json"))
    assert [title for title, *_ in done.panels] == ["random weights", "after byol", "after fixmatch"] and not done.notes
    for _, points, labels in done.panels:
        assert points.shape == (40, 2) and np.isfinite(points).all() and len(labels) == 40
    metrics = evaluate(str(run.folder), "digits")
    wrong = round((1 - metrics["accuracy"]) * metrics["images"])
    ((title, note, body),) = done.findings
    said = re.findall(r"<b>✗ (\w+)</b> (\d+) %<br>true: (\w+)</div>", body)
    assert title == "Worst mistakes" and f"among {metrics['images']:,} test images" in note
    assert len(said) == min(wrong, classification_card.MOST_MISTAKES)
    sure = [int(confidence) for _, confidence, _ in said]
    assert sure == sorted(sure, reverse=True) and all(predicted != true for predicted, _, true in said)
    monkeypatch.setattr(report_data, "compute", lambda *given: done)  # once is enough
    html = report([run.folder], tmp_path / "report.html").read_text()
    page = Page(html)
    shown = [a["src"] for tag, a in page.tags if tag == "img"]
    assert len(shown) == len(said)
    for src in shown:
        with Image.open(io.BytesIO(base64.b64decode(src.partition(",")[2]))) as picture:
            assert picture.format == "PNG" and max(picture.size) == classification_card.TILE


def test_names_in_a_picture_of_features_are_whole_inside_and_apart():
    """Also of classes whose dots lie on each other, at a corner, and of a very long name."""
    names = [
        "daisy",
        "dandelion of the meadows",
        "a name that is longer than the picture is wide by far",
        "tulip",
        "rose",
    ]
    points = np.array([[0, 0], [0.01, 0], [0, 0.01], [0.5, 0.5], [0.5, 0.5], [1, 1]], float)
    svg = charts.scatter("after fixmatch", points, np.array([0, 1, 2, 3, 4, 4]), names)
    found = re.findall(
        r'<text x="(\d+)" y="(\d+)" text-anchor="middle" class=halo(?: style="font-size:(.*?)px")?>(.*?)<', svg
    )
    boxes = []
    for x, y, font, name in found:
        size = float(font or charts.LABEL)
        half = charts.LETTER * size * len(name) / 2
        boxes.append((int(x) - half, int(x) + half, int(y)))
        assert -1 <= boxes[-1][0] and boxes[-1][1] <= 361 and 10 <= int(y) <= 358
    assert sorted(name for *_, name in found) == sorted(names)
    for i, (left, right, base) in enumerate(boxes):
        others = boxes[:i]
        assert all(right <= a + 1 or b <= left + 1 or abs(base - c) >= charts.LABEL for a, b, c in others)
