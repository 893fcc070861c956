"""A second look at labels: planted errors are shown, and what a person answers replaces them."""

import gzip
import json
import shlex
import shutil
import zlib
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from hf_lowlabel import finetune
from hf_lowlabel.cli import main
from hf_lowlabel.data.opening import load_segmentation
from hf_lowlabel.data.splits.splits import Split
from hf_lowlabel.labeling.importing import import_labels
from hf_lowlabel.labeling.labels import Asked, Labels, write_labels
from hf_lowlabel.labeling.other_rounds import GONE, reviewed
from hf_lowlabel.labeling.page import Session
from hf_lowlabel.labeling.pages import session_of
from hf_lowlabel.ladder.advice import doubtful_of_several
from hf_lowlabel.ladder.advice_files import LISTS
from hf_lowlabel.ladder.auto import auto
from hf_lowlabel.ladder.review import odd
from hf_lowlabel.ladder.review_masks import copied, review_masks
from hf_lowlabel.models import create_backbone
from hf_lowlabel.tasks.data_classes import Examples

from .test_auto import photos


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with two wrong labels of 27: two red images among the blue ones."""
    base = tmp_path_factory.mktemp("review")
    data = photos(base / "photos", each=12, sort=False)
    torch.manual_seed(0)
    create_backbone("test_resnet", pretrained=False, image_size=32).save_pretrained(base / "net")
    rows = [(f"{kind}-{i:02d}.png", kind) for kind in ("blue", "red", "white") for i in range(9)]
    rows = [(name, "blue" if name in ("red-03.png", "red-05.png") else kind) for name, kind in rows]
    (base / "labels.csv").write_text("file_name,label\n" + "".join(f"{n},{k}\n" for n, k in rows))
    auto(data, base / "net", labels=base / "labels.csv", train=False, to_label=0, output_dir=base / "run")
    return base / "run"


def test_photos_that_are_gone_are_not_shown(run, tmp_path, capsys, caplog):
    data, out = run.parent / "photos", tmp_path / "again"
    (data / "red-03.png").rename(tmp_path / "red-03.png")
    try:
        assert main(["review", str(run), "--output", str(out), "--no-page"]) == 0
        ids = list(Asked.load(out).files.values())
        assert "red-03.png" not in ids and "red-05.png" in ids and "left out: red-03.png" in caplog.text
        for file in data.iterdir():
            file.rename(tmp_path / file.name)
        Image.new("RGB", (9, 9)).save(data / "other.png")
        assert main(["review", str(run), "--output", str(tmp_path / "none"), "--no-page"]) == 2
        assert "not in" in capsys.readouterr().err and not (tmp_path / "none").exists()
    finally:
        (data / "other.png").unlink(missing_ok=True)
        for file in tmp_path.glob("*.png"):
            file.rename(data / file.name)


def test_photos_that_cannot_be_read_any_more_are_not_shown(run, tmp_path, capsys, caplog):
    photo, out = run.parent / "photos" / "red-03.png", tmp_path / "again"
    whole, others = photo.read_bytes(), [*photo.parent.iterdir()]
    kept = {file: file.read_bytes() for file in others}
    try:
        photo.write_bytes(whole[:60])
        assert main(["review", str(run), "--output", str(out), "--no-page", "--json"]) == 0
        ids = list(Asked.load(out).files.values())
        assert "red-03.png" not in ids and "red-05.png" in ids and "red-03.png" in caplog.text
        assert json.loads(capsys.readouterr().out)["images"] == len(ids) == len(Session(out).state()["images"])
        for file in others:
            file.write_bytes(kept[file][:60])
        assert main(["review", str(run), "--output", str(tmp_path / "none"), "--no-page"]) == 2
        assert "can be read any more" in capsys.readouterr().err and not (tmp_path / "none").exists()
    finally:
        for file in others:
            file.write_bytes(kept[file])


def test_planted_errors_are_shown_and_corrected(run, capsys):
    assert main(["review", str(run), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    folder = run / "review"
    assert said["folder"] == str(folder) and said["images"] == len(Asked.load(folder).files)
    ids = list(Asked.load(folder).files.values())
    assert set(ids[:2]) == {"red-03.png", "red-05.png"}
    session = Session(folder)
    assert session.parting().endswith("nothing has to be run again.")  # no command that would find no label
    shown = {image["id"]: image for image in session.state()["images"]}
    assert shown["red-03.png"]["suggestion"]["class"] == "red" and shown["red-03.png"]["suggestion"]["own"] == "blue"
    assert shown["red-03.png"]["suggestion"]["why"].startswith("labeled blue")
    assert not any(image["label"] for image in shown.values())  # all wait for an answer
    session.label("red-03.png", "red")
    assert main(["review", str(run), "--no-page"]) == 0  # a second time goes on, and loses nothing
    split, _ = import_labels(folder, allow_missing=True)
    before = Split.load(run / "split.json").labeled
    assert split.labeled == {**before, "red-03.png": "red"}  # those without an answer keep their label


def test_what_was_answered_is_not_asked_for_again(run, tmp_path, capsys):
    """Neither a label that was kept, nor one of which a person was unsure, whichever run learns from it."""
    first = tmp_path / "first"
    assert main(["review", str(run), "--output", str(first), "--no-page"]) == 0
    session = Session(first)
    assert {"red-03.png", "red-05.png"} <= {*Asked.load(first).files.values()}
    session.label("red-03.png", "blue")
    session.label("red-05.png", skipped=True, why="unsure")
    data, net, labels = run.parent / "photos", run.parent / "net", str(first)
    for again in ("second", "third"):  # which learns from a review of the second, where there is one
        auto(data, net, labels=labels, train=False, to_label=0, output_dir=tmp_path / again)
        known = Split.load(tmp_path / again / "split.json")
        assert known.labeled["red-03.png"] == known.labeled["red-05.png"] == "blue"
        assert {"red-03.png", "red-05.png"} <= {*known.reviewed}
        said = json.loads((tmp_path / again / "advice.json").read_text())
        assert not {"red-03.png", "red-05.png"} & {id for one in said["doubtful"] for id in one["images"]}
        assert not any("labels may be wrong" in sentence for sentence in said["sentences"])
        assert main(["review", str(tmp_path / again), "--no-page"]) == 0
        out = capsys.readouterr().out
        place = tmp_path / again / "review"
        if place.is_dir():
            asked = Asked.load(place)
            assert not {"red-03.png", "red-05.png"} & {*asked.files.values()}
            write_labels(place / "labels.csv", asked, Labels({id: known.labeled[id] for id in asked.files.values()}))
            labels = str(place)
        else:
            assert "needs to be checked" in out


def test_a_photo_that_was_gone_was_not_looked_at():
    asked = Asked("photos", None, {"0.png": "a", "1.png": "b", "2.png": "c"}, strategy="review")
    found = Labels({"c": "red"}, skipped={"a", "b"}, why={"a": "unsure", "b": GONE})
    assert reviewed(asked, found) == ["a", "c"]
    assert reviewed(replace(asked, strategy="doubt"), found) == []


def test_what_is_odd():
    said = {
        "doubtful": [{"images": ["a"], "why": "labeled x (9%), looks like y (80%)", "looks_like": ["y", 0.8]}],
        "copies": [
            {"images": ["a", "b"], "why": ""},
            {"images": ["c", "d"], "why": ""},
            {"images": ["e", "f"], "why": ""},
            {"images": ["g", "h"], "why": ""},
        ],
        "strangers": [{"images": ["i"], "why": "unlike"}, {"images": ["j"], "why": "unlike"}],
    }
    found = odd(said, {"a": "x", "b": "y", "c": "x", "d": "x", "e": "y", "i": "x"})
    assert list(found) == ["a", "b", "e", "f", "i"]  # copies of one label, of none, and strangers without one are fine
    assert found["a"][0] == ("y", 0.8) and found["f"][0] == ("y", 1.0) and found["b"][0] is None
    assert found["b"][1] == "labeled y; nearly identical to a, labeled x"
    said["copies"][2]["tested"] = True
    assert odd(said, {"e": "y"})["e"] == (None, "labeled y; nearly identical to f, a test image")
    assert "f" not in odd(said, {"e": "y"})
    assert [*odd(said, {"a": "x", "b": "y", "e": "y", "i": "x"}, ["a", "i"])] == ["b", "e"]


def test_nothing_odd_and_no_run(tmp_path, run, capsys):
    assert main(["review", str(tmp_path)]) == 2
    assert "There is no advice.json" in capsys.readouterr().err
    for name in ("split.json", "run.json", "training.yaml"):
        (tmp_path / name).write_bytes((run / name).read_bytes())
    said = dict.fromkeys(("accuracy", "gain", "forecast")) | dict.fromkeys(LISTS, [])
    for wrong in ([], {}, said | {"doubtful": [{"images": [], "why": "", "looks_like": None}]}, said | {"gain": 3}):
        (tmp_path / "advice.json").write_text(json.dumps(wrong))
        assert main(["review", str(tmp_path)]) == 2
        assert "does not hold what `hf-lowlabel auto` writes there" in capsys.readouterr().err
    (tmp_path / "advice.json").write_text(json.dumps(said))
    assert main(["review", str(tmp_path)]) == 0
    assert "needs to be checked" in capsys.readouterr().out and not (tmp_path / "review").exists()


def test_copies_among_labels_and_test_images(tmp_path):
    """Told by `auto`; and shown, but a test image is never given a label here."""
    for part, each in (("train", 8), ("test", 2)):
        photos(tmp_path / "data" / part, each=each, classes=("blue", "red"))
    for path in (tmp_path / "data" / "test").rglob("*.png"):  # the blue ones are two of the training images
        Image.open(path).save(path.with_suffix(".jpg"), quality=100, subsampling=0)
        path.unlink()
    torch.manual_seed(0)
    create_backbone("test_resnet", pretrained=False, image_size=32).save_pretrained(tmp_path / "net")
    how = dict(num_labels=14, train=False, to_label=0, output_dir=tmp_path / "run")
    done = auto(tmp_path / "data", tmp_path / "net", **how)
    labeled = Split.load(tmp_path / "run" / "split.json").labeled
    known = [id for id in ("blue/00.png", "blue/01.png") if id in labeled]
    assert known and f"{len(known)} test image" in str(done.advice) and "easier than new images" in str(done.advice)
    assert main(["review", str(tmp_path / "run"), "--no-page"]) == 0
    shown = {image["id"]: image for image in Session(tmp_path / "run" / "review").state()["images"]}
    assert all("a test image" in shown[id]["suggestion"]["why"] for id in known)
    assert not any(id.endswith(".jpg") for id in shown)


# ---- masks -----------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def painted(tmp_path_factory):
    """12 masks of bright discs, of which in one the disc was painted elsewhere, and in one not at all; and a run."""
    base, rng = tmp_path_factory.mktemp("painted"), np.random.default_rng(0)
    for kind in ("images", "masks"):
        (base / "data" / kind).mkdir(parents=True)
    y, x = np.mgrid[:64, :64]
    for i in range(12):
        disc = (y - rng.integers(16, 26)) ** 2 + (x - rng.integers(16, 48)) ** 2 < 120
        pixels = rng.integers(0, 100, (64, 64, 3)) + 120 * disc[..., None]
        mask = {3: (y - 52) ** 2 + (x - 50) ** 2 < 100, 7: disc & False}.get(i, disc)
        Image.fromarray(pixels.astype(np.uint8)).save(base / "data" / "images" / f"{i:02d}.png")
        Image.fromarray(mask.astype(np.uint8)).save(base / "data" / "masks" / f"{i:02d}.png")
    (base / "classes.txt").write_text("ground\ndisc\n")
    torch.manual_seed(0)
    how = dict(model="resnet10t", from_scratch=True, method="probe", image_size=64, test_fraction=0.0, device="cpu")
    finetune(
        str(base / "data"),
        task="segmentation",
        classes=[str(base / "classes.txt")],
        value_range=[0, 4095],  # of deep images, of which there are none
        output_dir=base / "run",
        **how,
    )
    return base


def test_masks_of_a_round_are_learned_from_by_the_next_round(painted, tmp_path):
    shutil.copytree(painted / "run", tmp_path / "loop" / "round-1")
    assert shlex.split(review_masks(tmp_path / "loop" / "round-1", "cpu").then)[1] == "auto"
    (tmp_path / "loop" / "loop.json").write_text("{}")
    (tmp_path / "loop" / "round-1" / "to_label").mkdir()
    Asked("data", None, {}, task="segmentation").save(tmp_path / "loop" / "round-1" / "to_label")
    assert review_masks(tmp_path / "loop" / "round-1", "cpu").then.startswith("the same `hf-lowlabel loop` again")


def test_masks_that_disagree_are_shown_where_they_do_and_corrected_in_place(painted, all_pixels, capsys, monkeypatch):
    assert main(["review", str(painted / "run"), "--device", "cpu", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    first = {one["image"]: one for one in said["images"][:2]}
    assert set(first) == {"03.png", "07.png"} and said["no_page"] is None
    assert "painted ground, looks like disc" in first["07.png"]["why"]
    left, top, width, height = first["07.png"]["box"]
    assert 0 <= left < left + width <= 1 and top < 0.4 and 0.15 < width < 0.6  # where the disc is
    assert json.loads((painted / "run" / "review.json").read_text())["images"] == said["images"]
    opened = []

    def person(folder, **how):
        how.pop("open_browser")
        assert how["value_range"] == [0, 4095]
        then = shlex.split(how.pop("then"))  # learns from the masks as they are now, of the same images
        assert then[:2] == ["hf-lowlabel", "auto"] and {str(painted / "data"), str(painted / "run/split.json")} < {
            *then
        }
        page = session_of(folder, superpixels=400, **how)
        opened.append([image["file"] for image in page.state()["images"]])
        where = {"file": "07.png", "stamp": page.load("07.png").stamp}
        page.save(where, zlib.compress(np.asarray(page.model.mask(*of_image(page)), np.uint8).tobytes()))

    def of_image(page):
        return np.asarray(Image.open(painted / "data" / "images" / "07.png")), page.classes

    monkeypatch.setattr("hf_lowlabel.labeling.pages.label", person)
    assert main(["review", str(painted / "run"), "--device", "cpu"]) == 0
    assert "masks to check" in capsys.readouterr().out
    assert opened == [[one["image"] for one in said["images"]]]
    mended = np.asarray(Image.open(painted / "data" / "masks" / "07.png"))
    assert mended.shape == (64, 64) and mended.max() == 1  # beside the image, as training reads it
    assert main(["review", str(painted / "run"), "--output", "x"]) == 2
    assert "corrected where they are" in capsys.readouterr().err


def test_masks_of_colours_are_looked_at_where_the_page_has_their_colours(painted, all_pixels, tmp_path, monkeypatch):
    """And painted in them."""
    colored, lines = tmp_path / "data", "ground #000000\ndisc #00ff00\n"
    shutil.copytree(painted / "data", colored)
    for file in (colored / "masks").glob("*.png"):
        with Image.open(file) as image:
            numbers = np.asarray(image)
        Image.fromarray(np.where(numbers[..., None] == 1, [0, 255, 0], 0).astype(np.uint8)).save(file)
    (tmp_path / "named.txt").write_text(lines)
    data = dict(task="segmentation", classes=[str(tmp_path / "named.txt")], image_size=64, test_fraction=0.0)
    how = dict(model="resnet10t", from_scratch=True, method="probe", device="cpu", output_dir=tmp_path / "run")
    finetune(str(colored), mask_format="colors", **data, **how)
    found = review_masks(tmp_path / "run", "cpu")
    assert "classes.txt' says none of ground, disc. Put the file" in found.no_page and found.images
    (colored / "classes.txt").write_text(lines)
    found = review_masks(tmp_path / "run", "cpu")
    assert not found.no_page
    page = session_of(found.folder, found.task, found.classes, None, 400, found.images, found.split)
    for file in found.images:
        shown = page.load(file)
        page.save({"file": file, "stamp": shown.stamp}, zlib.compress(gzip.decompress(shown.content)))
    then = load_segmentation(colored, classes=str(colored / "classes.txt"), mask_format="colors")
    now, before = ([data.mask(i) for i in range(12)] for data in (then, load_segmentation(painted / "data")))
    assert all((a == b).all() for a, b in zip(now, before, strict=True))


def test_masks_of_0_and_255_are_looked_at_and_stay_so(painted, all_pixels, tmp_path, monkeypatch):
    binary = tmp_path / "data"
    shutil.copytree(painted / "data", binary)
    for file in (binary / "masks").glob("*.png"):
        with Image.open(file) as image:
            values = np.asarray(image)
        Image.fromarray(255 * values).save(file)
    data = dict(task="segmentation", mask_format="binary", image_size=64, test_fraction=0.0)
    how = dict(model="resnet10t", from_scratch=True, method="probe", device="cpu", output_dir=tmp_path / "run")
    finetune(str(binary), **data, **how)
    pages = []
    monkeypatch.setattr("hf_lowlabel.labeling.pages.serve", lambda page, *_: pages.append(page))
    assert main(["review", str(tmp_path / "run"), "--device", "cpu", "--no-browser"]) == 0
    (page,) = pages
    assert page.state()["whole"] and "03.png" in page.places and "--mask-format binary" in page.parting()
    disc = np.pad(np.ones((20, 20), np.uint8), 22)
    page.save({"file": "03.png", "stamp": page.load("03.png").stamp}, zlib.compress(disc.tobytes()))
    with Image.open(binary / "masks" / "03.png") as image:
        assert (np.asarray(image) == 255 * disc).all()


def test_copies_among_masks_and_test_images():
    """The same picture with another mask, and one that is tested on; one with the same mask is none of both."""
    rng, half = np.random.default_rng(0), np.arange(32)[:, None] // 16 * np.ones((1, 32), int)
    pictures = rng.integers(0, 255, (4, 3, 32, 32))

    def images(*of: tuple[int, np.ndarray]) -> Examples:
        packed = torch.from_numpy(np.stack([np.concatenate([pictures[k], mask[None]]) for k, mask in of])).byte()
        sizes, ids = torch.full((len(of), 2), 32), [f"{i}-{k}" for i, (k, _) in enumerate(of)]
        cache = SimpleNamespace(take=lambda at: packed[at], sizes=sizes, ids=ids)
        return Examples(cache, torch.arange(len(of)), None)

    labeled = images((0, half), (1, half), (0, half.T), (1, half))
    found = copied(labeled, images((2, half), (1, half)), 2)
    assert found["0-0"] == "nearly identical to 2-0, with another mask (IoU 33.3 %)" and set(found) == {
        *("0-0", "2-0", "1-1", "3-1")
    }
    assert found["1-1"] == "nearly identical to 1-1, a test image" and copied(images((3, half)), None, 2) == {}


def test_labels_of_several_classes_are_judged(tmp_path, capsys):
    """A planted wrong label, and a copy without a label; the labels are those of the data."""
    data, rng = tmp_path / "photos", np.random.default_rng(0)
    data.mkdir()
    for i in range(22):
        pixels = rng.integers(0, 60, (16, 16, 3))
        for k in range(2):
            pixels[..., k] += 150 * (i >> k & 1)
        Image.fromarray(pixels.astype(np.uint8)).save(data / f"{i:02d}.png")
    (data / "30.png").write_bytes((data / "03.png").read_bytes())
    says = {i: ";".join(name for k, name in enumerate(("red", "green")) if i >> k & 1) or "none" for i in range(20)}
    says[7] = "none"
    rows = [f"{i:02d}.png,{says.get(i, '')}\n" for i in [*range(22), 30]]
    (data / "metadata.csv").write_text("file_name,label\n" + "".join(rows))
    torch.manual_seed(0)
    create_backbone("test_resnet", pretrained=False, image_size=32).save_pretrained(tmp_path / "net")
    how = dict(task="multilabel", train=False, to_label=0, image_size=32, device="cpu", output_dir=tmp_path / "run")
    best = auto(data, tmp_path / "net", **how)
    assert any(said == "1 label may be wrong, such as 07.png." for said in best.advice.sentences)
    assert main(["review", str(tmp_path / "run"), "--no-page"]) == 0 and "to check: " in capsys.readouterr().out
    page = Session(tmp_path / "run" / "review")
    shown = {image["id"]: image["suggestion"] for image in page.state()["images"]}
    assert [*shown][:3] == ["07.png", "03.png", "30.png"]
    assert all("outlier: " in said["why"] for said in [*shown.values()][3:])
    assert shown["07.png"]["class"] == "green;red" and "labeled none, but " in shown["07.png"]["why"]
    assert "labeled green;red; nearly identical to 30.png" in shown["03.png"]["why"]
    assert shown["30.png"]["class"] == "green;red"


def test_a_label_of_several_classes_is_in_doubt_by_what_it_says_of_each():
    names = ["a", "b", "c"]
    p = np.array([[0.99, 0.01, 0.01], [0.6, 0.4, 0.01], [0.01, 0.98, 0.97], [0.97, 0.98, 0.99]])
    given = np.array([[1, 0, 0], [0, 0, 0], [0, 1, 0], [1, 1, 0]])
    found = doubtful_of_several(np.stack([p, given], 1), np.array([7, 3, 5, 2]), names)
    assert [one.rows for one in found] == [(2,), (5,)]  # one that is just likelier than not is no error yet
    assert found[0].why == "labeled a;b, but c is 99 % likely" and found[0].looks_like[0] == "a;b;c"
    assert doubtful_of_several(np.stack([given, given], 1), np.arange(4), names) == []


def test_a_class_is_in_doubt_by_what_is_usual_of_it_and_not_where_it_is_not_learned():
    """`base` is about as likely on every image, whether it is there or not; of `far` one label is wrong, and one image
    that has it not is merely nearer than the others."""
    rng, names = np.random.default_rng(0), ["base", "far", "once"]
    base, far = np.arange(30) % 3 > 0, np.arange(30) % 2 > 0
    p = np.stack([rng.uniform(0.62, 0.7, 30), np.where(far, 0.9, 0.05), np.full(30, 0.03)], 1)
    given = np.stack([base, far, np.arange(30) == 4], 1).astype(float)
    given[7, 1] = 0
    p[7, 1], p[8, 1] = 0.95, 0.75
    (found,) = doubtful_of_several(np.stack([p, given], 1), np.arange(30), names)
    assert found.rows == (7,) and found.why == "labeled base, but far is 95 % likely"
    assert found.looks_like == ("base;far", pytest.approx(0.95))
    p[:, 0] = np.where(base, 0.9, 0.1)  # now it is learned, and 9 is labeled with it alone
    p[9, 0] = 0.95
    assert (9,) in [one.rows for one in doubtful_of_several(np.stack([p, given], 1), np.arange(30), names)]


def test_a_doubt_of_a_class_with_few_labels_is_no_less_one():
    """Two images of 40 have `rare`: one of them is hardly it, and one that is labeled without it is most likely it."""
    given = np.zeros((40, 2))
    given[:2, 0], given[::2, 1] = 1, 1
    p = np.stack([np.linspace(0.05, 0.01, 40), given[:, 1] * 0.9 + 0.05], 1)
    p[[0, 1, 7], 0] = 0.9, 0.03, 0.97
    found = doubtful_of_several(np.stack([p, given], 1), np.arange(40), ["rare", "usual"])
    assert [one.rows for one in found] == [(1,), (7,)]
