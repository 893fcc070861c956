"""Undo of renamings gives back what every folder of a loop said, of labels that another folder overrules too."""

import os
import random

import pytest

from hf_lowlabel.labeling.labels import Asked, Labels, read_classes, write_labels
from hf_lowlabel.labeling.page import Session

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
