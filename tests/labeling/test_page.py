"""The labeling page: its server over HTTP, and the page itself in a real browser where there is one."""

import contextlib
import json
import shutil
import threading
import urllib.error
import urllib.request
from dataclasses import replace

import pytest

from hf_lowlabel.errors import UserError
from hf_lowlabel.labeling.answer_kinds import kind_of
from hf_lowlabel.labeling.importing import import_labels
from hf_lowlabel.labeling.labels import Asked, Labels, read_labels, write_labels
from hf_lowlabel.labeling.page import Session
from hf_lowlabel.labeling.pages import label
from hf_lowlabel.labeling.server import PageServer, only_one
from hf_lowlabel.labeling.suggestions import write_suggestions
from hf_lowlabel.ladder.answers import unanswered

from .conftest import Served, at_page, opened, paint

BROWSER = next(
    (shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome") if shutil.which(name)), None
)


@pytest.fixture
def folder(tmp_path):
    names = paint(tmp_path / "images", 5)
    task = Asked("photos", None, {name: f"set/{name}" for name in names}, class_names=["red", "green"])
    (tmp_path / "classes.txt").write_text("red\ngreen\n")
    write_labels(tmp_path / "labels.csv", task, Labels())
    task.save(tmp_path)
    return tmp_path


@contextlib.contextmanager
def serving(folder, session=Session, port=0):
    server = PageServer(session(folder), port)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def ask(server, path, body=None, **headers):
    headers = {"Content-Type": "application/json", **headers} if body is not None else headers
    data = json.dumps(body).encode() if body is not None else None
    with urllib.request.urlopen(urllib.request.Request(at_page(server.url, path), data, headers), timeout=10) as answer:
        kind = answer.headers["Content-Type"]
        return json.load(answer) if "json" in kind else answer.read()


def stored(folder):
    return read_labels(folder / "labels.csv", Asked.load(folder), new_classes=True).labels


def test_every_label_is_on_disk_before_the_answer(folder):
    with serving(folder) as server:
        ids = [image["id"] for image in ask(server, "state")["images"]]
        for n, id in enumerate(ids[:3]):
            ask(server, "label", {"id": id, "label": ["red", "green"][n % 2]})
            assert stored(folder)[id] == ["red", "green"][n % 2] and len(stored(folder)) == n + 1
        ask(server, "label", {"id": ids[3], "skipped": True})
        ask(server, "class", {"name": " blau "})
        changed = ask(server, "label", {"id": ids[0], "label": "blau"})  # changed his mind
        assert changed == {"id": ids[0], "label": "blau", "skipped": False, "can_undo": True}  # and not all images
        state = ask(server, "state")
        assert [i["label"] for i in state["images"]] == ["blau", "green", "red", "", ""] and state["images"][3][
            "skipped"
        ]
        assert (folder / "classes.txt").read_text() == "red\ngreen\nblau\n"
        assert ask(server, "images/photo%2001.png") == (folder / "images" / "photo 01.png").read_bytes()
    split, found = import_labels(folder, allow_missing=True)
    assert split.labeled == {ids[0]: "blau", ids[1]: "green", ids[2]: "red"} and found.skipped == {ids[3]}


def test_undo_goes_back_step_by_step_and_over_a_restart(folder):
    with serving(folder) as server:
        ids = [image["id"] for image in ask(server, "state")["images"]]
        ask(server, "label", {"id": ids[0], "label": "red"})
        ask(server, "label", {"id": ids[0], "label": "green"})
        ask(server, "label", {"id": ids[1], "skipped": True})
        assert ask(server, "undo", {})["id"] == ids[1]
    with open(folder / "history.jsonl", "a") as history:
        history.write('{"id": "set/pho')  # cut short by a crash
    with serving(folder) as server:
        assert ask(server, "undo", {})["id"] == ids[0] and stored(folder) == {ids[0]: "red"}
        assert not ask(server, "undo", {})["can_undo"] and stored(folder) == {}
        with pytest.raises(urllib.error.HTTPError) as error:
            ask(server, "undo", {})
        assert "nothing to undo" in json.load(error.value)["error"]


def test_many_images_are_answered_and_undone_at_once(folder):
    with serving(folder) as server:
        ids = [image["id"] for image in ask(server, "state")["images"]]
        ask(server, "label", {"id": ids[0], "label": "red"})
        said = ask(server, "labels", {"ids": ids[:3], "label": "green"})
        assert [c["id"] for c in said["changes"]] == ids[1:3] and stored(folder) == dict.fromkeys(ids[:3], "green")
        with pytest.raises(urllib.error.HTTPError):
            ask(server, "labels", {"ids": [ids[3], "other"], "label": "red"})
        assert len(stored(folder)) == 3  # all or none
        said = ask(server, "labels", {"ids": ids, "label": "red", "only_open": True})  # of a tab that shows all as open
        assert [image["label"] for image in said["images"]] == ["green"] * 3 + ["red"] * 2
        assert ask(server, "labels", {"ids": ids[:2], "label": "red", "only_open": True})["images"] == said["images"]
        assert stored(folder) == {id: "green" if id in ids[:3] else "red" for id in ids}
        ask(server, "undo", {})
    with serving(folder) as server:
        ask(server, "undo", {})
        assert stored(folder) == {ids[0]: "red"}


def test_a_mistyped_class_is_renamed_merged_or_deleted_and_that_is_undone(folder):
    with serving(folder) as server:
        ids = [image["id"] for image in ask(server, "state")["images"]]
        ask(server, "class", {"name": "grene"})
        for id, label in zip(ids, ("red", "green", "grene"), strict=False):
            ask(server, "label", {"id": id, "label": label})
        assert ask(server, "rename", {"old": "grene", "new": "Green"})["classes"] == ["red", "green"]  # merged
        assert stored(folder)[ids[2]] == "green" and (folder / "classes.txt").read_text() == "red\ngreen\n"
        assert ask(server, "rename", {"old": "red", "new": "rosso"})["classes"] == ["rosso", "green"]
        assert stored(folder)[ids[0]] == "rosso"
        assert ask(server, "rename", {"old": "green", "new": ""})["classes"] == ["rosso"]
        assert stored(folder) == {ids[0]: "rosso"}
        with pytest.raises(urllib.error.HTTPError):
            ask(server, "rename", {"old": "none", "new": "x"})
    with serving(folder) as server:  # over a restart
        for _ in range(3):
            state = ask(server, "undo", {})
        assert state["classes"] == ["red", "green", "grene"]
        assert stored(folder) == {ids[0]: "red", ids[1]: "green", ids[2]: "grene"}


def test_a_class_whose_name_means_no_label_elsewhere_is_kept(folder):
    """One called none, that is there; the others are not lost when the page opens again, nor when they are read."""
    task = Asked.load(folder)
    (folder / "classes.txt").write_text("none\nred\n")
    with serving(folder) as server:
        ids = [image["id"] for image in ask(server, "state")["images"]]
        ask(server, "class", {"name": "N/A"})
        for name in ("-1", "[red, blue]"):  # what no file gives back as it was
            with pytest.raises(urllib.error.HTTPError):
                ask(server, "class", {"name": name})
        for id, label in zip(ids, ("none", "N/A", "red"), strict=False):
            ask(server, "label", {"id": id, "label": label})
    with serving(folder) as server:
        ask(server, "label", {"id": ids[3], "label": "red"})
    expected = {ids[0]: "none", ids[1]: "N/A", ids[2]: "red", ids[3]: "red"}
    assert import_labels(folder, allow_missing=True)[0].labeled == expected
    assert unanswered(folder, kind_of(task.task)) == len(task.files) - 4


def test_why_an_image_was_passed_over_is_kept(folder):
    with serving(folder) as server:
        ids = [image["id"] for image in ask(server, "state")["images"]]
        for id, why in zip(ids, ("unsure", "none of these", ""), strict=False):
            ask(server, "label", {"id": id, "skipped": True, "why": why})
        with pytest.raises(urllib.error.HTTPError):
            ask(server, "label", {"id": ids[3], "skipped": True, "why": "=1"})
    found = read_labels(folder / "labels.csv", Asked.load(folder))
    assert found.skipped == set(ids[:3]) and found.why == {ids[0]: "unsure", ids[1]: "none of these"}


def test_edits_by_hand_meanwhile_are_kept(folder):
    with serving(folder) as server:
        ids = [image["id"] for image in ask(server, "state")["images"]]
        ask(server, "label", {"id": ids[0], "label": "red"})
        write_labels(folder / "labels.csv", Asked.load(folder), Labels({ids[0]: "green", ids[4]: "violet"}))
        state = ask(server, "label", {"id": ids[1], "label": "red"})
        assert stored(folder) == {ids[0]: "green", ids[1]: "red", ids[4]: "violet"} and "violet" in state["classes"]
        (folder / "labels.csv").write_text("broken")
        with pytest.raises(urllib.error.HTTPError) as error:
            ask(server, "label", {"id": ids[2], "label": "red"})
        assert "has the columns" in json.load(error.value)["error"] and (folder / "labels.csv").read_text() == "broken"


def test_a_lost_file_comes_back_from_the_history(folder):
    with serving(folder) as server:
        ids = [image["id"] for image in ask(server, "state")["images"]]
        for id, label in zip(ids, ("red", "green", "red"), strict=False):
            ask(server, "label", {"id": id, "label": label})
        ask(server, "undo", {})
    (folder / "labels.csv").unlink()
    Session(folder)
    assert stored(folder) == {ids[0]: "red", ids[1]: "green"}


def test_what_the_server_refuses(folder):
    (folder / "secret.txt").write_text("secret")
    with serving(folder) as server:
        id = ask(server, "state")["images"][0]["id"]
        for path, body, headers in (
            ("images/../secret.txt", None, {}),
            ("images/%2e%2e/secret.txt", None, {}),
            ("selection.json", None, {}),
            ("state", None, {"Host": "evil.example"}),
            ("label", {"id": id, "label": "red"}, {"Host": "evil.example"}),
            ("label", {"id": id, "label": "red"}, {"Content-Type": "text/plain"}),
            ("label", {"id": "other", "label": "red"}, {}),
            ("label", {"id": id, "label": "unheard of"}, {}),
            ("label", {"nonsense": 1}, {}),
            ("class", {"name": "RED"}, {}),
            ("class", {"name": " "}, {}),
        ):
            with pytest.raises(urllib.error.HTTPError):
                ask(server, path, body, **headers)
        assert stored(folder) == {}
    with only_one(folder), pytest.raises(UserError, match="another process"), only_one(folder):
        pass
    with pytest.raises(UserError, match="--model is of masks"):
        label(folder, model="runs/x")
    with pytest.raises(UserError, match="holds a selection for classification"):
        label(folder, task="segmentation")


@pytest.fixture
def scenes(tmp_path):
    names = paint(tmp_path / "images", 4)
    task = Asked("photos", None, {name: name for name in names}, class_names=["cat", "dog", "sky"], task="multilabel")
    (tmp_path / "classes.txt").write_text("cat\ndog\nsky\n")
    write_labels(tmp_path / "labels.csv", task, Labels())
    write_suggestions(tmp_path, {names[1]: (("dog;sky", 0.7), "in doubt"), names[2]: (("none", 0.9), "sure")})
    task.save(tmp_path)
    return tmp_path


def answers(folder):
    split, found = import_labels(folder, allow_missing=True)
    return split.labeled


def test_all_classes_of_an_image(scenes):
    with serving(scenes) as server:
        state = ask(server, "state")
        assert state["several"] and state["images"][1]["suggestion"]["class"] == "dog;sky"
        ids = [image["id"] for image in state["images"]]
        assert ask(server, "label", {"id": ids[0], "label": "sky;cat"})["label"] == "cat;sky"  # in one order
        ask(server, "label", {"id": ids[1], "label": "none"})
        ask(server, "label", {"id": ids[2], "label": "dog"})
        for bad in ("cat;cow", "cow"):
            with pytest.raises(urllib.error.HTTPError):
                ask(server, "label", {"id": ids[3], "label": bad})
        for bad in ("a;b", "none", "a|b"):
            with pytest.raises(urllib.error.HTTPError):
                ask(server, "class", {"name": bad})
        assert answers(scenes) == {ids[0]: "cat;sky", ids[1]: "none", ids[2]: "dog"}
        ask(server, "rename", {"old": "cat", "new": "sky"})  # merged, and named once
        assert answers(scenes) == {ids[0]: "sky", ids[1]: "none", ids[2]: "dog"}
        ask(server, "rename", {"old": "dog", "new": ""})  # open again
        assert answers(scenes) == {ids[0]: "sky", ids[1]: "none"}
        ask(server, "undo", {}), ask(server, "undo", {})
        assert answers(scenes) == {ids[0]: "cat;sky", ids[1]: "none", ids[2]: "dog"}
    split, _ = import_labels(scenes, allow_missing=True)
    assert split.class_names == ["cat", "dog", "sky"]
    (scenes / "labels.csv").write_text(f"file_name,label\n{ids[0]}, Cat | sky\n")
    with pytest.raises(UserError, match="'Cat'"):
        import_labels(scenes, allow_missing=True)


def test_suggestions_that_cannot_be_read_are_named(folder):
    for text in ("[", "[1]", '{"a": {"looks_like": 3, "why": ""}}'):
        (folder / "suggestions.json").write_text(text)
        with pytest.raises(UserError, match="suggestions.json cannot be read"):
            Session(folder)


# ---- in a browser ----------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if BROWSER is None:
        pytest.skip("no Chromium on this machine")
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=BROWSER, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


def tap(page, key):
    """Press a key when the picture is there: what is not shown yet is not answered."""
    page.wait_for_selector("#image:not(.waiting)", state="attached")
    page.keyboard.press(key)


def test_a_person_labels_with_the_keyboard_and_a_crash_loses_nothing(folder, browser):
    ids = list(Asked.load(folder).files.values())
    server = Served(folder)
    from playwright.sync_api import expect

    page = browser.new_page()
    page.set_default_timeout(60_000)
    expect.set_options(timeout=60_000)
    problems = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    count = page.locator("#count")
    try:
        opened(page, server.url)
        expect(count).to_have_text("0 labeled, 0 skipped of 5")
        assert page.locator("#image").evaluate("image => image.naturalWidth") == 16

        def press(key, text):
            tap(page, key)
            expect(count).to_contain_text(text)

        assert page.evaluate('keysOf(["0", "cat", "1", "A", "a"])') == [
            "0",
            "2",
            "1",
            "a",
            "3",
        ]  # a class "1" has the key 1
        press("1", "1 labeled, 0 skipped")
        press("2", "2 labeled, 0 skipped")
        press("s", "2 labeled, 1 skipped")
        assert page.text_content("#id") == ids[3]
        press("u", "2 labeled, 0 skipped")
        assert page.text_content("#id") == ids[2]  # back where it was
        tap(page, "n")
        page.keyboard.type("blue 1")  # digits and letters are text here, not classes
        tap(page, "Enter")
        expect(page.locator("#classes button")).to_have_count(3)
        press("3", "3 labeled, 0 skipped")
        tap(page, "ArrowLeft")
        assert page.text_content("#id") == ids[2] and "blue 1" in page.text_content("button.given")
        assert stored(folder) == {ids[0]: "red", ids[1]: "green", ids[2]: "blue 1"}

        server.kill()  # the machine goes down
        tap(page, "1")
        expect(page.locator("#problem")).to_contain_text("not saved")
        server = Served(folder)
        page.goto(server.url)
        expect(count).to_contain_text("3 labeled, 0 skipped")
        assert page.text_content("#id") == ids[3]  # the first that is open
        press("u", "2 labeled, 0 skipped")  # undo reaches over the crash
        press("3", "3 labeled, 0 skipped")
        page.click("text=green")  # and with the mouse
        expect(count).to_contain_text("4 labeled")
        press(" ", "4 labeled, 1 skipped of 5 - done")
        assert not problems
    finally:
        page.close()
        ended = server.end()
    assert "4 labeled, 1 skipped of 5; next: hf-lowlabel split --from" in server.said() and ended == 0
    assert stored(folder) == {ids[0]: "red", ids[1]: "green", ids[2]: "blue 1", ids[3]: "green"}


def test_a_suggestion_is_accepted_by_one_key(folder, browser):
    """Its class and probability are shown, and why; one of a class that is not in the list is not offered."""
    from playwright.sync_api import expect

    ids = list(Asked.load(folder).files.values())
    said = {ids[0]: (("green", 0.834), "in doubt: green or red"), ids[1]: (("mauve", 0.9), ""), ids[2]: (None, "odd")}
    write_suggestions(folder, said)
    page = browser.new_page()
    page.set_default_timeout(60_000)
    expect.set_options(timeout=60_000)
    problems = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    with serving(folder) as server:
        opened(page, server.url)
        expect(page.locator("#accept")).to_contain_text("green (83 %)")
        expect(page.locator("button.likely")).to_contain_text("green")
        expect(page.locator("#id")).to_have_text(f"{ids[0]}: in doubt: green or red")
        tap(page, "Enter")
        expect(page.locator("#count")).to_contain_text("1 labeled")
        expect(page.locator("#accept")).to_be_hidden()
        tap(page, "Enter")  # nothing is suggested
        tap(page, "2")
        expect(page.locator("#count")).to_contain_text("2 labeled")
        expect(page.locator("#classes button", has_text="green").locator("small")).to_have_text("2")
        expect(page.locator("#id")).to_have_text(f"{ids[2]}: odd")
        tap(page, "u")
        expect(page.locator("#count")).to_contain_text("1 labeled")
        assert not problems and stored(folder) == {ids[0]: "green"}
        page.close()


def test_enter_keeps_the_label_that_an_image_has(folder, browser):
    """On a second look the guess of the model is a key away, and does not replace what a person has said."""
    from playwright.sync_api import expect

    ids = list(Asked.load(folder).files.values())
    write_suggestions(folder, {id: (("green", 0.8), "labeled red") for id in ids[:3]}, dict.fromkeys(ids[:2], "red"))
    page = browser.new_page()
    page.set_default_timeout(60_000)
    expect.set_options(timeout=60_000)
    with serving(folder) as server:
        opened(page, server.url)
        expect(page.locator("#accept")).to_contain_text("keep red")
        expect(page.locator("button.likely")).to_contain_text("red")
        tap(page, "Enter")
        expect(page.locator("#count")).to_contain_text("1 labeled")
        expect(page.locator("#classes button", has_text="green").locator("small")).to_contain_text("model: 80 %")
        page.locator("#classes button", has_text="green").click()
        expect(page.locator("#count")).to_contain_text("2 labeled")
        expect(page.locator("#accept")).to_contain_text("green (80 %)")  # of one without a label, as ever
        assert stored(folder) == {ids[0]: "red", ids[1]: "green"}
        page.close()


def test_the_photo_is_shown_beside_the_question_for_classes(folder, browser):
    """What is skipped before a class is named has been seen."""
    from playwright.sync_api import expect

    (folder / "classes.txt").unlink()
    asked = Asked.load(folder)
    replace(asked, class_names=[]).save(folder)
    page = browser.new_page()
    with serving(folder) as server:
        opened(page, server.url)
        expect(page.locator("#lead")).to_be_visible()
        expect(page.locator("#image")).to_be_visible()
        boxes = [page.locator(name).bounding_box() for name in ("#image", "#lead", "footer")]
        assert boxes[0]["y"] + boxes[0]["height"] <= boxes[1]["y"] + 1 and boxes[0]["height"] > 100
        assert boxes[1]["y"] + boxes[1]["height"] <= boxes[2]["y"] + 1
        page.close()


def test_look_alikes_are_answered_at_once_but_for_the_odd_ones(folder, browser):
    from playwright.sync_api import expect

    ids = list(Asked.load(folder).files.values())
    p = (0.6, 0.9, 0.7, 0.8)
    said = {id: (("green", q), "") for id, q in zip(ids, p, strict=False)} | {ids[4]: (("red", 0.55), "")}
    write_suggestions(folder, said)
    page = browser.new_page()
    page.set_default_timeout(60_000)
    expect.set_options(timeout=60_000)
    problems = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("dialog", lambda dialog: dialog.accept("blue"))
    with serving(folder) as server:
        opened(page, server.url)
        tap(page, "ArrowUp")
        expect(page.locator("#id")).to_contain_text("4 that look like green")
        assert page.eval_on_selector_all("#grid img", "all => all.map(i => i.alt)") == [ids[k] for k in (1, 3, 2, 0)]
        for wide in (1280, 390):  # all of it is in sight, and words keep their lines
            page.set_viewport_size({"width": wide, "height": 800})
            foot, words = page.locator("footer").bounding_box(), page.locator("#id").bounding_box()
            assert foot["y"] + foot["height"] <= 801 and words["width"] > 0.9 * wide and words["height"] < 80
            assert page.locator("main").bounding_box()["height"] > 250
        page.click("#grid button >> nth=3")
        tap(page, "Enter")
        expect(page.locator("#id")).to_contain_text("1 that look like red")
        assert stored(folder) == {id: "green" for id in ids[1:4]}
        tap(page, "1")
        expect(page.locator("#count")).to_contain_text("4 labeled")
        expect(page.locator("#grid")).to_be_hidden()  # the odd one is looked at by itself
        expect(page.locator("#id")).to_have_text(ids[0])
        tap(page, ",")
        expect(page.locator("#count")).to_contain_text("next: hf-lowlabel split --from")
        page.click("#classes span >> nth=0")  # rename
        expect(page.locator("#classes button >> nth=0")).to_contain_text("blue")
        assert stored(folder)[ids[4]] == "blue" and not problems
    page.close()


def test_a_tab_of_another_folder_writes_nothing(folder, browser, tmp_path):
    """Folders labeled one after the other at one --port have files of one name."""
    from playwright.sync_api import expect

    expect.set_options(timeout=20_000)
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    with serving(folder) as server:
        port, left = server.server_port, browser.new_context()
        tab = left.new_page()
        opened(tab, server.url)
    with serving(other, port=port) as server:
        opened(left.new_page(), server.url)
        for key in ("1", "s", "2"):
            tap(tab, key)
            expect(tab.locator("#problem")).to_contain_text("this tab shows another folder")
        expect(tab.locator("#count")).to_contain_text("0 labeled")
        assert stored(other) == {}
    with serving(folder, port=port) as server:  # its own again
        opened(left.pages[1], server.url)
        tap(tab, "1")
        expect(tab.locator("#count")).to_contain_text("1 labeled")
    assert len(stored(folder)) == 1 and stored(other) == {}


def test_a_tab_says_that_another_one_changed_the_classes(folder, browser):
    """And goes on with those there are; what the person was at stays."""
    from playwright.sync_api import expect

    expect.set_options(timeout=20_000)
    ids = list(Asked.load(folder).files.values())
    with serving(folder) as server:
        first, second = browser.new_page(), browser.new_page()
        for tab in (first, second):
            opened(tab, server.url)
        tap(second, "ArrowRight")
        ask(server, "rename", {"old": "red", "new": "rosso"})
        tap(second, "1")
        expect(second.locator("#problem")).to_contain_text("There is no class 'red'")
        expect(second.locator("#problem")).to_contain_text("The classes were changed elsewhere")
        expect(second.locator("#classes")).to_contain_text("rosso")
        expect(second.locator("#id")).to_have_text(ids[1])
        tap(second, "1")
        expect(second.locator("#count")).to_contain_text("1 labeled")
        expect(second.locator("#problem")).to_be_empty()
        assert stored(folder) == {ids[1]: "rosso"}
        ask(server, "rename", {"old": "green", "new": "verde"})
        tap(first, "ArrowUp")  # many at once, of which one is odd
        first.click("#grid button >> nth=2")
        tap(first, "2")
        expect(first.locator("#problem")).to_contain_text("changed elsewhere")
        tap(first, "2")
        expect(first.locator("#count")).to_contain_text("4 labeled")
        assert stored(folder) == {ids[1]: "rosso", **{ids[k]: "verde" for k in (0, 3, 4)}}
        first.fill("#name", "Verde")
        first.press("#name", "Enter")
        expect(first.locator("#problem")).to_have_text("The class 'verde' exists.")
        assert first.input_value("#name") == "Verde"
        first.close(), second.close()


def test_the_page_says_that_a_renaming_is_for_all_rounds(folder, browser):
    from playwright.sync_api import expect

    expect.set_options(timeout=20_000)
    replace(Asked.load(folder), labeled={"x.png": "red", "y.png": "red"}).save(folder)
    asked, page = [], browser.new_page()
    page.on("dialog", lambda dialog: (asked.append(dialog.message), dialog.accept("rosso")))
    with serving(folder) as server:
        opened(page, server.url)
        tap(page, "1")
        expect(page.locator("#classes button >> nth=0").locator("small")).to_have_text("1 + 2")
        page.click("#classes span >> nth=0")
        expect(page.locator("#classes button >> nth=0")).to_contain_text("rosso")
        assert "for all rounds: the 2 labels of it in others too" in asked[0]
        page.click("#classes span >> nth=1")
        assert "all rounds" not in asked[1]
    page.close()
    assert Asked.load(folder).labeled == {"x.png": "rosso", "y.png": "rosso"}


def test_killed_at_any_moment_the_file_is_whole(folder):
    """SIGKILL while labels pour in: labels.csv is readable and holds everything that was answered."""
    server = Served(folder)
    ids, answered, stop, enough = list(Asked.load(folder).files.values()), {}, threading.Event(), threading.Event()

    def pour():
        n = 0
        while not stop.is_set():
            n += 1
            with contextlib.suppress(OSError, urllib.error.URLError):
                ask(server, "label", {"id": ids[n % 5], "label": ["red", "green"][n // 5 % 2]})
                answered[ids[n % 5]] = ["red", "green"][n // 5 % 2]
                if n >= 20 and len(answered) == 5:
                    enough.set()

    thread = threading.Thread(target=pour)
    thread.start()
    came = enough.wait(60)
    server.kill()
    stop.set()
    thread.join()
    kept = stored(folder)
    assert came and sum(kept[id] != label for id, label in answered.items()) <= 1  # one may be saved, not yet answered


def test_classes_are_checked_and_saved_together(scenes, browser):
    from playwright.sync_api import expect

    expect.set_options(timeout=60_000)
    problems = []
    with serving(scenes) as server:
        page = browser.new_page()
        page.on("pageerror", lambda error: problems.append(str(error)))
        opened(page, server.url)
        boxes, count = page.get_by_role("checkbox"), page.locator("#count")
        expect(boxes).to_have_count(3)
        tap(page, "1"), tap(page, "3"), tap(page, "2"), tap(page, "2")
        expect(page.locator("#accept")).to_contain_text("save cat, sky")
        assert answers_or_none(scenes) == {}  # nothing before it is said that this is all
        tap(page, "Enter")
        expect(count).to_contain_text("1 labeled")
        expect(page.locator("#accept")).to_contain_text("save dog, sky")  # what the model says is checked already
        page.get_by_role("checkbox", name="sky").click()
        tap(page, "Enter")
        expect(count).to_contain_text("2 labeled")
        expect(page.locator("#accept")).to_be_hidden()
        tap(page, ".")
        expect(count).to_contain_text("3 labeled")
        expect(page.locator("#many")).to_be_hidden()
        ids = list(Asked.load(scenes).files.values())
        assert answers(scenes) == {ids[0]: "cat;sky", ids[1]: "dog", ids[2]: "none"}
        tap(page, "u")
        expect(count).to_contain_text("2 labeled")
        page.close()
    assert not problems


def answers_or_none(folder):
    return read_labels(folder / "labels.csv", Asked.load(folder), new_classes=True).labels
