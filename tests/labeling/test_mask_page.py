"""The page for masks: what it writes is what training reads, whole, whoever is killed; and the page in a browser."""

import gzip
import json
import multiprocessing
import re
import shutil
import urllib.error
import urllib.request
import zlib

import numpy as np
import pytest
from PIL import Image

from hf_lowlabel.cli import main
from hf_lowlabel.data.files.folder_names import IMAGE_FOLDERS
from hf_lowlabel.data.opening import load_segmentation
from hf_lowlabel.data.pixels.masks import read_classes
from hf_lowlabel.errors import UserError
from hf_lowlabel.labeling.labels import Asked
from hf_lowlabel.labeling.mask_import import import_masks
from hf_lowlabel.labeling.mask_page import MaskSession, Shown
from hf_lowlabel.labeling.mask_places import find_places
from hf_lowlabel.labeling.server import PageServer, only_one, serve

from .conftest import at_page, opened, paint
from .test_page import ask, browser, serving  # noqa: F401

NAMES = ("background", "disc")


def session(folder):
    return MaskSession(folder, classes=NAMES)


@pytest.fixture
def photos(tmp_path):
    paint(tmp_path / "photos" / "images", 3)
    return tmp_path / "photos"


def stamp_of(server, file):
    """Of the mask that a page is shown now."""
    with urllib.request.urlopen(at_page(server.url, f"mask?file={urllib.request.quote(file)}"), timeout=60) as answer:
        return (answer.headers["ETag"] or "").strip('"')


def put(server, file, mask, content=None, stamp=None, tab="", **headers):
    """Send a mask as a page does that was just opened, or was shown the mask of `stamp`."""
    stamp = stamp_of(server, file) if stamp is None else stamp
    data = zlib.compress(np.asarray(mask, np.uint8).tobytes()) if content is None else content
    headers = {"Content-Type": "application/octet-stream", **headers}
    address = at_page(server.url, f"mask?file={urllib.request.quote(file)}&stamp={stamp}&tab={tab}")
    request = urllib.request.Request(address, data, headers)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


def got(server, file, what="mask"):
    address = at_page(server.url, f"{what}?file={urllib.request.quote(file)}")
    with urllib.request.urlopen(address, timeout=60) as answer:
        return np.frombuffer(gzip.decompress(answer.read()), np.uint8 if what != "superpixels" else np.uint16)


def refused(call, *args, **more) -> str:
    with pytest.raises(urllib.error.HTTPError) as error:
        call(*args, **more)
    text = error.value.read()
    return json.loads(text)["error"] if text.startswith(b"{") else text.decode()


def test_what_is_painted_is_what_training_reads(photos):
    mask = np.full((16, 16), 255, np.uint8)
    mask[2:6, 3:9], mask[8:, :] = 1, 0
    with serving(photos, session) as server:
        assert (got(server, "photo 01.png") == 255).all()
        said = put(server, "photo 01.png", mask)
        assert said["mask"] and said["open"] == round(float((mask == 255).mean()), 4)
        assert (got(server, "photo 01.png") == mask.ravel()).all()
        assert [image["mask"] for image in ask(server, "state")["images"]] == [False, True, False]
    data = load_segmentation(photos, classes=str(photos / "classes.txt"))
    assert data.class_names == list(NAMES) and data.has_target.tolist() == [False, True, False]
    assert (data.mask(1) == mask).all()
    with serving(photos, MaskSession) as server:  # the classes are known again
        assert [c["name"] for c in ask(server, "state")["classes"]] == list(NAMES)
        put(server, "photo 01.png", np.full((16, 16), 255))
    assert not (photos / "masks" / "photo 01.png").exists()  # nothing painted is no mask


def test_what_does_not_fit_changes_nothing(photos):
    good = np.zeros((16, 16), np.uint8)
    with serving(photos, session) as server:
        seen = put(server, "photo 00.png", good)["stamp"]
        file = photos / "masks" / "photo 00.png"
        before = file.read_bytes()
        whole = zlib.compress(good.tobytes())
        for content, word in (
            (b"no zlib", "not arrive whole"),
            (whole[:-3], "pixels"),
            (zlib.compress(bytes(100)), "pixels"),
            (zlib.compress(bytes(10**7)), "pixels or more"),
            (zlib.compress(bytes([2]) * 256), "not in the list"),
        ):
            assert word in refused(put, server, "photo 00.png", None, content)
        assert "no image" in refused(put, server, "../classes.txt", good)
        for headers in ({"Content-Type": "text/plain"}, {"Origin": "http://evil.example"}, {"Host": "evil.example"}):
            assert "not allowed" in refused(put, server, "photo 00.png", good + 1, **headers)
        assert file.read_bytes() == before
        Image.fromarray(good + 1).save(file)  # somebody else
        assert "changed by somebody else" in refused(put, server, "photo 00.png", good, stamp=seen)
        assert (got(server, "photo 00.png") == 1).all()
        put(server, "photo 00.png", good)  # who has seen it may change it


def test_of_two_tabs_none_paints_over_the_other(photos):
    nothing = np.full((16, 16), 255, np.uint8)
    sky, road = nothing.copy(), nothing.copy()
    sky[:4], road[12:] = 0, 1
    with serving(photos, session) as server:
        one = other = stamp_of(server, "photo 00.png")
        other = put(server, "photo 00.png", sky, stamp=other)["stamp"]
        assert "in another tab" in refused(put, server, "photo 00.png", road, stamp=one)
        assert (got(server, "photo 00.png") == sky.ravel()).all()
        other = put(server, "photo 00.png", sky + (sky == 0), stamp=other)["stamp"]  # a tab goes on from its own
        one = stamp_of(server, "photo 00.png")  # the other image and back
        assert one == other
        assert put(server, "photo 00.png", nothing, stamp=one) == {
            "file": "photo 00.png",
            "stamp": "",
            "mask": False,
            "open": 1.0,
        }
        assert "in another tab" in refused(put, server, "photo 00.png", road, stamp=other)  # nothing is there now
        put(server, "photo 01.png", road, stamp="")
    with serving(photos, session) as server:  # another server does not forget what a tab was shown
        assert "in another tab" in refused(put, server, "photo 01.png", sky, stamp="")


def full(*_):
    raise OSError("full")


def test_an_answer_that_was_lost_is_no_other_tab(photos, monkeypatch):
    """The mask was written, and the tab knows the stamp of before."""
    nothing, sky, road = (np.full((16, 16), value, np.uint8) for value in (255, 0, 1))
    file = photos / "masks" / "photo 00.png"
    with serving(photos, session) as server:
        for mask in (sky, road, nothing, sky):
            put(server, "photo 00.png", mask, stamp="", tab="one")
            assert (got(server, "photo 00.png") == mask.ravel()).all()
        for tab in ("", "other"):
            assert "in another tab" in refused(put, server, "photo 00.png", road, stamp="", tab=tab)
        put(server, "photo 00.png", road, tab="other")
        assert "in another tab" in refused(put, server, "photo 00.png", sky, stamp="", tab="one")
        put(server, "photo 00.png", sky, tab="one")
        Image.fromarray(road).save(file)  # somebody else, who is no tab
        assert "in another tab" in refused(put, server, "photo 00.png", sky, stamp="", tab="one")
        put(server, "photo 01.png", sky, tab="")  # of a page that says nothing of itself nobody knows
        assert "in another tab" in refused(put, server, "photo 01.png", road, stamp="", tab="")
        (photos / "classes.txt").unlink()
        with monkeypatch.context() as patch:
            patch.setattr(server.session, "write_classes", full)
            assert "full" in refused(put, server, "photo 02.png", sky, stamp="", tab="one")
        put(server, "photo 02.png", road, stamp="", tab="one")
        assert (photos / "classes.txt").is_file()


def test_other_numbers_than_those_of_the_masks_that_are_there_are_refused(photos, capsys):
    (photos / "classes.txt").write_text("sky #010203\nroad\n")
    before, other = (photos / "classes.txt").read_bytes(), photos.parent / "other.txt"
    other.write_text("road\nsky #010203\n")
    for given in (["road", "sky"], ["sky", "car", "road"], ["sky", "tree"], [str(other)]):
        with pytest.raises(UserError, match="sky, road: give these in this order and new ones after them"):
            MaskSession(photos, classes=given)
        assert main(["label", str(photos), "--task", "segmentation", "--classes", *given]) == 2
        assert "leave out --classes" in capsys.readouterr().err and (photos / "classes.txt").read_bytes() == before
    for given in (["sky", "road"], [str(photos / "classes.txt")], []):
        assert MaskSession(photos, classes=given).classes == ["sky", "road"]
        assert (photos / "classes.txt").read_bytes() == before
    made = MaskSession(photos, classes=["sky", "road", "car"])
    assert (photos / "classes.txt").read_bytes() == before  # nobody knows yet whether another page is open
    made.begin()
    assert (photos / "classes.txt").read_text() == "sky #010203\nroad\ncar\n"
    assert made.painted_classes()[0] == {"name": "sky", "color": [1, 2, 3]}
    assert MaskSession(photos).classes == ["sky", "road", "car"]
    older = MaskSession(photos, classes=["sky", "road"], only={"photo 00.png": Shown("odd")})  # of a run before the car
    assert older.classes == ["sky", "road", "car"]


def test_the_page_numbers_classes_as_training_does(photos):
    (photos / "classes.txt").write_text("ignore #000000\nsky #010203\nroad\n")
    for given in ([], ["sky", "road"], [str(photos / "classes.txt")]):
        made = MaskSession(photos, classes=given)
        made.new_class("car")
        assert made.classes == read_classes(photos / "classes.txt")[0] == ["sky", "road", "car"]
        assert "ignore #000000" in (photos / "classes.txt").read_text()
        (photos / "classes.txt").write_text("sky #010203\nignore #000000\nroad\n")


def test_masks_lie_where_training_looks_for_them(tmp_path):
    flat, trees = tmp_path / "flat", tmp_path / "trees"
    paint(flat / "a", 2)
    assert [place.mask.relative_to(flat).as_posix() for place in find_places(flat).values()] == [
        "a/photo 00_mask.png",
        "a/photo 01_mask.png",
    ]
    paint(trees / "images" / "train", 1), paint(trees / "images" / "test", 1)
    assert [p.mask.relative_to(trees).as_posix() for p in find_places(trees).values()] == ["masks/train/photo 00.png"]
    for folder in (flat, trees):
        place = next(iter(find_places(folder).values()))
        with serving(folder, session) as server:
            put(server, next(iter(find_places(folder))), np.eye(16))
        found = load_segmentation(folder, classes=NAMES)
        assert found.has_target.tolist().count(True) == 1 and place.mask.is_file()
        assert find_places(folder)[found.ids[0]].mask == place.mask
    (flat / "a" / "photo 00.jpg").write_bytes((flat / "a" / "photo 00.png").read_bytes())
    with pytest.raises(UserError, match="photo 00.png' have the same name before the extension"):
        find_places(flat)


@pytest.mark.parametrize("name", [*IMAGE_FOLDERS, "Img_Dir"])
def test_masks_of_splits_lie_beside_the_folder_of_images_whatever_it_is_called(tmp_path, name):
    paint(tmp_path / name / "train", 2), paint(tmp_path / name / "test", 1)
    page = session(tmp_path)
    page.save({"file": "photo 00.png"}, zlib.compress(np.eye(16, dtype=np.uint8).tobytes()))
    assert (tmp_path / "masks" / "train" / "photo 00.png").is_file()
    assert [place.mask.is_file() for place in find_places(tmp_path).values()] == [True, False]
    assert load_segmentation(tmp_path, classes=NAMES).has_target.tolist() == [True, False]
    inside = tmp_path / "in" / name  # that data lie in a folder called so says nothing of them
    paint(inside / "images", 1)
    assert next(iter(find_places(inside).values())).mask == inside / "masks" / "photo 00.png"


def test_masks_that_are_not_ours_to_change(photos):
    (photos / "masks").mkdir()
    Image.fromarray(np.eye(16, dtype=np.uint8) * 255).save(photos / "masks" / "photo 00.png")
    Image.fromarray(np.eye(8, dtype=np.uint8)).save(photos / "masks" / "photo 01.png")
    Image.fromarray(np.eye(16, dtype=np.uint8) * 7).save(photos / "masks" / "photo 02.png")
    with serving(photos, session) as server:
        assert "nothing but 0 and 255" in refused(got, server, "photo 00.png")
        assert "8 x 8 px" in refused(got, server, "photo 01.png")
        assert "the value 7" in refused(got, server, "photo 02.png")
    with pytest.raises(UserError, match="laid out as voc"):
        (photos.parent / "v" / "JPEGImages").mkdir(parents=True)
        MaskSession(photos.parent / "v")


def test_classes_are_added_and_renamed(photos):
    with serving(photos, MaskSession) as server:
        assert ask(server, "state")["classes"] == []
        for name in ("background", "ring"):
            ask(server, "class", {"name": name})
        put(server, "photo 00.png", np.eye(16))
        said = ask(server, "rename", {"old": "ring", "new": "disc"})
        assert [c["name"] for c in said["classes"]] == list(NAMES)
        for path, body in (
            ("class", {"name": "DISC"}),
            ("class", {"name": "a\nb"}),
            ("class", {"name": "sky #87ceeb"}),
            ("rename", {"old": "none", "new": "x"}),
            ("rename", {"old": "disc", "new": "background"}),
        ):
            assert refused(ask, server, path, body)
    assert (photos / "classes.txt").read_text() == "background\ndisc\n"
    assert load_segmentation(photos, classes=str(photos / "classes.txt")).class_names == list(NAMES)


WRITINGS = {
    "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645": None,  # Persian, with a joiner that is none
    "\u0915\u094d\u200d\u0937": None,
    "\u3000\u9ed2\u3000\u732b\u00a0": "\u9ed2 \u732b",
    "tree\u202ftop": "tree top",
}


@pytest.mark.parametrize("given, named", WRITINGS.items())
def test_classes_may_have_names_of_every_writing(photos, given, named):
    named, page = named or given, session(photos)
    assert page.new_class(given)["classes"][-1]["name"] == named
    with pytest.raises(UserError, match="exists"):
        page.new_class(named.replace(" ", "\u2003"))
    assert MaskSession(photos).classes == read_classes(photos / "classes.txt")[0] == [*NAMES, named]
    page.rename(named, "other")
    assert [c["name"] for c in page.rename("other", given)["classes"]] == [*NAMES, named]


@pytest.mark.parametrize(
    "name, why",
    [
        ("a\u202eb", "U\\+202E"),
        ("a\u2028b", "U\\+2028"),
        ("a\x07b", "U\\+0007"),
        ("\u3000", "a name"),
        ("a #000000", "colour"),
        ("# label:x", "head of a list"),  # as CVAT writes, which no list of classes gives back
    ],
)
def test_what_is_no_name_is_refused_for_what_it_is(photos, name, why):
    page = session(photos)
    for call in (page.new_class, lambda name: page.rename("disc", name)):
        with pytest.raises(UserError, match=why):
            call(name)
    assert page.classes == list(NAMES)


def test_classes_that_were_written_elsewhere_keep_their_numbers(photos):
    """In an editor, or by `split --from`, while the page is open."""
    file = photos / "classes.txt"
    file.write_text("a\nb #010203\n")
    with serving(photos, MaskSession) as server:
        file.write_text("a\nb #010203\nc #040506\n")
        said = ask(server, "class", {"name": "d"})
        assert [c["name"] for c in said["classes"]] == ["a", "b", "c", "d"] and said["classes"][2]["color"] == [4, 5, 6]
        assert file.read_text() == "a\nb #010203\nc #040506\nd\n"
        file.write_text("a\nb #010203\nc #040506\nd\ne\n")
        assert [c["name"] for c in ask(server, "rename", {"old": "d", "new": "f"})["classes"]] == [
            "a",
            "b",
            "c",
            "f",
            "e",
        ]
        file.write_text(file.read_text() + "g\n")
        assert len(ask(server, "state")["classes"]) == 6  # a reload
        put(server, "photo 00.png", np.full((16, 16), 5))
        mask = (photos / "masks" / "photo 00.png").read_bytes()
        for other in ("b\na\nc\nf\ne\ng\n", "a\nb\nc\n", "a\nb\nx\nf\ne\ng\nh\n", ""):
            file.write_text(other)
            for call in (
                lambda: ask(server, "class", {"name": "new"}),
                lambda: ask(server, "rename", {"old": "a", "new": "z"}),
                lambda: put(server, "photo 00.png", np.zeros((16, 16))),
                lambda: ask(server, "state"),
            ):
                found = refused(call)
                assert "classes.txt was changed elsewhere" in found and "the numbers of a, b, c, f, e, g" in found
            assert file.read_text() == other and (photos / "masks" / "photo 00.png").read_bytes() == mask
        file.write_text("a\nb\nc\nf\ne\ng\n")  # put back
        assert len(ask(server, "class", {"name": "new"})["classes"]) == 7


def test_masks_are_not_put_beside_images_that_are_being_labeled(photos, tmp_path):
    folder = tmp_path / "to_label"
    names = paint(folder / "images", 2)
    asked = Asked("photos", None, {name: name for name in names}, class_names=list(NAMES), task="segmentation")
    asked.save(folder)
    with serving(folder, lambda f: MaskSession(f, asked, NAMES)) as server:
        for name in names:
            put(server, name, np.eye(16))
    with only_one(photos), pytest.raises(UserError, match="labeled by another process. Use its page, or end it first"):
        import_masks(folder, photos)
    assert not (photos / "masks").exists() and not (photos / "classes.txt").exists()
    with only_one(folder):  # the page of the folder to label may go on
        assert len(import_masks(folder, photos)[0].labeled) == 2


def test_two_images_of_one_name_are_said_in_the_browser_and_the_page_ends_as_ever(photos, monkeypatch, capsys):
    """That a page cannot show its folder any more is no traceback, neither in the terminal nor at its end."""
    with serving(photos, session) as server:
        put(server, "photo 01.png", np.eye(16))
        (photos / "images" / "photo 01.jpg").write_bytes((photos / "images" / "photo 01.png").read_bytes())
        found = refused(ask, server, "state")
        assert "photo 01.jpg" in found and "Rename one" in found
        (photos / "images" / "photo 01.jpg").unlink()
        assert len(ask(server, "state")["images"]) == 3
    made = MaskSession(photos)
    (photos / "images" / "photo 01.jpg").write_bytes(b"")
    monkeypatch.setattr(PageServer, "serve_forever", lambda _: (_ for _ in ()).throw(KeyboardInterrupt()))
    serve(made, open_browser=False)
    said = capsys.readouterr()
    assert said.out.splitlines()[-1].startswith("1 of 3 images have a mask; next: ") and "Traceback" not in said.err


def test_a_model_s_mask_is_what_a_person_begins_with(photos, tmp_path):
    """Classes are matched by name; a class that the page lacks is left open."""
    from hf_lowlabel.models.segmentation import create_segmenter
    from hf_lowlabel.prediction import predict
    from hf_lowlabel.tasks import get_task

    network = create_segmenter(
        "resnet10t", 3, architecture="unet", pretrained=False, class_names=["disc", "x", "background"]
    )
    network.config.image_size = 32
    get_task("segmentation").save(network, tmp_path / "run")
    predict(photos / "images", tmp_path / "run", output=tmp_path / "out", device="cpu")
    said = np.asarray(Image.open(tmp_path / "out" / "masks" / "photo 02.png"))
    with serving(photos, lambda f: MaskSession(f, classes=NAMES, model=str(tmp_path / "run"))) as server:
        assert ask(server, "state")["model"]
        assert (got(server, "photo 02.png", "model") == np.array([1, 255, 0])[said].ravel()).all()
        assert not (photos / "masks").exists()  # nobody has accepted it


def test_superpixels_end_where_colours_end(photos):
    pytest.importorskip("skimage")
    quarter = np.kron(np.arange(4).reshape(2, 2), np.ones((32, 32), int))
    colours = np.array([(220, 30, 30), (30, 220, 30), (30, 30, 220), (220, 220, 30)], np.uint8)
    Image.fromarray(colours[quarter]).save(photos / "images" / "photo 00.png")
    with serving(photos, lambda f: MaskSession(f, classes=NAMES, pieces=16)) as server:
        found = got(server, "photo 00.png", "superpixels")
    assert found.size == 4096 and 4 <= len(np.unique(found)) <= 40
    assert all(len(np.unique(quarter.ravel()[found == piece])) == 1 for piece in np.unique(found))


def test_without_scikit_image_the_page_says_what_to_install(photos, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "skimage.segmentation", None)
    with serving(photos, session) as server:
        assert "pip install 'hf_lowlabel[masks]'" in refused(got, server, "photo 00.png", "superpixels")


def test_chosen_images_come_back_with_their_masks(backbone, tmp_path, capsys):
    """select, label, split: the masks lie beside the images of the data set, and the manifest names them."""
    paint(tmp_path / "photos", 8)
    out, manifest = str(tmp_path / "to_label"), str(tmp_path / "split.json")
    data = ["--dataset", str(tmp_path / "photos"), "--task", "segmentation"]
    choose = ["select", "--model", backbone, *data, "--budget", "2", "--output", out, "--device", "cpu"]
    assert main(choose) == 0 and "hf-lowlabel label" in capsys.readouterr().out
    take = ["split", "--from", out, *data, "--output", manifest]
    assert main(take) == 2 and "classes.txt" in capsys.readouterr().err
    from hf_lowlabel.labeling.labels import Asked

    asked = Asked.load(out)
    with serving(out, lambda f: MaskSession(f, asked, NAMES)) as server:
        assert [image["file"] for image in ask(server, "state")["images"]] == list(asked.files)
        first, second = asked.files
        put(server, first, np.eye(16))
        assert main(take) == 2 and "1 of 2 images have no mask" in capsys.readouterr().err
        put(server, second, np.eye(16)[::-1])
    assert main(take) == 0 and "--split" in capsys.readouterr().out
    from hf_lowlabel.data.splits.splits import Split

    found = load_segmentation(tmp_path / "photos", classes=f"{out}/classes.txt")
    at = Split.load(manifest).resolve(found)
    assert {found.ids[i] for i in at.labeled} == set(asked.files.values()) and len(found) == 8
    assert found.has_target[at.labeled].all() and found.has_target.sum() == 2


# ---- in a browser ----------------------------------------------------------------------------------------------------
def stored(photos, name="photo 00.png"):
    return np.asarray(Image.open(photos / "masks" / name))


def apart(photos):
    """A server in a process of its own, which can be killed; its address."""
    server = PageServer(MaskSession(photos))
    process = multiprocessing.get_context("fork").Process(target=server.serve_forever, daemon=True)
    process.start()
    server.socket.close()
    return process, server.url


def test_a_person_paints_and_a_crash_loses_nothing(tmp_path, browser):  # noqa: F811
    from playwright.sync_api import expect

    photos = tmp_path / "photos"
    for n in range(2):
        (photos / "images").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 48), (40, 80, 40)).save(photos / "images" / f"{n}.jpg")
    process, url = apart(photos)
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.set_default_timeout(60_000)
    expect.set_options(timeout=60_000)
    problems = []
    page.on("pageerror", lambda error: problems.append(str(error)))

    def at(x, y):
        """Where a pixel of the image is on the screen."""
        box = page.locator("#mask").bounding_box()
        return box["x"] + (x + 0.5) * box["width"] / 64, box["y"] + (y + 0.5) * box["height"] / 48

    def saved():
        expect(page.locator("#saved")).to_have_text("saved")

    def press(key):
        page.keyboard.press(key)

    try:
        opened(page, url)
        expect(page.locator("#lead")).to_be_visible()  # an empty list of classes explains itself
        press("n")
        for name in ("background", "disc"):
            page.keyboard.type(name)
            press("Enter")
            expect(page.locator("#classes button", has_text=name)).to_be_visible()
        press("Escape")
        expect(page.locator("#lead")).to_be_hidden()
        press("2")
        page.evaluate("document.getElementById('size').value = 5")
        page.mouse.move(*at(10, 10))
        page.mouse.down()
        page.mouse.move(*at(30, 10), steps=4)
        page.mouse.up()
        saved()
        line = stored(photos, "0.png")
        assert (line[10, 10:31] == 1).all() and (line[20:] == 255).all() and line.shape == (48, 64)
        assert set(np.flatnonzero((line == 1)[:, 20])) == {8, 9, 10, 11, 12}  # 5 px wide
        press("p")
        for corner in ((40, 20), (60, 20), (60, 40), (40, 40)):
            page.mouse.click(*at(*corner))
        press("Enter")
        expect(page.locator("#open")).to_have_text(re.compile("8[234] % unpainted"))
        saved()
        assert 19 * 19 <= (stored(photos, "0.png")[18:42, 38:62] == 1).sum() <= 21 * 21
        press("1"), press("f")
        page.mouse.click(*at(2, 46))
        expect(page.locator("#open")).to_have_text("0 % unpainted")
        saved()
        done = stored(photos, "0.png")
        assert done[0, 0] == 0 and done[30, 50] == 1 and not (done == 255).any()
        press("z")
        expect(page.locator("#open")).to_have_text(re.compile("8[234] % unpainted"))
        press("y")
        expect(page.locator("#open")).to_have_text("0 % unpainted")
        press("e")
        page.mouse.click(*at(50, 30))
        expect(page.locator("#open")).to_have_text("1 % unpainted")
        saved()
        assert stored(photos, "0.png")[30, 50] == 255
        process.kill()  # the machine goes down
        process.join()
        page.mouse.click(*at(5, 5))
        expect(page.locator("#problem")).to_contain_text("not saved")
        process, url = apart(photos)
        opened(page, url)
        expect(page.locator("#count")).to_contain_text("1 of 2 with a mask")
        assert page.text_content("#id") == "1.jpg"  # the first without one
        press("ArrowLeft")
        expect(page.locator("#open")).to_have_text("1 % unpainted")
        press("1"), press("r")
        expect(page.locator("#open")).to_have_text("0 % unpainted")
        page.mouse.move(*at(20, 20))
        before = page.locator("#mask").bounding_box()
        page.mouse.wheel(0, -400)
        after = page.locator("#mask").bounding_box()
        assert after["width"] > 2 * before["width"]
        press("Enter")
        expect(page.locator("#id")).to_have_text("1.jpg")
        assert not (stored(photos, "0.png") == 255).any() and not problems
    finally:
        page.close()
        process.kill()
        process.join()
    assert MaskSession(photos).parting().startswith("1 of 2 images have a mask; next: hf-lowlabel auto --task")


def test_a_tab_of_another_folder_paints_nothing(photos, browser, tmp_path):  # noqa: F811
    from playwright.sync_api import expect

    expect.set_options(timeout=20_000)
    other = tmp_path / "other"
    shutil.copytree(photos, other)
    with serving(photos, session) as server:
        port, left = server.server_port, browser.new_context(viewport={"width": 1280, "height": 800})
        tab = left.new_page()
        opened(tab, server.url)
        expect(tab.locator("#open")).to_have_text("100 % unpainted")
    with serving(other, session, port) as server:
        opened(left.new_page(), server.url)
        tab.keyboard.press("1"), tab.keyboard.press("r")
        expect(tab.locator("#saved")).to_have_text("not saved")
        expect(tab.locator("#problem")).to_contain_text("this tab shows another folder")
        assert not list(other.rglob("masks/*"))
    with serving(photos, session, port) as server:  # its own again
        opened(left.pages[1], server.url)
        tab.keyboard.press("z"), tab.keyboard.press("y")
        expect(tab.locator("#saved")).to_have_text("saved")
        assert (stored(photos) == 0).all() and not list(other.rglob("masks/*"))


def test_a_tab_says_that_another_one_painted(photos, browser):  # noqa: F811
    from playwright.sync_api import expect

    expect.set_options(timeout=20_000)
    with serving(photos, session) as server:
        tabs = [browser.new_page(viewport={"width": 1280, "height": 800}) for _ in range(2)]
        for tab in tabs:
            opened(tab, server.url)
            expect(tab.locator("#open")).to_have_text("100 % unpainted")
        first, second = tabs
        first.keyboard.press("1"), first.keyboard.press("r")
        expect(first.locator("#saved")).to_have_text("saved")
        second.keyboard.press("2"), second.keyboard.press("r")
        expect(second.locator("#saved")).to_have_text("not saved")
        expect(second.locator("#problem")).to_contain_text("in another tab")
        assert (stored(photos) == 0).all()
        asked = []
        second.once("dialog", lambda dialog: (asked.append(dialog.message), dialog.dismiss()))
        second.keyboard.press("ArrowRight")  # no: the strokes stay to be looked at
        expect(second.locator("#id")).to_have_text("photo 00.png")
        assert second.evaluate("Array.from(mask.counts(2))") == [0, 256] and "not saved. Leave" in asked[0]
        second.once("dialog", lambda dialog: dialog.accept())
        second.keyboard.press("ArrowRight")
        expect(second.locator("#id")).to_have_text("photo 01.png")
        expect(second.locator("#open")).to_have_text("100 % unpainted")
        second.keyboard.press("ArrowLeft")
        expect(second.locator("#id")).to_have_text("photo 00.png")
        expect(second.locator("#open")).to_have_text("0 % unpainted")
        second.evaluate("document.getElementById('size').value = 5")
        second.keyboard.press("e")
        box = second.locator("#mask").bounding_box()
        second.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        expect(second.locator("#saved")).to_have_text("saved")
        assert set(np.unique(stored(photos)).tolist()) == {0, 255}
        for tab in tabs:
            tab.close()


def test_strokes_after_an_answer_that_was_lost_are_saved(photos, browser):  # noqa: F811
    from playwright.sync_api import expect

    expect.set_options(timeout=20_000)

    def lose(route):
        route.fetch()
        route.abort()

    with serving(photos, session) as server:
        tab = browser.new_page(viewport={"width": 1280, "height": 800})
        opened(tab, server.url)
        tab.route("**/mask?*", lose, times=1)
        tab.keyboard.press("1"), tab.keyboard.press("r")
        expect(tab.locator("#saved")).to_have_text("not saved")
        tab.keyboard.press("z")
        expect(tab.locator("#saved")).to_have_text("saved")
        tab.keyboard.press("2"), tab.keyboard.press("r")
        tab.keyboard.press("ArrowRight")
        expect(tab.locator("#id")).to_have_text("photo 01.png")
        assert (stored(photos) == 1).all()
        tab.close()


def test_a_tab_says_that_another_one_changed_the_classes(photos, browser):  # noqa: F811
    from playwright.sync_api import expect

    expect.set_options(timeout=20_000)
    with serving(photos, session) as server:
        tab = browser.new_page(viewport={"width": 1280, "height": 800})
        opened(tab, server.url)
        expect(tab.locator("#open")).to_have_text("100 % unpainted")
        tab.keyboard.press("2")
        old = tab.evaluate("state.classes[1].name")
        ask(server, "rename", {"old": old, "new": "other"})
        tab.on("dialog", lambda dialog: dialog.accept("third"))
        for name in (old, "other"):
            tab.locator("#classes button", has_text=name).dblclick()
            if name == old:
                expect(tab.locator("#problem")).to_contain_text("The classes were changed elsewhere")
                expect(tab.locator("#classes button[aria-pressed=true]")).to_contain_text("other")
        expect(tab.locator("#classes")).to_contain_text("third")
        expect(tab.locator("#problem")).to_be_empty()
        tab.close()


class Squares:
    """Stands for a SAM: 9 px around each click inside but for those outside, or the box."""

    def mask(self, key, image, points, box):
        found = np.zeros(image.shape[:2], bool)
        if box:
            left, top, right, bottom = (round(v) for v in box)
            found[top:bottom, left:right] = True
        for x, y, inside in points:
            found[int(y) - 4 : int(y) + 5, int(x) - 4 : int(x) + 5] = bool(inside)
        return found


def test_clicks_and_boxes_on_the_page(tmp_path, browser):  # noqa: F811
    from playwright.sync_api import expect

    expect.set_options(timeout=60_000)
    photos, problems = tmp_path / "photos", []
    (photos / "images").mkdir(parents=True)
    Image.new("RGB", (64, 48), (40, 80, 40)).save(photos / "images" / "0.png")

    def with_help(folder):
        made = MaskSession(folder, classes=NAMES)
        made.assistant = Squares()
        return made

    with serving(photos, with_help) as server:
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.on("pageerror", lambda error: problems.append(str(error)))
        opened(page, server.url)

        def at(x, y):
            box = page.locator("#mask").bounding_box()
            return box["x"] + (x + 0.5) * box["width"] / 64, box["y"] + (y + 0.5) * box["height"] / 48

        def painted(count):
            for _ in range(200):
                file = photos / "masks" / "0.png"
                found = int((np.asarray(Image.open(file)) == 1).sum()) if file.is_file() else 0
                if found == count:
                    return
                page.wait_for_timeout(50)
            raise AssertionError(found)

        page.keyboard.press("2"), page.keyboard.press("a")
        page.mouse.click(*at(20, 20))
        painted(81)
        page.keyboard.down("Shift")
        page.mouse.click(*at(24, 20))  # not the right half
        page.keyboard.up("Shift")
        painted(81 - 9 * 5)
        page.keyboard.press("Enter")  # a new one begins
        page.mouse.move(*at(40, 10))
        page.mouse.down()
        page.mouse.move(*at(50, 20), steps=3)
        page.mouse.up()
        painted(81 - 9 * 5 + 100)
        expect(page.locator("#prompts rect")).to_have_count(1)
        page.keyboard.press("Escape")  # takes it back, and it alone
        painted(81 - 9 * 5)
        expect(page.locator("#prompts *")).to_have_count(0)
        page.close()
    assert not problems


def test_a_mask_of_1024_px_comes_back_after_a_kill(tmp_path, browser):  # noqa: F811
    from playwright.sync_api import expect

    expect.set_options(timeout=60_000)
    photos = tmp_path / "photos"
    (photos / "images").mkdir(parents=True)
    Image.effect_noise((1024, 1024), 60).convert("RGB").save(photos / "images" / "0.jpg")
    (photos / "classes.txt").write_text("background\ndisc\n")
    process, url = apart(photos)
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    try:
        opened(page, url)
        box = page.locator("#mask").bounding_box()
        page.keyboard.press("2")
        for k in range(5):
            page.mouse.move(box["x"] + box["width"] * 0.1, box["y"] + box["height"] * (0.1 + 0.15 * k))
            page.mouse.down()
            page.mouse.move(box["x"] + box["width"] * 0.9, box["y"] + box["height"] * (0.1 + 0.15 * k), steps=8)
            page.mouse.up()
        page.keyboard.press("1"), page.keyboard.press("r")
        expect(page.locator("#open")).to_have_text("0 % unpainted")
        expect(page.locator("#saved")).to_have_text("saved")
        before = stored(photos, "0.png").copy()
        assert before.shape == (1024, 1024) and set(np.unique(before)) == {0, 1}
        page.keyboard.press("2")
        page.mouse.click(box["x"] + box["width"] * 0.5, box["y"] + box["height"] * 0.95)  # on its way, or not
        process.kill()
        process.join()
        after = stored(photos, "0.png")  # the one or the other, and whole
        changed = after != before
        assert after.shape == (1024, 1024) and changed.sum() < 3000 and (after[changed] == 1).all()
        process, url = apart(photos)
        opened(page, url)
        page.keyboard.press("ArrowLeft")
        expect(page.locator("#open")).to_have_text("0 % unpainted")
        shown = page.evaluate("Array.from(mask.counts(2))")
        assert shown == [int((after == k).sum()) for k in (0, 1)]
    finally:
        page.close()
        process.kill()
        process.join()
