"""What was said of images of earlier rounds, in a second look or in a column, wherever the rounds are read."""

import os
from dataclasses import replace

import pytest

from hf_lowlabel import load_source
from hf_lowlabel.errors import UserError
from hf_lowlabel.labeling.importing import import_labels
from hf_lowlabel.labeling.labels import Asked, Labels, write_labels
from hf_lowlabel.labeling.missing_photos import folder_of_labels
from hf_lowlabel.labeling.other_rounds import refresh
from hf_lowlabel.labeling.page import Session
from hf_lowlabel.ladder.gathering import gathered

from ..labeling.test_other_rounds import place
from ..selection.conftest import paint

CLASSES = ["blue", "red", "white"]


@pytest.fixture
def rounds(tmp_path):
    """Photos of which 0 had a label before all rounds, 1 to 4 were asked in the first, and 0 and 1 are looked at again
    while 5 and 6 wait."""
    loop, ids = tmp_path / "loop", paint(tmp_path / "photos", 8)
    loop.mkdir()
    (loop / "loop.json").write_text('{"dataset": "photos"}')
    before = {ids[0]: "red"}
    given = {id: name for id, name in zip(ids[1:5], ["blue", "red", "white", "white"], strict=True)}
    place(loop / "round-0" / "to_label", ids[1:5], given, before, CLASSES)
    place(loop / "round-1" / "to_label", ids[5:7], {}, {**before, **given}, CLASSES)
    review = place(loop / "round-1" / "review", ids[:2], {}, {**before, **given}, CLASSES)
    replace(Asked.load(review), strategy="review").save(review)
    return loop, review, ids, {**before, **given}


def learned(loop, source):
    """The labels as all that reads a folder of rounds has them."""
    first = loop / "round-0" / "to_label"
    refresh(loop / "round-1" / "to_label")
    refresh(first)
    found = [import_labels(loop, source=source)[0].labeled, gathered(first, source, False).labeled]
    found += [
        gathered(folder_of_labels(loop), source, False).labeled,
        Asked.load(loop / "round-1" / "to_label").labeled,
    ]
    assert all(one == found[0] for one in found)
    return found[0]


def test_corrections_count_wherever_the_rounds_are_read(rounds):
    loop, review, ids, given = rounds
    source = load_source(loop.parent / "photos")
    assert learned(loop, source) == given
    page = Session(review)
    page.label(ids[1], "white")
    page.label(ids[0], "blue")
    assert learned(loop, source) == {**given, ids[1]: "white", ids[0]: "blue"}


def test_none_of_these_takes_a_label_off_until_it_is_undone(rounds):
    loop, review, ids, given = rounds
    source, page = load_source(loop.parent / "photos"), Session(review)
    page.label(ids[0], skipped=True, why="unsure")
    page.label(ids[1], skipped=True)
    assert learned(loop, source) == given
    page.label_many(ids[:2], skipped=True, why="none of these")
    left = {id: label for id, label in given.items() if id not in ids[:2]}
    assert learned(loop, source) == left
    assert import_labels(review, source=source)[0].labeled == left  # of a run of its own
    assert import_labels(review, source=source, base=import_labels(loop, source=source)[0])[0].labeled == left
    page.undo()
    assert learned(loop, source) == given


def test_the_folder_of_a_round_says_what_its_loop_does(rounds):
    loop, review, ids, given = rounds
    source, last = load_source(loop.parent / "photos"), loop / "round-1" / "to_label"
    Session(review).label(ids[1], "white")
    Session(last).label(ids[5], "red")
    expected = {**given, ids[1]: "white", ids[5]: "red"}
    assert import_labels(last, source=source)[0].labeled == expected == gathered(last, source, False).labeled


def test_what_was_changed_after_a_second_look_is_told(rounds, caplog):
    loop, review, ids, given = rounds
    source, first = load_source(loop.parent / "photos"), loop / "round-0" / "to_label"
    Session(review).label(ids[1], "white")

    def says(label, later):
        labels = {**{id: given[id] for id in ids[1:5]}, ids[1]: label}
        write_labels(first / "labels.csv", Asked.load(first), Labels({id: v for id, v in labels.items() if v}))
        time = (review / "labels.csv").stat().st_mtime + later
        os.utime(first / "labels.csv", (time, time))
        return [note for note in import_labels(loop, source=source)[1].notes if "Correct it" in note]

    assert not says("blue", 9) and not says("white", 9) and not says("red", -9)
    for label in ("red", ""):
        (note,) = says(label, 9)
        assert f"{ids[1]!r} is 'white' in {review}" in note and f"changed to {label or 'no label'!r}" in note
    gathered(first, source, False)
    assert "changed to 'no label'" in caplog.text and learned(loop, source)[ids[1]] == "white"


def test_a_column_of_splits_in_a_round_holds_out(rounds, caplog):
    """In its own round and in all later ones; what is saved on the page leaves it there."""
    loop, _, ids, given = rounds
    source, table = load_source(loop.parent / "photos"), loop / "round-0" / "to_label" / "labels.csv"
    head, *lines = table.read_text().splitlines()
    splits = ["train", "train", "test", "validation"]
    table.write_text("\n".join([f"{head},split", *(f"{row},{part}" for row, part in zip(lines, splits, strict=True))]))
    page = Session(table.parent)
    page.label(ids[1], "white")
    last = loop / "round-1" / "to_label"
    for named in (ids[5:6], ids[5:7]):
        Session(last).label(named[-1], "red")
        refresh(last)
        for split in (gathered(last, source, False), import_labels(loop, source=source)[0]):
            held = {ids[3]: given[ids[3]], ids[4]: given[ids[4]]}
            assert (split.test, split.validation, split.held_labels) == ([ids[3]], [ids[4]], held)
            assert split.labeled == {ids[0]: "red", ids[1]: "white", ids[2]: "red", **dict.fromkeys(named, "red")}
    split = gathered(table.parent, source, False)
    assert split.test == [ids[3]] and {*split.labeled} == {*ids[:3], *ids[5:7]}  # those of later rounds too
    held = dict(test=split.test, validation=split.validation, held_labels=split.held_labels)
    replace(Asked.load(last), labeled=split.labeled, **held).save(last)  # as the next round has it
    refresh(last)
    caplog.clear()
    assert gathered(last, source, False).test == [ids[3]]
    assert not caplog.text  # no column of its own table


def test_a_round_without_a_new_label_goes_on_where_there_is_something_to_learn(rounds):
    loop, review, ids, given = rounds
    source, last = load_source(loop.parent / "photos"), loop / "round-1" / "to_label"
    gathered(loop / "round-0" / "to_label", source, False).save(loop / "round-1" / "split.json")
    with pytest.raises(UserError, match="There is no label in"):
        gathered(last, source, False)
    Session(last).label_many(ids[5:7], skipped=True)
    assert gathered(last, source, False).labeled == given
    Session(last).undo()
    Session(review).label(ids[1], "white")
    refresh(last)
    assert gathered(last, source, False).labeled == {**given, ids[1]: "white"}
    alone = loop.parent / "alone"  # nothing is known
    alone.mkdir()
    Asked("photos", None, {"a.png": ids[7]}).save(alone)
    write_labels(alone / "labels.csv", Asked.load(alone), Labels(skipped={ids[7]}))
    with pytest.raises(UserError, match="There is no label in"):
        gathered(alone, source, False)
