"""Small copies of large photos: what they are, what stays, and that a stopped copy goes on."""

import errno
import json
import logging
import os
import warnings

import numpy as np
import pytest
from PIL import Image, ImageCms

from hf_lowlabel import UserError, load_source
from hf_lowlabel.cli import main
from hf_lowlabel.data import shrinking
from hf_lowlabel.data.caches import decoding
from hf_lowlabel.data.shrink_record import Record, Stamp
from hf_lowlabel.data.shrinking import shrink


def picture(path, width, height, mode="RGB", **save):
    """A ramp with a red corner, so that a turn would be seen."""
    path.parent.mkdir(parents=True, exist_ok=True)
    x = np.zeros((height, width, 3), np.uint8)
    x[..., 1] = np.linspace(0, 255, width)
    x[: height // 4, : width // 4] = (255, 0, 0)
    Image.fromarray(x).convert(mode).save(path, **save)
    return path


def opened(path):
    image = Image.open(path)
    return image.format, image.size, image.mode


@pytest.fixture
def photos(tmp_path):
    root = tmp_path / "photos"
    turn = Image.Exif()
    turn[274] = 6  # a quarter turn
    picture(root / "cat" / "wide.JPG", 400, 200)
    picture(root / "cat" / "turned.jpg", 400, 200, exif=turn)
    picture(root / "dog" / "palette.png", 120, 300, mode="P")
    picture(root / "dog" / "small.jpg", 50, 70)
    picture(root / "dog" / "scan.tif", 300, 300)
    picture(root / "dog" / "deep.png", 300, 300, mode="I;16")
    picture(root / "dog" / "line.png", 300, 300, mode="1")
    frames = [Image.new("RGB", (300, 300), color) for color in ("red", "blue")]
    frames[0].save(root / "dog" / "film.webp", save_all=True, append_images=frames[1:])
    (root / "labels.csv").write_text("file_name,label\ncat/wide.JPG,cat\n")
    return root


def test_shorter_sides_are_made_small_and_what_cannot_be_stays(photos, tmp_path):
    done = shrink(photos, tmp_path / "small", 100)
    assert (done.smaller, done.copied, done.there, done.renamed, done.skipped) == (4, 4, 0, {}, [])
    assert opened(done.folder / "cat/wide.JPG") == ("JPEG", (200, 100), "RGB")
    assert opened(done.folder / "cat/turned.jpg") == ("JPEG", (100, 200), "RGB")
    assert Image.open(done.folder / "cat/turned.jpg").getpixel((95, 5))[0] > 200  # the red corner, upright
    assert not Image.open(done.folder / "cat/turned.jpg").getexif()
    assert opened(done.folder / "dog/palette.png") == ("PNG", (100, 250), "RGB")
    assert opened(done.folder / "dog/line.png") == ("PNG", (100, 100), "L")
    for name in ("dog/small.jpg", "dog/scan.tif", "dog/deep.png", "dog/film.webp", "labels.csv"):
        assert (done.folder / name).read_bytes() == (photos / name).read_bytes()
    assert load_source(str(done.folder)).ids == load_source(str(photos)).ids


def test_tables_in_folders_behind_links_come_along(tmp_path):
    """As the images in them do; a link to a folder above is no circle."""
    for split in ("train", "test"):
        picture(tmp_path / "elsewhere" / split / "shots" / "a.png", 90, 60)
        (tmp_path / "elsewhere" / split / "metadata.csv").write_text("file_name,label\nshots/a.png,cat\n")
        (tmp_path / "photos").mkdir(exist_ok=True)
        (tmp_path / "photos" / split).symlink_to(tmp_path / "elsewhere" / split)
    (tmp_path / "elsewhere" / "test" / "shots" / "up").symlink_to(tmp_path / "elsewhere" / "test")
    small = shrink(tmp_path / "photos", tmp_path / "small", 40).folder
    for split in ("train", "test"):
        one, other = (load_source(folder, split=split) for folder in (tmp_path / "photos", small))
        assert one.ids == other.ids and one.class_names == other.class_names == ["cat"]
        assert one.labels.tolist() == other.labels.tolist() == [0]


def test_networks_see_nearly_the_same(photos, tmp_path):
    small = load_source(str(shrink(photos, tmp_path / "small", 100).folder))
    large = load_source(str(photos))
    i = large.ids.index("cat/wide.JPG")
    a, b = (source.decode(i, 32, "bicubic").float() for source in (large, small))
    assert (a - b).abs().mean() < 1.5  # of 255


@pytest.mark.parametrize("name", ["rgba.png", "rgba.webp", "gray.png", "palette.png", "colour.png"])
def test_what_is_transparent_is_the_same_colour_in_the_copy(tmp_path, name):
    """Networks see the colours below: a cut-out on white stays on white."""
    pixels = np.full((60, 90, 4), (250, 240, 230, 0), np.uint8)
    pixels[20:40, 30:60] = (10, 20, 30, 255)
    image, save = Image.fromarray(pixels), {}
    if name == "gray.png":
        image = Image.merge("LA", (image.convert("L"), image.getchannel("A")))
    if name == "palette.png":
        image, save = image.convert("RGB").quantize(4), {"transparency": 0}
    if name == "colour.png":
        image, save = image.convert("RGB"), {"transparency": (250, 240, 230)}
    (tmp_path / "photos").mkdir()
    image.save(tmp_path / "photos" / name, **save, **({"lossless": True, "exact": True} if name[-4:] == "webp" else {}))
    large, small = load_source(tmp_path / "photos"), load_source(shrink(tmp_path / "photos", tmp_path / "o", 32).folder)
    a, b = (np.asarray(source.decode(0, 32), int) for source in (large, small))
    # at edges two ways of resizing differ
    assert np.abs(a - b).max() < 40 and small.image(0).size == (48, 32)


@pytest.mark.parametrize("name, turn, mode", [("a.jpg", 1, "RGB"), ("a.jpg", 6, "RGB"), ("a.png", 1, "RGB"),
    ("a.webp", 6, "RGB"), ("a.png", 1, "RGBA"), ("a.jpg", 1, "CMYK"), ("a.jpg", 1, "L")])  # fmt: skip
def test_a_profile_goes_with_the_colours_that_it_is_of(tmp_path, name, turn, mode):
    srgb, tag = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(), Image.Exif()
    tag[274] = turn
    space = {"CMYK": b"CMYK", "L": b"GRAY"}.get(mode, b"RGB ")
    profile = srgb[:16] + space + srgb[20:]
    picture(tmp_path / "photos" / name, 90, 60, mode, exif=tag, icc_profile=profile)
    small = shrink(tmp_path / "photos", tmp_path / "small", 32).folder
    with Image.open(small / name) as image:
        assert image.size == ((32, 48) if turn == 6 else (48, 32))
        assert image.info.get("icc_profile") == (None if mode == "CMYK" else profile)


def test_other_formats_become_jpeg_under_a_name_that_says_so(tmp_path, capsys):
    pytest.importorskip("pillow_heif").register_heif_opener()
    picture(tmp_path / "photos" / "a.heic", 300, 200)
    picture(tmp_path / "photos" / "b.heic", 300, 200)
    picture(tmp_path / "photos" / "b.jpg", 50, 50)
    assert main(["shrink", str(tmp_path / "photos"), "--side", "64", "--output-dir", str(tmp_path / "out")]) == 0
    assert sorted(p.name for p in (tmp_path / "out").glob("[ab]*")) == ["a.jpg", "b.heic", "b.jpg"]
    assert opened(tmp_path / "out" / "a.jpg")[:2] == ("JPEG", (96, 64))
    assert (tmp_path / "out" / "b.heic").read_bytes() == (tmp_path / "photos" / "b.heic").read_bytes()
    assert "1 have another ending now, such as a.heic -> a.jpg" in capsys.readouterr().out


def test_an_ending_that_lies_stays_so_that_tables_find_the_image(tmp_path):
    kinds = {"1.jpg": "PNG", "2.png": "JPEG", "3.tif": "WEBP", "4.jpg": "WEBP"}
    for name, kind in kinds.items():
        picture(tmp_path / "photos" / name, 300, 200, format=kind)
    (tmp_path / "photos" / "metadata.csv").write_text("file_name,label\n" + "".join(f"{name},a\n" for name in kinds))
    done = shrink(tmp_path / "photos", tmp_path / "out", 64)
    assert (done.smaller, done.renamed) == (4, {})
    assert {name: opened(done.folder / name)[:2] for name in kinds} == {k: (v, (96, 64)) for k, v in kinds.items()}
    found = load_source(str(done.folder))
    assert found.ids == sorted(kinds) and found.has_target.all()
    assert shrink(tmp_path / "photos", tmp_path / "out", 64).there == 4


def test_a_stopped_copy_goes_on(photos, tmp_path, monkeypatch):
    whole = shrink(photos, tmp_path / "whole", 100)
    made, smaller = [], shrinking._smaller

    def stops(image, *rest):
        made.append(image)
        if len(made) == 2:
            raise KeyboardInterrupt
        return smaller(image, *rest)

    monkeypatch.setattr(shrinking, "_smaller", stops)
    monkeypatch.setattr(shrinking, "cores", lambda: 1)
    with pytest.raises(KeyboardInterrupt):
        shrink(photos, tmp_path / "out", 100)
    monkeypatch.undo()
    done = shrink(photos, tmp_path / "out", 100)
    assert done.there and done.smaller
    files = [p for p in whole.folder.rglob("*") if p.is_file()]
    assert {p.relative_to(whole.folder) for p in files} == {
        p.relative_to(done.folder) for p in done.folder.rglob("*") if p.is_file()
    }
    files = [p for p in files if p.name != ".shrunk.jsonl"]  # which knows when each was written
    assert all(p.read_bytes() == (done.folder / p.relative_to(whole.folder)).read_bytes() for p in files)


def test_photos_that_were_added_or_changed_are_made(photos, tmp_path):
    shrink(photos, tmp_path / "out", 100)
    picture(photos / "cat" / "new.jpg", 200, 200)
    os.utime(picture(photos / "cat" / "wide.JPG", 300, 150), (2**31, 2**31))
    done = shrink(photos, tmp_path / "out", 100)
    assert (done.smaller, done.there) == (2, 7) and opened(done.folder / "cat/new.jpg")[1] == (100, 100)


def listed(folder):
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file() and not p.name.startswith(".")}


def test_what_was_moved_or_deleted_leaves_the_copy(photos, tmp_path):
    shrink(photos, tmp_path / "out", 100)
    (photos / "cat" / "turned.jpg").unlink()
    (photos / "cat" / "wide.JPG").rename(photos / "dog" / "wide.JPG")
    (photos / "labels.csv").unlink()
    done = shrink(photos, tmp_path / "out", 100)
    assert sorted(done.removed) == ["cat/turned.jpg", "cat/wide.JPG", "labels.csv"] and not done.others
    assert (done.smaller, done.copied, done.there) == (1, 0, 6)
    assert listed(done.folder) == listed(photos) and not (done.folder / "cat").exists()
    again = shrink(photos, tmp_path / "out", 100)
    assert (again.removed, again.smaller, again.there) == ([], 0, 7)


def test_a_photo_or_table_in_the_place_of_another_is_made_whatever_its_date(photos, tmp_path):
    old = (photos / "cat" / "wide.JPG").stat()
    shrink(photos, tmp_path / "out", 100)
    os.utime(picture(photos / "cat" / "wide.JPG", 300, 150), (10**9, 10**9))  # of a backup
    (photos / "dog" / "small.jpg").write_bytes((photos / "cat" / "turned.jpg").read_bytes())
    os.utime(photos / "dog" / "small.jpg", ns=(old.st_mtime_ns, old.st_mtime_ns))
    (photos / "labels.csv").write_text("file_name,label\ncat/wide.JPG,dog\n")
    os.utime(photos / "labels.csv", (10**9, 10**9))
    done = shrink(photos, tmp_path / "out", 100)
    assert (done.smaller, done.there, done.removed, done.others) == (2, 6, [], [])
    assert opened(done.folder / "cat/wide.JPG")[1] == (200, 100)
    assert opened(done.folder / "dog/small.jpg")[1] == (100, 200)
    assert (done.folder / "labels.csv").read_text().endswith("dog\n")


def test_what_a_person_put_into_the_copy_stays(photos, tmp_path, caplog):
    out = shrink(photos, tmp_path / "out", 100).folder
    mine = [out / "cat" / "mine.jpg", out / "cat" / "wide.JPG", out / "dog" / "small.jpg", out / "labels.csv"]
    for path in mine:
        path.write_bytes(b"mine")
    picture(photos / "cat" / "mine.jpg", 300, 150)  # of the same name
    picture(photos / "cat" / "wide.JPG", 300, 150)
    (photos / "dog" / "small.jpg").unlink()
    done = shrink(photos, out, 100)
    others = ["cat/mine.jpg", "cat/wide.JPG", "dog/small.jpg", "labels.csv"]
    assert sorted(done.others) == others and not done.removed
    assert all(path.read_bytes() == b"mine" for path in mine) and "4 files in" in caplog.text
    (out / "cat" / "wide.JPG").unlink()
    assert shrink(photos, out, 100).smaller == 1


def test_a_name_that_another_photo_takes_is_given_back(tmp_path):
    picture(tmp_path / "photos" / "a.avif", 300, 150, format="JPEG")
    out = shrink(tmp_path / "photos", tmp_path / "out", 100).folder
    assert listed(out) == {"a.jpg"}
    picture(tmp_path / "photos" / "a.jpg", 150, 300)
    done = shrink(tmp_path / "photos", out, 100)
    assert listed(out) == {"a.jpg", "a.avif"} and not done.others and opened(out / "a.jpg")[1] == (100, 200)


def test_a_record_names_nothing_outside_the_copy(photos, tmp_path):
    out = shrink(photos, tmp_path / "out", 100).folder
    outside = picture(tmp_path / "precious.jpg", 50, 50)
    (tmp_path / "elsewhere").mkdir()
    beside = picture(tmp_path / "elsewhere" / "precious.jpg", 50, 50)
    (out / "linked").symlink_to(tmp_path / "elsewhere")
    lines = []
    for name, path in (("../precious.jpg", outside), (str(outside), outside), ("linked/precious.jpg", beside)):
        found = path.stat()
        lines.append(json.dumps(["gone.jpg", name, 1, 1, found.st_size, found.st_mtime_ns]))
    for line in (*lines, "[1]", "{}", '["half'):
        with open(out / ".shrunk.jsonl", "a") as file:
            file.write(line + "\n")
        shrink(photos, out, 100)
    assert outside.exists() and beside.exists()


def test_unreadable_images_are_left_out_up_to_a_share(photos, tmp_path):
    (photos / "dog" / "bad.jpg").write_bytes(b"\xff\xd8\xff nothing")
    with pytest.raises(UserError, match="1 of 9 images cannot be used .'dog/bad.jpg'"):
        shrink(photos, tmp_path / "out", 100)
    done = shrink(photos, tmp_path / "out", 100, max_bad=0.2)
    assert [id for id, _ in done.skipped] == ["dog/bad.jpg"] and not (done.folder / "dog/bad.jpg").exists()


def test_what_cannot_be_is_said_before_anything_is_written(photos, tmp_path):
    picture(tmp_path / "masked" / "images" / "1.png", 64, 64)
    picture(tmp_path / "masked" / "masks" / "1.png", 64, 64, mode="L")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    shrink(photos, tmp_path / "made", 100)
    before = sorted(tmp_path.rglob("*"))
    for source, target, side, said in (
        (photos, photos / "small", 100, "lie in each other"),
        (photos, tmp_path, 100, "lie in each other"),
        (photos, tmp_path / "out", 31, "--side is 31. Give 32 px or more"),
        (tmp_path / "none", tmp_path / "out", 100, "not a folder"),
        (tmp_path / "masked", tmp_path / "out", 100, "has masks"),
        (photos, tmp_path / "full", 100, "holds other files"),
        (photos, tmp_path / "made", 200, "holds images shrunk to 100 px"),
        (photos / "cat", tmp_path / "made", 100, "holds another folder"),
    ):
        with pytest.raises(UserError, match=said):
            shrink(source, target, side)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_slow_pass_says_what_it_costs_and_what_to_do(photos, caplog, monkeypatch):
    source = load_source(str(photos))
    monkeypatch.setattr(decoding, "SLOW", (0.0, 0.0))
    with caplog.at_level(logging.INFO, "hf_lowlabel"), warnings.catch_warnings():
        list(decoding.decode_chunks(source, np.arange(len(source)), 1, size=224))
    assert "Reading 8 large images takes 0 s of every run" in caplog.text
    assert "hf-lowlabel shrink photos/ --side 512 --output-dir photos-512" in caplog.text
    caplog.clear()
    monkeypatch.undo()
    list(decoding.decode_chunks(source, np.arange(len(source)), 1, size=224))
    assert not caplog.text


# ---- links, cut files and other processes ----------------------------------------------------------------------------
def test_two_calls_do_not_write_to_one_copy(photos, tmp_path, monkeypatch, capsys):
    out, smaller, told = tmp_path / "out", shrinking._smaller, []

    def meanwhile(*given):
        monkeypatch.setattr(shrinking, "_smaller", smaller)
        told.append(main(["shrink", str(photos), "--side", "100", "--output-dir", str(out)]))
        return smaller(*given)

    monkeypatch.setattr(shrinking, "cores", lambda: 1)
    monkeypatch.setattr(shrinking, "_smaller", meanwhile)
    shrink(photos, out, 100)
    said = capsys.readouterr().err
    assert told == [2] and f"Another `shrink` is writing to {str(out)!r}. Wait for it, or give another" in said
    again = shrink(photos, out, 100)
    assert (again.there, again.others, again.removed) == (8, [], []) and not (out / ".shrinking").exists()


def test_a_call_that_waited_sees_what_the_other_one_made(photos, tmp_path, monkeypatch):
    """It may have been of another size: the folder was empty when it was first looked at."""
    out, images = tmp_path / "out", shrinking.image_files

    def meanwhile(source):
        monkeypatch.undo()
        shrink(photos, out, 64)
        return images(source)

    monkeypatch.setattr(shrinking, "image_files", meanwhile)
    with pytest.raises(UserError, match="holds images shrunk to 64 px"):
        shrink(photos, out, 100)
    (out / ".shrinking").write_text("")  # of a call that was killed
    assert shrink(photos, out, 64).there == 8 and not (out / ".shrinking").exists()


def test_a_line_that_was_cut_short_takes_no_other_along(photos, tmp_path):
    out = shrink(photos, tmp_path / "out", 100).folder
    with open(out / ".shrunk.jsonl", "a") as file:
        file.write('["cat/half.jpg", "cat/ha')
    record = Record(photos, out)
    record.add("cat/one.jpg", "cat/one.jpg", Stamp(1, 1), out / "labels.csv")
    record.add("cat/two.jpg", "cat/two.jpg", Stamp(1, 1), out / "labels.csv")
    known = Record(photos, out).made.keys()
    assert {"cat/one.jpg", "cat/two.jpg"} <= known and len(known) == 11


@pytest.mark.parametrize("left", [0, 40])
def test_what_was_cut_in_the_copy_is_made_again(left, photos, tmp_path):
    """By a power cut, or while the copy was copied: smaller pictures, copies and tables, whatever their date says."""
    out = shrink(photos, tmp_path / "out", 100).folder
    names = ("cat/wide.JPG", "dog/scan.tif", "labels.csv")
    whole = {name: (out / name).read_bytes() for name in names}
    for name in names:
        (out / name).write_bytes(whole[name][: min(left, len(whole[name]) - 1)])
    done = shrink(photos, out, 100)
    assert (done.smaller, done.copied, done.there, done.others) == (1, 1, 6, [])
    assert {name: (out / name).read_bytes() for name in names} == whole


def test_an_empty_file_of_a_photo_that_has_changed_or_gone_is_nobody_s(photos, tmp_path):
    out = shrink(photos, tmp_path / "out", 100).folder
    for name in ("cat/wide.JPG", "dog/small.jpg"):
        (out / name).write_bytes(b"")
    picture(photos / "cat" / "wide.JPG", 300, 150)
    (photos / "dog" / "small.jpg").unlink()
    done = shrink(photos, out, 100)
    assert (done.removed, done.others) == (["dog/small.jpg"], []) and opened(out / "cat/wide.JPG")[1] == (200, 100)


def test_links_to_nothing_and_files_that_vanish_are_left_out_and_named(photos, tmp_path, monkeypatch, caplog):
    """As git-annex and DVC leave them where they have not fetched a file."""
    for name in ("notes.txt", "cat/classes.csv", "cat/absent.jpg"):
        (photos / name).symlink_to("elsewhere/nothing")
    picture(photos / "dog" / "also small.jpg", 50, 70)
    (photos / "late.md").write_text("late")
    put = shrinking.open_image

    def vanishes(path):
        image = put(path)
        if path.name == "also small.jpg":
            path.unlink()
            (photos / "late.md").unlink()
        return image

    beside = list(shrinking._beside(photos))
    monkeypatch.setattr(shrinking, "_beside", lambda _: iter(beside))
    monkeypatch.setattr(shrinking, "open_image", vanishes)
    done = shrink(photos, tmp_path / "out", 100, max_bad=0.5)
    left = ["cat/absent.jpg", "cat/classes.csv", "dog/also small.jpg", "late.md", "notes.txt"]
    assert sorted(name for name, _ in done.skipped) == left and "left out 5 files that cannot be read" in caplog.text
    assert (done.smaller, done.copied) == (4, 4) and listed(done.folder) == listed(photos) - {*left}
    monkeypatch.undo()
    again = shrink(photos, done.folder, 100, max_bad=0.5)
    assert sorted(name for name, _ in again.skipped) == ["cat/absent.jpg", "cat/classes.csv", "notes.txt"]


def test_a_table_that_nobody_may_read_is_left_out(photos, tmp_path, monkeypatch):
    """The sibling of one that is not there."""
    (photos / "secret.csv").write_text("a,b\n")

    def denied(path, *mode):
        if str(path) == str(photos / "secret.csv"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return open(path, *mode)

    monkeypatch.setattr(shrinking, "open", denied, raising=False)
    done = shrink(photos, tmp_path / "out", 100)
    assert [name for name, _ in done.skipped] == ["secret.csv"] and "Permission denied" in done.skipped[0][1]
    assert listed(done.folder) == listed(photos) - {"secret.csv"}
