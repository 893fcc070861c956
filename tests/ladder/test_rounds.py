"""Rounds of labels as a person goes through them: an oracle fills in labels.csv, processes are killed in between."""

import json

import pytest
import torch

from hf_lowlabel.cli import main
from hf_lowlabel.errors import UserError
from hf_lowlabel.ladder import rounds
from hf_lowlabel.ladder.estimates import Interval
from hf_lowlabel.ladder.rounds import gain_of, loop, sentence
from hf_lowlabel.models import create_backbone

from .test_auto import photos


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("net")
    create_backbone("resnet10t", pretrained=False, image_size=32).save_pretrained(folder)
    return str(folder)


def answer(folder, leave=0):
    """The class of a file is the first word of its name; the last `leave` stay open."""
    head, *rows = (folder / "labels.csv").read_text().splitlines()
    known = [row.replace(",,", f",{row.split(',')[1].split('-')[0]},", 1) for row in rows[: len(rows) - leave]]
    (folder / "labels.csv").write_text("\n".join([head, *known, *rows[len(rows) - leave :]]) + "\n")


def test_from_no_label_round_by_round(network, tmp_path, capsys):
    """Each call ends where labels are needed; the same command goes on. A second process is refused."""
    data, out = photos(tmp_path / "photos", each=16, sort=False), tmp_path / "loop"
    argv = ["loop", str(data), "--model", network, "--output-dir", str(out), "--budget", "9", "--per-round", "6"]
    argv += ["--no-train", "--json"]

    def step(*more):
        assert main([*argv, *more]) == 0
        return json.loads(capsys.readouterr().out.splitlines()[-1])

    said = step()
    assert said == {"rounds": [], "to_label": str(out / "round-0" / "to_label"), "open": 9}
    answer(out / "round-0" / "to_label", leave=2)
    assert step()["open"] == 2 and not (out / "round-1").exists()
    answer(out / "round-0" / "to_label")
    (out / "round-1").mkdir()
    (out / "round-1" / "training.yaml").write_text("of a process that was killed")
    said = step()
    assert said["to_label"] == str(out / "round-1" / "to_label") and said["open"] == 6
    assert [one["labels"] for one in said["rounds"]] == [9]
    answer(out / "round-1" / "to_label", leave=1)
    said = step("--partial")
    assert [one["labels"] for one in said["rounds"]] == [9, 14] and said["open"] == 6
    lines = [json.loads(line) for line in (out / "rounds.jsonl").read_text().splitlines()]
    assert lines == said["rounds"] and lines[1]["accuracy"]["low"] <= lines[1]["accuracy"]["high"]
    assert len(list((out / "features").glob("*.safetensors"))) == 1  # computed once
    assert main([*argv[:-1], "--no-page"]) == 0
    assert "6 images wait for a label" in capsys.readouterr().out


def test_a_page_is_shown_until_no_image_is_left(network, tmp_path, capsys, monkeypatch):
    """Labels in the data at the beginning; the person answers all on the page; stops where nothing is left."""
    data, out, shown = photos(tmp_path / "photos", each=6, sort=False), tmp_path / "loop", []
    rows = [f"{kind}-{i:02d}.png,{kind}" for kind in ("blue", "red", "white") for i in range(3)]
    (tmp_path / "labels.csv").write_text("file_name,label\n" + "\n".join(rows) + "\n")
    monkeypatch.setattr("hf_lowlabel.selection.pages.label", lambda place, **_: shown.append(place) or answer(place))
    argv = ["loop", str(data), "--model", network, "--output-dir", str(out), "--per-round", "5", "--no-train"]
    assert main([*argv, "--labels", str(tmp_path / "labels.csv")]) == 0
    text = capsys.readouterr().out
    assert shown == [out / "round-1" / "to_label", out / "round-2" / "to_label"]
    assert "No image is left to choose" in text and "5 more labels: " in text
    assert [json.loads(line)["labels"] for line in (out / "rounds.jsonl").read_text().splitlines()] == [9, 14, 18]


def test_two_processes_at_once(network, tmp_path):
    (tmp_path / "loop").mkdir()
    held = rounds.claim(tmp_path / "loop", resume=True)
    try:
        with pytest.raises(UserError, match="in use by process"):
            loop(photos(tmp_path / "photos", each=2), network, tmp_path / "loop")
    finally:
        rounds.release(held)


def test_what_another_round_would_bring():
    now, later = Interval(0.7, 0.6, 0.8), Interval(0.8, 0.7, 0.9)
    assert gain_of(now, later, 40, 60).value == pytest.approx(0.1)  # 2.5 times the labels: the forecast itself
    small, large = gain_of(now, later, 40, 10), gain_of(now, later, 40, 40)
    assert 0 < small.value < large.value < 0.1 and small.high - small.low < large.high - large.low
    assert sentence(Interval(0.03, -0.01, 0.07), False, 20, 0) == "20 more labels: +3 points (-1 to +7, 80 %). Go on."
    said = sentence(Interval(0.004, -0.03, 0.04), True, 20, 3)
    assert "hardly worth a round. Stop here, or correct first the 3 that look wrong" in said
    assert "too few" in sentence(None, False, 20, 0)


def test_bad_input(network, tmp_path, capsys):
    assert main(["loop", "digits", "--model", network, "--output-dir", str(tmp_path / "a"), "--per-round", "0"]) == 2
    assert "--per-round of at least 1" in capsys.readouterr().err and not (tmp_path / "a").exists()
    (tmp_path / "b" / "round-1").mkdir(parents=True)
    (tmp_path / "b" / "round-1" / "thesis.txt").write_text("of somebody else")
    assert main(["loop", "digits", "--model", network, "--output-dir", str(tmp_path / "b")]) == 2
    assert "no loop.json" in capsys.readouterr().err and (tmp_path / "b" / "round-1" / "thesis.txt").exists()
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "loop.json").write_text('{"dataset": "others"}')
    assert main(["loop", "digits", "--model", network, "--output-dir", str(tmp_path / "c")]) == 2
    assert "are about others, not about digits" in capsys.readouterr().err
