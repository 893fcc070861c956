"""The page for classes answers what is shown, once, and not over what another tab has said."""

import json
import re
import threading
import urllib.error

import pytest

from hf_lowlabel.labeling.labels import Asked, Labels, write_labels
from hf_lowlabel.labeling.page import Session

from .conftest import opened
from .test_page import answers_or_none, ask, browser, folder, scenes, serving, stored  # noqa: F401


def refusal(server, body) -> str:
    with pytest.raises(urllib.error.HTTPError) as error:
        ask(server, "label", body)
    return json.load(error.value)["error"]


def test_an_answer_over_another_one_is_refused(folder):  # noqa: F811
    """One tab shows what it was told; meanwhile another one answered, skipped, or took back."""
    opened = {"label": "", "skipped": False, "why": ""}
    with serving(folder) as server:
        id, other, third, *_ = [image["id"] for image in ask(server, "state")["images"]]
        ask(server, "label", {"id": id, "label": "red", "was": opened})
        said = refusal(server, {"id": id, "label": "green", "was": opened})
        assert said == f"Not saved: {id!r} was changed in another tab or by hand, and is red now."
        assert "is red now" in refusal(server, {"id": id, "skipped": True, "was": opened})
        assert stored(folder) == {id: "red"} and len(Session(folder).steps) == 1
        ask(server, "label", {"id": id, "label": "green", "was": {**opened, "label": "red"}})  # it was seen
        ask(server, "label", {"id": other, "skipped": True, "why": "unsure", "was": opened})
        assert "is skipped now" in refusal(server, {"id": other, "label": "red", "was": opened})
        ask(server, "undo", {})
        skipped = {"label": "", "skipped": True, "why": "unsure"}
        assert "is open now" in refusal(server, {"id": other, "label": "red", "was": skipped})
        write_labels(folder / "labels.csv", Asked.load(folder), Labels({id: "green", third: "red"}))  # by hand
        assert "is red now" in refusal(server, {"id": third, "label": "green", "was": opened})
        for odd in ([], "x", 3):
            assert "changed in another tab" in refusal(server, {"id": other, "label": "red", "was": odd})
        assert stored(folder) == {id: "green", third: "red"}


@pytest.fixture
def tab(browser):  # noqa: F811
    from playwright.sync_api import expect

    expect.set_options(timeout=20_000)
    page, problems = browser.new_page(), []
    page.on("pageerror", lambda error: problems.append(str(error)))
    yield page
    page.close()
    assert not problems


def test_a_tab_says_that_another_one_answered(folder, tab):  # noqa: F811
    from playwright.sync_api import expect

    with serving(folder) as server:
        ids = [image["id"] for image in ask(server, "state")["images"]]
        opened(tab, server.url)
        ask(server, "label", {"id": ids[0], "label": "red"})
        tab.keyboard.press("2")
        expect(tab.locator("#problem")).to_contain_text("changed in another tab or by hand, and is red now")
        expect(tab.locator("button.given")).to_contain_text("red")  # as it is now, and where it was
        expect(tab.locator("#id")).to_have_text(ids[0])
        assert stored(folder) == {ids[0]: "red"}
        tab.keyboard.press("2")
        expect(tab.locator("#id")).to_have_text(ids[1])
        expect(tab.locator("#problem")).to_be_empty()
        assert stored(folder) == {ids[0]: "green"}


def test_all_classes_of_an_image_are_not_saved_over_others(scenes, tab):  # noqa: F811
    from playwright.sync_api import expect

    with serving(scenes) as server:
        ids = [image["id"] for image in ask(server, "state")["images"]]
        opened(tab, server.url)
        ask(server, "label", {"id": ids[0], "label": "cat;sky"})
        tab.keyboard.press("2"), tab.keyboard.press("Enter")
        expect(tab.locator("#problem")).to_contain_text("is cat;sky now")
        assert answers_or_none(scenes) == {ids[0]: "cat;sky"}


@pytest.mark.parametrize("key, undone", [("1", ""), ("s", ""), ("Enter", ""), (".", ""), ("u", "1")])
def test_a_key_that_is_held_answers_once(folder, tab, key, undone):  # noqa: F811
    from playwright.sync_api import expect

    from hf_lowlabel.labeling.suggestions import write_suggestions

    ids = list(Asked.load(folder).files.values())
    write_suggestions(folder, {id: (("green", 0.9), "") for id in ids})
    with serving(folder) as server:
        if undone:
            for id in ids:
                ask(server, "label", {"id": id, "label": "red"})
        opened(tab, server.url)
        tab.keyboard.down(key)
        expect(tab.locator("#count")).to_contain_text(
            "4 labeled" if undone else re.compile("[10] labeled, [01] skipped")
        )
        for _ in range(3):
            tab.wait_for_function("() => !busy")
            expect(tab.locator("#image:not(.waiting)")).to_be_visible()
            tab.keyboard.down(key)  # repeated
        tab.keyboard.up(key)
        tab.wait_for_function("() => !busy")
        assert len(server.session.steps) == (4 if undone else 1)
        before = tab.inner_text("#id")
        tab.keyboard.down("ArrowRight"), tab.keyboard.down("ArrowRight")  # which only looks
        assert tab.inner_text("#id") != before


def test_what_is_not_shown_yet_is_not_answered(folder, tab, monkeypatch):  # noqa: F811
    from playwright.sync_api import expect

    from hf_lowlabel.labeling import page

    arrives, picture = threading.Event(), page.picture

    def slow(file):
        if file.name != "photo 00.png":
            arrives.wait(20)
        return picture(file)

    monkeypatch.setattr(page, "picture", slow)
    with serving(folder) as server:
        ids = [image["id"] for image in ask(server, "state")["images"]]
        tab.goto(server.url)
        expect(tab.locator("#image:not(.waiting)")).to_be_visible()
        tab.keyboard.press("1")
        expect(tab.locator("#id")).to_have_text(ids[1])
        for key in "2s.":
            tab.keyboard.press(key)
            expect(tab.locator("#problem")).to_have_text("not answered: the picture is not shown yet")
        tab.click("text=green")
        tab.keyboard.press("ArrowUp")  # many at once, of which none is shown
        tab.keyboard.press("2")
        assert stored(folder) == {ids[0]: "red"}
        tab.keyboard.press("ArrowUp")
        arrives.set()
        expect(tab.locator("#image:not(.waiting)")).to_be_visible()
        expect(tab.locator("#problem")).to_be_empty()
        tab.keyboard.press("2")
        expect(tab.locator("#id")).to_have_text(ids[2])
        assert stored(folder) == {ids[0]: "red", ids[1]: "green"}


def test_what_cannot_be_shown_is_said_and_passed_over(folder, tab):  # noqa: F811
    from playwright.sync_api import expect

    (folder / "images" / "photo 00.png").write_bytes(b"no image")
    (folder / "images" / "photo 01.png").unlink()
    with serving(folder) as server:
        tab.goto(server.url)
        for id in ("set/photo 00.png", "set/photo 01.png"):
            expect(tab.locator("#id")).to_have_text(id)
            expect(tab.locator("#problem")).to_contain_text("this image cannot be shown")
            tab.keyboard.press("s")
        expect(tab.locator("#count")).to_contain_text("0 labeled, 2 skipped")
        expect(tab.locator("#problem")).to_be_empty()
