"""A signal while modules load: the command ends as by one that comes later, whatever the import makes of it."""

import signal
import sys
import time

import pytest

from hf_lowlabel import cli
from hf_lowlabel.cli.signals import EndBySignals

CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}
SOURCES = {
    "goes on": "",
    "is an error of a compiled module": "try: wait()\nexcept BaseException: raise ImportError('initialization failed')",
    "is swallowed": "try: wait()\nexcept BaseException: pass",
}


@pytest.fixture
def usual():
    """Handlers as in a process of its own."""
    before = {number: signal.getsignal(number) for number in CODES}
    for number in CODES:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def told(source, number, tmp_path, monkeypatch, then=lambda: 0, times=1):
    """The exit code of a verb that imports a module in which a signal comes."""
    text = f"import signal\ndef wait():\n    for _ in range({times}): signal.raise_signal({int(number)})\n"
    (tmp_path / "slow_import.py").write_text(text + (source or "wait()"))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "slow_import", raising=False)

    def verb(argv):
        import slow_import  # noqa: F401

        return then()

    monkeypatch.setattr("hf_lowlabel.cli.info.env", verb)
    try:
        return cli.main(["env"])
    except SystemExit as end:
        return end.code


def ever():
    for _ in range(600):
        time.sleep(0.05)
    raise AssertionError("no signal came")


@pytest.mark.parametrize("number, code", CODES.items())
@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
@pytest.mark.parametrize("then", [lambda: 0, ever], ids=["short", "long"])
def test_it_acts_once_the_modules_are_there(source, number, code, then, usual, tmp_path, monkeypatch, capsys):
    assert told(source, number, tmp_path, monkeypatch, then) == code
    assert capsys.readouterr().err == ("interrupted\n" if code == 130 else "")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.mark.parametrize("number, code", CODES.items())
@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_a_second_one_acts_at_once(source, number, code, usual, tmp_path, monkeypatch, capsys):
    ran = []
    swallowed = source == SOURCES["is swallowed"]
    assert told(source, number, tmp_path, monkeypatch, lambda: ran.append(1) or 0, times=2) == code
    assert capsys.readouterr().err == ("interrupted\n" if code == 130 else "") and bool(ran) == swallowed


def test_whoever_handles_signals_by_then_is_asked(usual, tmp_path, monkeypatch):
    """As training does, which saves first."""
    asked = []

    def train():
        signal.signal(signal.SIGINT, lambda number, frame: asked.append(number))
        while not asked:
            time.sleep(0.01)
        return 5

    assert told("", signal.SIGINT, tmp_path, monkeypatch, train) == 5 and asked == [signal.SIGINT]


def test_an_error_of_its_own_is_none_of_a_signal(usual, tmp_path, monkeypatch):
    def wrong():
        raise ImportError("no such module")

    monkeypatch.setattr("hf_lowlabel.cli.info.env", lambda argv: wrong())
    with pytest.raises(ImportError):
        cli.main(["env"])
    with pytest.raises(KeyboardInterrupt), EndBySignals():  # no module loads
        signal.raise_signal(signal.SIGINT)
