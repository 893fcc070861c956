"""Features on disk: the same as a direct pass, reused only when nothing changed, bad images and numbers reported."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file

from hf_lowlabel.arguments import DataArguments
from hf_lowlabel.data.files.folders import FileReader
from hf_lowlabel.data.joining import join
from hf_lowlabel.data.opening import load_segmentation, load_source
from hf_lowlabel.errors import UserError
from hf_lowlabel.models import create_backbone
from hf_lowlabel.selection import feature_file
from hf_lowlabel.selection.features import extract
from hf_lowlabel.tasks import get_task
from hf_lowlabel.views.table import build_view

from ..processes import begun, ranks
from . import feature_ranks
from .conftest import paint


def test_file_holds_what_the_backbone_computes(backbone, photos, tmp_path):
    source, path = load_source(photos), tmp_path / "f.safetensors"
    members = np.array([3, 5, 8, 20])
    features = extract(backbone, source, members, path=path, device="cpu")
    assert features.values.dtype == np.float32 and not features.reused and features.values.shape == (4, 128)
    stored = load_file(path)
    assert stored["indices"].tolist() == members.tolist() and np.array_equal(stored["features"], features.values)
    assert stored["features"].dtype == np.float16
    encoder = create_backbone(backbone).eval()
    prep = encoder.preprocessing
    view = build_view("eval", size=16, mean=prep["mean"], std=prep["std"])
    images = torch.stack([source.decode(i, 16, prep["interpolation"]) for i in members])
    with torch.no_grad():
        direct = encoder.pooled(view(images, torch.zeros(4, view.width, dtype=torch.float64)))
    torch.testing.assert_close(torch.as_tensor(features.values), direct, atol=1e-5, rtol=2**-11)  # as it is said
    assert np.array_equal(extract(encoder, source, members, device="cpu").values, features.values)  # without a file


def test_reuse_asks_for_the_same_model_and_data(backbone, photos, tmp_path):
    source, path = load_source(photos), tmp_path / "f.safetensors"
    first = extract(backbone, source, path=path, device="cpu")
    assert extract(backbone, source, path=path, device="cpu").reused
    assert not extract(backbone, source, np.arange(10), path=path, device="cpu").reused
    other = create_backbone(backbone)
    with torch.no_grad():
        next(other.parameters()).add_(1e-3)
    changed = extract(other, source, path=path, device="cpu")
    assert not changed.reused and changed.model != first.model and changed.data == first.data
    path.write_bytes(b"\x05\0\0\0\0\0\0\0ab")
    with pytest.raises(UserError, match="not a whole file of features"):
        extract(backbone, source, path=path, device="cpu")


def test_a_path_without_the_ending_is_a_folder_that_other_commands_go_on_with(backbone, photos, tmp_path):
    source = load_source(photos)
    for path in (tmp_path / "kept", tmp_path / "a" / "kept.v2", f"{tmp_path}/f.safetensors/"):
        first = extract(backbone, source, path=path, device="cpu")
        (kept,) = Path(path).glob("*.safetensors")
        assert extract(backbone, source, path=path, device="cpu").reused and not first.reused
    for file in (tmp_path / "f", tmp_path / "f.st"):  # of an older version
        shutil.copy(kept, file)
        assert extract(backbone, source, path=file, device="cpu").reused and file.is_file()
    assert (
        extract(backbone, source, path=tmp_path / "g.SafeTensors", device="cpu")
        and (tmp_path / "g.SafeTensors").is_file()
    )


@pytest.mark.parametrize("how", ["alone", "joined", "pages"])
def test_features_stay_when_labels_are_added(backbone, photos, tmp_path, how):
    """The images are the same, whatever is said of them."""
    path, table = tmp_path / "f.safetensors", photos / "metadata.csv"
    names = sorted(file.relative_to(photos).as_posix() for file in photos.rglob("*.png"))
    if how == "pages":
        Image.new("RGB", (8, 8)).save(photos / "p.tif", save_all=True, append_images=[Image.new("RGB", (8, 8), "red")])
    prints, found = set(), []
    for count in (2, 5):
        table.write_text("file_name,label\n" + "".join(f"{name},class {i}\n" for i, name in enumerate(names[:count])))
        source = load_source(photos, pages=how == "pages")
        source = join(source, load_source(photos)) if how == "joined" else source
        prints.add(source.fingerprint)
        found.append(extract(backbone, source, np.array([0, len(source) - 1]), path=path, device="cpu"))
    assert len(prints) == 2, "splits and runs ask for the labels too"
    assert found[1].reused and found[1].data == found[0].data
    Image.new("RGB", (20, 20)).save(photos / names[0])
    source = load_source(photos)
    assert not extract(backbone, source, np.array([0, len(source) - 1]), path=path, device="cpu").reused


def test_features_stay_when_masks_are_added(backbone, tmp_path):
    for i in range(3):
        pixels = np.random.default_rng(i).integers(0, 256, (32, 32), dtype=np.uint8)
        (tmp_path / "d/images").mkdir(parents=True, exist_ok=True), (tmp_path / "d/masks").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / f"d/images/{i}.png")
    found, prints = [], set()
    for i in range(2):
        Image.fromarray(np.eye(32, dtype=np.uint8)).save(tmp_path / f"d/masks/{i}.png")
        source = load_segmentation(tmp_path / "d", classes=["a", "b"])
        prints.add(source.fingerprint)
        found.append(extract(backbone, source, path=tmp_path / "f.safetensors", device="cpu"))
    assert len(prints) == 2 and found[1].reused


def kept(backbone, photos, path):
    extract(backbone, load_source(photos), path=path, device="cpu")


def test_two_commands_that_keep_them_in_one_file_do_not_mix(backbone, photos, tmp_path):
    """The second begins and ends while the first is at work; whichever is later is what the file holds."""
    source, path, others = load_source(photos), tmp_path / "f.safetensors", []
    encoder = create_backbone(backbone).eval()

    class Reading(FileReader):
        def __call__(self, i):
            if not others:
                others.append(None)
                other = begun(kept, backbone, photos, path, stderr=tmp_path / "stderr")
                other.join()
                assert other.exitcode == 0, (tmp_path / "stderr").read_text()
            return super().__call__(i)

    source.reader = Reading(photos, source.reader.paths)
    some = np.arange(3, 20)
    first = extract(encoder, source, some, path=path, device="cpu", workers=1)
    assert others and np.array_equal(first.values, extract(encoder, load_source(photos), some, device="cpu").values)
    again = extract(encoder, load_source(photos), some, path=path, device="cpu")
    assert again.reused and np.array_equal(again.values, first.values) and not list(tmp_path.glob(".*.part"))


def test_features_are_those_of_this_command_whatever_the_file_holds_next(backbone, photos, tmp_path, monkeypatch):
    """Another command may fill it as soon as it is there."""
    source, path, join = load_source(photos), tmp_path / "f.safetensors", feature_file.join

    def joined(*args):
        join(*args)
        feature_file.write(path, feature_file.Features(np.zeros((2, 128), np.float32), np.arange(2), "other", "other"))

    monkeypatch.setattr(feature_file, "join", lambda *args: joined(*args) if len(args[1]) == 17 else join(*args))
    some = np.arange(3, 20)
    found = extract(backbone, source, some, path=path, device="cpu")
    assert found.indices.tolist() == some.tolist()
    assert np.array_equal(found.values, extract(backbone, source, some, device="cpu").values)


def test_values_read_to_another_depth_are_other_features(backbone, tmp_path):
    folder, path = tmp_path / "deep", tmp_path / "f.safetensors"
    folder.mkdir()
    for i in range(4):
        pixels = np.random.default_rng(i).integers(0, 4096, (32, 32)).astype(np.uint16)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    dark, whole = load_source(folder), load_source(folder, value_range=[0, 4095])
    before = extract(backbone, dark, path=path, device="cpu")
    after = extract(backbone, whole, path=path, device="cpu")
    assert not after.reused and not np.array_equal(before.values, after.values)
    assert extract(backbone, whole, path=path, device="cpu").reused


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "pages", "parquet", "joined", "paths"])
def test_a_photo_that_was_turned_in_its_place_has_other_features(backbone, tmp_path, kind):
    """By its tag alone: as many bytes as before, with the same pixels, so the data are the same for a run."""

    def opened(turn):
        noise, tag = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8), Image.Exif()
        tag[274] = turn
        ending, options = {"PNG": (".png", {}), "WEBP": (".webp", {}), "TIFF": (".tiff", {})}.get(kind, (".jpg", {}))
        pages = [Image.fromarray(noise[::-1])] if kind == "pages" else []
        ending, options = (".tif", dict(save_all=True, append_images=pages)) if pages else (ending, options)
        for folder in ("cat", "dog"):
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.fromarray(noise).save(tmp_path / folder / f"a{ending}", exif=tag, **options)
        files = [tmp_path / folder / f"a{ending}" for folder in ("cat", "dog")]
        if kind == "parquet":
            images = pa.array([{"bytes": file.read_bytes(), "path": None} for file in files])
            pq.write_table(pa.table({"image": images}), tmp_path / "t.parquet")
            return load_source(tmp_path / "t.parquet")
        if kind == "joined":
            return join(load_source(tmp_path), load_source(tmp_path / "dog"))
        return load_source(files if kind == "paths" else tmp_path, pages=bool(pages))

    upright, path = opened(1), tmp_path / "f.safetensors"
    before = extract(backbone, upright, path=path, device="cpu")
    assert extract(backbone, opened(1), path=path, device="cpu").reused
    turned = opened(6)
    after = extract(backbone, turned, path=path, device="cpu")
    assert not after.reused and (before.values[0] != after.values[0]).any()
    assert kind in ("TIFF", "pages") or turned.fingerprint == upright.fingerprint


def test_unreadable_images_are_left_out(backbone, photos, tmp_path):
    (photos / "photo 04.png").write_bytes(b"no image")
    source = load_source(photos)
    features = extract(backbone, source, path=tmp_path / "f.safetensors", device="cpu", max_bad=0.05)
    assert features.indices.tolist() == [i for i in range(24) if i != 4] and features.skipped[0][0] == "photo 04.png"
    assert features.rows(np.array([3, 4, 5])).tolist() == [3, 4]  # row 4 is the image at 5
    with pytest.raises(UserError, match="1 of 24 images"):
        extract(backbone, source, device="cpu", max_bad=0.01)
    assert not list(tmp_path.glob(".*.part"))


def test_unreadable_images_are_looked_at_again_where_features_are_kept(backbone, photos, tmp_path, caplog):
    """One that was mended in its place, as a disk that is there again, is the same data."""
    path, good = tmp_path / "f.safetensors", (photos / "photo 04.png").read_bytes()
    (photos / "photo 04.png").write_bytes(bytes(len(good)))
    extract(backbone, load_source(photos), path=path, device="cpu", max_bad=0.05)
    caplog.clear()
    again = extract(backbone, load_source(photos), path=path, device="cpu", max_bad=0.05)
    assert again.reused and again.skipped[0][0] == "photo 04.png" and "left out 1 images" in caplog.text
    with pytest.raises(UserError, match="1 of 24 images"):
        extract(backbone, load_source(photos), path=path, device="cpu", max_bad=0.01)
    (photos / "photo 04.png").write_bytes(good)
    mended = extract(backbone, load_source(photos), path=path, device="cpu", max_bad=0.01)
    assert not mended.reused and len(mended) == 24 and not mended.skipped
    assert extract(backbone, load_source(photos), path=path, device="cpu").reused


def test_the_share_of_unreadable_images_is_that_of_all_processes(backbone, tmp_path):
    """Of 70, of which the first process has 64: two unreadable ones there and one with the second."""
    names = paint(tmp_path / "photos", 70)
    bad = [names[i] for i in (3, 5, 68)]
    for name in bad:
        (tmp_path / "photos" / name).write_bytes(b"no image")

    def each(max_bad):
        ranks(feature_ranks.main, tmp_path, backbone, max_bad, folder=tmp_path)
        return [json.loads((tmp_path / f"rank-{rank}.json").read_text()) for rank in range(2)]

    for left in each(0.03):
        assert "3 of 70 images cannot be used" in left["error"] and names[68] in left["error"]
    assert not list(tmp_path.glob("*.safetensors")) and not list(tmp_path.glob(".*.part"))
    for left in each(0.05):
        assert left["skipped"] == bad and len(left["indices"]) == 67 and not left["reused"]
    for left in each(0.05):
        assert left["skipped"] == bad and len(left["indices"]) == 67 and left["reused"]
    paint(tmp_path / "photos", 70)
    for left in each(0.0):
        assert left["skipped"] == [] and len(left["indices"]) == 70 and not left["reused"]


def test_nan_features_name_an_image(backbone, photos, tmp_path):
    encoder = create_backbone(backbone)
    with torch.no_grad():
        list(encoder.parameters())[-1].fill_(torch.nan)
    with pytest.raises(
        UserError, match="NaN or too large for half precision for 24 of 24 images, such as 'photo 00.png'"
    ):
        extract(encoder, load_source(photos), device="cpu")


def test_features_that_have_changed_are_not_read(tmp_path):
    """Any bit of the file: in the header, the indices or the values."""
    from hf_lowlabel.errors import UserError
    from hf_lowlabel.selection.feature_file import Features, read, write

    path, rng = tmp_path / "f.safetensors", np.random.default_rng(0)
    write(path, Features(rng.normal(size=(5, 3)).astype(np.float32), np.arange(5), "m", "d"))
    whole = path.read_bytes()
    assert np.array_equal(read(path, "m", "d").indices, np.arange(5))
    for place in [*range(0, len(whole), 7), len(whole) - 1]:
        changed = bytearray(whole)
        changed[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(changed)
        try:
            assert read(path, "m", "d") is None, place  # another model or data by its fingerprint: computed anew
        except UserError as error:
            assert "not a whole file of features" in str(error)


def test_the_fingerprint_does_not_see_the_layout_in_memory():
    """Nor stumble over it: the weights of a convolution of 1 x 1 px count as contiguous in both."""
    from torch import nn

    from hf_lowlabel.selection.features import fingerprint

    net = nn.Sequential(nn.Conv2d(8, 4, 1), nn.Conv2d(4, 2, 3), nn.BatchNorm2d(2))
    net.preprocessing = dict(input_size=(3, 8, 8), crop_pct=1.0, interpolation="bilinear", mean=(0.5,), std=(0.5,))
    before = fingerprint(net)
    assert fingerprint(net.to(memory_format=torch.channels_last)) == before


def test_the_embedded_images_with_masks_have_features(backbone):
    source = get_task("segmentation").open_to_select(DataArguments(dataset="shapes"), None)
    assert len(extract(backbone, source, np.arange(3), device="cpu")) == 3
