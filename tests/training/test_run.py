"""A run of finetuning from settings to a folder that others can use, for every task."""

import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from PIL import Image
from safetensors.torch import load_file
from torch import nn

from hf_lowlabel import Callback, evaluate, finetune, load_source, make_split
from hf_lowlabel.api.summary import summarise
from hf_lowlabel.arguments import Config
from hf_lowlabel.errors import UserError
from hf_lowlabel.models.travelling import NETWORKS
from hf_lowlabel.settings import resolve
from hf_lowlabel.tasks import caching, classification, get_task, segmentation as segmentation_task
from hf_lowlabel.training.class_counts import tell_counts
from hf_lowlabel.training.loop import Loop
from hf_lowlabel.training.priors import save_priors
from hf_lowlabel.training.run import best_score

from .conftest import MULTILABEL, SEGMENT, SMALL, rewrite

BOTH_MASKS = ["ground", "light", "dark"]
FILES = """config.json model.safetensors preprocessor_config.json README.md split.json metrics.json training.yaml
log.jsonl
    run.json checksums.json checkpoints curves.png predictions.png""".split()
# timm lacks cnn6
CODE = ["segmenter.py", "segmenter_parts.py", "configuration_segmenter.py", "standalone_segmenter.py", *NETWORKS]


def of_task(task: str, photos, masked) -> dict:
    """Settings of a tiny run, 2 labeled images held out to choose by."""
    given = {
        "classification": dict(SMALL, dataset=photos / "labeled", num_labels=8, class_balanced=True),
        "multilabel": dict(MULTILABEL, method="fixmatch"),
        "segmentation": dict(SEGMENT, dataset=masked, classes=BOTH_MASKS, method="cutmix"),
    }
    return {**given[task], "validation": 2}


@pytest.mark.pictures
@pytest.mark.parametrize(
    "task, more, words",
    [
        ("classification", ["confusion.png", "reliability.png", "standalone.py", *NETWORKS], "8 labeled images"),
        ("multilabel", ["standalone.py", *NETWORKS], "20 labeled images"),
        ("segmentation", ["confusion.png", *CODE], "4 images with masks"),
    ],
)
def test_a_run_leaves_everything(task, more, words, photos, masked, few_images, tmp_path, capsys):
    run = finetune(**of_task(task, photos, masked), output_dir=tmp_path / "run")
    summarise(run)
    out = capsys.readouterr().out
    assert f"({run.metrics['images']} test images)" in out.splitlines()[0]
    drawn = task != "multilabel"  # whose data have a test split
    assert ("is no verdict: --test-fraction 0 learns from all" in out) == drawn
    kind, left = get_task(task), {p.name for p in run.folder.iterdir()}
    assert left == {*FILES, *more}
    assert all((run.folder / name).stat().st_size > 2000 for name in left if name.endswith(".png"))
    facts, metrics = (json.loads((run.folder / f"{name}.json").read_text()) for name in ("run", "metrics"))
    assert facts["kind"] == task and facts["method"] == ("cutmix" if task == "segmentation" else "fixmatch")
    assert {m.key for m in kind.metrics if m.key in run.metrics} <= metrics.keys() and kind.score.key in metrics
    assert run.progress.best_weights and metrics[f"validation_{kind.score.key}"] == run.progress.best
    assert not run.model.training and words in ModelCard.load(run.folder / "README.md").text
    assert ModelCard.load(run.folder / "README.md").data.pipeline_tag == kind.pipeline_tag
    if task == "classification":
        assert facts["labels"]["chosen"] == "at random, evenly over the classes, seed 0"
        assert facts["labels"]["number"] == 8 and facts["labels"]["per_class"] == {"dark": 4, "light": 4}
        seen = run.model.preprocessing  # random weights know no other than those of these images
        assert (list(seen["mean"]), list(seen["std"])) == caching.square_statistics(run.recorder.caches[0])
    if task == "segmentation":
        assert facts["labels"]["per_class"] == dict.fromkeys(BOTH_MASKS, 4)  # every mask of this set shows all three
        assert facts["data"]["images"] == 18 - 3 - 2  # test images and validation images are not trained on
        assert metrics["images"] == 3


@pytest.mark.pictures
def test_others_can_use_what_a_run_leaves(photos, tmp_path):
    data = str(photos / "labeled")
    run = finetune(**of_task("classification", photos, None), output_dir=tmp_path / "run")
    again = evaluate(run.folder, data, output=tmp_path / "report")
    assert again["accuracy"] == run.metrics["accuracy"] and again["confusion"] == run.metrics["confusion"]
    assert (tmp_path / "report" / "confusion.png").is_file()
    (tmp_path / "report" / "metrics.json").write_text("{}")
    with pytest.raises(UserError, match="metrics.json is there already. Give another --output, or --overwrite"):
        evaluate(run.folder, data, output=tmp_path / "report")
    assert (tmp_path / "report" / "metrics.json").read_text() == "{}"
    evaluate(run.folder, data, output=tmp_path / "report", overwrite=True)
    assert json.loads((tmp_path / "report" / "metrics.json").read_text())["accuracy"] == again["accuracy"]
    with pytest.raises(UserError, match="run is a run, whose metrics and pictures are its own. Give another --output"):
        evaluate(run.folder, data, output=run.folder, overwrite=True)
    with pytest.warns(
        UserWarning, match="8 of the 24 images are labeled ones the model was trained with: results on them"
    ):
        evaluate(str(run.folder), data, dataset_split="train")
    (run.folder / "split.json").unlink()
    with pytest.raises(UserError, match="Give --dataset-split with another split, or --split with a manifest"):
        evaluate(str(run.folder), data)


@pytest.mark.parametrize("task", ["classification", "segmentation"])
def test_labels_here_and_raw_images_there(task, photos, masked, tmp_path):
    """Masks beside the second source's images are not images, and not used."""
    second = photos / "raw" if task == "classification" else masked
    run = finetune(**of_task(task, photos, masked), unlabeled_dataset=second, output_dir=tmp_path)
    again = 3 + 2  # of the second source, which has the held-out images too
    assert len(run.recorder.caches[0]) == (24 - 5 - 2 + 9 if task == "classification" else 18 - 3 - 2 + 18 - again)
    if task == "segmentation":
        assert len(run.recorder.caches[1]) == 4  # with their masks


@pytest.mark.parametrize("method, steps", [("supervised", 4), ("fixmatch", 5)])
def test_an_epoch_is_a_pass_over_what_the_method_sees(method, steps, photos, tmp_path):
    """Twice the 8 labels by fours, or the 19 images that are not tested on by eights."""
    settings = {k: v for k, v in SMALL.items() if k != "max_steps"} | dict(method=method, num_labels=8, epochs=2)
    run = finetune(**settings, dataset=photos / "labeled", output_dir=tmp_path / "run")
    assert run.progress.step == run.config.training.max_steps == steps


def test_windows_are_for_the_evaluation_too(masked, tmp_path, monkeypatch):
    windows = []

    def noted(name, real):
        monkeypatch.setattr(segmentation_task, name, lambda *a, **k: windows.append(k["window"]) or real(*a, **k))

    noted("evaluate_segmentation", segmentation_task.evaluate_segmentation)
    monkeypatch.setattr(
        segmentation_task.card,
        "examples",
        lambda model, cache, window, **k: windows.append((window, window)) or SimpleNamespace(save=lambda *_: None),
    )
    finetune(**SEGMENT, dataset=masked, method="fixmatch", window=18, output_dir=tmp_path)
    assert len(windows) > 2 and set(windows) == {(18, 18)}


@pytest.mark.parametrize("task", ["classification", "multilabel", "segmentation"])
def test_dry_run_keeps_nothing(task, photos, masked, few_images, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = finetune(**{**of_task(task, photos, masked), "max_steps": 1000}, dry_run=True)
    summarise(run)
    text = capsys.readouterr().out
    assert "memory:" in text and "expected for 1000 steps" in text and "max_steps: 1000" in text
    assert run.progress.step == 2 and not list(tmp_path.iterdir()) and not run.folder.exists()


@pytest.mark.parametrize(
    "task, asked, validation, unlabeled, expected",
    [
        ("classification", None, True, True, "validation_accuracy"),
        ("classification", None, False, True, "sel"),
        ("classification", None, False, False, None),
        ("classification", "validation", True, True, "validation_accuracy"),
        ("classification", "sel", True, True, "sel"),
        ("classification", "last", True, True, None),
        ("classification", "validation", False, True, UserError),
        ("classification", "sel", True, False, UserError),
        ("segmentation", None, True, True, "validation_miou"),
        ("segmentation", None, False, True, None),
        ("segmentation", "sel", True, True, UserError),
        ("multilabel", None, True, True, "validation_map"),
        ("multilabel", None, False, True, None),
    ],
)
def test_which_weights_are_kept(task, asked, validation, unlabeled, expected):
    given = {"dataset": "digits", "task": task, "num_labels": 10, "metric_for_best_model": asked}
    config = resolve(Config.from_flat("finetune", given))
    ready = SimpleNamespace(config=config, task=get_task(task), held={"validation": None} if validation else {})
    if expected is UserError:
        with pytest.raises(UserError, match="metric_for_best_model is"):
            best_score(ready, unlabeled)
    else:
        assert best_score(ready, unlabeled) == expected


def test_sel_looks_at_images_all_over_the_pool(monkeypatch):
    """Caches are in the order of the data, by class as folders are: the first images of one would be of one class."""
    asked = []
    monkeypatch.setattr(classification, "SEL_IMAGES", 5)
    monkeypatch.setattr(classification, "eval_view", lambda model: None)
    monkeypatch.setattr(classification, "logits_of", lambda net, cache, view, at: asked.append(at) or torch.eye(2))
    assert "sel" in get_task("classification").unlabeled_score(None, range(101))
    assert asked[0].tolist() == [0, 25, 50, 75, 100]


class Noted(Callback):
    """Notes what it is told and at which step; asks for the end at step `stop`."""

    def __init__(self, stop=None):
        self.told, self.stop, self.records = [], stop, []

    def on_step_end(self, state, scalars):
        assert "loss" in scalars and state.is_main_process
        self.told.append(("step", state.step))
        state.stop = state.step == self.stop

    def on_log(self, state, row):
        assert state.history[-1] == row and row["step"] == state.step
        self.told.append(("log", state.step))

    def on_evaluate(self, state, scores):
        assert {"step": state.step, **scores} == state.history[-1]
        self.told.append(("evaluate", state.step))

    def on_save(self, state):
        assert (state.folder / "run.json").is_file()
        self.records.append(state.record.steps)
        self.told.append(("save", state.step))

    def on_train_end(self, state):
        assert state.record.metrics and (state.folder / "metrics.json").is_file()
        self.told.append(("end", state.step))


SHORT = dict(max_steps=4, logging_steps=2, eval_steps=3, save_steps=3)


def test_callbacks_are_told_in_order(tiny, few_images, tmp_path):
    noted = Noted()
    run = finetune(**{**tiny["finetune"], **SHORT}, callbacks=[noted], output_dir=tmp_path)
    expected = (
        "step 1, log 1, step 2, log 2, step 3, log 3, evaluate 3, save 3, "
        "step 4, log 4, evaluate 4, save 4, save 4, end 4"
    )
    assert ", ".join(f"{what} {step}" for what, step in noted.told) == expected
    assert noted.records == [3, 4, 4] and run.progress.state.record.steps == 4


def test_a_callback_ends_a_run_as_if_all_steps_were_done(tiny, few_images, tmp_path):
    noted = Noted(stop=2)
    run = finetune(**{**tiny["finetune"], **SHORT}, callbacks=[noted], output_dir=tmp_path)
    told = ", ".join(f"{what} {step}" for what, step in noted.told)
    assert told == "step 1, log 1, step 2, log 2, evaluate 2, save 2, save 2, end 2"
    assert run.progress.step == 2 and "accuracy" in run.metrics and (run.folder / "model.safetensors").is_file()
    assert json.loads((run.folder / "run.json").read_text())["steps"] == 2


def test_a_run_that_was_stopped_is_resumed_as_a_finished_one(tiny, few_images, tmp_path, caplog):
    """Not a step more, and the same model and metrics; only more steps than it was to have let it go on."""
    given = {**tiny["finetune"], **SHORT, "output_dir": tmp_path}
    finetune(**given, callbacks=[Noted(stop=2)])
    before = [(tmp_path / name).read_bytes() for name in ("model.safetensors", "metrics.json", "log.jsonl")]
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["step-00000002"]
    assert finetune(**given, resume=True).progress.step == 2
    assert [(tmp_path / name).read_bytes() for name in ("model.safetensors", "metrics.json", "log.jsonl")] == before
    assert "was stopped at step 2: no step is trained. More --max-steps" in caplog.text
    assert finetune(**{**given, "max_steps": 6}, resume=True).progress.step == 6


@pytest.mark.parametrize("method", ["probe", "knn"])
def test_a_run_on_frozen_features_tells_of_its_end(method, tmp_path):
    noted = Noted()
    given = dict(dataset="digits", model="cnn6_16", from_scratch=True, image_size=16, stored_size=16, num_labels=40)
    finetune(**given, method=method, callbacks=[noted], output_dir=tmp_path)
    assert noted.told == [("save", 0), ("end", 0)]


def test_an_unreadable_test_image_does_not_shift_the_labels_of_the_others(photos, tmp_path):
    shutil.copytree(photos / "labeled", tmp_path / "data")
    source = load_source(str(tmp_path / "data"))
    split = make_split(source, 8, test_fraction=0.25)
    split.save(tmp_path / "split.json")
    first = min(split.test, key=source.ids.index)  # of the class "dark", as the next two
    (tmp_path / "data" / first).write_bytes(b"\0" * (tmp_path / "data" / first).stat().st_size)
    run = finetune(
        dataset=str(tmp_path / "data"),
        split=str(tmp_path / "split.json"),
        max_bad=0.5,
        method="supervised",
        output_dir=str(tmp_path / "run"),
        **{k: v for k, v in SMALL.items() if k != "unlabeled_ratio"},
    )
    assert run.metrics["per_class_images"] == [2, 3]
    assert evaluate(str(run.folder), str(tmp_path / "data"), max_bad=0.5)["confusion"] == run.metrics["confusion"]


def test_best_weights_on_validation_are_kept(photos, tmp_path, monkeypatch):
    """The step with the best validation accuracy is what is saved; early stopping counts evaluations without a
    better one."""
    scores = iter([0.5, 0.9, 0.2, 0.1])
    kept = {}

    def watch(self):
        score = next(scores)
        self.history.append({"step": self.step})
        if self.best is None or score > self.best:
            kept["weights"] = {k: v.clone() for k, v in self.inner.evaluated.state_dict().items()}
        return {"validation_accuracy": score}

    real = Loop.__init__

    def init(self, *args, **kwargs):
        real(self, *args, **kwargs)
        self.evaluate = lambda trained: watch(self)

    monkeypatch.setattr(Loop, "__init__", init)
    run = finetune(
        dataset=str(photos / "labeled"),
        num_labels=8,
        validation=4,
        eval_steps=2,
        early_stopping=2,
        output_dir=str(tmp_path),
        **{**SMALL, "max_steps": 20},
    )
    assert run.progress.step == 8 and run.progress.best_step == 4
    saved = load_file(tmp_path / "model.safetensors")
    assert all(torch.equal(saved[k.removeprefix("timm_model.")], v) for k, v in kept["weights"].items())


def test_accumulation_changes_nothing_without_batchnorm(photos, tmp_path, monkeypatch):
    """Two micro-batches of half the size are the whole batch, up to rounding."""
    monkeypatch.setattr("hf_lowlabel.models.plain.nn.BatchNorm2d", lambda channels: nn.GroupNorm(1, channels))
    settings = dict(SMALL, dataset=str(photos / "labeled"), num_labels=8, learning_rate=0.01, method_args={"tau": 0.0})
    finetune(**settings, output_dir=str(tmp_path / "one"))
    finetune(**settings, gradient_accumulation_steps=2, output_dir=str(tmp_path / "two"))
    a, b = load_file(tmp_path / "one" / "model.safetensors"), load_file(tmp_path / "two" / "model.safetensors")
    for name in a:
        torch.testing.assert_close(a[name], b[name], atol=1e-5, rtol=1e-4)


def test_bf16_compiles_and_learns_something(photos, tmp_path):
    run = finetune(
        dataset=str(photos / "labeled"),
        num_labels=8,
        precision="bf16",
        max_grad_norm=1.0,
        optimizer="adamw",
        lr_scheduler_type="cosine",
        warmup_ratio=0.1,
        head_lr=2.0,
        output_dir=str(tmp_path),
        **{**SMALL, "max_steps": 12, "learning_rate": 1e-3},
    )
    losses = [row["supervised"] for row in run.progress.history if "supervised" in row]
    assert all(np.isfinite(losses))
    assert load_file(tmp_path / "model.safetensors")["fc.weight"].dtype == torch.float32


def test_init_from_a_checkpoint(photos, tmp_path):
    settings = dict(SMALL, dataset=str(photos / "labeled"), num_labels=8)
    finetune(**settings, output_dir=str(tmp_path / "a"))
    checkpoint = tmp_path / "a" / "checkpoints" / "step-00000004"
    run = finetune(
        **{**settings, "learning_rate": 0.0, "weight_decay": 0.0},
        init_from=str(checkpoint),
        output_dir=str(tmp_path / "b"),
    )
    a, b = load_file(checkpoint / "objective.safetensors"), run.progress.inner.state_dict()
    assert all(
        torch.equal(a[k], b[k]) for k in a if k.startswith("model.") and "running" not in k and "num_batches" not in k
    )
    before = run.progress.inner.state_dict()
    shutil.rmtree(tmp_path / "b" / "checkpoints" / "step-00000004")
    again = finetune(
        **{**settings, "learning_rate": 0.0, "weight_decay": 0.0},
        init_from=str(checkpoint),
        output_dir=str(tmp_path / "b"),
        resume=True,
    )
    assert all(torch.equal(v, before[k]) for k, v in again.progress.inner.state_dict().items())
    with pytest.raises(UserError, match="init_from was"):
        finetune(**{**settings, "learning_rate": 0.0, "weight_decay": 0.0}, output_dir=str(tmp_path / "b"), resume=True)
    with pytest.raises(UserError, match="does not fit this method and model"):
        finetune(**{**settings, "model": "cnn6_32"}, init_from=str(checkpoint), output_dir=str(tmp_path / "c"))


def test_init_from_a_checkpoint_leaves_what_is_of_single_images(photos, tmp_path):
    """These may be others by now, and the prior is that of this run."""
    given = dict(SMALL, dataset=str(photos / "labeled"), num_labels=8, method="flexmatch", max_steps=1)
    source = load_source(photos / "labeled")
    for name, share in (("p", 0.9), ("q", 0.6)):
        beliefs = np.full((len(source), 2), 1 - share, np.float32)
        beliefs[:, 0] = share
        save_priors(tmp_path / f"{name}.safetensors", beliefs, source.ids, source.class_names, {})
    finetune(**given, prior=str(tmp_path / "p.safetensors"), output_dir=str(tmp_path / "a"))
    start = tmp_path / "a" / "checkpoints" / "step-00000001"
    tensors = load_file(start / "objective.safetensors")
    seen = []

    class Looks(Callback):
        def on_step_end(self, state, scalars):
            rule = state.objective.rule
            seen.append((rule.priors.clone(), rule.rule.last.clone()))

    more = dict(init_from=str(start), prior=str(tmp_path / "q.safetensors"), learning_rate=0.0, callbacks=[Looks()])
    run = finetune(**given | more | dict(max_steps=1), output_dir=str(tmp_path / "b"))
    assert float(tensors["rule.priors"].max()) == pytest.approx(0.9)
    assert float(seen[0][0].max()) == pytest.approx(0.6) and run.progress.step == 1


def test_labels_that_a_manifest_leaves_to_the_data(photos, tmp_path):
    """A list of ids alone: the labels of the data are learned, and one that has none is named."""
    source, data = load_source(photos / "labeled"), str(photos / "labeled")
    split = make_split(source, 8, class_balanced=True, test_fraction=0.2)
    full, bare = split.resolve(source), replace(split, labeled=dict.fromkeys(split.labeled))
    assert (full.labels >= 0).all() and np.array_equal(bare.resolve(source).labels, full.labels)
    bare.save(tmp_path / "bare.json")
    split.save(tmp_path / "full.json")
    scores = []
    for name in ("bare", "full"):
        how = dict(SMALL, method="supervised", max_steps=1, split=str(tmp_path / f"{name}.json"))
        scores.append(finetune(dataset=data, **how, output_dir=str(tmp_path / name)).metrics["nll"])
    assert scores[0] == scores[1]
    free = next(id for id in source.ids if id not in {*split.labeled, *split.test})
    unlabeled = replace(source, labels=np.where(np.array(source.ids) == free, -1, source.labels))
    pool = replace(bare, labeled={**bare.labeled, free: None})
    assert (pool.resolve(unlabeled).labels < 0).sum() == 1
    with pytest.raises(UserError, match="1 labeled images of the split, such as .*, have no label, neither there nor"):
        tell_counts(get_task("classification"), unlabeled, pool.resolve(unlabeled), source.class_names)


def test_segments_better_than_chance_after_a_few_steps(masked, tmp_path):
    """Plain colours are learned by the supervised baseline: geometry, targets and evaluation belong together."""
    settings = dict(
        SEGMENT, method="supervised", max_steps=60, learning_rate=0.01, method_args=dict(ema_decay=0.9), num_labels=8
    )
    run = finetune(**settings, dataset=str(masked), output_dir=str(tmp_path))
    assert run.metrics["miou"] > 0.8, run.metrics["per_class"]


def test_init_from_a_segmenter(masked, tmp_path):
    finetune(**SEGMENT, dataset=str(masked), method="supervised", output_dir=str(tmp_path / "a"))
    again = dict(SEGMENT, init_from=str(tmp_path / "a"), method="supervised", optimizer="sgd", learning_rate=0.0)
    finetune(**again, dataset=str(masked), output_dir=str(tmp_path / "b"))
    a, b = (load_file(tmp_path / k / "model.safetensors") for k in "ab")
    assert all(torch.equal(a[k], b[k]) for k in a if "running" not in k and "num_batches" not in k)
    with pytest.raises(UserError, match="segmenter of .* has the classes class 0"):
        finetune(**again, dataset=str(masked), classes=BOTH_MASKS, output_dir=str(tmp_path / "c"))


def test_binary_masks_have_to_be_declared(masked, tmp_path):
    shutil.copytree(masked, tmp_path / "data")
    for path in (tmp_path / "data" / "masks").iterdir():
        Image.fromarray((np.asarray(Image.open(path)) > 0).astype(np.uint8) * 255).save(path)
    settings = dict(SEGMENT, dataset=str(tmp_path / "data"), method="supervised", max_steps=1)
    with pytest.raises(UserError, match="Give --mask-format binary"):
        finetune(**settings, output_dir=str(tmp_path / "a"))
    run = finetune(**settings, mask_format="binary", output_dir=str(tmp_path / "b"))
    assert run.metrics["class_names"] == ["background", "object"] and "object_jaccard" in run.metrics


def test_a_mask_of_ignored_pixels_alone_is_a_warning(masked, tmp_path, caplog):
    """Its crops hold no pixel that counts: a loss of 0, not NaN."""
    shutil.copytree(masked, tmp_path / "data")
    rewrite(tmp_path / "data", _00=np.full((24, 24), 255, np.uint8))
    (tmp_path / "labeled.txt").write_text("00\n03\n")
    settings = {k: v for k, v in SEGMENT.items() if k != "num_labels"} | dict(
        batch_size=1, logging_steps=1, method="supervised"
    )
    run = finetune(
        **settings,
        dataset=str(tmp_path / "data"),
        split=str(tmp_path / "labeled.txt"),
        output_dir=str(tmp_path / "run"),
    )
    assert "the mask of image '00.png' has no pixel of any class" in caplog.text
    losses = [row["loss"] for row in run.progress.history if "loss" in row]
    assert (
        0.0 in losses and max(losses) > 0 and all(row["skipped"] == 0 for row in run.progress.history if "loss" in row)
    )


def test_streaming_sees_what_a_resident_pool_shows(masked, tmp_path):
    for name, streaming in (("resident", False), ("streaming", True)):
        finetune(
            **SEGMENT,
            dataset=str(masked),
            method="cutmix",
            streaming=streaming,
            workers=0,
            output_dir=str(tmp_path / name),
        )
    a, b = (load_file(tmp_path / name / "model.safetensors") for name in ("resident", "streaming"))
    assert all(torch.equal(a[k], b[k]) for k in a)
