"""Exports of Label Studio: what nobody has reached stays open, and what cannot be read is refused by its task."""

import json

import pytest

from hf_lowlabel.errors import UserError
from hf_lowlabel.labeling.importing import import_labels
from hf_lowlabel.labeling.labels import Asked

IDS = ("a.png", "b.png", "c.png", "d.png")


@pytest.fixture
def folder(tmp_path):
    Asked("photos", None, {id: id for id in IDS}).save(tmp_path)
    return tmp_path


def read(folder, rows):
    (folder / "export.json").write_text(json.dumps(rows))
    return import_labels(folder / "export.json")


def choice(name, control="class"):
    return {"type": "choices", "from_name": control, "value": {"choices": [name]}}


def tasks(*given):
    """given: the annotations of each task; ...: there is no such key."""
    return [
        {"id": 7 + k, "data": {"image": id}} | ({} if found is ... else {"annotations": found})
        for k, (id, found) in enumerate(zip(IDS, given, strict=True))
    ]


@pytest.mark.parametrize("nothing", [[], None, ...])
def test_an_image_that_nobody_reached_is_open(folder, nothing):
    cat, cancelled = {"result": [choice("cat")]}, {"was_cancelled": True, "result": []}
    split, found = read(folder, tasks([cat], nothing, [cancelled], [{"result": None}]))
    assert split.labeled == {"a.png": "cat"} and found.skipped == {"c.png", "d.png"}
    assert split.passed_over == ["c.png", "d.png"]
    _, found = read(folder, [*tasks([cat], nothing, nothing, nothing), *tasks(nothing, [cat], nothing, nothing)])
    assert found.labels == {"a.png": "cat", "b.png": "cat"} and not found.skipped  # one that says nothing is no answer


def test_rows_that_nobody_reached_are_open(folder):
    rows = [{"image": id, "id": k, "annotation_id": k or None, "text": "x"} for k, id in enumerate(IDS)]
    rows[1]["class"], rows[2]["class"] = "cat", {"choices": []}
    split, found = read(folder, rows)
    assert split.labeled == {"b.png": "cat"} and found.skipped == {"c.png", "d.png"}


@pytest.mark.parametrize("value", ["cat", {"choices": ["cat", "dog"]}])
def test_a_row_whose_class_has_another_key_is_no_skip(folder, value):
    rows = [{"image": id, "id": k, "annotation_id": 1 + k, "class": "cat", "seen": "x"} for k, id in enumerate(IDS)]
    rows[2] = {"image": "c.png", "id": 2, "annotation_id": 3, "animal": value, "seen": "x"}
    with pytest.raises(UserError, match="Task 3 of export.json has none of the keys class.*there is 'animal': .*cat"):
        read(folder, rows)
    for row in rows:
        row["animal"] = "x"  # a key of all rows
    assert read(folder, rows)[1].skipped == {"c.png"}


@pytest.mark.parametrize(
    "found, word",
    [
        ([5], "of its annotations"),
        ("cat", "of its annotations"),
        ([{"result": 5}], "of its results"),
        ([{"result": ["cat"]}], "of its results"),
        ([{"result": [{"type": "choices", "value": {"text": "cat"}}]}], "of a list of choices"),
        ([{"result": [{"type": "choices", "value": {"choices": "cat"}}]}], "of a list of choices"),
        ([{"result": [{"type": "choices", "value": {"choices": [5]}}]}], "of a list of choices"),
        ([{"result": [{"type": "choices"} | {"value": 5}]}], "of a list of choices"),
    ],
)
def test_what_is_no_annotation_is_named_by_its_task(folder, found, word):
    with pytest.raises(UserError, match=f"Task 2 of export.json has .* in the place {word}"):
        read(folder, tasks([], found, [], []))
    if "choices" in word:  # of a row of JSON-MIN
        with pytest.raises(UserError, match=f"Task 1 of export.json has .* in the place {word}"):
            read(folder, [{"image": "a.png", "annotation_id": 1, "class": {"choices": "cat"}}])


def test_of_two_controls_ours_has_the_class(folder):
    both = [{"result": [choice("good", "quality"), choice("cat")]}]
    other = [{"result": [choice("good", "quality")]}]
    split, found = read(folder, tasks(both, both, other, []))
    assert split.labeled == {"a.png": "cat", "b.png": "cat"} and found.skipped == {"c.png"}
    one = [{"result": [choice("cat", "animal")]}]  # the only one, whatever it is called
    assert read(folder, tasks(one, [], [], []))[0].labeled == {"a.png": "cat"}
    with pytest.raises(UserError, match="choices of 'animal' and of 'quality', and none is called 'class'"):
        read(folder, tasks(one, other, [], []))
