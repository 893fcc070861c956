"""The folder that `predict` wrote is a folder of masks to correct, of the photos that it is of."""

import csv
import gzip
import shlex
import zlib

import numpy as np
import pytest
from PIL import Image

from hf_lowlabel.cli import main
from hf_lowlabel.data.masks import decode_mask, make_coding
from hf_lowlabel.errors import UserError
from hf_lowlabel.evaluation.overlays import save_mask
from hf_lowlabel.models.segmentation import create_segmenter
from hf_lowlabel.selection.pages import label, session_of

NAMES, COLORS = ["ground", "cell"], [(1, 2, 3), (0, 255, 0)]


@pytest.fixture
def said(tmp_path, monkeypatch):
    """Of two photos in new/, as `predict` writes it."""
    monkeypatch.chdir(tmp_path)
    return said_of(tmp_path, COLORS)


def said_of(base, declared):
    for folder in ("new", "said/masks", "said/overlays"):
        (base / folder).mkdir(parents=True)
    rows = []
    for k in range(2):
        Image.new("RGB", (6, 4), (9, 9, 9)).save(base / "new" / f"{k}.tif")
        Image.new("RGB", (6, 4)).save(base / "said" / "overlays" / f"{k}.png")
        save_mask(np.full((4, 6), k, np.uint8), NAMES, base / "said" / "masks" / f"{k}.png", declared=declared)
        rows.append([f"new/{k}.tif", f"masks/{k}.png", f"overlays/{k}.png", 0.9, 1 - k, k])
    with open(base / "said" / "masks.csv", "w", newline="") as file:
        csv.writer(file).writerows([["file", "mask", "overlay", "confidence", "share_ground", "share_cell"], *rows])
    return base / "said"


def test_its_masks_are_corrected_over_the_photos(said, monkeypatch, capsys):
    monkeypatch.setattr("hf_lowlabel.selection.pages.serve", lambda page, *_: print(page.parting()))
    page = label(said, task="segmentation", open_browser=False)
    assert "2 of 2 images have a mask; next: put those masks of" in capsys.readouterr().out
    state = page.state()
    assert [image["file"] for image in state["images"]] == ["0.tif", "1.tif"]
    assert state["classes"] == [{"name": n, "color": list(c)} for n, c in zip(NAMES, COLORS, strict=True)]
    shown = page.load("1.tif")
    assert set(gzip.decompress(shown.content)) == {1} and page.get("/images/1.tif", {}) is not None
    page.save({"file": "1.tif", "stamp": shown.stamp}, zlib.compress(bytes(24)))
    coding = make_coding("colors", NAMES, {n: [c] for n, c in zip(NAMES, COLORS, strict=True)}, ())
    with Image.open(said / "masks" / "1.png") as image:
        assert (decode_mask(image, coding, 2, "1") == 0).all()
    assert (said / "classes.txt").read_text() == "ground #010203\ncell #00ff00\n"


def test_masks_of_the_usual_colours_get_names_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = said_of(tmp_path, None)
    page = session_of(folder, "segmentation", [], None, 400)
    assert set(gzip.decompress(page.load("1.tif").content)) == {1}
    assert (folder / "classes.txt").read_text() == "ground\ncell\n"


def test_photos_that_are_elsewhere_are_said(said, tmp_path, caplog):
    (tmp_path / "new" / "0.tif").unlink()
    assert list(session_of(said, "segmentation", [], None, 400).places) == ["1.tif"]
    assert "1 photos are not where" in caplog.text and "new/0.tif" in caplog.text
    (tmp_path / "new" / "1.tif").unlink()
    (said / "classes.txt").unlink()
    with pytest.raises(UserError, match="holds what `predict` said of photos, and none.*'new/0.tif'.*label PHOTOS"):
        session_of(said, "segmentation", [], None, 400)
    assert not (said / "classes.txt").exists()


def test_a_table_that_leads_out_of_the_folder_is_refused(said):
    table = said / "masks.csv"
    table.write_text(table.read_text().replace("masks/1.png", "masks/../../new/1.tif"))
    with pytest.raises(UserError, match="no mask of masks/"):
        session_of(said, "segmentation", [], None, 400)


def test_the_page_is_offered_again_with_its_model(tmp_path, monkeypatch, capsys):
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (16, 16)).save(tmp_path / "photos" / "a.png")
    made = dict(architecture="unet", pretrained=False, class_names=NAMES)
    made["architecture_args"] = dict(encoder_depth=3, decoder_channels=[16, 8, 8])
    create_segmenter("cnn6_16", 2, **made).save_pretrained(tmp_path / "net")
    monkeypatch.setattr("hf_lowlabel.selection.pages.serve", lambda page, *_: print(page.parting()))
    argv = ["label", str(tmp_path / "photos"), "--task", "segmentation", "--model", str(tmp_path / "net")]
    argv += ["--value-range", "0", "255"]
    assert main([*argv, "--no-browser"]) == 0
    then = shlex.split(capsys.readouterr().out.strip().splitlines()[-1].partition("; next: ")[2])
    assert then == ["hf-lowlabel", *argv]
