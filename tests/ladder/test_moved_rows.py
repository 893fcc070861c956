"""Ids that are numbers of rows: labels stay with the images that they were given to, or nothing is learned."""

import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from hf_lowlabel import load_source
from hf_lowlabel.cli import main
from hf_lowlabel.errors import UserError
from hf_lowlabel.labeling.labels import Asked, Labels, write_labels
from hf_lowlabel.labeling.missing_photos import of_there
from hf_lowlabel.ladder.rounds import loop

from .test_rounds import network  # noqa: F401


def rows(count, seed=0):
    """Encoded pictures, no two alike."""
    out, rng = [], np.random.default_rng(seed)
    for i in range(count):
        file = io.BytesIO()
        pixels = rng.integers(0, 90, (12, 12, 3)) + 120 * np.eye(3, dtype=int)[i % 3]
        Image.fromarray(pixels.astype(np.uint8)).save(file, "PNG")
        out.append({"bytes": file.getvalue(), "path": None})
    return out


def write(folder, images, split="train"):
    folder.mkdir(exist_ok=True)
    pq.write_table(pa.table({"image": images}), folder / f"{split}-00000-of-00001.parquet")
    return folder


def labeled(place):
    asked = Asked.load(place)
    given = {id: "abc"[int(id) % 3] for id in asked.files.values()}
    write_labels(place / "labels.csv", asked, Labels(given))
    return given


def test_rows_that_moved_do_not_take_labels_along(network, tmp_path, capsys):  # noqa: F811
    images, out = rows(15), tmp_path / "loop"
    data = write(tmp_path / "data", images)
    write(data, rows(15, seed=1), "test")
    how = dict(budget=6, per_round=3, train=False, image_size=16, device="cpu")
    place = loop(data, network, out, **how).to_label
    assert json.loads((out / "loop.json").read_text())["dataset_split"] == "train"
    given = labeled(place)
    with pytest.raises(UserError, match=r"\(split train\), not about .* \(split test\), which holds other photos"):
        loop(data, network, out, data=dict(dataset_split="test"), **how)
    argv = [
        "split",
        "--from",
        str(place),
        "--dataset",
        str(data),
        "--new-classes",
        "--output",
        str(tmp_path / "s.json"),
    ]
    for moved in ([*rows(2, seed=2), *images], images[::-1]):
        write(data, moved)
        with pytest.raises(UserError, match="of the 6 images of .* are others in .* now: .*rows have moved"):
            loop(data, network, out, **how)
        assert not (out / "labeled.json").exists() and not (out / "round-1").exists()
        assert main(argv) == 2 and "rows have moved" in capsys.readouterr().err and not (tmp_path / "s.json").exists()
    write(data, [*images, *rows(2, seed=2)])  # at the end they take no id from another one
    assert loop(data, network, out, **how).rounds[0].labels == 6
    assert json.loads((out / "round-1" / "split.json").read_text())["labeled"] == given
    assert main(argv) == 0


def test_a_few_files_that_were_edited_keep_their_labels(tmp_path, caplog):
    (tmp_path / "photos").mkdir()
    place = tmp_path / "to_label"
    (place / "images").mkdir(parents=True)
    files = {f"{k}.png": f"photo-{k}.png" for k in range(4)}
    for (file, id), image in zip(files.items(), rows(4), strict=True):
        (place / "images" / file).write_bytes(image["bytes"])
        (tmp_path / "photos" / id).write_bytes(image["bytes"])
    asked, found = Asked("photos", "as it was", files), Labels(dict.fromkeys(files.values(), "a"))
    asked.save(place)
    for k, image in enumerate(rows(3, seed=1)):
        (tmp_path / "photos" / f"photo-{k}.png").write_bytes(image["bytes"])
        if k == 0:
            kept = of_there(asked, found, load_source(tmp_path / "photos"), place)[1]
            assert kept.labels == found.labels and "1 of the 4 images" in caplog.text and "photo-0.png" in caplog.text
    with pytest.raises(UserError, match=r"3 of the 4 images of .* \(other files have their names\)"):
        of_there(asked, found, load_source(tmp_path / "photos"), place)
