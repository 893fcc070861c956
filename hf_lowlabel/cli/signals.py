"""How a command ends by a signal: Ctrl-C as a KeyboardInterrupt, SIGTERM and SIGHUP with exit code 128 + number.

An exception in the middle of an import breaks the module: compiled ones raise their own ImportError instead, and
optional imports are silently skipped. So a signal during imports takes effect after them; a second one of its kind
at once.
"""

from __future__ import annotations

import _thread
import contextlib
import signal
import threading
from types import FrameType

IMPORTS = "<frozen importlib._bootstrap>"  # the file of what runs an import, in the frames above a module's own
AGAIN = 0.05  # seconds until a signal that waits is looked at again


class EndBySignals(contextlib.AbstractContextManager):
    """`with EndBySignals():` leaves nothing half behind, since the signals become exceptions.

    Signals that did something else before stay what they are (nohup), and so do all in a thread, which has none.
    """

    def __init__(self):
        self.before: dict[int, object] = {}
        self.waiting, self.looks, self.cut = 0, False, 0
        self.timer: threading.Timer | None = None

    def __enter__(self) -> EndBySignals:
        if threading.current_thread() is threading.main_thread():
            usual = {
                signal.SIGINT: signal.default_int_handler,
                signal.SIGTERM: signal.SIG_DFL,
                signal.SIGHUP: signal.SIG_DFL,
            }
            mine = [number for number, handler in usual.items() if signal.getsignal(number) == handler]
            self.before = {number: signal.signal(number, self.end) for number in mine}
        return self

    def __exit__(self, kind, error, trace) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
        if self.timer is not None:
            self.timer.cancel()
        if (self.cut or self.waiting) and (error is None or isinstance(error, Exception)):
            raise ending(self.cut or self.waiting) from None

    def end(self, number: int, frame: FrameType | None) -> None:
        """The handler: an exception, now or once the modules are there."""
        again, self.looks = self.looks, False
        if importing(frame):
            if again or self.waiting != number:
                self.waiting = number
                self.timer = threading.Timer(AGAIN, self._look, [number])
                self.timer.daemon = True
                self.timer.start()
                return
            self.cut = number
        self.waiting = 0
        raise ending(number)

    def _look(self, number: int) -> None:
        """The same signal again, from the timer, for whoever handles it by then: training stops after its step."""
        if self.waiting == number:
            self.looks = signal.getsignal(number) == self.end
            self.waiting = number if self.looks else 0
            _thread.interrupt_main(number)


def ending(number: int) -> BaseException:
    return KeyboardInterrupt() if number == signal.SIGINT else SystemExit(128 + number)


def importing(frame: FrameType | None) -> bool:
    """Whether a module is being imported in a frame or in one that called it."""
    while frame is not None and frame.f_code.co_filename != IMPORTS:
        frame = frame.f_back
    return frame is not None
