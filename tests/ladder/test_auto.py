"""`auto` as people use it: photos in folders, labels in a table, no labels at all, and input that cannot work."""

import contextlib
import inspect
import json
import os
import re
import shlex
import shutil
import zlib
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from PIL import Image
from transformers import AutoModelForImageClassification

from hf_lowlabel import auto as whole_auto, evaluate, finetune, load_source, pretrain
from hf_lowlabel.cli import main
from hf_lowlabel.errors import UserError
from hf_lowlabel.labeling.labels import Asked
from hf_lowlabel.labeling.next_steps import after_labels
from hf_lowlabel.ladder import on_features, search_state
from hf_lowlabel.ladder.auto import NoLabels, claimed
from hf_lowlabel.ladder.estimates import Interval
from hf_lowlabel.ladder.frozen import rounds_of
from hf_lowlabel.ladder.report import why_less
from hf_lowlabel.models import create_backbone
from hf_lowlabel.records import Stage
from hf_lowlabel.training.lineage import labels_seen


def auto(*args, **given):
    """Only heads on frozen features: what trains is in test_trained.py."""
    return whole_auto(*args, **{"train": False, **given})


def photos(folder, each=24, classes=("blue", "red", "white"), sort=True, strength=120):
    """Coloured noise, a class a colour."""
    rng = np.random.default_rng(0)
    for k, name in enumerate(classes):
        for i in range(each):
            pixels = rng.integers(0, 90, (20, 20 + i % 3, 3))
            pixels[..., k if k < 2 else slice(None)] += strength
            path = folder / name / f"{i:02d}.png" if sort else folder / f"{name}-{i:02d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(path)
    return folder


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """A saved encoder."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("net")
    create_backbone("test_resnet", pretrained=False, image_size=32).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def found(tmp_path_factory, network):
    base = tmp_path_factory.mktemp("auto")
    data = photos(base / "photos")
    best = auto(data, network, num_labels=18, class_balanced=True, test_fraction=0.2, output_dir=base / "run")
    return base, data, best


def test_what_it_leaves_is_an_ordinary_run(found):
    base, data, best = found
    assert os.fspath(best) == os.fspath(best.run) == str(base / "run")
    assert best.run.metrics["accuracy"] > 0.9
    rows = best.run.recorder.comparisons  # of the other rungs, each as uncertain as its test images make it
    assert rows and all("accuracy_error" in row.metrics for row in rows)
    again = AutoModelForImageClassification.from_pretrained(base / "run")
    pixels = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(again(pixels).logits, best.model.eval()(pixels).logits)
    assert evaluate(base / "run", data)["accuracy"] == pytest.approx(best.run.metrics["accuracy"])
    record = json.loads((base / "run" / "run.json").read_text())
    assert [row["kept"] for row in record["ladder"]] == [True, False, False, False, False]
    card = (base / "run" / "README.md").read_text()
    assert "## What was tried" in card and "Unlabeled images" in card


def test_its_settings_make_the_same_by_hand(found, tmp_path):
    """training.yaml of the run, which names the manifest beside it, is a run of finetune with the same answers."""
    base, _, best = found
    code = main(["finetune", "--config", str(base / "run/training.yaml"), "--output-dir", str(tmp_path / "by-hand")])
    assert code == 0
    own = AutoModelForImageClassification.from_pretrained(tmp_path / "by-hand")
    pixels = torch.rand(16, 3, 32, 32)
    with torch.no_grad():
        a, b = own(pixels).logits, best.model.eval()(pixels).logits
    assert (a.argmax(1) == b.argmax(1)).all()


def test_advice_is_on_the_page_and_in_json(found):
    base, _, best = found
    said = json.loads((base / "run" / "advice.json").read_text())
    assert said["sentences"] == best.advice.sentences and 0 <= said["accuracy"]["low"] <= said["accuracy"]["high"] <= 1
    page = (base / "run" / "advice.html").read_text()
    assert "What was tried" in page and "Label these next" in page and "<script" not in page
    assert any(line.startswith("On new images") for line in best.advice.sentences)


def test_the_next_round_keeps_the_labels_of_this_one(found, network, tmp_path):
    base, data, best = found
    rows = (best.to_label / "labels.csv").read_text().splitlines()
    ids = [row.split(",")[1] for row in rows[1:]]
    assert len(ids) == 20 and not set(ids) & set(json.loads((base / "run/split.json").read_text())["labeled"])
    said = json.loads((best.to_label / "suggestions.json").read_text())
    assert set(said) == set(ids) and all(0 < one["looks_like"][1] <= 1 for one in said.values())
    filled = [rows[0]] + [row.replace(",,", f",{row.split(',')[1].split('/')[0]},", 1) for row in rows[1:]]
    (best.to_label / "labels.csv").write_text("\n".join(filled) + "\n")
    with pytest.raises(UserError, match="not empty.*cannot resume. Give another --output-dir, such as .*run-2"):
        auto(data, network, labels=best.to_label, output_dir=base / "run")
    more = auto(data, network, labels=best.to_label, output_dir=tmp_path / "next", features=base / "run/features")
    split = json.loads((tmp_path / "next" / "split.json").read_text())
    assert len(split["labeled"]) == 38 and split["test"] == json.loads((base / "run/split.json").read_text())["test"]
    assert more.run.metrics["accuracy"] > 0.9


def test_features_are_computed_once(found, network, tmp_path, monkeypatch):
    base, data, _ = found
    from hf_lowlabel.tasks.classification import Classification

    asked = []
    monkeypatch.setattr(Classification, "features", lambda *a: asked.append(a))
    run = auto(
        data,
        network,
        split=base / "run/split.json",
        features=base / "run/features",
        output_dir=tmp_path / "b",
        to_label=0,
    )
    assert not asked and run.to_label is None


def test_two_encoders_and_a_module_in_memory(found, network, tmp_path):
    _, data, _ = found
    torch.manual_seed(1)
    other = timm.create_model("test_resnet")
    best = auto(data, [network, other], num_labels=18, class_balanced=True, output_dir=tmp_path / "two", to_label=3)
    assert len({one.encoder for one in best.ladder}) == 2 and (tmp_path / "two" / "config.json").is_file()


def test_labels_in_a_table(network, tmp_path):
    data = photos(tmp_path / "flat", each=10, sort=False)
    names = sorted(p.name for p in data.iterdir())
    rows = [f"{n},{n.split('-')[0]}" for n in names if int(n[-6:-4]) < 4]
    (tmp_path / "labels.csv").write_text("file_name,label\n" + "\n".join(rows) + "\n")
    best = auto(data, network, labels=tmp_path / "labels.csv", output_dir=tmp_path / "run", to_label=0)
    assert len(best.ladder) == 5 and best.model.config.num_labels == 3 and not best.run.metrics


def test_images_without_labels_are_chosen_and_the_page_is_opened(network, tmp_path, monkeypatch, capsys):
    data, opened = photos(tmp_path / "flat", each=6, sort=False), []
    told: list[str] = []

    def shown(folder, then, **_):
        opened.append(folder)
        told.append(then)

    monkeypatch.setattr("hf_lowlabel.labeling.pages.label", shown)
    argv = [
        "auto",
        "--dataset",
        str(data),
        "--model",
        str(network),
        "--budget",
        "5",
        "--output-dir",
        str(tmp_path / "r"),
    ]
    assert main(argv) == 0
    assert opened == [tmp_path / "r" / "to_label"] and len(list((opened[0] / "images").iterdir())) == 5
    said = capsys.readouterr().out
    assert "has a label: 5 are chosen" in said
    assert main(argv) == 0 and len(opened) == 2  # the page was closed: it opens again, with the same images
    other = [str(photos(tmp_path / "other", each=4, sort=False)) if word == str(data) else word for word in argv]
    assert main(other) == 2 and "are from other data, flat. Give another --output-dir." in capsys.readouterr().err
    rows = (opened[0] / "labels.csv").read_text().splitlines()
    filled = [row.replace(",,", f",{row.split(',')[1].split('-')[0]},", 1) for row in rows[1:]]
    (opened[0] / "labels.csv").write_text("\n".join([rows[0], *filled]) + "\n")
    assert f"then: {told[0]}" in said
    then = shlex.split(told[0])[1:]  # what it says to do next works
    assert then[then.index("--features") + 1] == str(tmp_path / "r" / "features")
    assert main([*then, "--no-train", "--to-label", "2"]) == 0
    assert len(list((tmp_path / "r" / "features").iterdir())) == 1 and not (tmp_path / "r/first/features").exists()
    assert f"--features {tmp_path / 'r' / 'features'}" in capsys.readouterr().out  # for the next round too
    assert main(["predict", str(data), "--model", str(tmp_path / "r")]) == 2
    assert f"Did you mean {tmp_path / 'r' / 'first'}, the newest in it?" in capsys.readouterr().err


def test_a_stop_while_images_are_chosen_says_what_resumes(network, tmp_path, monkeypatch, capsys):
    data = photos(tmp_path / "flat", each=6, sort=False)

    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("hf_lowlabel.selection.verbs.extract", stopped)
    for verb in ("auto", "loop"):
        argv = [verb, str(data), "--model", str(network), "--output-dir", str(tmp_path / verb), "--no-page"]
        assert main(argv if verb == "loop" else argv[:-1]) == 130
        assert f"the same command resumes from {tmp_path / verb}" in capsys.readouterr().err


@pytest.mark.parametrize("budget", ["0", "-3"])
def test_a_budget_of_no_image_is_refused(tmp_path, capsys, budget):
    """Whether it is needed or not: 0 is none, not the usual one."""
    data = photos(tmp_path / "flat", each=1, sort=False)
    argv = ["auto", "--dataset", str(data), "--budget", budget, "--output-dir", str(tmp_path / "r")]
    assert main(argv) == 2 and f"budget is {budget}. Give 1 or more." in capsys.readouterr().err
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("task", ["classification", "multilabel", "segmentation"])
def test_data_in_memory_without_labels_say_what_to_do(network, tmp_path, task):
    """A DataFrame compares its cells, which is neither true nor false."""
    images = [np.full((24, 24, 3), 9 * i, np.uint8) for i in range(6)]
    frame = pd.DataFrame({"image": images, "mask" if task == "segmentation" else "label": [None] * 6})
    given = list(zip(images, [None] * 6)) if task == "segmentation" else frame
    with pytest.raises(NoLabels, match=r"No image of 'memory' has .*`select\(.*images, budget=6, output="):
        auto(given, network, task=task, output_dir=tmp_path / "run", classes=["a", "b"] * (task == "segmentation"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("inside", ["", "images"])
def test_images_without_masks_are_chosen_and_the_page_is_opened(network, tmp_path, monkeypatch, capsys, inside):
    """Flat or in images/; what is printed then takes the masks over, and learns from them."""
    monkeypatch.chdir(tmp_path)
    photos(tmp_path / "flat" / inside, each=3, sort=False)
    argv = [
        "auto",
        "--task",
        "segmentation",
        "--dataset",
        "flat",
        "--model",
        str(network),
        "--classes",
        "ground",
        "disc",
    ]

    def paint(session, *_):
        for file in session.places:
            size = session.get("/images/" + file, {}) and Image.open(session.places[file].image).size
            mask = np.zeros(size[::-1], np.uint8)
            mask[:9] = 1
            session.save({"file": file}, zlib.compress(mask.tobytes()))
        print(session.parting())

    with monkeypatch.context() as m:
        m.setattr("hf_lowlabel.labeling.pages.serve", lambda session, *_: print(session.parting()))
        assert main([*argv, "--image-size", "32"]) == 0
        said = capsys.readouterr().out
        assert "No image of 'flat' has masks: up to 9 are chosen" in said and "0 of 9 images have a mask" in said
    monkeypatch.setattr("hf_lowlabel.labeling.pages.serve", paint)
    assert main([*argv, "--image-size", "32"]) == 0  # the same page
    then = shlex.split(capsys.readouterr().out.partition("; next: ")[2])
    assert then[1] == "split" and main(then[1:]) == 0
    then = shlex.split(capsys.readouterr().out.partition("; next: ")[2])
    given = dict(zip(then[2::2], then[3::2]))
    assert then[1] == "auto" and given["--model"] == str(network) and given["--image-size"] == "32"
    assert len(json.loads((tmp_path / given["--split"]).read_text())["labeled"]) == 9
    assert len(list((tmp_path / "flat" / "masks").iterdir() if inside else (tmp_path / "flat").glob("*_mask.png"))) == 9


def test_one_refusal_says_the_whole_commands(network, tmp_path, monkeypatch, capsys):
    """Where nobody is asked to paint, or the page cannot; they can be pasted."""
    monkeypatch.chdir(tmp_path)
    photos(tmp_path / "flat", each=3, sort=False)
    argv = ["auto", "--task", "segmentation", "--dataset", "flat", "--model", str(network)]
    assert main([*argv, "--json"]) == 2
    select, label, split, loop = (shlex.split(part)[1:] for part in capsys.readouterr().err.split("`")[1::2])
    assert [words[0] for words in (select, label, split, loop)] == ["select", "label", "split", "loop"]
    assert main([*argv, "--instances"]) == 2
    said = capsys.readouterr().err
    assert "no masks of --instances. Draw these with another tool" in said and "`" not in said
    assert main([*argv, "--mask-format", "binary", "--json"]) == 2
    assert "`hf-lowlabel loop flat --mask-format binary --task segmentation " in capsys.readouterr().err
    assert main(select) == 0 and label == ["label", "to_label"] and len(Asked.load("to_label").files) == 9
    assert loop == ["loop", "flat", "--task", "segmentation", "--model", str(network)]


def table(tmp_path, data, labels):
    (tmp_path / "labels.csv").write_text("file_name,label\n" + "".join(f"{n},{label}\n" for n, label in labels))
    return dict(labels=tmp_path / "labels.csv", output_dir=tmp_path / "run")


@pytest.mark.parametrize(
    "labels, says",
    [
        ([("blue-00.png", "blue")], "The only label is of the class 'blue'"),
        ([("blue-00.png", "blue"), ("blue-01.png", "blue")], "All 2 labels are of the class 'blue'"),
    ],
)
def test_labels_of_one_class(network, tmp_path, labels, says):
    data = photos(tmp_path / "flat", each=4, sort=False)
    with pytest.raises(UserError, match=says):
        auto(data, network, **table(tmp_path, data, labels))
    assert not (tmp_path / "run").exists()


def test_the_same_picture_with_two_labels_and_in_the_test(network, tmp_path, caplog):
    data = photos(tmp_path / "train", each=6)
    (data / "red" / "copy.png").write_bytes((data / "blue" / "00.png").read_bytes())
    with pytest.raises(
        UserError, match="'blue/00.png' and 'red/copy.png' are the same picture, labeled 'blue' and 'red'"
    ):
        auto(data, network, output_dir=tmp_path / "run")
    (data / "red" / "copy.png").unlink()
    whole = tmp_path / "whole"
    (whole).mkdir()
    data.rename(whole / "train")
    for name in ("blue", "red", "white"):
        (whole / "test" / name).mkdir(parents=True)
        other = 0 if name == "blue" else 1
        pixels = (whole / "train" / name / f"{other:02d}.png").read_bytes()
        (whole / "test" / name / "a.png").write_bytes(pixels)
    (whole / "test" / "red" / "b.png").write_bytes((whole / "train" / "red" / "05.png").read_bytes())
    Image.fromarray(np.full((20, 20, 3), 200, np.uint8)).save(whole / "test" / "white" / "new.png")
    best = auto(whole, network, output_dir=tmp_path / "run", to_label=0)
    assert best.run.metrics["images"] == 1
    (whole / "test" / "white" / "new.png").unlink()
    with pytest.raises(UserError, match="Every test image is a copy of a labeled one. Hold out others"):
        auto(whole, network, output_dir=tmp_path / "copies", to_label=0)
    assert not (tmp_path / "copies").exists()


@pytest.mark.parametrize(
    "given, says",
    [
        (dict(minutes=0), "minutes is 0. Give a number above 0"),
        (dict(minutes="3"), "minutes is '3'. Give a number above 0"),
        (dict(labels={"a.png": "cat"}), "labels is {'a.png': 'cat'}. Give the path of a file or folder"),
        (dict(split=pd.DataFrame({"id": [1]})), "split is a DataFrame"),
        (dict(num_labels="many"), "num_labels is 'many'"),
        (dict(to_label="3"), "to_label is '3', which is no number"),
        (dict(labels="a.csv", split="b.json"), "--labels and --split cannot be given together"),
        (dict(split="b.json", num_labels=4), "--split and --num-labels cannot be given together"),
        (dict(lr=3), "lr is a setting of pretrain and finetune only, called learning_rate"),
    ],
)
def test_settings_that_do_not_go_together(network, tmp_path, given, says):
    with pytest.raises(UserError, match=says):
        auto("digits", network, output_dir=tmp_path / "run", **given)
    assert not (tmp_path / "run").exists()


def test_a_run_that_was_killed_goes_on_from_its_features(found, network, tmp_path, monkeypatch):
    """An end between features and model: the same command again ends."""
    _, data, _ = found

    class Killed(BaseException):
        """Nothing that is caught on the way."""

    def end(*args, **given):
        raise Killed

    with monkeypatch.context() as m, pytest.raises(Killed):
        m.setattr("hf_lowlabel.ladder.on_features.climb", end)
        auto(data, network, output_dir=tmp_path / "run")
    assert list((tmp_path / "run" / "features").iterdir()) and not (tmp_path / "run" / "run.json").exists()
    assert auto(data, network, output_dir=tmp_path / "run", to_label=0).ladder
    with pytest.raises(UserError, match="not empty"):
        auto(data, network, output_dir=tmp_path / "run")
    assert not (tmp_path / "run" / ".lock").exists()


@pytest.mark.parametrize("labels", [["blue", "red", "white"], ["blue", "blue", "red", "white"]])
def test_a_label_or_two_of_a_class(network, tmp_path, labels):
    """The first thing that people try: too few to be left out, and an answer all the same."""
    data = photos(tmp_path / "photos", each=8, sort=False)
    rows = [f"{name}-{i:02d}.png,{name}" for i, name in enumerate(labels)]
    (tmp_path / "labels.csv").write_text("file_name,label\n" + "\n".join(rows) + "\n")
    best = auto(data, network, labels=tmp_path / "labels.csv", output_dir=tmp_path / "run", to_label=2)
    said = " ".join(best.advice.sentences)
    assert "whether they help is unclear." in said and "too few for a forecast" in said
    assert AutoModelForImageClassification.from_pretrained(tmp_path / "run").config.id2label[2] == "white"


def test_all_images_have_a_label(network, tmp_path):
    best = auto(photos(tmp_path / "photos", each=6), network, output_dir=tmp_path / "run")
    assert "Unlabeled images: there are none." in best.advice.sentences and best.to_label is None


def test_weights_that_have_seen_the_labels_are_refused(found, network, tmp_path, monkeypatch):
    """Labels left out would be known to them; a head on frozen features has changed no weight, and is fine."""
    base, data, _ = found
    seen = dict(split=base / "run/split.json", to_label=0)
    finetune(data, str(network), method="supervised", max_steps=1, output_dir=tmp_path / "trained", split=seen["split"])
    of_folder = f"trained with 18 of these 18 labels.*before that, those of the folder {network.name}, as --model"
    for words in (of_folder, "before that, such as org/net, as --model"):
        with pytest.raises(UserError, match=words):
            auto(data, [network, tmp_path / "trained"], output_dir=tmp_path / "a", **seen)
        monkeypatch.setattr(search_state, "lineage_of", lambda model: [Stage("pretrained weights", "org/net")])
    assert not (tmp_path / "a").exists()
    assert auto(data, base / "run", output_dir=tmp_path / "b", **seen).advice.accuracy is not None
    pretrain(data, str(tmp_path / "trained"), method="simsiam", max_steps=1, batch_size=4, output_dir=tmp_path / "on")
    with pytest.raises(UserError, match="trained with 18 of these 18 labels"):  # what came between forgets nothing
        auto(data, tmp_path / "on", output_dir=tmp_path / "a", **seen)
    shutil.copytree(data, tmp_path / "of-another-name")
    for start in ("trained", "on"):
        given = dict(num_labels=18, class_balanced=True, to_label=0, output_dir=tmp_path / "a")
        with pytest.raises(UserError, match="of these 18 labels"):
            auto(tmp_path / "of-another-name", tmp_path / start, **given)
    checkpoint = next((tmp_path / "trained" / "checkpoints").iterdir())
    source = load_source(data)
    given = {id: source.class_names[k] for id, k in zip(source.ids, source.labels)}
    assert labels_seen(checkpoint, source, given) == 18
    other = replace(source, name="numbered alike")  # as the rows of two data sets of one size are
    assert labels_seen(checkpoint, other, given) == 18
    assert labels_seen(checkpoint, other, {id: "red" for id in given}) == 0


def test_copies_of_a_picture_are_left_out_together(network, tmp_path):
    """Labels by lot, each photo there three times: a copy would give the answer away."""
    rng = np.random.default_rng(0)
    for i in range(24):
        small = rng.integers(0, 255, (5, 5, 3)).astype(np.uint8)
        folder = tmp_path / "photos" / "ab"[int(rng.integers(2))]
        folder.mkdir(parents=True, exist_ok=True)
        for k in range(3):
            Image.fromarray(small).resize((40, 40), Image.Resampling.NEAREST).save(folder / f"{i:02d}-{k}.png")
    best = auto(tmp_path / "photos", network, output_dir=tmp_path / "run", to_label=0)
    assert all(one.accuracy < 0.75 for one in best.ladder) and best.advice.accuracy.low < 0.6


def test_photos_by_day_with_a_table_of_labels(network, tmp_path):
    """Folders that sort images are no classes where the table says others; the next round and a run by hand neither."""
    data, rows = photos(tmp_path / "photos", classes=("monday", "tuesday", "friday"), each=10), []
    for k, day in enumerate(("monday", "tuesday", "friday")):
        rows += [(f"{day}/{i:02d}.png", "even" if (i + k) % 2 == 0 else "odd") for i in range(5)]
    best = auto(data, network, to_label=3, **table(tmp_path, data, rows))
    assert list(best.model.config.id2label.values()) == ["even", "odd"]
    config = str(tmp_path / "run" / "training.yaml")
    assert main(["finetune", "--config", config, "--output-dir", str(tmp_path / "by-hand")]) == 0
    filled = (best.to_label / "labels.csv").read_text().replace(",,", ",odd,")
    (best.to_label / "labels.csv").write_text(filled)
    again = auto(data, network, to_label=0, labels=best.to_label, output_dir=tmp_path / "b")
    assert len(again.run.recorder.split.labeled) == 18


def test_folders_by_day_are_said_to_be_classes_and_no_better_than_guessing(network, tmp_path, capsys):
    """The photos of each day are of all kinds: noise."""
    data, rng = tmp_path / "photos", np.random.default_rng(0)
    for day in ("2024-05-12", "2024-05-13", "2024-06-01 garden"):
        (data / day).mkdir(parents=True)
        for i in range(8):
            Image.fromarray(rng.integers(0, 255, (20, 20, 3)).astype(np.uint8)).save(data / day / f"{i}.png")
    run = tmp_path / "run"
    flags = ["--model", str(network), "--no-train", "--to-label", "0", "--output-dir", str(run)]
    with pytest.warns(UserWarning, match="give --plain-folders"):
        assert main(["auto", str(data), "--budget", "5", *flags]) == 0
    said = capsys.readouterr()
    assert said.err.count("labels from 3 folders: 2024-05-12 (8), 2024-05-13 (8), 2024-06-01 garden (8)") == 1
    assert "--budget 5 is of no use" in said.err
    guessing = "This may be no better than guessing: "
    assert guessing in said.out and guessing in (run / "advice.html").read_text()
    assert json.loads((run / "advice.json").read_text())["guessing"] is True
    assert main(["report", str(run), "--quick", "--output", str(tmp_path / "r.html")]) == 0
    page = (tmp_path / "r.html").read_text()
    assert guessing in page and "What was tried" in page and "It was not evaluated" not in page
    with pytest.raises(NoLabels):
        auto(data, network, plain_folders=True, output_dir=tmp_path / "none")


def test_folders_that_only_sort_are_no_classes_in_evaluation_either(network, tmp_path, capsys):
    """As the run was trained, where nothing else is said: its test images have the labels of its manifest."""
    data = photos(tmp_path / "photos", classes=("monday", "tuesday", "friday"), each=10)
    rows = [(f"{day}/{i:02d}.png", "odd" if i % 2 else "even") for day in ("monday", "friday") for i in range(8)]
    given = table(tmp_path, data, rows)
    run = auto(data, network, plain_folders=True, test_fraction=0.5, to_label=3, **given)
    assert run.run.metrics["images"] == 8
    assert evaluate(run.folder, data)["accuracy"] == pytest.approx(run.run.metrics["accuracy"])
    assert evaluate(run.folder, photos(tmp_path / "new", classes=("even", "odd"), each=3))["images"] == 6
    assert "--plain-folders" in after_labels(run.to_label, Asked.load(run.to_label))


def test_a_class_with_one_label_is_named(network, tmp_path):
    data = photos(tmp_path / "photos", each=6, sort=False)
    names = [(kind, i) for kind in ("blue", "red") for i in range(4)] + [("white", 0)]
    given = table(tmp_path, data, [(f"{kind}-{i:02d}.png", kind) for kind, i in names])
    best = auto(data, network, to_label=0, **given)
    assert any(line.startswith("No label of white could be held out") for line in best.advice.sentences)


def test_labels_of_the_data_that_a_table_leaves_out_are_counted(network, tmp_path, caplog):
    data = photos(tmp_path / "photos", each=6)
    rows = [(f"{kind}/{i:02d}.png", kind) for kind in ("blue", "red", "white") for i in range(3)]
    auto(data, network, to_label=0, **table(tmp_path, data, rows))
    assert "9 images have a label in the data and none in labels.csv, such as blue/03.png" in caplog.text


def test_the_console_says_what_to_expect_and_not_that_nothing_was_measured(network, tmp_path, capsys):
    data = photos(tmp_path / "photos", each=6)
    flags = ["--no-train", "--to-label", "0", "--output-dir", str(tmp_path / "run"), "--device", "cpu"]
    assert main(["auto", str(data), "--model", str(network), *flags]) == 0
    said = capsys.readouterr().out
    assert "On new images: " in said and "measured" not in said and "guessing" not in said
    kept = float(re.search(r"^\* +([\d.]+) %", said, re.M)[1])
    expected = 100 * json.loads((tmp_path / "run/advice.json").read_text())["accuracy"]["value"]
    page = (tmp_path / "run/advice.html").read_text()
    less = f"Expect less on new images ({expected:.0f} %)"
    assert (less in said) == (less in page) == (round(expected) < round(kept))


def test_why_the_table_shows_more_than_is_to_be_expected():
    ladder = [{"kept": False, "by_labels": 0.9}, {"kept": True, "by_labels": 0.472}]
    assert "Expect less on new images (38 %)" in why_less(ladder, Interval(0.38, 0.14, 0.61))
    assert why_less(ladder, Interval(0.47, 0.3, 0.6)) == why_less(ladder, None) == why_less([], None) == ""


def test_classes_that_are_several_ask_for_another_task(network, tmp_path, caplog):
    data = photos(tmp_path / "photos", each=4, sort=False)
    given = table(tmp_path, data, [(f"blue-0{i}.png", "sky;sea" if i % 2 else "sky") for i in range(4)])
    auto(data, network, to_label=0, **given)
    assert "'sky;sea' name several at once: --task multilabel" in caplog.text


def test_new_photos_in_folders_are_evaluated(found, tmp_path, capsys):
    """Other data than the model's own, with no split of its own and a model that held nothing out."""
    base, data, _ = found
    run = auto(data, base / "run", output_dir=tmp_path / "r", to_label=0)
    assert "accuracy" not in run.run.metrics
    assert evaluate(tmp_path / "r", photos(tmp_path / "new", each=3))["images"] == 9
    assert main(["evaluate", "--model", str(tmp_path / "r"), "--dataset", str(tmp_path / "new")]) == 0
    argv = ["evaluate", "--model", str(tmp_path / "r"), "--dataset", str(tmp_path / "new")]
    capsys.readouterr()
    assert main([*argv, "--output", str(tmp_path / "e")]) == 0
    said = capsys.readouterr().out
    made = sorted(file.name for file in (tmp_path / "e").glob("*.png"))
    assert f"wrote {', '.join(['metrics.json', *made])} to {tmp_path / 'e'}" in said
    assert "balanced_accuracy" in said and "top5" not in said  # of three classes


def test_a_manifest_of_the_user_outlives_bad_input(network, tmp_path):
    """Where the run folder is the one his manifest lies in."""
    data = photos(tmp_path / "photos", each=6)
    made = auto(data, network, num_labels=6, output_dir=tmp_path / "first", to_label=0)
    (tmp_path / "mine").mkdir()
    text = (made.folder / "split.json").read_text()
    (tmp_path / "mine" / "split.json").write_text(text)
    with pytest.raises(UserError):
        auto(data, tmp_path / "no-such-model", split=tmp_path / "mine/split.json", output_dir=tmp_path / "mine")
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["split.json"]
    assert (tmp_path / "mine" / "split.json").read_text() == text


def test_a_search_with_its_features_elsewhere_goes_on(found, network, tmp_path, monkeypatch, caplog):
    """Stopped while what it found is saved: nothing in the folder but notes and a part of the model."""
    base, data, _ = found
    given = dict(features=base / "run/features", num_labels=9, output_dir=tmp_path / "run")

    def stopped(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as m, pytest.raises(KeyboardInterrupt):
        m.setattr("hf_lowlabel.ladder.on_features.write_advice", stopped)
        auto(data, network, **given)
    assert "the same command resumes" in caplog.text and (tmp_path / "run" / "model.safetensors").is_file()
    with pytest.raises(UserError, match="tried with other labels. Give"):
        auto(data, network, **{**given, "num_labels": 12})
    best = auto(data, network, **given)
    assert (best.folder / "advice.html").is_file() and not (best.folder / "search.json").exists()


def test_an_encoder_that_had_no_time_has_none_when_the_search_goes_on(found, network, tmp_path, monkeypatch):
    """Its features would be there by then, and another best encoder makes other trials; more minutes bring it in."""
    _, data, _ = found
    torch.manual_seed(1)
    create_backbone("test_resnet", pretrained=False, image_size=32).save_pretrained(tmp_path / "other")
    given = dict(num_labels=9, output_dir=tmp_path / "run", to_label=0)

    class Killed(BaseException):
        """Nothing that is caught on the way."""

    def end(*args, **given):
        raise Killed

    for rounds in (1, 2):  # of cross-validation: another number may have another best rung
        with monkeypatch.context() as m, pytest.raises(Killed):
            m.setattr("hf_lowlabel.ladder.on_features.take", end)
            auto(data, [network, tmp_path / "other"], minutes=1e-9, **given)
        kept = json.loads((tmp_path / "run" / "search.json").read_text())
        assert (kept["encoders"], kept["rounds"]) == (1, rounds)
        (tmp_path / "run" / "search.json").write_text(json.dumps({**kept, "rounds": 2}))
    best = auto(data, [network, tmp_path / "other"], minutes=5, **given)
    assert {one.encoder for one in best.ladder} == {network.name, "other"}
    assert rounds_of(best.ladder) == 3


def test_an_encoder_that_cannot_be_had_is_told_before_the_first_is_asked(found, network, tmp_path, monkeypatch):
    """Features of a million images take hours."""
    _, data, _ = found

    def asked(*_):
        raise AssertionError("features were made")

    monkeypatch.setattr("hf_lowlabel.ladder.on_features.features_of_encoder", asked)
    with pytest.raises(UserError, match="nowhere"):
        auto(data, [network, str(tmp_path / "nowhere")], num_labels=9, output_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_command_hands_on_every_flag(monkeypatch):
    """What a flag says reaches `auto`, those of masks too, and every parameter has a flag."""
    seen, parameters = {}, inspect.signature(whole_auto).parameters

    def record(**given):
        seen.update(given)
        raise UserError("seen")

    monkeypatch.setattr("hf_lowlabel.ladder.auto.auto", record)
    flags = "--mask-column m --classes a b --mask-format binary --mask-ignore 3 --instances --pages --label-column l"
    assert main(["auto", "--dataset", "d", "--task", "segmentation", *flags.split()]) == 2
    assert seen.keys() == parameters.keys()
    assert [seen[k] for k in ("mask_column", "classes", "mask_format", "mask_ignore", "instances", "pages")] == [
        *("m", ["a", "b"], "binary", [3], True, True)
    ]


def test_a_search_that_was_ended_before_its_features_goes_on(tmp_path):
    """It has noted down its labels; a folder with anything else is somebody's."""
    for name in ("split.json", "training.yaml"):
        (tmp_path / name).write_text("of a process that was killed")
    with claimed(tmp_path) as folder:
        assert (folder / "split.json").is_file()
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="not empty"), claimed(tmp_path):
        pass


FEATURES = {"features/test-0.safetensors": "", "split.json": ""}


@pytest.mark.parametrize(
    "files, begun",
    [
        (FEATURES, True),
        ({"search.json": "{}", "trials/plan.json": "{}", "model.safetensors": ""}, True),
        ({"features/mine.npy": ""}, False),
        ({"features": ""}, False),
        ({"trials/1/study.db": "", "split.json": ""}, False),
        ({**FEATURES, "checkpoints/mine.pt": ""}, False),
        ({"trials/mine.csv": "", "notes.txt": "", "log.jsonl": ""}, False),
        ({"search.json": '{"query": 1}', "trials/mine.csv": ""}, False),
        ({"search.json": "[]", "trials/mine.csv": ""}, False),
    ],
)
def test_a_folder_of_somebody_is_no_search_whatever_its_folders_are_called(tmp_path, files, begun):
    """Going on would write a model among them, and remove checkpoints and trials."""
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    with contextlib.nullcontext() if begun else pytest.raises(UserError, match="is not empty"):
        with claimed(tmp_path) as folder:
            assert folder.samefile(tmp_path)
    if not begun:
        assert before == {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), UserError("every way diverged")])
def test_trials_of_a_search_that_failed_are_not_those_of_another(found, network, tmp_path, monkeypatch, error):
    """They stay with what they are of: other labels are refused, and the same search goes on with them."""
    _, data, _ = found
    given, plan = dict(num_labels=9, output_dir=tmp_path / "run", to_label=0), tmp_path / "run/trials/plan.json"

    def fails(ready, *_):
        plan.parent.mkdir(exist_ok=True)
        plan.write_text("{}")
        raise error

    with monkeypatch.context() as m, pytest.raises(type(error)):
        m.setattr("hf_lowlabel.ladder.auto.from_features", fails)
        auto(data, network, **given)
    with pytest.raises(UserError, match="was tried with other labels"):
        auto(data, network, **{**given, "num_labels": 12})
    assert plan.is_file()
    best = auto(data, network, **given)
    assert plan.is_file() and len(best.run.recorder.split.labeled) == 9


def test_trials_of_which_nothing_says_what_they_are_of_are_not_taken_over(found, network, tmp_path):
    """As a version before left them."""
    _, data, _ = found
    (tmp_path / "trials").mkdir()
    (tmp_path / "trials/plan.json").write_text("{}")
    (tmp_path / "search.json").write_text("{}")
    auto(data, network, num_labels=9, output_dir=tmp_path, to_label=0)
    assert not (tmp_path / "trials").exists()


def encoder(folder, seed):
    torch.manual_seed(seed)
    create_backbone("test_resnet", pretrained=False, image_size=32).save_pretrained(folder)
    return folder


def test_a_search_is_of_the_weights_and_not_of_their_names(found, network, tmp_path, monkeypatch):
    """A second encoder of the same name, one trained again at its place; what an older version noted is taken up."""
    _, data, _ = found
    one, other = encoder(tmp_path / "a/backbone", 1), encoder(tmp_path / "b/backbone", 2)
    given = dict(num_labels=9, output_dir=tmp_path / "run", to_label=0)

    def stopped(*_):
        raise KeyboardInterrupt

    def begin(*models):
        with monkeypatch.context() as m, pytest.raises(KeyboardInterrupt):
            m.setattr("hf_lowlabel.ladder.auto.from_features", stopped)
            auto(data, models, **given)

    begin(network, one)
    with pytest.raises(UserError, match="tried with other weights"):
        auto(data, [network, other], **given)
    with pytest.raises(UserError, match=r"with other settings \(max_bad was 0.01, now 0.5\)\. Give another"):
        auto(data, [network, one], max_bad=0.5, **given)
    with pytest.raises(UserError, match=r"with other labels\. Give another"):
        auto(data, [network, one], **dict(given, num_labels=12))
    shutil.copytree(one, tmp_path / "c/backbone")
    begin(network, tmp_path / "c/backbone")
    encoder(one, 3)
    with pytest.raises(UserError, match="tried with other weights"):
        auto(data, [network, one], **given)
    known = json.loads((tmp_path / "run/search.json").read_text())
    known["facts"] = {name: known["facts"][name] for name in ("settings", "images", "labels")}
    (tmp_path / "run/search.json").write_text(json.dumps({k: v for k, v in known.items() if k != "train"}))
    (tmp_path / "run/trials").mkdir()
    begin(network, one)
    assert (tmp_path / "run/trials").is_dir()


def test_the_curve_is_drawn_before_the_time_of_networks_is_planned(found, network, tmp_path, monkeypatch):
    """Of many images it takes minutes, which were over when networks had had all of the time."""
    _, data, _ = found
    drawn, left, clock = [], [], 0.0

    def curve(encoders, tried, seconds):
        nonlocal clock
        drawn.append(seconds)
        clock += 100.0  # seconds that it takes
        return None

    def finetune_from(ready, given, encoders, best, seconds):
        left.append(seconds)
        return []

    counter = on_features.time.perf_counter
    monkeypatch.setattr(on_features, "time", SimpleNamespace(perf_counter=lambda: counter() + clock))
    monkeypatch.setattr(on_features, "curve_of", curve)
    monkeypatch.setattr(on_features, "finetune_from", finetune_from)
    monkeypatch.setattr(on_features, "adapt", lambda *_: None)
    auto(data, network, num_labels=9, output_dir=tmp_path / "run", to_label=0, train=True, minutes=10)
    assert len(drawn) == 1 and left[0] < 500 and drawn[0] < 60
