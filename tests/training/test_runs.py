"""A run from settings to a folder that others can use, and the errors that stop it before anything is computed."""

import csv
import errno
import fcntl
import json
import logging
import os
import shutil
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn

from hf_lowlabel import evaluate, finetune, load_source, make_split, predict, pretrain
from hf_lowlabel.arguments import FinetuneConfig
from hf_lowlabel.errors import UserError
from hf_lowlabel.training import finetune_run, pretrain_run, runs, setup
from hf_lowlabel.training.folder import claim, release


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Two classes of 24 px images as folders, and unlabeled ones beside them."""
    root = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for k, name in enumerate(("dark", "light")):
        (root / "labeled" / name).mkdir(parents=True)
        for i in range(12):
            pixels = rng.integers(0, 100, (24, 24 + i, 3), dtype=np.uint8) + np.uint8(150 * k)
            Image.fromarray(pixels).save(root / "labeled" / name / f"{i}.png")
    (root / "raw").mkdir()
    for i in range(9):
        Image.fromarray(rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)).save(root / "raw" / f"{i}.png")
    return root


SMALL = dict(
    model="cnn6_16", from_scratch=True, image_size=16, batch_size=4, unlabeled_ratio=2, max_steps=4, logging_steps=2
)


@pytest.mark.pictures
def test_a_run_leaves_everything_and_others_can_use_it(photos, tmp_path):
    run = finetune(
        dataset=str(photos / "labeled"),
        num_labels=8,
        class_balanced=True,
        validation=2,
        output_dir=str(tmp_path / "run"),
        **SMALL,
    )
    left = {p.name for p in run.folder.iterdir()}
    assert {
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
        "README.md",
        "split.json",
        "metrics.json",
        "training.yaml",
        "log.jsonl",
        "run.json",
        "curves.png",
        "predictions.png",
        "confusion.png",
        "reliability.png",
        "checkpoints",
    } == left
    assert all((run.folder / name).stat().st_size > 2000 for name in left if name.endswith(".png"))
    seen = run.model.preprocessing
    assert (list(seen["mean"]), list(seen["std"])) == setup.statistics_of(
        run.recorder.pools["training"]
    )  # random weights know no other
    again = evaluate(str(run.folder), str(photos / "labeled"), output=str(tmp_path / "report"))
    assert again["accuracy"] == run.metrics["accuracy"] and again["confusion"] == run.metrics["confusion"]
    assert (tmp_path / "report" / "confusion.png").is_file()
    with pytest.warns(
        UserWarning,
        match="8 of the 24 images are labeled ones the model was trained with: results on them are too good",
    ):
        evaluate(str(run.folder), str(photos / "labeled"), dataset_split="train")
    assert not run.model.training
    facts = json.loads((run.folder / "run.json").read_text())
    assert facts["labels"]["number"] == 8 and facts["labels"]["per_class"] == {"dark": 4, "light": 4}
    (run.folder / "split.json").unlink()
    with pytest.raises(
        UserError, match="no folder for split 'test'.*or --dataset-split with another split, or --split with a manifest"
    ):
        evaluate(str(run.folder), str(photos / "labeled"))


def test_predict_lists_what_it_cannot_read(photos, tmp_path):
    run = finetune(dataset=str(photos / "labeled"), num_labels=8, output_dir=str(tmp_path / "run"), **SMALL)
    (tmp_path / "new").mkdir()
    Image.new("L", (40, 30), 200).save(tmp_path / "new" / "gray.png")
    Image.new("CMYK", (20, 30)).save(tmp_path / "new" / "cmyk.jpg")
    (tmp_path / "new" / "broken.png").write_bytes(b"not an image")
    rows, skipped = predict([str(tmp_path / "new")], str(run.folder), output=str(tmp_path / "out.csv"), top=2)
    assert [r["class"] in ("dark", "light") for r in rows] == [True, True]
    assert [s[0].endswith("broken.png") for s in skipped] == [True]
    with open(tmp_path / "out.csv") as f:
        read = list(csv.DictReader(f))
    assert [float(r["confidence"]) + float(r["confidence_2"]) for r in read] == pytest.approx([1, 1], abs=1e-5)
    predict([str(tmp_path / "new" / "gray.png")], str(run.folder), output=str(tmp_path / "out.parquet"))
    assert (tmp_path / "out.parquet").stat().st_size > 0
    with pytest.raises(UserError, match="none of 1 images could be read"):
        predict([str(tmp_path / "new" / "broken.png")], str(run.folder), output=None)
    with pytest.raises(UserError, match="ends in .csv or .parquet"):
        predict([str(tmp_path / "new")], str(run.folder), output="x.txt")
    with pytest.raises(UserError, match="expected 1 to 2"):
        predict([str(tmp_path / "new")], str(run.folder), top=3)


def test_predictions_equal_the_transformers_pipeline(photos, tmp_path):
    """The image processor saved with the model does what evaluation does."""
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    import hf_lowlabel.models  # noqa: F401  cnn6_16

    run = finetune(dataset=str(photos / "labeled"), num_labels=8, output_dir=str(tmp_path), stored_size=20, **SMALL)
    files = sorted((photos / "labeled").rglob("*.png"))[:6]
    rows, _ = predict([str(f) for f in files], str(run.folder), output=None)
    processor, model = (
        AutoImageProcessor.from_pretrained(tmp_path),
        AutoModelForImageClassification.from_pretrained(tmp_path).eval(),
    )
    with torch.no_grad():
        inputs = processor([Image.open(f).convert("RGB") for f in files], return_tensors="pt")
        p = model(**inputs).logits.softmax(1)
    assert [r["class"] for r in rows] == [model.config.id2label[i] for i in p.argmax(1).tolist()]
    assert [r["confidence"] for r in rows] == pytest.approx(p.amax(1).tolist(), abs=1e-5)


def test_labels_here_and_raw_images_there(photos, tmp_path):
    run = finetune(
        dataset=str(photos / "labeled"),
        unlabeled_dataset=str(photos / "raw"),
        num_labels=8,
        test_fraction=0.25,
        output_dir=str(tmp_path),
        **SMALL,
    )
    assert len(run.recorder.pools["training"]) == 24 - 6 + 9


def test_images_of_an_unlabeled_split_need_their_option(tmp_path, caplog):
    for name in [f"train/{c}/{i}" for c in ("cat", "dog") for i in range(5)] + ["unlabeled/camera1/0"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(tmp_path / f"{name}.png")
    config = FinetuneConfig(dataset=str(tmp_path), num_labels=2)
    assert setup.open_source(config).class_names == ["cat", "dog"]
    assert f"fix: --unlabeled-dataset {tmp_path} --unlabeled-dataset-split unlabeled" in caplog.text
    caplog.clear()
    both = setup.open_source(config.replace(unlabeled_dataset=str(tmp_path), unlabeled_dataset_split="unlabeled"))
    assert len(both) == 11 and both.class_names == ["cat", "dog"] and not caplog.text


def test_target_pretraining_then_finetuning(photos, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("hf_lowlabel"), "handlers", [caplog.handler])
    split = make_split(load_source(str(photos / "labeled")), 8, test_fraction=0.25)
    split.save(tmp_path / "split.json")
    base = {k: v for k, v in SMALL.items() if k not in ("model", "from_scratch", "unlabeled_ratio")}
    common = dict(base, dataset=str(photos / "labeled"), split=str(tmp_path / "split.json"))
    pre = pretrain(
        **common, model="cnn6_16", from_scratch=True, method_args=dict(hidden=16), output_dir=str(tmp_path / "pre")
    )
    assert len(pre.recorder.pools["pool"]) == 24 - 6  # the test images stay unseen
    assert 0 < pre.metrics["feature_std"] and 0 <= pre.metrics["knn_accuracy"] <= 1
    assert pre.progress.optimizer.param_groups[0]["base_lr"] == pytest.approx(
        pre.config.learning_rate * 4 / 256
    )  # lr is of 256 images a step
    assert (
        "moved" not in pre.metrics and "hardly changed" not in caplog.text
    )  # from random weights there is nowhere to stay
    slow = dict(common, learning_rate=0.1)
    second = pretrain(
        **slow, model=str(tmp_path / "pre"), method_args=dict(hidden=16), output_dir=str(tmp_path / "pre2")
    )
    assert (
        max(r.get("distance", 0) for r in second.progress.history) > 0
    )  # the pull to the start is on for weights that were given
    assert second.progress.inner.weight == pytest.approx(
        0.01 / 4
    )  # lambda stands beside a sum over the 4 images of a step
    start, end = (load_file(tmp_path / name / "model.safetensors") for name in ("pre", "pre2"))
    names = [k.removeprefix("timm_model.") for k, _ in second.model.named_parameters()]
    way, length = (
        sum(x.square().sum() for x in side) for side in ([end[k] - start[k] for k in names], [start[k] for k in names])
    )
    assert (
        second.metrics["moved"] == pytest.approx(float((way / length).sqrt()), rel=1e-4)
        and 0 < second.metrics["moved"] < 0.003
    )
    assert "the images have hardly changed the backbone; fix: more --epochs, a higher --lr (0.1)" in caplog.text
    assert "pretraining has hardly changed it" in (tmp_path / "pre2" / "README.md").read_text()
    fine = finetune(
        **common, model=str(tmp_path / "pre"), output_dir=str(tmp_path / "fine"), learning_rate=0.0, weight_decay=0.0
    )
    a, b = load_file(tmp_path / "pre" / "model.safetensors"), load_file(tmp_path / "fine" / "model.safetensors")
    assert all(torch.equal(a[k], b[k]) for k in a if "running" not in k and "num_batches" not in k)
    lineage = json.loads((fine.folder / "run.json").read_text())["lineage"]
    assert [s["what"] for s in lineage] == ["random weights", "target pretraining", "finetuning"]


@pytest.mark.parametrize(
    "bad, words",
    [
        (dict(num_labels=8, split="x.json"), "found both"),
        (dict(), "found neither"),
        (dict(num_labels=1, class_balanced=True), "found 1 labels for 2 classes"),
        (dict(num_labels=8, model="resnet81"), "unknown model 'resnet81': did you mean"),
        (dict(num_labels=8, method_args={"taw": 1}), "unknown hyperparameter of fixmatch 'taw': did you mean 'tau'"),
        (dict(num_labels=8, method_args={"tau": "high"}), "tau of fixmatch is 'high'. Use a number"),
        (dict(num_labels=8, stored_size=8), "stored_size 8 is below image_size 16"),
        (dict(num_labels=8, stored_size=18), "expected a multiple of 4, for example 16"),
        (dict(num_labels=8, report_to=["tensorbord"]), "unknown tracker 'tensorbord': did you mean 'tensorboard'"),
        (dict(num_labels=8, device="gpu"), "found the device 'gpu'"),
        (dict(num_labels=8, gradient_accumulation_steps=3), "cannot be cut into 3 micro-batches"),
        (dict(num_labels=8, dataset="no/such/folder/here"), "unknown data set"),
        (dict(num_labels=8, init_from="."), "found neither config.json nor objective.safetensors"),
    ],
)
def test_bad_input_is_refused(bad, words, photos, tmp_path):
    with pytest.raises(UserError) as e:
        finetune(**{**SMALL, "dataset": str(photos / "labeled"), "output_dir": str(tmp_path / "run"), **bad})
    assert words in str(e.value), str(e.value)
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_a_labeled_image_that_is_broken_is_named(photos, tmp_path):
    import shutil

    shutil.copytree(photos / "labeled", tmp_path / "data")
    source = load_source(str(tmp_path / "data"))
    split = make_split(source, 8, test_fraction=0.25)
    victim = next(iter(split.labeled))
    size = (tmp_path / "data" / victim).stat().st_size
    (tmp_path / "data" / victim).write_bytes(b"\0" * size)
    split.save(tmp_path / "split.json")
    with pytest.raises(UserError) as e:
        finetune(
            dataset=str(tmp_path / "data"),
            split=str(tmp_path / "split.json"),
            max_bad=0.5,
            output_dir=str(tmp_path / "run"),
            **SMALL,
        )
    assert victim in str(e.value) and "1 labeled images cannot be read" in str(e.value)


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


@pytest.mark.parametrize(
    "asked, validation, unlabeled, expected",
    [
        (None, True, True, "validation_accuracy"),
        (None, False, True, "sel"),
        (None, False, False, None),
        ("validation", True, True, "validation_accuracy"),
        ("sel", True, True, "sel"),
        ("last", True, True, None),
        ("validation", False, True, UserError),
        ("sel", True, False, UserError),
    ],
)
def test_which_weights_are_kept(asked, validation, unlabeled, expected):
    config = (
        FinetuneConfig(dataset="digits", num_labels=10, metric_for_best_model=asked)
        if asked
        else FinetuneConfig(dataset="digits", num_labels=10)
    )
    if expected is UserError:
        with pytest.raises(UserError, match="metric_for_best_model is"):
            finetune_run._keep_best(config, validation, unlabeled)
    else:
        assert finetune_run._keep_best(config, validation, unlabeled) == expected


def test_sel_looks_at_images_all_over_the_pool(monkeypatch):
    """Pools are sorted by class as folders are: the first images of one would be of one class."""
    asked = []
    monkeypatch.setattr(finetune_run, "SEL_IMAGES", 5)
    monkeypatch.setattr(
        finetune_run, "logits_of", lambda net, pool, view, at=None: asked.append(at) or torch.eye(2)[[0, 1, 1, 1]]
    )
    known = {"validation": (range(4), torch.tensor([0, 1, 1, 0]))}
    scores = finetune_run.watcher(known, None, range(101))(SimpleNamespace(evaluated=None), 1)
    assert scores["validation_accuracy"] == 0.75 and asked[0] is None and asked[1].tolist() == [0, 25, 50, 75, 100]


def test_labels_that_are_not_known_do_not_count_in_the_nearest_neighbours(monkeypatch):
    """Twelve labeled images of two clusters, each among unlabeled ones that are nearer than its kind."""
    labels = torch.tensor(([0] + [-1] * 4) * 6 + ([1] + [-1] * 4) * 6)
    angle = torch.tensor([0.0] * 30 + [1.5] * 30) + torch.arange(60) * 1e-3
    monkeypatch.setattr(
        pretrain_run, "features_of", lambda net, pool, view, at: torch.stack([angle.cos(), angle.sin()], 1)[at]
    )
    assert pretrain_run.collapse_monitor(None, range(60), None, labels)["knn_accuracy"] == 1
    labels[5] = labels[10] = -1  # eleven, ten: still enough; below that nothing is said
    assert "knn_accuracy" in pretrain_run.collapse_monitor(None, range(60), None, labels)
    labels[15] = -1
    assert "knn_accuracy" not in pretrain_run.collapse_monitor(None, range(60), None, labels)


def test_a_test_split_without_labels_is_no_test_set(tmp_path, caplog):
    """Unlabeled test images, as competitions give them: the labeled validation images are the test set, else some
    held out."""
    for name in [f"train/{c}/{i}" for c in ("cat", "dog") for i in range(5)] + [
        "test/0",
        "test/1",
        "validation/cat/0",
        "validation/dog/0",
    ]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(tmp_path / f"{name}.png")
    config = FinetuneConfig(dataset=str(tmp_path), num_labels=2, test_fraction=0.2)
    split, images, at = finetune_run.choose_split(config, load_source(str(tmp_path)))
    assert images.split == "validation" and at.tolist() == [0, 1] and not split.test
    assert "found no label in split 'test'" in caplog.text
    make_split(load_source(str(tmp_path)), 2, test_fraction=0.4).save(tmp_path / "split.json")
    given = config.replace(num_labels=None, split=str(tmp_path / "split.json"))
    split, images, at = finetune_run.choose_split(given, load_source(str(tmp_path)))
    assert images.split == "train" and len(at) == len(split.test) == 4  # the manifest's own come first
    (tmp_path / "validation").rename(tmp_path / ".away")
    split, images, at = finetune_run.choose_split(config, load_source(str(tmp_path)))
    assert images.split == "train" and len(at) == len(split.test) == 2
    with pytest.raises(UserError, match="found no label in split 'test'.*expected some to test on"):
        finetune_run.choose_split(config.replace(test_dataset_split="test"), load_source(str(tmp_path)))


def test_output_folder_with_files_or_in_use_is_refused(photos, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("mine")
    settings = dict(SMALL, dataset=str(photos / "labeled"), num_labels=8)
    with pytest.raises(UserError, match="not empty .*--resume .*--init-from"):
        finetune(**settings, output_dir=str(tmp_path / "full"))
    assert (tmp_path / "full" / "thesis.tex").read_text() == "mine"
    (tmp_path / "used").mkdir()
    with open(tmp_path / "used" / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write("4711")
        lock.flush()
        with pytest.raises(UserError, match="in use by process 4711"):
            finetune(**settings, output_dir=str(tmp_path / "used"))


def test_a_folder_is_one_runs_alone_until_it_is_released(tmp_path):
    held = claim(tmp_path / "run", resume=False)
    with pytest.raises(UserError, match=f"in use by process {os.getpid()}"):
        claim(tmp_path / "run", resume=True)
    release(held)
    release(claim(tmp_path / "run", resume=False))
    assert not list(held.iterdir())


def test_a_file_system_without_locks_is_no_folder_in_use(tmp_path, monkeypatch, caplog):
    def none(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    assert claim(tmp_path / "run", resume=False) == tmp_path / "run"
    assert "cannot be locked (No locks available)" in caplog.text
    release(tmp_path / "run")


def test_bad_input_found_late_leaves_an_empty_folder(photos, tmp_path):
    settings = dict(
        SMALL, dataset=str(photos / "labeled"), num_labels=8, method="supervised", output_dir=str(tmp_path / "run")
    )
    with pytest.raises(UserError, match="no score to stop by.*--validation N"):
        finetune(**settings, early_stopping=2)
    assert not list((tmp_path / "run").iterdir())
    finetune(**settings)


def test_all_ranks_have_the_budget_of_the_fullest(monkeypatch):
    monkeypatch.setattr(setup, "all_gather", lambda x: torch.cat([x, x // 4]))
    free = psutil.virtual_memory().available
    assert setup.budget(FinetuneConfig(dataset="digits"), torch.device("cpu")) < free // 4
    assert setup.budget(FinetuneConfig(dataset="digits", memory_budget=2.0), torch.device("cpu")) == 2**31


def test_what_a_resumed_run_must_find_again_names_the_usable_images(photos):
    source = load_source(str(photos / "labeled"))
    one, other = (setup.identity(source, None, SimpleNamespace(indices=np.arange(n))) for n in (8, 7))
    assert {k for k in one if one[k] != other[k]} == {"list of usable images (see --streaming and --memory-budget)"}


def test_dry_run_keeps_nothing(photos, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = finetune(**{**SMALL, "max_steps": 1000}, dataset=str(photos / "labeled"), num_labels=8, dry_run=True)
    runs.summarise(run)
    text = capsys.readouterr().out
    assert "memory:" in text and "expected for 1000 steps" in text and "max_steps: 1000" in text
    assert run.progress.step == 2 and not list(tmp_path.iterdir()) and not run.folder.exists()


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

    real = finetune_run.Loop.__init__

    def init(self, *args, **kwargs):
        real(self, *args, **kwargs)
        self.evaluate = lambda trained, step: watch(self)

    monkeypatch.setattr(finetune_run.Loop, "__init__", init)
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


def test_typical_side_is_a_short_one(photos):
    assert setup.typical_side(load_source(str(photos / "labeled"))) == 24  # of images 24 to 35 px wide


def test_sizes():
    assert setup.sizes(FinetuneConfig(), 224, 500) == (224, 256)
    assert setup.sizes(FinetuneConfig(), 224, 32) == (32, 32)
    assert setup.sizes(FinetuneConfig(image_size=96), 224, 500) == (96, 108)
    for size in range(1, 300):
        for stored in (size, size + 1, round(size * 8 / 7), 2 * size + 1):
            assert int(size / setup.crop_share(size, stored)) == stored
