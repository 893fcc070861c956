"""A run of segmentation as others see it: card, report, demo page, push, and a process without the package."""

from __future__ import annotations

import json
import os
import re
import shutil

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from PIL import Image

from hf_lowlabel import finetune
from hf_lowlabel.cli import main
from tests import strangers

CODE = """import sys
sys.modules["hf_lowlabel"] = None
import torch
from transformers import AutoModelForSemanticSegmentation
try:
    AutoModelForSemanticSegmentation.from_pretrained("org/squares", trust_remote_code=False)
except ValueError as error:
    print(error)
model = AutoModelForSemanticSegmentation.from_pretrained("org/squares", trust_remote_code=True).eval()
with torch.no_grad():
    print(tuple(model(torch.zeros(1, 3, 24, 26)).logits.shape))
AutoModelForSemanticSegmentation.from_pretrained("org/own", trust_remote_code=True)"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Sixteen 24 px photos with masks of a lighter square on a ground; four are tested on, four labeled."""
    root, rng = tmp_path_factory.mktemp("segmenter"), np.random.default_rng(0)
    for part in ("images", "masks"):
        (root / "photos" / part).mkdir(parents=True)
    for i in range(16):
        pixels, mask = rng.integers(90, 160, (24, 26, 3), dtype=np.uint8), np.zeros((24, 26), np.uint8)
        y, x = rng.integers(0, 16, 2)
        pixels[y : y + 8, x : x + 8], mask[y : y + 8, x : x + 8] = 230, 1
        Image.fromarray(pixels).save(root / "photos" / "images" / f"{i:02d}.png")
        Image.fromarray(mask).save(root / "photos" / "masks" / f"{i:02d}.png")
    finetune(
        task="segmentation",
        dataset=str(root / "photos"),
        classes=["background", "square"],
        num_labels=4,
        test_fraction=0.25,
        model="test_resnet",
        from_scratch=True,
        architecture="unet",
        image_size=24,
        method="supervised",
        batch_size=4,
        max_steps=4,
        logging_steps=1,
        eval_steps=100,
        device="cpu",
        output_dir=str(root / "run"),
    )
    return root / "run"


def test_card(run):
    card = ModelCard.load(run / "README.md")
    assert (
        "learned from **4 images with masks**" in card.text
        and "![run: test images with predictions](predictions.png)" in card.text
    )
    assert card.data.pipeline_tag == "image-segmentation" and "| **this model** |" in card.text
    assert all((run / name).is_file() for name in ("predictions.png", "confusion.png", "curves.png"))


def test_the_card_of_a_probe_names_no_crops(tmp_path):
    """It has had none; and the sizes that it names are those of use."""
    how = dict(task="segmentation", dataset="shapes", model="test_resnet", from_scratch=True, method="probe")
    finetune(**how, image_size=24, num_labels=4, device="cpu", output_dir=tmp_path / "run")
    card = (tmp_path / "run" / "README.md").read_text()
    assert json.loads((tmp_path / "run" / "config.json").read_text())["image_size"] is None
    assert "seen at their own size." in card and "crops" not in card


def test_report_shows_the_worst_masks(run, tmp_path):
    from hf_lowlabel.hub.report import report
    from hf_lowlabel.hub.report_data import compute
    from hf_lowlabel.records import RunRecord

    found = compute(run, RunRecord.from_json(run / "run.json"))
    metrics = json.loads((run / "metrics.json").read_text())
    ((title, note, body),) = found.findings
    ious = [float(value) for value in re.findall(r": IoU ([\d.]+) %</div>", body)]
    assert not found.notes and title == "Worst masks" and "among 4:" in note and len(ious) == metrics["images"] == 4
    assert ious == sorted(ious) and ious[0] < 100 * metrics["miou"] + 0.05  # one decimal is shown
    page = report([run], tmp_path / "report.html").read_text()
    for words in (
        "Worst masks",
        "IoU of the classes, worst first",
        "segmenter with supervised on photos, 4 masks",
        "true mask",
        ">square</span>",
    ):
        assert words in page, words
    assert page.count("data:image/png;base64,") == 4 and "No list of" not in page
    assert "% of its pixels</title>" in page  # the confusion of pixels in per cent


@pytest.mark.pictures
def test_the_colours_of_the_masks_it_learned_from_are_those_of_report_sheet_and_space(run, tmp_path):
    from hf_lowlabel.evaluation.overlays import Examples
    from hf_lowlabel.hub.report_data import compute
    from hf_lowlabel.records import RunRecord
    from hf_lowlabel.tasks import get_task

    colors = [[10, 20, 230], [20, 230, 10]]
    shutil.copytree(run, tmp_path / "run")
    config = json.loads((run / "config.json").read_text())
    (tmp_path / "run" / "config.json").write_text(json.dumps({**config, "class_colors": colors}))
    (tmp_path / "run" / "checksums.json").unlink()
    record = RunRecord.from_json(run / "run.json")
    ((_, _, body),) = compute(tmp_path / "run", record).findings
    assert all(f"rgb{tuple(color)}" in body for color in colors)
    ((_, _, body),) = compute(run, record).findings
    assert not any(f"rgb{tuple(color)}" in body for color in colors)
    assert get_task("segmentation").space(record, tmp_path / "run")["colors"][:2] == colors
    sheet, answer = Examples([0], ["a"]), torch.eye(2).repeat_interleave(8, 0)[..., None].repeat(1, 1, 16)
    sheet(0, torch.zeros(3, 16, 16, dtype=torch.uint8), torch.ones(16, 16, dtype=torch.uint8), answer.permute(1, 0, 2))
    sheet.save(["background", "square"], tmp_path / "sheet.png", colors)
    with Image.open(tmp_path / "sheet.png") as image:
        assert {tuple(color) for color in colors} <= {color for _, color in image.convert("RGB").getcolors(1 << 24)}


def test_space_offers_test_images_and_no_masks(run, tmp_path):
    pytest.importorskip("gradio")
    from hf_lowlabel.hub.app import export_space

    space = export_space(run, tmp_path / "space")
    shown = [np.asarray(Image.open(p).convert("RGB")) for p in sorted((space / "examples").iterdir())]
    test = json.loads((run / "split.json").read_text())["test"]
    photos = [np.asarray(Image.open(run.parent / "photos" / "images" / id)) for id in test]
    assert len(shown) == 4 and all(any(np.array_equal(s, p) for p in photos) for s in shown)
    said = json.loads((space / "space.json").read_text())
    assert said["task"] == "segmentation" and said["class_names"] == ["background", "square"]


def test_what_is_pushed_loads_from_the_hub_without_the_package(hub, run, tmp_path):
    from hf_lowlabel.hub.push import push
    from hf_lowlabel.models.segmentation import create_segmenter

    args = dict(architecture="unet", architecture_args=dict(encoder_depth=3, decoder_channels=[16, 8, 8]))
    create_segmenter("cnn6_16", 2, pretrained=False, **args).save_pretrained(tmp_path / "own")  # timm lacks it
    (tmp_path / "own" / "README.md").write_text("# own\n")
    push(tmp_path / "own", "org/own")
    done = push(run, "org/squares")
    files = hub.repos["model", "org/squares"].content()
    assert {
        "segmenter.py",
        "segmenter_parts.py",
        "configuration_segmenter.py",
        "predictions.png",
        "split.json",
        "metrics.json",
        "README.md",
    } <= set(files)
    assert len(hub.repos["model", "org/squares"].history()) == 2 and done.url.endswith("org/squares")
    env = {
        **os.environ,
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_OFFLINE": "0",
    }
    done = strangers.ran(CODE, cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stderr
    refused, shape = done.stdout.strip().rsplit("\n", 1)
    assert "trust_remote_code" in refused and shape == "(1, 2, 24, 26)"


def test_a_score_of_smaller_images_says_so(run, tmp_path, capsys):
    """Beside the numbers and on the card; not where each image has its own size."""
    from hf_lowlabel.records import RunRecord
    from hf_lowlabel.tasks.segmentation_card import limits

    small = shutil.copytree(run, tmp_path / "small")
    config = json.loads((small / "config.json").read_text())
    (small / "checksums.json").unlink()
    (small / "config.json").write_text(json.dumps({**config, "image_size": 16}))
    words = "resized to 16 px on the longer side"
    for folder, there in ((run, False), (small, True)):
        out = tmp_path / f"of {folder.name}"
        argv = ["evaluate", "--model", str(folder), "--dataset", str(run.parent / "photos"), "--output", str(out)]
        assert main(argv) == 0
        assert (words in capsys.readouterr().out) == there
        record = RunRecord.from_json(run / "run.json")
        record.metrics = json.loads((out / "metrics.json").read_text())
        assert any(words in line for line in limits(record)) == there


def test_the_name_of_a_table_is_said_to_become_a_folder(run, tmp_path, monkeypatch, caplog):
    """Before anything is segmented, and only where somebody gave that name."""
    photos, said = str(run.parent / "photos" / "images"), []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "hf_lowlabel.tasks.segmentation.mask_rows",
        lambda *_, **__: (said.append(caplog.text) or row for row in [{"file": "a"}]),
    )
    for more in ([], ["--output", "there"], ["--output", "x.csv"]):
        assert main(["predict", photos, "--model", str(run), *more]) == 0
    assert all(name.is_dir() for name in (tmp_path / "predictions", tmp_path / "there", tmp_path / "x"))
    assert "writes a folder" not in said[1] and "x/masks.csv" in said[2] and "not to x.csv" in said[2]
