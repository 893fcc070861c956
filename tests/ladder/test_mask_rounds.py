"""Rounds of masks after masks were painted late, corrected, removed or painted beside the images: what is learned from.

The folders are those of a loop, made without a model."""

import json

import numpy as np
import pytest
from PIL import Image

from hf_lowlabel.errors import UserError
from hf_lowlabel.ladder.answers import taken
from hf_lowlabel.selection.labels import Task
from hf_lowlabel.selection.pages import session_of

IDS = [f"{k}.png" for k in range(8)]
BOTH = ["ground", "disc"]


class Loop:
    def __init__(self, base):
        self.data, self.folder = base / "photos", base / "loop"
        (self.data / "images").mkdir(parents=True)
        for id in IDS:
            Image.new("RGB", (4, 4), (9, 9, 9)).save(self.data / "images" / id)
        self.folder.mkdir()
        (self.folder / "loop.json").write_text(json.dumps({"dataset": str(self.data), "task": "segmentation"}))

    def place(self, number):
        return self.folder / f"round-{number}" / "to_label"

    def asks(self, number, ids, **more):
        """A round asks for masks of some images."""
        (self.place(number) / "images").mkdir(parents=True)
        files = {f"{k:03d}.png": id for k, id in enumerate(ids)}
        for file in files:
            Image.new("RGB", (4, 4), (9, 9, 9)).save(self.place(number) / "images" / file)
        more = dict(class_names=BOTH, given=dict(dataset=str(self.data))) | more
        Task("photos", None, files, task="segmentation", **more).save(self.place(number))
        (self.place(number) / "classes.txt").write_text("".join(f"{name}\n" for name in more["class_names"]))

    def paint(self, number, values):
        """id -> the one class of its mask in the folder of a round."""
        asked = {id: file for file, id in Task.load(self.place(number)).files.items()}
        (self.place(number) / "masks").mkdir(exist_ok=True)
        for id, value in values.items():
            draw(self.place(number) / "masks" / asked[id], value)

    def go_on(self, number):
        """Masks that the next round learns from, id -> class; None: without a mask."""
        given = taken(self.place(number), self.data, self.folder)
        split = json.loads(given["split"].read_text())
        known = self.known()
        return {id: known.get(id) for id in split["labeled"]}

    def known(self):
        return {file.name: int(np.asarray(Image.open(file))[0, 0]) for file in (self.data / "masks").glob("*.png")}


def draw(file, value):
    file.parent.mkdir(exist_ok=True)
    Image.fromarray(np.full((4, 4), value, np.uint8)).save(file)


@pytest.fixture
def made(tmp_path):
    return Loop(tmp_path)


def test_names_that_the_data_got_since_are_those_of_the_next_page_and_round(made):
    made.asks(0, IDS[:2])
    made.paint(0, {IDS[0]: 0, IDS[1]: 1})
    assert made.go_on(0) == {IDS[0]: 0, IDS[1]: 1}
    made.asks(1, IDS[2:4], labeled=dict.fromkeys(IDS[:2]))
    (made.data / "classes.txt").write_text("ground\ndisc\nstar #010203\n")  # added on the page of `review`
    draw(made.data / "masks" / IDS[0], 2)
    page = session_of(made.place(1), None, [], None, 400)
    assert page.state()["classes"][2] == {"name": "star", "color": [1, 2, 3]}
    page.new_class("leaf")
    made.paint(1, {IDS[2]: 3})
    assert made.go_on(1) == {IDS[0]: 2, IDS[1]: 1, IDS[2]: 3}
    split = json.loads((made.folder / "labeled.json").read_text())
    assert split["class_names"] == ["ground", "disc", "star", "leaf"]
    assert (made.data / "classes.txt").read_text() == "ground\ndisc\nstar #010203\nleaf\n"


def test_names_that_the_data_got_while_a_page_was_open_are_taken_along(made):
    made.asks(0, IDS[:2])
    made.paint(0, {IDS[0]: 0})
    (made.data / "classes.txt").write_text("ground\nsun\nstar\n")  # one was renamed, too
    made.go_on(0)
    assert (made.place(0) / "classes.txt").read_text() == "ground\nsun\nstar\n"
    assert json.loads((made.folder / "labeled.json").read_text())["class_names"] == ["ground", "sun", "star"]


@pytest.mark.parametrize("other", ["ground\ndisc\nstar\n", "disc\nground\n", "sky\nroad\n"])
def test_one_number_with_two_names_is_no_round(made, other):
    made.asks(0, IDS[:2])
    made.paint(0, {IDS[0]: 0, IDS[1]: 1})
    (made.place(0) / "classes.txt").write_text("ground\ndisc\nleaf\n")
    (made.data / "classes.txt").write_text(other)
    for step in (lambda: session_of(made.place(0), None, [], None, 400), lambda: made.go_on(0)):
        with pytest.raises(UserError, match="The number . is '.*' in .*photos/classes.txt and '.*' in .*to_label"):
            step()
    assert not made.known() and (made.data / "classes.txt").read_text() == other


def test_a_list_of_another_program_stays_as_it_is(made, caplog):
    other = "0.png,cat\n1.png,dog\n"
    made.asks(0, IDS[:2])
    made.paint(0, {IDS[0]: 0, IDS[1]: 1})
    (made.data / "classes.txt").write_text(other)
    assert [c["name"] for c in session_of(made.place(0), None, [], None, 400).state()["classes"]] == BOTH
    assert made.go_on(0) == {IDS[0]: 0, IDS[1]: 1}
    assert (made.data / "classes.txt").read_text() == other and "classes.txt stays as it is" in caplog.text
