"""Signals, second writers and lost processes, a few of each (all of them: pytest -m slow tests/faults)."""

import os
import signal

import pytest
import torch
import torch.distributed as dist

from hf_lowlabel.cli import info, main

from .injector import Fault, attempt
from .moments import interrupted, moments, signals, whole_runs, writers
from .sandbox import NOT_SWEPT, VERBS, build
from .test_faults import held


@pytest.fixture(scope="module")
def box(tmp_path_factory):
    box = tmp_path_factory.mktemp("moments")
    build(box, ["run"])
    return box


def test_a_signal_at_a_write_leaves_what_the_same_command_finishes(box):
    held(signals(box, ["split", "predict"], most=2))


def test_a_signal_in_the_middle_ends_with_its_code(box):
    """In the save of a run, and in a verb that has no handlers of its own."""
    [(verb, _, answer)] = whole_runs(box, ["finetune"])
    assert not interrupted(box, verb, Fault(2, signal.SIGTERM, "training/recording.py:save_model"), answer)
    held(moments(box, ["split"], most=1))


def test_every_verb_is_in_the_sweeps_or_says_why_not():
    from hf_lowlabel import cli

    swept = {command.split()[0] for command, _ in VERBS.values()}
    assert swept | NOT_SWEPT.keys() == cli.VERBS.keys() and not swept & NOT_SWEPT.keys()
    assert all(NOT_SWEPT.values())


def test_what_nohup_ignores_stays_ignored(box):
    """A run that was started to outlive its terminal is not stopped by the end of it, nor by a verb's own handlers."""

    def call():
        from hf_lowlabel.training.stopping import StopSignals

        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        with StopSignals() as asked:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not asked.received
        return main(["env"]) or 10 * (signal.getsignal(signal.SIGHUP) != signal.SIG_IGN)

    assert attempt(call, fault=None).code == 0


def test_a_second_process_that_does_the_same_ends_in_a_sentence(box):
    held(writers(box, ["split", "finetune"], most=2))


def test_a_signal_is_sent_once_and_the_call_goes_on(tmp_path):
    """The sibling of a kill: what it meets is written all the same, unless the process ends by it."""

    def call():
        signal.signal(signal.SIGHUP, lambda *_: print("heard"))
        (tmp_path / "a.txt").write_text("0123456789")
        return 0

    done = attempt(call, folder=tmp_path, fault=Fault(1, signal.SIGHUP))
    assert done.code == 0 and done.text.count("heard") == 1 and (tmp_path / "a.txt").read_text() == "0123456789"


def test_the_process_that_is_left_says_so(tmp_path, monkeypatch):
    """One of two is killed: the other ends by itself, in a sentence."""

    def call():
        other = os.fork() == 0
        dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=int(other), world_size=2)

        def work(argv):
            for step in range(1000):
                dist.all_reduce(torch.ones(1))
                if other and step == 3:
                    os.kill(os.getpid(), signal.SIGKILL)

        monkeypatch.setattr(info, "env", work)
        return main(["env"])

    done = attempt(call, seconds=60)
    assert done.code == 1 and not done.verdict, done
    assert done.text.count("error:") == 1 and "another process of this launch has ended" in done.text


def test_other_errors_stay_what_they_are(monkeypatch):
    def wrong(argv):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(info, "env", wrong)
    with pytest.raises(RuntimeError, match="mat1"):
        main(["env"])


def test_two_selections_never_write_to_one_folder(tmp_path):
    """The second one is refused while the first writes; what the first was killed at is written again."""
    from hf_lowlabel.errors import UserError
    from hf_lowlabel.labeling.to_label import BEGUN, alone

    folder = tmp_path / "to_label"
    with alone(folder), pytest.raises(UserError, match="Another process is writing"), alone(folder):
        pass
    assert not (folder / BEGUN).exists()

    def killed():
        with alone(folder):
            os.kill(os.getpid(), signal.SIGKILL)

    assert attempt(killed).code == -signal.SIGKILL and (folder / BEGUN).is_file()
    with alone(folder):
        (folder / "labels.csv").touch()
    assert [p.name for p in folder.iterdir()] == ["labels.csv"]
