"""Benchmarks whose figures stand in the READMEs, on generated images: they run, go on, and count right."""

import json
import re
import runpy
import subprocess
from pathlib import Path

import pytest

from hf_lowlabel.errors import UserError
from tests.processes import begun
from tests.quick import few_shapes
from tests.recipes.test_recipes import write
from tests.recipes.test_segment_recipes import mask, photo

BENCHMARKS = Path(__file__).resolve().parents[2] / "recipes" / "benchmarks"


def run(monkeypatch, folder: Path, name: str, *arguments) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr("sys.argv", [f"{name}.py", *map(str, arguments)])
    runpy.run_path(str(BENCHMARKS / f"{name}.py"), run_name="__main__")


@pytest.fixture
def bright(tmp_path) -> tuple[Path, Path]:
    """(parquet of 90 images of 3 classes that differ by brightness, a backbone with random weights)."""
    import torch

    from hf_lowlabel.models import create_backbone

    write(tmp_path / "data", "train", [i % 3 for i in range(90)], 3, "label", 16, "img")
    torch.manual_seed(0)
    create_backbone("wrn_10_2", pretrained=False, image_size=16).save_pretrained(tmp_path / "net")
    return tmp_path / "data", tmp_path / "net"


def test_as3l_tables_count_and_go_on(bright, tmp_path, monkeypatch, capsys):
    """Classes as far apart as these are all covered and all priors right; a second seed leaves the first as it is."""
    data, net = bright
    common = ("--dataset", data, "--model", net, "--image-size", 16, "--images", 80, "--labels", 3, 6, "--output=out")
    run(monkeypatch, tmp_path, "as3l_tables", *common, "--seeds", 0)
    text = capsys.readouterr().out
    assert (tmp_path / "out.md").read_text() in text and "3 labels" in text and "6 labels" in text
    first = json.loads((tmp_path / "out.json").read_text())["cells"]
    assert set(first) == {"3/0", "6/0"}
    assert first["3/0"]["table 6, priors right (%)"]["multi-cluster on f_fine"] == 100
    assert set(first["6/0"]["table 6, classes covered"].values()) == {3}
    by_k, spread = (first["6/0"][f"table {n}, priors right (%)"] for n in (9, 8))
    assert by_k["K, 2 K ... 6 K"] == spread["clusters, as3l"]
    run(monkeypatch, tmp_path, "as3l_tables", *common, "--seeds", 0, 1)
    second = json.loads((tmp_path / "out.json").read_text())["cells"]
    assert len(second) == 4 and all(second[key] == first[key] for key in first)
    assert re.search(r"\| multi-cluster on f_fine \| 3.0 ± 0.0 \| - \|", capsys.readouterr().out)
    with pytest.raises(UserError, match="other settings"):
        run(monkeypatch, tmp_path, "as3l_tables", *common, "--images", 70)


@pytest.mark.parametrize("method", ["fixmatch", "byol"])
def test_step_shows_where_its_time_goes(method, tmp_path, monkeypatch, capsys):
    """Each part of a step has its seconds; how many they are is the machine's affair."""
    from hf_lowlabel.training.loop import Loop

    monkeypatch.syspath_prepend(str(BENCHMARKS))
    train_step = Loop.train_step
    run(
        monkeypatch,
        tmp_path,
        "step",
        "--method",
        method,
        "--model",
        "cnn6_16",
        "--size",
        16,
        "--batch-size",
        4,
        "--steps",
        2,
        "--pool",
        60,
        "--output",
        "step.json",
    )
    assert Loop.train_step is train_step
    found = json.loads((tmp_path / "step.json").read_text())
    parts = found["parts_s"]
    assert list(parts) == ["views", "guard", "forward", "backward", "finite", "optimizer", "after_step"]
    assert min(parts.values()) > 0 and min(found[key] for key in ("ratio", "bare_s", "end_to_end_s")) > 0


def test_selection_tells_the_memory_of_a_choice(tmp_path, monkeypatch, capsys):
    """One image is a copy, which no strategy is given."""
    small = ("--images", 40, "--width", 8, "--classes", 4, "--num-labels", 39)
    run(monkeypatch, tmp_path, "selection", *small, "--memory", "coreset", "random")
    assert re.fullmatch(r"coreset +\d+\.\d GB .*\nrandom +\d+\.\d GB .*\n", capsys.readouterr().out)


def test_growth_streams_what_exceeds_the_budget(tmp_path, monkeypatch, capsys):
    """One run for all three tables; its images are counted, and above the budget none is kept."""
    run_process = subprocess.run

    def forked(command, **how):
        """A row's own process, but for its seconds of imports."""
        if "--one" not in command:
            return run_process(command, **how)
        monkeypatch.setattr("sys.argv", command[1:])
        process = begun(runpy.run_path, command[1], None, "__main__", stderr=tmp_path / "stderr")
        process.join()
        return subprocess.CompletedProcess(command, process.exitcode, "", (tmp_path / "stderr").read_text())

    monkeypatch.setattr(subprocess, "run", forked)
    common = ("--ratios", 7, "--ranks", 1, "--steps", 4, "--output", "growth.json")
    run(monkeypatch, tmp_path, "growth", "--pools", 2100, "--memory-budget", 0.001, *common)
    row = json.loads((tmp_path / "growth.json").read_text())["rows"]["pools"][0]
    assert row["pool"] == "StreamingCache" and row["images_mib"] < 2 and row["memory_mib"] > 0
    text = capsys.readouterr().out
    assert re.search(r"\| 2,100 \| streaming \|.*\| 1\.00 \|\n", text) and "| 7 | 120 |" in text and "torch 2" in text


def test_several_classes_are_those_that_an_image_shows(bright, tmp_path, monkeypatch, capsys):
    """Strips have the classes of their parts, quarters those that their masks show and not what is no class."""
    import numpy as np
    from PIL import Image

    write(tmp_path / "data", "test", [i % 3 for i in range(12)], 3, "label", 16, "img")
    for part, count in (("train", 6), ("test", 3)):
        for i in range(count):
            photo(tmp_path / "quarters" / part / "images" / f"{i}.png", (24, 32), i)
            values = np.zeros((24, 32), np.uint8)
            values[:12, 16:], values[12:, :16], values[12:, 16:] = 1, 9, 2
            mask(tmp_path / "quarters" / part / "masks" / f"{i}.png", (24, 32), values)
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    common = (
        "--data",
        tmp_path,
        "--strips",
        "data",
        "--quarters",
        "quarters",
        "--mask-ignore",
        9,
        "--model",
        bright[1],
    )
    common += ("--rows", "linear probe", "--labels", 9, "--image-size", 16, "--output", tmp_path / "out")
    run(monkeypatch, tmp_path, "several_classes", *common, "--seeds", 0, 1)
    text = capsys.readouterr().out
    shown = tmp_path / "out" / "sets"
    lines = (shown / "quarters" / "train" / "metadata.jsonl").read_text().splitlines()
    assert [json.loads(line)["labels"] for line in lines[:4]] == [["class 0"], ["class 1"], [], ["class 2"]]
    for line in (shown / "data" / "test" / "metadata.jsonl").read_text().splitlines()[:20]:
        row = json.loads(line)
        with Image.open(shown / "data" / "test" / row["file_name"]) as image:  # a class is a brightness
            bright_ones = {min(int(v / 63), 2) for v in np.asarray(image).mean((0, 2))[[4, 124]]}
        assert {f"class {k}" for k in bright_ones} <= set(row["labels"])
    rows = [json.loads(line) for line in (tmp_path / "out" / "runs.jsonl").read_text().splitlines()]
    assert len(rows) == 4 and all(0 < row["map"] <= 1 for row in rows)
    assert (tmp_path / "out" / "several-classes.md").read_text() in text
    run(monkeypatch, tmp_path, "several_classes", *common, "--seeds", 0, 1)
    assert len((tmp_path / "out" / "runs.jsonl").read_text().splitlines()) == 4


def test_draws_of_other_settings_have_lines_of_their_own(monkeypatch):
    """In one file are those of several starts; of a version before none has a tail."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    auto = runpy.run_path(str(BENCHMARKS / "auto.py"))
    found = dict(
        best=0.9, probe=0.5, peer=0.5, rungs={"probe": 0.5}, interval=[0, 1], helps="unclear", gain=0, seconds=1
    )
    row = dict(set="a", encoder="net", image_size=None, per_class=4, balanced=False, **found)
    ways = [{}, dict(tail=0.03), dict(tail=1.0, balanced=True), dict(tail=1.0, image_size=64), dict(per_class=8)]
    rows = [dict(row, seed=seed, auto=k / 10, **way) for k, way in enumerate(ways) for seed in (0, 1)]
    text = auto["table"](rows)
    for k, (how, labels) in enumerate([("", 4), (", tail 0.03", 4), (", balanced", 4), (", 64 px", 4), ("", 8)]):
        assert f"| a | net{how} | {labels} | {10 * k:.1f} ± 0.0 |" in text
    assert re.findall(r"- a, (.*), all draws: auto (\S+),", text) == [
        *(("net", "20.0"), ("net, tail 0.03", "10.0"), ("net, balanced", "20.0"), ("net, 64 px", "30.0"))
    ]


@pytest.mark.parametrize("labels", [3, 6], ids=["one of a class", "two of a class"])
def test_the_peer_of_auto_needs_no_new_scikit_learn(labels, monkeypatch):
    """The keywords are those that LogisticRegressionCV has in the oldest version allowed, 1.5, and in 1.8."""
    import numpy as np
    from sklearn.linear_model import LogisticRegressionCV

    def of_any_version(*, Cs, cv, scoring, max_iter):
        return LogisticRegressionCV(Cs=Cs, cv=cv, scoring=scoring, max_iter=max_iter)

    monkeypatch.syspath_prepend(str(BENCHMARKS))
    peer = runpy.run_path(str(BENCHMARKS / "auto.py"))["peer"]
    monkeypatch.setitem(peer.__globals__, "LogisticRegressionCV", of_any_version)
    y = np.arange(labels) % 3
    assert peer(np.eye(3)[y], y, np.eye(3), np.arange(3)) == 1


def test_rounds_have_the_features_of_auto(bright, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    data, net = bright
    given = ("--data", data.parent, "--sets", data.name, "--encoder", net, "--image-size", 16)
    run(monkeypatch, tmp_path, "rounds", "wrong", *given, "--seeds", 0, "--output", "out")
    rows = [json.loads(line) for line in (tmp_path / "out/wrong.jsonl").read_text().splitlines()]
    assert [row["seed"] for row in rows] == [0] and len(rows[0]["found"]["review"]) == 2
    with pytest.raises(SystemExit, match="is of --images 3000. Give this, or another --output"):
        run(monkeypatch, tmp_path, "rounds", "wrong", *given, "--images", 80, "--seeds", 0, 1, "--output", "out")


def test_masks_accuracy_makes_one_table_of_its_runs(tmp_path, monkeypatch, capsys):
    """A second start goes on with what is missing."""
    import torch

    from hf_lowlabel.models import create_backbone

    for part, count in (("train", 6), ("test", 2)):
        for i in range(count):
            photo(tmp_path / "data" / part / "images" / f"{i}.png", (24, 32), i)
            mask(tmp_path / "data" / part / "masks" / f"{i}.png", (24, 32), [0, 1, 1])
    torch.manual_seed(0)
    create_backbone("test_resnet", pretrained=False, image_size=32).save_pretrained(tmp_path / "net")
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    common = (
        "--dataset",
        tmp_path / "data",
        "--classes",
        "one",
        "two",
        "--model",
        tmp_path / "net",
        "--image-size",
        32,
        "--long-side",
        32,
        "--labels",
        2,
        "--max-steps",
        1,
        "--pretrain-steps",
        2,
        "--output=out",
    )
    run(monkeypatch, tmp_path, "masks_accuracy", *common, "--seeds", 0, "--methods", "supervised-weak")
    before = (tmp_path / "out" / "weights" / "supervised-weak-2-0" / "metrics.json").stat().st_mtime_ns
    run(
        monkeypatch,
        tmp_path,
        "masks_accuracy",
        *common,
        "--seeds",
        0,
        "--methods",
        "supervised-weak",
        "--starts",
        "pixpro",
        "weights",
    )
    assert (tmp_path / "out" / "weights" / "supervised-weak-2-0" / "metrics.json").stat().st_mtime_ns == before
    text = (tmp_path / "out" / "table.md").read_text()
    assert text in capsys.readouterr().out
    assert (
        "2 labels, after pixpro" in text
        and re.search(r"\| supervised \(.*\) \| \d+\.\d \| \d+\.\d \|", text)
        and "Mean IoU" in text
    )


def test_fidelity_has_a_row_for_every_method(tmp_path, monkeypatch):
    """The page in the repository is that of the golden numbers as they are."""
    from values import CHOSEN, GOLDEN

    monkeypatch.setattr("cases.difference", lambda case: 1e-7)
    run(monkeypatch, tmp_path, "fidelity", "--page", "page.md")
    names = lambda page: re.findall(r"^\| (.+?) \| (.+?) \| (.+?) \|", page.read_text(), re.M)  # noqa: E731
    rows = names(tmp_path / "page.md")
    assert len(rows) == 2 + len(GOLDEN) + len(CHOSEN)  # with the head, and the hard pixels
    assert rows == names(BENCHMARKS.parent / "results" / "fidelity.md")


def test_gpu_campaign_runs_dry_and_goes_on(tmp_path, monkeypatch, capsys):
    """Every part, tiny, on a CPU; a figure that is known is not measured again."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    few_shapes(monkeypatch.setattr)
    run(monkeypatch, tmp_path, "gpu", "--dry-run", "--output", "gpu.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "gpu.jsonl").read_text().splitlines()]
    assert {row["key"][0] for row in rows} == set("m1234567") and not any("error" in row for row in rows)
    text = capsys.readouterr().out
    assert all(f"{row['key']}: {row['text']}" in text for row in rows)
    assert [path.name for path in tmp_path.iterdir()] == ["gpu.jsonl"]
    run(monkeypatch, tmp_path, "gpu", "--dry-run", "--output", "gpu.jsonl", "--part", 1)
    assert len((tmp_path / "gpu.jsonl").read_text().splitlines()) == len(rows) and "1/" not in capsys.readouterr().out


def test_extract_compares_files_with_decoded_images(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    small = ("--model", "cnn6_16", "--size", 32, "--images", 5, "--height", 40, "--width", 50, "--rounds", 1)
    run(monkeypatch, tmp_path, "extract", *small, "--output", "extract.json")
    found = json.loads((tmp_path / "extract.json").read_text())
    assert found["ratio"] == found["ours_s"] / found["bare_s"] and min(found["ours_s"], found["decoding_s"]) > 0
    assert found["hardware"] and found["versions"]


def test_the_deviation_of_auto_is_of_a_sample(monkeypatch):
    """Draws of 40 and 50 % differ by 7.1 points, not 5; one draw has no deviation."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    table = runpy.run_path(str(BENCHMARKS / "auto.py"))["table"]
    table.__globals__["held"] = lambda rows: []
    shared = dict(set="a", encoder="e", image_size=None, per_class=2, balanced=False)
    rows = [
        dict(shared, seed=s, **dict.fromkeys(("auto", "best", "probe", "peer"), v)) for s, v in ((0, 0.4), (1, 0.5))
    ]
    assert "| 45.0 ± 7.1 |" in table(rows)
    assert "| 40.0 |" in table(rows[:1])
