"""What changes in the labels that rounds began with is taken over by the next round, and never without a word."""

import json

import pytest

from hf_lowlabel.errors import UserError
from hf_lowlabel.ladder.first_labels import READ
from hf_lowlabel.ladder.rounds import loop
from hf_lowlabel.selection.labels import Task, read_labels

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


def test_rows_that_changed_hold_for_the_next_round(base, network, said):  # noqa: F811
    """A class of another name, a corrected row, a row that is gone, a new one, and one of an image answered since."""
    go_on(base, network)
    place = base / "loop" / "round-1" / "to_label"
    answer(place)
    asked = sorted(Task.load(place).files.values())
    rows = {id: "snow" if label == "white" else label for id, label in rows_of(4).items()}
    new = next(id for id in rows_of(8) if id not in rows and id not in asked)
    del rows["blue-00.png"]
    rows |= {"red-00.png": "blue", new: "blue", asked[0]: "snow"}
    table(base, rows)
    said()
    go_on(base, network)
    text = said()
    assert "labels.csv has changed" in text and "7 labels are others or new, 1 are gone" in text
    assert labels_of(base, 2) == {**rows, **{id: id.split("-")[0] for id in asked[1:]}}
    assert read_labels(place / "labels.csv", Task.load(place)).labels[asked[0]] == "snow"
    answer(base / "loop" / "round-2" / "to_label")
    go_on(base, network)
    assert "has changed" not in said() and labels_of(base, 3)["red-00.png"] == "blue"


def test_an_answer_of_the_page_is_newer_than_a_row_that_did_not_change(base, network):  # noqa: F811
    go_on(base, network)
    place = base / "loop" / "round-1" / "to_label"
    answer(place)
    id = sorted(Task.load(place).files.values())[0]
    table(base, {**rows_of(4), id: "snow"})
    go_on(base, network)
    text = (place / "labels.csv").read_text(encoding="utf-8-sig")
    (place / "labels.csv").write_text(text.replace("snow", "red"))
    answer(base / "loop" / "round-2" / "to_label")
    table(base, {**rows_of(4), id: "snow", "red-00.png": "blue"})
    go_on(base, network)
    assert labels_of(base, 3)[id] == "red" and labels_of(base, 3)["red-00.png"] == "blue"


def test_labels_of_the_data_and_tables_given_later_are_read_too(base, network, said):  # noqa: F811
    table(base, rows_of(3), "photos/metadata.csv")
    go_on(base, network, first={})
    answer(base / "loop" / "round-1" / "to_label")
    table(base, {**rows_of(3), "red-01.png": "white"}, "photos/metadata.csv")
    go_on(base, network, first={})
    assert "the data (photos) has changed" in said() and labels_of(base, 2)["red-01.png"] == "white"
    answer(base / "loop" / "round-2" / "to_label")
    count = len(labels_of(base, 2))
    table(base, {"red-02.png": "white"})
    go_on(base, network)
    assert labels_of(base, 3)["red-02.png"] == "white" and len(labels_of(base, 3)) == count + 3  # none is gone


def test_labels_that_were_not_drawn_are_not_later(base, network):  # noqa: F811
    first = dict(labels=base / "labels.csv", num_labels=6, class_balanced=True)
    go_on(base, network, first=first)
    drawn = labels_of(base, 1)
    answer(base / "loop" / "round-1" / "to_label")
    table(base, {id: "snow" if label == "white" else label for id, label in rows_of(4).items()})
    go_on(base, network, first=first)
    now = labels_of(base, 2)
    assert [now[id] for id in drawn if id.startswith("white")] == ["snow"] * 2 and len(now) == len(drawn) + 3


def test_what_cannot_be_taken_over_is_said(base, network, said):  # noqa: F811
    go_on(base, network)
    answer(base / "loop" / "round-1" / "to_label")
    split = base / "loop" / "round-1" / "split.json"
    told = json.loads(split.read_text())
    id = next(iter(told["labeled"]))
    label = told["labeled"].pop(id)
    (base / "other.json").write_text(json.dumps({**told, "test": [id], "held_labels": {id: label}}))
    with pytest.raises(UserError, match="other.json holds out other images .* another --output-dir"):
        go_on(base, network, first=dict(split=base / "other.json"))
    table(base, {**rows_of(4), "gone.png": "red"})
    with pytest.raises(UserError, match="'gone.png'"):
        go_on(base, network)
    assert not (base / "loop" / "round-2").exists()
    table(base, rows_of(4))
    (base / "loop" / READ).unlink()  # of rounds that another version began
    go_on(base, network)
    assert "labels.csv said when the rounds began is not known" in said()
