"""Lists of the images of splits in text files, in the folders that published data sets have them in."""

import json
import warnings

import pytest
from PIL import Image
from tiny_sets import bare

from hf_lowlabel import load_segmentation, load_source
from hf_lowlabel.data.splits import text_lists
from hf_lowlabel.data.splits.pool import Pool
from hf_lowlabel.errors import MissingSplit, UserError


def pictures(root, folder="images", count=6):
    (root / folder).mkdir(parents=True)
    for i in range(count):
        Image.new("RGB", (8, 8)).save(root / folder / f"cat_{i}.jpg")
    return root


def write(root, name, *lines):
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize(
    "train, test, line",
    [
        ("annotations/trainval.txt", "annotations/test.txt", "cat_{} 1 1 1"),  # Oxford Pets
        ("labels/train1.txt", "labels/test1.txt", "cat_{}.jpg"),  # DTD
        ("json/train.txt", "Annotation/testing_list.txt", "images/cat_{}.jpg"),
    ],
)
@pytest.mark.parametrize("opened", [load_source, load_segmentation])
def test_lists_beside_annotations_or_labels(tmp_path, train, test, line, opened):
    pictures(tmp_path)
    if opened is load_segmentation:
        folder = tmp_path / test.partition("/")[0]
        folder.mkdir()
        for i in range(6):
            Image.new("L", (8, 8), i % 2).save(folder / f"cat_{i}.png")
    write(tmp_path, train, *(line.format(i) for i in range(4)))
    write(tmp_path, test, *(line.format(i) for i in (4, 5)))
    assert bare(opened(tmp_path)) == [f"cat_{i}.jpg" for i in range(4)]
    assert bare(opened(tmp_path, split="test")) == ["cat_4.jpg", "cat_5.jpg"]


def test_lists_of_several_divisions_are_told(tmp_path):
    """DTD's ten: an image is in another split in each."""
    pictures(tmp_path)
    for fold in range(1, 4):
        write(tmp_path, f"labels/test{fold}.txt", f"cat_{fold}.jpg")
        write(tmp_path, f"labels/train{fold}.txt", *(f"cat_{i}.jpg" for i in range(6) if i != fold))
    with pytest.warns(
        UserWarning, match="test1.txt to train3.txt in labels/ are not read: .* 6 lists .* Keep the lists"
    ):
        assert len(load_source(tmp_path)) == 6
    for fold in (2, 3):
        for split in ("train", "test"):
            (tmp_path / f"labels/{split}{fold}.txt").unlink()
    assert len(load_source(tmp_path)) == 5 and bare(load_source(tmp_path, split="test")) == ["cat_1.jpg"]


def test_lists_of_several_years_are_read_together(tmp_path):
    pictures(tmp_path)
    for year, i in ((2007, 1), (2012, 2)):
        write(tmp_path, f"splits/test{year}.txt", f"cat_{i}.jpg")
    assert bare(load_source(tmp_path, split="test")) == ["cat_1.jpg", "cat_2.jpg"]


@pytest.mark.parametrize("name", ["test_of_may.txt", "splits/my_val.txt", "splits/test.csv", "annotations/val.csv"])
def test_a_list_that_may_hold_out_and_is_not_read_is_told(tmp_path, name):
    write(pictures(tmp_path), name, *["file_name"] * name.endswith("csv"), "cat_4.jpg", "cat_5.jpg")
    with pytest.warns(UserWarning, match=f"{name.rpartition('/')[2]} is not read, though it may list the images of sp"):
        assert len(load_source(tmp_path)) == 6


def test_boxes_of_a_picture_that_is_gone_are_no_list(tmp_path):
    (tmp_path / "images").mkdir()
    for i in range(3):
        Image.new("RGB", (8, 8)).save(tmp_path / "images" / f"{i:03}.jpg")
    write(tmp_path, "labels/test_77.txt", "0 0.5 0.5 0.1 0.1", "1 0.2 0.2 0.1 0.1")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*not read|.*of split")
        assert len(load_source(tmp_path)) == 3
    with pytest.raises(MissingSplit):
        load_source(tmp_path, split="test")


@pytest.mark.parametrize(
    "train, val, said",
    [
        ("images/a", "images/b", "path: ../datasets/mine\ntrain: images/a\nval: images/b\n"),
        ("images/a", "images/b", "train: ../images/a\nval: ../images/b\nnc: 1\n"),
        ("images/train2017", "images/val2017", "train: [images/train2017]\nvalid: [images/val2017]\n"),
        ("a/images", "b/images", "path: /home/me/mine\ntrain: /home/me/mine/a/images\nval: /home/me/mine/b/images\n"),
        ("images", "images", "train: lists/mine.txt\nval: lists/others.txt\n"),
    ],
)
def test_places_of_data_yaml(tmp_path, train, val, said):
    for folder, numbers in ((train, range(3)), (val, (3, 4))):
        for i in numbers:
            (tmp_path / folder).mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8)).save(tmp_path / folder / f"cat_{i}.jpg")
    write(tmp_path, "lists/mine.txt", *(f"./images/cat_{i}.jpg" for i in range(3)))
    write(tmp_path, "lists/others.txt", "./images/cat_3.jpg", "./images/cat_4.jpg")
    (tmp_path / "data.yaml").write_text(said)
    assert bare(load_source(tmp_path)) == ["cat_0.jpg", "cat_1.jpg", "cat_2.jpg"]
    assert bare(load_source(tmp_path, split="val")) == ["cat_3.jpg", "cat_4.jpg"]


@pytest.mark.parametrize(
    "said", ["train: images\nval: images\n", "train: images\nval: gone\n", "[torn\n", "names: [a]\n"]
)
def test_a_data_yaml_that_divides_nothing(tmp_path, said):
    """Ultralytics' examples give the same folder twice."""
    (pictures(tmp_path) / "data.yaml").write_text(said)
    assert len(load_source(tmp_path)) == 6


def yolo(root, said, **folders):
    """A data set with as many images in each folder as are asked for."""
    for folder, count in folders.items():
        for i in range(count):
            name = root / folder.replace("__", "/") / f"{folder[-3:]}_{i}.jpg"
            name.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8)).save(name)
    (root / "data.yaml").write_text(said)
    return root


@pytest.mark.parametrize(
    "said, held, missing",
    [
        ("train: images/train\nval: images/val\ntest: images/val\n", "validation", "test"),
        ("train: images/train\nval: images/val\ntest: ./images/val/\n", "validation", "test"),
        ("train: images/train\ntest: images/val\nvalid: images/val\nval: [images/val]\n", "validation", "test"),
        ("train: images/train\nval: images/test2007\ntest:\n- images/test2007\n", "test", "validation"),
    ],
)
def test_one_place_of_two_splits_that_are_held_out(tmp_path, said, held, missing):
    """As Ultralytics' VOC.yaml has it."""
    yolo(tmp_path, said, images__train=3, **{f"images__{'test2007' if held == 'test' else 'val'}": 2})
    assert len(load_source(tmp_path)) == 3 and len(load_source(tmp_path, split=held)) == 2
    with pytest.raises(MissingSplit):
        load_source(tmp_path, split=missing)


@pytest.mark.parametrize("same", ["lists/a.txt", "lists/b.txt"])
def test_one_list_of_two_splits_that_are_held_out(tmp_path, same):
    pictures(tmp_path)
    for name in ("a", "b"):
        write(tmp_path, f"lists/{name}.txt", "images/cat_4.jpg", "images/cat_5.jpg")
    (tmp_path / "data.yaml").write_text(f"train: gone\nval: lists/a.txt\ntest: {same}\n")
    assert len(load_source(tmp_path)) == 4 and len(load_source(tmp_path, split="val")) == 2


@pytest.mark.parametrize(
    "train, val, count", [("images", "images/val", 3), ("images/train", "images", 3), ("images", "images/val/a", 4)]
)
def test_the_place_in_another_one_counts(tmp_path, train, val, count):
    yolo(tmp_path, f"train: {train}\nval: {val}\n", images__train=3, images__val=1, images__val__a=1)
    assert len(load_source(tmp_path)) == count and len(load_source(tmp_path, split="val")) == 5 - count


@pytest.mark.parametrize(
    "said, keys",
    [
        (
            "train: ../train/images\nval: ../valid/images\ntest: ../test/images\n",
            "train: ../train/im.*val: ../valid/im",
        ),
        ("test: /data/test/images\nval: /data/val/images\n", "test: /data/test/images and val: /data/val/images"),
    ],
)
def test_places_whose_folders_are_one_here_divide_nothing(tmp_path, said, keys):
    """A folder of Roboflow's that somebody made flat."""
    yolo(tmp_path, said, images=5)
    with pytest.warns(UserWarning, match=f"data.yaml is not read for splits .* places {keys}.* there is images alone"):
        assert len(load_source(tmp_path)) == 5


def test_lists_that_contradict_each_other_are_named_by_their_keys(tmp_path):
    pictures(tmp_path)
    write(tmp_path, "lists/a.txt", "images/cat_4.jpg", "images/cat_5.jpg")
    write(tmp_path, "lists/b.txt", "images/cat_5.jpg")
    (tmp_path / "data.yaml").write_text("train: lists/a.txt\nval: lists/b.txt\n")
    with pytest.raises(UserError, match="'images/cat_5.jpg' is in train: of data.yaml and in val: of data.yaml"):
        load_source(tmp_path)


@pytest.mark.parametrize("place", ["x" * 300, "images/" + "y" * 5000, '"a\\0b"', "~", "[1, {a: b}, [c]]", "{a: b}"])
def test_a_place_that_no_file_can_have(tmp_path, place):
    yolo(tmp_path, f"train: images/train\nval: {place}\ntest: images/test\n", images__train=3, images__test=2)
    assert len(load_source(tmp_path)) == 3 and len(load_source(tmp_path, split="test")) == 2


@pytest.mark.parametrize("name", ["eval_notes.txt", "my_test.txt", "splits/valid_remarks.txt"])
@pytest.mark.parametrize("content", ["caf\xe9: na\xefve\n".encode("latin-1"), b"\xff\xfe\x00\x01" * 9])
def test_notes_are_no_list(tmp_path, name, content):
    for kind in ("cat", "dog"):
        pictures(tmp_path, kind, 2)
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(content)
    assert load_source(tmp_path).class_names == ["cat", "dog"]


def test_a_long_log_is_not_looked_through_for_images(tmp_path, monkeypatch):
    looked = []
    match = text_lists.match_lines
    monkeypatch.setattr(text_lists, "match_lines", lambda lines, *rest: looked.extend(lines) or match(lines, *rest))
    write(pictures(tmp_path), "eval_log.txt", *(f"step {i} loss 0.1" for i in range(1000)))
    write(tmp_path, "test_of_may.txt", *["cat_1.jpg"] * 200)
    with pytest.warns(UserWarning, match="test_of_may.txt is not read, though it may list"):
        load_source(tmp_path)
    assert looked.count("step 0 loss 0.1") == 1 and len(looked) <= 1 + text_lists.FIRST


@pytest.mark.parametrize("name", ["splits.json", "Split.json"])
@pytest.mark.parametrize("ending", ["", ".jpg"])
@pytest.mark.parametrize("each", [False, True])
def test_splits_in_one_json(tmp_path, name, ending, each):
    pictures(tmp_path, "cat"), pictures(tmp_path, "dog")
    lists = {"train": ["cat/cat_0", "dog/cat_0", "cat/cat_1"], "val": ["dog/cat_2"], "Test": ["cat/cat_3", "dog/cat_3"]}
    lists = {split: [f"{one}{ending}" for one in names] for split, names in lists.items()}
    said = {one: split for split, names in lists.items() for one in names} if each else lists
    (tmp_path / name).write_text(json.dumps(said))
    assert load_source(tmp_path, split="test").ids == ["cat/cat_3.jpg", "dog/cat_3.jpg"]
    assert load_source(tmp_path, split="val").ids == ["dog/cat_2.jpg"]
    assert len(load_source(tmp_path)) == 9 and load_source(tmp_path).class_names == ["cat", "dog"]


@pytest.mark.parametrize("test", [[{"file_name": "images/cat_1.jpg"}], ["nothing of this"], {"cat": ["cat_1.jpg"]}])
def test_a_json_of_splits_that_is_not_understood_is_told(tmp_path, test):
    (pictures(tmp_path) / "splits.json").write_text(json.dumps({"train": ["cat_0.jpg"], "test": test}))
    with pytest.warns(UserWarning, match="splits.json is not read, though it may list the images of split 'test'"):
        assert len(load_source(tmp_path)) == 6


def test_an_image_in_two_lists_of_one_json(tmp_path):
    said = {"train": ["cat_0.jpg", "cat_1.jpg"], "test": ["cat_1.jpg"]}
    (pictures(tmp_path) / "splits.json").write_text(json.dumps(said))
    with pytest.raises(UserError, match="'images/cat_1.jpg' is in train: of splits.json and in test: of splits.json"):
        load_source(tmp_path)


MANIFEST = {"fingerprint": "x", "labeled": {"cat_0.jpg": "a"}, "test": ["cat_1.jpg"], "unlabeled": "rest"}  # of ours


@pytest.mark.parametrize("content", ["{}", "[]", json.dumps(MANIFEST), '"train"'])
def test_another_json_that_is_called_split(tmp_path, content):
    (pictures(tmp_path) / "split.json").write_text(content)
    assert len(load_source(tmp_path)) == 6


def test_what_stands_beside_the_splits_in_a_file_of_them_is_passed_over(tmp_path):
    """A seed or the classes: the images of test stay held out."""
    said = {"train": ["cat_0.jpg"], "test": ["cat_1.jpg"], "seed": 0, "classes": ["cat", "dog"]}
    (pictures(tmp_path) / "splits.json").write_text(json.dumps(said))
    held = load_source(tmp_path, split="test")
    assert held.ids == ["images/cat_1.jpg"] and not {*held.ids} & {*load_source(tmp_path).ids}


def test_numbers_of_images_are_no_names(tmp_path):
    (pictures(tmp_path) / "splits.json").write_text(json.dumps({"train": 3, "test": 1}))
    with pytest.warns(UserWarning, match="splits.json is not read, .* 'test' in it is no list of names"):
        load_source(tmp_path)


@pytest.mark.parametrize("beside", [{"seed": 1}, {"dataset": "x", "seed": 1}])
def test_held_out_lists_of_one_json_without_training(tmp_path, beside):
    (pictures(tmp_path) / "split.json").write_text(json.dumps({"test": ["cat_1.jpg"], **beside}))
    assert bare(load_source(tmp_path, split="test")) == ["cat_1.jpg"] and len(load_source(tmp_path)) == 5


def test_a_json_of_the_split_of_each_image_is_looked_through_once(tmp_path, monkeypatch):
    """For 8,000 images it was compared with itself."""
    said = {f"cat_{i}.jpg": ("train", "test")[i > 3] for i in range(6)}
    (pictures(tmp_path) / "splits.json").write_text(json.dumps(said))
    looked = []

    class Counted(dict):
        def items(self):
            looked.append(1)
            return super().items()

    monkeypatch.setattr(text_lists.json, "loads", lambda text: Counted(said))
    assert len(list(text_lists.in_json(tmp_path, Pool(tmp_path)))) == 2 and len(looked) == 1


# ---- names of tables, lists and their folders that say more --------------------------------------------------------
HELD = [
    ("test_ids.csv", "file_name\ncat_4.jpg\ncat_5.jpg\n"),
    ("test_labels.csv", "file_name,label\ncat_4.jpg,a\ncat_5.jpg,b\n"),
    ("labels-test.tsv", "file_name\tlabel\ncat_4.jpg\ta\ncat_5.jpg\tb\n"),
    ("testset.csv", "file_name\ncat_4.jpg\ncat_5.jpg\n"),
    ("test.json", '["images/cat_4.jpg", "cat_5.jpg"]'),
    ("test_files.json", '["cat_4.jpg", "cat_5.jpg"]'),
    ("test.txt", "cat_4 1 0 0 1 0\ncat_5 0 0 1 0 1\n"),
    ("ImageSets/Main/test.txt", "cat_4\ncat_5\n"),
    ("splits/mine/test_list.txt", "cat_4\ncat_5\n"),
    (
        "annotations/image_info_test-dev2017.json",
        '{"images": [{"file_name": "cat_4.jpg"}, {"file_name": "cat_5.jpg"}]}',
    ),
]
TRAIN = [None, "train.csv", "train_labels.csv"]


@pytest.mark.parametrize(
    "name, content, train",  # each of the one with one of the other, and all with the first
    [(*held, TRAIN[i % 3]) for i, held in enumerate(HELD)] + [(*HELD[0], train) for train in TRAIN[1:]],
)
def test_what_is_called_as_a_held_out_split_is_read(tmp_path, name, content, train):
    """Test images were learned from as unlabeled, without a word."""
    write(pictures(tmp_path), name, content.rstrip("\n"))
    if train is not None:
        write(tmp_path, train, "file_name,label", *(f"cat_{i}.jpg,{'ab'[i % 2]}" for i in range(4)))
    assert bare(load_source(tmp_path)) == [f"cat_{i}.jpg" for i in range(4)]
    assert bare(load_source(tmp_path, split="test")) == ["cat_4.jpg", "cat_5.jpg"]
    assert train is None or load_source(tmp_path).labels.tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize(
    "name, content",
    [
        ("test.xls", b"\xd0\xcf\x11\xe0"),
        ("my_test_v2.csv", b"picture\ncat_4.jpg\ncat_5.jpg\n"),
        ("val_test.txt", b"cat_4.jpg\ncat_5.jpg\n"),
        ("val_test.csv", b"file_name\ncat_4.jpg\n"),
        ("test.json", b'{"0": {"a": 1}}'),
        ("test.csv", b"patient_id,age\nP1,40\n"),
        ("test.txt", b"P1\nP2\n"),
        ("train_test_split.txt", None),
    ],
)
def test_what_may_hold_out_and_is_not_read_is_told(tmp_path, name, content):
    pictures(tmp_path)
    if content is None:
        write(tmp_path, "images.txt", "1 cat_0.jpg")
        content = b"1 maybe\n"
    (tmp_path / name).write_bytes(content)
    with pytest.warns(
        UserWarning, match=f"{name} is not read, though it may list the images of split '(test|validation)'"
    ):
        assert len(load_source(tmp_path)) == 6


@pytest.mark.parametrize("name", ["test_results.csv", "eval.json", "val_loss.csv", "test_config.json", "dev.csv"])
def test_tables_of_other_things_say_nothing(tmp_path, name):
    content = {"csv": "epoch,score\n1,0.5\n2,0.7\n", "json": '{"score": 0.5, "words": "a"}'}[name.rpartition(".")[2]]
    write(pictures(tmp_path), name, content)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(load_source(tmp_path)) == 6


# ---- folders, numbers ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "name, lines",
    [
        ("test.txt", ["P1", "P2/"]),
        ("splits/test.txt", ["slices/P1", "slices/P2"]),
        ("test.csv", ["patient_id,age", "P1,40", "P2,50"]),
        ("test_ids.csv", ["id,Patient", "7,P1", "8,P1", "9,P2"]),
    ],
)
def test_lists_of_folders_hold_out_what_lies_in_them(tmp_path, name, lines):
    for k in range(4):
        pictures(tmp_path, f"slices/P{k}", 2)
    pictures(tmp_path, "slices/P1/late", 1)
    write(tmp_path, name, *lines)
    assert [id[7:9] for id in load_source(tmp_path, split="test").ids] == ["P1"] * 3 + ["P2"] * 2
    assert [id[7:9] for id in load_source(tmp_path).ids] == ["P0"] * 2 + ["P3"] * 2


def test_numbers_of_images_and_their_splits(tmp_path):
    """CUB's images.txt and train_test_split.txt."""
    pictures(tmp_path, "images/001.Albatross", 3), pictures(tmp_path, "images/002.Crow", 3)
    names = [f"{folder}/cat_{i}.jpg" for folder in ("001.Albatross", "002.Crow") for i in range(3)]
    write(tmp_path, "images.txt", *(f"{k} {name}" for k, name in enumerate(names, 1)))
    write(tmp_path, "train_test_split.txt", *(f"{k} {int(k % 3 != 0)}" for k in range(1, 7)))
    assert load_source(tmp_path, split="test").ids == [f"images/{names[k]}" for k in (2, 5)]
    assert load_source(tmp_path).ids == [f"images/{names[k]}" for k in (0, 1, 3, 4)]


def test_lists_of_several_divisions_in_folders_are_told(tmp_path):
    pictures(tmp_path)
    for fold in "ab":
        write(tmp_path, f"splits/{fold}/test.txt", f"cat_{int(fold == 'a')}.jpg")
    with pytest.warns(
        UserWarning, match="The lists in splits/a/, splits/b/ are not read: .* Move those that are meant"
    ):
        assert len(load_source(tmp_path)) == 6


def test_lists_of_each_class_beside_those_of_all_say_nothing(tmp_path):
    """VOC's Main/aeroplane_test.txt beside test.txt."""
    pictures(tmp_path, "JPEGImages")
    write(tmp_path, "ImageSets/Main/test.txt", "cat_4", "cat_5")
    write(tmp_path, "ImageSets/Main/cat_test.txt", "cat_4  1", "cat_5 -1")
    write(tmp_path, "ImageSets/Layout/test.txt", "cat_3")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*not read")
        assert bare(load_source(tmp_path, split="test")) == ["cat_4.jpg", "cat_5.jpg"]


def test_numeric_names_with_flags_are_no_boxes(tmp_path):
    (tmp_path / "images").mkdir()
    for i in range(4):
        Image.new("RGB", (8, 8)).save(tmp_path / "images" / f"{i:06}.jpg")
    write(tmp_path, "test.txt", "000002 1 0 0 1 0", "000003 0 1 -1 0 0")
    assert bare(load_source(tmp_path)) == ["000000.jpg", "000001.jpg"]


# ---- data.yaml -----------------------------------------------------------------------------------------------------
def test_a_place_that_is_not_there_is_told(tmp_path):
    yolo(tmp_path, "train: images/train\nval: images/val\n", images__train=3, images__valid=2)
    with pytest.warns(UserWarning, match="data.yaml says val: images/val, which is not there"):
        load_source(tmp_path)
    (tmp_path / "data.yaml").write_text("train: images/train\nval: images/valid\ntest: images/test\n")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*not there")
        assert len(load_source(tmp_path)) == 3, "a test set that did not come along takes nothing away"


@pytest.mark.parametrize("key", ["val", "test"])
def test_a_held_out_place_in_the_folder_of_training_is_refused(tmp_path, key):
    for k, name in enumerate(("a/cat", "a/dog", "b/cat", "b/dog")):
        (tmp_path / "train" / name).mkdir(parents=True)
        Image.new("L", (8, 8), 60 * k).save(tmp_path / "train" / name / "0.png")
    (tmp_path / "data.yaml").write_text(f"train: train/a\n{key}: train/b\n")
    with pytest.raises(UserError, match=f"says {key}: train/b, and 'train/b/cat/0.png' of it lies in the folder of"):
        load_source(tmp_path, split="train")
    (tmp_path / "data.yaml").write_text(f"train: train/a\n{key}: train/a\n")  # an example that is tested as learned
    assert len(load_source(tmp_path, split="train")) == 4


def test_the_only_file_of_places_has_any_name(tmp_path):
    yolo(tmp_path, "train: images/a\nval: images/b\n", images__a=3, images__b=2)
    (tmp_path / "data.yaml").rename(tmp_path / "coco128.yaml")
    (tmp_path / "config.yaml").write_text("train: {epochs: 3}\nval: {every: 1}\n")
    assert len(load_source(tmp_path)) == 3 and len(load_source(tmp_path, split="val")) == 2
    (tmp_path / "mine.yaml").write_text("train: images/b\nval: images/a\n")
    with pytest.warns(UserWarning, match="coco128.yaml, mine.yaml are not read for splits of images"):
        assert len(load_source(tmp_path)) == 5


@pytest.mark.parametrize(
    "said",
    [
        "training: {lr: 1}\nvalidation: {every: 2}\n",
        "train: python train.py\nval: python val.py\n",
        "train: [" + "[" * 3000 + "\nval: 1\n",
        "train: images/b\nval: images/a\nx: " + "0" * 2**20,
    ],
)
def test_yaml_files_of_other_programs_are_no_places(tmp_path, said):
    yolo(tmp_path, "train: images/a\nval: images/b\n", images__a=3, images__b=2)
    (tmp_path / "data.yaml").rename(tmp_path / "coco.yaml")
    (tmp_path / "conf.yaml").write_text(said)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*not (read|there)")
        assert len(load_source(tmp_path)) == 3 and len(load_source(tmp_path, split="val")) == 2
        (tmp_path / "coco.yaml").unlink()
        assert len(load_source(tmp_path)) == 5


def test_a_data_yaml_nested_too_deep_is_told(tmp_path):
    yolo(tmp_path, "train: " + "[" * 3000, images__a=3)
    with pytest.warns(UserWarning, match="data.yaml is not read for splits of images: .*nested too deep"):
        assert len(load_source(tmp_path)) == 3


def test_yaml_files_beside_images_are_not_parsed(tmp_path, monkeypatch):
    """Of one each they took a second."""
    pictures(tmp_path)
    for i in range(3):
        write(tmp_path, f"cat_{i}.yaml", "iso: 100", "test: 1")
    monkeypatch.setattr("yaml.safe_load", lambda text: pytest.fail(text))
    assert len(load_source(tmp_path)) == 6


@pytest.mark.parametrize("classes", ["", "a/"])
@pytest.mark.parametrize("opened", [load_source, load_segmentation])
def test_folders_of_splits_that_a_file_names_are_no_classes(tmp_path, classes, opened):
    """YOLO's own layout had the classes train and val, and those in the folders were lost."""
    for split in ("train", "val"):
        pictures(tmp_path, f"images/{split}/{classes}", count=2)
        if classes:
            pictures(tmp_path, f"images/{split}/b", count=2)
        write(tmp_path, f"labels/{split}/{classes}cat_0.txt", "0 0.1 0.1 0.9 0.1 0.9 0.9")
    write(tmp_path, "data.yaml", "train: images/train", "val: images/val", "names: [x, y]")
    for split in ("train", "val"):
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message=".*are no classes")
            source = opened(tmp_path, split=split)
        assert len(source) == (4 if classes else 2)
        if opened is load_source:
            assert source.class_names == (["a", "b"] if classes else [])
        else:
            assert source.has_target.sum() == 1


@pytest.mark.parametrize(
    "name, lines",
    [
        ("val.txt", ["images/train/a/cat_0.jpg"]),
        ("val.csv", ["file_name", "images/train/a/cat_0.jpg"]),
        ("splits.csv", ["file_name,split", "images/train/a/cat_0.jpg,val"]),
    ],
)
def test_a_list_takes_from_the_folder_of_training_alone(tmp_path, name, lines):
    """images/test/ was learned from, and the classes were test and train."""
    for split in ("train", "test"):
        pictures(tmp_path, f"images/{split}/a", count=2)
        pictures(tmp_path, f"images/{split}/b", count=2)
    write(tmp_path, name, *lines)
    every = ["a/cat_0.jpg", "a/cat_1.jpg", "b/cat_0.jpg", "b/cat_1.jpg"]
    train, test = ([f"images/{split}/{id}" for id in every] for split in ("train", "test"))
    for split, ids in (("train", train[1:]), ("val", train[:1]), ("test", test)):
        source = load_source(tmp_path, split=split)
        assert source.ids == ids and source.class_names == ["a", "b"]


def test_images_that_a_list_names_beside_folders_of_splits(tmp_path):
    for folder in ("train/a", "train/b", "test/a", "extra/a", "extra/b"):
        pictures(tmp_path, f"images/{folder}", count=1)
    write(tmp_path, "train.txt", *(f"images/{one}/cat_0.jpg" for one in ("train/a", "train/b", "extra/a", "extra/b")))
    write(tmp_path, "test.txt", "images/test/a/cat_0.jpg")
    source = load_source(tmp_path)
    assert source.class_names == ["a", "b"] and source.labels.tolist() == [0, 1, 0, 1]
    assert source.ids == [f"images/{one}/cat_0.jpg" for one in ("extra/a", "extra/b", "train/a", "train/b")]


def test_tables_of_several_divisions_are_told(tmp_path):
    pictures(tmp_path)
    for fold in (1, 2):
        write(tmp_path, f"test{fold}.csv", "file_name", f"cat_{fold}.jpg")
        write(tmp_path, f"train{fold}.csv", "file_name", *(f"cat_{i}.jpg" for i in range(6) if i != fold))
    with pytest.warns(UserWarning, match="they are 4 lists of several divisions, and nothing is held out by them"):
        assert len(load_source(tmp_path)) == 6


def test_blank_lines_of_a_foreign_yaml_cost_no_time():
    """Each was tried as the beginning of all that follow."""
    from hf_lowlabel.data.splits.yolo_places import SPLIT_KEYS

    assert not SPLIT_KEYS.findall("\n" * 200_000) and SPLIT_KEYS.findall("{train: a, val: b}") == ["train", "val"]
