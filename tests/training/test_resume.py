"""A run that is killed and resumed ends bit-identical to one that was never stopped, for every method."""

import hashlib
import json
import os
import random
import shutil
import signal

import pytest
import torch

from hf_lowlabel import api, cli
from hf_lowlabel.errors import UserError
from hf_lowlabel.training.callbacks import Callback
from hf_lowlabel.training.loop import Loop
from hf_lowlabel.training.stopping import Interrupted

from ..processes import begun
from .conftest import RUNS, tensors


class Killed(Exception):
    pass


def digest(value) -> str:
    """A hash of every tensor in a batch, keys and order included."""
    if torch.is_tensor(value):
        return hashlib.sha256(value.contiguous().numpy().tobytes()).hexdigest()
    items = value.items() if isinstance(value, dict) else enumerate(value)
    return hashlib.sha256("".join(f"{k}{digest(v)}" for k, v in items).encode()).hexdigest()


def flags(settings: dict) -> list[str]:
    """Settings as the command line takes them."""
    out = []
    for key, value in settings.items():
        flag = key.replace("_", "-")
        out.append(f"--{flag}" if value is True else f"--no-{flag}" if value is False else f"--{flag}={value}")
    return out


def watch(monkeypatch, seen: dict, kill_at: int | None = None):
    """Note the hash of every batch; die in the middle of step `kill_at`."""
    step = Loop.train_step

    def train_step(self, batch):
        if self.step == kill_at:
            raise Killed
        seen[self.step] = digest(batch)
        return step(self, batch)

    monkeypatch.setattr(Loop, "train_step", train_step)


@pytest.mark.parametrize("verb, task, method", RUNS)
def test_resumed_run_is_bit_identical(verb, task, method, start, tmp_path, monkeypatch):
    """Whatever a kill in step 3 or 5 leaves behind (the checkpoint before it) leads to the same end as no kill."""
    straight, resumed = {}, {}
    kept = random.Random(method).choice([2, 4])
    given = dict(max_steps=kept + 2, save_total_limit=9)
    with monkeypatch.context() as m:
        watch(m, straight)
        start(verb, task, method, tmp_path / "straight", **given)
    shutil.copytree(tmp_path / "straight", tmp_path / "killed")
    for path in (tmp_path / "killed" / "checkpoints").iterdir():
        if path.name > f"step-{kept:08d}":
            shutil.rmtree(path)
    with monkeypatch.context() as m:
        watch(m, resumed)
        start(verb, task, method, tmp_path / "killed", **given, resume=True)
    assert resumed == {step: straight[step] for step in (kept, kept + 1)}
    expected, found = tensors(tmp_path / "straight", kept + 2), tensors(tmp_path / "killed", kept + 2)
    assert expected.keys() == found.keys()
    assert any(k.startswith("optimizer/") for k in expected)
    different = [k for k in expected if not torch.equal(expected[k], found[k])]
    assert not different, different[:5]
    a, b = (json.loads((tmp_path / k / "metrics.json").read_text()) for k in ("straight", "killed"))
    assert a == b


def killed_in_step_15(command):
    """A run that SIGKILL ends between two checkpoints."""
    step = Loop.train_step

    def train_step(self, batch):
        if self.step == 15:
            os.kill(os.getpid(), signal.SIGKILL)
        return step(self, batch)

    Loop.train_step = train_step
    cli.main(command)


def test_killed_process_resumes(tiny, tmp_path, caplog, capsys):
    """SIGKILL in the middle of a real process, then --resume from the command line."""
    settings = dict(tiny["finetune"], max_steps=20, save_steps=10)
    command = ["finetune", *flags(settings), "--output-dir", str(tmp_path / "run")]
    process = begun(killed_in_step_15, command, stderr=tmp_path / "stderr")
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert cli.main([*command, "--resume"]) == 0
    assert "resumed from step-00000010" in caplog.text + capsys.readouterr().err
    straight = api.finetune(**settings | dict(save_steps=20), output_dir=str(tmp_path / "straight"))
    assert straight.progress.step == 20
    expected, found = tensors(tmp_path / "straight", 20), tensors(tmp_path / "run", 20)
    assert all(torch.equal(expected[k], found[k]) for k in expected)


@pytest.mark.parametrize(
    "number, raised, code",
    [(signal.SIGTERM, Interrupted, 143), (signal.SIGHUP, Interrupted, 129), (signal.SIGINT, KeyboardInterrupt, None)],
)
def test_a_signal_saves_first(number, raised, code, tiny, few_images, tmp_path, monkeypatch):
    """Ctrl-C stays a KeyboardInterrupt, which a notebook expects; the other two become an exit code."""
    step = Loop.train_step

    def train_step(self, batch):
        if self.step == 2:
            os.kill(os.getpid(), number)
        return step(self, batch)

    started = signal.getsignal(number)  # under nohup, SIGHUP is ignored, and stays so
    before = signal.SIG_DFL if number == signal.SIGHUP else started
    signal.signal(number, before)
    try:
        with monkeypatch.context() as m, pytest.raises(raised) as stop:
            m.setattr(Loop, "train_step", train_step)
            api.finetune(**tiny["finetune"], output_dir=tmp_path)
        assert getattr(stop.value, "code", None) == code and signal.getsignal(number) is before
    finally:
        signal.signal(number, started)
    assert (tmp_path / "checkpoints" / "step-00000003").is_dir()
    assert api.finetune(**tiny["finetune"], output_dir=tmp_path, resume=True).progress.step == 6


def test_ctrl_c_on_the_command_line_is_an_exit_code(tiny, few_images, tmp_path, monkeypatch, caplog):
    step = Loop.train_step
    monkeypatch.setattr(
        Loop, "train_step", lambda self, batch: os.kill(os.getpid(), signal.SIGINT) or step(self, batch)
    )
    assert cli.main(["finetune", *flags(tiny["finetune"]), "--output-dir", str(tmp_path)]) == 130
    assert "resume with --resume" in caplog.text
    assert (tmp_path / "checkpoints" / "step-00000001").is_dir()


def test_weights_that_go_on_have_no_metrics_of_those_before(tiny, few_images, tmp_path, monkeypatch):
    """A finished run, made longer and ended: what was measured is of weights that are not there any more."""
    api.finetune(**tiny["finetune"], output_dir=tmp_path)
    assert json.loads((tmp_path / "metrics.json").read_text())["accuracy"] >= 0

    class Ends(Callback):
        def on_step_end(self, state, scalars):
            if state.step == 9:
                raise KeyboardInterrupt

    longer = dict(tiny["finetune"], max_steps=12, save_steps=2, callbacks=[Ends()])
    with pytest.raises(KeyboardInterrupt):
        api.finetune(**longer, output_dir=tmp_path, resume=True)
    assert json.loads((tmp_path / "run.json").read_text())["steps"] > 6
    assert not (tmp_path / "metrics.json").exists() and not (tmp_path / "confusion.png").exists()


def test_resume_with_other_settings_is_refused(tiny, few_images, tmp_path):
    api.finetune(**tiny["finetune"], output_dir=str(tmp_path))
    with pytest.raises(UserError, match="learning_rate was 0.03, now 0.5"):
        api.finetune(**tiny["finetune"], learning_rate=0.5, output_dir=str(tmp_path), resume=True)
    with pytest.raises(UserError, match="num_labels was 20, now 30"):
        api.finetune(**dict(tiny["finetune"], num_labels=30), output_dir=str(tmp_path), resume=True)


def test_resume_on_other_data_is_refused(tiny, tmp_path, monkeypatch):
    api.finetune(**tiny["finetune"], output_dir=str(tmp_path))
    from hf_lowlabel.data.sources import digits

    def fewer(split="train"):
        source = original(split)
        source.fingerprint = "0" * 64
        return source

    original = digits.digits
    monkeypatch.setattr(digits, "digits", fewer)
    with pytest.raises(UserError, match="cannot be resumed with other data: images, or labels"):
        api.finetune(**tiny["finetune"], output_dir=str(tmp_path), resume=True)


def test_log_of_a_resumed_run_has_every_step_once(tiny, few_images, tmp_path, monkeypatch):
    with monkeypatch.context() as m:
        watch(m, {}, kill_at=5)
        with pytest.raises(Killed):
            api.finetune(**dict(tiny["finetune"], logging_steps=1), output_dir=str(tmp_path))
    with open(tmp_path / "log.jsonl", "a") as f:
        f.write('{"step": 5, "loss"')  # a line cut short by the kill
    api.finetune(**dict(tiny["finetune"], logging_steps=1), output_dir=str(tmp_path), resume=True)
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "loss" in row] == [1, 2, 3, 4, 5, 6]
