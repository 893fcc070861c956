"""The encoder adapted to the images, as a rung of `auto`: when it is tried, when it is taken, what a stop leaves."""

from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from PIL import Image

from hf_lowlabel import auto, evaluate
from hf_lowlabel.errors import Diverged
from hf_lowlabel.ladder import adapted, on_features
from hf_lowlabel.ladder.adapted import Adapted
from hf_lowlabel.models import create_backbone
from hf_lowlabel.text import percent
from hf_lowlabel.training import pretrain

GIVEN = dict(num_labels=12, class_balanced=True, image_size=16, to_label=0, test_fraction=0.2)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """60 pictures of noise, a class a colour."""
    folder, random = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for i in range(60):
        pixels = random.integers(0, 120, (16, 16, 3))
        pixels[..., i % 3] += 90
        path = folder / "red green blue".split()[i % 3] / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels.astype(np.uint8)).save(path)
    return folder


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("net") / "small"
    create_backbone("test_resnet", pretrained=False, image_size=32).save_pretrained(folder)
    return folder


@pytest.fixture
def short(monkeypatch):
    """Two steps, and no networks trained on from the frozen head."""
    monkeypatch.setattr(adapted, "FEWEST", 2)
    monkeypatch.setattr(adapted, "MOST", 2)
    monkeypatch.setattr(on_features, "finetune_from", lambda *args: [])


def rows_of(best):
    return [row["name"] for row in best.run.recorder.ladder]


def test_an_adapted_encoder_that_labels_left_out_prefer_is_the_answer(network, data, tmp_path, short, monkeypatch):
    """What was begun is gone on with: the second call finds the adapted weights."""
    runs, run = [], pretrain.run

    def counted(*args, **more):
        runs.append(more.get("trial", False))
        return run(*args, **more)

    monkeypatch.setattr(adapted.pretrain, "run", counted)
    monkeypatch.setattr(Adapted, "kept", property(lambda self: True))
    with monkeypatch.context() as patch:
        patch.setattr(adapted, "climb", lambda *a, **k: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            auto(data, network, output_dir=tmp_path / "run", **GIVEN)
    assert runs == [True, False]  # the clock, and the weights
    best = auto(data, network, output_dir=tmp_path / "run", **GIVEN)
    assert runs == [True, False]
    assert best.ladder[0].encoder == "small adapted to the images" and best.run.recorder.ladder[0]["kept"]
    assert sum("adapted" in name for name in rows_of(best)) == 5 and len(rows_of(best)) == 10
    assert any("BYOL, 2 steps" in s and s.endswith("taken.") for s in best.advice.sentences)
    (said,) = (s for s in best.advice.sentences if s.startswith("Unlabeled images:"))
    assert said.endswith("compared with a linear probe on the original encoder.")
    given = next(one.accuracy for one in best.ladder if one.name == "linear probe, small")
    assert f"A linear probe on the same labels, on the original encoder: {percent(given)}" in "".join(
        best.advice.sentences
    )
    features = [len(list((tmp_path / "run" / of).glob("*.safetensors"))) for of in ("features", "trials/adapted")]
    assert features == [1, 1]  # a folder that all rounds share keeps those of the encoder as it was given alone
    a, b = (create_backbone(str(f)).state_dict() for f in (network, tmp_path / "run"))
    key = next(k for k in a if k.endswith("conv1.weight") or "conv1.0.weight" in k)
    assert not torch.equal(a[key], b[key])
    scores = evaluate(tmp_path / "run", data, split=str(tmp_path / "run" / "split.json"))
    assert scores["accuracy"] == pytest.approx(best.run.metrics["accuracy"])


def test_one_that_is_no_better_is_a_row_of_the_ladder(network, data, tmp_path, short, monkeypatch):
    monkeypatch.setattr(adapted, "clearly_more", lambda one, other: False)
    best = auto(data, network, output_dir=tmp_path / "run", **GIVEN)
    plain = auto(data, network, output_dir=tmp_path / "plain", train=False, **GIVEN)
    assert [n for n in rows_of(best) if "adapted" not in n] == rows_of(plain) and len(rows_of(best)) == 6
    assert best.run.metrics == plain.run.metrics
    said = [s for s in best.advice.sentences if s.startswith("Adapting the encoder")]
    assert len(said) == 1 and said[0].endswith("not taken.")


def test_it_takes_no_time_from_the_others(network, data, tmp_path, short, monkeypatch):
    """Too little time, too few steps in it, or a loss that diverges: the answer is that of the other rungs."""
    measured = []
    monkeypatch.setattr(adapted, "seconds_of_step", lambda *args: measured.append(args) or 1000.0)
    for minutes, glance in ((1.0, 0.0), (20.0, 1000.0), (20.0, 0.0)):  # below LEAST; at a glance; measured
        monkeypatch.setattr(adapted, "at_a_glance", lambda *args, seconds=glance: seconds)
        best = auto(data, network, output_dir=tmp_path / f"{minutes}-{glance}", minutes=minutes, **GIVEN)
        assert not any("adapted" in name for name in rows_of(best))
        assert len(measured) == (minutes == 20 and not glance)

    def diverging(*args):
        raise Diverged("the loss was NaN; look at it")

    monkeypatch.setattr(adapted, "planned", lambda *args: 5)
    monkeypatch.setattr(adapted, "pretrained", diverging)
    best = auto(data, network, output_dir=tmp_path / "c", **GIVEN)
    assert not any("adapted" in name for name in rows_of(best)) and np.isfinite(best.run.metrics["accuracy"])


def test_a_kill_while_checkpoints_are_removed_leaves_what_goes_on(tmp_path, monkeypatch):
    """Half of them are none to go on from: what is finished is noted down first."""
    (tmp_path / "encoder" / "checkpoints" / "step-00000004").mkdir(parents=True)
    config, ready, runs = Mock(), Mock(), []
    monkeypatch.setattr(adapted.pretrain, "run", lambda *_: runs.append(1))

    def killed(path, **_):
        if Path(path).name == "checkpoints":
            raise KeyboardInterrupt

    monkeypatch.setattr(adapted.shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        adapted.pretrained(ready, config, tmp_path, 4)
    adapted.pretrained(ready, config, tmp_path, 4)
    assert len(runs) == 1
