"""Another name for a class, in all rounds of a loop: together, undone, killed anywhere, not over another page."""

import json
import os
import shutil

import pytest

from hf_lowlabel.errors import UserError
from hf_lowlabel.labeling.answer_kinds import kind_of
from hf_lowlabel.labeling.importing import import_labels
from hf_lowlabel.labeling.labels import Asked, Labels, read_classes, read_labels, write_labels
from hf_lowlabel.labeling.other_rounds import INTENT, labels_in, refresh
from hf_lowlabel.labeling.page import Session
from hf_lowlabel.labeling.server import only_one
from hf_lowlabel.labeling.suggestions import write_suggestions
from hf_lowlabel.ladder.answers import unanswered

from .conftest import paint

FIRST = {"a.png": "daisy", "b.png": "tulip", "c.png": "daisy", "d.png": ""}
BEFORE = {"z.png": "daisy"}  # labeled before all rounds
SECOND = ("e.png", "f.png")


def place(folder, ids, labels, known, classes, task="classification"):
    names = paint(folder / "images", len(ids))
    asked = Asked("photos", None, dict(zip(names, ids)), class_names=list(classes), labeled=dict(known), task=task)
    (folder / "classes.txt").write_text("".join(f"{name}\n" for name in classes))
    write_labels(folder / "labels.csv", asked, Labels({id: label for id, label in labels.items() if label}))
    asked.save(folder)
    return folder


@pytest.fixture
def rounds(tmp_path):
    (tmp_path / "loop.json").write_text('{"dataset": "photos"}')
    given = {id: label for id, label in FIRST.items() if label}
    place(tmp_path / "round-0" / "to_label", FIRST, FIRST, BEFORE, ["daisy", "tulip"])
    place(tmp_path / "round-1" / "to_label", SECOND, {"e.png": "daisy"}, {**BEFORE, **given}, ["daisy", "tulip"])
    return tmp_path


def said(rounds):
    """All that the folders say of labels and classes."""
    out = {}
    for folder in sorted(rounds.glob("round-*/*")):
        asked = Asked.load(folder)
        found = read_labels(folder / "labels.csv", asked, new_classes=True)
        out[folder.parent.name] = (found.labels, read_classes(folder / "classes.txt"), asked.labeled)
    return out


def renamed(state, old, new):
    def of(labels):
        return {id: new if label == old else label for id, label in labels.items()}

    return {
        name: (of(labels), list(dict.fromkeys(new if c == old else c for c in classes)), of(known))
        for name, (labels, classes, known) in state.items()
    }


def test_a_class_is_renamed_in_all_rounds_and_that_is_undone(rounds):
    before = said(rounds)
    page = Session(rounds / "round-1" / "to_label")
    assert page.state()["others"] == {"daisy": 3, "tulip": 1}
    assert page.rename("daisy", "marguerite")["others"] == {"marguerite": 3, "tulip": 1}
    assert said(rounds) == renamed(before, "daisy", "marguerite")
    page = Session(rounds / "round-1" / "to_label")  # over a restart
    page.rename("marguerite", "tulip")  # merged
    assert said(rounds) == renamed(before, "daisy", "tulip") and page.others == {"tulip": 4}
    Session(rounds / "round-1" / "to_label").undo()
    assert said(rounds) == renamed(before, "daisy", "marguerite")
    Session(rounds / "round-1" / "to_label").undo()
    assert said(rounds) == before
    page = Session(rounds / "round-1" / "to_label")
    page.rename("daisy", "")
    assert said(rounds)["round-0"] == ({"b.png": "tulip"}, ["tulip"], {}) and page.others == {"tulip": 1}
    page.undo()
    assert page.others == {"daisy": 3, "tulip": 1} and said(rounds)["round-0"][0] == before["round-0"][0]
    Session(rounds / "round-0" / "to_label").rename("daisy", "aster")  # and from an earlier round
    assert said(rounds) == renamed(before, "daisy", "aster")
    assert not list(rounds.rglob(INTENT))


def test_rounds_of_several_classes_and_the_folder_of_a_second_look(rounds):
    shutil.rmtree(rounds / "round-0"), shutil.rmtree(rounds / "round-1")
    how = dict(classes=["cat", "dog", "sky"], task="multilabel")
    place(rounds / "round-0" / "to_label", FIRST, {"a.png": "cat;sky", "b.png": "none"}, {}, **how)
    place(rounds / "round-1" / "review", ["b.png"], {"b.png": "cat"}, {"a.png": "cat;sky"}, **how)
    place(rounds / "round-1" / "to_label", SECOND, {}, {"a.png": "cat;sky", "b.png": "none"}, **how)
    Session(rounds / "round-1" / "to_label").rename("cat", "sky")
    first, review = rounds / "round-0" / "to_label", rounds / "round-1" / "review"
    assert Session(first).labels.labels == {"a.png": "sky", "b.png": "none"}
    assert Session(review).labels.labels == {"b.png": "sky"} and read_classes(review / "classes.txt") == ["dog", "sky"]
    refresh(rounds / "round-1" / "to_label")
    assert Asked.load(rounds / "round-1" / "to_label").labeled == {"a.png": "sky", "b.png": "sky"}  # corrected since


def test_a_table_that_was_filled_in_by_hand_is_read_alike_everywhere(tmp_path):
    """Of lists with commas, numbers without their zeros, and capitals: the rounds, the page, and `split --from`."""
    several = dict(classes=["red", "green"], task="multilabel")
    folder = place(tmp_path / "a", ["a.png", "b.png"], {"a.png": "red, green", "b.png": "red"}, {}, **several)
    readers = (Session, lambda p: unanswered(p, kind_of("multilabel")), lambda p: labels_in(p, Asked.load(p)))
    for read in (*readers, import_labels):
        with pytest.raises(UserError, match="write red;green"):
            read(folder)
    folder = place(tmp_path / "b", ["a.png", "b.png"], {"a.png": "1", "b.png": "10"}, {}, ["01", "10"])
    meant = {"a.png": "01", "b.png": "10"}
    assert Session(folder).labels.labels == labels_in(folder, Asked.load(folder)).labels == meant
    split, found = import_labels(folder, new_classes=True)
    assert split.labeled == meant and split.class_names == ["01", "10"] and "'01' is a class" in found.notes[0]
    folder = place(tmp_path / "c", ["a.png", "b.png"], {"a.png": "1", "b.png": "01"}, {}, ["1", "01"])
    assert labels_in(folder, Asked.load(folder)).labels == {"a.png": "1", "b.png": "01"}
    folder = place(tmp_path / "d", ["a.png", "b.png"], {"a.png": "a", "b.png": "A"}, {}, ["a", "A"])  # both are known
    assert Session(folder).labels.labels == {"a.png": "a", "b.png": "A"}
    folder = place(tmp_path / "e", ["a.png"], {"a.png": "Cat"}, {}, ["cat"])
    with pytest.raises(UserError, match="differ in capitals only"):
        labels_in(folder, Asked.load(folder))


def test_labels_of_test_images_are_renamed_with_the_others(rounds):
    held = dict(test=["t.png", "u.png"], held_labels={"t.png": "daisy", "u.png": "tulip"})
    for folder in rounds.glob("round-*/to_label"):
        asked = Asked.load(folder)
        Asked(**{**vars(asked), **held}).save(folder)

    def tested():
        return [Asked.load(folder).held_labels for folder in sorted(rounds.glob("round-*/to_label"))]

    page = Session(rounds / "round-1" / "to_label")
    page.rename("daisy", "aster")
    assert tested() == [{"t.png": "aster", "u.png": "tulip"}] * 2
    page.rename("aster", "tulip")
    assert tested() == [{"t.png": "tulip", "u.png": "tulip"}] * 2
    assert Asked.load(rounds / "round-1" / "to_label").labeled["z.png"] == "tulip"  # twice on one page
    page.undo()
    page.rename("aster", "")
    assert tested() == [{"u.png": "tulip"}] * 2
    page.undo()
    page.undo()
    assert tested() == [held["held_labels"]] * 2
    assert not {*Asked.load(rounds / "round-1" / "to_label").labeled} & {*held["test"]}


@pytest.fixture
def both(rounds):
    """Folders of which the first has steps, of which one was undone: a is tulip, which it was as a daisy before."""
    first, second = (rounds / f"round-{k}" / "to_label" for k in range(2))
    page = Session(first)
    for id, label in (("d.png", "daisy"), ("a.png", "tulip"), ("c.png", "tulip")):
        page.label(id, label)
    page.undo()
    return first, second


def labels(folder):
    return Session(folder).labels.labels


def test_undo_follows_a_renaming_in_another_round(both):
    first, second = both
    Session(second).rename("daisy", "aster")
    page = Session(first)
    page.label("c.png", "tulip")
    assert page.undo()["label"] == "aster"
    page.undo()
    assert page.labels.labels["a.png"] == "aster" and page.classes == ["aster", "tulip"]
    page.undo()
    assert labels(first) == {"a.png": "aster", "b.png": "tulip", "c.png": "aster"} and not Session(first).steps
    assert read_classes(first / "classes.txt") == ["aster", "tulip"]


@pytest.mark.parametrize("new", ["aster", "tulip", ""])
def test_undo_goes_back_over_a_renaming_that_was_undone(both, new):
    first, second = both
    before, steps = labels(first), Session(first).steps
    Session(second).rename("daisy", new)
    Session(first).label("b.png", "tulip")
    Session(first).undo()
    Session(second).undo()
    assert labels(first) == before and Session(first).steps == steps
    Session(second).rename("daisy", new)  # once more, which is another one
    while Session(first).steps:
        Session(first).undo()
    now = {"a.png": new, "b.png": "tulip", "c.png": new}
    assert labels(first) == {id: label for id, label in now.items() if label}
    assert "daisy" not in Session(first).classes


def test_what_was_answered_between_a_renaming_and_its_undo_goes_back_to_classes_that_are_there(both):
    first, second = both
    Session(second).rename("daisy", "aster")
    Session(first).label("d.png", "tulip")  # was an aster
    Session(first).label("b.png", "aster")
    Session(first).label("b.png", "tulip")
    Session(second).undo()
    for label in ("daisy", "tulip"):
        assert Session(first).undo()["label"] == label
    assert Session(first).undo()["label"] == "daisy"
    assert "aster" not in Session(first).classes


def test_a_renaming_is_undone_after_its_class_was_renamed_in_another_round(both):
    first, second = both
    Session(first).rename("daisy", "aster")
    Session(second).rename("aster", "sun")
    Session(first).undo()
    for folder in both:
        assert "daisy" in Session(folder).classes and not {"aster", "sun"} & {*Session(folder).classes}
        assert not {"aster", "sun"} & {*labels(folder).values()}


def test_undo_follows_a_renaming_of_one_of_several_classes(rounds):
    shutil.rmtree(rounds / "round-0"), shutil.rmtree(rounds / "round-1")
    how = dict(classes=["cat", "dog", "sky"], task="multilabel")
    first = place(rounds / "round-0" / "to_label", FIRST, {"a.png": "cat;sky"}, {}, **how)
    second = place(rounds / "round-1" / "to_label", SECOND, {}, {}, **how)
    Session(first).label("a.png", "dog")
    Session(second).rename("cat", "puma")
    assert Session(first).undo()["label"] == "puma;sky"


def test_outside_of_a_loop_the_labels_that_the_folder_knows_are_renamed(tmp_path):
    folder = place(tmp_path / "to_label", SECOND, {}, BEFORE, ["daisy", "tulip"])
    write_suggestions(folder, {"e.png": (("daisy", 0.9), "sure")})
    Session(folder).rename("daisy", "aster")
    assert Asked.load(folder).labeled == {"z.png": "aster"}
    page = Session(folder)
    assert page.suggested()["e.png"]["class"] == "aster"  # what a model says is still offered
    page.undo()
    assert Asked.load(folder).labeled == BEFORE and page.suggested()["e.png"]["class"] == "daisy"


def test_killed_at_any_write_the_next_page_finishes_it(rounds, tmp_path_factory):
    Session(rounds / "round-0" / "to_label").label("d.png", "daisy")
    before, outcomes = said(rounds), set()
    for nth in range(40):
        copy = tmp_path_factory.mktemp("killed") / "loop"
        shutil.copytree(rounds, copy)
        child = os.fork()
        if not child:
            writes, replace = [], os.replace

            def killed(*args):
                if len(writes) == nth:
                    os._exit(1)
                writes.append(args)
                replace(*args)

            os.replace = killed
            Session(copy / "round-1" / "to_label").rename("daisy", "tulip")
            os._exit(0)
        done = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        page = Session(copy / "round-1" / "to_label")
        new = said(copy) == renamed(before, "daisy", "tulip")
        assert new or said(copy) == before, nth
        assert not list(copy.rglob(INTENT)) and (new or not done)
        (step,) = Session(copy / "round-0" / "to_label").steps
        assert step["changes"][0]["after"]["label"] == ("tulip" if new else "daisy"), nth
        outcomes.add(new)
        if new:
            page.undo()
            assert said(copy) == before, nth
            assert Session(copy / "round-0" / "to_label").undo()["label"] == ""
        if done:
            break
    assert done and outcomes == {True, False}


def test_an_error_of_the_disk_leaves_all_rounds_as_they_were(rounds, monkeypatch):
    before, page = said(rounds), Session(rounds / "round-1" / "to_label")

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as m, pytest.raises(OSError):
        m.setattr("hf_lowlabel.labeling.page.write_labels", full)
        page.rename("daisy", "aster")
    assert said(rounds) == before and not list(rounds.rglob(INTENT))
    page.rename("daisy", "aster")
    assert said(rounds) == renamed(before, "daisy", "aster")


def test_not_while_another_process_labels_a_round(rounds):
    before, page = said(rounds), Session(rounds / "round-1" / "to_label")
    with only_one(rounds / "round-0" / "to_label"), pytest.raises(UserError, match="another process"):
        page.rename("daisy", "aster")
    assert said(rounds) == before and not list(rounds.rglob(INTENT))
    (rounds / "round-1" / "to_label" / INTENT).write_text(json.dumps({"step": 3}))
    with pytest.raises(UserError, match="does not say what was renamed"):
        Session(rounds / "round-1" / "to_label")
