"""The demonstrations, from the first image to the last file, with steps too few to learn."""

import json

import pytest

from hf_lowlabel import demo_stages
from hf_lowlabel.data.sources import shapes
from hf_lowlabel.data.splits.splits import Split
from hf_lowlabel.demo import demo
from hf_lowlabel.demo_active import active_demo
from hf_lowlabel.errors import UserError
from hf_lowlabel.tasks import TASKS, get_task

from ..quick import few_digits


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(shapes, "SIZES", {"train": 60, "validation": 10, "test": 20})
    few_digits(monkeypatch.setattr, 600)
    stages = [stage.settings for task in TASKS for stage in get_task(task).demo.stages]
    for settings in (*stages, *demo_stages.DIGITS_PRETRAIN.values(), demo_stages.DIGITS_FINETUNE):
        monkeypatch.setitem(settings, "max_steps", 3)
        monkeypatch.setitem(settings, "batch_size", 10)
        if "minutes" in settings:  # of auto: no time to train
            monkeypatch.setitem(settings, "minutes", 0.02)


@pytest.mark.parametrize("task, test", [("classification", 120), ("multilabel", 20), ("segmentation", 20)])
def test_few_labels(task, test, tmp_path):
    kind = get_task(task)
    runs = demo(task, tmp_path / "demo", num_labels=20, seed=1)
    found = json.loads((tmp_path / "demo/results.json").read_text())
    assert list(runs) == [stage.name for stage in kind.demo.stages]
    for stage in kind.demo.stages:
        assert stage.verb == "pretrain" or found[stage.title] == runs[stage.name].metrics[kind.score.key]
    split = Split.load(tmp_path / "demo/split.json")
    lineage = json.loads((tmp_path / "demo/model/run.json").read_text())["lineage"]
    assert len(split.labeled) == 20 and len(lineage) == 2 + any(
        stage.name == "pretrained" for stage in kind.demo.stages
    )
    assert all(Split.load(run.folder / "split.json").hash == split.hash for run in runs.values())
    assert runs["model"].metrics["images"] == test
    card = (tmp_path / "demo/model/README.md").read_text()
    if task == "classification":  # the ladder
        assert (
            "| linear probe, pretrained |" in card
            and "linear probe, pretrained" in found
            and (tmp_path / "demo/model/advice.html").is_file()
        )
        assert not list((tmp_path / "demo/model").glob("*.py"))  # a network of timm's: any process loads it
    else:
        assert "| supervised, same labels |" in card
    with pytest.raises(UserError, match="is not empty"):
        demo(task, tmp_path / "demo")


def test_a_task_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match="unknown task 'segmentaton': did you mean 'segmentation'"):
        demo("segmentaton", tmp_path / "demo")


def test_fewer_labels_than_classes_are_refused_before_anything_is_computed(tmp_path, capsys):
    with pytest.raises(UserError, match="5 labels cannot cover the 10 classes. Give --num-labels 10 or more"):
        active_demo(str(tmp_path / "demo"), num_labels=5)
    assert not (tmp_path / "demo").exists() and not capsys.readouterr().out


def test_chosen_labels(tmp_path):
    runs = active_demo(str(tmp_path / "demo"), num_labels=10)
    found = json.loads((tmp_path / "demo/results.json").read_text())
    chosen, random = (Split.load(runs[name].folder / "split.json") for name in ("model", "random"))
    assert len(chosen.labeled) == len(random.labeled) == 10 and chosen.test == random.test
    assert set(chosen.labeled) != set(random.labeled) and found["classes_chosen"] == len(set(chosen.labeled.values()))
    seen = Split.load(runs["pretrained"].folder / "split.json")
    assert not seen.labeled and seen.test == chosen.test
    assert runs["model"].config.training.prior and not runs["random"].config.training.prior
    with pytest.raises(UserError, match="is not empty"):
        active_demo(str(tmp_path / "demo"))
