"""The accuracy parts of the GPU campaign without training: each figure is found where its recipe left it."""

import importlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import pytest

RECIPES = Path(__file__).resolve().parents[2] / "recipes"


@pytest.fixture
def accuracy(monkeypatch, tmp_path):
    """(the module, a campaign that runs recipes with `finetune` and `pretrain` replaced, the figures it kept)."""
    kept, before = {}, set(sys.modules)
    monkeypatch.setattr(sys, "path", [str(RECIPES), str(RECIPES / "benchmarks"), *sys.path])

    def trained(output_dir, **settings):
        assert settings["dataset"] == str(tmp_path / "cifar10")
        Path(output_dir).mkdir(parents=True)
        metrics = {"accuracy": 0.5}
        (Path(output_dir) / "metrics.json").write_text(json.dumps(metrics))
        return SimpleNamespace(folder=Path(output_dir), metrics=metrics)

    def launch(name, *flags):
        module = importlib.import_module(name)
        with (
            mock.patch("sys.argv", [f"{name}.py", *map(str, flags)]),
            mock.patch.object(module, "finetune", trained),
            mock.patch.object(module, "pretrained", lambda start, *_, **settings: start),
        ):
            module.main()

    def figure(key, compute):
        if key in wanted:
            kept[key] = compute()

    wanted = {"7/fixmatch", "7/sscl", "6/BYOL, then FixMatch"}
    campaign = SimpleNamespace(dry=False, data=tmp_path, work=tmp_path / "work", launch=launch, figure=figure)
    yield importlib.import_module("gpu_accuracy"), campaign, kept
    for name in set(sys.modules) - before:
        if str(RECIPES) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def test_a_finished_recipe_has_its_figure(accuracy):
    module, campaign, kept = accuracy
    module.rows(campaign)
    module.chains(campaign)
    assert set(kept) == {"7/fixmatch", "7/sscl", "6/BYOL, then FixMatch"}
    assert all("50" in found["text"] for found in kept.values())
