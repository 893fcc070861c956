"""The table of results says what the run folders say, and refuses to mix what cannot be compared."""

import json

import pytest

from hf_lowlabel.errors import UserError
from hf_lowlabel.hub.facts import Data, Labels, RunFacts, Stage
from hf_lowlabel.hub.table import methods_table


def folder(root, method, labels, seed, accuracy, start="random weights", **more):
    path = root / f"{method}-{labels}-{seed}-{start.replace(' ', '-')}"
    path.mkdir(parents=True)
    lineage = [Stage("random weights", name="cnn6_16")]
    lineage += [Stage("target pretraining", method=start)] if start != "random weights" else []
    facts = RunFacts(
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
        hyperparameters={"max_steps": 500, "lr": 0.03, "seed": seed, "unlabeled_ratio": 5},
    )
    for name, value in more.items():
        setattr(facts, name, value)
    facts.to_json(path / "run.json")
    return path


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
    rows = [line.split("|")[1:-1] for line in text.splitlines() if line.startswith("|")]
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
    other = dict(hyperparameters={"max_steps": 500, "lr": 0.03, "unlabeled_ratio": 1, "method_args": {"tau": 0.8}})
    text = methods_table(
        [folder(tmp_path, "fixmatch", 10, 0, 0.75, **other), folder(tmp_path, "supervised", 10, 0, 0.5)]
    )
    assert "Not the same in every row: unlabeled_ratio" in text and "fixmatch: tau=0.8" in text and "lr 0.03" in text


@pytest.mark.parametrize(
    "change, words",
    [
        (dict(architecture="resnet18"), "2 kinds of network"),
        (dict(data=Data("digits", fingerprint="g")), "2 kinds of data set"),
        (dict(metrics={}), "found no accuracy on test images"),
    ],
)
def test_runs_that_cannot_be_compared_are_refused(change, words, tmp_path):
    runs = [folder(tmp_path, "fixmatch", 10, 0, 0.75), folder(tmp_path, "supervised", 10, 0, 0.5, **change)]
    with pytest.raises(UserError, match=words):
        methods_table(runs)
    with pytest.raises(UserError, match="found no run folders"):
        methods_table([])


def test_from_the_command_line(tmp_path, capsys):
    from hf_lowlabel.cli import main

    runs = [folder(tmp_path, "fixmatch", 10, s, 0.75) for s in (0, 1)]
    assert json.loads((runs[0] / "run.json").read_text())["method"] == "fixmatch"
    assert main(["report", "--table", *map(str, runs), "--output", str(tmp_path / "table.md")]) == 0
    assert "| fixmatch | 75.0 ± 0.0 | 10 |" in (tmp_path / "table.md").read_text()
