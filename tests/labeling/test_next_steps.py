"""The command that comes after a page works when it is pasted."""

import json
import os
import re
import shlex
import shutil

import numpy as np
import pytest
from PIL import Image

from hf_lowlabel.arguments import DataArguments
from hf_lowlabel.cli import main
from hf_lowlabel.commands import auto_command, command, free
from hf_lowlabel.data.splits.splits import Split
from hf_lowlabel.labeling.labels import Asked
from hf_lowlabel.labeling.mask_classes import given_classes
from hf_lowlabel.labeling.next_steps import after_labels, after_masks, declared_colors, given_to_select
from hf_lowlabel.tasks import get_task

from .conftest import paint


@pytest.fixture
def pages(monkeypatch, capsys):
    """`label` without a person: what it says at its end, as words of a command."""

    def served(session, port, open_browser, ready=None):
        if ready is not None:
            ready()
        print(session.parting())

    def label(*argv):
        monkeypatch.setattr("hf_lowlabel.labeling.pages.serve", served)
        assert main(["label", *map(str, argv), "--no-browser"]) == 0
        said, _, then = capsys.readouterr().out.strip().partition("; next: ")
        return said, shlex.split(then)

    return label


@pytest.fixture
def chosen(tmp_path, monkeypatch, backbone, capsys):
    """A function that lets `select` write "to label", from a folder with a space in its name."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(backbone, "backbone")

    def select(task, *more):
        paint(tmp_path / "my photos" / ("images" if task == "segmentation" else ""), 8)
        argv = ["select", "--dataset", "my photos", "--model", "backbone", "--budget", "4", "--output", "to label"]
        assert main([*argv, "--task", task, *more]) == 0
        then = re.search("`(hf-lowlabel label .*)`", capsys.readouterr().out)[1]
        assert shlex.split(then)[1:] == ["label", "to label"]
        return tmp_path / "to label"

    return select


def by_another_tool(folder, count):
    (folder / "masks").mkdir(exist_ok=True)
    for file in list(Asked.load(folder).files)[:count]:
        Image.fromarray(np.eye(16, dtype=np.uint8)).save((folder / "masks" / file).with_suffix(".png"))


def test_masks_of_another_tool_are_taken_over_as_it_says(chosen, pages, tmp_path, capsys):
    folder = chosen("segmentation")
    said, then = pages("to label", "--classes", "a", "line")
    assert "0 of 4" in said and then[1:] == ["label", "to label"]
    assert (folder / "classes.txt").read_text() == "a\nline\n"  # nothing is painted on the page
    by_another_tool(folder, 3)
    (tmp_path / "split.json").write_text("{}")  # of an earlier round
    said, then = pages("to label")
    assert "3 of 4" in said and "--allow-missing" in then and main(then[1:]) == 0
    assert len(list((tmp_path / "my photos" / "masks").iterdir())) == 3
    next_one = shlex.split(capsys.readouterr().out.partition("; next: ")[2])
    given = dict(zip(next_one[2::2], next_one[3::2], strict=True))
    assert given["--dataset"] == "my photos" and given["--classes"] == "to label/classes.txt"
    assert len(Split.load(given["--split"]).labeled) == 3 and given["--task"] == "segmentation"
    by_another_tool(folder, 4)
    assert "--allow-missing" not in pages("to label")[1]


def test_the_names_of_classes_go_with_the_masks(chosen, tmp_path, capsys):
    """Into the data, where they are read; further classes and other names follow, on both sides."""
    folder, there = chosen("segmentation", "--classes", "a", "line"), tmp_path / "my photos" / "classes.txt"
    by_another_tool(folder, 4)
    argv = ["split", "--task", "segmentation", "--from", "to label", "--dataset", "my photos", "--output"]

    def names():
        return get_task("segmentation").open(DataArguments("my photos")).class_names

    for step, said in enumerate(("a\nline\n", "a\nline\nspot\n")):
        (folder / "classes.txt").write_text(said)
        assert main([*argv, f"{step}.json"]) == 0 and there.read_text() == said and names() == said.split()
    there.write_text("a\nline\n")  # those of the data when the images were chosen
    (folder / "classes.txt").write_text("a\nstripe\n")
    assert main([*argv, "2.json"]) == 0 and names() == ["a", "stripe"]
    others = {
        "cat\ndog\n": "0 is 'cat'",
        "stripe\na\n": "0 is 'stripe'",
        "a\nb\n": "1 is 'b'",
        "a\nb\nline\n": "1 is 'b'",
    }
    for other, fault in others.items():  # one number with two names
        there.write_text(other)
        capsys.readouterr()
        assert main([*argv, "3.json"]) == 2 and there.read_text() == other and not (tmp_path / "3.json").exists()
        assert f"The number {fault} in my photos/classes.txt" in capsys.readouterr().err
    assert (folder / "classes.txt").read_text() == "a\nstripe\n"
    there.write_bytes(b"Stra\xdfe\n")  # of another program: the masks are taken over all the same
    assert main([*argv, "4.json"]) == 0 and there.read_bytes() == b"Stra\xdfe\n"
    assert "classes.txt stays as it is" in capsys.readouterr().err and (tmp_path / "4.json").is_file()
    there.unlink()
    given = DataArguments("my photos", split="2.json")
    assert names() == ["class 0", "class 1"] and get_task("segmentation").open(given).class_names == ["a", "stripe"]
    assert get_task("segmentation").choose_split(given, 0, get_task("segmentation").open(given))
    there.write_text("line\n")
    with pytest.warns(UserWarning, match="1 classes are named .* up to 1: the names are not taken"):
        assert names() == ["class 0", "class 1"]


def test_masks_are_taken_over_without_the_page_where_the_classes_are_known(chosen, tmp_path, capsys):
    folder = chosen("segmentation", "--classes", "a", "line")
    by_another_tool(folder, 4)
    assert main(["split", "--task", "segmentation", "--from", str(folder), "--dataset", "my photos"]) == 0
    assert (folder / "classes.txt").read_text() == "a\nline\n" and "--model" in capsys.readouterr().out


def test_masks_without_any_class_say_what_to_do(chosen, capsys):
    folder = chosen("segmentation")
    by_another_tool(folder, 4)
    assert main(["split", "--task", "segmentation", "--from", str(folder), "--dataset", "my photos"]) == 2
    said = capsys.readouterr().err
    assert "one a line" in said and "label '" in said and not (folder / "classes.txt").exists()


@pytest.mark.parametrize("task", ["classification", "multilabel"])
def test_classes_are_taken_over_as_it_says(chosen, pages, tmp_path, task):
    folder = chosen(task, "--classes", "red", "blue")
    said, then = pages("to label")
    assert "0 labeled" in said and then[1:] == ["label", "to label"]
    rows = (folder / "labels.csv").read_text(encoding="utf-8-sig").splitlines()
    filled = [row.replace(",,", f",{'red' if n % 2 else 'blue'},") for n, row in enumerate(rows[1:])]
    (folder / "labels.csv").write_text("\n".join([rows[0], *filled]) + "\n")
    (tmp_path / "runs" / "auto-my-photos").mkdir(parents=True)
    (tmp_path / "runs" / "auto-my-photos" / "README.md").touch()  # of the round before
    said, then = pages("to label")
    assert "4 labeled" in said and then[1] == "auto" and then[-2:] == ["--output-dir", "runs/auto-my-photos-2"]
    assert ("--task" in then) == (task == "multilabel")
    if task == "classification":
        assert main([*then[1:], "--no-train", "--to-label", "0"]) == 0


def test_the_run_that_a_folder_lies_in_tells_the_data(tmp_path, monkeypatch):
    """As it was said there, with the columns and the split; not what is gone, nor a model that the run itself made."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    run = tmp_path / "runs" / "x"
    (run / "to_label").mkdir(parents=True)
    asked, folder = Asked("data", None, {"a.png": "a.png"}), run / "to_label"
    settings = {"dataset": "data", "dataset_split": "val", "label_column": "the class", "pages": True}
    for model, shown in ((str(run / "trials" / "adapted"), None), ("resnet10t", "resnet10t"), ("/gone", "MODEL")):
        (run / "training.yaml").write_text(json.dumps({**settings, "model": model}))
        expected = {"dataset": "data", "dataset-split": "val", "label-column": "the class", "pages": True}
        expected |= {"model": shown, "labels": folder, "output-dir": tmp_path / "runs" / "x-2"}
        assert after_labels(folder, asked) == command("auto", **expected)
    (tmp_path / "data").rmdir()
    assert after_labels(folder, asked) == command("split", **{"from": folder})
    assert "--dataset IMAGES" in after_masks(folder, asked, True)
    on_hub = Asked("org/name", None, {"a.png": "a.png"})
    (run / "training.yaml").write_text(json.dumps({"dataset": "org/name", "dataset_revision": "v1"}))
    assert "--dataset org/name --dataset-revision v1" in after_labels(folder, on_hub)
    (run / "training.yaml").write_text("[")  # edited
    assert after_labels(folder, asked).startswith("hf-lowlabel split --from")


def test_no_path_of_this_machine_goes_into_the_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    outside, inside = DataArguments("/somewhere/photos", image_column="x"), DataArguments(str(tmp_path / "photos"))
    assert given_to_select(outside, "~/model") == {"image_column": "x", "model": "MODEL"}
    assert given_to_select(inside, "resnet18") == {"dataset": "photos", "model": "resnet18"}
    assert given_to_select(DataArguments([1]), "resnet18") == {}


def test_colours_are_found_below_the_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "classes.txt").write_text("a #000000\nb #ff0000\n")
    for given in (dict(dataset="~/photos"), dict(dataset="x", classes=["~/photos/classes.txt"])):
        said = DataArguments(**given, mask_format="colors")
        assert declared_colors(said) == {"a": [(0, 0, 0)], "b": [(255, 0, 0)]}
    assert given_classes(["~/photos/classes.txt"], None, tmp_path, False)[0] == ["a", "b"]


@pytest.mark.parametrize("task", ["classification", "segmentation"])
def test_a_model_outside_of_the_working_directory_stays_that_of_the_command(chosen, pages, tmp_path, capsys, task):
    """So do images there; a folder that went to somebody else says that there is one to name."""
    outside, folder = tmp_path.parent / f"{tmp_path.name}-outside", tmp_path / "to label"
    chosen(task, "--classes", "a", "line")
    shutil.rmtree(folder)
    shutil.copytree(tmp_path / "backbone", outside / "net")
    (tmp_path / "my photos").rename(outside / "my photos")
    argv = ["select", "--dataset", str(outside / "my photos"), "--model", str(outside / "net"), "--budget", "4"]
    assert main([*argv, "--task", task, "--output", "to label", "--classes", "a", "line"]) == 0
    holds = {p.name for p in folder.rglob("*") if p.is_file() and str(outside).encode() in p.read_bytes()}
    with pytest.raises(SystemExit):
        main(["select", "--help"])
    assert holds == {".here.json"} and "leave out its hidden .here.json" in " ".join(capsys.readouterr().out.split())

    def then():
        if task == "classification":
            table = folder / "labels.csv"
            table.write_text(table.read_text(encoding="utf-8-sig").replace(",,", ",line,"))
            return pages("to label")[1]
        (tmp_path / "split.json").unlink(missing_ok=True)
        by_another_tool(folder, 4)
        assert main(pages("to label")[1][1:]) == 0
        return shlex.split(capsys.readouterr().out.partition("; next: ")[2])

    for model in (str(outside / "net"), "MODEL"):
        words = then()
        given = dict(zip(words[2::2], words[3::2]))
        assert given["--model"] == model and given["--dataset"] == str(outside / "my photos")
        shutil.rmtree(outside / "net", ignore_errors=True)
    (folder / ".here.json").unlink()  # which whoever the folder goes to has no use for
    assert str(outside) not in after_labels(folder, Asked.load(folder))


@pytest.mark.parametrize("at", ["root", "beside", "above"])
def test_no_file_but_the_hidden_one_says_where_the_data_are(chosen, tmp_path, monkeypatch, backbone, at):
    """Paths from the root without its sign, and paths that climb to it, say it as well."""
    paint(tmp_path / "my photos", 8)
    (tmp_path / "work" / "deep").mkdir(parents=True)
    here = {"root": tmp_path.anchor, "beside": tmp_path / "work" / "deep", "above": tmp_path}[at]
    monkeypatch.chdir(here)
    data, model = (os.path.relpath(path, here) for path in (tmp_path / "my photos", backbone))
    argv = ["select", "--dataset", data, "--model", model, "--budget", "4", "--features", str(tmp_path / "kept")]
    assert main([*argv, "--output", str(tmp_path / "out")]) == 0
    said = {data} if at != "above" else {model}
    holds = {
        p.name
        for p in (tmp_path / "out").rglob("*")
        if any(one.encode() in p.read_bytes() for one in said if p.is_file())
    }
    assert holds == {".here.json"}
    given = Asked.load(tmp_path / "out").given
    assert given.get("dataset") == ("my photos" if at == "above" else None) and given["model"] == "MODEL"
    words = shlex.split(after_labels(tmp_path / "out", Asked.load(tmp_path / "out")))
    assert words[words.index("--dataset") + 1] == data and words[words.index("--model") + 1] == model
    assert given_to_select(DataArguments("org/photos"), "resnet18")["dataset"] == "org/photos"
    assert given_to_select(DataArguments("digits"), "resnet18") == {"dataset": "digits", "model": "resnet18"}


def test_a_command_is_quoted_and_its_folder_is_free(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert command("label", "a b;c", model=None, pages=False, no_label=[]) == "hf-lowlabel label 'a b;c'"
    assert auto_command({"no_label": ["none", "n a"], "dataset": "d"}, "classification") == (
        "hf-lowlabel auto --dataset d --no-label none 'n a'"
    )
    assert free("x") == free("x").with_name("x")
    (tmp_path / "x").mkdir()
    assert free("x").name == "x"  # empty
    (tmp_path / "x" / "y").touch()
    (tmp_path / "x-2").touch()
    assert free("x").name == "x-3"


@pytest.mark.parametrize(
    "meant, said",
    [("mask_format: binary\nmask_ignore: [64]", "--mask-ignore"), ("instances: true", "--instances")],
)
def test_class_numbers_are_not_put_among_masks_of_another_format(chosen, tmp_path, capsys, meant, said):
    """Said before anything is painted, and before anything is copied."""
    folder = chosen("segmentation", "--classes", "a", "line")
    by_another_tool(folder, 4)
    (tmp_path / "training.yaml").write_text(f"dataset: my photos\n{meant}\n")
    assert main(["label", "to label", "--no-browser"]) == 2
    assert said in capsys.readouterr().err
    assert main(["split", "--task", "segmentation", "--from", "to label", "--dataset", "my photos"]) == 2
    assert not (tmp_path / "my photos" / "masks").exists()
