"""Verbs as every process of a launch calls them; each leaves what it printed and its exit code."""

import contextlib
import io
import json
import os
import time
from pathlib import Path
from types import SimpleNamespace

from hf_lowlabel import cli
from hf_lowlabel.cli import first_process
from hf_lowlabel.hub import push
from hf_lowlabel.ladder import search_state


def run(folder: Path, argv: list[str]) -> None:
    first_process.LINGER = 0.1  # no launcher looks on
    with contextlib.redirect_stdout(io.StringIO()) as out:
        try:
            code = cli.main(argv)
        except SystemExit as end:
            code = end.code
    left = {"code": code, "said": out.getvalue(), "rank": os.environ["RANK"], "of": os.environ["WORLD_SIZE"]}
    (folder / f"rank-{os.environ['RANK']}.json").write_text(json.dumps(left))


def counted(folder: Path, argv: list[str]) -> None:
    """`push` to nowhere: each upload is a file."""

    def upload(*_, **__):
        (folder / f"upload-{os.getpid()}").touch()
        return SimpleNamespace(url="https://hub", pull_request=None)

    push.push = upload
    run(folder, argv)


def late(folder: Path, argv: list[str]) -> None:
    """`auto` whose first process takes its time to note down what the others read."""
    write = search_state.write_json

    def later(*args):
        time.sleep(1)
        write(*args)

    if os.environ["RANK"] == "0":
        search_state.write_json = later
    run(folder, argv)


def ended(folder: Path, how: str) -> None:
    """A verb that ends in another way than its own."""

    def push_ends(*_, **__):
        if how == "gone":
            os._exit(0)
        raise KeyboardInterrupt if how == "Ctrl-C" else SystemExit(143) if how == "SIGTERM" else OSError(28, "full")

    push.push = push_ends
    run(folder, ["push", "run", "org/name"])
