"""The page for masks in a browser: what a hand does while a stroke is under way, or where an image cannot be opened."""

import contextlib
import re
from functools import partial

import numpy as np
import pytest
from PIL import Image

from hf_lowlabel.labeling.mask_page import MaskSession
from hf_lowlabel.labeling.mask_places import read_mask

from .conftest import opened
from .test_page import browser, serving  # noqa: F401

NAMES = ["a", "b"]


class Halves:
    """Stands in for a segmenter: the upper half is b."""

    names, value_range = NAMES, None

    def mask(self, image, names):
        out = np.zeros(image.shape[:2], np.uint8)
        out[: len(out) // 2] = 1
        return out


class Hand:
    """A page, and the mouse at pixels of its image."""

    def __init__(self, page, session):
        self.page, self.session, self.touches = page, session, None

    def at(self, x, y):
        box, (scale, left, top) = (
            self.page.locator("#view").bounding_box(),
            self.page.evaluate("[view.scale, view.x, view.y]"),
        )
        return box["x"] + x * scale + left, box["y"] + y * scale + top

    def press(self, key):
        self.page.keyboard.press(key)

    def begin(self, y=10):
        """A stroke, from which the button is not lifted yet."""
        self.page.mouse.move(*self.at(5, y))
        self.page.mouse.down()
        self.page.mouse.move(*self.at(30, y), steps=3)

    def end(self, y=10):
        self.page.mouse.move(*self.at(60, y), steps=3)
        self.page.mouse.up()

    def touch(self, kind, *points):
        self.touches = self.touches or self.page.context.new_cdp_session(self.page)
        points = [{"x": x, "y": y, "id": n} for n, (x, y) in enumerate(self.at(*point) for point in points)]
        self.touches.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    def sees(self, file, saved=""):
        from playwright.sync_api import expect

        expect(self.page.locator("#id")).to_have_text(file)
        expect(self.page.locator("#saved")).to_have_text(saved)
        self.page.wait_for_function("() => failed || !locked")  # its name is shown before its picture and its mask

    def on_disk(self, file):
        mask = read_mask(self.session.places[file], NAMES, {})
        return 0 if mask is None else int((mask == 1).sum())


@pytest.mark.parametrize("side, size", [(160, "5"), (600, "20")])
def test_the_brush_fits_the_first_image_and_stays_as_it_is_set(tmp_path, browser, side, size):  # noqa: F811
    from playwright.sync_api import expect

    for name in ("a.png", "b.png"):
        Image.new("RGB", (2 * side, side)).save(tmp_path / name)
    made = partial(MaskSession, classes=["background", "cell"])
    with serving(tmp_path, made) as server, contextlib.closing(browser.new_page()) as page:
        opened(page, server.url)
        expect(page.locator("#open")).to_contain_text("unpainted")
        assert page.input_value("#size") == size
        page.keyboard.press("]")
        page.keyboard.press("ArrowRight")
        expect(page.locator("#id")).to_have_text("b.png")
        expect(page.locator("#open")).to_contain_text("unpainted")
        assert int(page.input_value("#size")) > int(size)
    shown = server.session.state()["classes"][0]["color"]
    assert min(abs(sum(shown) / 3 - v) for v in (0, 255)) > 60  # seen on a dark image, and on a bright one


@pytest.mark.parametrize("by_hand", [False, True])
def test_a_brush_set_by_keys_before_the_first_image_stays_and_its_ring_fits(tmp_path, browser, by_hand):  # noqa: F811
    (tmp_path / "a.png").write_bytes(b"no image")
    Image.new("RGB", (1280, 640)).save(tmp_path / "b.png")
    ring = "() => Math.abs(Number($('ring').getAttribute('r')) - radius() * view.scale) < 1e-6"
    made = partial(MaskSession, classes=["background", "cell"])
    with serving(tmp_path, made) as server, contextlib.closing(browser.new_page()) as page:
        opened(page, server.url)
        if by_hand:
            page.keyboard.press("]")
        size = page.input_value("#size") if by_hand else "21"
        page.keyboard.press("ArrowRight")
        page.wait_for_function("() => here().id === 'b.png' && !locked")
        assert page.input_value("#size") == size and page.inner_text("#sizeText") == f"{size} px"
        assert page.evaluate(ring)
        scale = page.evaluate("view.scale")
        page.set_viewport_size({"width": 700, "height": 500})
        page.wait_for_function("scale => view.scale !== scale", arg=scale)
        assert page.evaluate(ring)


@contextlib.contextmanager
def painting(browser, folder, count=3, model=None, assist=None):  # noqa: F811
    from playwright.sync_api import expect

    expect.set_options(timeout=20_000)
    folder.mkdir(exist_ok=True)
    for name in "abcd"[:count]:
        Image.new("RGB", (64, 48), (40, 80, 40)).save(folder / f"{name}.png")

    def made(folder):
        session = MaskSession(folder, classes=NAMES)
        session.model, session.assistant = model, assist
        return session

    with serving(folder, made) as server:
        context = browser.new_context(has_touch=True)
        page, problems = context.new_page(), []
        page.on("pageerror", lambda error: problems.append(str(error)))
        opened(page, server.url)
        page.evaluate("sized = true; $('size').value = 24; 0")
        hand = Hand(page, server.session)
        hand.press("2")
        yield hand
        context.close()
        assert not problems


@pytest.mark.parametrize("key, next", [("Enter", "b.png"), ("ArrowRight", "b.png"), ("ArrowLeft", "c.png")])
def test_a_stroke_is_saved_when_another_image_is_asked_for(tmp_path, browser, key, next):  # noqa: F811
    with painting(browser, tmp_path) as hand:
        hand.begin()
        hand.press(key)
        hand.sees(next)
        hand.end()  # of a stroke that ended with its image
        assert hand.on_disk("a.png") > 100 and hand.on_disk(next) == 0
        assert hand.page.evaluate("mask.counts(2)") == [0, 0]
        hand.begin(), hand.end()
        hand.sees(next, "saved")
        assert hand.on_disk(next) > 200


@pytest.mark.parametrize("key", ["r", "m", "b", "s", "p"])
def test_a_stroke_is_a_step_of_its_own(tmp_path, browser, key):  # noqa: F811
    """Whatever is pressed while it is painted: it is saved, and undone after what came then."""
    with painting(browser, tmp_path, model=Halves()) as hand:
        hand.press("z")  # the model's mask
        hand.sees("a.png", "saved")
        hand.begin(y=40)
        hand.press(key)
        hand.page.mouse.up()
        hand.sees("a.png", "saved")
        steps = {"r": 2, "m": 2}.get(key, 1)
        hand.page.wait_for_function(f"() => mask.past.length === {steps}")
        hand.page.evaluate("writing")
        if steps == 1:
            assert hand.on_disk("a.png") > 100
        for _ in range(steps):
            assert hand.page.evaluate("mask.counts(2)")[1] > 100
            hand.press("z")
        assert hand.page.evaluate("mask.counts(2)") == [0, 0]


def test_a_second_finger_paints_nothing(tmp_path, browser):  # noqa: F811
    with painting(browser, tmp_path, 1) as hand:
        hand.touch("touchStart", (10, 10))
        hand.touch("touchStart", (10, 10), (55, 40))
        for k in range(1, 5):
            hand.touch("touchMove", (10 + k, 10), (55 - k, 40 - k))
        hand.touch("touchEnd")
        hand.sees("a.png", "saved")
        painted = hand.page.evaluate("[...mask.values.keys()].filter(i => mask.values[i] === 1)")
        assert painted and max(painted) // 64 < 30  # nothing by the finger below
        hand.press("z")
        assert hand.page.evaluate("mask.counts(2)") == [0, 0] and hand.page.evaluate("mask.past.length") == 0
        hand.press("p")  # corners come of one finger too
        hand.touch("touchStart", (10, 10))
        hand.touch("touchStart", (10, 10), (55, 40))
        assert hand.page.evaluate("corners.length") == 1


def test_the_mask_of_a_model_asked_for_again_is_still_to_be_accepted(tmp_path, browser):  # noqa: F811
    from playwright.sync_api import expect

    with painting(browser, tmp_path, model=Halves()) as hand:
        for _ in range(3):
            expect(hand.page.locator("#accept")).to_contain_text("right, next")
            hand.press("m")
            hand.page.evaluate("writing")
            expect(hand.page.locator("#open")).to_contain_text("that nobody has accepted")
        hand.press("Enter")
        hand.sees("b.png")
        assert hand.on_disk("a.png") == 64 * 24


def test_enter_that_is_held_accepts_one_mask(tmp_path, browser):  # noqa: F811
    from playwright.sync_api import expect

    with painting(browser, tmp_path, model=Halves()) as hand:
        expect(hand.page.locator("#accept")).to_contain_text("right, next")
        hand.page.keyboard.down("Enter")
        hand.sees("b.png")
        expect(hand.page.locator("#accept")).to_contain_text("right, next")
        hand.page.keyboard.down("Enter"), hand.page.keyboard.down("Enter")
        hand.page.evaluate("writing")
        hand.sees("b.png")
        assert hand.on_disk("a.png") and not hand.on_disk("b.png")
        hand.page.keyboard.up("Enter"), hand.press("Enter")
        hand.sees("c.png")


def test_an_image_that_cannot_be_painted_is_passed(tmp_path, browser):  # noqa: F811
    """One whose mask is of another kind, one that is no image any more; nothing of the one before stays on the page."""
    from playwright.sync_api import expect

    halves = Image.fromarray(np.array([[0, 255]] * 4, np.uint8).repeat(32, 1).repeat(12, 0))
    with painting(browser, tmp_path / "x", 4) as hand:
        halves.save(tmp_path / "x" / "b_mask.png")  # by another tool, meanwhile
        hand.press("r")
        hand.sees("a.png", "saved")
        (tmp_path / "x" / "c.png").write_bytes(b"no image")
        hand.press("Enter")
        for file, why in (("b.png", "nothing but 0 and 255"), ("c.png", "not an image|cannot be shown")):
            hand.sees(file)
            expect(hand.page.locator("#problem")).to_have_text(re.compile(why))
            expect(hand.page.locator("#open")).to_be_empty()
            drawn = "$('mask').getContext('2d').getImageData(0, 0, $('mask').width, $('mask').height).data.some(v => v)"
            assert not hand.page.evaluate(drawn)
            hand.begin(), hand.end()
            hand.page.click("#accept") if file == "b.png" else hand.press("Enter")
        hand.sees("d.png")
        hand.page.wait_for_function("() => !locked")
        hand.begin(), hand.end()
        hand.sees("d.png", "saved")
        assert hand.on_disk("d.png") > 200 and hand.page.inner_text("#problem") == ""


def test_a_browser_that_does_not_tell_the_parts_of_a_movement(tmp_path, browser):  # noqa: F811
    """Safari before 18.2."""
    with painting(browser, tmp_path, 1) as hand:
        hand.page.evaluate("() => { delete PointerEvent.prototype.getCoalescedEvents; }")
        hand.begin(), hand.end()
        hand.sees("a.png", "saved")
        assert hand.on_disk("a.png") > 200


def test_enter_of_an_input_method_makes_no_class(tmp_path, browser):  # noqa: F811
    """It ends a word that is typed in Chinese or Japanese."""
    from playwright.sync_api import expect

    with painting(browser, tmp_path, 1) as hand:
        hand.press("n")
        hand.page.keyboard.insert_text("\u732b")
        for more in ("isComposing: true", "keyCode: 229"):  # the latter is Safari's, after the word
            key = f"new KeyboardEvent('keydown', {{key: 'Enter', bubbles: true, cancelable: true, {more}}})"
            hand.page.evaluate(f"$('name').dispatchEvent({key})")
        hand.page.evaluate("writing")
        assert hand.session.classes == NAMES and hand.page.input_value("#name") == "\u732b"
        hand.press("Enter")
        expect(hand.page.locator("#classes")).to_contain_text("\u732b")


def test_the_space_bar_that_is_let_go_of_elsewhere_is_not_held(tmp_path, browser):  # noqa: F811
    with painting(browser, tmp_path, 1) as hand:
        hand.page.keyboard.down(" ")
        hand.page.evaluate("window.dispatchEvent(new Event('blur'))")
        hand.begin(), hand.end()
        hand.sees("a.png", "saved")
        assert hand.on_disk("a.png") > 200


def test_the_steps_that_can_be_undone_are_limited_by_their_bytes(tmp_path, browser):  # noqa: F811
    with painting(browser, tmp_path, 1) as hand:
        script = """([side, steps]) => {
            const mask = new Mask(document.createElement("canvas"));
            mask.draw = () => {};
            mask.load(side, side, new Uint8Array(side * side));
            for (let k = 0; k < steps; k++) {
                mask.begin();
                mask.replace(new Uint8Array(side * side).fill(k % 2 + 1));
                mask.commit();
            }
            let undone = 0;
            while (mask.undo()) undone++;
            return [undone, mask.values.length, mask.values[0]];
        }"""
        assert hand.page.evaluate(script, [4000, 9]) == [8, 4000**2, 1]  # of 2 x 16 MB each
        assert hand.page.evaluate(script, [8, 300])[0] == 200


def test_a_polygon_is_a_step_of_its_own_width(tmp_path, browser):  # noqa: F811
    with painting(browser, tmp_path, 1) as hand:
        script = """points => {
            const mask = new Mask(document.createElement("canvas"));
            mask.load(64, 48, new Uint8Array(64 * 48).fill(NONE));
            mask.begin();
            mask.polygon(points, 1);
            const values = mask.values.slice(), painted = [...values.keys()].filter(i => values[i] === 1);
            const done = mask.commit(), box = done ? mask.past[0].box : null;
            if (done) mask.undo();
            const blank = mask.values.every(v => v === NONE);
            if (done) mask.redo();
            return [painted.length, box, blank, mask.values.every((v, i) => v === values[i])];
        }"""
        square = [[10.2, 5.5], [20.8, 5.5], [20.8, 15.5], [10.2, 15.5]]
        assert hand.page.evaluate(script, square) == [11 * 10, [10, 5, 21, 16], True, True]
        over = [[-9, -9], [4.5, -9], [4.5, 90], [-9, 90]]
        assert hand.page.evaluate(script, over) == [4 * 48, [0, 0, 5, 47], True, True]
        beside = [[-9, 5], [-2, 5], [-2, 15]]
        assert hand.page.evaluate(script, beside) == [0, None, True, True]


def test_a_model_s_mask_that_is_taken_back_and_brought_back_is_not_accepted(tmp_path, browser):  # noqa: F811
    from playwright.sync_api import expect

    with painting(browser, tmp_path, model=Halves()) as hand:
        opened = hand.page.locator("#open")
        for _ in range(2):
            expect(opened).to_contain_text("nobody has accepted: Enter or a stroke accepts all of it, z takes it away")
            hand.press("z")
            expect(opened).to_have_text("100 % unpainted")
            hand.press("y")
        expect(opened).to_contain_text("that nobody has accepted")
        hand.page.evaluate("writing")
        assert not hand.session.places["a.png"].mask.exists()
        hand.begin(y=40), hand.end(y=40)  # on it: so it is right but for this
        hand.sees("a.png", "saved")
        for key, left in (("z", 64 * 24), ("z", 0), ("y", 64 * 24)):
            hand.press(key)
            hand.page.evaluate("writing")
            hand.page.wait_for_function("() => !unsaved")
            assert hand.on_disk("a.png") == left and opened.inner_text().endswith("unpainted")
        hand.press("ArrowRight")
        hand.sees("b.png")
        expect(opened).to_contain_text("that nobody has accepted")
        hand.press("z"), hand.press("y"), hand.press("Enter")
        hand.sees("c.png")
        assert hand.on_disk("b.png") == 64 * 24


def test_a_class_is_renamed_by_the_keyboard(tmp_path, browser):  # noqa: F811
    from playwright.sync_api import expect

    with painting(browser, tmp_path, 1) as hand:
        names = iter(["third", "fourth", "fifth"])
        hand.page.on("dialog", lambda dialog: dialog.accept(next(names)))
        hand.press("2"), hand.press("F2")
        expect(hand.page.locator("#classes button").nth(1)).to_contain_text("third")
        hand.page.focus("#rename")
        hand.press("Enter")
        expect(hand.page.locator("#classes button").nth(1)).to_contain_text("fourth")
        hand.press("Enter")  # it is still where the keyboard is
        expect(hand.page.locator("#classes button").nth(1)).to_contain_text("fifth")
        hand.sees("a.png")
        assert hand.session.classes == ["a", "fifth"]


class Boxes:
    """Stands for a SAM: all that a box encloses, and nothing around a click."""

    def mask(self, key, image, points, box):
        found = np.zeros(image.shape[:2], bool)
        if box:
            left, top, right, bottom = (round(v) for v in box)
            found[top:bottom, left:right] = True
        return found


def drag(hand, start, end):
    """A box from here to there."""
    hand.page.mouse.move(*hand.at(*start))
    hand.page.mouse.down()
    hand.page.mouse.move(*hand.at(*end), steps=3)
    with hand.page.expect_response("**/assist?*"):
        hand.page.mouse.up()


def test_help_that_changes_nothing_accepts_no_mask_of_a_model(tmp_path, browser):  # noqa: F811
    with painting(browser, tmp_path, 1, Halves(), Boxes()) as hand:
        hand.page.wait_for_function("() => draft")
        hand.press("a")
        drag(hand, (10, 4), (30, 14))  # where the model says the same
        hand.page.wait_for_function("() => $('saved').textContent === ''")
        hand.page.evaluate("writing")
        assert hand.page.evaluate("draft") and not hand.session.places["a.png"].mask.exists()
        hand.press("Enter")
        hand.sees("a.png")
        assert hand.on_disk("a.png") == 24 * 64  # accepted by a person


def test_help_that_takes_back_what_it_painted_is_saved(tmp_path, browser):  # noqa: F811
    with painting(browser, tmp_path, 1, assist=Boxes()) as hand:
        hand.press("a")
        drag(hand, (10, 10), (30, 20))
        hand.sees("a.png", "saved")
        assert hand.on_disk("a.png") > 100
        drag(hand, (40, 40), (40, 48))  # of nothing, in place of the box before
        hand.sees("a.png", "saved")
        assert hand.on_disk("a.png") == 0


def test_escape_on_the_way_to_another_image_takes_nothing_back(tmp_path, browser):  # noqa: F811
    with painting(browser, tmp_path, 2, assist=Boxes()) as hand:
        waiting = []
        hand.page.route("**/mask?*&stamp=*", lambda route: waiting.append(route))
        hand.press("a")
        drag(hand, (10, 10), (30, 20))
        hand.page.wait_for_function("() => prompts.applied")
        hand.press("ArrowRight")
        hand.press("Escape")
        assert hand.page.evaluate("mask.counts(2)[1]") > 100  # what is seen is what is written
        while not waiting:  # the browser may send the request a moment after the keys are answered
            hand.page.wait_for_timeout(10)
        waiting.pop().continue_()
        hand.sees("b.png")
        hand.page.unroute("**/mask?*&stamp=*")
        assert hand.on_disk("a.png") > 100 and hand.on_disk("b.png") == 0
        hand.page.wait_for_function("() => !locked")
        hand.press("ArrowLeft")
        hand.sees("a.png")
        hand.page.wait_for_function("() => !locked && mask.counts(2)[1] > 100")
