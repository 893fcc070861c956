"""What type checkers see of the public API: mypy reads a small file that uses it, and no public name is Any to it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import hf_lowlabel

pytest.importorskip("mypy")
ROOT = Path(__file__).parent.parent

USE = """
from pathlib import Path

from typing_extensions import assert_type

import hf_lowlabel
from hf_lowlabel import Best, ImageDataset, Run, Split, auto, evaluate, finetune, load_source, make_split, predict
from hf_lowlabel import pretrain, priors, push, report, select
from hf_lowlabel.finetuning.probes import Probe

data = load_source("digits")
assert_type(data, ImageDataset)
assert_type(make_split(data, 40), Split)
assert_type(pretrain(dataset="digits", output_dir="a"), Run)
run = finetune(dataset="digits", output_dir="b")
assert_type(run, Run)
assert_type(finetune("digits", run, Probe, init_from=run, compare_supervised=run, split=Path("s.json")), Run)
best = auto("digits", run, split=Path("s.json"))
assert_type(best, Best)
finetune("digits", best, init_from=best)
predict("photos", best, output=Path("p.csv"))
evaluate(best, "digits", split=Path("s.json"))
select(best, "digits", budget=4, output=Path("to_label"), split=Path("s.json"))
priors(best, "digits", split=Path("s.json"), output=Path("p.safetensors"))
report(best)
report([run, best])
push(best, "me/it")
"""


def test_public_names_have_types(tmp_path):
    """One run of mypy for all of them: its time goes into torch and transformers. The cache is that of .ci/run."""
    file = tmp_path / "use.py"
    file.write_text(USE + "".join(f"reveal_type(hf_lowlabel.{name})\n" for name in hf_lowlabel.__all__))
    command = [sys.executable, "-m", "mypy", "--config-file", "pyproject.toml", str(file)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    types = re.findall(r'use\.py:\d+: note: Revealed type is "(.*)"', ran.stdout)
    assert len(types) == len(hf_lowlabel.__all__)
    for name, seen in zip(hf_lowlabel.__all__, types):
        assert seen not in ("Any", "object", "builtins.object"), f"{name} is {seen}"
        if seen.startswith(
            ("def ", "Overload(")
        ):  # *args and **settings may be anything, named arguments and results not
            seen = re.sub(r"\b(dataset|unlabeled_dataset): Any", "", seen)  # of `datasets`, which mypy is told to skip
            assert not re.search(r"[ (]\w+: Any\b|-> Any\b", seen), f"{name} is {seen}"
