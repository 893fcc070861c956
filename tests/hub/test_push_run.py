"""A run that pushes itself at its end, the command line, and what a failed push leaves."""

from __future__ import annotations

import json

import pytest

from hf_lowlabel.cli import main
from hf_lowlabel.errors import UserError
from hf_lowlabel.hub.push import push
from hf_lowlabel.hub.upload import PushError
from hf_lowlabel.models.travelling import NETWORKS
from hf_lowlabel.records import RunRecord

TINY = dict(
    dataset="digits",
    model="cnn6_16",
    from_scratch=True,
    image_size=16,
    stored_size=16,
    color=False,
    max_steps=2,
    logging_steps=1,
    save_steps=2,
    batch_size=10,
    num_labels=20,
    unlabeled_ratio=1,
    eval_steps=100,
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    from hf_lowlabel import finetune

    return finetune(**TINY, output_dir=str(tmp_path_factory.mktemp("runs") / "digits"))


def test_python_and_the_command_line_push_the_same(hub, run, capsys):
    done = push(run.folder, "org/digits", private=True)
    there = hub.repos["model", "org/digits"].content()
    assert {
        "model.safetensors",
        "config.json",
        "README.md",
        "split.json",
        "metrics.json",
        "run.json",
        "curves.png",
        "confusion.png",
        "predictions.png",
        "reliability.png",
        "training.yaml",
        "log.jsonl",
        "preprocessor_config.json",
        "standalone.py",  # the code of cnn6, which timm lacks
        *NETWORKS,
    } == set(there)
    assert RunRecord.from_json(run.folder / "run.json").hub_id == "org/digits" and done.url == f"{hub.url}/org/digits"
    assert main(["push", str(run.folder), "org/digits", "--private"]) == 0
    assert (
        capsys.readouterr().out.strip() == f"{hub.url}/org/digits"
        and len(hub.repos["model", "org/digits"].history()) == 2
    )
    assert main(["push", str(run.folder), "org/digits2", "--create-pr"]) == 0
    assert capsys.readouterr().out.strip().endswith("org/digits2/discussions/1")
    assert main(["push", str(run.folder / "split.json"), "org/splits", "--name", "d20"]) == 0
    assert json.loads(hub.repos["dataset", "org/splits"].content()["d20/split.json"])["dataset"] == "digits"


def test_the_command_line_says_what_is_wrong(hub, run, capsys, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_read")
    assert main(["push", str(run.folder), "org/digits"]) == 2
    said = capsys.readouterr().err
    assert (
        "may not write to org/digits" in said
        and f"hf-lowlabel push {run.folder} org/digits" in said
        and "Traceback" not in said
    )
    assert main(["push", str(run.folder), "digits"]) == 2
    assert main(["push", str(run.folder), "org/digits", "--name", "x"]) == 2
    assert "belong to a split manifest" in capsys.readouterr().err


def test_at_the_end_of_a_run(hub, tmp_path, monkeypatch):
    """Who may not push hears it before training; a Hub that fails at the end leaves a whole run and says what to do."""
    from hf_lowlabel import finetune
    from hf_lowlabel.training import run as training

    with monkeypatch.context() as patch:
        patch.setenv("HF_TOKEN", "hf_read")
        patch.setattr(training, "prepare", lambda *a: pytest.fail("training began"))
        with pytest.raises(PushError, match="may only read"):
            finetune(**TINY, push_to_hub="org/digits", output_dir=str(tmp_path / "a"))
        with pytest.raises(UserError, match="Give org/name"):
            finetune(**TINY, push_to_hub="digits", output_dir=str(tmp_path / "a"))
    folder = tmp_path / "b"
    hub.fault("/commit/", 500, times=-1)
    with pytest.raises(PushError, match=f"Nothing is lost: the run is whole in {folder}"):
        finetune(**TINY, push_to_hub="org/digits", hub_private=True, output_dir=str(folder))
    assert hub.repos["model", "org/digits"].private and set(hub.repos["model", "org/digits"].content()) == set()
    assert (folder / "metrics.json").is_file() and not (folder / ".lock").exists()
    hub.faults.clear()
    assert main(["push", str(folder), "org/digits", "--private"]) == 0
    assert (folder / "model.safetensors").read_bytes() == hub.repos["model", "org/digits"].content()[
        "model.safetensors"
    ]
