"""The page is opened in a window, by a file that nobody else can read, when the server answers."""

import re
import stat
import urllib.request
import webbrowser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from hf_lowlabel.labeling import browser as opening, server as pages_server
from hf_lowlabel.labeling.mask_page import MaskSession
from hf_lowlabel.labeling.page import Session

from .test_page import browser, folder, serving  # noqa: F401


@pytest.mark.parametrize("of", [Session, MaskSession])
def test_a_browser_that_waits_for_the_page_gets_it_without_the_secret(of, folder, monkeypatch):  # noqa: F811
    made, seen = [], []

    class Ours(pages_server.PageServer):
        def __init__(self, *args):
            super().__init__(*args)
            made.append(self)

    def show(address):
        try:
            file = Path(unquote(urlsplit(address).path))
            seen.append((address, stat.S_IMODE(file.stat().st_mode), file))
            with urllib.request.urlopen(re.search('href="(.*?)"', file.read_text())[1], timeout=20) as answer:
                seen.append(answer.status)
        finally:
            made[0].shutdown()
        return True

    monkeypatch.setattr(pages_server, "PageServer", Ours)
    monkeypatch.setattr(opening, "window", lambda: show)
    (folder / "mine.html").write_text("mine")
    (folder / opening.NAME).symlink_to(folder / "mine.html")  # what lies there is not written through
    pages_server.serve(of(folder))
    (address, mode, file), status = seen
    assert status == 200 and mode == 0o600 and made[0].token not in address and address.startswith("file://")
    assert not file.exists() and (folder / "mine.html").read_text() == "mine"


def test_a_folder_that_keeps_no_modes_is_not_told_the_secret(folder, monkeypatch):  # noqa: F811
    create = opening.os.open

    def without_modes(path, flags, mode=0o777, **more):
        made = create(path, flags, mode, **more)
        if Path(path).parent == folder.resolve():
            opening.os.fchmod(made, 0o644)
        return made

    monkeypatch.setattr(opening.os, "open", without_modes)
    with opening.leading_to("http://127.0.0.1:1/?token=secret", folder) as file:
        assert file.parent != folder.resolve() and "secret" in file.read_text()
        assert stat.S_IMODE(file.stat().st_mode) == 0o600 and (folder / opening.NAME).read_text() == ""
    assert not file.exists() and not (folder / opening.NAME).exists()


SCREEN = {"DISPLAY": ":0"}


@pytest.mark.parametrize(
    "environment, found, shown",
    [
        (SCREEN, webbrowser.BackgroundBrowser("xdg-open"), True),
        (SCREEN, webbrowser.Mozilla("firefox"), True),
        ({"WAYLAND_DISPLAY": "wayland-0"}, webbrowser.BackgroundBrowser("xdg-open"), True),
        (SCREEN, webbrowser.GenericBrowser("/usr/bin/w3m"), False),
        (SCREEN, webbrowser.UnixBrowser("/usr/bin/elinks"), False),
        (SCREEN, None, False),
        ({}, webbrowser.BackgroundBrowser("xdg-open"), False),
        ({"DISPLAY": ""}, webbrowser.Mozilla("firefox"), False),
    ],
)
def test_only_a_browser_with_a_window_is_opened(environment, found, shown, monkeypatch):
    def get():
        if found is None:
            raise webbrowser.Error("could not locate runnable browser")
        return found

    monkeypatch.setattr(opening.sys, "platform", "linux")
    monkeypatch.setattr(webbrowser, "get", get)
    assert opening.window(environment) == (found.open if shown else None)


def test_the_file_leads_a_real_browser_to_the_page(folder, browser):  # noqa: F811
    with serving(folder) as server, opening.leading_to(server.url, folder) as file:
        page = browser.new_page()
        page.goto(file.as_uri())
        page.wait_for_selector("#classes button", timeout=20_000)
        page.close()
