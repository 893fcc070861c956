"""The page in a browser of this machine. Every user can read the arguments of programs, so the browser is given a file
that its owner alone can read, and that leads on to the address with the secret."""

from __future__ import annotations

import contextlib
import html
import os
import stat
import sys
import tempfile
import threading
import webbrowser
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

NAME = ".label.html"
IN_A_TERMINAL = ("www-browser", "links", "elinks", "lynx", "w3m")  # they would take the terminal, and run no page
PAGE = """<!doctype html><meta charset="utf-8"><meta name="referrer" content="no-referrer">
<meta http-equiv="refresh" content="0; url={0}"><title>Labeling</title><a href="{0}">Labeling</a>
"""


def window(environment: Mapping[str, str] = os.environ) -> Callable[[str], bool] | None:
    """What shows an address in a window of its own; None where there is no such browser, as over ssh."""
    if sys.platform != "darwin" and not (environment.get("DISPLAY") or environment.get("WAYLAND_DISPLAY")):
        return None
    try:
        found = webbrowser.get()
    except webbrowser.Error:
        return None
    waits = isinstance(found, webbrowser.GenericBrowser) and not isinstance(found, webbrowser.BackgroundBrowser)
    return None if waits or os.path.basename(str(getattr(found, "name", ""))) in IN_A_TERMINAL else found.open


@contextlib.contextmanager
def leading_to(url: str, folder: Path) -> Iterator[Path | None]:
    """A file that leads to an address, and that its owner alone can read, while the block runs; None: there is none.

    It is in the folder, as browsers in a sandbox have a /tmp of their own; elsewhere where the folder keeps no modes.
    """
    with contextlib.ExitStack() as left:
        file = folder.resolve() / NAME
        if not written(file, url, left):
            file = Path(left.enter_context(tempfile.TemporaryDirectory())) / NAME
            yield file if written(file, url, left) else None
        else:
            yield file


def written(file: Path, url: str, left: contextlib.ExitStack) -> bool:
    """Whether the file was written and nobody else can read it; it goes with `left`."""
    try:
        file.unlink(missing_ok=True)  # of a page that was killed
        with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as made:
            left.callback(file.unlink, missing_ok=True)
            if stat.S_IMODE(os.fstat(made.fileno()).st_mode) & 0o077:
                return False
            made.write(PAGE.format(html.escape(url)))
    except OSError:
        return False
    return True


@contextlib.contextmanager
def opened(url: str, folder: Path) -> Iterator[None]:
    """Show an address in a window, where there is any, while the block serves it: some browsers come back only when
    they are closed."""
    show = window()
    with leading_to(url, folder) if show else contextlib.nullcontext() as file:
        if show and file:
            threading.Thread(target=show, args=(file.as_uri(),), daemon=True).start()
        yield
