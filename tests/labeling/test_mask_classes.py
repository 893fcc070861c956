"""The list of classes of a page for masks: where its names come from, which are refused, and when they are written."""

import socket
import zlib

import numpy as np
import pytest
from PIL import Image

from hf_lowlabel.errors import UserError
from hf_lowlabel.labeling.labels import Asked
from hf_lowlabel.labeling.mask_import import import_masks
from hf_lowlabel.labeling.mask_page import MaskSession, Shown
from hf_lowlabel.labeling.pages import label, session_of
from hf_lowlabel.labeling.server import PageServer, only_one

from .conftest import paint

BOTH = ["background", "cat"]
EYE = np.eye(16, dtype=np.uint8)


@pytest.fixture
def photos(tmp_path):
    paint(tmp_path / "photos" / "images", 3)
    return tmp_path / "photos"


@pytest.fixture
def to_label(photos):
    """A folder with two of the photos, the third of which has a mask; nothing there says how classes are called but
    what `select` was asked with."""
    (photos / "masks").mkdir()
    Image.fromarray(EYE).save(photos / "masks" / "photo 02.png")
    return asks(photos, BOTH)


def asks(photos, names):
    folder = photos.parent / "to_label"
    files = {name: name for name in paint(folder / "images", 2)}
    task = Asked("photos", None, files, task="segmentation", class_names=names, given=dict(dataset=str(photos)))
    task.save(folder)
    return folder


def page_of(folder, *names, **more):
    return session_of(folder, None if "to_label" in str(folder) else "segmentation", list(names), None, 4, **more)


def send(page, file="photo 00.png", mask=EYE):
    page.save({"file": file, "stamp": page.load(file).stamp}, zlib.compress(mask.tobytes()))


# ---- the numbers of masks that nothing in the data names ------------------------------------------------------------
@pytest.mark.parametrize("other", [["cat", "background"], ["cat", "background", "dog"], ["dog", "background"]])
def test_numbers_of_masks_that_have_no_list_are_not_called_otherwise(photos, to_label, other):
    with pytest.raises(UserError, match="number 0 is 'background' in .*selection.json and '.*' in --classes.*nothing"):
        page_of(to_label, *other)
    assert not (to_label / "classes.txt").exists()
    page = page_of(to_label, *BOTH)
    send(page), send(page, "photo 01.png")
    (to_label / "classes.txt").write_text("\n".join(other) + "\n")  # by hand
    for step in (lambda: page_of(to_label), lambda: import_masks(to_label, photos)):
        with pytest.raises(UserError, match="'background' in .*selection.json and '.*' in .*to_label/classes.txt"):
            step()
    assert not (photos / "classes.txt").exists() and len(list((photos / "masks").iterdir())) == 1


@pytest.mark.parametrize("names", [["ground", "cat"], ["background", "cat", "dog"], ["ground", "animal"]])
def test_numbers_of_masks_may_have_new_names_and_further_ones(photos, to_label, names):
    page = page_of(to_label, *names)
    page.begin()
    send(page), send(page, "photo 01.png")
    assert import_masks(to_label, photos)[0].class_names == names
    assert (photos / "classes.txt").read_text().split() == names


def test_without_masks_names_are_free(photos):
    page = page_of(asks(photos, BOTH), "cat", "background")
    send(page), send(page, "photo 01.png")
    assert import_masks(page.folder, photos)[0].class_names == ["cat", "background"]


# ---- an empty list ---------------------------------------------------------------------------------------------------
def test_an_empty_list_is_none(photos, to_label):
    for text in ("", "\n", "ignore #010203\n"):
        (to_label / "classes.txt").write_text(text)
        page = page_of(to_label)
        assert page.classes == BOTH
        page.begin()
        send(page), send(page, "photo 01.png")
        assert (to_label / "classes.txt").read_text() == "background\ncat\n" + text.strip("\n") + "\n" * (len(text) > 1)
    (to_label / "classes.txt").write_text("")
    assert import_masks(to_label, photos)[0].class_names == BOTH
    (photos / "classes.txt").write_text("")  # of a run that is looked at
    page = MaskSession(photos, classes=BOTH, only={"photo 00.png": Shown("odd")})
    page.begin(), send(page)
    assert (photos / "classes.txt").read_text().split() == BOTH


# ---- names -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "name, why",
    [
        ("zone 1 2 3", "read as a colour"),
        ("sky #87ceeb", "read as a colour"),
        ("# label:x", "head of a list"),
        (" ", "a name"),
        ("a\x85b", "U\\+0085"),
        ("a\nb", "U\\+000A"),
    ],
)
def test_names_of_the_call_are_those_that_a_list_gives_back(photos, name, why):
    class Model:
        names, value_range = ["bg", name], None

    with pytest.raises(UserError, match=why):
        page_of(photos, "bg", name)
    page = MaskSession(photos)
    page.model = Model()
    with pytest.raises(UserError, match=why):
        page.known_classes(())
    with pytest.raises(UserError, match=why):
        page_of(asks(photos, ["bg", name]))
    assert page_of(photos.parent / "to_label", "bg", "other").classes == ["bg", "other"]  # the way out
    assert not (photos / "classes.txt").exists()


def test_a_blank_of_another_kind_is_one(photos):
    page = page_of(photos, "bg", "black\u00a0cat ")
    page.begin(), send(page), send(page, "photo 01.png")
    assert page_of(photos, "bg", "black\u00a0cat").classes == ["bg", "black cat"]


# ---- when they are written -------------------------------------------------------------------------------------------
@pytest.mark.parametrize("before", [None, "bg\n"])
def test_nothing_is_written_before_the_folder_and_the_port_are_had(photos, before, monkeypatch):
    file = photos / "classes.txt"
    if before:
        file.write_text(before)
    how = dict(task="segmentation", classes=["bg", "ctt"], open_browser=False)
    with only_one(photos), pytest.raises(UserError, match="labeled by another process"):
        label(photos, **how)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0)), taken.listen()
        with pytest.raises(UserError, match="cannot listen"):
            label(photos, port=taken.getsockname()[1], **how)
    assert (file.read_text() if file.exists() else None) == before
    monkeypatch.setattr(PageServer, "serve_forever", lambda _: (_ for _ in ()).throw(KeyboardInterrupt()))
    label(photos, **how)
    assert file.read_text() == "bg\nctt\n"
    with pytest.raises(UserError, match="Where no mask has its numbers yet, .*classes.txt may be removed"):
        label(photos, **how | dict(classes=["bg", "cat"]))


def test_names_of_the_data_are_not_written_below_an_open_page(photos):
    (photos / "classes.txt").write_text("background\ncat\ndog\n")
    folder = asks(photos, BOTH)
    (folder / "classes.txt").write_text("background\ncat\n")
    with only_one(folder), pytest.raises(UserError, match="labeled by another process"):
        page_of(folder)
    assert (folder / "classes.txt").read_text() == "background\ncat\n"
    assert page_of(folder).classes == ["background", "cat", "dog"]


def test_what_another_page_wrote_before_this_one_began_stays(photos):
    (photos / "classes.txt").write_text("bg\n")
    page = page_of(photos, "bg", "cat")
    (photos / "classes.txt").write_text("bg\ndog\n")
    with pytest.raises(UserError, match="changed elsewhere"):
        page.begin()
    assert (photos / "classes.txt").read_text() == "bg\ndog\n"


def test_colours_that_were_removed_while_a_page_is_open_stay_away(photos):
    (photos / "classes.txt").write_text("ignore #000000\nbg #010203\ncat #040506\n")
    page = MaskSession(photos)
    (photos / "classes.txt").write_text("bg\ncat\n")
    page.new_class("dog")
    assert (photos / "classes.txt").read_text() == "bg\ncat\ndog\n" and page.colors == {}
    (photos / "classes.txt").unlink()
    send(page)
    assert (photos / "classes.txt").read_text() == "bg\ncat\ndog\n"
