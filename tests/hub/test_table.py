"""The table of results says what the run folders say, and refuses to mix what cannot be compared."""

import json
import logging
import runpy
from pathlib import Path

import pytest

from hf_lowlabel.errors import UserError
from hf_lowlabel.hub.table import methods_table
from hf_lowlabel.records import Data, Labels, RunRecord, Stage


def folder(root, method, labels, seed, accuracy, start="random weights", **more):
    path = root / f"{method}-{labels}-{seed}-{start.replace(' ', '-')}-{len([*root.iterdir()])}"
    path.mkdir(parents=True)
    lineage = [Stage("random weights", name="cnn6_16")]
    lineage += [Stage("target pretraining", method=start)] if start != "random weights" else []
    facts = RunRecord(
        "classification",
        method=method,
        architecture="cnn6_16",
        image_size=16,
        lineage=[*lineage, Stage("finetuning", method=method)],
        data=Data("digits", fingerprint="f"),
        labels=Labels(labels),
        seed=seed,
        steps=0 if method == "knn" else 500,
        seconds=10.0,
        metrics={"accuracy": accuracy, "images": 359},
        hardware={"cpu": "a processor"},
        hyperparameters={"max_steps": 500, "learning_rate": 0.03, "seed": seed, "unlabeled_ratio": 5},
    )
    for name, value in more.items():
        setattr(facts, name, value)
    facts.to_json(path / "run.json")
    return path


def table(text, number=0):
    """Cells of a table in the text, head and rule included."""
    blocks = [block for block in text.split("\n\n") if block.startswith("|")]
    return [line.split("|")[1:-1] for line in blocks[number].splitlines()]


def test_mean_and_deviation_of_every_cell(tmp_path):
    runs = [
        folder(tmp_path, m, n, s, a + 0.01 * s, start)
        for m, a in (("supervised", 0.5), ("fixmatch", 0.8), ("knn", 0.6))
        for n in (10, 40)
        for s in (0, 1, 2)
        for start in ("random weights", "byol")
        if not (m == "knn" and s == 2)
    ]
    text = methods_table(runs)
    rows = table(text)
    assert [c.strip() for c in rows[0]] == [
        "method",
        "10 labels, after byol",
        "40 labels, after byol",
        "10 labels, from scratch",
        "40 labels, from scratch",
        "seconds",
    ]
    assert [r[0].strip() for r in rows[2:]] == ["supervised", "knn", "fixmatch"]
    assert rows[4][1].strip() == "81.0 ± 1.0 (3)" and rows[3][4].strip() == "60.5 ± 0.7 (2)"
    assert "2 to 3 (in brackets) seeds" in text and "359 test images" in text and "max_steps 500" in text


def test_one_seed_has_no_deviation_and_a_missing_run_leaves_a_dash(tmp_path):
    text = methods_table([folder(tmp_path, "fixmatch", 10, 0, 0.75), folder(tmp_path, "supervised", 40, 0, 0.5)])
    assert "| supervised | – | 50.0 | 10 |" in text and "| fixmatch | 75.0 | – | 10 |" in text


def test_what_differs_between_rows_is_named(tmp_path):
    other = dict(
        hyperparameters={"max_steps": 500, "learning_rate": 0.03, "unlabeled_ratio": 1, "method_args": {"tau": 0.8}}
    )
    text = methods_table(
        [folder(tmp_path, "fixmatch", 10, 0, 0.75, **other), folder(tmp_path, "supervised", 10, 0, 0.5)]
    )
    assert "Not the same in every row: unlabeled_ratio" in text and "learning_rate 0.03" in text


def test_other_hyperparameters_and_priors_make_a_row_of_their_own(tmp_path):
    runs = [
        folder(tmp_path, "fixmatch", 10, 0, 0.7, hyperparameters={"method_args": {"tau": 0.95}}),  # its default
        folder(tmp_path, "fixmatch", 10, 1, 0.8),
        folder(tmp_path, "fixmatch", 10, 0, 0.5, hyperparameters={"method_args": {"tau": 0.8}}),
        folder(tmp_path, "fixmatch", 10, 0, 0.9, hyperparameters={"prior": "priors.safetensors"}),
        folder(tmp_path, "fixmatch", 10, 0, 0.4, hyperparameters={"lora_rank": 4}),
        folder(tmp_path, "vat-entmin", 10, 0, 0.6, hyperparameters={"method_args": {"entropy": 0.06}}),  # its default
        folder(tmp_path, "self-training", 10, 0, 0.6, hyperparameters={"prior": "priors.safetensors"}),
    ]
    rows = {r[0].strip(): r[1].strip() for r in table(methods_table(runs))[2:]}
    assert rows == {
        "fixmatch": "75.0 ± 7.1 (2)",
        "fixmatch (tau=0.8)": "50.0 (1)",
        "fixmatch (lora_rank=4)": "40.0 (1)",
        "fixmatch + priors": "90.0 (1)",
        "self-training": "60.0 (1)",
        "vat-entmin": "60.0 (1)",
    }


def test_two_runs_of_one_seed_are_refused(tmp_path):
    runs = [folder(tmp_path, "fixmatch", 10, 0, a) for a in (0.7, 0.8)]
    with pytest.raises(UserError, match="second run of fixmatch, 10 labels, from scratch, seed 0"):
        methods_table(runs)


def test_margins_are_paired_by_seed(tmp_path):
    """The seeds differ by 20 points, the gain over the baseline hardly at all."""
    accuracy = {
        "supervised": (0.5, 0.6, 0.7),
        "fixmatch": (0.55, 0.64, 0.76),  # +5, +4, +6
        "uda": (0.49, 0.61, 0.7),  # -1, +1, 0
        "vat": (0.4, 0.49, None),  # -10, -11
        "mixmatch": (0.3, None, None),  # -20
        "knn": (None, None, None),
    }
    runs = [folder(tmp_path, m, 40, s, a) for m, line in accuracy.items() for s, a in enumerate(line) if a is not None]
    weak = [
        folder(tmp_path, "supervised", 40, s, 0.5, hyperparameters={"method_args": {"strong": False}}) for s in (0, 1)
    ]
    elsewhere = [folder(tmp_path, "knn", 10, 0, 0.5)]  # no baseline with ten labels
    text = methods_table([*runs, *weak, *elsewhere])
    margins = {r[0].strip(): r[2].strip() for r in table(text, 1)[2:]}
    assert text.count("## Over") == 2 and text.index("## Over supervised\n") < text.index(
        "## Over supervised (strong=False)"
    )
    assert margins == {
        "supervised (strong=False)": "-5.0 ± 7.1 (2) within",
        "fixmatch": "+5.0 ± 1.0 (3) above",
        "uda": "+0.0 ± 1.0 (3) within",
        "vat": "-10.5 ± 0.7 (2) below",
        "mixmatch": "-20.0 (1)",
    }
    assert {r[0].strip(): r[2].strip() for r in table(text, 2)[2:]}["vat"] == "-5.5 ± 6.4 (2) within"


def test_no_margins_without_the_baseline(tmp_path):
    assert "## Over" not in methods_table([folder(tmp_path, "fixmatch", 10, s, 0.75) for s in (0, 1)])


@pytest.mark.parametrize(
    "change, words",
    [
        (
            dict(architecture="resnet18"),
            r"differ in their network \(fixmatch-10-0-\S+: cnn6_16; supervised-10-0-\S+: resnet18\)",
        ),
        (
            dict(data=Data("digits", fingerprint="g")),
            r"differ in their data set \(fixmatch-10-0-\S+; supervised-10-0-\S+\)",
        ),
        (
            dict(metrics={"accuracy": 0.5, "images": 200}),
            r"differ in their number of test images \(fixmatch-10-0-\S+: 359; supervised-10-0-\S+: 200\)",
        ),
        (dict(metrics={}), "has no accuracy on test images"),
    ],
)
def test_runs_that_cannot_be_compared_are_refused(change, words, tmp_path):
    runs = [folder(tmp_path, "fixmatch", 10, 0, 0.75), folder(tmp_path, "supervised", 10, 0, 0.5, **change)]
    with pytest.raises(UserError, match=words):
        methods_table(runs)
    with pytest.raises(UserError, match="None of these folders is a finished run"):
        methods_table([])


def test_segmenters_are_compared_by_mean_iou(tmp_path):
    same = dict(kind="segmentation", metrics={"miou": 0.5, "pixel_accuracy": 0.9, "images": 7})
    runs = [folder(tmp_path, m, 20, s, 0.0, **same) for m in ("supervised", "cutmix") for s in (0, 1)]
    text = methods_table(runs)
    assert {r[0].strip(): r[1].strip() for r in table(text)[2:]} == {"supervised": "50.0 ± 0.0", "cutmix": "50.0 ± 0.0"}
    assert "Mean IoU in percent on 7 test images" in text and "Mean IoU minus that of supervised" in text
    assert "cnn6_16 at their own size, on" in text
    other = dict(same, hyperparameters={"stored_size": 128})
    with pytest.raises(UserError, match="differ in their size of images .*128 px on the longer side"):
        methods_table([*runs, folder(tmp_path, "knn", 20, 0, 0.0, **other)])
    searched = dict(same, metrics={}, ladder=[dict(name="linear probe", by_labels=0.68, score=0.68, kept=True)])
    with pytest.raises(UserError, match=r"has no miou on test images.*\(cross-validated: 68.0 %.*--test-fraction"):
        methods_table([*runs, folder(tmp_path, "probe", 20, 0, 0.0, **searched)])
    with pytest.raises(UserError, match="differ in their task"):
        methods_table([*runs, folder(tmp_path, "fixmatch", 20, 0, 0.5)])


def test_from_the_command_line(tmp_path, caplog, monkeypatch):
    from hf_lowlabel.cli import main

    monkeypatch.setattr(logging.getLogger("hf_lowlabel"), "propagate", True)  # the root logger is what caplog hears
    caplog.set_level(logging.INFO, "hf_lowlabel")

    runs = [folder(tmp_path, "fixmatch", 10, s, 0.75) for s in (0, 1)]
    assert json.loads((runs[0] / "run.json").read_text())["method"] == "fixmatch"
    assert main(["report", "--table", *map(str, runs), "--output", str(tmp_path / "table.md")]) == 0
    assert "| fixmatch | 75.0 ± 0.0 | 10 |" in (tmp_path / "table.md").read_text()
    before = folder(tmp_path, "byol", 0, 0, 0.0, kind="backbone", metrics={"knn_accuracy": 0.6})
    both = [str(before), *map(str, runs), "--output", str(tmp_path / "both.md")]
    assert main(["report", "--table", *both]) == 0  # `runs/*` has both
    assert f"left out {before}" in caplog.text
    assert (tmp_path / "both.md").read_text() == (tmp_path / "table.md").read_text()


def test_the_page_keeps_what_was_written_by_hand(tmp_path, monkeypatch):
    recipe = Path(__file__).parents[2] / "recipes" / "benchmarks" / "digits_methods.py"
    page = tmp_path / "page.md"

    def make(*runs):
        for run in runs:
            (run / "metrics.json").write_text("{}")
        monkeypatch.setattr("sys.argv", ["", "--output", str(tmp_path), "--table-only", "--page", str(page)])
        runpy.run_path(str(recipe), run_name="__main__")
        return page.read_text()

    (tmp_path / "scratch").mkdir()
    assert "| vat | 40.0 | 10 |" in make(folder(tmp_path / "scratch", "vat", 40, 0, 0.4))
    page.write_text(page.read_text() + "\nvat: its noise is too weak.\n")
    text = make(folder(tmp_path / "scratch", "vat", 40, 1, 0.6))
    assert "| vat | 50.0 ± 14.1 | 10 |" in text and text.endswith("## Why\n\nvat: its noise is too weak.\n")
    assert text.count("| vat |") == 1 and "earlier runs" not in text

    head, was, row = "| 40 labels, from scratch |", "|---:|---:|", "| 50.0 ± 14.1 |"
    text = text.replace("| vat |", "| uda | 90.0 | 3 |\n| vat |")  # as if folders were gone since
    for part, more in ((head, "| byol |"), (was, "|---:|"), (row, "| 60.0 |"), ("| 90.0 |", "| 95.0 |")):
        text = text.replace(part, more[:-1] + part)
    page.write_text(text)
    text = make(folder(tmp_path / "scratch", "fixmatch", 40, 0, 0.7))
    rows = [line.split(" | ")[0] for line in text.splitlines() if line.startswith("| ")]
    assert rows == ["| method", "| fixmatch", "| vat", "| uda"]  # in the order of the methods
    assert "| uda | 95.0 | 90.0 | 3 |" in text and "over the baselines of those: byol; uda." in text
    assert "| vat | 60.0 | 50.0 ± 14.1 (2) | 10 |" in text and "| fixmatch | – | 70.0 (1) | 10 |" in text
