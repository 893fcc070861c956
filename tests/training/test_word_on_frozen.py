"""A run says at its end where it stands beside a probe of the features it started from."""

from types import SimpleNamespace

import pytest

from hf_lowlabel import finetune, pretrain
from hf_lowlabel.tasks import cross_validation, get_task
from hf_lowlabel.training.run import tell_frozen

SMALL = dict(image_size=16, device="cpu")
UNET = dict(architecture="unet", architecture_args=dict(encoder_depth=3, decoder_channels=[16, 8, 8]), device="cpu")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoder") / "byol"
    short = dict(batch_size=32, max_steps=4, method_args=dict(hidden=64))
    pretrain("digits", "cnn6_16", from_scratch=True, output_dir=str(folder), **short, **SMALL)
    return str(folder)


def test_a_run_below_the_probe_warns(encoder, tmp_path, caplog):
    still = dict(num_labels=40, max_steps=1, learning_rate=1e-9, batch_size=8, head_init="random", **SMALL)
    run = finetune("digits", encoder, "supervised", output_dir=str(tmp_path / "a"), **still)
    frozen = run.recorder.comparisons[0].metrics["accuracy"]
    assert run.metrics["accuracy"] < frozen - 0.1
    assert f"is below {100 * frozen:.1f} % (linear probe on" in caplog.text
    assert "Take `finetune --method probe` with the same labels" in caplog.text


def test_several_classes_of_an_image(encoder, tmp_path, caplog):
    still = dict(num_labels=60, max_steps=1, learning_rate=1e-9, batch_size=8, image_size=32, device="cpu")
    run = finetune("scenes", encoder, "supervised", task="multilabel", output_dir=str(tmp_path / "a"), **still)
    (row,) = run.recorder.comparisons
    assert row.name.startswith("linear probe on") and row.name in caplog.text and row.metrics["map_error"] > 0
    same = dict(split=str(tmp_path / "a/split.json"), image_size=32, device="cpu")
    probe = finetune("scenes", encoder, "probe", task="multilabel", output_dir=str(tmp_path / "b"), **same)
    assert probe.metrics["map"] == pytest.approx(row.metrics["map"], abs=1e-4)


def test_a_search_below_the_probe_is_not_told_to_search(caplog):
    """What `auto` took by labels left out may fall below on the test images, which says where labels are missing."""
    row = SimpleNamespace(name="linear probe of pixels", metrics={"miou": 0.71, "miou_error": 0.02})
    recorder = SimpleNamespace(comparisons=[row], main=True, ladder=[{"name": "CutMix", "kept": True}])
    reached = {"miou": 0.674, "miou_error": 0.02, "images": 40}
    tell_frozen(SimpleNamespace(task=get_task("segmentation"), recorder=recorder, head=None), reached)
    assert "Mean IoU 67.4 % is below 71.0 % (linear probe of pixels) on the test images" in caplog.text
    assert "label images that are unlike" in caplog.text and "hf-lowlabel auto" not in caplog.text


def test_few_test_images_decide_nothing(caplog):
    """4 of 8 right beside 5 of 8 is one image."""
    row = SimpleNamespace(name="linear probe", metrics={"accuracy": 0.625, "accuracy_error": 0.17})
    ready = SimpleNamespace(
        task=get_task("classification"), head=None, recorder=SimpleNamespace(comparisons=[row], main=True, ladder=[])
    )
    with caplog.at_level("INFO", "hf_lowlabel"):
        tell_frozen(ready, {"accuracy": 0.5, "accuracy_error": 0.18, "images": 8})
    assert "linear probe: 62.5 %. A test set of 8 does not tell these apart" in caplog.text
    assert "not the answer" not in caplog.text
    tell_frozen(ready, {"accuracy": 0.3, "accuracy_error": 0.17, "images": 8})
    assert "Accuracy 30.0 % is below 62.5 % (linear probe): this model is not the answer" in caplog.text


@pytest.mark.parametrize(
    "kind, reached, frozen, images",
    [
        ("classification", (0.875, 0.117), (1.0, 0.0), 8),  # all right: no error that can be computed, and one image
        ("classification", (0.0, 0.0), (1.0, 0.0), 1),
        ("multilabel", (0.4, None), (0.9, None), 3),
        ("segmentation", (0.3, None), (0.6, None), 2),
    ],
)
def test_scores_without_an_error_are_no_verdict(caplog, kind, reached, frozen, images):
    task = get_task(kind)
    key = task.score.key
    one, other = (dict(zip((key, f"{key}_error"), scores, strict=True)) for scores in (reached, frozen))
    recorder = SimpleNamespace(comparisons=[SimpleNamespace(name="probe", metrics=other)], main=True, ladder=[])
    with caplog.at_level("INFO", "hf_lowlabel"):
        tell_frozen(SimpleNamespace(task=task, head=None, recorder=recorder), {**one, "images": images})
    assert f"A test set of {images} does not tell these apart" in caplog.text
    assert "not the answer" not in caplog.text


def test_masks(encoder, masked, tmp_path, caplog):
    given = dict(
        task="segmentation",
        num_labels=6,
        test_fraction=0.4,
        max_steps=1,
        learning_rate=1e-9,
        batch_size=2,
        image_size=24,
        **UNET,
    )
    run = finetune(str(masked), encoder, "supervised", output_dir=str(tmp_path / "a"), **given)
    (row,) = run.recorder.comparisons
    assert row.name.startswith("linear probe of pixels on") and 0.3 < row.metrics["miou"] < 1
    assert run.metrics["miou"] < row.metrics["miou"] and 0 < row.metrics["miou_error"] < 0.3
    assert (
        f"is below {100 * row.metrics['miou']:.1f} % (linear probe of pixels on" in caplog.text
        and "this model is not the answer" in caplog.text
    )
    assert caplog.text.count("or more --max-steps") == 1  # its decoder began at random
    assert f"| {100 * row.metrics['miou']:.1f}" in (tmp_path / "a/README.md").read_text()


def test_masks_are_shared_among_processes(encoder, masked, tmp_path, monkeypatch):
    """Each has every other image, and together they count each pixel of a class once."""
    task, kept = get_task("segmentation"), []

    def keep(self, model, weights, labeled, test, names):
        for parts, mine in ((1, 0), (2, 0), (2, 1), (50, 49)):
            monkeypatch.setattr(cross_validation, "world", lambda: parts)
            monkeypatch.setattr(cross_validation, "rank", lambda: mine)
            monkeypatch.setattr(cross_validation, "all_mean", lambda x: x / parts)
            kept.append(cross_validation.of_other_masks(model, labeled, test, len(names)))

    monkeypatch.setattr(type(task), "frozen_row", keep)
    given = dict(
        num_labels=6,
        test_fraction=0.4,
        max_steps=1,
        batch_size=2,
        image_size=24,
        output_dir=str(tmp_path / "a"),
        **UNET,
    )
    finetune(str(masked), encoder, "supervised", task="segmentation", **given)
    one, first, second, none = kept
    assert (one == first + second).all() and first[::2].any() and not first[1::2].any()
    assert none.shape == one.shape and not none.any()  # more processes than images
    assert ((24 * 24 <= one.sum((1, 2))) & (one.sum((1, 2)) <= 24 * 26)).all()


def test_priors_that_were_better_than_the_end(encoder, tmp_path, caplog):
    """Of the same labels a probe may be worse than both: a run that falls below what it started from says so."""
    finetune("digits", encoder, "propagation", num_labels=40, output_dir=str(tmp_path / "a"), **SMALL)
    given = dict(split=str(tmp_path / "a/split.json"), prior=str(tmp_path / "a/priors.safetensors"), batch_size=8)
    given |= dict(max_steps=4, **SMALL)
    kept = finetune("digits", encoder, "flexmatch", learning_rate=1e-9, output_dir=str(tmp_path / "b"), **given)
    start = {row.name: row.metrics["accuracy"] for row in kept.recorder.comparisons}
    name = "the head fitted to the priors, before training"
    assert start[name] == pytest.approx(kept.metrics["accuracy"], abs=0.005)
    caplog.clear()
    lost = finetune("digits", encoder, "flexmatch", learning_rate=0.03, output_dir=str(tmp_path / "c"), **given)
    assert lost.metrics["accuracy"] < start[name] - 0.1
    assert f"({name}): this model is not the answer" in caplog.text and "and the same --prior" in caplog.text
    assert "or a lower --learning-rate" in caplog.text


def test_sel_does_not_choose_the_start(encoder, tmp_path):
    """How sure a fitted head is was set by its calibration, and says nothing beside what training makes of it."""
    given = dict(num_labels=40, max_steps=2, eval_steps=1, batch_size=8, learning_rate=1e-9, **SMALL)
    run = finetune("digits", encoder, "fixmatch", output_dir=str(tmp_path / "a"), **given)
    assert [row["step"] for row in run.history if "sel" in row] == [1, 2]


def test_a_start_that_training_only_harms_is_what_stays(encoder, tmp_path, caplog):
    given = dict(num_labels=60, validation=100, max_steps=6, eval_steps=2, batch_size=8, learning_rate=0.01, **SMALL)
    run = finetune("digits", encoder, "supervised", output_dir=str(tmp_path / "a"), **given)
    rows = [row for row in run.history if "validation_accuracy" in row]
    assert [row["step"] for row in rows] == [0, 2, 4, 6]
    assert rows[0]["validation_accuracy"] > max(row["validation_accuracy"] for row in rows[1:])
    assert run.metrics["validation_accuracy"] == rows[0]["validation_accuracy"]
    assert "took the weights of step 0 (validation_accuracy" in caplog.text
    random = finetune("digits", encoder, "supervised", output_dir=str(tmp_path / "b"), head_init="random", **given)
    assert [row["step"] for row in random.history if "validation_accuracy" in row] == [2, 4, 6]
