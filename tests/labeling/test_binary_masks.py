"""The page in a folder of images whose masks are of 0 and 255: what it paints is what training reads."""

import gzip
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hf_lowlabel.cli import main
from hf_lowlabel.data.masks.mask_faults import check_masks, refuse_mixed
from hf_lowlabel.data.opening import load_segmentation
from hf_lowlabel.errors import UserError
from hf_lowlabel.evaluation.overlays import save_mask
from hf_lowlabel.labeling.labels import Asked
from hf_lowlabel.labeling.pages import session_of
from hf_lowlabel.selection.verbs import select

from .conftest import paint
from .test_predicted import said_of

DISC = np.pad(np.ones((6, 6), np.uint8), 5)  # 16 x 16
TWO = ["background", "object"]


def save(file: Path, mask: np.ndarray, **how) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask.astype(np.uint8)).save(file, **how)


def in_two(folder: Path) -> list[Path]:
    return [folder / "masks" / f"{paint(folder / 'images', 3)[i][:-4]}.png" for i in range(3)]


def beside(folder: Path) -> list[Path]:
    return [folder / f"{paint(folder, 3)[i][:-4]}_mask.png" for i in range(3)]


def page_of(folder: Path, mask_format: str | None = None, classes=()):
    page = session_of(folder, "segmentation", list(classes), None, 400, mask_format=mask_format)
    page.begin()
    return page


def send(page, file: str, mask: np.ndarray) -> None:
    page.save({"file": file, "stamp": page.load(file).stamp}, zlib.compress(mask.astype(np.uint8).tobytes()))


def shown(page, file: str) -> np.ndarray:
    return np.frombuffer(gzip.decompress(page.load(file).content), np.uint8).reshape(16, 16)


@pytest.mark.parametrize("layout", [in_two, beside])
@pytest.mark.parametrize("kind", ["plain", "soft", "rgb", "jpeg", "transparent"])
def test_a_page_of_numbers_is_not_opened_on_masks_of_0_and_255(tmp_path, layout, kind, capsys):
    masks = layout(tmp_path / "p")
    mask = 255 * DISC
    if kind == "soft":
        mask = np.clip(np.linspace(-80, 330, 256), 0, 255).reshape(16, 16)
    if kind == "rgb":
        mask = mask[..., None].repeat(3, 2)
    if kind == "transparent":
        mask = np.stack([0 * mask + 200] * 3 + [mask], 2)
    save(masks[0].with_suffix(".jpg") if kind == "jpeg" else masks[0], mask)
    save(masks[1], 0 * DISC)  # of no object, which may be of either kind
    before = sorted(tmp_path.rglob("*"))
    assert main(["label", str(tmp_path / "p"), "--task", "segmentation", "--no-browser"]) == 2
    said = capsys.readouterr().err
    assert "look like masks of 0 and 255" in said and "--mask-format binary" in said and "--mask-format index" in said
    assert sorted(tmp_path.rglob("*")) == before
    assert kind == "soft" or (shown(page_of(tmp_path / "p", "binary"), "photo 00.png") == DISC).mean() > 0.9


@pytest.mark.parametrize("layout", [in_two, beside])
def test_masks_painted_beside_those_of_0_and_255_are_such(tmp_path, layout):
    masks = layout(tmp_path)
    save(masks[0], 255 * DISC)
    page = page_of(tmp_path, "binary")
    assert page.state()["whole"] and [one["name"] for one in page.state()["classes"]] == TWO
    first, second, third = page.places
    assert (shown(page, first) == DISC).all()
    send(page, second, 1 - DISC)
    assert set(np.unique(Image.open(masks[1]))) == {0, 255} and "not painted whole" not in page.parting()
    command = page.next_command().split()
    assert command[command.index("--mask-format") + 1] == "binary" and "--mask-format binary" in page.parting()
    send(page, third, np.where(DISC == 1, 1, 255))
    assert "1 of them is not painted whole" in page.parting() and masks[2].name in page.parting()
    with pytest.raises(UserError, match="pixels that nobody has painted"):
        load_segmentation(tmp_path, mask_format="binary").mask(2)
    send(page, third, DISC)
    found = load_segmentation(tmp_path, mask_format="binary", classes=str(tmp_path / "classes.txt"))
    assert [found.mask(i).tolist() for i in range(3)] == [DISC.tolist(), (1 - DISC).tolist(), DISC.tolist()]
    check_masks((found, np.arange(3)))
    with pytest.raises(UserError, match="3 classes .* tell two apart"):
        page_of(tmp_path, "binary", [*TWO, "star"])


def test_masks_of_numbers_that_lie_among_them_become_such_where_they_are_whole(tmp_path, caplog):
    masks = in_two(tmp_path)
    save(masks[0], 255 * DISC)
    save_mask(DISC, TWO, masks[1])
    save_mask(np.where(DISC == 1, 1, 255), TWO, masks[2])
    half = masks[2].read_bytes()
    paint(tmp_path / "images", 4)
    (tmp_path / "masks" / "photo 03.png").write_bytes(b"no image")
    page = page_of(tmp_path, "binary")
    assert "4 of 4 images have a mask (1 of them is not painted whole" in page.parting()
    assert "1 masks were of class numbers" in caplog.text and masks[2].read_bytes() == half
    assert (np.asarray(Image.open(masks[1])) == 255 * DISC).all()
    assert (shown(page, "photo 02.png") == np.where(DISC == 1, 1, 255)).all()


@pytest.mark.parametrize("values", [(0, 1), (0, 1, 255), (0, 3)])
def test_masks_of_numbers_need_no_flag_whatever_is_among_them(tmp_path, values):
    """Those of background and of pixels that nobody has painted too, as long as another says that they are numbers."""
    masks = in_two(tmp_path)
    save(masks[0], np.where(DISC == 1, 255, 0))
    save(masks[1], np.resize(np.array(values), (16, 16)))
    page = page_of(tmp_path, classes=["a", "b", "c", "d"])
    assert not page.state()["whole"]
    declared = page_of(tmp_path, "index")
    assert (shown(declared, "photo 00.png") == np.where(DISC == 1, 255, 0)).all()
    send(declared, "photo 02.png", DISC)
    assert "--mask-format index" in declared.next_command()


def test_the_flag_is_for_folders_that_do_not_say_themselves_what_their_masks_are(tmp_path, monkeypatch):
    paint(tmp_path)
    with pytest.raises(UserError, match="mask format 'colors'"):
        page_of(tmp_path, "colors")
    monkeypatch.chdir(tmp_path)
    for folder in (said_of(tmp_path, None), tmp_path / "asked"):
        if folder.name == "asked":
            paint(folder / "images")
            Asked("photos", None, {"photo 00.png": "a.png"}, task="segmentation").save(folder)
        with pytest.raises(UserError, match="is known, and --mask-format is for"):
            session_of(folder, "segmentation", [], None, 400, mask_format="binary")


def data(folder: Path, *masks: np.ndarray):
    paint(folder / "images", len(masks))
    for i, mask in enumerate(masks):
        if mask is not None:
            save(folder / "masks" / f"photo {i:02d}.png", mask)
    return folder


def looked_at(folder: Path, count: int, **how) -> None:
    found = load_segmentation(folder, classes=TWO, **how)
    check_masks((found, np.arange(count)))


def test_masks_of_two_kinds_are_not_trained_on(tmp_path):
    folder = data(tmp_path / "mixed", 255 * DISC, 255 * DISC, 0 * DISC, None)
    with pytest.raises(UserError, match="nothing but 0 and 255 in 2 masks of 'mixed'.*--mask-format binary"):
        looked_at(folder, 4)
    looked_at(folder, 4, mask_ignore=[255])
    save_mask(DISC, TWO, folder / "masks" / "photo 03.png")
    with pytest.raises(UserError, match="two kinds in 'mixed': 2 hold .* 'photo 00.png', and 1 numbers .* 'photo 03"):
        looked_at(folder, 4)
    save_mask(np.where(DISC == 1, 1, 255), TWO, folder / "masks" / "photo 03.png")  # 255: nobody has painted it
    with pytest.raises(UserError, match="masks of two kinds"):
        looked_at(folder, 4)
    looked_at(folder, 4, mask_format="index")
    save(folder / "masks" / "photo 03.png", np.where(DISC == 1, 1, 255))  # of a tool in which 255 takes no part
    looked_at(folder, 4)


def test_masks_that_cannot_be_read_are_for_others_to_tell(tmp_path):
    folder = data(tmp_path / "p", DISC, DISC, DISC, None)
    (folder / "masks" / "photo 00.png").write_bytes(b"no image")
    Image.fromarray(np.full((16, 16), 0.5, np.float32)).save(folder / "masks" / "photo 01.tif")
    (folder / "masks" / "photo 01.png").unlink()
    found = load_segmentation(folder, classes=TWO)
    refuse_mixed((found, np.arange(4)))
    with pytest.raises(UserError, match="2 faults.*\n.*photo 00.*cannot be read.*\n.*photo 01.*fractions"):
        check_masks((found, np.arange(4)))
    assert "not an image" in str(pytest.raises(UserError, page_of(folder).load, "photo 00.png").value)


def test_masks_painted_in_strokes_of_background_alone_are_numbers(tmp_path):
    folder = data(tmp_path, DISC, None)
    save_mask(np.where(DISC == 1, 0, 255), TWO, folder / "masks" / "photo 01.png")
    looked_at(folder, 2)
    page_of(folder)


def test_images_are_not_chosen_for_masks_that_cannot_lie_among_those_of_the_data(tmp_path):
    folder = data(tmp_path / "p", 255 * DISC, 255 * DISC, None, None)
    how = dict(task="segmentation", classes=TWO, budget=1, output=tmp_path / "out", device="cpu")
    with pytest.raises(UserError, match="nothing but 0 and 255 in 2 masks of 'p'.*--mask-format binary"):
        select("resnet10t", str(folder), **how)
    assert not (tmp_path / "out" / "selection.json").exists()
