"""A table that was read from a file names no picture outside its folder; one that a program made may name any."""

import os
import shutil

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hf_lowlabel import UserError, load_segmentation, load_source
from hf_lowlabel.data.pixels.images import BadImage
from hf_lowlabel.data.sources.streaming import Shards
from hf_lowlabel.data.sources.table_paths import beside, of_hub, open_encoded

REFUSED = "which does not lie in the folder of the table"


def paths(*names):
    return [None if name is None else {"bytes": None, "path": str(name)} for name in names]


def as_folder(table):
    """`datasets` takes a folder for what most of its files are."""
    for k in range(12):
        shutil.copy(table, table.with_name(f"{table.stem}-{k}.parquet"))
    return table.parent


@pytest.fixture
def place(tmp_path, make):
    make.files(tmp_path, ["private.png", "data/own.png", "data/part/deep.png", "database/near.png"])
    os.symlink(tmp_path / "private.png", tmp_path / "data/link.png")
    os.symlink(tmp_path, tmp_path / "data/up")
    os.symlink(tmp_path / "data", tmp_path / "also")
    return tmp_path


ELSEWHERE = ["{}/private.png", "../private.png", "{}/data/../private.png", "link.png", "{}/data/up/private.png"]
ELSEWHERE += ["{}/database/near.png", "up/private.png", "private.png/../../private.png", "", "/", "{}/data/\0"]


@pytest.mark.parametrize("name", ELSEWHERE)
@pytest.mark.parametrize("whole", [True, False])
def test_no_picture_outside_the_folder_of_a_table(place, make, name, whole):
    images = paths(place / "data/own.png", name.format(place))
    images.append({"bytes": make.encoded(make.picture(0)), "path": "/etc/anything.png"})  # bytes need no file
    table = make.table(place / "data" / "t.parquet", [0, 1, 1], image=images)
    with pytest.raises(UserError, match=REFUSED) as error:
        load_source(as_folder(table) if whole else table)
    assert str(error.value).count(". ") == 1


@pytest.mark.parametrize("folder", ["data", "also"])
def test_pictures_in_the_folder_of_a_table_are_read(place, make, folder, monkeypatch):
    images = paths(place / folder / "own.png", "own.png", "part/deep.png", place / "data/part/deep.png", None)
    table = make.table(place / "data" / "t.parquet", [0] * 5, image=images)
    as_folder(table)
    for given in (place / folder, place / folder / "t.parquet"):
        found = load_source(given)
        one, other = (np.asarray(make.picture(k)) for k in (1, 2))
        assert [np.array_equal(np.asarray(found.image(i)), one) for i in range(4)] == [True, True, False, False]
        assert np.array_equal(np.asarray(found.image(2)), other)
    monkeypatch.chdir(place)  # a script's own paths
    make.table(place / "data" / "t.parquet", [0], image=paths("data/own.png"))
    assert np.array_equal(np.asarray(load_source("data/t.parquet").image(0)), one)


def test_names_begin_at_the_folder_of_their_part_too(place, make):
    as_folder(make.table(place / "data" / "part" / "0.parquet", [0, 1], image=paths("deep.png", "part/deep.png")))
    found = load_source(place / "data")
    assert np.array_equal(np.asarray(found.image(0)), np.asarray(found.image(1)))


def test_masks_lie_there_too(place, make):
    images = paths("own.png")
    table = make.table(place / "data" / "t.parquet", [0], image=images, mask=paths(place / "private.png"))
    with pytest.raises(UserError, match=REFUSED):
        load_segmentation(table, classes=["a", "b"])


def test_streams_read_no_other_files_either(place, make):
    table = make.table(place / "data" / "t.parquet", [0, 0], image=paths("own.png", place / "private.png"))
    sample = Shards(table).sample(2)
    assert sample.image(0).size
    with pytest.raises(UserError, match=REFUSED):
        sample.image(1)


def test_what_a_program_made_may_name_any_file(place):
    files = [str(place / "private.png"), str(place / "data/own.png")]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    made = datasets.Dataset(datasets.table.InMemoryTable(pa.table({"image": pa.array(paths(*files), kind)})))
    for data in (files, pd.DataFrame({"path": files}), made):
        assert [load_source(data).image(i).size for i in range(2)]


def test_a_data_set_of_the_hub_names_what_was_downloaded_of_it(tmp_path, monkeypatch, make):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("datasets.config.DOWNLOADED_DATASETS_PATH", tmp_path / "downloads")
    make.files(tmp_path, ["datasets--a--b/blobs/1", "datasets--a--other/blobs/2", "downloads/extracted/3/x.png"])
    (tmp_path / "datasets--a--b/snapshots").mkdir()
    os.symlink("../blobs/1", tmp_path / "datasets--a--b/snapshots/1.png")
    os.symlink("../../datasets--a--other/blobs/2", tmp_path / "datasets--a--b/snapshots/2.png")
    within = of_hub("a/b")
    assert within.file(str(tmp_path / "datasets--a--b/snapshots/1.png")).endswith("blobs/1")
    assert within.file(str(tmp_path / "downloads/extracted/3/x.png"))
    for name in ("datasets--a--b/snapshots/2.png", "datasets--a--other/blobs/2", "private.png"):
        with pytest.raises(UserError, match=REFUSED):
            within.file(str(tmp_path / name))


OF_REPO = ["hf://datasets/a/b@1f/train/1.png", "hf://datasets/a/b/1.png", "zip://cat/1.png::hf://datasets/a/b@1f/t.zip"]
OF_OTHERS = [
    "hf://datasets/a/bc@1f/1.png",
    "hf://a/b/1.png",
    "hf://datasets/a/b@1f/../../c/d@1f/1.png",
    "file:///etc/x",
]
OF_OTHERS += ["zip://1.png::hf://datasets/c/d@1f/t.zip", "zip://1.png::file:///t.zip", "https://a/b/1.png"]
OF_OTHERS += ["file://1.png::hf://datasets/a/b@1f/t.zip", "hf://datasets/a/b@1f/t.zip::zip://1.png"]


def test_streams_of_the_hub_name_files_of_their_own_repository(monkeypatch, place, make):
    asked = []

    def xopen(path, mode):
        asked.append(path)
        if "gone" in path:
            raise FileNotFoundError(path)
        if "down" in path:
            raise ConnectionError("no route")
        return open(place / "data/own.png", mode)

    monkeypatch.setattr("datasets.utils.file_utils.xopen", xopen)
    within = of_hub("a/b")
    for name in OF_REPO:
        assert np.array_equal(np.asarray(open_encoded(None, name, within)), np.asarray(make.picture(1)))
    assert asked == OF_REPO
    for name in OF_OTHERS:
        with pytest.raises(UserError, match=REFUSED if "::" in name or name.startswith("hf:") else "No such file"):
            open_encoded(None, name, within)
    for name in OF_REPO:  # a local table names none of them
        with pytest.raises(UserError, match=REFUSED):
            open_encoded(None, name, beside(place / "data"))
    assert asked == OF_REPO
    with pytest.raises(BadImage, match="no such file in the repository"):
        open_encoded(None, OF_REPO[0].replace("1.png", "gone.png"), within)
    with pytest.raises(
        UserError, match=r"down.png cannot be read .ConnectionError: no route.. Check the conn"
    ) as error:
        open_encoded(None, OF_REPO[0].replace("1.png", "down.png"), within)
    assert not isinstance(error.value, BadImage)  # the others would fail too


def test_the_folder_is_looked_at_once_for_all_its_pictures(place, make, monkeypatch):
    calls, real = [], os.path.realpath
    make.files(place / "data", [f"many/{i}.png" for i in range(50)])
    table = make.table(place / "data" / "t.parquet", [0] * 50, image=paths(*(f"many/{i}.png" for i in range(50))))
    monkeypatch.setattr(
        "hf_lowlabel.data.sources.table_paths.os.path.realpath", lambda p, **how: calls.append(p) or real(p, **how)
    )
    assert len(load_source(table)) == 50
    assert sum(str(place / "data/many") in str(call) for call in calls) < 10
    assert pq.read_table(table).num_rows == 50
