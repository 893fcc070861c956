"""Runs as people make them: on few images, scored on other data, gone on with for longer, in any locale."""

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from hf_lowlabel import UserError, evaluate, finetune
from hf_lowlabel.data.opening import load_source
from hf_lowlabel.data.splits.drawing import make_split
from hf_lowlabel.yaml_files import read_yaml

SMALL = dict(method="supervised", model="test_resnet", from_scratch=True, batch_size=2, max_steps=2, image_size=32)


def classes(root, *names, each=6):
    for k, name in enumerate(names):
        for i in range(each):
            path = root / name / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (32, 32), (30 * k, 10 * i, 200)).save(path)
    return root


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A model of cats and dogs, in a folder `run`, on the data `own`."""
    root = tmp_path_factory.mktemp("trained")
    data = classes(root / "own", "cat", "dog")
    return finetune(str(data), num_labels=4, class_balanced=True, output_dir=str(root / "run"), **SMALL)


@pytest.mark.parametrize(
    "names, images, said", [(("cat", "dog"), 6, 0), (("Dog", "bird", "cat"), 6, 3), (("cat",), 3, 0)]
)
def test_a_model_is_scored_on_other_data(trained, tmp_path, names, images, said, caplog):
    caplog.set_level("INFO")
    found = evaluate(trained.folder, str(classes(tmp_path / "other", *names, each=3)))
    assert found["images"] == images
    assert ("bird (" in caplog.text) == (f"bird ({said} images)" in caplog.text) == bool(said)
    assert ("not in 'other': dog" in caplog.text) == (names == ("cat",))


@pytest.mark.parametrize("fraction", [0.25, 0.0])
def test_a_copy_of_its_own_data_is_scored_without_what_it_was_trained_with(tmp_path, caplog, fraction):
    """In another folder, smaller, as `shrink` makes them: the labels would be known."""
    data = classes(tmp_path / "own", "cat", "dog", each=8)
    run = finetune(data, num_labels=6, test_fraction=fraction, output_dir=tmp_path / "run", **SMALL)
    for path in sorted(data.rglob("*.png")):
        other = tmp_path / "copy" / path.relative_to(data)
        other.parent.mkdir(parents=True, exist_ok=True)
        Image.open(path).resize((24, 24)).save(other)
    own, held = run.recorder.split, 4 if fraction else 16 - 6
    assert evaluate(run.folder, tmp_path / "copy")["images"] == held and len(own.labeled) == 6
    assert f"evaluating on the {held} of its 16" in caplog.text


def test_other_images_of_the_same_names_are_scored(tmp_path, caplog):
    """Tidy folders are numbered alike: where all were labeled it is told what that would mean, and nothing refused."""
    data = classes(tmp_path / "own", "cat", "dog", each=3)
    run = finetune(data, test_fraction=0.0, output_dir=tmp_path / "run", **SMALL)
    for path in data.rglob("*.png"):
        other = tmp_path / "other" / path.relative_to(data)
        other.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 20)).save(other)
    assert evaluate(run.folder, tmp_path / "other")["images"] == 6
    assert "results are too good where they are the same" in caplog.text


def test_other_data_may_have_a_test_split(trained, tmp_path):
    for split, each in (("train", 3), ("Test", 2)):
        classes(tmp_path / "other" / split, "cat", "dog", each=each)
    assert evaluate(trained.folder, str(tmp_path / "other"))["images"] == 4


def test_other_data_without_a_class_of_the_model(trained, tmp_path):
    with pytest.raises(UserError, match="'ant'.*known: cat, dog"):
        evaluate(trained.folder, str(classes(tmp_path / "other", "ant", "bee")))


def test_its_own_data_with_a_change_is_still_refused(trained, tmp_path):
    data = classes(tmp_path / "own", "cat", "dog", each=7)
    with pytest.raises(UserError, match="fingerprint"):
        evaluate(trained.folder, str(data))


def test_as_many_labels_as_there_are(tmp_path):
    data = classes(tmp_path / "d", "cat", "dog", each=5)
    with pytest.warns(UserWarning, match="2 are held out for test .* the other 8 are labeled, not 10"):
        split = make_split(load_source(data), 10, test_fraction=0.2)
    assert len(split.labeled) == 8 and len(split.test) == 2
    with pytest.raises(UserError, match="budget is 11"):
        make_split(load_source(data), 11, test_fraction=0.2)


def test_no_budget_is_all_labels(tmp_path):
    data = classes(tmp_path / "d", "cat", "dog", each=5)
    run = finetune(str(data), output_dir=str(tmp_path / "run"), **{**SMALL, "max_steps": 1})
    split = json.loads((run.folder / "split.json").read_text())
    assert len(split["labeled"]) == 8 and len(split["test"]) == 2


def test_a_run_without_test_images_has_a_score(tmp_path, trained):
    """From weights that came trained, for other classes: what a probe names of labels left out."""
    data = classes(tmp_path / "d", "ant", "bee", each=5)
    weights = dict(model=str(trained.folder), from_scratch=False, test_fraction=0.0)
    run = finetune(str(data), output_dir=str(tmp_path / "run"), **{**SMALL, **weights, "max_steps": 1})
    assert "test" not in run.metrics and "cross-validated on 10 labels" in " ".join(run.recorder.advice)
    assert "80 % interval" in (run.folder / "README.md").read_text()


def test_ten_masks_of_which_ten_are_asked_for(tmp_path):
    mask = np.eye(32, dtype=np.uint8)
    for i in range(10):
        for part, pixels in (("images", mask * 200), ("masks", mask)):
            (tmp_path / "d" / part).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / "d" / part / f"{i}.png")
    more = dict(task="segmentation", architecture="unet", num_labels=10, output_dir=str(tmp_path / "run"))
    run = finetune(str(tmp_path / "d"), **{**SMALL, **more, "max_steps": 1})
    assert run.metrics["miou"] is not None


def test_a_finished_run_goes_on_for_longer(tmp_path, caplog):
    caplog.set_level("INFO")
    data = classes(tmp_path / "d", "cat", "dog")
    given = dict(num_labels=4, lr_scheduler_type="cosine", output_dir=str(tmp_path / "run"))
    finetune(str(data), **{**SMALL, **given})
    with pytest.raises(UserError, match="max_steps was 2, now 1"):
        finetune(str(data), **{**SMALL, **given, "max_steps": 1}, resume=True)
    with pytest.raises(UserError, match="seed was 0, now 1"):
        finetune(str(data), **{**SMALL, **given, "max_steps": 4}, resume=True, seed=1)
    assert read_yaml(tmp_path / "run/training.yaml")["max_steps"] == 2
    run = finetune(str(data), **{**SMALL, **given, "max_steps": 4}, resume=True)
    assert run.progress.step == 4 and json.loads((run.folder / "run.json").read_text())["steps"] == 4
    assert (
        "from step 2, to 4 instead of 2" in caplog.text and "learning rate 0.5 of its peak instead of 0" in caplog.text
    )
    assert read_yaml(run.folder / "training.yaml")["max_steps"] == 4
    finetune(str(data), **{**SMALL, **given, "max_steps": 4}, resume=True)  # the longer run is its own again


@pytest.mark.parametrize("began", ["epochs", "max_steps"])
def test_its_settings_say_how_long_it_was_made(began, tmp_path):
    """Whichever of the two ways a length is given in, before and now."""
    data, lengths = classes(tmp_path / "d", "cat", "dog"), dict(epochs=dict(epochs=1.0), max_steps=dict(max_steps=2))
    given = dict({k: v for k, v in SMALL.items() if k != "max_steps"}, num_labels=4, method="supervised")
    finetune(str(data), **given, **lengths[began], output_dir=str(tmp_path / "run"))
    run = finetune(str(data), **given, epochs=4.0, resume=True, output_dir=str(tmp_path / "run"))
    said = read_yaml(tmp_path / "run/training.yaml")
    assert (said["epochs"], said["max_steps"]) == (4.0, run.progress.step)


ASCII = dict(LC_ALL="C", LANG="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0", OMP_NUM_THREADS="1")


def in_ascii(*commands):
    """Commands of the command line where the locale says ASCII, each a process."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONIOENCODING"} | ASCII
    for command in commands:
        run = [sys.executable, "-m", "hf_lowlabel.cli", *map(str, command)]
        done = subprocess.run(run, env=environment, capture_output=True, timeout=300)
        assert done.returncode == 0, done.stderr.decode(errors="replace")[-2000:]


def holds_cheese(*files):
    for file in files:
        text = file.read_text(encoding="utf-8")
        assert "Käse" in text or "K\\u00e4se" in text, file


def test_names_are_utf8_where_the_locale_is_ascii(tmp_path):
    data = classes(tmp_path / "Fotos für alle", "Käse", "Öl")
    (tmp_path / "l.csv").write_text("file_name,label\nKäse/0.png,Käse\nÖl/0.png,Öl\n", encoding="utf-8")
    in_ascii(["split", "--from", tmp_path / "l.csv", "--dataset", data, "--output", tmp_path / "s.json"])
    holds_cheese(tmp_path / "s.json")


@pytest.mark.slow
def test_every_verb_is_utf8_where_the_locale_is_ascii(tmp_path):
    data, run = classes(tmp_path / "Fotos für alle", "Käse", "Öl"), tmp_path / "Lauf ä"
    train = (
        "--num-labels 4 --method supervised --model test_resnet --from-scratch --batch-size 2 --image-size 32".split()
    )
    in_ascii(
        ["finetune", "--dataset", data, *train, "--max-steps", 1, "--output-dir", run],
        ["finetune", "--dataset", data, *train, "--max-steps", 2, "--output-dir", run, "--resume"],
        ["predict", data, "--model", run, "--output", tmp_path / "p.csv"],
        ["report", run, "--output", tmp_path / "r.html"],
        ["evaluate", "--model", run, "--dataset", data, "--output", tmp_path / "e"],
    )
    holds_cheese(tmp_path / "p.csv", tmp_path / "r.html", tmp_path / "e/metrics.json")
    holds_cheese(*(run / name for name in ("split.json", "README.md", "config.json")))


def drawn(root, *names, each=5):
    """As `classes`, of pictures no two of which are alike."""
    rng = np.random.default_rng(0)
    for name in names:
        (root / name).mkdir(parents=True)
        for i in range(each):
            Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(root / name / f"{i}.png")
    return root


def warned(run, data, **more):
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        evaluate(run, data, **more)
    return " ".join(str(one.message) for one in said if "trained with" in str(one.message))


def test_images_it_was_trained_with_are_told_whatever_else_has_changed(tmp_path):
    """A photo more in the same folder; a copy under another name among other photos; and no word of those that only
    have the same names."""
    data = drawn(tmp_path / "own", "cat", "dog")
    run = finetune(str(data), num_labels=6, class_balanced=True, output_dir=tmp_path / "run", **SMALL)
    first = next(iter(run.recorder.split.labeled))
    other = classes(tmp_path / "other", "cat", "dog", each=5)
    assert warned(run.folder, other) == ""
    (other / "cat" / "again.png").write_bytes((data / first).read_bytes())
    copy = f"such as cat/again.png of {first}"
    said = f"1 of the 11 images are copies of labeled ones the model was trained with, {copy}: results"
    assert warned(run.folder, other).startswith(said)
    with Image.open(data / first) as image:  # saved anew
        image.save(other / "cat" / Path(first).with_suffix(".bmp").name)
    said = (
        f"2 of the 12 images are copies of labeled ones the model was trained with, such as cat/0.bmp of {first}, cat/"
    )
    assert warned(run.folder, other).startswith(said)
    own = (other / first).read_bytes()
    (other / first).write_bytes((data / first).read_bytes())
    said = "3 of the 12 images are labeled ones the model was trained with, 2 of them as copies, such as cat/0.bmp of"
    assert warned(run.folder, other).startswith(said)
    (other / first).write_bytes(own)
    (data / "cat" / "more.png").write_bytes((other / "cat" / "0.png").read_bytes())
    assert warned(run.folder, data, dataset_split="train").startswith("6 of the 11 images are labeled ones")


def test_where_the_training_images_are_out_of_reach_that_is_said(tmp_path, monkeypatch, caplog):
    """The run knows a path from where it was begun."""
    drawn(tmp_path / "own", "cat", "dog")
    other = classes(tmp_path / "other", "cat", "dog", each=6)
    monkeypatch.chdir(tmp_path)
    finetune("own", num_labels=6, class_balanced=True, output_dir="run", **SMALL)
    caplog.set_level("INFO")
    evaluate("run", other)
    assert "is not known" not in caplog.text
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    evaluate(tmp_path / "run", other)
    assert "whether the model was trained with some of these images is not known" in caplog.text


def test_images_called_as_those_it_was_trained_with_are_told_where_these_are_gone(tmp_path):
    data = drawn(tmp_path / "own", "cat", "dog")
    for i, path in enumerate(sorted(data.rglob("*.png"))):
        path.rename(path.with_name(f"IMG_{i}.png"))
    run = finetune(str(data), num_labels=6, class_balanced=True, output_dir=tmp_path / "run", **SMALL)
    moved = tmp_path / "moved" / "own"
    moved.parent.mkdir()
    data.rename(moved)
    (moved / "cat" / "more.png").write_bytes(next(moved.rglob("*.png")).read_bytes())
    said = warned(run.folder, moved, dataset_split="train")
    assert said.startswith("6 of the 11 images are called as labeled ones") and "where they are the same" in said


def test_masks_it_was_trained_with_are_told_beside_a_photo_more(tmp_path):
    data, rng = tmp_path / "own", np.random.default_rng(0)
    for kind in ("images", "masks"):
        (data / kind).mkdir(parents=True)
    for i in range(5):
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(data / "images" / f"{i}.png")
        Image.fromarray((np.indices((32, 32))[0] > 9 + i).astype(np.uint8)).save(data / "masks" / f"{i}.png")
    run = finetune(data, task="segmentation", output_dir=tmp_path / "run", **SMALL)
    for kind in ("images", "masks"):
        (data / kind / "9.png").write_bytes((data / kind / "0.png").read_bytes())
    trained, copied = run.recorder.split.labeled, "0.png" in run.recorder.split.labeled
    assert warned(run.folder, data, dataset_split="train").startswith(
        f"{len(trained) + copied} of the 6 images are lab"
    )


def test_data_of_one_split_is_scored_by_a_model_of_no_run(trained, tmp_path, caplog):
    """A model alone, in memory and saved, on a folder of classes and on a DataFrame; a run on a changed DataFrame."""
    data = drawn(tmp_path / "new", "cat", "dog")
    frame = pd.DataFrame(
        [(str(path), path.parent.name) for path in sorted(data.rglob("*.png"))], columns=["image", "label"]
    )
    trained.model.save_pretrained(tmp_path / "model")
    for model in (trained.model, tmp_path / "model"):
        for given in (data, frame):
            caplog.clear()
            assert evaluate(model, given)["images"] == 10
            assert (
                "evaluating on all 10 images" in caplog.text and "trained with some of them is not known" in caplog.text
            )
    run = finetune(frame[:6].assign(label=["cat", "dog"] * 3), test_fraction=0.0, output_dir=tmp_path / "run", **SMALL)
    assert evaluate(run, frame)["images"] == 10
    with pytest.raises(UserError, match="no labeled test or validation split.*--dataset-split train results on images"):
        evaluate(run, frame[:6].assign(label=["cat", "dog"] * 3))  # its own


def test_rows_of_a_frame_in_memory_are_not_known_again(tmp_path, caplog):
    data = drawn(tmp_path / "new", "cat", "dog")
    pictures = [(Image.open(path).copy(), path.parent.name) for path in sorted(data.rglob("*.png"))]
    frame = pd.DataFrame(pictures, columns=["image", "label"])
    run = finetune(frame[:6].assign(label=["cat", "dog"] * 3), test_fraction=0.0, output_dir=tmp_path / "run", **SMALL)
    evaluate(run, frame[:7], dataset_split="train")
    assert "whether the model was trained with some of these images is not known" in caplog.text


def test_data_without_a_label_is_not_scored(trained, tmp_path):
    (tmp_path / "new").mkdir()
    Image.new("RGB", (32, 32)).save(tmp_path / "new" / "1.png")
    with pytest.raises(UserError, match=f"no labeled test or validation split in '{tmp_path / 'new'}'"):
        evaluate(trained.model, tmp_path / "new")
