"""Images that are tested on, and copies of them, are not asked for: by a manifest, or by what a finished run knows."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from hf_lowlabel import finetune
from hf_lowlabel.cli import main
from hf_lowlabel.data.opening import load_source
from hf_lowlabel.data.splits.splits import Split
from hf_lowlabel.errors import UserError
from hf_lowlabel.labeling.labels import Asked, Labels, write_labels
from hf_lowlabel.selection.already_labeled import joined
from hf_lowlabel.selection.verbs import select

from .conftest import paint

COLOURS = ("red", "green", "blue")


@pytest.fixture(scope="module")
def tested(tmp_path_factory, backbone):
    """24 photos, and a run that has labels of 6 and is tested on 6 others."""
    base = tmp_path_factory.mktemp("tested")
    names = paint(base / "photos")
    source = load_source(base / "photos")
    labeled = {name: COLOURS[i % 3] for i, name in enumerate(names[:6])}
    answers = {name: COLOURS[i % 3] for i, name in enumerate(names[6:12])}
    made = Split("photos", list(COLOURS), labeled, fingerprint=source.fingerprint, test=[*answers], held_labels=answers)
    made.save(base / "split.json")
    how = dict(model=backbone, method="probe", split=str(base / "split.json"), device="cpu")
    finetune(str(base / "photos"), output_dir=base / "run", **how)
    return base


@pytest.fixture
def grown(tested, tmp_path):
    """The photos of the run, and two that came since."""
    shutil.copytree(tested / "photos", tmp_path / "photos")
    rng = np.random.default_rng(5)
    for name in ("new 1.png", "new 2.png"):
        Image.fromarray(rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(tmp_path / "photos" / name)
    return tmp_path / "photos"


def since(path, rows):
    path.write_text("file_name,label\n" + "".join(f"{id},{label}\n" for id, label in rows.items()))
    return path


@pytest.mark.parametrize("strategy", ["badge", "coreset"])
def test_labels_given_since_are_beside_those_of_the_run(tested, tmp_path, strategy):
    """And a label of an image that it tests on does not make one to learn from of it."""
    split = Split.load(tested / "run" / "split.json")
    more, at = {f"photo {i}.png": COLOURS[i % 3] for i in (12, 13)}, split.test[0]
    corrected = {min(split.labeled): "blue", at: "red", **more}
    given = since(tmp_path / "since.csv", corrected)
    how = dict(labels=given, strategy=strategy, device="cpu", output=tmp_path / "out")
    done = select(tested / "run", str(tested / "photos"), budget=10, **how)
    assert {*done.ids} == {f"photo {i}.png" for i in range(14, 24)}
    asked = Asked.load(tmp_path / "out")
    assert asked.labeled == {**split.labeled, min(split.labeled): "blue", **more}
    assert {*asked.test} == {*split.test} and asked.held_labels[at] == "red"
    assert done.report.get("labeled", 8) == 8
    how["output"] = tmp_path / "more"
    with pytest.raises(UserError, match="does not fit 10 images without a label"):
        select(tested / "run", str(tested / "photos"), budget=11, **how)


def test_a_folder_to_label_from_before_the_run_does_not_let_its_test_images_in(tested, backbone, tmp_path):
    """It knows of none, for they were held out after it."""
    first = select(backbone, str(tested / "photos"), budget=4, output=tmp_path / "first", device="cpu", seed=1)
    asked = Asked.load(first.folder)
    write_labels(first.folder / "labels.csv", asked, Labels(dict.fromkeys(asked.files.values(), "red")))
    split = Split.load(tested / "run" / "split.json")
    left = 24 - len({*split.labeled, *split.test, *first.ids})
    how = dict(labels=first.folder, strategy="random", device="cpu", output=tmp_path / "out")
    done = select(tested / "run", str(tested / "photos"), budget=left, **how)
    assert {*done.ids}.isdisjoint({*split.labeled, *split.test, *first.ids})


@pytest.mark.parametrize("strategy", ["badge", "as3l", "random"])
@pytest.mark.parametrize("labels", [False, True])
def test_photos_that_came_since_the_run_do_not_make_it_forget(tested, grown, tmp_path, strategy, labels, caplog):
    split = Split.load(tested / "run" / "split.json")
    known = {*split.labeled, *split.test}
    how = dict(strategy=strategy, device="cpu", output=tmp_path / "out")
    if labels:
        how["labels"] = since(tmp_path / "since.csv", {"new 1.png": "red"})
    done = select(tested / "run", str(grown), budget=14 - labels, **how)
    left = {f"photo {i}.png" for i in range(12, 24)} | {"new 1.png", "new 2.png"}
    assert {*done.ids} == left - ({"new 1.png"} if labels else set()) and not known & {*done.ids}
    asked = Asked.load(tmp_path / "out")
    assert {*asked.labeled} == {*split.labeled} | ({"new 1.png"} if labels else set())
    assert {*asked.test} == {*split.test} and "differs from the data" not in caplog.text


def test_other_data_with_the_same_names_are_not_those_of_the_run(tested, tmp_path, caplog):
    """Photos of two cameras are both called photo 01: what one shows is no label of the other."""
    paint(tmp_path / "others", seed=9)
    how = dict(budget=20, device="cpu", output=tmp_path / "out")
    assert len(select(tested / "run", str(tmp_path / "others"), **how).ids) == 20
    assert "others differs from the data of" in caplog.text and not Asked.load(tmp_path / "out").labeled


@pytest.mark.parametrize("model", ["backbone", "run"])
def test_copies_of_held_out_images_are_not_asked_for(tested, backbone, grown, tmp_path, model, capsys):
    """Nor are those of images that got no label when a person was asked."""
    source = load_source(grown)
    old = Split.load(tested / "run" / "split.json")
    passed = ["photo 12.png"]
    for id in (*old.test[:3], *passed):
        shutil.copy(grown / id, grown / f"copy of {id}")
    source = load_source(grown)
    held = dict(test=old.test, held_labels=old.held_labels, passed_over=passed)
    Split("photos", list(COLOURS), old.labeled, fingerprint=source.fingerprint, **held).save(tmp_path / "split.json")
    encoder = backbone if model == "backbone" else str(tested / "run")
    argv = ["select", "--model", encoder, "--dataset", str(grown), "--split", str(tmp_path / "split.json")]
    argv += ["--device", "cpu", "--budget"]
    assert main([*argv, "13", "--output", str(tmp_path / "out")]) == 0
    asked = Asked.load(tmp_path / "out")
    assert {*asked.files.values()} == {f"photo {i}.png" for i in range(13, 24)} | {"new 1.png", "new 2.png"}
    assert "left out 4 copies of other images, 3 of them of held-out images" in capsys.readouterr().out
    assert asked.report["copies_of_held_out"] == 3 and asked.report["images"] == len(source) - len(old.test)
    page = (tmp_path / "out" / "index.html").read_text()
    assert not any(f">{id}<" in page or f'"{id}"' in page for id in old.test)  # what is tested on is not shown
    assert main([*argv, "14", "--output", str(tmp_path / "more")]) == 2
    said = "13 images to choose from after leaving out 4 copies, 4 of them of images that have a label or are held out"
    assert said in capsys.readouterr().err


def test_a_label_that_was_taken_back_since_the_run_is_gone(tested, tmp_path):
    folder, split = tested, Split.load(tested / "run" / "split.json")
    first = min(split.labeled)
    known = joined(split, replace(split, labeled={}, passed_over=[first]), load_source(folder / "photos"), {first})
    assert first not in known.labeled and first in known.passed_over and known.test == split.test
