"""What buttons, double clicks, slow answers and focus do on the pages, in a browser: nothing is answered unasked."""

import threading

import pytest

from hf_lowlabel.labeling.labels import Asked
from hf_lowlabel.labeling.suggestions import write_suggestions

from .conftest import opened
from .test_page import answers, browser, folder, scenes, serving, stored, tap  # noqa: F401
from .test_strokes import Halves, painting

expect = pytest.importorskip("playwright.sync_api").expect


def test_two_clicks_in_a_row_answer_one_image(folder, browser):  # noqa: F811
    expect.set_options(timeout=20_000)
    page, ids = browser.new_page(), list(Asked.load(folder).files.values())
    with serving(folder) as server:
        opened(page, server.url)
        page.dblclick("#classes button >> nth=0")
        expect(page.locator("#id")).to_have_text(ids[1])
        page.wait_for_function("() => !busy")
        assert stored(folder) == {ids[0]: "red"}
        page.wait_for_timeout(500)  # a person has looked
        page.click("#classes button >> nth=0")
        expect(page.locator("#id")).to_have_text(ids[2])
        assert stored(folder) == {ids[0]: "red", ids[1]: "red"}
        page.close()


def test_enter_and_space_on_a_button_do_its_work_alone(folder, browser):  # noqa: F811
    expect.set_options(timeout=20_000)
    page, ids = browser.new_page(), list(Asked.load(folder).files.values())
    write_suggestions(folder, {id: (("green", 0.9), "") for id in ids})
    with serving(folder) as server:
        opened(page, server.url)
        page.focus("#classes button >> nth=0")
        tap(page, "Enter")
        expect(page.locator("#count")).to_contain_text("1 labeled")
        page.focus("#classes button >> nth=0")
        tap(page, " ")
        expect(page.locator("#count")).to_contain_text("2 labeled, 0 skipped")
        assert stored(folder) == dict.fromkeys(ids[:2], "red")
        page.click("#skip")  # after a click with the mouse keys are the page's again
        expect(page.locator("#count")).to_contain_text("1 skipped")
        tap(page, "Enter")
        expect(page.locator("#count")).to_contain_text("3 labeled, 1 skipped")
        tap(page, "ArrowUp")
        expect(page.locator("#grid")).to_be_visible()
        for name in ("skip", "none", "unsure"):
            expect(page.locator(f"#{name}")).to_be_hidden()
        tap(page, "ArrowUp")
        expect(page.locator("#skip")).to_be_visible()
        page.close()


def test_a_class_that_is_renamed_stays_checked(scenes, browser):  # noqa: F811
    expect.set_options(timeout=20_000)
    page = browser.new_page()
    page.on("dialog", lambda dialog: dialog.accept("kitten"))
    with serving(scenes) as server:
        opened(page, server.url)
        names = page.eval_on_selector_all("#classes button", "all => all.map(b => b.dataset.name)")
        for k in range(2):
            page.click(f"#classes button >> nth={k}")
        page.click("#classes span >> nth=0")
        expect(page.locator("#classes")).to_contain_text("kitten")
        checked = "all => all.filter(b => b.getAttribute('aria-checked') === 'true').map(b => b.dataset.name)"
        assert set(page.eval_on_selector_all("#classes button", checked)) == {"kitten", names[1]}
        page.close()


def test_enter_keeps_the_label_that_nothing_is_there(scenes, browser):  # noqa: F811
    """But not another label whose classes were unchecked, nor against what is checked."""
    expect.set_options(timeout=20_000)
    page, ids = browser.new_page(), list(Asked.load(scenes).files.values())
    write_suggestions(scenes, {id: (("dog", 0.8), "in doubt") for id in ids}, dict(zip(ids, ["none", "none", "cat"])))
    with serving(scenes) as server:
        opened(page, server.url)
        expect(page.locator("#accept")).to_contain_text("keep none")
        tap(page, "Enter")
        expect(page.locator("#id")).to_contain_text(ids[1])
        tap(page, "2")
        expect(page.locator("#accept")).to_contain_text("save dog")
        tap(page, "Enter")
        expect(page.locator("#id")).to_contain_text(ids[2])
        expect(page.locator("#accept")).to_contain_text("save cat")
        tap(page, "1")
        expect(page.locator("#accept")).to_be_hidden()
        tap(page, "Enter")
        expect(page.locator("#count")).to_contain_text("2 labeled")
        assert answers(scenes) == {ids[0]: "none", ids[1]: "dog"}
        page.close()


def test_keys_of_an_input_method_make_no_class(folder, browser):  # noqa: F811
    """Enter takes what it composed, Escape drops that; Chromium and Firefox tell so by isComposing, Safari by 229."""
    expect.set_options(timeout=20_000)
    page = browser.new_page()
    with serving(folder) as server:
        opened(page, server.url)
        page.fill("#name", "\u304d\u3064\u306d")
        page.focus("#name")
        press = "(input, how) => input.dispatchEvent(new KeyboardEvent('keydown', {bubbles: true, ...how}))"
        for key in ("Enter", "Escape"):
            for how in ({"isComposing": True}, {"keyCode": 229}):
                page.eval_on_selector("#name", press, {"key": key, **how})
        assert page.evaluate("document.activeElement.id") == "name" and not page.evaluate("busy")
        expect(page.locator("#classes button")).to_have_count(2)
        page.press("#name", "Enter")
        expect(page.locator("#classes button")).to_have_count(3)
        page.close()


class Slow(Halves):
    """A model that answers when it may."""

    def __init__(self):
        self.may = threading.Event()

    def mask(self, image, names):
        self.may.wait(30)
        return super().mask(image, names)


def test_a_model_that_is_late_paints_over_nothing(tmp_path, browser):  # noqa: F811
    model = Slow()
    with painting(browser, tmp_path, 1) as hand:
        hand.page.wait_for_function("() => !locked")
        hand.session.model = model
        hand.page.evaluate("() => { window.late = suggest(true); }")  # as for an image that has just been shown
        hand.begin(), hand.end()
        hand.sees("a.png", "saved")
        painted = hand.on_disk("a.png")
        model.may.set()
        hand.page.evaluate("window.late")
        assert hand.on_disk("a.png") == painted < 64 * 24
        assert hand.page.evaluate("mask.counts(2)[1]") == painted


def test_keys_on_a_focused_button_of_the_mask_page(tmp_path, browser):  # noqa: F811
    with painting(browser, tmp_path, 2, Halves()) as hand:
        expect(hand.page.locator("#accept")).to_contain_text("right, next")
        hand.page.focus("#classes button >> nth=0")
        hand.press("Enter")
        hand.sees("a.png")
        assert hand.page.evaluate("current") == 0 and not hand.on_disk("a.png")
        hand.page.focus("#size")
        hand.press("ArrowRight")
        hand.sees("a.png")


def test_what_was_not_saved_is_asked_about_whatever_is_done_meanwhile(tmp_path, browser):  # noqa: F811
    with painting(browser, tmp_path, 2) as hand:
        asked = []
        hand.page.on("dialog", lambda dialog: (asked.append(dialog.message), dialog.dismiss()))
        hand.page.wait_for_function("() => !locked")
        hand.page.route(
            "**/mask?*", lambda route: route.abort() if route.request.method == "POST" else route.continue_()
        )
        hand.begin(), hand.end()
        hand.sees("a.png", "not saved")
        hand.page.evaluate("() => { looking('looking for pieces'); looking(''); }")
        hand.sees("a.png", "not saved")
        hand.press("Enter")
        hand.page.wait_for_function("() => !locked")
        assert asked == ["The last strokes are not saved. Leave them?"]
        hand.page.unroute("**/mask?*")
        hand.press("b")
        hand.begin(30), hand.end(30)
        hand.sees("a.png", "saved")
