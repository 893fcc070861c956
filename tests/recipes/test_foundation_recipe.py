"""recipes/foundation.py on tiny random encoders: the whole chain starts, with and without labels, and says what to
expect."""

import json
import re
import runpy
import shlex
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hf_lowlabel.labeling.labels import Asked, Labels, write_labels
from tests.processes import ranks
from tests.transformers_repos import make_encoder, save_repo, save_two_towers

RECIPES = Path(__file__).parents[2] / "recipes"
COLOURS = {"red": (200, 40, 40), "green": (40, 200, 40), "blue": (40, 40, 200)}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Pictures in folders of their colours, the same without labels, pictures with masks; an encoder and a CLIP."""
    base, rng = tmp_path_factory.mktemp("foundation"), np.random.default_rng(0)
    for i in range(24):
        name = list(COLOURS)[i % 3]
        pixels = np.clip(np.array(COLOURS[name]) + rng.integers(-30, 30, (28, 28, 3)), 0, 255).astype(np.uint8)
        mask = np.zeros((28, 28), np.uint8)
        mask[4:20, 6:18] = 1
        pixels[mask > 0] //= 3
        for place in (f"known/{name}", "unknown", "masked/images"):
            (base / place).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(base / place / f"{i:02d}.png")
        (base / "masked" / "masks").mkdir(exist_ok=True)
        Image.fromarray(mask).save(base / "masked" / "masks" / f"{i:02d}.png")
    save_repo(make_encoder("dinov2", patch_size=14, image_size=28), base / "encoder")
    save_two_towers("CLIP", base / "clip")
    return base


def run(monkeypatch, made, folder, *arguments, dry=True):
    flags = ["--encoders", made / "encoder", "--image-size", 28, *["--dry-run"] * dry]
    flags += ["--text-model", made / "clip"] if "--class-names" in arguments else []
    monkeypatch.syspath_prepend(str(RECIPES))
    more = ["--batch-size", 4, "--output-dir", folder]
    monkeypatch.setattr("sys.argv", ["foundation.py", *map(str, [*arguments, *flags, *more])])
    runpy.run_path(str(RECIPES / "foundation.py"), run_name="__main__")


def test_labels_then_all_images(made, tmp_path, monkeypatch, capsys):
    run(monkeypatch, made, tmp_path, "--dataset", made / "known", "--num-labels", 9, "--class-names", *COLOURS)
    said = capsys.readouterr().out
    assert "Class names, as clip knows them" in said
    assert said.startswith("What to expect") and "2503.09707" in said and "FixMatch with branches" in said
    assert not list(tmp_path.iterdir())


def launched(aside, flags):
    """The recipe as one of several processes, whose temporary folders are in `aside`."""
    tempfile.tempdir = str(aside)
    sys.path.insert(0, str(RECIPES))
    sys.argv = ["foundation.py", *flags]
    runpy.run_path(str(RECIPES / "foundation.py"), run_name="__main__")


def test_a_dry_run_on_two_ranks_has_one_folder_and_leaves_none(made, tmp_path):
    aside = tmp_path / "aside"
    aside.mkdir()
    given = ("--dataset", made / "known", "--num-labels", 9, "--encoders", made / "encoder", "--image-size", 28)
    more = ("--batch-size", 4, "--output-dir", tmp_path / "run", "--dry-run")
    ranks(launched, aside, [*map(str, [*given, *more])], folder=tmp_path)
    assert not (tmp_path / "run").exists() and not list(aside.glob("hf-lowlabel-dry-*"))


def test_a_share_of_all_labels_is_tested_on(made, tmp_path, monkeypatch):
    more = ("--test-fraction", 0.5, "--max-steps", 1, "--batch-size", 4)
    run(monkeypatch, made, tmp_path, "--dataset", made / "known", *more, dry=False)
    split = json.loads((tmp_path / "frozen" / "split.json").read_text())
    assert len(split["labeled"]) == len(split["test"]) == 12


def test_names_alone(made, tmp_path, monkeypatch, capsys):
    """A dry run leaves nothing behind; the labels that a run asks for are what the next one starts from."""
    given = ("--dataset", made / "unknown", "--class-names", *COLOURS)
    first = tmp_path / "first"
    run(monkeypatch, made, first, *given)
    assert "No label was used" in capsys.readouterr().out and not first.exists()
    run(monkeypatch, made, first, *given, dry=False)
    assert (first / "frozen" / "model.safetensors").is_file()
    again = re.search(r"then give the same command (--labels .*)\.\n", capsys.readouterr().out)
    labels, place = (shlex.split(again.group(1))[at] for at in (1, 3))
    assert Path(labels).is_dir() and not Path(place).exists()
    asked = Asked.load(labels)
    known = {id: list(COLOURS)[int(Path(id).stem) % 3] for id in asked.files.values()}
    write_labels(Path(labels, "labels.csv"), asked, Labels(known))
    run(monkeypatch, made, Path(place), *given, "--labels", labels)
    assert "FixMatch with branches" in capsys.readouterr().out and not Path(place).exists()


def test_masks(made, tmp_path, monkeypatch, capsys):
    given = ("--dataset", made / "masked", "--task", "segmentation", "--classes", "ground", "thing", "--num-labels", 6)
    run(monkeypatch, made, tmp_path, *given)
    said = capsys.readouterr().out
    assert (
        "VOC with 92 masks" in said
        and "linear probe" in said
        and "nearest pixels" in said
        and "UniMatch V2, encoder frozen" in said
    )
    assert not list(tmp_path.iterdir())
