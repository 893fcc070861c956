"""`auto` with the names of the classes, without a label and with some."""

import json
import shutil
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from hf_lowlabel import auto, predict
from hf_lowlabel.cli import main
from hf_lowlabel.data.splits.splits import Split
from hf_lowlabel.errors import UserError
from hf_lowlabel.evaluation import inference
from hf_lowlabel.ladder import from_words
from hf_lowlabel.models import create_backbone
from hf_lowlabel.selection import features
from hf_lowlabel.tasks import get_task
from tests import launched_verbs
from tests.processes import ranks
from tests.transformers_repos import save_two_towers

COLOURS = {"red": (200, 40, 40), "green": (40, 200, 40), "blue": (40, 40, 200)}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(pictures without labels, an encoder, a CLIP that knows the three colours)"""
    base, rng = tmp_path_factory.mktemp("words"), np.random.default_rng(0)
    (base / "pictures").mkdir()
    for i in range(30):
        name = list(COLOURS)[i % 3]
        pixels = np.clip(np.array(COLOURS[name]) + rng.integers(-30, 30, (32, 32, 3)), 0, 255)
        Image.fromarray(pixels.astype(np.uint8)).save(base / "pictures" / f"{i:02d}.png")
    torch.manual_seed(0)
    create_backbone("test_resnet", pretrained=False, image_size=32).save_pretrained(base / "net")
    save_two_towers("CLIP", base / "clip", train=True)
    return base


def test_a_model_from_names_alone(made, tmp_path):
    given = ["--dataset", str(made / "pictures"), "--model", str(made / "net"), "--text-model", str(made / "clip")]
    more = ["--class-names", *COLOURS, "--output-dir", str(tmp_path / "run"), "--to-label", "3"]
    assert main(["auto", *given, *more]) == 0
    found = predict(made / "pictures", tmp_path / "run").rows
    right = [row["class"] == list(COLOURS)[i % 3] for i, row in enumerate(found)]
    assert np.mean(right) > 0.8
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert "No label was used" in record["advice"][0] and "clip" in record["ladder"][0]["name"]
    files = json.loads((tmp_path / "run" / "to_label" / "selection.json").read_text())["files"]
    asked = sorted(int(id[:2]) % 3 for id in files.values())
    assert asked == [0, 1, 2]  # one of each colour
    assert (
        main(["finetune", "--config", str(tmp_path / "run/training.yaml"), "--output-dir", str(tmp_path / "by")]) == 0
    )
    again = predict(made / "pictures", tmp_path / "by").rows
    assert [row["class"] for row in again] == [row["class"] for row in found]


def test_features_are_computed_once(made, tmp_path, monkeypatch):
    """For the graph, the head and what to label first; by the text model too, for a round with labels as well."""
    asked, looked, run_over = [], [], inference.run_over
    monkeypatch.setattr(inference, "run_over", lambda *of, **more: asked.append(1) or run_over(*of, **more))
    monkeypatch.setattr(features, "batches", lambda *of, of_all=features.batches: looked.append(1) or of_all(*of))
    given = dict(text_model=str(made / "clip"), class_names=list(COLOURS), train=False, to_label=3)
    given["features"] = tmp_path / "features"
    auto(made / "pictures", made / "net", output_dir=tmp_path / "run", **given)
    assert (len(asked), len(looked)) == (1, 1)
    rows = "".join(f"{i:02d}.png,{list(COLOURS)[i % 3]}\n" for i in range(6))
    (tmp_path / "labels.csv").write_text(f"file_name,label\n{rows}")
    auto(made / "pictures", made / "net", labels=tmp_path / "labels.csv", output_dir=tmp_path / "next", **given)
    assert (len(asked), len(looked)) == (1, 1)


def test_a_process_waits_for_the_first_to_forget_what_is_of_another_search(made, tmp_path, monkeypatch):
    """As the second of two, which looks for what names said while the first removes that."""
    run, waited = tmp_path / "run", []
    (run / "trials").mkdir(parents=True)
    (run / "search.json").write_text("{}")
    for name in ("words.safetensors", "words.json"):
        (run / "trials" / name).write_text("of another search")

    def barrier():
        waited.append(1)
        if len(waited) == 2:  # at the first one all have read
            shutil.rmtree(run / "trials")
        if len(waited) == 4:
            Split("pictures", list(COLOURS), {}).save(run / "trials" / "words.json")

    monkeypatch.setattr(from_words, "is_main_process", lambda: False)
    monkeypatch.setattr(from_words, "barrier", barrier)
    monkeypatch.setattr(from_words, "prepare", Mock())
    monkeypatch.setattr(from_words, "readable", Mock())
    monkeypatch.setattr(from_words, "features_of_encoder", Mock())
    monkeypatch.setattr(from_words, "said_of_images", Mock(side_effect=KeyboardInterrupt))  # they are asked for
    given = {"model": str(made / "net"), "seed": 0, "image_size": None, "device": None, "max_bad": 0.01}
    given["dataset"] = str(made / "pictures")
    with pytest.raises(KeyboardInterrupt):
        of = (get_task("classification"), given, str(made / "clip"), list(COLOURS), None)
        from_words.from_words(*of, run, run / "features", 0, "images")


def test_labels_and_names_together(made, tmp_path):
    """Two labels of two of the classes: the third is found by its name, it is said what the names were worth, and the
    same can be made by hand."""
    rows = "".join(f"{i:02d}.png,{list(COLOURS)[i % 3]}\n" for i in (0, 1, 3, 4, 6, 7))
    (tmp_path / "labels.csv").write_text(f"file_name,label\n{rows}")
    given = dict(labels=tmp_path / "labels.csv", text_model=str(made / "clip"), to_label=2, train=False)
    best = auto(made / "pictures", made / "net", class_names=list(COLOURS), output_dir=tmp_path / "run", **given)
    right = [row["class"] == list(COLOURS)[i % 3] for i, row in enumerate(predict(made / "pictures", best.folder).rows)]
    assert np.mean(right) > 0.9 and best.ladder[0].rung.names
    said = next(s for s in best.advice.sentences if s.startswith("Class names, as clip knows them"))
    assert (
        "of the labeled images by these alone; in cross-validation " in said
        and "right with them, " in said
        and " without: " in said
    )
    assert best.run.recorder.ladder[-1]["name"] == "class names alone, clip"
    settings = ["--config", str(best.folder / "training.yaml"), "--output-dir", str(tmp_path / "by-hand")]
    assert main(["finetune", *settings]) == 0
    again = predict(made / "pictures", tmp_path / "by-hand").rows
    assert [r["class"] for r in again] == [r["class"] for r in predict(made / "pictures", best.folder).rows]


def test_names_that_do_not_fit_the_labels(made, tmp_path):
    (tmp_path / "labels.csv").write_text("file_name,label\n00.png,red\n01.png,green\n03.png,red\n04.png,green\n")
    given = dict(labels=tmp_path / "labels.csv", text_model=str(made / "clip"), output_dir=tmp_path / "run")
    with pytest.raises(UserError, match="The classes cat, dog do not fit the labels, which are of green, red"):
        auto(made / "pictures", made / "net", class_names=["cat", "dog"], **given)
    with pytest.raises(UserError, match="used for one class an image, not for multilabel"):
        auto(made / "pictures", made / "net", task="multilabel", text_model=str(made / "clip"))


@pytest.mark.parametrize(
    "given, says",
    [
        (dict(class_names=["red", "blue"]), "Class names need a model that knows words"),
        (dict(text_model="clip", class_names=["red"]), "two classes or more"),
        (dict(text_model="net", class_names=["red", "blue"]), "text"),
    ],
)
def test_what_names_alone_cannot_do(made, tmp_path, given, says):
    if "text_model" in given:
        given = {**given, "text_model": str(made / given["text_model"])}
    with pytest.raises(UserError, match=says):
        auto(made / "pictures", made / "net", output_dir=tmp_path / "run", **given)
    assert not (tmp_path / "run" / "run.json").exists()


@pytest.mark.parametrize("labeled", [True, False])
def test_a_search_by_other_names_is_another(made, tmp_path, monkeypatch, labeled):
    """What was tried, and what the names say without a label, was tried with these."""
    rows = "".join(f"{i:02d}.png,{list(COLOURS)[i % 3]}\n" for i in range(6))
    (tmp_path / "labels.csv").write_text(f"file_name,label\n{rows}")
    given = dict(text_model=str(made / "clip"), output_dir=tmp_path / "run", train=False, to_label=0)
    if labeled:
        given["labels"] = tmp_path / "labels.csv"
    names = list(COLOURS)

    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("hf_lowlabel.ladder.auto.from_features", stopped)
    monkeypatch.setattr("hf_lowlabel.ladder.from_words.prepare", stopped)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            auto(made / "pictures", made / "net", class_names=names, **given)
    shutil.copytree(made / "clip", tmp_path / "clip")
    weights = load_file(tmp_path / "clip/model.safetensors")
    save_file({k: v + 1 for k, v in weights.items()}, tmp_path / "clip/model.safetensors", {"format": "pt"})
    for other in (
        dict(class_names=["red=crimson", *names[1:]]),
        dict(class_names=names, prompts=["a drawing of {}"]),
        dict(class_names=names, text_model=str(tmp_path / "clip")),
    ):
        with pytest.raises(UserError, match="tried with other"):
            auto(made / "pictures", made / "net", **{**given, **other})


def test_labels_and_none_are_searches_of_two_kinds(made, tmp_path, monkeypatch):
    """What was tried with some labels is not gone on with after a search without any in the same folder, nor with other
    images; what an older version noted of one without labels is not taken for nothing."""
    data, run = tmp_path / "pictures", tmp_path / "run"
    shutil.copytree(made / "pictures", data)
    for name, rows in (("a", range(6)), ("b", range(6, 12))):
        lines = "".join(f"{i:02d}.png,{list(COLOURS)[i % 3]}\n" for i in rows)
        (tmp_path / f"{name}.csv").write_text(f"file_name,label\n{lines}")
    given = dict(text_model=str(made / "clip"), class_names=list(COLOURS), output_dir=run, train=False, to_label=0)

    def stopped(*_):
        (run / "trials").mkdir(exist_ok=True)
        (run / "trials/folds.json").write_text("{}")
        raise KeyboardInterrupt

    def go(**more):
        with pytest.raises(KeyboardInterrupt):
            auto(data, made / "net", **given, **more)

    def refused(says):
        before = {p: p.read_bytes() for p in run.rglob("*.json")}
        with pytest.raises(UserError, match=f"tried with other {says}. Give another"):
            auto(data, made / "net", **given)
        assert {p: p.read_bytes() for p in before} == before

    monkeypatch.setattr("hf_lowlabel.ladder.auto.from_features", stopped)
    monkeypatch.setattr("hf_lowlabel.ladder.from_words.prepare", stopped)
    go(labels=tmp_path / "a.csv")
    refused("settings, labels, class names, prompts or text model")
    go(labels=tmp_path / "a.csv")
    (run / "search.json").write_text(json.dumps({"facts": {"no labels": "of an older version"}}))
    with pytest.raises(UserError, match="tried with other"):
        auto(data, made / "net", labels=tmp_path / "b.csv", **given)
    refused("settings, labels or images")
    shutil.rmtree(run)
    go()
    with pytest.raises(UserError, match="tried with other settings, labels, class names"):
        auto(data, made / "net", labels=tmp_path / "b.csv", **given)
    go()
    (data / "30.png").write_bytes((data / "00.png").read_bytes())
    refused("images or labels beside them")


def test_two_processes_have_the_model_of_one(made, tmp_path):
    """The second one reads what the first has noted in the folder, and neither waits for ever."""
    given = ["auto", "--dataset", str(made / "pictures"), "--model", str(made / "net"), "--device", "cpu"]
    given += ["--text-model", str(made / "clip"), "--class-names", *COLOURS, "--to-label", "0"]
    assert main([*given, "--output-dir", str(tmp_path / "one")]) == 0
    ranks(launched_verbs.late, tmp_path, [*given, "--output-dir", str(tmp_path / "two")], folder=tmp_path)
    assert [json.loads((tmp_path / f"rank-{rank}.json").read_text())["code"] for rank in (0, 1)] == [0, 0]
    assert not (tmp_path / "two/search.json").exists()
    one, two = (predict(made / "pictures", tmp_path / name).rows for name in ("one", "two"))
    assert [row["class"] for row in one] == [row["class"] for row in two]
