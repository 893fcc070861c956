"""A saved segmenter on new images and data: the same numbers as in training, masks that others can read."""

import csv

import numpy as np
import pytest
import torch
from PIL import Image

from hf_lowlabel import evaluate, finetune, predict
from hf_lowlabel.cli import main
from hf_lowlabel.errors import UserError

from .conftest import SEGMENT

NAMES = ["ground", "light", "dark"]


@pytest.fixture(scope="module")
def run(masked, tmp_path_factory):
    """Good enough that all three classes are predicted."""
    settings = dict(
        SEGMENT, method="supervised", max_steps=30, learning_rate=0.01, method_args=dict(ema_decay=0.9), num_labels=8
    )
    return finetune(
        **settings, dataset=str(masked), classes=NAMES, output_dir=str(tmp_path_factory.mktemp("segmenter") / "run")
    )


@pytest.mark.pictures
def test_evaluate_finds_the_test_images_again(run, masked, tmp_path, capsys):
    again = evaluate(str(run.folder), str(masked))
    assert again["confusion"] == run.metrics["confusion"] and again["miou"] == run.metrics["miou"]
    windows = evaluate(str(run.folder), str(masked), window=16, task="segmentation")
    assert windows["pixels"] == again["pixels"] and windows["confusion"] != again["confusion"]
    assert (
        main(["evaluate", "--model", str(run.folder), "--dataset", str(masked), "--output", str(tmp_path / "report")])
        == 0
    )
    text = capsys.readouterr().out
    assert f"{run.metrics['miou']:.4f}" in text and "ground 0." in text
    assert {p.name for p in (tmp_path / "report").iterdir()} == {"metrics.json", "confusion.png", "predictions.png"}


def test_predicted_masks_decode_to_the_same_classes(run, tmp_path):
    """By PIL alone, at the size of the image as a viewer shows it: turned upright, whatever its mode."""
    rng = np.random.default_rng(3)
    (tmp_path / "new" / "deep").mkdir(parents=True)
    pixels = rng.integers(90, 160, (30, 44, 3), dtype=np.uint8)
    pixels[4:20, 6:20], pixels[8:24, 26:40] = 230, 20
    Image.fromarray(pixels).save(tmp_path / "new" / "a.png")
    Image.fromarray(pixels[..., 0]).save(tmp_path / "new" / "deep" / "a.tif")
    turned = Image.Exif()
    turned[274] = 6  # lies on its side
    Image.fromarray(pixels).save(tmp_path / "new" / "a.jpg", exif=turned)
    (tmp_path / "new" / "broken.png").write_bytes(b"not an image")
    rows, skipped = predict([str(tmp_path / "new")], str(run.folder), output=str(tmp_path / "out"))
    assert [s[0].endswith("broken.png") for s in skipped] == [True]
    assert sorted(r["mask"] for r in rows) == ["masks/a-2.png", "masks/a.png", "masks/deep/a.png"]
    sizes = {r["file"].rpartition("new/")[2]: Image.open(tmp_path / "out" / r["mask"]).size for r in rows}
    assert sizes == {"a.png": (44, 30), "a.jpg": (30, 44), "deep/a.tif": (44, 30)}
    row = next(r for r in rows if r["file"].endswith("new/a.png"))
    mask = np.asarray(Image.open(tmp_path / "out" / row["mask"]))
    with torch.no_grad():
        mean, std = (torch.tensor(v)[:, None, None] for v in (run.model.config.image_mean, run.model.config.image_std))
        x = (torch.from_numpy(pixels).permute(2, 0, 1) / 255 - mean) / std
        expected = run.model.eval()(x[None]).logits[0].argmax(0).numpy()
    assert (mask == expected).mean() > 0.999 and set(np.unique(mask)) == {0, 1, 2}
    assert [row[f"share_{n}"] for n in NAMES] == pytest.approx([(mask == k).mean() for k in range(3)], abs=1e-5)
    assert (np.asarray(Image.open(tmp_path / "out" / row["overlay"])) != pixels).any()
    with open(tmp_path / "out" / "masks.csv") as f:
        assert [r["file"] for r in csv.DictReader(f)] == [r["file"] for r in rows]


def test_predict_from_the_command_line(run, masked, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    image = str(masked / "images" / "00.png")
    assert main(["predict", image, "--model", str(run.folder), "--window", "16"]) == 0
    assert "wrote 1 predictions to predictions" in capsys.readouterr().out
    assert (tmp_path / "predictions" / "masks" / "00.png").is_file() and (
        tmp_path / "predictions" / "overlays" / "00.png"
    ).is_file()
    assert main(["predict", image, "--model", str(run.folder), "--task", "classification"]) == 2
    assert "found a model for segmentation; expected one for classification" in capsys.readouterr().err


def test_masks_of_other_classes_are_refused(run, masked):
    with pytest.raises(UserError, match="found the classes sky, light, dark .* and ground, light, dark in the model"):
        evaluate(str(run.folder), str(masked), dataset_split="train", classes=["sky", "light", "dark"])


def test_the_pipeline_of_transformers_gives_the_same_masks(run, masked):
    from transformers import pipeline

    import hf_lowlabel.models.segmentation  # noqa: F401

    file = masked / "images" / "01.png"
    parts = pipeline("image-segmentation", model=str(run.folder))(str(file))
    rows, _ = predict([str(file)], str(run.folder), output=None)
    for part in parts:
        share = (np.asarray(part["mask"]) > 0).mean()
        assert share == pytest.approx(rows[0][f"share_{part['label']}"], abs=2e-3)
