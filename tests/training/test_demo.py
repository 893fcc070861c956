"""The two demos on digits, from the first image to the last file, with steps too few to learn."""

import json

import pytest

from hf_lowlabel import demo
from hf_lowlabel.data.splits import Split
from hf_lowlabel.demo_active import active_demo
from hf_lowlabel.errors import UserError


@pytest.fixture(autouse=True)
def short(monkeypatch):
    for settings in (*demo.PRETRAIN.values(), demo.FINETUNE):
        monkeypatch.setitem(settings, "max_steps", 3)
        monkeypatch.setitem(settings, "batch_size", 10)


def test_few_labels(tmp_path):
    runs = demo.demo(str(tmp_path / "demo"), num_labels=20, seed=1)
    found = json.loads((tmp_path / "demo/results.json").read_text())
    assert found["simclr + priors + flexmatch"] == runs["model"].metrics["accuracy"]
    split = Split.load(tmp_path / "demo/split.json")
    assert len(split.labeled) == 20 and len(split.test) == 359
    assert all(Split.load(run.folder / "split.json").hash == split.hash for run in runs.values())
    assert runs["model"].config.prior == str(tmp_path / "demo/priors.safetensors")
    assert "| supervised, same labels |" in (tmp_path / "demo/model/README.md").read_text()
    with pytest.raises(UserError, match="is not empty"):
        demo.demo(str(tmp_path / "demo"))
    with pytest.raises(UserError, match="dino.*simclr"):
        demo.demo(str(tmp_path / "other"), pretraining="dino")


def test_chosen_labels(tmp_path):
    runs = active_demo(str(tmp_path / "demo"), num_labels=10)
    found = json.loads((tmp_path / "demo/results.json").read_text())
    chosen, random = (Split.load(runs[name].folder / "split.json") for name in ("model", "random"))
    assert len(chosen.labeled) == len(random.labeled) == 10 and chosen.test == random.test
    assert set(chosen.labeled) != set(random.labeled) and found["classes_chosen"] == len(set(chosen.labeled.values()))
    seen = Split.load(runs["pretrained"].folder / "split.json")
    assert not seen.labeled and seen.test == chosen.test
    assert runs["model"].config.prior and not runs["random"].config.prior
    with pytest.raises(UserError, match="is not empty"):
        active_demo(str(tmp_path / "demo"))
