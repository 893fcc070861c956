"""Trackers by the names Accelerate knows them by: what is logged arrives, what is not installed is an error."""

import json

import pytest

from hf_lowlabel import finetune
from hf_lowlabel.errors import UserError


def test_tensorboard_has_what_the_log_has(tiny, few_images, tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    tiny["finetune"].update(max_steps=4, logging_steps=1, eval_steps=2)
    run = finetune(**tiny["finetune"], report_to=["tensorboard"], output_dir=str(tmp_path / "run"))
    events = accumulator.EventAccumulator(str(run.folder / "hf_lowlabel"))
    events.Reload()
    rows = [json.loads(line) for line in (run.folder / "log.jsonl").read_text().splitlines()]
    for name in ("loss", "learning_rate", "test_accuracy"):
        logged = [(event.step, event.value) for event in events.Scalars(name)]
        assert logged == [(row["step"], pytest.approx(row[name])) for row in rows if name in row], name
    assert len(events.Scalars("loss")) == 4


@pytest.mark.parametrize("name", ["wandb", "trackio", "tensorboard", "mlflow"])
def test_one_that_is_not_installed_is_an_error_before_anything_is_computed(tiny, tmp_path, monkeypatch, name):
    from accelerate.utils import imports

    monkeypatch.setattr(imports, f"is_{name}_available", lambda: False)
    monkeypatch.setattr("hf_lowlabel.tasks.base.open_dataset", lambda *a, **k: pytest.fail("data was read"))
    with pytest.raises(UserError, match=f"tracker '{name}' is not installed. Run pip install {name}"):
        finetune(**tiny["finetune"], report_to=[name], output_dir=str(tmp_path / "run"))


def test_one_that_nobody_knows_is_an_error_that_names_the_nearest(tiny, tmp_path):
    with pytest.raises(UserError, match="unknown tracker 'tensorbord': did you mean 'tensorboard'"):
        finetune(**tiny["finetune"], report_to=["tensorbord"], output_dir=str(tmp_path / "run"))
