"""labels.csv in a spreadsheet or an editor while the page is open: what was written there by hand stays, and so do the
labels that a table of before has not."""

import csv

import pytest

from hf_lowlabel.errors import UserError
from hf_lowlabel.labeling.importing import import_labels
from hf_lowlabel.labeling.labels import read_labels
from hf_lowlabel.labeling.page import Session

from .conftest import opened
from .test_other_rounds import rounds  # noqa: F401
from .test_page import browser, folder, scenes, serving, stored, tap  # noqa: F401


def table(folder):  # noqa: F811
    with open(folder / "labels.csv", newline="", encoding="utf-8-sig") as file:
        return list(csv.DictReader(file))


def save(folder, rows):  # noqa: F811
    """As a spreadsheet saves them."""
    columns = dict.fromkeys(column for row in rows for column in row)
    with open(folder / "labels.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(columns))
        writer.writeheader()
        writer.writerows(rows)


NOTES = ["ask Eva; 50 %", "", 'a "big" one,\ntwo lines', "=1+1", "'=1"]


def noted(folder):  # noqa: F811
    rows = table(folder)
    for row, note in zip(rows, NOTES, strict=True):
        row.update({"remark": note, "=sum": "", "day": "7"})
    save(folder, rows)


def test_columns_of_a_person_stay(folder):  # noqa: F811
    session = Session(folder)
    ids = list(session.task.files.values())
    session.label(ids[0], "red")
    noted(folder)
    for step in (lambda: session.label(ids[1], "green"), session.undo, lambda: session.rename("red", "rosso")):
        step()
        rows = table(folder)
        assert list(rows[0]) == ["file_name", "id", "label", "skipped", "remark", "'=sum", "day"]
        assert [row["remark"] for row in rows[:3]] == NOTES[:3] and {row["day"] for row in rows} == {"7"}
    session = Session(folder)  # over a restart
    session.label(ids[2], "green")
    found = read_labels(folder / "labels.csv", session.task, new_classes=True)
    assert found.labels == {ids[0]: "rosso", ids[2]: "green"}
    assert [found.more["remark"].get(id, "") for id in ids] == [*NOTES[:3], "=1+1", "=1"]
    assert found.more["=sum"] == {} and import_labels(folder, allow_missing=True)[0].labeled == found.labels


def test_numbers_in_columns_of_a_person_stay_numbers(folder):  # noqa: F811
    session, kept = Session(folder), ["-5.5", "+3", "-1e-3", "-0,5", "-.5"]
    for cells, then in ((kept, kept), (["-1+2", "+cmd|' /C calc'!A0", "-2-", "@x", "+"], None)):
        rows = table(folder)
        for row, cell in zip(rows, cells, strict=True):
            row["height"] = cell
        save(folder, rows)
        for label in ("red", "green"):
            session.label(next(iter(session.task.files.values())), label)
        assert [row["height"] for row in table(folder)] == (then or [f"'{cell}" for cell in cells])


def test_columns_stay_beside_a_split_and_those_without_a_name_go_where_they_are_empty(folder):  # noqa: F811
    session = Session(folder)
    first, second, *_ = session.task.files.values()
    rows = table(folder)
    for row in rows:
        row.update({"split": "", "": "", "who": "me"})
    rows[0]["split"] = "test"
    save(folder, rows)
    session.label(second, "green")
    assert list(table(folder)[0]) == ["file_name", "id", "label", "skipped", "split", "who"]
    assert table(folder)[0]["split"] == "test" and stored(folder) == {second: "green"}


@pytest.mark.parametrize(
    "columns, parts",
    [
        ({"split": ["siteA", "siteB", "siteA", "siteB", "siteA"], "is_test": "01001"}, {1: "test", 4: "test"}),
        ({"is_valid": ["yes", "yes", "no", "no", ""], "is_test": ["yes", "no", "no", "yes", ""]}, None),
        ({"Subset": ["Training", "", "val", "TEST", "train"]}, {2: "validation", 3: "test"}),
        ({"is_train": "11011", "split": ["", "", "", "", ""]}, {2: "test"}),
    ],
)
def test_images_that_are_held_out_stay_so_after_an_answer(folder, columns, parts):  # noqa: F811
    session = Session(folder)
    ids = list(session.task.files.values())
    rows = table(folder)
    for k, row in enumerate(rows):
        row.update({name: cells[k] for name, cells in columns.items()})
    save(folder, rows)
    before = dict(session.read().parts)
    held = {ids.index(id): part for id, part in before.items() if part != "train"}
    assert held == (parts or {0: "validation", 1: "validation", 3: "test"})
    session.label(ids[2], "green")
    assert list(table(folder)[0]) == ["file_name", "id", "label", "skipped", *columns]
    assert all([row[name] for row in table(folder)] == [*cells] for name, cells in columns.items())
    assert Session(folder).labels.parts == before


def test_rows_of_one_image_say_one_split(scenes):  # noqa: F811
    session = Session(scenes)
    (one, first), (two, second), *_ = session.task.files.items()
    rows = [(one, "cat", "train", "0"), (one, "dog", "Training", "no"), (two, "sky", "test", "1")]
    for name, at in (("split", 2), ("is_test", 3)):
        save(scenes, [{"file_name": row[0], "label": row[1], name: row[at]} for row in rows])
        session.label(second, "cat")
        assert Session(scenes).labels.parts[second] == "test" and session.read().parts[first] == "train"


def test_rows_of_one_image_keep_what_each_says(scenes):  # noqa: F811
    session = Session(scenes)
    first, second, *_ = session.task.files.values()
    names = {id: name for name, id in session.task.files.items()}
    of = {"file_name": names[first]}
    save(scenes, [{**of, "label": "cat", "who": "Eva"}, {**of, "label": "dog", "who": "Jo"}])
    session.label(second, "sky")
    assert (table(scenes)[0]["label"], table(scenes)[0]["who"]) == ("cat;dog", "Eva; Jo")


def test_columns_of_classes_become_labels_and_are_not_kept_beside_them(scenes):  # noqa: F811
    session = Session(scenes)
    first, second, *_ = session.task.files.values()
    rows = [{"file_name": name, "cat": "0", "dog": "0", "sky": "1", "who": "Eva"} for name in session.task.files]
    save(scenes, rows)
    session.label(second, "dog")
    assert list(table(scenes)[0]) == ["file_name", "id", "label", "skipped", "who"]
    assert [row["label"] for row in table(scenes)][:3] == ["sky", "dog", "sky"]


def test_columns_stay_where_a_class_is_renamed_from_another_round(rounds):  # noqa: F811
    first = rounds / "round-0" / "to_label"
    rows = table(first)
    for row in rows:
        row["remark"] = f"of {row['id']}"
    save(first, rows)
    Session(rounds / "round-1" / "to_label").rename("daisy", "marguerite")
    assert [(row["label"], row["remark"]) for row in table(first)][0] == ("marguerite", "of a.png")


# ---- undo ------------------------------------------------------------------------------------------------------------
def correct(folder, id, **cells):  # noqa: F811
    rows = table(folder)
    next(row for row in rows if row["id"] == id).update(cells)
    save(folder, rows)


@pytest.mark.parametrize("again", [False, True])
def test_undo_leaves_what_was_corrected_by_hand(again, folder):  # noqa: F811
    session = Session(folder)
    first, second, third, *_ = session.task.files.values()
    session.label(second, "red")
    session.label(first, "red")
    correct(folder, first, label="green")
    session = Session(folder) if again else session
    for _ in range(2):
        with pytest.raises(
            UserError, match=f"Not saved: '{first}' was changed .* by hand, and is green now. Undo goes"
        ):
            session.undo()
        assert stored(folder) == {first: "green", second: "red"}
    correct(folder, first, label="red")  # as it was given on the page
    session.undo(), session.undo()
    assert stored(folder) == {}


def test_undo_of_many_of_a_reason_and_of_a_renaming_leave_what_was_corrected_by_hand(folder):  # noqa: F811
    session = Session(folder)
    first, second, third, *_ = session.task.files.values()
    session.label_many([first, second], "red")
    correct(folder, second, label="", skipped="unsure")
    with pytest.raises(UserError, match=f"'{second}' .* is skipped now"):
        session.undo()
    session.rename("red", "rosso")
    session.label(third, skipped=True)
    correct(folder, third, skipped="none of these")
    with pytest.raises(UserError, match=f"'{third}' .* is skipped now"):
        session.undo()
    correct(folder, third, skipped="x")
    session.undo()
    correct(folder, first, label="green")
    with pytest.raises(UserError, match=f"'{first}' .* is green now"):
        session.undo()
    assert stored(folder) == {first: "green"} and session.classes == ["rosso", "green"]
    assert (folder / "classes.txt").read_text() == "rosso\ngreen\n"


# ---- a table that was opened before labels were given and saved after it ---------------------------------------------
def labeled(folder):  # noqa: F811
    """(session, ids, the table before the labels)"""
    session, before = Session(folder), table(folder)
    ids = list(session.task.files.values())
    session.label(ids[0], "red")
    session.label(ids[1], skipped=True, why="unsure")
    return session, ids, before


@pytest.mark.parametrize("act", ["label", "many", "undo", "rename"])
def test_labels_that_a_table_of_before_takes_back_are_told_and_can_be_put_back(act, folder):  # noqa: F811
    session, ids, before = labeled(folder)
    before[3]["label"] = "green"  # what was done in the spreadsheet counts
    save(folder, before)
    does = {
        "label": lambda: session.label(ids[2], "green"),
        "many": lambda: session.label_many(ids[2:3], "green", only_open=True),
        "undo": session.undo,
        "rename": lambda: session.rename("red", "rosso"),
    }
    with pytest.raises(UserError, match=f"without 2 answers given here, such as 'red' of '{ids[0]}'.* undo puts them"):
        does[act]()
    assert stored(folder) == {ids[3]: "green"} and not session.state()["images"][0]["label"]
    Session(folder).undo()  # over a restart too
    found = read_labels(folder / "labels.csv", session.task)
    assert found.labels == {ids[0]: "red", ids[3]: "green"} and found.why == {ids[1]: "unsure"}


def test_after_it_was_told_that_labels_are_gone_the_page_goes_on(folder):  # noqa: F811
    session, ids, before = labeled(folder)
    save(folder, before)
    with pytest.raises(UserError, match="saved by another program"):
        session.label(ids[2], "green")
    session.label(ids[2], "green")
    assert stored(folder) == {ids[2]: "green"}
    session.undo(), session.undo()
    assert stored(folder) == {ids[0]: "red"}
    session.undo(), session.undo()
    assert not session.steps and stored(folder) == {}


def test_labels_that_are_gone_when_the_page_ends_are_told_in_the_terminal(folder):  # noqa: F811
    session, ids, before = labeled(folder)
    save(folder, before[1:])
    said, last = session.parting().splitlines()
    assert "without 2 answers given here" in said and f"label {folder}" in said and last.startswith("0 labeled, 0 sk")
    Session(folder).undo()
    assert stored(folder) == {ids[0]: "red"}


def test_the_page_shows_that_labels_are_gone_and_its_undo_puts_them_back(folder, browser):  # noqa: F811
    from playwright.sync_api import expect

    expect.set_options(timeout=20_000)
    page, before = browser.new_page(), table(folder)
    with serving(folder) as server:
        opened(page, server.url)
        count, problem = page.locator("#count"), page.locator("#problem")
        tap(page, "1")
        expect(count).to_contain_text("1 labeled")
        save(folder, before)
        tap(page, "2")
        expect(problem).to_contain_text("saved by another program without 1 answer given here, such as 'red'")
        expect(count).to_contain_text("0 labeled")
        tap(page, "u")
        expect(count).to_contain_text("1 labeled")
        expect(problem).to_be_empty()
        page.close()
    assert list(stored(folder).values()) == ["red"]
