"""Pictures to label, and the page with its secret: its address, and what it waits for in a browser."""

import os
import signal
import sys
import time
from contextlib import suppress

from hf_lowlabel import cli

from ..processes import begun
from ..selection.conftest import backbone, paint, photos  # noqa: F401

# not the network's idleness, which takes half a second to be sure of
AT_REST = """() => state && (typeof mask === "undefined" ? pictured && !busy
    : failed || !locked && !unsaved && $("open").textContent !== "")"""


def at_page(url: str, path: str) -> str:
    """The address of a path of the page at `url`, with its secret."""
    page, _, secret = url.partition("?")
    return f"{page}{path}{'&' if '?' in path else '?'}{secret}"


def opened(tab, url: str) -> None:
    """Either page in a tab of a browser, when it shows its first image and what is known of it."""
    tab.goto(url)
    tab.wait_for_function(AT_REST)


class Served:
    """`hf-lowlabel label` as a process of its own, forked: its address from what it prints."""

    def __init__(self, folder, *more: str):
        self.out = folder.parent / f"said-{time.monotonic_ns()}"
        self.process = begun(_served, self.out, ["label", str(folder), "--no-browser", *more], stderr=self.out)
        while "open " not in self.said() or not self.said().endswith("\n"):
            assert self.process.is_alive(), self.said()
            time.sleep(0.01)
        self.url = self.said().split("open ")[1].split()[0]

    def said(self) -> str:
        return self.out.read_text() if self.out.exists() else ""

    def kill(self) -> None:
        self.process.kill()
        self.process.join()

    def end(self) -> int | None:
        """By Ctrl-C; the exit code."""
        with suppress(ProcessLookupError):
            os.kill(self.process.pid, signal.SIGINT)
        self.process.join(20)
        return self.process.exitcode


def _served(out, argv: list[str]) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background inherits deafness
    sys.stdout = open(out, "a", buffering=1)
    sys.exit(cli.main(argv))
