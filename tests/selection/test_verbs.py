"""The whole round trip on a small folder and on two processes; bad input before anything is written."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file
from torch import nn

from hf_lowlabel.cli import main
from hf_lowlabel.data.labels.labels import LabelRules
from hf_lowlabel.data.opening import load_source
from hf_lowlabel.data.splits.drawing import make_split
from hf_lowlabel.data.splits.splits import Split
from hf_lowlabel.errors import UserError
from hf_lowlabel.labeling.importing import import_labels
from hf_lowlabel.labeling.labels import Asked, Labels, write_labels
from hf_lowlabel.labeling.to_label import check_folder, export
from hf_lowlabel.locks import open_alone
from hf_lowlabel.selection.prior_labels import priors
from hf_lowlabel.selection.reasons import reasons
from hf_lowlabel.selection.verbs import select
from hf_lowlabel.training.priors import load_priors

COLOURS = ["red", "green", "blue"]


class Ended:
    """What a finished run shows of itself to verbs that take one: its folder."""

    def __init__(self, folder):
        self.folder = folder

    def __fspath__(self) -> str:
        return str(self.folder)


def test_folder_to_manifest_to_priors(backbone, photos, tmp_path, capsys):
    out = tmp_path / "to_label"
    assert (
        main(
            [
                "select",
                "--model",
                backbone,
                "--dataset",
                str(photos),
                "--budget",
                "6",
                "--output",
                str(out),
                "--device",
                "cpu",
            ]
        )
        == 0
    )
    assert "6 images; look at index.html" in capsys.readouterr().out
    task = Asked.load(out)
    source = load_source(photos)
    assert len(task.files) == 6 and set(task.files.values()) <= set(source.ids)
    for file, id in task.files.items():
        assert (out / "images" / file).read_bytes() == (photos / id).read_bytes()  # copied as they are
    page = (out / "index.html").read_text()
    assert page.count("<section") == 6 and page.count("data:image/jpeg;base64,") == 36
    assert sum(int(n) for n in re.findall(r"nearest chosen image of (\d+) images", page)) == 24
    assert "photo 0" in page and str(photos) not in page and backbone not in (out / "selection.json").read_text()
    tasks = json.loads((out / "label_studio_tasks.json").read_text())
    assert [t["data"]["image_id"] for t in tasks] == list(task.files.values()) and "<Choices" in (
        out / "label_studio_config.xml"
    ).read_text()
    truth = {id: COLOURS[int(id[6:8]) % 3] for id in source.ids}
    write_labels(out / "labels.csv", task, Labels({id: truth[id] for id in task.files.values()}))
    assert main(["split", "--from", str(out), "--dataset", str(photos), "--output", str(tmp_path / "split.json")]) == 0
    split = Split.load(tmp_path / "split.json")
    assert split.labeled == {id: truth[id] for id in task.files.values()} and len(split.resolve(source).train) == 24
    with pytest.raises(UserError, match="model is a Linear. Give a timm name, a Hub id, a folder, a finished run"):
        priors(nn.Linear(2, 2), str(photos), split=tmp_path / "split.json", output=tmp_path / "p.safetensors")
    scores = priors(
        Ended(backbone),
        str(photos),
        split=str(tmp_path / "split.json"),
        output=str(tmp_path / "p.safetensors"),
        device="cpu",
        features=str(out / "features.safetensors"),
    )
    assert scores["images"] == 24 and scores["labeled"] == 6 and "accuracy" not in scores  # nobody knows the truth
    p = load_priors(tmp_path / "p.safetensors", source.ids, split.class_names).numpy()
    agree = np.mean([split.class_names[row.argmax()] == truth[id] for id, row in zip(source.ids, p, strict=True)])
    assert p.shape == (24, len(split.class_names)) and agree > 0.8


def test_a_second_round_leaves_labeled_and_held_out_images_alone(backbone, photos, tmp_path):
    source = load_source(photos)
    base = Split(
        "photos",
        ["red", "green", "blue"],
        {source.ids[0]: "red", source.ids[1]: "green"},
        fingerprint=source.fingerprint,
        validation=source.ids[2:4],
        test=source.ids[4:8],
    )
    base.save(tmp_path / "base.json")
    done = select(
        backbone,
        str(photos),
        budget=14,
        strategy="coreset",
        output=str(tmp_path / "out"),
        split=str(tmp_path / "base.json"),
        device="cpu",
    )
    assert set(done.ids) <= set(source.ids[8:]) and len(done.ids) == 14
    assert (tmp_path / "out" / "classes.txt").read_text() == "red\ngreen\nblue\n"
    write_labels(tmp_path / "out" / "labels.csv", Asked.load(tmp_path / "out"), Labels({done.ids[0]: "blue"}))
    split, _ = import_labels(tmp_path / "out", source=source)
    assert set(split.labeled) == {source.ids[0], source.ids[1], done.ids[0]} and split.test == base.test


def test_copies_are_left_out_and_reported(backbone, photos, tmp_path, capsys):
    for n in (3, 4, 5):
        (photos / f"copy of {n}.png").write_bytes((photos / f"photo 0{n}.png").read_bytes())
    done = select(backbone, str(photos), budget=24, strategy="coreset", output=str(tmp_path / "out"), device="cpu")
    assert done.report["copies"] == 3 and ["photo 03.png", "copy of 3.png"] in done.report["copies_shown"]
    assert not any(f"photo 0{n}.png" in done.ids and f"copy of {n}.png" in done.ids for n in (3, 4, 5))
    assert done.report["near_copies"]["copy of 3.png"] == ["photo 03.png"]
    with pytest.raises(UserError, match="24 images to choose from after leaving out 3 copies"):
        select(backbone, str(photos), budget=25, output=str(tmp_path / "out2"), device="cpu")


def test_labels_of_other_photos_are_named_as_such(photos, tmp_path):
    """Filled in they are, so that to fill them in is no advice."""
    (given := tmp_path / "other.csv").write_text("image,label\nX1.jpg,red\nX2.jpg,green\n")
    rules = LabelRules(skip_missing=True)
    with pytest.raises(UserError, match="No row of other.csv is of an image of .*: 2 were left out, such as 'X1.jpg'"):
        import_labels(given, source=load_source(photos), new_classes=True, rules=rules)


@pytest.mark.parametrize("strategy", ["as3l", "random", "coreset"])
def test_copies_of_labeled_images_are_not_asked_for(backbone, photos, tmp_path, strategy):
    """A burst or a second upload: a person would label the same picture again."""
    for n in (3, 4, 5):
        (photos / f"copy of {n}.png").write_bytes((photos / f"photo 0{n}.png").read_bytes())
    given, how = tmp_path / "given.csv", dict(strategy=strategy, device="cpu")
    given.write_text("image,label\nphoto 03.png,red\ncopy of 4.png,green\n")
    done = select(backbone, str(photos), budget=22, labels=given, output=tmp_path / "out", **how)
    assert {*done.ids}.isdisjoint({f"{of} {n}.png" for n in (3, 4) for of in ("photo", "copy of")} | {"photo 03.png"})
    assert {"photo 05.png", "copy of 5.png"} & {*done.ids} and done.report["copies"] == 3
    assert ["copy of 3.png", "photo 03.png"] in done.report["copies_shown"]
    with pytest.raises(
        UserError,
        match="22 images .* leaving out 3 copies, 2 of them of images that have a label or are held out. Use --budg",
    ):
        select(backbone, str(photos), budget=23, labels=given, output=tmp_path / "out2", **how)
    given.write_text("image,label\n" + "".join(f"photo {n:02}.png,red\n" for n in range(24)))
    with pytest.raises(
        UserError, match="copies, 3 of them of images that have a label or are held out. There is nothing new to label"
    ):
        select(backbone, str(photos), budget=1, labels=given, output=tmp_path / "out2", **how)


@pytest.mark.parametrize("strategy", ["as3l", "coreset"])
def test_copies_of_held_out_images_are_not_asked_for(backbone, photos, tmp_path, strategy):
    """They would be labeled, and the test images that they are copies of left out of the test."""
    for n in (3, 4, 5):
        (photos / f"copy of {n}.png").write_bytes((photos / f"photo 0{n}.png").read_bytes())
    ids = sorted(file.name for file in photos.iterdir())
    held = dict(validation=["photo 03.png"], test=["copy of 4.png"], passed_over=["photo 05.png"])
    Split("photos", ["red"], {"photo 00.png": "red"}, **held).save(tmp_path / "split.json")
    how = dict(strategy=strategy, split=tmp_path / "split.json", device="cpu")
    done = select(backbone, str(photos), budget=20, output=tmp_path / "out", **how)
    assert {*done.ids} == {f"photo {n:02}.png" for n in range(24)} - {f"photo 0{n}.png" for n in (0, 3, 4, 5)}
    assert done.report["copies"] == 3 and ["photo 04.png", "copy of 4.png"] in done.report["copies_shown"]
    assert done.report["images"] == len(ids) - 2  # among which those were chosen
    shown = (tmp_path / "out" / "index.html").read_text()
    assert "copy of 4.png" not in shown and "photo 03.png" not in shown


def test_fewer_images_than_the_usual_budget_with_a_copy_among_them(backbone, photos, tmp_path):
    for file in sorted(photos.iterdir())[8:]:
        file.unlink()
    (photos / "again.png").write_bytes((photos / "photo 00.png").read_bytes())
    done = select(backbone, str(photos), budget=40, output=tmp_path / "out", device="cpu", at_most=True)
    assert len(done.ids) == 8 and done.report["copies"] == 1
    given = tmp_path / "all.csv"
    given.write_text("image,label\n" + "".join(f"photo {n:02}.png,red\n" for n in range(8)))
    with pytest.raises(UserError, match="There is nothing new to label"):
        select(backbone, str(photos), budget=40, labels=given, output=tmp_path / "out2", device="cpu", at_most=True)


@pytest.mark.parametrize("frames", [2, 8])
def test_frames_of_a_burst_are_near_copies(frames):
    """However many of the nearest images are of the same burst."""
    x = np.repeat(np.eye(6, dtype=np.float32), frames, 0)
    x[:, 0] += np.tile(np.arange(frames) * 1e-3, 6).astype(np.float32)
    source = load_source([np.full((8, 8, 3), i, np.uint8) for i in range(len(x))])
    why = reasons(x, np.arange(0, len(x), frames), source, np.arange(len(x)))
    assert all(sum(one["same"] for one in each["neighbours"]) == min(frames - 1, 6) for each in why)


@pytest.mark.parametrize(
    "change, words",
    [
        (dict(budget=25), "budget of 25 does not fit 24 images"),
        (dict(budget=0), "budget is 0. Give 1 or more"),
        (
            dict(budget=2, classes=["a", "b", "c"]),
            "2 cannot cover the 3 classes that have no label. Use --budget 3",
        ),
        (dict(strategy="as31"), "did you mean 'as3l'"),
        (dict(task="detection"), "unknown task"),
        (dict(strategy="class-balanced", budget=3), "no labels for the strategy"),
        (dict(split="nowhere.json"), "There is no nowhere.json"),
        (dict(dataset="nowhere/"), "no such path as 'nowhere/'"),
        (dict(model=nn.Linear(2, 2)), "model is a Linear. Give a timm name, a Hub id, a folder, a finished run"),
        (dict(labels={"a.png": "red"}), "labels is {'a.png': 'red'}. Give the path of a file or folder"),
        (dict(budget="4"), "budget is '4', which is no number. Give 1 or more"),
    ],
)
def test_bad_input(backbone, photos, tmp_path, change, words):
    with pytest.raises(UserError, match=words):
        select(
            **{
                **dict(model=backbone, dataset=str(photos), budget=4, output=str(tmp_path / "out"), device="cpu"),
                **change,
            }
        )
    assert not (tmp_path / "out" / "labels.csv").exists()


def test_some_unreadable_images_are_left_out_where_that_is_asked_for(backbone, photos, tmp_path, capsys):
    (photos / "photo 05.png").write_bytes(b"")
    argv = [
        "select",
        "--model",
        backbone,
        "--dataset",
        str(photos),
        "--budget",
        "3",
        "--output",
        str(tmp_path / "out"),
        "--device",
        "cpu",
    ]
    assert main(argv) == 2
    assert "1 of 24 images cannot be used ('photo 05.png'" in (error := capsys.readouterr().err)
    assert "or --max-bad 0.05 to leave them out" in error
    assert main([*argv, "--max-bad", "0.05"]) == 0
    assert Asked.load(tmp_path / "out").report["unreadable"][0][0] == "photo 05.png"


def test_priors_leave_out_the_label_of_an_image_that_cannot_be_read(backbone, photos, tmp_path, caplog):
    (photos / "photo 02.png").write_bytes(b"")
    source = load_source(str(photos))
    labeled = {id: "ab"[k % 2] for k, id in enumerate(source.ids[:6])}
    Split(source.name, ["a", "b"], labeled, fingerprint=source.fingerprint).save(tmp_path / "split.json")
    given = dict(split=str(tmp_path / "split.json"), finetune=False, device="cpu")
    with caplog.at_level("WARNING"):
        priors(backbone, str(photos), max_bad=0.05, output=str(tmp_path / "some.safetensors"), **given)
    assert "1 of the 6 labeled images cannot be read (photo 02.png): their labels are left out" in caplog.text
    kept = load_priors(tmp_path / "some.safetensors", source.ids[:2] + source.ids[3:6], ["a", "b"])
    assert kept.argmax(1).tolist() == [0, 1, 1, 0, 1]


@pytest.mark.parametrize(
    "given, words",
    [
        (["--neighbors", "7"], "The propagation 'clusters' has no neighbors"),
        (
            ["--propagation", "label-spreading", "--clusters", "3", "6"],
            "The propagation 'label-spreading' has no clusters",
        ),
    ],
)
def test_flags_of_the_other_propagation_are_refused(given, words, capsys):
    assert main(["priors", "--split", __file__, "--model", "nowhere", "--dataset", "digits", *given]) == 2
    assert words in capsys.readouterr().err


def test_a_folder_with_labels_is_never_written_over(backbone, photos, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "labels.csv").write_text("precious")
    with pytest.raises(UserError, match="nothing labeled is lost"):
        select(backbone, str(photos), budget=4, output=str(tmp_path / "out"), device="cpu")
    assert (tmp_path / "out" / "labels.csv").read_text() == "precious"


def test_images_browsers_cannot_show_become_png(backbone, photos, tmp_path):
    from PIL import Image

    Image.open(photos / "photo 00.png").save(photos / "photo 00.tif")
    (photos / "photo 00.png").unlink()
    done = select(backbone, str(photos), budget=24, strategy="random", output=str(tmp_path / "out"), device="cpu")
    files = {id: file for file, id in Asked.load(done.folder).files.items()}
    assert files["photo 00.tif"].endswith(".png") and Image.open(
        done.folder / "images" / files["photo 00.tif"]
    ).size == (16, 16)


def test_segmentation_asks_for_masks(backbone, tmp_path):
    from .conftest import paint

    paint(tmp_path / "set" / "images")
    (tmp_path / "classes.txt").write_text("background\nship\n")
    done = select(
        backbone,
        str(tmp_path / "set"),
        budget=3,
        strategy="k-medoids",
        output=str(tmp_path / "out"),
        task="segmentation",
        classes=str(tmp_path / "classes.txt"),
        device="cpu",
    )
    assert (
        '<Label value="ship"/>' in (done.folder / "label_studio_config.xml").read_text()
        and not (done.folder / "labels.csv").exists()
    )
    assert Split.load(done.folder / "split.json").labeled == dict.fromkeys(done.ids)


def test_one_and_two_processes_choose_the_same(backbone, tmp_path, monkeypatch):
    """Three batches of features, the last one not whole; by torchrun, as a user does."""
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    split = make_split(load_source("digits"), 1, seed=0, test_fraction=0.66)
    split.labeled = {}
    split.save(tmp_path / "split.json")
    given = ["--model", backbone, "--dataset", "digits", "--split", str(tmp_path / "split.json")]
    given = ["select", *given, "--budget", "12", "--device", "cpu", "--output"]
    files = [tmp_path / "out1", tmp_path / "out2"]
    assert main([*given, str(files[0])]) == 0
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [*torchrun, "-m", "hf_lowlabel", *given, str(files[1])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    a, b = (load_file(out / "features.safetensors") for out in files)
    assert (
        len(a["features"]) == 611
        and np.array_equal(a["features"], b["features"])
        and np.array_equal(a["indices"], b["indices"])
    )
    assert Asked.load(files[0]).files == Asked.load(files[1]).files


def test_a_folder_that_was_labeled_is_never_written_over(backbone, photos, tmp_path, capsys):
    """`select` was killed after its last file, or before it: only then the same command begins anew."""
    out, more = tmp_path / "out", ["--classes", *COLOURS, "--budget", "3", "--strategy", "k-medoids", "--device", "cpu"]
    command = ["select", "--model", backbone, "--dataset", str(photos), "--output", str(out), *more]
    assert main(command) == 0
    sealed, task = (out / "checksums.json").read_bytes(), Asked.load(out)
    whole = {p.name: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    write_labels(out / "labels.csv", task, Labels(dict.fromkeys(task.files.values(), "red")))
    labels = (out / "labels.csv").read_bytes()
    for lost in ("", "checksums.json"):
        (out / ".begun").write_text("`hf-lowlabel select` is writing here")
        (out / lost).unlink() if lost else None
        assert main(command) == 2 and "so that nothing labeled is lost" in capsys.readouterr().err
        assert (out / "labels.csv").read_bytes() == labels and len(list((out / "images").iterdir())) == 3
        assert not (out / ".begun").exists() and (out / "checksums.json").read_bytes() == sealed
    (out / ".begun").write_text("`hf-lowlabel select` is writing here")
    (out / "selection.json").unlink()
    assert main(command) == 0 and {p.name: p.read_bytes() for p in out.rglob("*") if p.is_file()} == whole


def test_a_folder_that_another_process_has_written_meanwhile_is_refused(photos, tmp_path):
    """Between the look at the folder and the lock."""
    source, out = load_source(photos), tmp_path / "out"
    asked = Asked(source.name, source.fingerprint, {}, class_names=COLOURS)
    why = [{"stands_for": 1, "neighbours": []}]
    first = export(out, source, np.array([3]), asked, why)
    before = {p.name: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    with pytest.raises(UserError, match="so that nothing labeled is lost"):
        export(out, source, np.array([5]), asked, why)
    assert {p.name: p.read_bytes() for p in out.rglob("*") if p.is_file()} == before and Asked.load(out) == first
    with open_alone(out / ".begun", ""):  # its writer has not ended yet
        with pytest.raises(UserError, match="There is checksums.json, classes.txt"):
            check_folder(out)
        assert (out / ".begun").exists()
