"""`auto` with the names of the classes and no label."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from hf_lowlabel import auto, predict
from hf_lowlabel.cli import main
from hf_lowlabel.errors import UserError
from hf_lowlabel.models import create_backbone
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
    create_backbone("resnet10t", pretrained=False, image_size=32).save_pretrained(base / "net")
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
    assert len(list((tmp_path / "run" / "to_label" / "images").iterdir())) == 3
    assert (
        main(["finetune", "--config", str(tmp_path / "run/training.yaml"), "--output-dir", str(tmp_path / "by")]) == 0
    )
    again = predict(made / "pictures", tmp_path / "by").rows
    assert [row["class"] for row in again] == [row["class"] for row in found]


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
