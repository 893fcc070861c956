"""Trackers by the names Accelerate knows them by: what is logged arrives, what is not installed is an error."""

import json
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from accelerate import tracking
from accelerate.tracking import GeneralTracker

from hf_lowlabel import api, finetune
from hf_lowlabel.errors import UserError
from hf_lowlabel.training import run as running
from hf_lowlabel.training.callbacks import Callback
from hf_lowlabel.training.priors import save_priors
from hf_lowlabel.training.setup import tracked
from hf_lowlabel.training.stopping import Interrupted

READ = ("dataset", "model", "from_scratch", "num_labels")  # settings of a method without steps


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


@pytest.mark.parametrize("verb", ["finetune", "pretrain"])
def test_a_resume_that_is_refused_starts_no_run_of_a_tracker(verb, tiny, few_images, tmp_path, told):
    """A shorter run is found out where all settings are settled, right before the first step."""
    getattr(api, verb)(**tiny[verb], output_dir=tmp_path)
    given = {**tiny[verb], "max_steps": 4, "resume": True, "report_to": ["tensorboard"], "output_dir": tmp_path}
    with pytest.raises(UserError, match="max_steps was 6, now 4"):
        getattr(api, verb)(**given)
    assert not told and not (tmp_path / "hf_lowlabel").exists()


@pytest.mark.parametrize("verb, method", [("finetune", "supervised"), ("finetune", "probe"), ("pretrain", "simsiam")])
def test_a_dry_run_starts_no_run_of_a_tracker(verb, method, tiny, few_images, told):
    kept = {k: v for k, v in tiny[verb].items() if method != "probe" or k in READ}
    getattr(api, verb)(**kept, method=method, report_to=["tensorboard"], dry_run=True)
    assert not told


def test_bad_input_of_a_method_without_steps_starts_no_run_of_a_tracker(tiny, few_images, tmp_path, told):
    """What its priors and its labels lack is found when it is fitted."""
    given = {k: v for k, v in tiny["finetune"].items() if k in READ}
    save_priors(tmp_path / "p.safetensors", np.full((2, 2), 0.5), ["a", "b"], ["cat", "dog"])
    with pytest.raises(UserError, match="The prior pseudo-labels are of the classes"):
        finetune(
            **given,
            method="probe",
            prior=tmp_path / "p.safetensors",
            report_to=["tensorboard"],
            output_dir=tmp_path / "run",
        )
    assert not told and not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "error, code",
    [(None, 0), (UserError("bad"), 1), (KeyError("bug"), 1), (Interrupted(143), 0), (KeyboardInterrupt(), 0)],
)
@pytest.mark.parametrize("name", ["wandb", "mlflow", "trackio"])
def test_a_tracker_hears_how_a_run_ended(name, error, code, monkeypatch, caplog):
    """One that shows it; a stop to be resumed is no failure, and no tracker hides an error or keeps others waiting."""
    heard = []

    def broken():
        raise ConnectionError("no network")

    own = SimpleNamespace(finish=lambda exit_code=0: heard.append(exit_code))
    mlflow = SimpleNamespace(end_run=lambda status="FINISHED": heard.append(int(status == "FAILED")))
    monkeypatch.setitem(sys.modules, "mlflow", mlflow)
    finish = mlflow.end_run if name == "mlflow" else own.finish
    begun = SimpleNamespace(name=name, finish=finish, **{"active_run" if name == "mlflow" else "run": own})
    trackers = [SimpleNamespace(name="aim", finish=broken), begun]
    trackers += [SimpleNamespace(name=name)] if code else []  # of another process, or one that could not start
    with pytest.raises(type(error)) if error else nullcontext() as raised, tracked(SimpleNamespace(trackers=trackers)):
        if error:
            raise error
    assert (
        heard == [code * (name != "trackio")]
        and caplog.text.count(f"tracker {name}") == (name == "trackio") * code
        and (error is None or raised.value is error)
    )
    assert "the tracker aim could not be told that the run is over (ConnectionError: no network)" in caplog.text


def test_a_method_without_steps_tells_a_tracker_of_its_settings(tiny, few_images, tmp_path, told):
    given = {k: v for k, v in tiny["finetune"].items() if k in READ}
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
