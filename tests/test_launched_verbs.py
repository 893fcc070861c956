"""Two processes of a launch: what is not shared out is done once, and both end alike."""

import csv
import json

import numpy as np
import pytest
from safetensors.numpy import load_file

from hf_lowlabel import cli, finetune, load_source, make_split
from hf_lowlabel.models import create_backbone
from hf_lowlabel.selection.prior_labels import priors

from . import launched_verbs
from .pictures import OF_CLASSES, draw_nothing
from .processes import ranks


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "run"
    how = dict(method="supervised", image_size=16, num_labels=20, batch_size=4, max_steps=1)
    with pytest.MonkeyPatch.context() as patch:
        draw_nothing(patch.setattr, *OF_CLASSES)
        finetune(dataset="digits", model="cnn6_16", from_scratch=True, **how, test_fraction=0.05, output_dir=folder)
    return folder


def of_two(function, folder, *args):
    """What the two processes leave, the first one first."""
    ranks(function, folder, *args, folder=folder)
    left = [json.loads((folder / f"rank-{rank}.json").read_text()) for rank in (0, 1)]
    assert all(one["of"] == "2" for one in left)  # the environment is whole again
    return left


@pytest.mark.parametrize("verb", cli.VERBS)
def test_which_verbs_the_first_process_does_alone(verb, monkeypatch):
    """The others have a part in the work, or wait, or have nothing to do."""
    waited = []
    monkeypatch.setattr(cli, "by_the_first", lambda work: waited.append(work) or 7)
    monkeypatch.setattr(cli, "answer", lambda argv: 8)
    for name, value in dict(RANK="1", WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT="1").items():
        monkeypatch.setenv(name, value)
    expected = 8 if verb in cli.SHARED else 0 if verb in ("methods", "env") else 7
    assert cli.main([verb, "x"]) == expected and len(waited) == (expected == 7)
    assert cli.main([verb, "--help"]) == cli.main([]) == cli.main(["nonsense"]) == 0
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert cli.main([verb, "x"]) == 8 and len(waited) == (expected == 7)


def test_a_table_of_predictions_is_written_once(model, tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    for i in range(3):
        load_source("digits").image(i).save(photos / f"{i}.png")
    argv = ["predict", str(photos), "--model", str(model), "--output", str(tmp_path / "p.csv"), "--device", "cpu"]
    first, other = of_two(launched_verbs.run, tmp_path, argv)
    assert (first["code"], other["code"]) == (0, 0)
    assert "wrote 3 predictions" in first["said"] and other["said"] == ""
    with open(tmp_path / "p.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == 3
    first, other = of_two(launched_verbs.run, tmp_path, argv)  # it is there already: an error, for both
    assert (first["code"], other["code"]) == (2, 2)


def test_metrics_are_told_once(model, tmp_path):
    argv = ["evaluate", "--model", str(model), "--dataset", "digits", "--output", str(tmp_path / "out"), "--json"]
    first, other = of_two(launched_verbs.run, tmp_path, argv)
    assert first["code"] == other["code"] == 0 and other["said"] == ""
    assert json.loads(first["said"])["accuracy"] == json.loads((tmp_path / "out/metrics.json").read_text())["accuracy"]


def test_a_run_is_uploaded_once(tmp_path):
    first, other = of_two(launched_verbs.counted, tmp_path, ["push", "run", "org/name"])
    assert first["code"] == other["code"] == 0 and len(list(tmp_path.glob("upload-*"))) == 1
    assert first["said"] == "https://hub\n" and other["said"] == ""


@pytest.mark.parametrize("how, code", [("Ctrl-C", 130), ("SIGTERM", 143), ("full disk", 2)])
def test_both_end_as_the_first_does(how, code, tmp_path):
    assert [one["code"] for one in of_two(launched_verbs.ended, tmp_path, how)] == [code, code]


def test_the_first_is_gone_without_a_word(tmp_path):
    ranks(launched_verbs.ended, tmp_path, "gone", folder=tmp_path)
    assert not (tmp_path / "rank-0.json").exists()
    assert json.loads((tmp_path / "rank-1.json").read_text())["code"] == 1


def test_priors_need_no_file_of_features(tmp_path):
    """Two processes share the features out, and have those of one."""
    create_backbone("cnn6_16", pretrained=False).save_pretrained(tmp_path / "backbone")
    make_split(load_source("digits"), 20, class_balanced=True).save(tmp_path / "split.json")
    given = dict(model=str(tmp_path / "backbone"), split=str(tmp_path / "split.json"), image_size=16)
    priors(dataset="digits", **given, output=str(tmp_path / "one.safetensors"), device="cpu")
    flags = [word for name, value in given.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    argv = ["priors", "--dataset", "digits", *flags, "--output", str(tmp_path / "two.safetensors"), "--device", "cpu"]
    first, other = of_two(launched_verbs.run, tmp_path, argv)
    assert first["code"] == other["code"] == 0 and "next: " in first["said"] and other["said"] == ""
    one, two = (load_file(tmp_path / f"{name}.safetensors")["priors"] for name in ("one", "two"))
    assert np.array_equal(one, two)
