"""A run that has no test image says what its labels are worth on frozen features, each left out in turn."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from hf_lowlabel import UserError, evaluate, finetune
from hf_lowlabel.cli import main
from hf_lowlabel.finetuning.graph import class_shares
from hf_lowlabel.tasks import get_task
from hf_lowlabel.tasks.data_classes import LeftOut
from hf_lowlabel.training.cross_validated import interval

TINY = dict(model="test_resnet", from_scratch=True, test_fraction=0.0, image_size=32)
STEP = dict(batch_size=4, max_steps=1)
RANDOM = np.random.default_rng(0)


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(path)


def noise(level):
    return (RANDOM.integers(0, 30, (32, 32, 3)) + level).clip(0, 255)


def left_of(run):
    """What its keys begin with: the layer is the model of `probe` alone."""
    return "left_out_" if run.config.method.__name__ == "Probe" else "probe_left_out_"


@pytest.fixture
def classes(tmp_path):
    for k in range(24):
        save(tmp_path / "d" / ("dark" if k % 2 else "bright") / f"{k}.png", noise(20 if k % 2 else 200))
    return tmp_path / "d"


@pytest.fixture
def several(tmp_path):
    rows = ["file_name,label"]
    for k in range(24):
        save(tmp_path / f"d/{k}.png", noise(200 if k % 2 else 20) * np.array([1, 1, k % 3 > 0]))
        rows.append(f"{k}.png,{';'.join(['bright'] * (k % 2) + ['blue'] * (k % 3 > 0)) or 'none'}")
    (tmp_path / "d/metadata.csv").write_text("\n".join(rows))
    return tmp_path / "d"


@pytest.fixture
def masks(tmp_path):
    for k in range(8):
        x, y = RANDOM.integers(0, 16, 2)
        pixels, mask = noise(20), np.zeros((32, 32))
        pixels[y : y + 14, x : x + 14], mask[y : y + 14, x : x + 14] = 230, 1
        save(tmp_path / f"d/images/{k}.png", pixels)
        save(tmp_path / f"d/masks/{k}.png", mask)
    return tmp_path / "d"


RUNS = {
    "classes": ("accuracy", 0.9, 24, dict(method="probe")),
    "several": ("map", 0.8, 24, dict(task="multilabel", method="supervised", **STEP)),
    "masks": ("miou", 0.7, 8, dict(task="segmentation", method="supervised", architecture="unet", **STEP)),
}


@pytest.mark.parametrize("kind", RUNS)
def test_a_run_without_test_images_has_a_score_and_an_interval(kind, request, tmp_path):
    key, least, count, given = RUNS[kind]
    run = finetune(str(request.getfixturevalue(kind)), output_dir=str(tmp_path / "run"), **{**TINY, **given})
    left = left_of(run)
    value, low, high = (run.metrics[f"{left}{key}{end}"] for end in ("", "_low", "_high"))
    assert least < value <= 1 and 0 <= low < high <= 1 and low <= value <= high + 1e-9
    assert run.metrics[f"{left}{'masks' if kind == 'masks' else 'labels'}"] == count and key not in run.metrics
    said = " ".join(run.recorder.advice)
    assert (
        "not measured" in said
        and f"cross-validated on {count} " in said
        and "random weights" in said
        and "80 % interval" in said
    )
    assert f"cross-validated on {count} " in (run.folder / "README.md").read_text()
    assert json.loads((run.folder / "metrics.json").read_text())[f"{left}{key}"] == value
    with pytest.raises(UserError, match="no labeled test or validation split.*cross-validated on .* .80 % interval"):
        evaluate(str(run.folder), str(tmp_path / "d"))


def test_few_images_of_several_classes_that_have_one(tmp_path):
    """Of twelve two have a class: some of the samples by which the score's error is known have none."""
    rows = ["file_name,label"]
    for k in range(12):
        save(tmp_path / f"d/{k}.png", noise(200 if k < 2 else 20))
        rows.append(f"{k}.png,{('bright', 'blue')[k] if k < 2 else 'none'}")
    (tmp_path / "d/metadata.csv").write_text("\n".join(rows))
    run = finetune(str(tmp_path / "d"), output_dir=str(tmp_path / "run"), **{**TINY, **RUNS["several"][3]})
    low, value, high = (run.metrics[f"probe_left_out_map{end}"] for end in ("_low", "", "_high"))
    assert 0 <= low <= value <= high <= 1
    assert any("cross-validated on 12 labels" in line for line in run.recorder.advice)


def test_masks_that_say_nothing_of_the_images_score_as_chance(masks, tmp_path):
    for k, file in enumerate(sorted((masks / "masks").iterdir())):
        save(file, np.random.default_rng(k).integers(0, 2, (32, 32)))
    run = finetune(str(masks), output_dir=str(tmp_path / "run"), **{**TINY, **RUNS["masks"][3]})
    assert run.metrics["probe_left_out_miou"] < 0.45


def test_copies_of_a_picture_are_left_out_with_it(tmp_path):
    """Labels without a meaning, each photo there three times: a copy would give the answer away."""
    random, rows = np.random.default_rng(0), ["file_name,label"]
    for k in range(16):
        small, kind = random.integers(0, 250, (4, 4, 3)), "ab"[k % 2]
        for n in range(3):
            save(tmp_path / f"d/{kind}/{k}-{n}.png", np.kron(small, np.ones((8, 8, 1))) + n)
            save(tmp_path / f"s/{k}-{n}.png", np.kron(small, np.ones((8, 8, 1))) + n)
            rows.append(f"{k}-{n}.png,{kind}")
            save(tmp_path / f"m/images/{k}-{n}.png", np.kron(small, np.ones((8, 8, 1))) + n)
            mask = np.random.default_rng(k).integers(0, 2, (2, 2))
            save(tmp_path / f"m/masks/{k}-{n}.png", np.kron(mask, np.ones((16, 16))))
    (tmp_path / "s/metadata.csv").write_text("\n".join(rows))
    for kind, data, most in (("classes", "d", 0.75), ("several", "s", 0.75), ("masks", "m", 0.6)):
        key, _, _, given = RUNS[kind]
        run = finetune(str(tmp_path / data), output_dir=str(tmp_path / kind), **{**TINY, **given})
        assert run.metrics[f"{left_of(run)}{'masks' if kind == 'masks' else 'labels'}"] == 16, kind
        assert run.metrics[f"{left_of(run)}{key}"] < most, kind


@pytest.mark.parametrize("method", ["probe", "knn", "supervised"])
def test_it_is_printed_at_the_end_with_whose_it_is(method, classes, tmp_path, capsys):
    flags = ["--model", "test_resnet", "--from-scratch", "--test-fraction", "0", "--image-size", "32"]
    flags += ["--max-steps", "1", "--batch-size", "4"] if method == "supervised" else []
    command = ["finetune", "--dataset", str(classes), "--method", method, *flags, "--output-dir", f"{tmp_path}/run"]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "a linear layer on the frozen features: accuracy" in said and "cross-validated on 24 labels" in said
    assert ("this model was not measured" in said) == (method != "probe")


def test_labels_count_by_the_share_of_their_class():
    """Five labels of a class that is plain, two each of two that are one to the model: the share of the labels that
    are right is more about the first than images are."""
    p = np.array([[[1, 0, 0]] * 5 + [[0, 1, 0]] * 4, [[1, 0, 0]] * 5 + [[0, 1, 0]] * 2 + [[0, 0, 1]] * 2], float)
    task, tallies = get_task("classification"), p.transpose(1, 0, 2)
    shares = class_shares(tallies[:, 1].argmax(1), 3)
    assert task.total(tallies, ["a", "b", "c"]) == pytest.approx(shares[0] + shares[1])
    assert task.total(tallies, ["a", "b", "c"]) < 7 / 9
    weights = task.weights(tallies)
    assert weights.sum() == pytest.approx(1) and weights[-1] > weights[0]
    assert get_task("multilabel").weights(tallies) is None and get_task("segmentation").weights(tallies) is None


def test_an_interval_is_as_wide_as_the_labels_that_count(tmp_path):
    """Thirty labels of one class and two of the other are worth less than thirty-two of which either has half."""
    for k in range(32):
        save(tmp_path / "few" / ("dark" if k < 2 else "bright") / f"{k}.png", noise(20 if k < 2 else 200))
        save(tmp_path / "even" / ("dark" if k % 2 else "bright") / f"{k}.png", noise(20 if k % 2 else 200))
    low = {}
    for data in ("few", "even"):
        run = finetune(str(tmp_path / data), method="probe", output_dir=str(tmp_path / f"run-{data}"), **TINY)
        assert run.metrics["left_out_accuracy"] == 1 and run.metrics["left_out_labels"] == 32
        low[data] = run.metrics["left_out_accuracy_low"]
    assert low["even"] == pytest.approx(1 / (1 + 1.2816**2 / 32))  # Wilson's lower end where all are right
    assert low["few"] < low["even"]


def test_one_label_or_one_class_has_no_score(classes, tmp_path):
    for file in sorted((classes / "dark").iterdir())[1:]:
        file.unlink()
    for file in sorted((classes / "bright").iterdir())[1:]:
        file.unlink()
    run = finetune(str(classes), method="probe", output_dir=str(tmp_path / "run"), **TINY)
    assert not run.metrics and not run.recorder.advice


def test_frames_of_a_film_do_not_make_a_probe_sure_of_noise(tmp_path):
    """Eight photos of either class that look like nothing, seven frames of each: nothing can be learned of them."""
    for k in range(16):
        photo = RANDOM.integers(0, 255, (32, 32, 3))
        for frame in range(7):
            save(
                tmp_path / "d" / str(k % 2) / f"{k}-{frame}.png",
                (photo + RANDOM.integers(-1, 2, photo.shape)).clip(0, 255),
            )
    run = finetune(str(tmp_path / "d"), method="probe", output_dir=str(tmp_path / "run"), **TINY)
    new = run.model.eval()(torch.randn(64, 3, 32, 32)).logits.softmax(1)
    assert new.max(1).values.mean() < 0.75


def test_slices_of_one_volume_are_worth_one():
    right = np.repeat([1, 1, 1, 0, 1, 1, 0, 1], 4)
    for name in ("classification", "multilabel"):
        task = get_task(name)
        y = np.eye(2)[np.tile([0, 1], 16)]
        tallies = np.stack([np.where(right[:, None] == 1, y, 1 - y), y], 1)
        ready = SimpleNamespace(task=task, names=["a", "b"])
        apart, together = (
            interval(ready, LeftOut(tallies, group)) for group in (np.arange(32), np.repeat(np.arange(8), 4))
        )
        assert together[1] - together[0] > 1.4 * (apart[1] - apart[0])
