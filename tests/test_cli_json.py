"""--json: one object on stdout and nothing else, so that a program can drive the command line."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from hf_lowlabel.cli import main
from hf_lowlabel.cli.output import print_json
from hf_lowlabel.methods import METHODS
from hf_lowlabel.models import create_classifier


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A model, and a folder of images with two classes."""
    base, rng = tmp_path_factory.mktemp("json"), np.random.default_rng(0)
    torch.manual_seed(0)
    model = create_classifier("test_resnet", 2, pretrained=False, class_names=["blue", "red"], image_size=32)
    model.save_pretrained(base / "model")
    for k, name in enumerate(("red", "blue")):
        for i in range(8):
            pixels = rng.integers(0, 90, (24, 24, 3))
            pixels[..., 2 * k] += 120
            path = base / "photos" / name / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(path)
    return base


def said(capsys, *argv):
    assert main([str(word) for word in argv]) == 0
    return json.loads(capsys.readouterr().out)


def test_what_a_model_says(made, tmp_path, capsys):
    photos, model = made / "photos", made / "model"
    (photos / "red" / "torn.png").write_bytes(b"no image")
    rows = said(capsys, "predict", photos, "--model", model, "--output", tmp_path / "p.csv", "--json")
    (photos / "red" / "torn.png").unlink()
    assert len(rows["predictions"]) == 16 and rows["predictions"][0]["class"] in ("red", "blue")
    assert [reason for name, reason in rows["skipped"] if name.endswith("torn.png")] and rows["output"]
    found = said(capsys, "evaluate", "--model", model, "--dataset", photos, "--dataset-split", "train", "--json")
    assert found["images"] == 16 and 0 <= found["accuracy"] <= 1


def test_choosing_and_the_best_model(made, tmp_path, capsys):
    common = ["--dataset", made / "photos", "--model", made / "model", "--json"]
    found = said(capsys, "select", *common, "--budget", "4", "--output", tmp_path / "to_label")
    assert len(found["ids"]) == 4 and found["folder"] == str(tmp_path / "to_label")
    best = said(
        capsys, "auto", *common, "--no-train", "--num-labels", "8", "--class-balanced", "--output-dir", tmp_path / "run"
    )
    assert best["folder"] == str(tmp_path / "run") and best["ladder"][0]["kept"] and best["advice"]["sentences"]


def test_a_split_a_run_and_what_is_told_of_it(made, tmp_path, capsys):
    data = ["--dataset", made / "photos"]
    split = said(capsys, "split", *data, "--num-labels", "8", "--output", tmp_path / "split.json", "--json")
    assert split["labeled"] == 8 and split["class_names"] == ["blue", "red"] and split["hash"]
    given = [*data, "--split", tmp_path / "split.json", "--model", made / "model", "--device", "cpu", "--json"]
    run = said(capsys, "finetune", *given, "--method", "probe", "--output-dir", tmp_path / "run")
    assert run["folder"] == str(tmp_path / "run") and run.keys() == {"folder", "metrics", "steps"}
    page = said(capsys, "report", tmp_path / "run", "--quick", "--output", tmp_path / "report.html", "--json")
    assert page["bytes"] == (tmp_path / "report.html").stat().st_size
    space = said(capsys, "demo-app", tmp_path / "run", "--export-space", tmp_path / "space", "--json")
    assert space == {"folder": str(tmp_path / "space")}
    assert main(["demo-app", str(tmp_path / "run"), "--json"]) == 2 and not capsys.readouterr().out


def test_without_a_label_a_program_gets_an_error_and_no_page(made, tmp_path, capsys):
    (tmp_path / "flat").mkdir()
    for i, path in enumerate((made / "photos").rglob("*.png")):
        (tmp_path / "flat" / f"{i}.png").write_bytes(path.read_bytes())
    assert main(["auto", "--dataset", str(tmp_path / "flat"), "--output-dir", str(tmp_path / "run"), "--json"]) == 2
    told = capsys.readouterr()
    assert not told.out and "No image of" in told.err and not (tmp_path / "run").exists()


def test_methods(capsys):
    assert said(capsys, "methods", "--json").keys() == METHODS.keys()
    one = said(capsys, "methods", "fixmatch", "--json")["fixmatch"]
    assert one["hyperparameters"]["tau"] == 0.95 and "segmentation" in one["tasks"]


def test_numbers_that_json_lacks(capsys):
    print_json({"a": float("nan"), "b": np.float64("inf"), "c": np.arange(2), 1: "ä"})
    assert json.loads(capsys.readouterr().out) == {"a": None, "b": None, "c": [0, 1], "1": "ä"}
