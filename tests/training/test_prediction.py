"""A saved model on new images and data: the same numbers as in training, and answers that others can read."""

import contextlib
import copy
import csv
import errno
import json
import re
import shutil
import warnings
from pathlib import Path

import datasets
import numpy as np
import pandas
import pytest
import torch
from PIL import Image

from hf_lowlabel import (
    Best,
    Split,
    auto,
    create_backbone,
    create_classifier,
    create_segmenter,
    evaluate,
    finetune,
    load_source,
    predict,
    prediction,
    progress,
    report,
    select,
    table_writer,
)
from hf_lowlabel.api.evaluating import declared
from hf_lowlabel.cli import main
from hf_lowlabel.data.given_files import find_images
from hf_lowlabel.data.given_images import given_images
from hf_lowlabel.data.opening import load_segmentation
from hf_lowlabel.errors import UserError
from hf_lowlabel.evaluation import overlays
from hf_lowlabel.evaluation.confusion import confusion_of, segmentation_metrics
from hf_lowlabel.prediction import predictions
from hf_lowlabel.tasks import get_task

from ..pictures import OF_MASKS, draw_nothing
from .conftest import MULTILABEL, SEGMENT, SMALL

NAMES = ["ground", "light", "dark"]


def test_predict_lists_what_it_cannot_read(photos, tmp_path):
    run = finetune(dataset=str(photos / "labeled"), num_labels=8, output_dir=str(tmp_path / "run"), **SMALL)
    (tmp_path / "new").mkdir()
    Image.new("L", (40, 30), 200).save(tmp_path / "new" / "gray.png")
    Image.new("CMYK", (20, 30)).save(tmp_path / "new" / "cmyk.jpg")
    (tmp_path / "new" / "broken.png").write_bytes(b"not an image")
    said = predict(tmp_path / "new", run.folder, output=tmp_path / "out.csv", top=2)
    rows, skipped = said
    assert said.to_pandas()["class"].tolist() == [r["class"] for r in rows] and "2 images, 1 skipped" in repr(said)
    assert [r["class"] in ("dark", "light") for r in rows] == [True, True]
    assert [s[0].endswith("broken.png") for s in skipped] == [True]
    with open(tmp_path / "out.csv") as f:
        read = list(csv.DictReader(f))
    assert [float(r["confidence"]) + float(r["confidence_2"]) for r in read] == pytest.approx([1, 1], abs=1e-5)
    predict([str(tmp_path / "new" / "gray.png")], str(run.folder), output=str(tmp_path / "out.parquet"))
    assert (tmp_path / "out.parquet").stat().st_size > 0
    before = (tmp_path / "out.csv").read_bytes()
    with pytest.raises(UserError, match="out.csv is there already. Give another --output, or --overwrite"):
        predict(tmp_path / "new", run.folder, output=tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_bytes() == before
    predict(tmp_path / "new", run.folder, output=tmp_path / "out.csv", overwrite=True)
    assert (tmp_path / "out.csv").read_bytes() != before
    with pytest.raises(UserError, match="None of 1 images could be read"):
        predict([str(tmp_path / "new" / "broken.png")], str(run.folder), output=None)
    with pytest.raises(UserError, match="ends in .csv or .parquet"):
        predict([str(tmp_path / "new")], str(run.folder), output="x.txt")
    with pytest.raises(UserError, match="Give 1 to 2"):
        predict([str(tmp_path / "new")], str(run.folder), top=3)


def test_images_in_memory_are_predicted_as_their_files_are(photos, tmp_path):
    run = finetune(dataset=str(photos / "labeled"), num_labels=8, output_dir=str(tmp_path / "run"), **SMALL)
    files_ = find_images(photos / "labeled")[:3]
    pictures = [Image.open(file) for file in files_]
    rows = predict(files_, run.folder).rows
    given = [pictures[0], files_[1], np.asarray(pictures[2].convert("RGB"))]
    said = predict(given, run.folder, output=tmp_path / "out.csv").rows
    assert [row["file"] for row in said] == ["image 0", str(files_[1]), "image 2"]
    own = datasets.Dataset.from_dict({"photo": [str(f) for f in files_]}).cast_column("photo", datasets.Image())
    table = predict(own, run.folder).rows
    frame = predict(pandas.DataFrame({"image": pictures}), run.folder).rows
    for answers in (said, table, frame, predict(iter(files_), run.folder).rows):
        assert [{**row, "file": ""} for row in answers] == [{**row, "file": ""} for row in rows]
    gray = np.full((20, 30), 200, np.uint8)
    (one,) = predict(gray, run.folder).rows
    assert one == {**predict([Image.fromarray(gray)], run.folder).rows[0], "file": "image 0"}


def test_dark_images_are_said_before_they_are_predicted(photos, tmp_path):
    """Values up to 4080 of 65535, in files and in memory; a model that was given their range sees them bright."""
    settings = dict(dataset=str(photos / "labeled"), num_labels=8, **SMALL)
    run = finetune(**settings, output_dir=str(tmp_path / "run"))
    values = np.linspace(0, 4080, 900).astype(np.uint16).reshape(30, 30)
    deep = Image.fromarray(values)
    deep.save(tmp_path / "deep.tif")
    for given in (tmp_path / "deep.tif", [deep], pandas.DataFrame({"image": [deep]})):
        with pytest.warns(
            UserWarning, match="up to 4080 and come out dark. If they are of 12 bits.*--value-range 0 4095"
        ):
            predict(given, run.folder)
    ranged = finetune(**settings, value_range=[0, 4095], output_dir=str(tmp_path / "ranged"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        predict(tmp_path / "deep.tif", ranged.folder)
        predict([Image.new("RGB", (9, 9)), Image.fromarray(values * 16)], run.folder)


def test_dark_images_are_said_before_they_are_scored(photos, tmp_path):
    run = finetune(dataset=str(photos / "labeled"), num_labels=8, output_dir=str(tmp_path / "run"), **SMALL)
    for name in ("dark", "light"):
        (tmp_path / "other" / name).mkdir(parents=True)
        Image.fromarray(np.linspace(0, 1000, 900).astype(np.uint16).reshape(30, 30)).save(
            tmp_path / "other" / name / "1.tif"
        )
    with pytest.warns(UserWarning, match="up to 1000 and come out dark"):
        evaluate(run.folder, tmp_path / "other")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluate(run.folder, tmp_path / "other", value_range=[0, 1000])


@pytest.mark.parametrize(
    "images, words",
    [
        (None, "cannot be read from None. Give files or folders"),
        (3, "cannot be read from 3"),
        ({"image": "a.png"}, "cannot be read from {'image': 'a.png'}"),
        ([{"image": "a.png"}], "Image 0 is {'image': 'a.png'}. Give files or folders"),
        ([Image.new("L", (9, 9)), None], "Image 1 is None"),
        (np.zeros((9, 9, 3)), r"Image 0 is an array of float64 of the shape \(9, 9, 3\)"),
        ([np.zeros((3, 9, 9), np.uint8)], r"Image 0 is an array of uint8 of the shape \(3, 9, 9\)"),
        ([], "There is no image to predict"),
        (iter(()), "There is no image to predict"),
        (datasets.Dataset.from_dict({"a": [1]}), "image"),
    ],
)
def test_what_is_no_image_is_named(images, words):
    with pytest.raises(UserError, match=words):
        given_images(images)


@pytest.mark.parametrize("images", [None, [Image.new("L", (9, 9))], {"a": 1}, [None]])
def test_the_verbs_that_take_files_alone_say_so(images, tmp_path):
    with pytest.raises(UserError, match="Image files cannot be read from|There is no file or folder 'a'"):
        find_images(images)


def test_every_image_in_memory_has_a_place_of_its_own(tmp_path):
    Image.new("L", (9, 9)).save(tmp_path / "image 1.png")
    found = given_images([tmp_path / "image 1.png", np.zeros((9, 9), np.uint8), Image.new("RGB", (9, 9))])
    assert [one.place for one in found] == ["image 1.png", "image 1-2.png", "image 2.png"]


@pytest.mark.parametrize(
    "images, masks",
    [
        (["images/0.png", "images/1.png"], ["masks/0.png"]),
        (["train/Img/0.png"], ["train/GT/0.png"]),
        (["train/0.png"], ["train_masks/0.png"]),
        (["0.png", "1.png"], ["0_mask.png"]),
        (["masks/0.png", "1.png"], []),  # without images beside them they may be pictures of masks
    ],
)
def test_masks_are_no_images_to_predict(tmp_path, images, masks, caplog):
    for name in (*images, *masks):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8)).save(tmp_path / name)
    assert find_images(tmp_path) == sorted(tmp_path / name for name in images)
    assert (f"{len(masks)} files" in caplog.text) == bool(masks)
    assert find_images([tmp_path / name for name in masks]) == [tmp_path / name for name in masks]


@pytest.mark.filterwarnings("ignore:out in")
def test_masks_that_were_predicted_are_no_images(segmenter, tmp_path):
    for name in ("0.png", "1.png"):
        Image.new("RGB", (20, 20), "gray").save(tmp_path / name)
    for _ in range(2):
        found = predict(tmp_path, segmenter.folder, output=tmp_path / "out", overwrite=True)
        assert [Path(row["file"]).name for row in found.rows] == ["0.png", "1.png"]
    assert [file.name for file in find_images(tmp_path)] == ["0.png", "1.png"] == load_source(tmp_path).ids
    (tmp_path / "out/masks.csv").write_text("name,area\n")  # somebody else's folders of pictures
    assert len(find_images(tmp_path)) == 6


@pytest.mark.parametrize(
    "photos, output",
    [
        ("a.png", ""),
        ("photos/a.png", "photos"),
        ("my_masks/a.png", ""),
        ("cat/a.png", "out"),
        ("train/images/a.png", "train"),
    ],
)
@pytest.mark.filterwarnings("ignore:.* left out. made by this library", "ignore:.* no image")
def test_masks_predicted_among_photos_leave_these(segmenter, tmp_path, photos, output):
    (tmp_path / photos).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / output / "@eaDir").mkdir(parents=True)  # of a disk in the network
    Image.new("RGB", (20, 20), "gray").save(tmp_path / photos)
    asked = (tmp_path / photos).parent if "images" in photos else tmp_path
    for _ in range(2):
        found = predict(asked, segmenter.folder, output=tmp_path / output, overwrite=True)
        assert [row["file"] for row in found.rows] == [str(tmp_path / photos)]
    assert (tmp_path / output / "masks.csv").is_file()
    assert [file.name for file in find_images(tmp_path)] == ["a.png"]
    if "images" in photos:  # whose masks they are, to be corrected
        assert load_segmentation(tmp_path, split="train", classes=["a", "b", "c"]).has_target.all()
    else:
        assert not any("overlays" in id or id.startswith("out/") for id in load_source(tmp_path).ids)


def test_each_page_has_a_mask_of_its_own(segmenter, tmp_path):
    one, *more = [Image.new("RGB", (20, 20), (50 * k, 9, 9)) for k in range(3)]
    one.save(tmp_path / "t.tif", save_all=True, append_images=more)
    one.save(tmp_path / "t#2.png")
    rows = predict(tmp_path, segmenter.folder, output=tmp_path / "out", pages=True).rows
    assert [row["mask"] for row in rows] == [f"masks/t#{k}.png" for k in ("2", "1", "2-2", "3")]
    assert {row["mask"] for row in rows} == {f"masks/{file.name}" for file in (tmp_path / "out/masks").iterdir()}


def test_half_precision_in_memory_answers_as_full(segmenter):
    image = np.random.default_rng(0).integers(0, 255, (20, 20, 3), dtype=np.uint8)
    models = segmenter.model, copy.deepcopy(segmenter.model).bfloat16()
    whole, half = (predict([image], model).rows[0] for model in models)
    assert half["confidence"] == pytest.approx(whole["confidence"], abs=0.02)


def test_predictions_equal_the_transformers_pipeline(photos, tmp_path):
    """The image processor saved with the model does what evaluation does."""
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    import hf_lowlabel.models  # noqa: F401  cnn6_16

    run = finetune(dataset=str(photos / "labeled"), num_labels=8, output_dir=str(tmp_path), stored_size=20, **SMALL)
    files = sorted((photos / "labeled").rglob("*.png"))[:6]
    rows, _ = predict([str(f) for f in files], str(run.folder), output=None)
    processor, model = (
        AutoImageProcessor.from_pretrained(tmp_path),
        AutoModelForImageClassification.from_pretrained(tmp_path).eval(),
    )
    with torch.no_grad():
        inputs = processor([Image.open(f).convert("RGB") for f in files], return_tensors="pt")
        p = model(**inputs).logits.softmax(1)
    assert [r["class"] for r in rows] == [model.config.id2label[i] for i in p.argmax(1).tolist()]
    assert [r["confidence"] for r in rows] == pytest.approx(p.amax(1).tolist(), abs=1e-5)


@pytest.fixture(scope="module")
def segmenter(masked, tmp_path_factory):
    """Good enough that all three classes are predicted."""
    settings = dict(
        SEGMENT, method="supervised", max_steps=30, learning_rate=0.01, method_args=dict(ema_decay=0.9), num_labels=8
    )
    with pytest.MonkeyPatch.context() as patch:
        draw_nothing(patch.setattr, *OF_MASKS)
        return finetune(
            **settings, dataset=str(masked), classes=NAMES, output_dir=str(tmp_path_factory.mktemp("segmenter") / "run")
        )


@pytest.mark.pictures
def test_evaluate_finds_the_test_images_again(segmenter, masked, tmp_path, capsys):
    again = evaluate(str(segmenter.folder), str(masked))
    assert again["confusion"] == segmenter.metrics["confusion"] and again["miou"] == segmenter.metrics["miou"]
    windows = evaluate(str(segmenter.folder), str(masked), window=16, task="segmentation")
    assert windows["pixels"] == again["pixels"] and windows["confusion"] != again["confusion"]
    assert (
        main(
            [
                "evaluate",
                "--model",
                str(segmenter.folder),
                "--dataset",
                str(masked),
                "--output",
                str(tmp_path / "report"),
            ]
        )
        == 0
    )
    text = capsys.readouterr().out
    assert f"{segmenter.metrics['miou']:.4f}" in text and "ground 0." in text
    assert {p.name for p in (tmp_path / "report").iterdir()} == {"metrics.json", "confusion.png", "predictions.png"}


def test_masks_are_scored_at_their_own_size_too(segmenter, masked, tmp_path, capsys):
    """As `predict` writes them, where images are resized for the network, and their scores are of that size."""
    shutil.copytree(segmenter.folder, tmp_path / "run")
    (tmp_path / "run" / "checksums.json").unlink()
    said = json.loads((tmp_path / "run" / "config.json").read_text())
    (tmp_path / "run" / "config.json").write_text(json.dumps({**said, "image_size": 16}))
    found = evaluate(tmp_path / "run", masked)
    data, total = load_segmentation(masked, classes=NAMES), np.zeros((3, 3))
    for id in Split.load(tmp_path / "run" / "split.json").test:
        file = masked / "images" / id
        mask = data.mask(data.ids.index(id))
        predict(file, tmp_path / "run", output=tmp_path / "out", overwrite=True)
        written = np.asarray(Image.open(next((tmp_path / "out" / "masks").glob("*.png"))))
        total += confusion_of(torch.tensor(written), torch.tensor(mask), 3).numpy()
    own = segmentation_metrics(total, NAMES)
    assert found["miou_own_size"] == pytest.approx(own["miou"], abs=0.004)  # scaled by another program
    assert found["per_class_own_size"] == pytest.approx(own["per_class"], abs=0.01)
    assert abs(found["miou"] - own["miou"]) > 0.008
    assert main(["evaluate", "--model", str(tmp_path / "run"), "--dataset", str(masked)]) == 0
    assert f"mean IoU is {found['miou_own_size']:.4f}" in (out := capsys.readouterr().out) and "IoU at own size" in out
    assert "miou_own_size" not in evaluate(segmenter.folder, masked)  # where they are scored as they are


def test_long_work_tells_how_far_it_is_where_there_is_no_terminal(
    segmenter, masked, photos, tmp_path, capfd, monkeypatch
):
    run = finetune(dataset=str(photos / "labeled"), num_labels=8, output_dir=str(tmp_path / "run"), **SMALL)
    verbs = {
        "predict": [
            "predict",
            str(masked / "images"),
            "--model",
            str(segmenter.folder),
            "--output",
            str(tmp_path / "a"),
        ],
        "evaluate": ["evaluate", "--dataset", str(masked), "--model", str(segmenter.folder)],
        "predict classes": ["predict", str(photos), "--model", str(run.folder), "--output", str(tmp_path / "b.csv")],
    }
    for seconds, told in ((0.0, True), (1000.0, False)):
        monkeypatch.setattr(progress, "EVERY", seconds)
        for verb, argv in verbs.items():
            assert main([*argv, *(["--overwrite"] if verb != "evaluate" else [])]) == 0
            work = "predicting" if "predict" in verb else "evaluating"
            assert bool(re.search(rf"{work}: 1 of \d+ images \(0:0", capfd.readouterr().err)) == told, verb


def test_predicted_masks_decode_to_the_same_classes(segmenter, tmp_path):
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
    rows, skipped = predict([str(tmp_path / "new")], str(segmenter.folder), output=str(tmp_path / "out"))
    assert [s[0].endswith("broken.png") for s in skipped] == [True]
    assert sorted(r["mask"] for r in rows) == ["masks/a-2.png", "masks/a.png", "masks/deep/a.png"]
    sizes = {r["file"].rpartition("new/")[2]: Image.open(tmp_path / "out" / r["mask"]).size for r in rows}
    assert sizes == {"a.png": (44, 30), "a.jpg": (30, 44), "deep/a.tif": (44, 30)}
    row = next(r for r in rows if r["file"].endswith("new/a.png"))
    mask = np.asarray(Image.open(tmp_path / "out" / row["mask"]))
    with torch.no_grad():
        mean, std = (
            torch.tensor(v)[:, None, None]
            for v in (segmenter.model.config.image_mean, segmenter.model.config.image_std)
        )
        x = (torch.from_numpy(pixels).permute(2, 0, 1) / 255 - mean) / std
        expected = segmenter.model.eval()(x[None]).logits[0].argmax(0).numpy()
    assert (mask == expected).mean() > 0.999 and set(np.unique(mask)) == {0, 1, 2}
    assert [row[f"share_{n}"] for n in NAMES] == pytest.approx([(mask == k).mean() for k in range(3)], abs=1e-5)
    assert (np.asarray(Image.open(tmp_path / "out" / row["overlay"])) != pixels).any()
    with open(tmp_path / "out" / "masks.csv") as f:
        assert [r["file"] for r in csv.DictReader(f)] == [r["file"] for r in rows]


@pytest.mark.parametrize("pages", [False, True])
def test_many_images_at_once_get_the_answers_that_each_gets_alone(segmenter, tmp_path, monkeypatch, pages):
    """Sizes that change, a file that is none, one of several pages; decoded in threads, in the order of the files."""
    rng, given = np.random.default_rng(5), tmp_path / "new"
    given.mkdir()
    for i in range(24):
        height, width = [(30, 44), (30, 44), (52, 20)][i // 3 % 3]
        picture = Image.fromarray(rng.integers(90, 160, (height, width, 3), dtype=np.uint8))
        picture.paste((230, 230, 230), (5, 5, 15, 15 + i % 7))
        picture.save(given / f"{i:02d}.tif", save_all=True, append_images=[picture.rotate(180)] * (i == 4))
    (given / "09.tif").write_bytes(b"not an image")
    monkeypatch.setattr(prediction, "cores", lambda: 5)
    rows, skipped = predict(given, segmenter.folder, output=tmp_path / "all", pages=pages)
    assert [name for name, _ in skipped] == [str(given / "09.tif")]
    names = [f"{i:02d}.tif{page}" for i in range(24) if i != 9 for page in (["#1", "#2"] if pages and i == 4 else [""])]
    assert [row["file"] for row in rows] == [str(given / name) for name in names]
    for k, row in enumerate(rows):
        file = row["file"].partition("#")[0]
        alone = predict(file, segmenter.folder, output=tmp_path / str(k), pages=pages, batch_size=1).rows
        own = alone[-1] if row["file"].endswith("#2") else alone[0]
        for key in ("confidence", *(f"share_{name}" for name in NAMES)):
            assert row[key] == pytest.approx(own[key], abs=1e-3)
        one, other = (
            np.asarray(Image.open(place / seen["mask"]))
            for place, seen in ((tmp_path / "all", row), (tmp_path / str(k), own))
        )
        assert (one == other).mean() > 0.999


def test_what_is_stopped_leaves_no_table(segmenter, tmp_path, monkeypatch):
    for i in range(6):
        Image.new("RGB", (20, 20), (40 * i, 90, 90)).save(tmp_path / f"{i}.png")
    rows = predictions(tmp_path, segmenter.folder, [], output=tmp_path / "out", batch_size=1)
    assert next(rows)["file"].endswith("0.png")
    rows.close()  # as Ctrl-C does
    assert not (tmp_path / "out").exists()
    for name in (".predict", "masks/9.png", "overlays/9.png"):  # of a call that was killed
        (tmp_path / "out" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "out" / name).touch()
    found = predict(tmp_path, segmenter.folder, output=tmp_path / "out", overwrite=True).rows
    assert len([*(tmp_path / "out" / "masks").iterdir()]) == len(found) == 6
    assert list(predictions(tmp_path, segmenter.folder, [], batch_size=4)) == [
        {key: value for key, value in row.items() if key not in ("mask", "overlay")} for row in found
    ]


def test_one_call_at_a_time_writes_masks_to_a_folder(segmenter, tmp_path, monkeypatch):
    for i in range(2):
        Image.new("RGB", (24 + 8 * i, 32), (90 * i, 120, 40)).save(tmp_path / f"{i}.png")
    out, kind = tmp_path / "out", get_task("segmentation")
    first = predictions(tmp_path / "0.png", segmenter.folder, [], output=out)
    next(first)
    with pytest.raises(UserError, match="Another `predict` is writing to"):
        predict(tmp_path / "1.png", segmenter.folder, output=out, overwrite=True)
    assert not [*first]
    written = {path.name: path.read_bytes() for path in out.rglob("*.*") if path.is_file()}
    assert sorted(written) == ["0.png", "masks.csv"]  # and nothing of the lock
    load, late = type(kind).load, tmp_path / "late"

    def slow(*given, **more):
        monkeypatch.undo()
        predict(tmp_path / "0.png", segmenter.folder, output=late)  # by somebody else, meanwhile
        return load(*given, **more)

    monkeypatch.setattr(type(kind), "load", slow)
    with pytest.raises(UserError, match="late is there already"):
        predict(tmp_path / "1.png", segmenter.folder, output=late)
    assert [path.name for path in (late / "masks").iterdir()] == ["0.png"]


@pytest.mark.parametrize("existing", [False, True])
def test_a_full_disk_leaves_no_empty_folders(existing, segmenter, tmp_path, monkeypatch):
    """So that the same command can be given again; what was there stays."""
    Image.new("RGB", (32, 32)).save(tmp_path / "a.png")
    out = tmp_path / "out"
    if existing:
        (out / "masks").mkdir(parents=True)
        (out / "masks" / "mine.txt").touch()

    def full(mask, names, part, **_):
        (part.parents[1] / "overlays" / "deep").mkdir(parents=True)  # of another thread
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
        patch.setattr(overlays, "save_mask", full)
        predict(tmp_path / "a.png", segmenter.folder, output=out, overwrite=existing)
    assert sorted(p.name for p in out.rglob("*")) == (["masks", "mine.txt"] if existing else [])
    assert out.exists() == existing
    predict(tmp_path / "a.png", segmenter.folder, output=out, overwrite=existing)


@pytest.mark.parametrize("stop", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_what_is_stopped_leaves_empty_folders_that_were_there(segmenter, tmp_path, monkeypatch, stop):
    """Such as those somebody made for masks to come."""
    Image.new("RGB", (32, 32)).save(tmp_path / "a.png")
    out = tmp_path / "out"
    mine = [out / "masks" / "to do" / "north", out / "overlays"]
    for folder in mine:
        folder.mkdir(parents=True)
    before = sorted(out.rglob("*"))

    def full(mask, names, part, **_):
        (part.parents[1] / "overlays" / "deep").mkdir()  # of another thread
        raise stop

    monkeypatch.setattr(overlays, "save_mask", full)
    with pytest.raises(type(stop)):
        predict(tmp_path / "a.png", segmenter.folder, output=out, overwrite=True)
    assert sorted(out.rglob("*")) == before


def test_masks_of_an_answer_that_is_replaced_go_and_nothing_else(segmenter, tmp_path):
    given, out = tmp_path / "given", tmp_path / "out"
    for name in ("a.png", "b.png", "more/c.png"):
        (given / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 20), (90, 90, 90)).save(given / name)
    rows = predict(given, segmenter.folder, output=out).rows
    assert all((out / row[key]).is_file() for row in rows for key in ("mask", "overlay")) and len(rows) == 3
    mine = [out / "masks" / "mine.txt", out / "notes.txt", tmp_path / "secret.png", out / "masks" / "deep" / "x.npy"]
    mine[3].parent.mkdir()
    for file in mine:
        file.write_text("mine")
    with open(out / "masks.csv", "a") as table:  # as no call of ours wrote it
        table.write(f"x,masks/../../secret.png,{tmp_path}/secret.png\ny,notes.txt,masks/deep\nz\n")
    (given / "b.png").unlink()
    (given / "more" / "c.png").unlink()
    stopped = predictions(given, segmenter.folder, [], output=out, overwrite=True)
    next(stopped)
    stopped.close()
    assert (out / "masks" / "b.png").exists() and "b.png" in (out / "masks.csv").read_text()  # still in its table
    with pytest.raises(UserError, match="could be read"):
        predict(tmp_path / "secret.png", segmenter.folder, output=out, overwrite=True)
    assert (out / "overlays" / "more" / "c.png").exists()
    rows = predict(given, segmenter.folder, output=out, overwrite=True).rows
    found = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    pictures = {row[key] for row in rows for key in ("mask", "overlay")}
    assert found == {"masks.csv", "notes.txt", "masks/mine.txt", "masks/deep/x.npy", *pictures} and len(pictures) == 2
    assert not (out / "overlays" / "more").exists() and all(file.read_text() == "mine" for file in mine)
    (out / "masks.csv").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="not UTF-8.*give another --output"):
        predict(given, segmenter.folder, output=out, overwrite=True)


@pytest.mark.parametrize("theirs", ["masks/0.png", "overlays/deep/x.JPG"])
def test_painted_masks_and_photos_are_never_replaced(segmenter, tmp_path, theirs):
    """Not even by --overwrite: where masks go there may be those that somebody painted, or photos of a folder so
    called, which the next `predict` would pass over as its own."""
    Image.new("RGB", (20, 20)).save(tmp_path / "0.png")
    for rows in (None, "file,mask,overlay\n0.png,masks/1.png,overlays/1.png\n"):
        out = tmp_path / f"out{bool(rows)}"
        (out / theirs).parent.mkdir(parents=True)
        (out / theirs).write_text("mine")
        if rows:
            (out / "masks.csv").write_text(rows)
        before = sorted(out.rglob("*"))
        with pytest.raises(
            UserError, match=f"1 picture that `predict` did not write, for example {theirs}. Give another"
        ):
            predict(tmp_path / "0.png", segmenter.folder, output=out, overwrite=True)
        assert sorted(out.rglob("*")) == before and (out / theirs).read_text() == "mine"


@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
def test_a_table_that_is_written_as_it_comes(tmp_path, monkeypatch, name):
    import pandas as pd

    monkeypatch.setattr(table_writer, "PART", 2)
    rows = [{"file": f"{i}.png", "confidence": i / 8} for i in range(5)]
    with table_writer.growing_table(tmp_path / name) as add:
        for row in rows:
            add(row)
            assert not (tmp_path / name).exists()
    read = pd.read_parquet if name.endswith("parquet") else pd.read_csv
    assert read(tmp_path / name).to_dict("records") == rows


def test_predict_from_the_command_line(segmenter, masked, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    image = str(masked / "images" / "00.png")
    assert main(["predict", image, "--model", str(segmenter.folder), "--window", "16"]) == 0
    assert "wrote 1 predictions to predictions" in capsys.readouterr().out
    assert (tmp_path / "predictions" / "masks" / "00.png").is_file() and (
        tmp_path / "predictions" / "overlays" / "00.png"
    ).is_file()
    assert main(["predict", image, "--model", str(segmenter.folder), "--task", "classification"]) == 2
    assert "This is a model for segmentation, not for classification." in capsys.readouterr().err


def test_a_model_that_is_no_run_is_told_and_so_are_arguments_that_were_swapped(tmp_path, capsys, monkeypatch):
    """An untouched network answers too: which folder is the run is soon forgotten."""
    monkeypatch.chdir(tmp_path)
    model, photo = tmp_path / "net", tmp_path / "photos" / "a.png"
    create_classifier("test_resnet", 3, pretrained=False, image_size=32, class_names=["x", "y", "z"]).save_pretrained(
        model
    )
    photo.parent.mkdir()
    Image.new("RGB", (32, 32), 90).save(photo)
    assert main(["predict", "photos", "--model", "net"]) == 0
    assert "net has no run.json" in (said := capsys.readouterr().out) and "such as '" in said
    (model / "run.json").write_text("{}")
    with pytest.raises(
        UserError, match=r"a folder of a model \(config.json, model.safetensors, run.json\): were model"
    ):
        find_images(model)
    with pytest.raises(UserError, match="were model and images swapped"):
        select(photo.parent, str(model), budget=1, output=tmp_path / "out")


def test_masks_of_other_classes_are_refused(segmenter, masked):
    with pytest.raises(
        UserError, match="classes of .* are sky, light, dark, and those of the model or split ground, light, dark"
    ):
        evaluate(str(segmenter.folder), str(masked), dataset_split="train", classes=["sky", "light", "dark"])


def test_the_pipeline_of_transformers_gives_the_same_masks(segmenter, masked):
    from transformers import pipeline

    import hf_lowlabel.models.segmentation  # noqa: F401

    file = masked / "images" / "01.png"
    parts = pipeline("image-segmentation", model=str(segmenter.folder))(str(file))
    rows, _ = predict([str(file)], str(segmenter.folder), output=None)
    for part in parts:
        share = (np.asarray(part["mask"]) > 0).mean()
        assert share == pytest.approx(rows[0][f"share_{part['label']}"], abs=2e-3)


def test_several_classes_of_an_image(few_images, tmp_path):
    """Every class with its probability; those above one half by name."""
    run = finetune(**MULTILABEL, method="supervised", output_dir=tmp_path / "run")
    assert evaluate(run.folder, "scenes")["map"] == run.metrics["map"]
    Image.new("RGB", (20, 30), (200, 30, 30)).save(tmp_path / "a.png")
    (row,), _ = predict(tmp_path / "a.png", run.folder, task="multilabel")
    names = [run.model.config.id2label[k] for k in range(4)]
    above = [name for name in names if row[f"confidence_{name}"] > 0.5]
    assert list(row) == ["file", "classes", *(f"confidence_{name}" for name in names)]
    assert row["classes"] == (";".join(above) or "none")
    with pytest.raises(UserError, match="This is a model for multilabel, not for classification"):
        evaluate(run.folder, "digits", task="classification")
    with pytest.raises(UserError, match="A window is for segmentation"):
        predict(tmp_path / "a.png", run.folder, window=8)


def test_a_finished_run_stands_for_its_folder(photos, tmp_path):
    settings = dict(num_labels=8, **SMALL)
    run = finetune(dataset=str(photos / "labeled"), output_dir=str(tmp_path / "run"), **settings)
    found = Best(run, [], None, None)
    rows = predict(photos / "raw", run.folder).rows
    for given in (run, found):
        assert predict(photos / "raw", given).rows == rows
        assert evaluate(given, photos / "labeled")["accuracy"] == run.metrics["accuracy"]  # its own test images
    again = finetune(photos / "labeled", output_dir=tmp_path / "again", **{**settings, "model": run, "max_steps": 1})
    assert again.config.model.model == str(run.folder)
    assert len(report([run, again], tmp_path / "page.html", compute=False).read_text()) > 2000
    chosen = select(run, str(photos / "labeled"), budget=2, output=tmp_path / "chosen", strategy="margin")
    assert len(chosen.ids) == 2 and not {*chosen.ids} & {*Split.load(run.folder / "split.json").labeled}
    with pytest.raises(UserError, match="was trained with 8 of these 8 labels"):  # read as its folder
        auto(photos / "labeled", run, split=run.folder / "split.json", output_dir=tmp_path / "best")
    dry = finetune(photos / "labeled", **settings, dry_run=True)
    with pytest.raises(UserError, match="dry run, which leaves no folder. Give its model, run.model"):
        predict(photos / "raw", dry)
    assert len(predict(photos / "raw", dry.model).rows) == len(rows)


@pytest.mark.parametrize("model", [3, torch.nn.Linear(2, 2), None])
def test_what_is_no_model_is_said(photos, model):
    with pytest.raises(UserError, match="is no model with classes of its own. Give a run folder, a finished run"):
        predict(photos / "raw", model)


@pytest.mark.parametrize("how", ["positional", "named"])
def test_a_model_in_memory_is_given_back_as_it_was(photos, how):
    """In the modes of all its parts, whether the call succeeds or not."""
    model = create_classifier("test_resnet", 2, pretrained=False, image_size=32).train()
    model.timm_model.bn1.eval()
    modes = [module.training for module in model.modules()]
    files_ = find_images(photos / "labeled")[:2]
    for images in (files_, [photos / "none.png"]):
        with contextlib.suppress(UserError):
            predict(images, model, device="cpu") if how == "positional" else predict(images=images, model=model)
        assert [module.training for module in model.modules()] == modes
    with contextlib.suppress(UserError):
        evaluate(model, str(photos / "labeled"), device="cpu")
    assert [module.training for module in model.modules()] == modes and any(modes) and not all(modes)


@pytest.mark.parametrize("masks", [False, True])
def test_one_process_of_a_launch_may_predict_alone(masks, photos, monkeypatch):
    """As under `if is_main_process` of a script that has trained: the others are at something else."""
    images = find_images(photos / "labeled")[:2]
    if masks:
        encoder = create_backbone("test_resnet", pretrained=False, image_size=32)
        model = create_segmenter(encoder, 2, architecture="linear")
    else:
        model = create_classifier("test_resnet", 2, pretrained=False, image_size=32)

    def waits(*_, **__):
        raise AssertionError("it waits for the others")

    for name, value in dict(is_initialized=lambda: True, get_world_size=lambda: 2, get_rank=lambda: 0).items():
        monkeypatch.setattr(torch.distributed, name, value)
    for name in ("barrier", "all_gather", "all_reduce", "broadcast"):
        monkeypatch.setattr(torch.distributed, name, waits)
    assert len(predict(images, model, device="cpu").rows) == 2
    with pytest.raises(AssertionError, match="waits"):  # all have to look before one writes
        predict(images, model, device="cpu", output=photos / ("new" if masks else "new.csv"))


def test_of_masks_what_is_not_said_is_as_the_run_was_trained(tmp_path):
    trained = dict(mask_format="index", mask_ignore=[0], classes=["a", "b"])
    (tmp_path / "training.yaml").write_text("mask_format: index\nmask_ignore: [0]\nclasses: [a, b]\n")
    given = dict(mask_column=None, classes=[], mask_format=None, mask_ignore=[], instances=False)
    kind = get_task("segmentation")
    assert declared(tmp_path, given, kind) == trained
    assert declared(tmp_path, given | dict(mask_column="gt"), kind) == trained | dict(mask_column="gt")
    assert declared(tmp_path, given | dict(mask_ignore=[255]), kind) == trained | dict(mask_ignore=[255])
