"""Errors that stop a run before anything is computed, and whose folder it is."""

import contextlib
import errno
import fcntl
import os
import shutil
from dataclasses import replace

import numpy as np
import pytest

from hf_lowlabel import finetune, load_segmentation, load_source, make_split, report
from hf_lowlabel.arguments import Config, DataArguments
from hf_lowlabel.data.caches.decoding import check_share
from hf_lowlabel.data.splits.splits import Split
from hf_lowlabel.errors import TooManyBad, UserError
from hf_lowlabel.hub.push import _in_use
from hf_lowlabel.labeling.server import only_one
from hf_lowlabel.labeling.to_label import BEGUN, alone
from hf_lowlabel.ladder.image_side import rebuilt
from hf_lowlabel.methods import find
from hf_lowlabel.settings import resolve
from hf_lowlabel.tasks import get_task
from hf_lowlabel.training.folder import claim, release
from hf_lowlabel.training.preparing import of_all, prepare
from hf_lowlabel.training.priors import save_priors

from .conftest import SEGMENT, SMALL, rewrite

BOTH_MASKS = ["ground", "light", "dark"]


@pytest.mark.parametrize(
    "bad, words",
    [
        (dict(num_labels=8, split="x.json"), "not both"),
        (dict(num_labels=1, class_balanced=True), "1 labels cannot cover 2 classes when class-balanced"),
        (dict(num_labels=8, model="resnet81"), "unknown model 'resnet81': did you mean"),
        (dict(num_labels=8, method_args={"taw": 1}), "unknown hyperparameter of fixmatch 'taw': did you mean 'tau'"),
        (dict(num_labels=8, method_args={"tau": "high"}), "tau of fixmatch is 'high'. Use a number"),
        (dict(num_labels=8, stored_size=8), "A stored_size of 8 px is below the image_size of 16 px"),
        (dict(num_labels=8, stored_size=18), "Give a multiple of 4 above it, for example 16"),
        (dict(num_labels=8, report_to=["tensorbord"]), "unknown tracker 'tensorbord': did you mean 'tensorboard'"),
        (dict(num_labels=8, device="gpu"), "There is no device 'gpu'"),
        (dict(num_labels=8, gradient_accumulation_steps=3), "cannot be cut into 3 parts"),
        (
            dict(num_labels=8, dataset="no/such/folder/here"),
            "no such path as 'no/such/folder/here', and it is no Hub id",
        ),
        (dict(num_labels=8, init_from="."), "There is neither config.json nor objective.safetensors"),
    ],
)
def test_bad_input_is_refused(bad, words, photos, tmp_path):
    with pytest.raises(UserError) as e:
        finetune(**{**SMALL, "dataset": str(photos / "labeled"), "output_dir": str(tmp_path / "run"), **bad})
    assert words in str(e.value), str(e.value)
    assert not (tmp_path / "run" / "model.safetensors").exists()


@pytest.mark.parametrize("task", ["classification", "segmentation"])
def test_bad_images_are_counted_over_all_that_take_part(task, photos, masked, tmp_path):
    """One of three test images is not a third of all; with one more, which is trained on, it is too much."""
    root, masks = tmp_path / "data", task == "segmentation"
    shutil.copytree(masked if masks else photos / "labeled", root)
    source = load_segmentation(str(root)) if masks else load_source(str(root))
    split = make_split(source)
    test = [*split.labeled][:3]
    labeled = {id: name for id, name in split.labeled.items() if id not in test}
    replace(split, labeled=labeled, test=test).save(tmp_path / "split.json")
    given = {**(SEGMENT if masks else SMALL), "task": task, "dataset": str(root), "max_steps": 1, "num_labels": None}
    given |= dict(method="supervised", split=str(tmp_path / "split.json"), max_bad=0.06, unlabeled_ratio=None)
    first, other = (root / ("images" if masks else "") / f"{id.split('.')[0]}.png" for id in (test[0], [*labeled][-1]))
    spoil(first)
    run = finetune(**given, output_dir=str(tmp_path / "run"))
    assert "No list of the worst answers" not in report([run.folder], tmp_path / "report.html").read_text()
    spoil(other)
    with pytest.raises(UserError, match=f"2 of {len(source)} images cannot be used .*at most 6.0 % of them may be bad"):
        finetune(**given, output_dir=str(tmp_path / "none"))
    spoil(root / ("images" if masks else "") / f"{test[1].split('.')[0]}.png")
    with pytest.raises(UserError, match="2 of 3 test images cannot be used .*at most 30.0 % .*, or --max-bad 0.67 to"):
        finetune(**given | dict(max_bad=0.3), output_dir=str(tmp_path / "none"))


def test_a_run_may_go_on_without_as_many_images_as_it_began(photos, tmp_path):
    """The one of 24 that may be bad is no more than that when the copies are gone, nor at another size."""
    root, task = tmp_path / "data", get_task("classification")
    shutil.copytree(photos / "labeled", root)
    split = make_split(load_source(str(root)))
    test, held, (first, *_) = [*split.labeled][:3], [*split.labeled][3:5], [*split.labeled][5:]
    labeled = {id: name for id, name in split.labeled.items() if id not in (*test, *held)}
    shutil.copy(root / first, root / held[0])
    spoil(root / test[0])
    source = load_source(str(root))
    split = replace(split, labeled=labeled, test=test, validation=held, fingerprint=source.fingerprint)
    split.save(tmp_path / "split.json")
    given = dict(dataset=str(root), method="supervised", split=str(tmp_path / "split.json"), max_bad=1 / 24)
    config = resolve(Config.from_flat("finetune", {**SMALL, **given, "unlabeled_ratio": None}))
    ready = prepare(task, config, tmp_path / "run")
    assert (len(ready.held["validation"].members), len(ready.held["test"].members), ready.total) == (1, 2, 24)
    assert len(rebuilt(ready, image_size=8).held["test"].members) == 2


@pytest.mark.parametrize("held", ["", "test"])
@pytest.mark.parametrize("lost, seen", [(3, 10), (10, 10)])
def test_the_share_that_is_said_is_one_that_was_given(held, lost, seen):
    """Where a look at some images of a part is too much, while all parts together could lack as many."""
    config = Config.from_flat("finetune", dict(dataset="x", max_bad=0.05))
    with pytest.raises(TooManyBad) as error, of_all(config, 400, 100, held) as data:
        check_share([(str(i), "cut off") for i in range(lost)], seen, data.max_bad)
    assert f"{lost} of {seen} {held} images".replace("  ", " ") in str(error.value)
    most = f"at most {10 if held else 5}.0 % of them" if lost < seen else "none is left"
    assert most in str(error.value)


@pytest.mark.parametrize("held, fine, bad", [("", 50, 51), ("test", 4, 5)])
def test_a_part_that_scores_are_of_may_lack_a_tenth_of_itself(held, fine, bad):
    """39 of 40 test images are few beside 5,000 others, and a score of one image says nothing."""
    config = Config.from_flat("finetune", dict(dataset="x", max_bad=0.01))
    part = 40 if held else 4960
    with of_all(config, 5000, part, held) as data:
        check_share([("a", "cut off")] * fine, part, data.max_bad)
    with pytest.raises(TooManyBad), of_all(config, 5000, part, held) as data:
        check_share([("a", "cut off")] * bad, part, data.max_bad)


def spoil(file) -> None:
    """Other content of the same size, which the fingerprint of the data is of."""
    file.write_bytes(b"\0" * file.stat().st_size)


@pytest.mark.parametrize("task", ["classification", "multilabel", "segmentation"])
def test_a_labeled_image_that_is_broken_loses_its_label(task, photos, masked, tmp_path, caplog):
    """As an unlabeled one is left out: up to --max-bad of all images, with a warning and a list."""
    root = tmp_path / "data"
    shutil.copytree(masked if task == "segmentation" else photos / "labeled", root)
    if task == "multilabel":
        rows = [f"{file.relative_to(root)},{file.parent.name}" for file in sorted(root.glob("*/*.png"))]
        (root / "metadata.csv").write_text("\n".join(["file_name,label", *rows]))
    victim = "images/03.png" if task == "segmentation" else "dark/3.png"
    (root / victim).write_bytes(b"\0" * 99)
    given = {**(SEGMENT if task == "segmentation" else SMALL), "task": task, "dataset": str(root), "max_steps": 1}
    given = {**given, "num_labels": None, "method": "supervised", "test_fraction": 0.0}
    with pytest.raises(UserError, match="1 of .* images cannot be used .*Repair or remove the files, or --max-bad"):
        finetune(**given, output_dir=str(tmp_path / "none"))
    run = finetune(**given, max_bad=0.1, output_dir=str(tmp_path / "run"))
    count = 14 if task == "segmentation" else 24
    assert f"1 of the {count} labeled images cannot be read" in caplog.text
    saved = Split.load(run.folder / "split.json")
    assert len(saved.labeled) == count - 1 and not any(victim.endswith(id) for id in saved.labeled)
    assert "it cannot be read" in (run.folder / "left_out.csv").read_text()
    assert run.metrics[f"probe_left_out_{'masks' if task == 'segmentation' else 'labels'}"] == count - 1


def test_labels_none_of_which_can_be_read_are_refused(photos, tmp_path):
    shutil.copytree(photos / "labeled", tmp_path / "data")
    source = load_source(str(tmp_path / "data"))
    split = make_split(source, 2, class_balanced=True, test_fraction=0.25)
    for left, words in ((1, "The only label is of the class"), (0, "2 of the 2 labeled .* no other label")):
        file = tmp_path / "data" / sorted(split.labeled)[left]
        file.write_bytes(b"\0" * file.stat().st_size)
        split.save(tmp_path / "split.json")
        with pytest.raises(UserError, match=words):
            data = dict(dataset=str(tmp_path / "data"), split=str(tmp_path / "split.json"), max_bad=0.5)
            finetune(**data, output_dir=str(tmp_path / "run"), **SMALL)


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
    assert not held.exists()


def test_a_lock_file_that_goes_while_it_is_taken_keeps_nobody_in(tmp_path, monkeypatch):
    """One who opened it just before its holder removed it locks the file that is at the path now."""
    run, listed = tmp_path / "run", tmp_path / "to_label"
    flock, left = fcntl.flock, []

    def late(file, how):
        """The holder lets go between the opening of the file and its lock: of the first with its folder, if empty."""
        if left:
            name = left.pop()
            os.unlink(name)
            with contextlib.suppress(OSError):
                os.rmdir(os.path.dirname(name))
        flock(file, how)

    monkeypatch.setattr(fcntl, "flock", late)
    left.append(run / ".lock")
    held = claim(run, resume=False)
    with pytest.raises(UserError, match=f"in use by process {os.getpid()}"):
        claim(run, resume=True)
    release(held)
    assert not run.exists()
    listed.mkdir()
    (listed / "index.html").touch()
    left.append(listed / BEGUN)
    with alone(listed), pytest.raises(UserError, match="Another process is writing"), alone(listed):
        pass
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / ".lock").symlink_to(tmp_path / "nowhere" / ".lock")
    with pytest.raises(UserError, match="cannot be written to"):
        claim(tmp_path / "kept", resume=False)


def test_a_file_system_without_locks_is_no_folder_in_use(tmp_path, monkeypatch, caplog):
    def none(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    assert claim(tmp_path / "run", resume=False) == tmp_path / "run"
    assert "cannot be locked (No locks available)" in caplog.text
    release(tmp_path / "run")


@pytest.mark.parametrize("why", [errno.ENOLCK, errno.ENOTSUP])
def test_without_locks_a_page_opens_and_a_run_is_pushed(why, tmp_path, monkeypatch, caplog):
    (tmp_path / ".lock").write_text("4711")
    with only_one(tmp_path), pytest.raises(UserError, match="labeled by another process"), only_one(tmp_path):
        pass
    with open(tmp_path / ".lock", "a+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert _in_use(tmp_path) == "4711"

    def none(*_):
        raise OSError(why, os.strerror(why))

    monkeypatch.setattr(fcntl, "flock", none)
    with only_one(tmp_path), alone(tmp_path / "to_label"):
        assert f"cannot be locked ({os.strerror(why)})" in caplog.text and _in_use(tmp_path) is None


@pytest.mark.parametrize("resume", [False, True])
def test_bad_input_found_late_leaves_no_folder(resume, photos, tmp_path):
    run = tmp_path / "runs" / "one"
    settings = dict(SMALL, dataset=str(photos / "labeled"), num_labels=8, method="supervised", output_dir=str(run))
    with pytest.raises(UserError, match="no score to stop by.*--validation N"):
        finetune(**settings, early_stopping=2, resume=resume)
    assert not (tmp_path / "runs").exists()
    run.mkdir(parents=True)  # a folder of the user's own stays, and so does what he keeps above it
    with pytest.raises(UserError, match="no score to stop by.*--validation N"):
        finetune(**settings, early_stopping=2, resume=resume)
    assert run.is_dir() and not list(run.iterdir())
    finetune(**settings)


SQUARE = np.zeros((24, 24), np.uint8)


@pytest.mark.parametrize(
    "pixels, settings, words",
    [
        (dict(_00=np.zeros((20, 20), np.uint8)), {}, "There is a mask of 20 x 20 px for image '00.png' of 24 x 24 px"),
        (dict(_03=SQUARE + 9), dict(classes=BOTH_MASKS), "The mask of image '03.png' has the value 9"),
        (dict(_03=None), {}, "The image '03.png' is without a mask"),
        ({}, dict(classes=["a", "b"]), "has the value 2"),
        ({}, dict(classes=["a", "b", "b"]), "with different names"),
        ({}, dict(mask_format="colors", classes=BOTH_MASKS), "Mask format 'colors' needs the colour of each class"),
        ({}, dict(architecture="unett"), "unknown architecture 'unett': did you mean 'unet'"),
        (
            {},
            dict(class_balanced=True),
            "class_balanced is a setting of --task classification, and this is a run of segmentation",
        ),
        (
            {},
            dict(task="classification", method="fixmatch"),
            "architecture is a setting of --task segmentation, and this is a run of classification",
        ),
        ({}, dict(method="flexmatch"), "flexmatch is a method for classification"),
        ({}, dict(method="fixmatch", preset="cifar"), "unknown preset of fixmatch 'cifar'"),
        ({}, dict(metric_for_best_model="sel"), "metric_for_best_model is 'sel'"),
        ({}, dict(scale=[1.5, 0.5]), "It must be two factors"),
        ({}, dict(method="cutmix", batch_size=1), "sees 1 unlabeled image, but CutMix mixes at least 2"),
        ({}, dict(test_dataset_split="validation"), "There is no folder for split 'validation'"),
    ],
)
def test_bad_input_of_segmentation_is_refused(pixels, settings, words, masked, tmp_path):
    shutil.copytree(masked, tmp_path / "data")
    rewrite(tmp_path / "data", **pixels)
    (tmp_path / "labeled.txt").write_text("00\n03\n")
    given = {k: v for k, v in SEGMENT.items() if k != "num_labels"}
    given |= dict(
        dataset=str(tmp_path / "data"),
        split=str(tmp_path / "labeled.txt"),
        method="supervised",
        output_dir=str(tmp_path / "run"),
    )
    with pytest.raises(UserError) as e:
        finetune(**{**given, **settings})
    assert words in str(e.value), str(e.value)
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_a_manifest_that_names_an_image_without_a_mask_is_refused(masked):
    source = load_segmentation(masked)
    for part in ("labeled", "validation", "test"):
        parts = {"labeled": {"00.png": None}, "validation": ["01.png"], "test": ["02.png"]}
        parts[part] = {"15.png": None} if part == "labeled" else ["15.png"]
        split = Split(dataset=source.name, class_names=source.class_names, **parts)
        with (
            pytest.MonkeyPatch.context() as patch,
            pytest.raises(UserError, match="Image '15.png' of the split has no mask"),
        ):
            patch.setattr(Split, "load", lambda path: split)
            get_task("segmentation").read_split(DataArguments(masked, split="split.json"), source)


@pytest.mark.parametrize("method", ["supervised", "fixmatch", "probe"])
def test_a_manifest_of_one_class_is_refused_before_anything_is_decoded(method, tmp_path, monkeypatch):
    from hf_lowlabel.tasks.classification import Classification

    digits = load_source("digits")
    ids = [digits.ids[i] for i in range(len(digits)) if digits.labels[i] == 3][:4]
    facts = dict(dataset=digits.name, fingerprint=digits.fingerprint, class_names=digits.class_names, seed=0)
    Split(**facts, labeled=dict.fromkeys(ids, "3"), validation=[], test=[]).save(tmp_path / "split.json")
    monkeypatch.setattr(Classification, "caches", lambda *args: pytest.fail("images were decoded"))
    with pytest.raises(UserError, match="All 4 labels are of the class '3'. Label at least one image of another"):
        finetune(
            "digits", "resnet10t", method, split=tmp_path / "split.json", output_dir=tmp_path / "run", from_scratch=True
        )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "method", ["supervised", "fixmatch", "self-training", "probe", "label-spreading", "propagation"]
)
@pytest.mark.parametrize("prior", [False, True])
def test_a_manifest_without_labels_is_refused_before_anything_is_decoded(method, prior, tmp_path, monkeypatch):
    """A linear layer alone can be fitted to prior pseudo-labels and nothing else."""
    from hf_lowlabel.tasks.classification import Classification

    if prior and not find(method).prior or not prior and find(method).prior == "must":
        return
    digits = load_source("digits")
    facts = dict(dataset=digits.name, fingerprint=digits.fingerprint, class_names=digits.class_names, seed=0)
    Split(**facts, labeled={}, validation=[], test=[]).save(tmp_path / "split.json")
    save_priors(tmp_path / "p.safetensors", np.full((len(digits), 10), 0.1), digits.ids, digits.class_names)
    monkeypatch.setattr(Classification, "caches", lambda *args: pytest.fail("images were decoded"))
    given = dict(split=tmp_path / "split.json", output_dir=tmp_path / "run", from_scratch=True)
    given |= dict(prior=tmp_path / "p.safetensors") if prior else {}
    if prior and method == "probe":
        with pytest.raises(pytest.fail.Exception, match="decoded"):
            finetune("digits", "resnet10t", method, **given)
        return
    with pytest.raises(UserError, match=f"There are no labels, and {method} needs some. Label at least one ima") as e:
        finetune("digits", "resnet10t", method, **given)
    assert ("--method probe" in str(e.value)) == prior and not (tmp_path / "run").exists()


def test_a_manifest_without_masks_is_refused(masked, tmp_path):
    source = load_segmentation(masked)
    facts = dict(dataset=source.name, fingerprint=source.fingerprint, class_names=source.class_names)
    Split(**facts, labeled={}, validation=[], test=["02.png"]).save(tmp_path / "split.json")
    given = {k: v for k, v in SEGMENT.items() if k != "num_labels"} | dict(split=tmp_path / "split.json")
    with pytest.raises(UserError, match="There are no labels, and supervised needs some"):
        finetune(masked, method="supervised", output_dir=tmp_path / "run", **given)
