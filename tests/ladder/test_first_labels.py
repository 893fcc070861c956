"""The labels that rounds begin with are read once; what changes in them later is not ignored without a word."""

import json

import pytest

from hf_lowlabel.ladder.first_labels import READ
from hf_lowlabel.ladder.rounds import loop

from .test_auto import photos
from .test_rounds import answer, network  # noqa: F401


@pytest.fixture
def base(tmp_path):
    photos(tmp_path / "photos", each=8, sort=False)
    table(tmp_path, rows_of(4))
    return tmp_path


@pytest.fixture
def said(caplog, capsys):
    """What was said since it was asked for last."""

    def since():
        text = caplog.text + capsys.readouterr().err
        caplog.clear()
        return text

    return since


def rows_of(each):
    return {f"{kind}-{i:02d}.png": kind for kind in ("blue", "red", "white") for i in range(each)}


def table(base, rows, name="labels.csv"):
    (base / name).write_text("file_name,label\n" + "".join(f"{id},{label}\n" for id, label in rows.items()))


def go_on(base, net, **more):
    how = dict(per_round=3, train=False, image_size=16, device="cpu", first=dict(labels=base / "labels.csv"))
    return loop(base / "photos", net, base / "loop", **{**how, **more})


def labels_of(base, number):
    return json.loads((base / "loop" / f"round-{number}" / "split.json").read_text())["labeled"]


def test_a_table_that_changes_between_rounds_is_not_taken_over_without_a_word(base, network, said):  # noqa: F811
    go_on(base, network)
    answer(base / "loop" / "round-1" / "to_label")
    table(base, {**rows_of(4), "red-00.png": "blue"})
    said()
    go_on(base, network)
    assert "labels.csv differs from what these rounds began with" in said()
    assert labels_of(base, 2)["red-00.png"] == "red"
    answer(base / "loop" / "round-2" / "to_label")
    table(base, rows_of(4))  # as it was
    go_on(base, network)
    assert "differs" not in said() and len(labels_of(base, 3)) > len(labels_of(base, 2))


def test_another_table_or_split_is_said_and_one_that_is_gone_stops_nothing(base, network, said):  # noqa: F811
    go_on(base, network)
    table(base, rows_of(2), "other.csv")
    go_on(base, network, first=dict(labels=base / "other.csv"))
    assert "other.csv differs" in said()
    go_on(base, network, first=dict(split=base / "loop" / "round-1" / "split.json"))
    assert "split.json differs" in said()
    (base / "labels.csv").unlink()
    answer(base / "loop" / "round-1" / "to_label")
    go_on(base, network)
    assert "differs" not in said() and len(labels_of(base, 2)) == 15


def test_rounds_of_an_older_version_or_without_labels_go_on(base, network, said):  # noqa: F811
    go_on(base, network)
    (base / "loop" / READ).unlink()
    answer(base / "loop" / "round-1" / "to_label")
    go_on(base, network, first={})
    assert "differs" not in said() and len(labels_of(base, 2)) == 15
