"""`auto` with several encoders and masks: the one whose frozen maps tell the pixels apart best is trained."""

import json

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from hf_lowlabel import auto, evaluate
from hf_lowlabel.errors import UserError
from hf_lowlabel.ladder import encoder_choice, image_side, on_training, trained
from hf_lowlabel.models import create_backbone

from ..processes import ranks
from .test_trained import MASKS, discs, shorten  # noqa: F401  (a fixture)

ASKED = {**MASKS, "to_label": 0}


@pytest.fixture(scope="module")
def encoders(tmp_path_factory):
    """One that tells nothing apart, one that does; their names are the same but for a sign that no folder of a trial
    has."""
    base = tmp_path_factory.mktemp("encoders")
    for name, factor in (("net-1", 0.0), ("net_1", 1.0)):
        torch.manual_seed(0)
        net = create_backbone("test_resnet", pretrained=False, image_size=32)
        with torch.no_grad():
            for p in net.parameters():
                p.mul_(factor)
        net.save_pretrained(base / name)
    return [base / "net-1", base / "net_1"]


@pytest.fixture
def short(monkeypatch):
    shorten(monkeypatch)


@pytest.fixture(scope="module")
def found(tmp_path_factory, encoders, discs):  # noqa: F811
    folder = tmp_path_factory.mktemp("found") / "run"
    with pytest.MonkeyPatch.context() as patch:
        shorten(patch)
        return auto(discs, encoders, output_dir=folder, **ASKED)


def test_the_best_encoder_is_trained_and_the_others_stand_in_the_table(found, encoders, discs):  # noqa: F811
    names = {
        "linear probe, net-1",
        *(f"{a}, net_1" for a in ("linear probe", "nearest pixels", "supervised", "CutMix")),
    }
    assert {one.name for one in found.ladder} == names == {row["name"] for row in found.run.recorder.ladder}
    by = {one.name: one.score for one in found.ladder}
    assert by["linear probe, net_1"] > by["linear probe, net-1"]
    kept = [row["name"] for row in found.run.recorder.ladder if row["kept"]]
    assert kept == [found.ladder[0].name] and kept[0].endswith(", net_1")
    record = json.loads((found.folder / "run.json").read_text())
    assert record["lineage"][0]["name"].endswith("net_1")
    assert yaml.safe_load((found.folder / "training.yaml").read_text())["model"] == str(encoders[1])
    sentence = next(s for s in found.advice.sentences if s.startswith("Encoders by a linear probe"))
    assert "net-1 " in sentence and sentence.endswith("net_1 is taken.")
    for page in ("README.md", "advice.html"):
        text = (found.folder / page).read_text()
        assert "linear probe, net-1" in text and "net_1 is taken" in text.replace("\\", "")
    assert evaluate(found.folder, discs)["miou"] == pytest.approx(found.run.metrics["miou"])


def test_a_stopped_search_looks_at_as_many_encoders_again(found, encoders, discs, tmp_path, short, monkeypatch):  # noqa: F811
    """And does not fit them anew."""

    def stopped(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(on_training, "at_fitting_side", stopped)
        with pytest.raises(KeyboardInterrupt):
            auto(discs, encoders, output_dir=tmp_path / "run", **ASKED)
    kept = sorted((tmp_path / "run" / "trials" / "encoders").glob("*/*/tallies.safetensors"))
    times = [path.stat().st_mtime_ns for path in kept]
    assert len(kept) == 6
    monkeypatch.setattr(encoder_choice, "SHARE", 0.0)  # the clock of the first start holds
    best = auto(discs, encoders, output_dir=tmp_path / "run", **ASKED)
    assert [path.stat().st_mtime_ns for path in kept] == times
    assert best.run.metrics == found.run.metrics
    with pytest.raises(UserError, match="is finished there"):
        auto(discs, encoders, output_dir=tmp_path / "run", **ASKED)


def searched(data, encoders, folder):
    shorten(pytest.MonkeyPatch())
    auto(data, encoders, output_dir=folder, train=False, **ASKED)


def test_two_processes_choose_as_one_does(found, encoders, discs, tmp_path):  # noqa: F811
    ranks(searched, discs, encoders, tmp_path / "run", folder=tmp_path)
    ladder = json.loads((tmp_path / "run" / "run.json").read_text())["ladder"]
    scores = {row["name"]: row["by_labels"] for row in ladder}
    heads = {one.name: one.score for one in found.ladder if one.attempt.frozen}
    assert len(heads) == 3 and scores == pytest.approx(heads, abs=0.01)


def test_encoders_that_there_is_no_time_for_are_named(encoders, discs, tmp_path, short, monkeypatch, caplog):  # noqa: F811
    monkeypatch.setattr(encoder_choice, "SHARE", 0.0)
    best = auto(discs, encoders, output_dir=tmp_path / "run", train=False, **ASKED)
    assert "no time is left for net_1" in caplog.text
    assert any("net-1 is taken. There was no time for net_1." in s for s in best.advice.sentences)
    assert {one.name for one in best.ladder} == {"linear probe, net-1", "nearest pixels, net-1"}


def test_encoders_are_compared_at_a_side_that_fits_their_share(encoders, tmp_path, monkeypatch):
    """Of large images, that all of them are seen at."""
    rng = np.random.default_rng(0)
    for i in range(6):
        mask = np.zeros((200, 200), np.uint8)
        mask[20 * i : 20 * i + 80, 40:120] = 1
        pixels = rng.integers(0, 120, (200, 200, 3)) + 100 * mask[..., None]
        for kind, image in (("images", pixels), ("masks", mask)):
            path = tmp_path / "data" / kind / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image.astype(np.uint8)).save(path)
    shorten(monkeypatch)
    monkeypatch.setattr(image_side, "ENOUGH", 1)
    monkeypatch.setattr(trained.Trials, "fit_seconds", lambda self, attempt: 30.0)
    given = dict(task="segmentation", to_label=0, train=False, minutes=15.0)
    best = auto(tmp_path / "data", encoders, output_dir=tmp_path / "run", **given)
    trials = tmp_path / "run" / "trials"  # 180 s at 96 px, and 500 s at 160 px, are planned for either part
    sides = [json.loads((place / "size.json").read_text())["image_size"] for place in (trials / "encoders", trials)]
    assert sides == [96, 160]
    assert best.ladder[0].name.endswith("net_1")


def test_an_encoder_that_cannot_be_had_is_told_first(encoders, discs, tmp_path):  # noqa: F811
    with pytest.raises(UserError, match="nowhere"):
        auto(discs, [encoders[0], str(tmp_path / "nowhere")], output_dir=tmp_path / "run", **ASKED)
    assert not (tmp_path / "run" / "trials").exists()
    with pytest.raises(UserError, match="auto tries one encoder for multilabel"):
        auto("scenes", encoders, task="multilabel", output_dir=tmp_path / "run")
