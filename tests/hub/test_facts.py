"""run.json: round trip, and nothing of this machine in it."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from hf_lowlabel import records as f
from hf_lowlabel.errors import UserError
from hf_lowlabel.tasks import of_record
from hf_lowlabel.training.lineage import compare_with, lineage_of


def run(**changes):
    values = dict(
        kind="classification",
        class_names=["cat", "dog"],
        lineage=[
            f.Stage("pretrained weights", "resnet18", hub_id="timm/resnet18"),
            f.Stage("finetuning", method="fixmatch"),
        ],
        data=f.Data("pets", images=100),
        labels=f.Labels(4, {"cat": 4, "dog": 0}, split_hash="ab"),
        metrics={"accuracy": 0.5, "confusion": [[1, 1], [1, 1]], "reliability": {}},
        comparisons=[f.Row("supervised", {"accuracy": 0.4, "confusion": [[1]]})],
        hyperparameters={"learning_rate": 0.03, "method_args": {"tau": 0.95}},
    )
    return f.RunRecord(**{**values, **changes})


def test_round_trip(tmp_path):
    facts = run()
    again = f.RunRecord.from_json(facts.to_json(tmp_path / "run.json"))
    assert again.labels.without == ["dog"]
    assert again == run(metrics={"accuracy": 0.5}, comparisons=[f.Row("supervised", {"accuracy": 0.4})])
    assert "confusion" in facts.metrics  # what was written was a copy
    assert os.listdir(tmp_path) == ["run.json"]


def test_bad_files_are_named(tmp_path):
    path = tmp_path / "run.json"
    with pytest.raises(UserError, match=r"There is no .*run\.json"):
        f.RunRecord.from_json(path)
    path.write_text("{")
    with pytest.raises(UserError, match="not JSON"):
        f.RunRecord.from_json(path)
    path.write_text(json.dumps({"kind": "classification", "lineage": [{"what": "x", "metod": "y"}]}))
    with pytest.raises(UserError, match="did you mean 'method'"):
        f.RunRecord.from_json(path)
    with pytest.raises(UserError, match="did you mean 'classification'"):
        of_record("clasification")


def test_lineage_continues_from_a_folder(tmp_path):
    assert lineage_of(tmp_path) == []
    run().to_json(tmp_path / "run.json")
    assert lineage_of(tmp_path) == run().lineage


@pytest.mark.parametrize(
    "split_hash, name",
    [
        ("ab", "supervised, same labels"),
        ("cd", "supervised, 4 labels of another split"),
        (None, "supervised, 4 labels of another split"),
    ],
)
def test_a_comparison_says_when_its_labels_are_others(tmp_path, split_hash, name):
    run(labels=f.Labels(4, split_hash=split_hash)).to_json(tmp_path / "run.json")
    row = compare_with(run(), tmp_path, "supervised, same labels")
    assert row.name == name and row.metrics == {"accuracy": 0.5}


def test_no_path_of_this_machine_and_no_token(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home" / "work").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "home" / "work")
    here = os.getcwd()
    text = f"a --out {here}/runs/x --data={tmp_path}/home/photos '/mnt/client/secret data' file://{here} "
    text += "https://hf.co/a/b hf_hub:org/name 1/2 and/or ./x ../y"
    assert f.public_text(text) == (
        "a --out path/to/x --data=path/to/photos 'path/to/secret data' file://path/to/work "
        "https://hf.co/a/b hf_hub:org/name 1/2 and/or x path/to/y"
    )
    assert f.public_text(r"--data C:\Users\me\photos x") == "--data path/to/photos x"
    token = "hf_" + "a" * 30
    facts = run(
        command=f"hf-lowlabel push --hub-token {token}",
        data=f.Data(f"{tmp_path}/home/pets"),
        hyperparameters={
            "output_dir": Path(here, "out"),
            "note": [token],
            "hub_token": "abc",
            "init_from": "/mnt/x/run",
        },
    )
    written = facts.to_json(Path("run.json")).read_text()
    for secret in (token, str(tmp_path), "/mnt", "abc"):
        assert secret not in written
    assert json.loads(written)["hyperparameters"] == {
        "output_dir": "path/to/out",
        "note": ["TOKEN"],
        "init_from": "path/to/run",
    }
    assert json.loads(written)["data"]["name"] == "path/to/pets"


@pytest.mark.parametrize(
    "path",
    [
        "/home/jane doe/photos",
        "/home/jane/photos/",
        r"C:\Users\jane doe\photos",
        "C:/Users/jane/photos",
        r"\\server\jane\photos",
        "//server/jane/photos",
        "../../jane/photos",
        r"..\jane\photos",
        "~/jane/photos",
        "~jane/photos",
        "clients/jane/photos",
        "file:///home/jane/photos",
        "jane/photos",  # a folder of that name is there
    ],
)
def test_nothing_of_a_path_but_its_last_part(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("jane/photos").mkdir(parents=True)
    facts = run(
        command=f.collect_command(["hf-lowlabel", "finetune", "--dataset", path, f"--split={path}"], {}),
        data=f.Data("pets", unlabeled_from=path),
        lineage=[f.Stage("pretrained weights", path, dataset=path)],
        hyperparameters={"init_from": path, "classes": [path], "architecture_args": {"x": path}},
    )
    written = facts.to_json(tmp_path / "run.json").read_text()
    assert "jane" not in written and written.count("path/to/photos") == 8
    again = f.RunRecord.from_json(tmp_path / "run.json")
    assert again.public() == again  # also of what was read, and what is no path stays
    assert "jane" not in f.public_text(f"the file '{path}' is not there")
    assert f.public_text("dataset:/home/jane/photos, as it was") == "dataset:path/to/photos, as it was"


def test_no_token_in_an_address():
    address = "https://jane:secret1@host.org/x?token=secret2&size=3&X-Amz-Signature=secret3"
    for text in (f.public_text(f"from {address} on"), f.public_values({"a": [address]})["a"][0]):
        assert "secret" not in text and "jane" not in text and "size=3" in text


@pytest.mark.parametrize("name", ["org/model", "hub:org/name/x@main", "hf_hub:timm/vit@v2", "photos", "and/or", "0.5"])
def test_what_is_no_path_stays(name):
    assert f.public_values(name) == name == f.public_text(name)


@pytest.mark.parametrize(
    "argv, world, command",
    [
        (
            ["/usr/local/bin/hf-lowlabel", "finetune", "--dataset", "my pets"],
            1,
            "hf-lowlabel finetune --dataset 'my pets'",
        ),
        (["recipes/digits.py", "--seed", "1"], 1, "python recipes/digits.py --seed 1"),
        (["recipes/digits.py"], 2, "torchrun --nproc_per_node=2 recipes/digits.py"),
    ],
)
def test_command(argv, world, command):
    assert f.collect_command(argv, {"WORLD_SIZE": str(world)}) == command


def test_command_of_a_module(monkeypatch):
    import importlib.machinery
    import types

    main = types.ModuleType("__main__")
    main.__spec__ = importlib.machinery.ModuleSpec("hf_lowlabel.__main__", None)
    monkeypatch.setitem(sys.modules, "__main__", main)
    assert f.collect_command(["/a/hf_lowlabel/__main__.py", "env"], {}) == "python -m hf_lowlabel env"
    main.__spec__ = importlib.machinery.ModuleSpec("hf_lowlabel.cli", None, origin="/a/hf_lowlabel/cli.py")
    assert f.collect_command(["/a/hf_lowlabel/cli.py", "env"], {}) == "python -m hf_lowlabel.cli env"
    assert (
        f.collect_command(["/a/recipes/x.py"], {}) == "python path/to/x.py"
    )  # another script, in a process of that module


def test_versions_and_hardware_are_json_and_name_nobody():
    import socket

    found = {**f.collect_versions(), **f.collect_hardware(processes=2)}
    assert {"python", "torch", "transformers", "cpu", "cores", "processes"} <= set(found) and found["cores"] >= 1
    assert socket.gethostname() not in json.dumps(found)
