"""Trackers by the names Accelerate knows them by: what is logged arrives, what is not installed is an error."""

import json
from pathlib import Path

import pytest
from accelerate import tracking
from accelerate.tracking import GeneralTracker

from hf_lowlabel import api, finetune
from hf_lowlabel.errors import UserError
from hf_lowlabel.training import run as running
from hf_lowlabel.training.callbacks import Callback


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


@pytest.fixture
def told(monkeypatch):
    """What a tracker hears, by the name of one that is there; it leaves a folder as TensorBoard's does."""
    heard = []

    class Noted(GeneralTracker):
        name, requires_logging_directory, tracker = "tensorboard", True, None

        def __init__(self, run_name, logging_dir, **more):
            heard.append("start")
            Path(logging_dir, run_name).mkdir()

        def store_init_configuration(self, values):
            heard.append(values["dataset"])

        def log(self, values, step, **more):
            heard.append(step)

        def finish(self):
            heard.append("finish")

    pytest.importorskip("tensorboard")
    monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, "tensorboard", Noted)
    return heard


class Fails(Callback):
    """Raises what a user has to correct at a step."""

    def __init__(self, step=1):
        self.at = step

    def on_step_end(self, state, scalars):
        if state.step == self.at:
            raise UserError("corrected")


@pytest.mark.parametrize("wrong", [dict(num_labels=1, class_balanced=False), dict(early_stopping=2)])
def test_bad_input_starts_no_run_of_a_tracker(wrong, tiny, few_images, tmp_path, told):
    with pytest.raises(UserError, match="The only label is|no score to stop by"):
        finetune(**{**tiny["finetune"], **wrong}, method="supervised", report_to=["tensorboard"], output_dir=tmp_path)
    assert not told and not list(tmp_path.iterdir())


@pytest.mark.parametrize("verb", ["finetune", "pretrain"])
def test_a_tracker_hears_of_the_end_of_a_run_that_fails(verb, tiny, few_images, tmp_path, told):
    given = dict(tiny[verb], report_to=["tensorboard"], output_dir=tmp_path)
    with pytest.raises(UserError, match="corrected"):
        getattr(api, verb)(**given, callbacks=[Fails()])
    assert told == ["start", "digits", "finish"] and not list(tmp_path.iterdir())
    getattr(api, verb)(**given)
    assert told[3:5] == ["start", "digits"] and told[-1] == "finish" and told.count("finish") == 2 and 6 in told


def test_a_method_without_steps_tells_a_tracker_of_its_settings(tiny, few_images, tmp_path, told):
    given = {k: v for k, v in tiny["finetune"].items() if k in ("dataset", "model", "from_scratch", "num_labels")}
    finetune(**given, method="probe", report_to=["tensorboard"], output_dir=tmp_path)
    assert told == ["start", "digits", "finish"]


@pytest.mark.parametrize("step", [1, 3])
def test_what_is_known_before_the_first_step_is_in_nobodys_way(step, tiny, few_images, tmp_path, told, monkeypatch):
    """A network that knows its classes is evaluated at step 0; of a run that has trained, the log stays."""
    monkeypatch.setattr(running, "fit_head", lambda ready, priors: "probe")
    given = dict(tiny["finetune"], method="supervised", validation=10, save_steps=9, output_dir=tmp_path)
    with pytest.raises(UserError, match="corrected"):
        finetune(**given, report_to=["tensorboard"], callbacks=[Fails(step)])
    assert told == ["start", "digits", *range(step), "finish"]
    assert (tmp_path / "log.jsonl").exists() == (step > 1) == any(tmp_path.iterdir())
