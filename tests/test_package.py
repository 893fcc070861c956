"""The package as others get it: a light import, a table that agrees with the code, a wheel that works anywhere."""

import inspect
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import hf_lowlabel
from hf_lowlabel.arguments import GROUPS, Config, known_settings
from hf_lowlabel.finetuning.probes import FrozenMethod
from hf_lowlabel.methods import METHODS, find, hyperparameters, methods_for, name_of, verb_of
from hf_lowlabel.objective import FinetuneObjective, PretrainObjective

ROOT = Path(__file__).parent.parent


def test_import_is_light():
    code = "import sys, hf_lowlabel; assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", hf_lowlabel.__all__)
def test_help_describes_every_argument(name):
    value = getattr(hf_lowlabel, name)
    if inspect.ismodule(value):
        assert all(inspect.getdoc(getattr(value, function)) for function in value.__all__)
        return
    if not callable(value):
        assert isinstance(value, dict) and f"`{name}`" in hf_lowlabel.__doc__  # help() of a dict speaks of dicts
        return
    said = inspect.getdoc(value)
    assert said and not said.startswith(f"{name}("), "the docstring that a data class is given by itself says nothing"
    if value.__name__.endswith("Error"):
        return
    for argument in inspect.signature(value).parameters.values():
        if argument.kind not in (argument.VAR_POSITIONAL, argument.VAR_KEYWORD):
            assert re.search(rf"\b{argument.name}\b", said), f"help({name}) does not speak of {argument.name}"


def test_help_of_the_groups_lists_every_setting_with_its_default():
    for name, setting in known_settings().items():
        said = (GROUPS | {None: Config})[setting.group].__doc__
        assert f"\n    {name} ({setting.default!r}" in said and setting.meta["help"] in said


def test_progress_bars_are_made_for_notebooks_too(monkeypatch):
    """A notebook's stderr is no terminal; tqdm.auto chooses the widget there."""
    from hf_lowlabel.distributed import interactive

    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    assert not interactive()  # under a test, as in a batch job, lines are logged instead
    monkeypatch.setitem(sys.modules, "ipykernel", None)
    assert interactive()
    for file in (ROOT / "hf_lowlabel").rglob("*.py"):
        text = file.read_text()
        assert "tqdm" not in text or ("from tqdm.auto import tqdm" in text and "disable=not interactive()" in text), (
            file
        )


@pytest.mark.parametrize("name", METHODS)
def test_table_agrees_with_the_code(name):
    cls = find(name)
    base = FrozenMethod if cls.frozen else {"pretrain": PretrainObjective, "finetune": FinetuneObjective}[cls.verb]
    assert issubclass(cls, base) and name in methods_for(cls.verb)
    assert verb_of(name) == cls.verb and name_of(cls) == name and "paper" in vars(cls) and "year" in vars(cls)
    for values in (cls.defaults, *cls.presets.values()):
        assert set(values.get("method_args", {})) <= set(hyperparameters(cls))


@pytest.mark.slow
def test_wheel_works_outside_the_checkout(tmp_path):
    """Built, installed into an environment without the checkout (dependencies from this one), and used."""
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--no-deps", "-q", "-w", str(tmp_path), str(ROOT)], check=True
    )
    wheel = next(tmp_path.glob("*.whl"))
    names = zipfile.ZipFile(wheel).namelist()
    assert "hf_lowlabel/py.typed" in names
    assert any(n.startswith("hf_lowlabel/model_cards/") for n in names) and not any(
        n.startswith("tests") for n in names
    )
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as z:
        z.extractall(site)
    here = [p for p in sys.path if p.endswith("site-packages")]
    code = (
        "import hf_lowlabel, os; assert 'site' in hf_lowlabel.__file__, hf_lowlabel.__file__\n"
        "from hf_lowlabel import finetune\n"
        "finetune(dataset='digits', model='cnn6_16', from_scratch=True, image_size=16, stored_size=16, num_labels=40, "
        "max_steps=2, batch_size=4, output_dir='run')\nassert 'pipeline' in open('run/README.md').read()"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), *here])}
    subprocess.run([sys.executable, "-S", "-c", code], check=True, cwd=tmp_path, env=env)


def test_a_name_is_held_after_its_first_use():
    """What looks at the module itself, such as pdoc, then sees the object; and dir() names each once."""
    for name in hf_lowlabel.__all__:
        assert getattr(hf_lowlabel, name) is vars(hf_lowlabel)[name]
    assert len(dir(hf_lowlabel)) == len(set(dir(hf_lowlabel)))


def test_warnings_name_the_line_that_called(tmp_path):
    """Not one inside the package, however deep what warns lies."""
    from PIL import Image

    for name in ("a/0.png", "a/0_mask.png", "b/0.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    with pytest.warns(UserWarning, match="called as masks") as shown:
        hf_lowlabel.load_source(tmp_path)
    with pytest.warns(UserWarning) as deep:
        hf_lowlabel.make_split(hf_lowlabel.load_source("digits"), 3, test_fraction=0.0)
    assert {warning.filename for warning in (*shown, *deep)} == {__file__}
