"""The same picture twice: with two labels, or learned from and tested on."""

import gc
import json
import shutil
import weakref
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from hf_lowlabel import Callback, finetune, load_segmentation, load_source, pretrain
from hf_lowlabel.data.caches.image_cache import build_cache
from hf_lowlabel.data.splits.splits import Split
from hf_lowlabel.errors import UserError
from hf_lowlabel.tasks.data_classes import Examples
from hf_lowlabel.training import copies, pretrain as pretrain_run
from hf_lowlabel.training.copies import agreeing, pictures

from .conftest import SEGMENT, SMALL


@pytest.fixture
def twins(tmp_path, photos):
    """The labeled photos, of which light/copy.png is dark/0.png."""
    root = tmp_path / "twins"
    shutil.copytree(photos / "labeled", root)
    (root / "light" / "copy.png").write_bytes((root / "dark" / "0.png").read_bytes())
    return root


@pytest.mark.parametrize("method", ["supervised", "fixmatch", "probe"])
def test_two_labels_of_one_picture_are_refused_by_every_method(twins, tmp_path, method):
    given = dict(SMALL, test_fraction=0.0) if method != "probe" else {k: SMALL[k] for k in ("model", "from_scratch")}
    with pytest.raises(UserError, match=r"'dark/0.png' and 'light/copy.png' are the same picture, labeled 'dark' and"):
        finetune(dataset=twins, method=method, **given, output_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_skipped_they_count_as_unlabeled(twins, tmp_path, caplog):
    given = dict(SMALL, test_fraction=0.0, skip_conflicts=True)
    run = finetune(dataset=twins, **given, output_dir=tmp_path / "run")
    assert "2 labeled images are copies of each other with other labels" in caplog.text
    assert run.recorder.record.labels.per_class == {"dark": 11, "light": 12}
    assert not {"dark/0.png", "light/copy.png"} & set(Split.load(run.folder / "split.json").labeled)


def test_copies_with_one_label_are_no_conflict(twins, tmp_path):
    shutil.move(twins / "light" / "copy.png", twins / "dark" / "copy.png")
    run = finetune(dataset=twins, **SMALL, test_fraction=0.0, output_dir=tmp_path / "run")
    assert run.recorder.record.labels.per_class == {"dark": 13, "light": 12}


@pytest.mark.parametrize("part", ["validation", "test"])
def test_a_copy_of_a_labeled_image_is_not_tested_on(photos, tmp_path, caplog, part):
    root = tmp_path / "data"
    shutil.copytree(photos / "labeled", root)
    (root / "dark" / "copy.png").write_bytes((root / "dark" / "0.png").read_bytes())
    held = {part: ["dark/copy.png", "dark/2.png", "light/2.png"]}
    labels = {"dark/0.png": "dark", "dark/1.png": "dark", "light/0.png": "light"}
    Split("data", ["dark", "light"], labels, **held).save(tmp_path / "split.json")
    run = finetune(dataset=root, **SMALL, split=tmp_path / "split.json", output_dir=tmp_path / "run")
    assert f"1 {part} images are copies of labeled images, such as dark/copy.png" in caplog.text
    if part == "test":
        assert run.metrics["images"] == 2


def test_a_test_of_copies_alone_is_said_to_be_none(masked, tmp_path, caplog):
    root = tmp_path / "data"
    for part in ("images", "masks"):
        shutil.copytree(masked / part, root / "train" / part)
        (root / "test" / part).mkdir(parents=True)
        shutil.copy(masked / part / "01.png", root / "test" / part / "a.png")
    run = finetune(**{**SEGMENT, "dataset": root, "num_labels": None}, output_dir=tmp_path / "run")
    assert "every test image is a copy of a labeled one: scores on them say nothing of new images" in caplog.text
    assert run.metrics["images"] == 1


def test_blank_pictures_are_nobodys_copies(photos, tmp_path, caplog):
    root = tmp_path / "data"
    shutil.copytree(photos / "labeled", root)
    for name in ("dark", "light"):
        Image.new("RGB", (24, 24), "black").save(root / name / "blank.png")
    finetune(dataset=root, **SMALL, test_fraction=0.0, output_dir=tmp_path / "run")
    assert "copies" not in caplog.text


def test_images_with_masks_are_known_whatever_they_are_padded_to(masked, tmp_path):
    """The frames of labeled and test images differ in size; a mask drawn anew is no conflict."""
    root = tmp_path / "data"
    for part in ("images", "masks"):
        shutil.copytree(masked / part, root / "train" / part)
        (root / "test" / part).mkdir(parents=True)
        shutil.copy(masked / part / "00.png", root / "test" / part / "a.png")
    wide = np.random.default_rng(9).integers(0, 255, (24, 40, 3), dtype=np.uint8)
    Image.fromarray(wide).save(root / "test" / "images" / "b.png")
    Image.fromarray(np.eye(24, 40, dtype=np.uint8)).save(root / "test" / "masks" / "b.png")
    shutil.copy(root / "train" / "images" / "00.png", root / "train" / "images" / "zz.png")
    Image.fromarray(np.eye(24, 24, dtype=np.uint8)).save(root / "train" / "masks" / "zz.png")
    run = finetune(**{**SEGMENT, "dataset": root, "num_labels": None}, output_dir=tmp_path / "run")
    assert run.metrics["images"] == 1


def test_of_several_classes_only_what_is_known_of_both_is_compared(tmp_path):
    rng = np.random.default_rng(0)
    pixels = [rng.integers(0, 255, (16, 16, 3), dtype=np.uint8) for _ in range(8)]
    rows = [["cat"], ["dog"], ["cat", "dog"], [], ["dog"], ["cat"], ["cat"], ["dog"]]
    pixels[1] = pixels[0]
    folder = tmp_path / "several"
    folder.mkdir()
    for i, image in enumerate(pixels):
        Image.fromarray(image).save(folder / f"{i}.png")
    lines = [json.dumps({"file_name": f"{i}.png", "labels": labels}) for i, labels in enumerate(rows)]
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    with pytest.raises(UserError, match=r"'0.png' and '1.png' are the same picture, labeled 'cat' and 'dog'"):
        finetune(dataset=folder, task="multilabel", **SMALL, test_fraction=0.0, output_dir=tmp_path / "run")


def test_labels_are_compared_with_all_of_their_copies(tmp_path):
    """The first says nothing of the class that the others differ in."""
    targets = torch.tensor([[1, -1], [1, 0], [1, 1], [0, 1]])
    labeled = Examples(SimpleNamespace(ids=list("abcd")), torch.arange(4), targets)
    with pytest.raises(UserError, match="'b' and 'c' are the same picture, labeled 'cat' and 'cat' and 'dog'"):
        agreeing(labeled, ["x", "x", "x", ""], ["cat", "dog"], skip=False)
    assert agreeing(labeled, ["x", "x", "x", ""], ["cat", "dog"], skip=True).tolist() == [3]
    assert agreeing(labeled, ["x", "x", "", ""], ["cat", "dog"], skip=False).tolist() == [0, 1, 2, 3]


def test_of_many_images_that_stream_the_first_are_looked_at(photos, monkeypatch, caplog):
    monkeypatch.setattr(copies, "MOST", 5)
    caplog.set_level("INFO")
    source = load_source(photos / "labeled")
    square = dict(size=16, interpolation="bilinear", squash=False)
    found = {
        kind: pictures(
            Examples(build_cache(source, np.arange(9), **square, streaming=kind, workers=0), torch.arange(9), None)
        )
        for kind in (True, False)
    }
    assert found[True] == found[False][:5] + [""] * 4 and len(set(found[False])) == 9
    assert "copies are looked for among the first 5 of 9 images" in caplog.text


@pytest.fixture
def raw(photos, tmp_path):
    """Pictures of which some were copied into folders of classes: the raw folder still has all of them."""
    for id in ("dark/0.png", "dark/1.png", "light/2.png", "light/3.png"):
        (tmp_path / "raw" / id).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(photos / "labeled" / id, tmp_path / "raw" / id)
    for file in (photos / "raw").rglob("*.png"):
        shutil.copy(file, tmp_path / "raw" / f"new {file.name}")
    held = {"test": ["labeled/dark/0.png", "labeled/light/2.png"], "validation": ["labeled/light/3.png"]}
    labels = {"labeled/dark/1.png": "dark", "labeled/dark/2.png": "dark", "labeled/light/0.png": "light"}
    Split("labeled", ["dark", "light"], labels, **held).save(tmp_path / "split.json")
    return dict(
        dataset=photos / "labeled", unlabeled_dataset=tmp_path / "raw", split=tmp_path / "split.json", method="fixmatch"
    )


@pytest.mark.parametrize("streaming", [False, True])
def test_copies_of_test_images_are_no_unlabeled_images(raw, tmp_path, caplog, monkeypatch, streaming):
    seen = []
    monkeypatch.setattr("hf_lowlabel.training.run.make_streams", told(seen))
    run = finetune(**{**SMALL, **raw, "streaming": streaming, "workers": 0}, output_dir=tmp_path / "run")
    assert "3 unlabeled images are copies of images that are held out, such as" in caplog.text
    pool, labeled = seen[0].training, seen[0].labeled
    known = {picture for images in seen[0].held.values() for picture in pictures(images)}
    assert len(known) == 3
    assert not known & {*pictures(Examples(pool, torch.arange(len(pool)), None))}
    assert sum("1.png" in id for id in pool.ids) >= 2  # the copy of a labeled image stays
    assert [pool.ids[int(i)] for i in labeled.members] == [*Split.load(run.folder / "split.json").labeled]
    assert len(pool.ids) == len(pool.indices) == run.recorder.images
    more = {**SMALL, **raw, "streaming": streaming, "workers": 0, "max_steps": 6}
    again = finetune(**more, output_dir=tmp_path / "run", resume=True)
    assert again.progress.step == 6


def told(seen):
    from hf_lowlabel.training.run import make_streams

    return lambda ready, objective: (seen.append(ready), make_streams(ready, objective))[1]


def test_copies_within_the_data_and_of_other_sizes(masked, tmp_path, caplog):
    """An image of masks at its own size is found beside others; the labeled ones lie in a cache of their own."""
    root = tmp_path / "data"
    shutil.copytree(masked, root)
    for name in ("00", "03", "13"):
        shutil.copy(root / "images" / f"{name}.png", root / "images" / f"z{name}.png")
    held = {"test": ["00.png", "01.png"], "validation": ["13.png"]}
    labels = {f"{k:02d}.png": None for k in range(2, 6)}
    source = load_segmentation(root)
    Split("data", source.class_names, labels, **held).save(tmp_path / "split.json")
    given = {**SEGMENT, "dataset": root, "num_labels": None, "split": tmp_path / "split.json", "method": "cutmix"}
    run = finetune(**given, output_dir=tmp_path / "run")
    assert "2 unlabeled images are copies of images that are held out, such as z00.png" in caplog.text
    assert run.recorder.images == 18 - 3 + 3 - 2


def test_priors_of_a_run_that_left_copies_out_fit_one_that_streams(photos, tmp_path, caplog):
    """Of images that stream only those are compared that are called as a held-out one."""
    root = tmp_path / "data"
    shutil.copytree(photos / "labeled", root)
    shutil.copy(root / "dark" / "0.png", root / "light" / "copy.png")
    held = {"test": ["dark/0.png", "light/2.png"]}
    Split("data", ["dark", "light"], {"dark/1.png": "dark", "light/1.png": "light"}, **held).save(tmp_path / "s.json")
    given = {"model": SMALL["model"], "from_scratch": True, "dataset": root, "split": tmp_path / "s.json"}
    first = finetune(**given, method="propagation", output_dir=tmp_path / "run")
    prior = {"prior": tmp_path / "run" / "priors.safetensors", "streaming": True, "workers": 0}
    second = finetune(**given, **prior, method="probe", output_dir=tmp_path / "second")
    assert second.recorder.images == first.recorder.images + 1
    assert "1 of 23 training images have no prior pseudo-label, such as 'light/copy.png': nothing" in caplog.text


def test_pretraining_sees_no_copies_of_held_out_images(photos, tmp_path, caplog, monkeypatch):
    root = tmp_path / "data"
    shutil.copytree(photos / "labeled", root)
    shutil.copy(root / "dark" / "0.png", root / "light" / "zz.png")
    held = {"test": ["dark/0.png", "light/2.png"]}
    Split("data", ["dark", "light"], {"dark/1.png": "dark", "light/1.png": "light"}, **held).save(tmp_path / "s.json")
    given = {k: v for k, v in SMALL.items() if k != "unlabeled_ratio"}
    made, left = {}, []

    def noted(*args, what, **more):
        cache = square_cache(*args, what=what, **more)
        made[what] = weakref.ref(cache)
        return cache

    class Looks(Callback):
        def on_step_end(self, state, scalars):
            gc.collect()
            left.append({what for what, cache in made.items() if cache() is not None})

    square_cache = pretrain_run.square_cache
    monkeypatch.setattr(pretrain_run, "square_cache", noted)
    given |= {"callbacks": [Looks()], "max_steps": 1}
    run = pretrain(dataset=root, split=tmp_path / "s.json", method="simclr", **given, output_dir=tmp_path / "run")
    assert made.keys() == {"training", "held-out"} and left == [{"training"}]  # which take half of the memory
    assert "1 unlabeled images are copies of images that are held out, such as light/zz.png" in caplog.text
    assert run.recorder.images == len(load_source(root)) - 3
