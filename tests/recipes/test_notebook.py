"""The notebook runs from its first cell to its last, and shows its pictures."""

import json
import shlex
from pathlib import Path
from types import SimpleNamespace

import matplotlib
import pytest
import torch

from hf_lowlabel.models import create_backbone

NOTEBOOK = Path(__file__).parents[2] / "recipes" / "own_photos.ipynb"


@pytest.mark.pictures
def test_every_cell_runs(tmp_path, monkeypatch, capsys):
    matplotlib.use("Agg")
    shown = []
    monkeypatch.setattr("matplotlib.pyplot.show", lambda: shown.append(1))
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    create_backbone("test_resnet", pretrained=False, image_size=32).save_pretrained(tmp_path / "net")
    monkeypatch.setenv("MODEL", str(tmp_path / "net"))
    monkeypatch.setenv("OUTPUT", "runs/my photos")
    cells = json.loads(NOTEBOOK.read_text("utf-8"))["cells"]
    names: dict = {}
    for cell in cells:
        assert not cell.get("outputs") and not cell.get("execution_count")  # no machine's outputs in the repository
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), NOTEBOOK.name, "exec"), names)
    assert len(shown) == 3 and names["best"].run.metrics["accuracy"] > 0.6
    to_label = tmp_path / "runs" / "my photos" / "to_label"
    assert (to_label.parent / "advice.html").is_file() and (to_label / "labels.csv").is_file()
    (command,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("hf-lowlabel label "))
    assert Path(shlex.split(command)[-1]).resolve() == to_label
    assert "`pip install .`" in "".join(cells[0]["source"])  # nobody has the name on PyPI, so anybody may take it


def test_the_last_cell_names_no_folder_where_every_photo_has_a_label(capsys):
    done = SimpleNamespace(to_label=None, advice=SimpleNamespace(next=[]))
    last = json.loads(NOTEBOOK.read_text("utf-8"))["cells"][-1]
    exec(compile("".join(last["source"]), NOTEBOOK.name, "exec"), {"best": done})
    assert capsys.readouterr().out == "Every photo has a label.\n"
