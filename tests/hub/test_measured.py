"""What is measured after a run stands on its card, which is pushed."""

from __future__ import annotations

import re
import shutil

import datasets
import pytest

from hf_lowlabel import UserError, evaluate, finetune, push, report
from hf_lowlabel.records import RunRecord
from tests.test_open_api import FINETUNE, table


@pytest.fixture(scope="module")
def untested(tmp_path_factory):
    folder = tmp_path_factory.mktemp("untested") / "run"
    return finetune(table(24), test_fraction=0, method="supervised", output_dir=folder, **FINETUNE)


def test_an_evaluation_stands_on_the_card(untested, hub):
    """In the place of an earlier one of the same data; and a card with words of one's own stays as it is."""
    new, card = datasets.DatasetDict({"test": table(9, 1)}), untested.folder / "README.md"
    assert "was not measured" in card.read_text()
    for _ in range(2):
        found = evaluate(untested, new, card=True)
    evaluate(untested, table(12, 2), card=True)
    text = card.read_text()
    of_nine = re.findall(r"Evaluated on 9 images of data in memory \(split test, fingerprint [0-9a-f]{8}\) on 20", text)
    assert len(of_nine) == 1 and "was not measured" not in text
    assert f"accuracy {100 * found['accuracy']:.1f} %" in text
    assert re.search(r"Evaluated on 12 images of data in memory \(fingerprint [0-9a-f]{8}\) on 20", text)
    evaluate(untested, table(12, 5), card=True)  # other images, as many
    assert len(re.findall("Evaluated on 12 images", card.read_text())) == 2
    with pytest.raises(UserError, match="In training, without test images, a linear layer on the frozen"):
        evaluate(untested, table(24))
    assert "Sorts images into 3 classes, " in text and "*memory*" not in text
    push(untested, "org/pets")
    pushed = hub.repos["model", "org/pets"].content("main")["README.md"].decode()
    assert "Evaluated on 9 images" in pushed
    card.write_text(card.read_text().replace("## Limits", "Ask me.\n\n## Limits"))
    with pytest.warns(UserWarning, match="has been edited, and stays as it is. Add to it: Evaluated on 6 images"):
        evaluate(untested, table(6, 3), card=True)
    assert "Ask me." in card.read_text() and "Evaluated on 6" not in (untested.folder / "run.json").read_text()
    with pytest.raises(
        UserError, match="card is for a run folder or a finished run, and .* has no card. Leave card out"
    ):
        evaluate(untested.model, new, card=True)


@pytest.mark.parametrize("method", ["supervised", "probe"])
def test_what_was_measured_is_said_for_as_long_as_the_weights_are_the_same(tmp_path, method):
    ask = dict(FINETUNE, test_fraction=0, method=method, output_dir=tmp_path / "run")
    if method == "probe":
        ask = {k: v for k, v in ask.items() if k not in ("max_steps", "batch_size", "unlabeled_ratio")}
    run = finetune(table(24), **ask)
    page = report(run, tmp_path / "before.html", compute=False).read_text()
    assert "cross-validation says below" in page
    evaluate(run, table(9, 1), card=True)
    lines = RunRecord.from_json(run.folder / "run.json").advice
    finetune(table(24), **ask, resume=True)
    assert RunRecord.from_json(run.folder / "run.json").advice == lines and "Evaluated on 9" in lines[-1]
    assert "Evaluated on 9" in (run.folder / "README.md").read_text()
    page = report(run, tmp_path / "page.html", compute=False).read_text()
    results, advice = page.split("<h2>Advice</h2>")
    assert "Evaluated on 9" in results and "Evaluated on" not in advice and "no test images:" not in page
    if method == "supervised":  # which can learn on
        finetune(table(24), **{**ask, "max_steps": 6}, resume=True)
        assert "Evaluated on" not in (run.folder / "run.json").read_text() + (run.folder / "README.md").read_text()


def test_a_report_promises_cross_validation_where_there_is_some(untested, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(untested.folder, folder)
    record = RunRecord.from_json(folder / "run.json")
    record.advice, record.ladder = ["No image is tested on, and 6 of the 6 labels were used."], []
    record.to_json(folder / "run.json")
    page = report(folder, tmp_path / "page.html", compute=False).read_text()
    assert "<h2>Results</h2><p>It was not evaluated.</p>" in page and "cross-validation says" not in page
