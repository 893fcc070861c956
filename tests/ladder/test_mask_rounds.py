"""Rounds of masks after masks were painted late, corrected, removed or painted beside the images: what is learned from.

The folders are those of a loop, made without a model."""

import gzip
import html
import json
import os
import time
import zlib

import numpy as np
import pytest
from PIL import Image

from hf_lowlabel.cli import main
from hf_lowlabel.commands import DONE
from hf_lowlabel.data.opening import load_segmentation
from hf_lowlabel.data.splits.splits import Split
from hf_lowlabel.errors import UserError
from hf_lowlabel.evaluation.overlays import save_mask
from hf_lowlabel.labeling.labels import Asked
from hf_lowlabel.labeling.mask_import import TAKEN
from hf_lowlabel.labeling.pages import session_of
from hf_lowlabel.ladder.answers import check_in_order, masks_beside, taken
from hf_lowlabel.ladder.first_labels import READ, masks_at_first, note_first, tell_changes
from hf_lowlabel.ladder.rounds import loop

from .test_rounds import discs, network  # noqa: F401

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
        Asked("photos", None, files, task="segmentation", **more).save(self.place(number))
        (self.place(number) / "classes.txt").write_text("".join(f"{name}\n" for name in more["class_names"]))

    def paint(self, number, values):
        """id -> the one class of its mask in the folder of a round."""
        asked = {id: file for file, id in Asked.load(self.place(number)).files.items()}
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


# ---- masks of colours ------------------------------------------------------------------------------------------------
RED, GREEN = (255, 0, 0), (0, 255, 0)
COLORED = "ground #ff0000\ndisc #00ff00\n"


def test_rounds_of_masks_of_colours_go_on_in_colours(made):
    """Those that the page paints, with pixels that nobody has painted and a class that is new, and those of another
    tool lie among the masks of the data, and are read as they are."""
    made.asks(0, IDS[:3], given=dict(dataset=str(made.data), mask_format="colors"))
    (made.place(0) / "classes.txt").write_text(COLORED)
    (made.data / "masks").mkdir()
    Image.new("RGB", (4, 4), GREEN).save(made.data / "masks" / IDS[7])
    page = session_of(made.place(0), None, [], None, 400)
    page.new_class("star")
    files = list(Asked.load(made.place(0)).files)
    half = np.full((4, 4), 255, np.uint8)
    half[0] = [0, 1, 2, 255]
    page.save({"file": files[0], "stamp": page.load(files[0]).stamp}, zlib.compress(half.tobytes()))
    Image.new("RGB", (4, 4), RED).save(made.place(0) / "masks" / files[1])
    assert set(np.frombuffer(gzip.decompress(page.load(files[1]).content), np.uint8)) == {0}
    draw(made.place(0) / "masks" / files[2], 1)
    with pytest.raises(UserError, match="looks like class numbers"):
        made.go_on(0)
    assert [file.name for file in (made.data / "masks").iterdir()] == [IDS[7]]
    (made.place(0) / "masks" / files[2]).unlink()
    given = taken(made.place(0), made.data, made.folder)
    data = load_segmentation(made.data, mask_format="colors", classes=given["classes"][0])
    assert data.class_names == ["ground", "disc", "star"]
    found = {id: data.mask(i) for i, id in enumerate(data.ids) if data.has_target[i]}
    assert {*found} == {IDS[0], IDS[1], IDS[7]} and (found[IDS[0]] == half).all()
    assert (found[IDS[1]] == 0).all() and (found[IDS[7]] == 1).all()


def test_a_class_without_a_colour_is_said_where_masks_are_of_colours(made):
    made.asks(0, IDS[:1], given=dict(dataset=str(made.data), mask_format="colors"))
    made.paint(0, {IDS[0]: 1})
    with pytest.raises(
        UserError, match="masks of the data are of colours, and .*classes.txt' says none of ground, disc"
    ):
        made.go_on(0)


@pytest.mark.parametrize("kind", ["colors", "binary"])
def test_what_auto_and_loop_say_comes_next_is_not_refused(network, tmp_path, capsys, kind):  # noqa: F811
    data, truth = tmp_path / "photos", discs(tmp_path / "photos", 6)
    (data / "masks").mkdir()
    for id in list(truth)[:4]:
        mask = np.array([RED, GREEN], np.uint8)[truth[id]] if kind == "colors" else 255 * truth[id]
        Image.fromarray(mask).save(data / "masks" / id)
    (tmp_path / "classes.txt").write_text(COLORED)
    how = ["--task", "segmentation", "--mask-format", kind, "--classes", str(tmp_path / "classes.txt")]
    how += ["--model", network, "--image-size", "48", "--no-train", "--device", "cpu"]
    run = tmp_path / "run"
    assert main(["auto", str(data), *how, "--to-label", "1", "--output-dir", str(run)]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    loops = ["loop", str(data), *how, "--no-page", "--per-round", "1", "--output-dir", str(tmp_path / "loop")]
    assert last.startswith("next: hf-lowlabel label ")
    assert main(loops) == 0
    for place in (run / "to_label", tmp_path / "loop" / "round-1" / "to_label"):
        page = session_of(place, None, [], None, 400)
        file = next(iter(page.places))
        page.save({"file": file}, zlib.compress(truth[Asked.load(place).files[file]].tobytes()))
        assert kind == "binary" or [c["color"] for c in page.state()["classes"]] == [list(RED), list(GREEN)]
    put = ["split", "--task", "segmentation", "--from", str(run / "to_label"), "--dataset", str(data)]
    assert main([*put, "--output", str(tmp_path / "s.json")]) == 0
    assert f"--mask-format {kind}" in capsys.readouterr().out.splitlines()[-1]
    found = load_segmentation(data, mask_format=kind, classes=str(run / "to_label" / "classes.txt"))
    assert found.has_target.sum() == 5
    assert all((found.mask(i) == truth[id]).all() for i, id in enumerate(found.ids) if found.has_target[i])


def test_rounds_of_masks_of_0_and_255_go_on_in_these(made):
    """A mask that is painted whole, those of other tools, and none that training would take for another."""
    named = ["background", "disc"]
    made.asks(0, IDS[:4], class_names=named, given=dict(dataset=str(made.data), mask_format="binary"))
    page = session_of(made.place(0), None, [], None, 400)
    files, masks = list(Asked.load(made.place(0)).files), made.place(0) / "masks"
    corner = np.zeros((4, 4), np.uint8)
    corner[:2, :2] = 1

    def send(file, mask):
        page.save({"file": file, "stamp": page.load(file).stamp}, zlib.compress(mask.tobytes()))

    def shown(file):
        return np.frombuffer(gzip.decompress(page.load(file).content), np.uint8).reshape(4, 4)

    half = np.where(np.arange(4)[:, None] < 2, corner, 255).astype(np.uint8)
    send(files[0], corner)
    send(files[1], half)
    assert (shown(files[0]) == corner).all() and (shown(files[1]) == half).all()
    Image.fromarray(255 * corner).save(masks / files[2])
    through_palette = Image.fromarray(255 * corner, mode="P")
    through_palette.putpalette([v for v in range(256) for _ in range(3)])
    through_palette.save(masks / files[3])
    assert (shown(files[2]) == corner).all() and (shown(files[3]) == corner).all() and page.state()["whole"]
    with pytest.raises(UserError, match="There are 2 classes, which is all"):
        page.new_class("star")
    with pytest.raises(UserError, match=f"{files[1]} is not painted whole.*fill the rest"):
        made.go_on(0)
    assert not made.known()
    (made.data / "masks").mkdir(exist_ok=True)
    background = np.where(half == 1, 0, half)  # read by its colours alone, what is open would be an object
    send(files[1], background)
    (made.data / "masks" / IDS[7]).write_bytes((masks / files[1]).read_bytes())
    with pytest.raises(UserError, match="pixels that nobody has painted"):
        load_segmentation(made.data, mask_format="binary").mask(7)
    (made.data / "masks" / IDS[7]).unlink()
    send(files[1], corner)
    taken(made.place(0), made.data, made.folder)
    taken(made.place(0), made.data, made.folder)  # of a process that was killed meanwhile
    found = load_segmentation(made.data, mask_format="binary")
    assert found.has_target.sum() == 4 and all((found.mask(i) == corner).all() for i in range(4))
    assert set(np.unique(np.asarray(Image.open(made.data / "masks" / IDS[0])))) == {0, 255}
    (made.place(0) / "classes.txt").write_text("background\ndisc\nstar\n")
    with pytest.raises(UserError, match="3 classes .* tell two apart"):
        session_of(made.place(0), None, [], None, 400)


def test_masks_of_numbers_put_among_those_of_0_and_255_become_such(made):
    """As `predict` writes them, also of one class alone; and they can be corrected in the folder of the round."""
    made.asks(0, IDS[:3], given=dict(dataset=str(made.data), mask_format="binary"))
    corner, masks = np.zeros((4, 4), np.uint8), made.place(0) / "masks"
    corner[:2, :2] = 1
    masks.mkdir()
    truth = dict(zip(Asked.load(made.place(0)).files, (corner, 0 * corner, 0 * corner + 1)))
    for file, mask in truth.items():
        save_mask(mask, BOTH, masks / file)
    assert made.go_on(0) == {IDS[0]: 255, IDS[1]: 0, IDS[2]: 255}
    found = load_segmentation(made.data, mask_format="binary")
    assert all((found.mask(i) == mask).all() for i, mask in enumerate(truth.values()))
    save_mask(1 - corner, BOTH, masks / "000.png")
    made.go_on(0)
    assert (load_segmentation(made.data, mask_format="binary").mask(0) == 1 - corner).all()


def test_a_list_that_gets_too_long_while_a_page_is_open_is_refused(made):
    made.asks(0, IDS[:1], given=dict(dataset=str(made.data), mask_format="binary"))
    page, file = session_of(made.place(0), None, [], None, 400), "000.png"
    (made.place(0) / "classes.txt").write_text("ground\ndisc\nstar\n")
    for step in (
        page.state,
        lambda: page.save({"file": file}, zlib.compress(bytes(16))),
        lambda: page.new_class("leaf"),
    ):
        with pytest.raises(UserError, match="3 classes .* tell two apart"):
            step()
    assert page.classes == BOTH and not (made.place(0) / "masks").exists()
    made.asks(1, IDS[1:2])
    page, many = session_of(made.place(1), None, [], None, 400), [*BOTH, *(f"c{k}" for k in range(254))]
    (made.place(1) / "classes.txt").write_text("".join(f"{name}\n" for name in many))
    with pytest.raises(UserError, match="There are 255 classes, which is all"):
        page.new_class("leaf")


def test_where_nothing_can_be_painted_all_of_a_run_says_so(network, tmp_path, capsys):  # noqa: F811
    """The images to label next, the advice on them, and the last line on the console."""
    data, truth = tmp_path / "photos", discs(tmp_path / "photos", 6)
    (data / "masks").mkdir()
    for id in list(truth)[:4]:
        Image.fromarray(7 * truth[id]).save(data / "masks" / id)
    run = tmp_path / "run"
    how = ["--task", "segmentation", "--instances", "--model", network, "--image-size", "48", "--no-train"]
    assert main(["auto", str(data), *how, "--device", "cpu", "--to-label", "1", "--output-dir", str(run)]) == 0
    last, sheet = capsys.readouterr().out.splitlines()[-1], (run / "to_label" / "index.html").read_text()
    assert "Draw the masks of" in last and html.escape(last) in (run / "advice.html").read_text()
    assert "with the tool that those of the data are from" in sheet and "hf-lowlabel label" not in sheet


# ---- what was painted, corrected or removed since --------------------------------------------------------------------
@pytest.fixture
def second(made):
    """In round 1: of round 0 three of five are painted, and one of round 1."""
    note_first(made.folder, {}, masks_beside(made.data))
    made.asks(0, IDS[:5])
    made.paint(0, {id: 0 for id in IDS[:3]})
    assert made.go_on(0) == {id: 0 for id in IDS[:3]}
    made.asks(1, IDS[5:7], labeled=dict.fromkeys(IDS[:3]))
    made.paint(1, {IDS[5]: 0})
    return made


def test_masks_painted_or_corrected_in_an_earlier_round_count(second):
    second.paint(0, {IDS[0]: 1, IDS[3]: 1, IDS[4]: 1})
    assert second.go_on(1) == {IDS[0]: 1, IDS[1]: 0, IDS[2]: 0, IDS[5]: 0, IDS[3]: 1, IDS[4]: 1}
    second.paint(0, {IDS[0]: 0})  # back again, and the process was stopped before the round was done
    second.paint(1, {IDS[5]: 1})
    assert second.go_on(1) == {IDS[0]: 0, IDS[1]: 0, IDS[2]: 0, IDS[5]: 1, IDS[3]: 1, IDS[4]: 1}
    assert second.known() == second.go_on(1)


def test_a_correction_alone_is_learned_from_though_the_round_was_killed(second):
    second.asks(2, IDS[7:], labeled=dict.fromkeys([*IDS[:3], IDS[5]]))
    assert second.go_on(1)[IDS[5]] == 0
    done = second.place(2).parent / "advice.html"
    done.touch()  # the round is finished, and no mask of the next one painted
    os.utime(done, (time.time() + 5, time.time() + 5))
    with pytest.raises(UserError, match="there is no new mask in it"):
        second.go_on(2)
    os.utime(done, (1, 1))
    second.paint(0, {IDS[0]: 1})
    assert second.go_on(2)[IDS[0]] == 1
    assert second.go_on(2)[IDS[0]] == 1  # again, since nothing has learned from it


def test_what_was_corrected_beside_the_images_stays_so(second):
    draw(second.data / "masks" / IDS[0], 1)  # on the page of `review`
    assert second.go_on(1)[IDS[0]] == 1
    second.paint(0, {IDS[0]: 255, IDS[1]: 1})  # and in the round, too
    with pytest.raises(UserError, match="'0.png' has another mask already"):
        second.go_on(1)
    assert second.known()[IDS[1]] == 0  # nothing was changed
    (second.data / "masks" / IDS[0]).unlink()
    assert second.go_on(1)[IDS[0]] == 255


def test_masks_that_were_removed_are_left_out_and_may_be_painted_anew(second, caplog):
    (second.data / "masks" / IDS[1]).unlink()
    assert second.go_on(1) == {IDS[0]: 0, IDS[2]: 0, IDS[5]: 0}
    assert f"the masks of 1 images are gone, which are left out: {IDS[1]}" in caplog.text
    (second.data / "masks" / IDS[5]).unlink()  # of the round that is not done
    with pytest.raises(UserError, match="there is no new mask in it"):
        second.go_on(1)
    second.paint(1, {IDS[6]: 1})
    assert set(second.go_on(1)) == {IDS[0], IDS[2], IDS[6]}
    second.paint(1, {IDS[5]: 1})
    second.asks(2, [IDS[1]], labeled=dict.fromkeys([IDS[0], IDS[2], IDS[5], IDS[6]]))
    second.paint(2, {IDS[1]: 1})
    assert second.go_on(2) == {IDS[0]: 0, IDS[2]: 0, IDS[5]: 1, IDS[6]: 1, IDS[1]: 1}


def test_a_test_image_without_its_mask_is_not_tested_on(made, caplog):
    made.asks(0, IDS[:2], test=IDS[2:4], labeled={IDS[4]: None})
    for id in IDS[2:5]:
        draw(made.data / "masks" / id, 1)
    made.paint(0, {IDS[0]: 0})
    (made.data / "masks" / IDS[3]).unlink()
    made.go_on(0)
    assert json.loads((made.folder / "labeled.json").read_text())["test"] == [IDS[2]]
    assert f"left out: {IDS[3]}" in caplog.text


def test_where_no_mask_is_left_nothing_is_done(second):
    for file in (second.data / "masks").iterdir():
        file.unlink()
    with pytest.raises(UserError, match="None of the 3 masks so far lies beside the images"):
        second.go_on(1)
    assert not second.known()


def test_masks_removed_in_a_round_alone_are_said(second, caplog):
    (second.place(0) / "masks" / "000.png").unlink()
    assert second.go_on(1)[IDS[0]] == 0 and f"remove them beside the images, {second.data}" in caplog.text


def test_masks_painted_beside_the_images_between_rounds_count(second, caplog):
    draw(second.data / "masks" / IDS[7], 1)
    assert second.go_on(1)[IDS[7]] == 1 and f"1 masks beside the images, of {IDS[7]}" in caplog.text


def test_masks_that_were_not_drawn_at_the_beginning_stay_out(made):
    """With --num-labels 2; one of the two is removed, and painted anew."""
    for id in IDS[:4]:
        draw(made.data / "masks" / id, 0)
    note_first(made.folder, dict(num_labels=2), masks_beside(made.data))
    made.asks(1, IDS[5:7], labeled=dict.fromkeys(IDS[:2]))
    Split("photos", class_names=BOTH, labeled=dict.fromkeys(IDS[:2])).save(made.folder / "round-1" / "split.json")
    made.paint(1, {IDS[5]: 1})
    assert set(made.go_on(1)) == {IDS[0], IDS[1], IDS[5]}
    made.asks(2, [IDS[6]], labeled=dict.fromkeys([IDS[0], IDS[5]]))
    draw(made.data / "masks" / IDS[1], 1)
    assert set(made.go_on(2)) == {IDS[0], IDS[5], IDS[1]}


def test_rounds_of_an_older_version_go_on(second):
    (second.folder / TAKEN).unlink()
    (second.folder / READ).unlink()
    draw(second.data / "masks" / IDS[0], 1)
    draw(second.data / "masks" / IDS[7], 1)
    second.paint(0, {IDS[3]: 1})
    assert second.go_on(1) == {IDS[0]: 1, IDS[1]: 0, IDS[2]: 0, IDS[5]: 0, IDS[3]: 1}


def test_images_that_have_a_mask_are_not_asked_for(tmp_path, network):  # noqa: F811
    """Though only some of the masks were drawn at the beginning."""
    data = tmp_path / "photos"
    truth = discs(data, 7)
    with_masks = list(truth)[:5]
    (data / "masks").mkdir()
    for id in with_masks:
        Image.fromarray(truth[id]).save(data / "masks" / id)
    how = dict(task="segmentation", per_round=4, image_size=32, device="cpu", train=False, first=dict(num_labels=3))
    state = loop(data, network, tmp_path / "loop", data=dict(classes=BOTH), **how)
    assert set(Asked.load(state.to_label).files.values()) == {*truth} - {*with_masks} and state.rounds[0].labels == 3
    assert masks_at_first(tmp_path / "loop") == {*with_masks}


# ---- what is given again ---------------------------------------------------------------------------------------------
def test_settings_that_are_others_than_at_the_beginning_are_said(second, caplog):
    first = dict(num_labels=3, test_fraction=0.0)
    note_first(second.folder, first, [], BOTH)
    (second.place(1) / "classes.txt").write_text("ground\ndisc\nstar #010203\n")  # added on the page
    for same in ([], BOTH, ["ground", "disc", "star"], [str(second.place(1) / "classes.txt")]):
        tell_changes(second.folder, first, same)
        tell_changes(second.folder, {}, same)
    assert not caplog.text
    tell_changes(second.folder, first, ["disc", "ground", "star"])
    assert "--classes are disc, ground, star, and the masks" in caplog.text and "of ground, disc, star" in caplog.text
    for other, said in (
        (dict(num_labels=6), "--num-labels differs from what these rounds began with (3)"),
        (dict(test_fraction=0.3), "--test-fraction differs from what these rounds began with (not given)"),
        (dict(class_balanced=True), "--class-balanced differs"),
    ):
        caplog.clear()
        tell_changes(second.folder, other, BOTH)
        assert said in caplog.text and caplog.text.count("differs") == 1
    (second.folder / READ).write_text(json.dumps({"hash": None}))  # of an older version, which noted no more
    caplog.clear()
    tell_changes(second.folder, dict(num_labels=6), ["disc", "ground"])
    assert not caplog.text


def test_a_round_that_is_missing_is_said_before_its_successor_counts(second):
    for number in (1, 3):
        (second.folder / f"round-{number}").mkdir(exist_ok=True)
        (second.folder / f"round-{number}" / DONE).write_text("")
    with pytest.raises(UserError, match="round-2 in .* is missing or not whole, and round-3 is there"):
        check_in_order(second.folder, 1)
    (second.folder / "round-3" / DONE).unlink()
    check_in_order(second.folder, 1)
