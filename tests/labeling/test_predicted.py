"""The folder that `predict` wrote is a folder of masks to correct, of the photos that it is of."""

import csv
import gzip
import os
import shlex
import zlib

import numpy as np
import pytest
from PIL import Image

from hf_lowlabel.cli import main
from hf_lowlabel.data.pixels.masks import decode_mask, make_coding
from hf_lowlabel.errors import UserError
from hf_lowlabel.evaluation.overlays import save_mask
from hf_lowlabel.labeling.pages import label, session_of
from hf_lowlabel.models.segmentation import create_segmenter

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
    monkeypatch.setattr("hf_lowlabel.labeling.pages.serve", lambda page, *_: print(page.parting()))
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


@pytest.mark.parametrize("mask", ["masks/../../new/1.tif", "masks", "masks/", "masks/.", "", "/masks/1.png"])
def test_a_table_that_leads_out_of_the_folder_is_refused(said, mask):
    table = said / "masks.csv"
    table.write_text(table.read_text().replace("masks/1.png", mask))
    with pytest.raises(UserError, match="no mask of masks/"):
        session_of(said, "segmentation", [], None, 400)


def test_the_page_is_offered_again_with_its_model(tmp_path, monkeypatch, capsys):
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (16, 16)).save(tmp_path / "photos" / "a.png")
    made = dict(architecture="unet", pretrained=False, class_names=NAMES)
    made["architecture_args"] = dict(encoder_depth=3, decoder_channels=[16, 8, 8])
    create_segmenter("cnn6_16", 2, **made).save_pretrained(tmp_path / "net")
    monkeypatch.setattr("hf_lowlabel.labeling.pages.serve", lambda page, *_: print(page.parting()))
    argv = ["label", str(tmp_path / "photos"), "--task", "segmentation", "--model", str(tmp_path / "net")]
    argv += ["--value-range", "0", "255"]
    assert main([*argv, "--no-browser"]) == 0
    then = shlex.split(capsys.readouterr().out.strip().splitlines()[-1].partition("; next: ")[2])
    assert then == ["hf-lowlabel", *argv]


def test_a_list_of_the_model_before_names_nothing(said):
    """`predict --overwrite` with another model leaves classes.txt, by which dogs would be corrected as cats."""
    session_of(said, "segmentation", [], None, 400).rename("cell", "cat")
    assert session_of(said, "segmentation", [], None, 400).classes == ["ground", "cat"]  # renamed on the page
    table, listed = said / "masks.csv", (said / "classes.txt").stat().st_mtime_ns
    for shares, word in (("share_ground,share_dog", "ground, dog"), ("share_cat,share_ground", "cat, ground")):
        table.write_text("\n".join([f"file,mask,overlay,confidence,{shares}", *table.read_text().splitlines()[1:]]))
        os.utime(table, ns=(listed + 1, listed + 1))
        with pytest.raises(UserError, match=f"says ground, cat, and the masks beside it are of {word}"):
            session_of(said, "segmentation", [], None, 400)
    os.utime(table, ns=(listed - 1, listed - 1))  # of names that changed places, whenever it was
    with pytest.raises(UserError, match="are of cat, ground"):
        session_of(said, "segmentation", [], None, 400)
    (said / "classes.txt").unlink()
    assert session_of(said, "segmentation", [], None, 400).classes == ["cat", "ground"]


def test_pages_of_files_are_called_so(said, caplog):
    table = said / "masks.csv"
    table.write_text(table.read_text().replace("new/1.tif", "new/1.tif#2"))
    assert list(session_of(said, "segmentation", [], None, 400).places) == ["0.tif"]
    assert "1 pages of files are left out" in caplog.text and "are not where" not in caplog.text
    table.write_text(table.read_text().replace("new/0.tif", "new/1.tif#1"))
    with pytest.raises(UserError, match="the pages of files, such as 'new/1.tif#1'.*Save each page as a file"):
        session_of(said, "segmentation", [], None, 400)
