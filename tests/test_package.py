"""The package as others get it: a light import, a table that agrees with the code, a wheel that works outside the checkout."""
import importlib
import inspect
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import hf_lowlabel
from hf_lowlabel.methods import METHODS, hyperparameters
from hf_lowlabel.objective import FinetuneObjective, PretrainObjective

ROOT = Path(__file__).parent.parent


def test_import_is_light():
    code = "import sys, hf_lowlabel; assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", hf_lowlabel.__all__)
def test_public_names_exist_and_are_documented(name):
    value = getattr(hf_lowlabel, name)
    if inspect.isclass(value) or inspect.isfunction(value):
        assert inspect.getdoc(value)


@pytest.mark.parametrize("name", METHODS)
def test_table_agrees_with_the_code(name):
    spec = METHODS[name]
    module, cls = spec.cls.split(":")
    cls = getattr(importlib.import_module(f"hf_lowlabel.{module}"), cls)
    assert inspect.isclass(cls) is False or issubclass(cls, {"pretrain": PretrainObjective, "finetune": FinetuneObjective}[spec.verb])
    assert set(spec.defaults.get("method_args", {})) <= set(hyperparameters(spec))
    for preset in spec.presets.values():
        assert set(preset.get("method_args", {})) <= set(hyperparameters(spec))


def test_imports_run_one_way():
    """pretraining and finetuning know nothing of data, training or hub; models, data and views nothing of what trains them."""
    above = {"pretraining": ("data", "training", "hub", "selection"), "finetuning": ("data", "training", "hub", "selection"),
             "views": ("data", "models", "training", "hub", "pretraining", "finetuning"),
             "data": ("models", "training", "hub", "pretraining", "finetuning"), "models": ("data", "training", "hub", "views")}
    for part, forbidden in above.items():
        for file in (ROOT / "hf_lowlabel" / part).glob("*.py"):
            text = file.read_text()
            for other in forbidden:
                assert f"from ..{other}" not in text and f"from hf_lowlabel.{other}" not in text, f"{file.name} imports {other}"


@pytest.mark.slow
def test_wheel_works_outside_the_checkout(tmp_path):
    """Built, installed into an environment without the checkout (dependencies from this one), and used."""
    subprocess.run([sys.executable, "-m", "pip", "wheel", "--no-deps", "-q", "-w", str(tmp_path), str(ROOT)], check=True)
    wheel = next(tmp_path.glob("*.whl"))
    names = zipfile.ZipFile(wheel).namelist()
    assert any(n.startswith("hf_lowlabel/model_cards/") for n in names) and not any(n.startswith("tests") for n in names)
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as z:
        z.extractall(site)
    here = [p for p in sys.path if p.endswith("site-packages")]
    code = ("import hf_lowlabel, os; assert 'site' in hf_lowlabel.__file__, hf_lowlabel.__file__\n"
            "from hf_lowlabel import finetune\n"
            "finetune(dataset='digits', model='cnn6_16', from_scratch=True, image_size=16, pool_size=16, num_labels=40, max_steps=2, "
            "batch_size=4, output_dir='run')\nassert 'pipeline' in open('run/README.md').read()")
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), *here])}
    subprocess.run([sys.executable, "-S", "-c", code], check=True, cwd=tmp_path, env=env)
