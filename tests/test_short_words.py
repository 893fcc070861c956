"""What stands in a message or a notebook for a value is one short line."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from hf_lowlabel import UserError, finetune, load_source
from hf_lowlabel.ladder.auto import Best
from hf_lowlabel.ladder.estimates import Interval
from hf_lowlabel.ladder.report import Advice
from hf_lowlabel.ladder.rungs import Tried
from hf_lowlabel.ladder.trials import Trial
from hf_lowlabel.text import brief

LARGE = np.zeros((300, 300, 3), np.uint8)


@pytest.mark.parametrize(
    "value, words",
    [
        ("cat", "'cat'"),
        (np.int64(3), "3" if np.__version__ < "2" else "np.int64(3)"),
        (None, "None"),
        ((Image.fromarray(LARGE), "cat"), "(an Image, 'cat')"),
        ([LARGE], "[an array of shape (300, 300, 3)]"),
        ([1, 2, 3, 4], "[1, 2, 3, ...]"),
        (Path("a/b"), "PosixPath('a/b')"),
        (Interval, "the class Interval"),
        ("x\ny" * 100, None),
        ({"a": LARGE}, None),
    ],
)
def test_a_value_in_a_message(value, words):
    found = brief(value)
    assert len(found) <= 60 and "\n" not in found and (words is None or found == words)


@pytest.mark.parametrize(
    "call",
    [
        lambda: load_source([(LARGE / 255, "cat")]),
        lambda: load_source([(LARGE, LARGE / 255)]),
        lambda: load_source((LARGE[None], [1])),
        lambda: finetune([(LARGE, "cat")], from_scratch=True),
        lambda: finetune("digits", num_labels=LARGE),
        lambda: finetune("digits", method=LARGE),
        lambda: finetune("digits", classes=[LARGE]),
    ],
)
def test_messages_about_arrays_are_one_line(call):
    with pytest.raises(UserError) as error:
        call()
    assert len(str(error.value)) < 250 and "\n" not in str(error.value)


def test_what_auto_returns_is_short():
    """Its name, its estimate with the interval, and where the model is."""
    label, logits = np.arange(1000), np.random.default_rng(0).normal(size=(1000, 9))
    tried = Tried(SimpleNamespace(name="probe"), "resnet18", False, label, logits, logits)
    tried.judge(np.zeros(1000, int))
    advice = Advice(["Accuracy is good."], Interval(0.8, 0.7, 0.9), "no", None, None)
    recorder = SimpleNamespace(ladder=[{"name": "the rest", "kept": False}, {"name": "probe, resnet18", "kept": True}])
    run = SimpleNamespace(recorder=recorder, folder=Path("runs/x"), config=SimpleNamespace(task="classification"))
    best = Best(run, [tried], advice, Path("runs/x/to_label"))
    assert repr(best) == (
        "Best(probe, resnet18: Accuracy 80.0 % (80 % interval 70.0 % to 90.0 %) on new images, model in runs/x, to "
        "label next: runs/x/to_label)"
    )
    trial = Trial(SimpleNamespace(name="supervised"), logits, 0.5)
    assert repr(trial) == "Trial('supervised', 50.0 % cross-validated)"
    assert repr(tried).startswith("Tried('probe, resnet18', ") and len(repr(tried)) < 80
    unknown = Advice([], None, "unclear", None, None)
    assert str(advice) == "Accuracy is good." and "not known" in repr(unknown) and len(repr(advice)) < 130
    assert "not known" in repr(Best(run, [tried], unknown, None))
    nothing = Tried(SimpleNamespace(name="probe"), "resnet18", False, np.zeros(0, int), np.zeros((0, 9)), None)
    assert repr(nothing) == "Tried('probe, resnet18', not cross-validated)"
