"""Faults on purpose: a call in a process of its own, whose n-th touch of the disk fails, or is its last one.

    outcome = attempt(lambda: main(["split", ...]), folder=tmp, fault=Fault(3, KILL))
    outcome.held, outcome.text, outcome.touched

Counted are the calls that open, write, rename, remove, make or flush something below `folder`, the writers of
safetensors included. Nothing outside the folder is counted or hurt, so that imports go on as ever. Or counted are the
calls of one function of the package, Fault(3, SIGTERM, "training/loop.py:train_step").
"""

from __future__ import annotations

import builtins
import errno
import io
import os
import pathlib
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

KILL = "kill"  # SIGKILL: nothing cleans up
READ, WRITE = "read", "write"
ERRORS = (errno.ENOSPC, errno.EIO, errno.EROFS, errno.EACCES, errno.EISDIR, errno.ENOTDIR, errno.EMFILE)


@dataclass(frozen=True)
class Fault:
    """The call number `at` (from 1) of those of `kind` (READ, WRITE, "file.py:function") fails with `error`, an errno,
    or kills the process (KILL).

    A signal is sent to the process, and a function is called, just before the call, which then goes on.
    """

    at: int
    error: int | str | signal.Signals | Callable[[], Any]
    kind: str = WRITE


class Outcome(NamedTuple):
    """code: exit code; None: it did not end in time; below 0: the signal that ended it. touched: calls counted."""

    code: int | None
    text: str
    touched: int
    seconds: float

    @property
    def verdict(self) -> str:
        """What is wrong with it, or ""."""
        if self.code is None:
            return "hang"
        if "Traceback (most recent call last)" in self.text:
            return "traceback"
        return f"signal {-self.code}" if self.code < 0 and self.code != -signal.SIGKILL else ""

    @property
    def held(self) -> bool:
        return not self.verdict


def attempt(
    call: Callable[[], Any], *, folder: Path | None = None, fault: Fault | None = None, seconds: float = 60
) -> Outcome:
    """`call()` in a fork of this process, for `seconds` at most; what it returns is the exit code."""
    begin = time.monotonic()
    with tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as counted:
        sys.stdout.flush(), sys.stderr.flush()
        child = os.fork()
        if child == 0:
            _child(call, folder, fault, said.fileno(), counted.fileno())
        os.setpgid(child, child)  # by both: either may come first
        code = _wait(child, begin + seconds)
        said.seek(0), counted.seek(0)
        text, number = said.read().decode("utf-8", "replace"), counted.read()
    return Outcome(code, text, int(number or 0), time.monotonic() - begin)


def _wait(child: int, until: float) -> int | None:
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > until:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return None
        time.sleep(0.005)


def _child(call: Callable[[], Any], folder: Path | None, fault: Fault | None, said: int, counted: int) -> None:
    """Never returns."""
    code = 1
    try:
        os.setpgid(0, 0)
        signal.signal(signal.SIGINT, signal.default_int_handler)  # as at a terminal; nohup and `&` ignore some
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(said, 1), os.dup2(said, 2)
        sys.stdout = sys.stderr = open(1, "w", encoding="utf-8", errors="replace", closefd=False)
        _plain_log()
        if folder is not None:
            Injector(Path(folder), fault, counted).install()
        code = call() or 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def _plain_log() -> None:
    """A handler that another test left may write to a file that is closed."""
    import logging

    for handler in list((log := logging.getLogger("hf_lowlabel")).handlers):
        log.removeHandler(handler)


class Injector:
    """Counts what is done below a folder, and does harm at one of these calls."""

    def __init__(self, folder: Path, fault: Fault | None, counted: int):
        self.folder, self.fault, self.counted, self.number = os.path.realpath(folder), fault, counted, 0
        self.busy = False

    def install(self) -> None:
        if self.fault is not None and self.fault.kind not in (READ, WRITE):
            self.file, _, self.function = self.fault.kind.rpartition(":")
            sys.setprofile(self.profile)
            threading.setprofile(self.profile)  # of threads that begin later: a page answers in its own
            return
        sys.addaudithook(self.hook)
        real = io.open

        def opened(file, mode="r", *args, **kwargs):
            handle = real(file, mode, *args, **kwargs)
            return Writing(handle, self, file) if self.inside(file) and set(mode) & set("wax+") else handle

        builtins.open = io.open = opened
        if sys.version_info < (3, 11):  # whose paths keep a name of their own for it
            pathlib._NormalAccessor.open = staticmethod(opened)  # type: ignore[attr-defined]
        fsync = os.fsync
        os.fsync = lambda fd: (self.touch(WRITE, None), fsync(fd))[1]
        import safetensors.numpy
        import safetensors.torch

        for module in (safetensors.torch, safetensors.numpy):
            module.serialize_file = self.native(module.serialize_file)

    def profile(self, frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if event == "call" and code.co_name == self.function and code.co_filename.endswith(self.file):
            assert self.fault is not None
            self.touch(self.fault.kind, None)

    def hook(self, event: str, args: tuple) -> None:
        if event == "open" and isinstance(args[0], (str, bytes, os.PathLike)) and self.inside(args[0]):
            mode, flags = args[1], args[2]
            writes = set(mode) & set("wax+") if isinstance(mode, str) else flags & (os.O_WRONLY | os.O_RDWR)
            self.touch(WRITE if writes else READ, args[0])
        elif event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "os.symlink"):
            if any(self.inside(path) for path in args[:2] if isinstance(path, (str, bytes, os.PathLike))):
                self.touch(WRITE, args[0])

    def inside(self, path: Any) -> bool:
        if not isinstance(path, (str, bytes, os.PathLike)):
            return False
        return os.path.abspath(os.fsdecode(path)).startswith(self.folder + os.sep)

    def touch(self, kind: str, path: Any, halfway: Callable[[], Any] | None = None) -> None:
        """Count one call; where it is the one to hurt, `halfway` happens first, and then the fault."""
        if self.busy or kind != (self.fault.kind if self.fault else WRITE):
            return
        self.number += 1
        os.pwrite(self.counted, str(self.number).encode(), 0)
        if self.fault is None or self.number != self.fault.at:
            return
        self.busy = True
        if isinstance(self.fault.error, signal.Signals):
            os.kill(os.getpid(), self.fault.error)
            return
        if callable(self.fault.error):
            self.fault.error()
            return
        if halfway is not None:
            halfway()
        if self.fault.error == KILL:
            os.kill(os.getpid(), signal.SIGKILL)
        raise OSError(self.fault.error, os.strerror(self.fault.error), None if path is None else os.fsdecode(path))

    def native(self, real: Callable) -> Callable:
        """A writer that Python does not see: half of its file is there when it fails."""
        from safetensors import SafetensorError

        def call(tensors, filename, *args, **kwargs):
            def half() -> None:
                real(tensors, filename, *args, **kwargs)
                os.truncate(filename, os.path.getsize(filename) // 2)

            try:
                if self.inside(filename):
                    self.touch(WRITE, filename, half)
            except OSError as error:
                raise SafetensorError(f"I/O error: {error.strerror} (os error {error.errno})") from None
            return real(tensors, filename, *args, **kwargs)

        return call


class Writing:
    """An open file whose writes are counted; the one that fails has written its first half."""

    def __init__(self, handle: Any, injector: Injector, path: Any):
        self._handle, self._injector, self._path = handle, injector, path

    def write(self, content: Any) -> int:
        def half() -> None:
            self._handle.write(content[: len(content) // 2])
            self._handle.flush()

        self._injector.touch(WRITE, self._path, half)
        return self._handle.write(content)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._handle, name)

    def __enter__(self) -> Writing:
        self._handle.__enter__()
        return self

    def __exit__(self, *error: Any) -> Any:
        return self._handle.__exit__(*error)

    def __iter__(self) -> Any:
        return iter(self._handle)
