"""Whole or not there: damage is found, the one before is taken, a failed write costs nothing."""

import contextlib
import errno
import json
import random
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from torch import nn

from hf_lowlabel import api
from hf_lowlabel.arguments import TrainingArguments
from hf_lowlabel.errors import UserError
from hf_lowlabel.models import LowLabelForImageClassification, create_classifier, travelling
from hf_lowlabel.models.travelling import NETWORKS
from hf_lowlabel.objective import Objective
from hf_lowlabel.training import checkpoint, recording
from hf_lowlabel.training.checkpoint import checkpoints, damage, load_newest, newest_state, save_checkpoint, set_aside
from hf_lowlabel.training.optim import build_optimizer


def make(folder, steps=(1, 2, 3), keep=3):
    net = nn.Linear(3, 3)
    optimizer = torch.optim.Adam(net.parameters())
    net(torch.randn(2, 3)).sum().backward()
    optimizer.step()
    optimizer.state[net.bias]["count"] = 7  # some optimizers keep plain numbers
    for step in steps:
        save_checkpoint(folder, step, net.state_dict(), optimizer, {"note": step}, keep)
    return net, optimizer


def test_a_checkpoint_written_again_pushes_no_older_one_out(tmp_path):
    """As when a callback decides in its save that the run ends: the older one is there if the newest is damaged."""
    make(tmp_path, steps=(1, 2, 2), keep=2)
    assert [path.name for path in checkpoints(tmp_path)] == ["step-00000002", "step-00000001"]


@pytest.mark.parametrize("keep", [1, 2])
def test_what_a_resumed_run_passed_over_pushes_nothing_out(keep, tmp_path):
    """A damaged checkpoint of a later step is not counted, and goes once there is a new one; that one never does."""
    net, optimizer = make(tmp_path, steps=(100, 200), keep=2)
    newest, older = checkpoints(tmp_path)
    (newest / "state.json").write_text("{}")
    with pytest.warns(UserWarning, match="step-00000200 is damaged"):
        assert load_newest(tmp_path)[0] == older
    set_aside(older)
    assert checkpoints(tmp_path) == [older] and (tmp_path / "step-00000200.damaged/state.json").exists()
    save_checkpoint(tmp_path, 150, net.state_dict(), optimizer, {}, keep)
    kept = ["step-00000150", "step-00000100"][:keep]
    assert [p.name for p in checkpoints(tmp_path)] == kept and len([*tmp_path.iterdir()]) == keep
    save_checkpoint(tmp_path, 120, net.state_dict(), optimizer, {}, 1)  # whatever is beside it
    assert [p.name for p in checkpoints(tmp_path)] == ["step-00000120"]


def test_newest_are_kept_and_read_back(tmp_path):
    net, optimizer = make(tmp_path, keep=2)
    assert [p.name for p in checkpoints(tmp_path)] == ["step-00000003", "step-00000002"]
    path, objective, state, rest = load_newest(tmp_path)
    assert rest["step"] == 3 and rest["note"] == 3
    assert all(torch.equal(objective[k], v) for k, v in net.state_dict().items())
    fresh = torch.optim.Adam(net.parameters())
    checkpoint.restore_optimizer(fresh, state, rest["optimizer"])
    for a, b in zip(optimizer.state.values(), fresh.state.values(), strict=True):
        assert a.keys() == b.keys() and all(torch.equal(torch.as_tensor(a[k]), torch.as_tensor(b[k])) for k in a)


@pytest.mark.parametrize("name", ["sgd", "adamw", "lars"])
def test_a_restored_optimizer_takes_the_same_step(name, tmp_path):
    """Of weights in channels_last, whose state is stored row by row."""

    def networks():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).to(memory_format=torch.channels_last)
        args = TrainingArguments(optimizer=name, weight_decay=0.1, head_lr=1.0)
        return net, build_optimizer(Whole(net), args, 0.1)

    class Whole(Objective):
        def __init__(self, net):
            super().__init__()
            self.net = net

    def step(net, optimizer, seed):
        x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(seed)).to(memory_format=torch.channels_last)
        net(x).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    net, optimizer = networks()
    step(net, optimizer, 1)
    save_checkpoint(tmp_path, 1, net.state_dict(), optimizer, {}, 1)
    step(net, optimizer, 2)
    other, fresh = networks()
    _, weights, state, rest = load_newest(tmp_path)
    other.load_state_dict(weights)
    checkpoint.restore_optimizer(fresh, state, rest["optimizer"])
    step(other, fresh, 2)
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("view", [lambda w: w, lambda w: w[1:], lambda w: w.t()])
def test_weights_that_share_memory_are_saved(view, tmp_path):
    """Of networks that use a layer twice, and of a method that keeps a reference to a part of its network."""
    net = nn.Linear(3, 3)
    net.register_buffer("again", view(net.weight.data))
    expected = {k: v.clone() for k, v in net.state_dict().items()}
    save_checkpoint(tmp_path, 1, net.state_dict(), torch.optim.Adam(net.parameters()), {}, 1)
    found = load_newest(tmp_path)[1]
    assert found.keys() == expected.keys() and all(torch.equal(found[k], expected[k]) for k in expected)


def test_every_flipped_bit_is_found(tmp_path):
    make(tmp_path, steps=(1, 2))
    newest = checkpoints(tmp_path)[0]
    rng = random.Random(0)
    for file in ("objective.safetensors", "optimizer.safetensors", "state.json"):
        whole = (newest / file).read_bytes()
        for _ in range(20):
            bad = bytearray(whole)
            bad[rng.randrange(len(bad))] ^= 1 << rng.randrange(8)
            (newest / file).write_bytes(bad)
            assert file in damage(newest)
        (newest / file).write_bytes(whole)
    assert damage(newest) is None


@pytest.mark.parametrize("hurt", ["truncate", "remove", "manifest"])
def test_a_damaged_checkpoint_falls_back(hurt, tmp_path):
    net, optimizer = make(tmp_path, steps=(1, 2))
    newest = checkpoints(tmp_path)[0]
    if hurt == "truncate":
        file = newest / "objective.safetensors"
        file.write_bytes(file.read_bytes()[:-10])
    elif hurt == "remove":
        (newest / "state.json").unlink()
    else:
        (newest / "manifest.json").write_text("{")
    with pytest.warns(UserWarning, match="step-00000002 is damaged"):
        assert load_newest(tmp_path)[3]["step"] == 1
    save_checkpoint(
        tmp_path, 2, net.state_dict(), optimizer, {}, keep=2
    )  # trained again up to there: in the damaged one's place
    assert load_newest(tmp_path)[3]["step"] == 2 and damage(newest) is None


def test_all_damaged_is_an_error(tmp_path):
    make(tmp_path, steps=(1,))
    (checkpoints(tmp_path)[0] / "state.json").write_text("{}")
    with pytest.warns(UserWarning), pytest.raises(UserError, match="All 1 checkpoints .* are damaged"):
        load_newest(tmp_path)


def test_a_crash_at_any_point_of_writing_leaves_a_whole_checkpoint(tmp_path, monkeypatch):
    """Die at the n-th file operation, for every n until one save succeeds: the old checkpoint is always loadable."""
    operations, left = ("save_file", "write_json", "_sha256", "_fsync"), []
    for n in range(40):
        folder = tmp_path / str(n)
        net, optimizer = make(folder, steps=(1,))
        count = 0

        def dying(real):
            def call(*args, **kwargs):
                nonlocal count
                count += 1
                if count == n + 1:
                    raise MemoryError("killed here")  # not an OSError: nothing cleans up, as after SIGKILL
                return real(*args, **kwargs)

            return call

        with monkeypatch.context() as m:
            for name in operations:
                m.setattr(checkpoint, name, dying(getattr(checkpoint, name)))
            try:
                save_checkpoint(folder, 2, net.state_dict(), optimizer, {}, keep=1)
                survived = True
            except MemoryError:
                survived = False
        assert load_newest(folder)[3]["step"] in ((2,) if survived else (1, 2))
        left.append([p.name for p in folder.iterdir() if p.name.startswith(".")])
        save_checkpoint(folder, 3, net.state_dict(), optimizer, {}, keep=1)
        assert [p.name for p in folder.iterdir()] == ["step-00000003"]  # nothing of the killed one stays
        if survived:
            break
    assert survived and n > 8 and sum(map(bool, left)) > 8  # it was killed at many points before


def test_a_crash_while_a_checkpoint_is_written_again_leaves_one_of_them(tmp_path, monkeypatch):
    """As a callback that ends a run while it is saved has it: of one step, and it may be the only one."""
    for n in range(9):
        folder, count = tmp_path / str(n), 0
        net, optimizer = make(folder, steps=(1,))

        def dying(real):
            def call(*args, **kwargs):
                nonlocal count
                count += 1
                if count > n:
                    raise MemoryError("killed here")
                return real(*args, **kwargs)

            return call

        with monkeypatch.context() as m, contextlib.suppress(MemoryError):
            m.setattr(checkpoint.shutil, "rmtree", dying(checkpoint.shutil.rmtree))
            m.setattr(checkpoint.os, "replace", dying(checkpoint.os.replace))
            save_checkpoint(folder, 1, net.state_dict(), optimizer, {"note": "again"}, keep=1)
            break
        assert load_newest(folder)[3]["note"] in (1, "again")
        assert newest_state(folder)[1]["note"] == load_newest(folder)[3]["note"]
        for note in ("once more", "and again"):
            save_checkpoint(folder, 1, net.state_dict(), optimizer, {"note": note}, keep=1)
            assert load_newest(folder)[3]["note"] == note
        assert [p.name for p in folder.iterdir()] == ["step-00000001"]
    assert n > 4


def test_everything_is_on_the_disk_before_the_name(tmp_path, monkeypatch):
    """A power cut must not leave a checkpoint's name without its contents, nor the old one's removal without the new
    one."""
    done = []
    fsync, replace, rmtree = checkpoint._fsync, checkpoint.os.replace, checkpoint.shutil.rmtree
    make(tmp_path, steps=(1,), keep=1)
    monkeypatch.setattr(checkpoint, "_fsync", lambda p: (done.append(("fsync", p.name)), fsync(p)))
    monkeypatch.setattr(checkpoint.os, "replace", lambda a, b: (done.append(("replace", b.name)), replace(a, b)))
    monkeypatch.setattr(checkpoint.shutil, "rmtree", lambda p, **k: (done.append(("rmtree", p.name)), rmtree(p, **k)))
    make(tmp_path, steps=(2,), keep=1)
    named, gone = done.index(("replace", "step-00000002")), done.index(("rmtree", "step-00000001"))
    before = {name for what, name in done[:named] if what == "fsync"}
    assert before >= {"objective.safetensors", "optimizer.safetensors", "state.json", "manifest.json"}
    assert any(name.startswith(".step-00000002") for name in before)  # the folder that lists them
    assert done[named + 1] == ("fsync", tmp_path.name) and gone > named + 1


def test_a_reader_never_sees_half_a_json_file(tmp_path, monkeypatch):
    checkpoint.write_json(tmp_path / "metrics.json", {"accuracy": 0.5})
    seen, replace = [], checkpoint.os.replace
    monkeypatch.setattr(
        checkpoint.os, "replace", lambda a, b: (seen.append((a.read_text(), b.read_text())), replace(a, b))
    )
    checkpoint.write_json(tmp_path / "metrics.json", {"accuracy": 0.6})
    assert [tuple(map(json.loads, pair)) for pair in seen] == [({"accuracy": 0.6}, {"accuracy": 0.5})]
    assert json.loads((tmp_path / "metrics.json").read_text()) == {"accuracy": 0.6}


def test_a_saved_model_is_there_when_its_config_is(tmp_path, monkeypatch):
    """A folder with a config.json is taken for a model: all else is in place before."""
    moved, replace = [], recording.os.replace
    monkeypatch.setattr(recording.os, "replace", lambda a, b: (moved.append(b.name), replace(a, b)))
    model = create_classifier("cnn6_16", 2, pretrained=False)
    recording.save_model(model, tmp_path, type(model).save_pretrained)
    named = {"config.json", "model.safetensors", "preprocessor_config.json", "standalone.py", *NETWORKS}
    assert set(moved) == named and moved[-1] == "config.json"
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(moved)


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), SafetensorError("No space left on device")]
)
def test_full_disk_keeps_the_old_checkpoint(error, tiny, few_images, tmp_path, monkeypatch):
    real, calls = checkpoint.save_file, []

    def full(*args, **kwargs):
        calls.append(1)
        if len(calls) > 2:  # two files a checkpoint: the second checkpoint fails
            raise error
        return real(*args, **kwargs)

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(
        UserError,
        match=r"step 4 could not be written: No space left on device\. The last whole checkpoint is step-00000002",
    ):
        api.finetune(**tiny["finetune"], output_dir=str(tmp_path))
    monkeypatch.undo()
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["step-00000002"]
    assert api.finetune(**tiny["finetune"], output_dir=str(tmp_path), resume=True).progress.step == 6


def test_full_disk_at_the_model_keeps_the_checkpoints(tiny, few_images, tmp_path, monkeypatch):
    def full(*_):
        raise SafetensorError("No space left on device")

    monkeypatch.setattr(LowLabelForImageClassification, "save_pretrained", full)
    with pytest.raises(UserError, match="model could not be written to .*: No space left on device.*--resume"):
        api.finetune(**tiny["finetune"], output_dir=str(tmp_path))
    monkeypatch.undo()
    assert api.finetune(**tiny["finetune"], output_dir=str(tmp_path), resume=True).progress.step == 6


def test_no_pickle_anywhere(tiny, few_images, tmp_path):
    api.finetune(**tiny["finetune"], output_dir=str(tmp_path))
    kinds = {p.suffix for p in tmp_path.rglob("*") if p.is_file()}
    assert kinds <= {".safetensors", ".json", ".jsonl", ".yaml", ".md", ".png", ".py"}
    code = Path(travelling.__file__).parent  # of a network that timm lacks: this package's own, unchanged
    assert all(p.read_bytes() == (code / p.name).read_bytes() for p in tmp_path.rglob("*.py"))
    json.loads((tmp_path / "run.json").read_text())
