"""Undo of renamings gives back what every folder of a loop said, of labels that another folder overrules too; one that
was killed is finished before anybody answers."""

import os
import random

import pytest

from hf_lowlabel.errors import UserError
from hf_lowlabel.labeling.history import follow, read_steps
from hf_lowlabel.labeling.importing import import_labels
from hf_lowlabel.labeling.labels import Asked, Labels, read_classes, write_labels
from hf_lowlabel.labeling.other_rounds import INTENT
from hf_lowlabel.labeling.page import Session
from hf_lowlabel.labeling.server import only_one
from hf_lowlabel.labeling.suggestions import write_suggestions

CLASSES = ["cat", "dog", "sky"]
HELD = dict(validation=["v"], test=["t"], held_labels={"t": "dog"})


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda _: None)


def place(folder, labels, known, **more):
    asked = Asked(
        "photos", None, {f"{id}.png": id for id in labels}, class_names=CLASSES, labeled=known, **HELD, **more
    )
    folder.mkdir(parents=True)
    (folder / "classes.txt").write_text("".join(f"{name}\n" for name in CLASSES))
    write_labels(folder / "labels.csv", asked, Labels({id: label for id, label in labels.items() if label}))
    asked.save(folder)
    return folder


def loop(root, first, review, last, before, **more):
    """round-0, the second look at its images and at those labeled before, and round-1, of labels by image."""
    root.mkdir(exist_ok=True)
    (root / "loop.json").write_text('{"dataset": "photos"}')
    known = {**before, **{id: label for id, label in first.items() if label}}
    return (
        place(root / "round-0" / "to_label", first, before, **more),
        place(root / "round-1" / "review", review, known, strategy="review", **more),
        place(root / "round-1" / "to_label", last, known, **more),
    )


def said(folders):
    return [((f / "labels.csv").read_bytes(), read_classes(f / "classes.txt"), Asked.load(f)) for f in folders]


def test_a_label_that_a_second_look_overrules_is_renamed_too(tmp_path):
    first, review, last = loop(tmp_path, {"a": "dog", "b": "dog"}, {"a": "cat"}, {"e": ""}, {})
    before = said((first, review, last))
    Session(last).rename("dog", "puppy")
    assert Session(first).labels.labels == {"a": "puppy", "b": "puppy"} and Session(review).labels.labels == {
        "a": "cat"
    }
    assert Asked.load(last).labeled == {"a": "puppy", "b": "puppy"} and Asked.load(last).held_labels == {"t": "puppy"}
    Session(last).undo()
    assert said((first, review, last)) == before


def test_undo_of_a_deleted_class_answers_nothing_that_nobody_answered(tmp_path):
    first, review, last = loop(tmp_path, {"a": "dog"}, {"z": "", "a": "cat"}, {"e": "cat"}, {"z": "cat"})
    before = said((first, review, last))
    Session(last).rename("cat", "")
    assert not Session(review).labels.labels and Asked.load(last).labeled == {"a": "dog"}
    Session(review).label("a", skipped=True)  # since then, which stays
    Session(last).undo()
    assert not Session(review).labels.labels and Session(review).labels.skipped == {"a"}
    Session(review).undo()
    Session(review).label("a", "cat")
    assert said((first, review, last)) == before


@pytest.mark.parametrize("task", ["classification", "multilabel"])
def test_renamings_and_answers_undone_one_by_one_give_back_every_file(tmp_path, task):
    chance = random.Random(task)

    def given(needed=False):
        if task == "multilabel":
            return ";".join(name for name in CLASSES if chance.random() < 0.5) or "sky" * needed
        return chance.choice([*CLASSES, *[""] * (not needed)])

    for n in range(8):
        answers = [{id: given() for id in ids} for ids in ("abc", "abz", "ef")]
        folders = loop(tmp_path / str(n), *answers, {"z": given(True), "y": given(True)}, task=task)
        done, told = [], list[tuple]()
        while len(done) < 4:
            page = Session(folder := chance.choice(folders))
            if not page.classes:
                break
            done.append((folder, said(folders)))
            if chance.random() < 0.3:
                told.append(("label", chance.choice([*page.task.files.values()]), chance.choice(page.classes)))
            else:
                old = chance.choice(page.classes)
                new = chance.choice([name for name in (*CLASSES, "puma", "") if name != old])
                told.append(("rename", old, new))
            getattr(page, told[-1][0])(*told[-1][1:])
        while done:
            folder, before = done.pop()
            Session(folder).undo()
            assert said(folders) == before, (n, told, len(done))


@pytest.mark.parametrize("new", ["puma", "sky", ""])
@pytest.mark.parametrize("asked", [0, 1, 2])
def test_two_renamings_of_different_folders_are_undone_in_either_order(tmp_path, new, asked):
    """The earlier one first: what the later one made of its labels is what they were before both."""
    folders = loop(tmp_path, {"a": "cat", "b": "dog"}, {"a": "cat", "b": ""}, {"e": "dog", "f": "cat"}, {"z": "cat"})
    before = said(folders)
    Session(folders[asked]).rename("cat", "dog")
    Session(folders[asked - 1]).rename("dog", new)
    Session(folders[asked]).undo()
    Session(folders[asked - 1]).undo()
    for (table, _, known), (table_before, _, known_before) in zip(said(folders), before):
        assert (table, known.labeled, known.held_labels) == (
            table_before,
            known_before.labeled,
            known_before.held_labels,
        )


def test_an_answer_given_after_the_first_renaming_follows_its_undo(tmp_path):
    first, _, last = loop(tmp_path, {"a": "dog"}, {"a": ""}, {"e": "dog"}, {})
    Session(last).rename("dog", "puppy")
    Session(first).label("a", "cat")  # its first step of all
    Session(last).undo()
    assert Session(first).undo()["label"] == "dog"


def test_a_class_renamed_to_its_own_name_stays_everywhere(tmp_path):
    folders = loop(tmp_path, {"a": "dog"}, {"a": ""}, {"e": "dog"}, {})
    before = said(folders)
    page = Session(folders[2])
    assert page.rename("dog", " dog ")["classes"] == CLASSES and said(folders) == before and not page.steps


def test_a_class_that_was_added_elsewhere_since_stays_where_a_renaming_is_undone(tmp_path):
    first, review, last = loop(tmp_path, {"a": "dog"}, {"a": ""}, {"e": ""}, {})
    Session(last).rename("dog", "puppy")
    Session(first).new_class("fox")
    Session(last).undo()
    assert read_classes(first / "classes.txt") == [*CLASSES, "fox"] and Session(first).labels.labels == {"a": "dog"}


class Killed(BaseException):
    pass


def killed(page, monkeypatch, *names, at="page.write_labels"):
    """Killed before labels.csv of the folder itself is written, after those of the others; or before a call of `at`."""

    def kill(*_):
        raise Killed

    with monkeypatch.context() as m, pytest.raises(Killed):
        m.setattr(f"hf_lowlabel.labeling.{at}", kill)
        page.rename(*names)


def test_no_page_is_opened_over_a_renaming_that_is_not_finished(tmp_path, monkeypatch):
    first, review, last = folders = loop(tmp_path, {"a": "dog"}, {"a": ""}, {"e": "dog", "f": "dog"}, {})
    Session(last).label("f", "dog")
    killed(Session(last), monkeypatch, "dog", "puppy")
    half = said(folders), (last / "history.jsonl").read_bytes()
    with only_one(first):  # a page for it is open elsewhere
        for folder in folders:
            with pytest.raises(UserError, match="renamed in .*to_label, and the rest is not done: .* another process"):
                Session(folder)
    with only_one(last):
        for folder in folders:
            with pytest.raises(UserError, match="the rest is not done"):
                Session(folder)
    for folder in folders:  # a split of both names would be one of two classes
        with pytest.raises(UserError, match=r"some labels have the old name yet. Run `hf-lowlabel label .*to_label`"):
            import_labels(folder)
    assert (said(folders), (last / "history.jsonl").read_bytes()) == half and (last / INTENT).is_file()
    assert Session(review).classes == ["cat", "puppy", "sky"] and not (last / INTENT).exists()
    assert Session(last).labels.labels == {"e": "puppy", "f": "puppy"} and Session(last).steps[-1]["renamed"]


def test_what_was_answered_by_hand_since_a_renaming_was_killed_stays(tmp_path, monkeypatch):
    first, _, last = loop(tmp_path, {"a": "dog"}, {"a": ""}, {"e": "dog", "f": "dog"}, {})
    killed(Session(last), monkeypatch, "dog", "puppy")
    write_labels(last / "labels.csv", Asked.load(last), Labels({"e": "sky", "f": "dog"}))
    assert Session(last).labels.labels == {"e": "sky", "f": "puppy"} and Session(first).labels.labels == {"a": "puppy"}


@pytest.mark.parametrize("new", ["puppy", "sky", ""])
def test_a_page_shows_what_it_finished_for_another_folder(tmp_path, monkeypatch, new):
    for asked, opened in ((2, 0), (2, 1), (0, 2)):
        root = tmp_path / f"{asked}{opened}"
        folders = loop(root, {"a": "dog", "b": "cat"}, {"a": "dog"}, {"e": "dog", "f": "dog"}, {"a": "dog"})
        Session(folders[opened]).label(next(iter(Session(folders[opened]).labels.labels)), "dog")
        killed(Session(folders[asked]), monkeypatch, "dog", new, at="other_rounds.carry_out")
        page = Session(folders[opened])
        fresh = Session(folders[opened])
        for name in ("task", "classes", "labels", "steps", "seen", "others"):
            assert getattr(page, name) == getattr(fresh, name), name
        assert "dog" not in page.classes and "dog" not in page.labels.labels.values()
        with pytest.raises(UserError, match="There is no class 'dog'"):
            page.label(next(iter(page.task.files.values())), "dog")


class Counted(list):
    turns = 0

    def __iter__(self):
        self.turns += 1
        return super().__iter__()


def test_the_steps_are_gone_through_once_for_all_images(tmp_path):
    first, _, last = loop(tmp_path, {id: "dog" for id in "abcdefgh"}, {"a": ""}, {"i": ""}, {})
    write_suggestions(first, {id: (("dog", 0.9), "odd") for id in "abcdefgh"}, {"b": "dog"})
    page = Session(first)
    page.rename("dog", "puppy"), page.rename("puppy", "wolf"), page.label("a", "cat")
    page.steps = Counted(page.steps)
    assert [one["suggestion"]["class"] for one in page.state()["images"]] == ["wolf"] * 8 and page.steps.turns == 1
    assert page.suggested()["b"]["own"] == "wolf"  # the label that Enter keeps
    page.rename("wolf", "")
    assert page.suggested()["a"] == {"class": "", "probability": 0.9, "why": "odd"}
    steps = read_steps(first / "history.jsonl", {*"abcdefgh"})
    before = Counted((step, {**step, "classes": None}) for step in steps)
    undone = {"key": "k", "old": "dog", "new": "fox", "images": {}, "which": "before", "apart": True}
    follow(steps, [("k", before)], undone, False)
    assert before.turns == 1 and len(steps) == 4 and not any(step["classes"] for step in steps)


def test_a_mark_that_text_of_a_file_begins_with_is_no_part_of_a_name(tmp_path):
    _, _, last = loop(tmp_path, {"a": "dog"}, {"a": ""}, {"e": "cat"}, {})
    page = Session(last)
    page.rename("cat", "\ufeffpuma"), page.new_class("fo\ufeffx"), page.rename("fox", "\ufeff wolf")
    assert page.classes == read_classes(last / "classes.txt") == ["puma", "dog", "sky", "wolf"]
    assert labels_of(last) == {"e": "puma"} and not (last / "classes.txt").read_bytes().startswith(b"\xef\xbb\xbf")
    with pytest.raises(UserError, match="exists"):
        page.new_class("\ufeffPUMA")
    for do in (page.new_class, lambda name: page.rename("puma", name)):  # which would be deleted
        with pytest.raises(UserError, match="no letter that is seen"):
            do("\ufeff")
    assert labels_of(last) == {"e": "puma"}


def labels_of(folder):
    return Session(folder).labels.labels
