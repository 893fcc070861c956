"""Labels of several classes in one cell: commas, contradictions, empty lists, wherever such a cell is read."""

import json
import warnings

import datasets
import pandas as pd
import pytest
from datasets import ClassLabel, Features, Sequence
from PIL import Image

from hf_lowlabel import Split, UserError, load_source
from hf_lowlabel.cli import main
from hf_lowlabel.data.labels.labels import LabelRules
from hf_lowlabel.data.opening import open_dataset
from hf_lowlabel.data.sources.several_targets import MultiLabelTargets
from hf_lowlabel.errors import unknown
from hf_lowlabel.labeling.importing import import_labels
from hf_lowlabel.labeling.labels import Asked, read_labels
from hf_lowlabel.text import series


@pytest.fixture
def photos(tmp_path):
    for i in range(5):
        (tmp_path / "photos").mkdir(exist_ok=True)
        Image.new("RGB", (8, 8), (50 * i, 0, 0)).save(tmp_path / "photos" / f"{i}.png")
    return tmp_path / "photos"


def rows(labels):
    return "file_name,label\n" + "".join(f'{i}.png,"{label}"\n' for i, label in enumerate(labels))


def beside(photos, labels):
    """As metadata.csv: image -> classes."""
    (photos / "metadata.csv").write_text(rows(labels))
    found = open_dataset(photos, MultiLabelTargets())
    return {id: [n for n, v in zip(found.class_names, row) if v > 0] for id, row in zip(found.ids, found.labels)}


def given(photos, labels):
    """As finished labels."""
    (photos.parent / "mine.csv").write_text(rows(labels))
    split, _ = import_labels(photos.parent / "mine.csv", source=load_source(photos), several=True)
    return {id: label.split(";") for id, label in split.labeled.items()}


@pytest.mark.parametrize("read", [beside, given])
def test_classes_between_commas_are_told_apart_from_names_with_commas(photos, read):
    with pytest.raises(
        UserError, match="'cat, dog' would be one class, and 'cat' and 'dog' are classes; write cat;dog"
    ):
        read(photos, ["cat, dog", "cat", "dog"])
    with pytest.raises(UserError, match="write cat;dog;owl"):
        read(photos, ["dog", "owl;cat", "none", "cat,dog,owl"])
    assert read(photos, ["dog, wild", "cat;dog", "cat"])["0.png"] == ["dog, wild"]


@pytest.mark.parametrize("sign", ["/", "+", "&", " and ", " / ", "&,"])
@pytest.mark.parametrize("read", [beside, given])
def test_other_signs_may_stand_between_classes_or_in_a_name(photos, read, sign, recwarn):
    both = "cat, dog and owl" if sign == "&," else f"cat{sign}dog"
    write = "cat;dog;owl" if sign == "&," else "cat;dog"
    assert read(photos, [both, "cat", "dog", "owl"])["0.png"] == [both]
    told = [str(one.message) for one in recwarn if "for several" in str(one.message)]
    assert len(told) == 1 and repr(both) in told[0] and told[0].endswith(f"Write {write} for several.")
    for labels, count in (([both, "cat;owl", "dog"], int("," not in both)), ([f"['{both}']", "['cat']", "['dog']"], 0)):
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            assert read(photos, labels)["0.png"] == [both]
        assert len([one for one in said if "for several" in str(one.message)]) == count, "lists state what is one"


@pytest.mark.parametrize("name", ["salt and pepper", "salt/pepper", "salt & pepper", "salt+pepper"])
def test_a_class_called_as_a_list_is_one_in_data_that_states_its_lists(name, recwarn):
    labels = [["salt"], ["pepper"], [name], ["salt", "pepper"]]
    frame = pd.DataFrame({"image": [Image.new("RGB", (8, 8)) for _ in labels], "label": labels})
    found = open_dataset(frame, MultiLabelTargets())
    assert [*found.class_names] == sorted(["salt", "pepper", name]) and (found.labels.sum(1) == [1, 1, 1, 2]).all()
    assert not any("for several" in str(one.message) for one in recwarn)


def test_folders_are_no_labels_of_several_classes(photos, recwarn):
    for name in ("cat", "dog"):
        (photos / name).mkdir()
        Image.new("RGB", (8, 8)).save(photos / name / "a.png")
    with pytest.warns(UserWarning, match="multilabel reads labels from a table.*: the folders cat, dog are no labels"):
        open_dataset(photos, MultiLabelTargets())
    recwarn.clear()
    (photos / "metadata.csv").write_text("file_name,label\ncat/a.png,cat;dog\n")
    assert open_dataset(photos, MultiLabelTargets()).class_names == ["cat", "dog"]
    assert not any("are no labels" in str(one.message) for one in recwarn)


def test_a_list_with_such_a_name_and_declared_classes():
    images = [Image.new("RGB", (8, 8)) for _ in range(3)]
    frame = pd.DataFrame({"image": images, "labels": [["cat, dog"], ["cat"], ["dog"]]})
    with pytest.raises(UserError, match="Image '0' of memory: 'cat, dog' would be one class"):
        open_dataset(frame, MultiLabelTargets())
    names = ["cat, dog", "cat", "dog"]
    features = Features({"image": datasets.Image(), "labels": Sequence(ClassLabel(names=names))})
    table = datasets.Dataset.from_dict({"image": images, "labels": [[0], [1], [2]]}, features=features)
    assert open_dataset(table, MultiLabelTargets()).class_names == names


def test_a_known_class_may_be_called_as_a_list(photos):
    (photos.parent / "labels.csv").write_text(rows(["cat, dog", "cat", "dog"]))
    task = Asked("photos", None, {f"{i}.png": f"{i}.png" for i in range(5)})
    how = dict(new_classes=True, allow_missing=True, rules=LabelRules(several=True))
    for classes in (["cat, dog"], None):  # None: as our page reads what it wrote
        assert read_labels(photos.parent / "labels.csv", task, classes=classes, **how).labels["0.png"] == "cat, dog"
    with pytest.raises(UserError, match="row 2: 'cat, dog' would be one class"):
        read_labels(photos.parent / "labels.csv", task, classes=[], **how)


@pytest.mark.parametrize("label", ["none;cat", "cat|None", "['none', 'cat']"])
@pytest.mark.parametrize("read", [beside, given])
def test_none_and_a_class_contradict(photos, read, label):
    with pytest.raises(UserError, match=r"says that no class applies \(none\) and names cat; keep one of both"):
        read(photos, ["dog", label])


def test_none_and_a_class_contradict_in_exports_manifests_and_columns(photos, tmp_path):
    choices = [{"type": "choices", "value": {"choices": ["none", "cat"]}}]
    (tmp_path / "export.json").write_text(
        json.dumps([{"data": {"image": "1.png"}, "annotations": [{"result": choices}]}])
    )
    source = load_source(photos)
    with pytest.raises(UserError, match="'1.png': 'cat;none' says that no class applies"):
        import_labels(tmp_path / "export.json", source=source, several=True)
    with pytest.raises(UserError, match="label 'none;cat' of image '1.png' in the split says that no class applies"):
        Split("photos", ["cat"], {"1.png": "none;cat"})
    columns = "file_name,cat,dog,None\n0.png,1,0,{}\n1.png,0,0,1\n2.png,0,1,0\n"
    for read, text in ((import_labels, "Row 2"), (None, "Image '0.png'")):
        for bad in (0, 1):
            path = tmp_path / "columns.csv" if read else photos / "metadata.csv"
            path.write_text(columns.format(bad))
            open_it = (
                (lambda: read(path, source=source, several=True)[0])
                if read
                else lambda: open_dataset(photos, MultiLabelTargets())
            )
            if bad:
                with pytest.raises(UserError, match=f"{text} of .*.csv has a tick for 'None' and for cat"):
                    open_it()
            else:
                assert open_it().class_names == ["cat", "dog"]


@pytest.mark.parametrize("read", [beside, given])
def test_an_empty_list_says_that_no_class_applies(photos, read):
    found = read(photos, ["[]", "['cat', 'dog']", '{""choices"": [""cat""]}'])
    assert found["0.png"] in ([], ["none"]) and found["1.png"] == ["cat", "dog"] and found["2.png"] == ["cat"]


def test_two_rows_of_an_image_of_one_class_say_how_several_are_written(photos):
    (photos.parent / "mine.csv").write_text("file_name,label\n0.png,cat\n0.png,dog\n")
    source = load_source(photos)
    with pytest.raises(UserError, match="in row 2; several classes are written cat;dog in one row, with --task multil"):
        import_labels(photos.parent / "mine.csv", source=source)
    (photos / "metadata.csv").write_text("file_name,label\n0.png,cat\n0.png,dog\n")
    with pytest.raises(UserError, match="several classes are written cat;dog in one row, with --task multilabel"):
        load_source(photos)


def test_names_with_commas_are_quoted_where_they_are_listed(photos, tmp_path, capsys):
    assert series(["a", "b"]) == "a, b" and series(["a", "b, c"]) == "'a', 'b, c'"
    assert "known: 'a', 'b, c'" in str(unknown("class", "x", ["b, c", "a"]))
    (tmp_path / "mine.csv").write_text(rows(["cat", "cat, wild", "dog"]))
    argv = ["split", "--dataset", str(photos), "--from", str(tmp_path / "mine.csv"), "--output", str(tmp_path / "s")]
    assert main(argv) == 0 and "in 3 classes ('cat', 'cat, wild', 'dog')" in capsys.readouterr().out


LONG = "file_name,label\n0.png,cat\n0.png,dog\n1.png,dog\n1.png,dog\n"
LONG += "2.png,cat;dog\n2.png,owl\n3.png,\n3.png,owl\n4.png,none\n"


def long_table(photos, read, text):
    (photos.parent / "mine.csv" if read is given else photos / "metadata.csv").write_text(text)
    if read is given:
        return import_labels(photos.parent / "mine.csv", source=load_source(photos), several=True)[0].labeled
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = open_dataset(photos, MultiLabelTargets())
    assert any("has several rows of 3 images, such as '0.png'" in str(one.message) for one in said)
    named = {id: ";".join(n for n, v in zip(found.class_names, row) if v) for id, row in zip(found.ids, found.labels)}
    return {id: text or "none" for id, text in named.items()}


@pytest.mark.parametrize("read", [beside, given])
def test_a_class_a_row_is_all_of_them(photos, read):
    found = long_table(photos, read, LONG)
    assert found == {"0.png": "cat;dog", "1.png": "dog", "2.png": "cat;dog;owl", "3.png": "owl", "4.png": "none"}
    with pytest.raises(UserError, match="none says that no class applies|rows contradict each other"):
        long_table(photos, read, LONG + "4.png,cat\n")


def test_rows_that_are_joined_are_said_and_contradictions_left_out(photos):
    (photos.parent / "mine.csv").write_text(LONG + "4.png,cat\n4.png,dog\n")
    rules = LabelRules(skip_conflicts=True)
    split, found = import_labels(photos.parent / "mine.csv", source=load_source(photos), several=True, rules=rules)
    assert "4.png" not in split.labeled and len(split.labeled) == 4
    assert "3 rows name a further class of an image of another row; it has all of them" in found.notes


COMMAS = ["daisy, pink", "rose, pink", "rose,daisy", "owl, rose", "pink, owl"]


def in_memory(photos, labels):
    """As a list of pairs, and as a table."""
    paths = [str(photos / f"{i}.png") for i in range(len(labels))]
    one = open_dataset([*zip(paths, labels)], MultiLabelTargets())
    two = open_dataset(pd.DataFrame({"image": [*map(Image.open, paths)], "labels": labels}), MultiLabelTargets())
    assert (one.labels == two.labels).all() and one.class_names == two.class_names
    names = [[n for n, v in zip(one.class_names, row) if v > 0] for row in one.labels]
    return {f"{i}.png": some for i, some in enumerate(names)}


@pytest.mark.parametrize("read", [beside, given, in_memory])
def test_commas_between_classes_are_told_from_commas_in_names(photos, read):
    with pytest.warns(UserWarning, match="commas as in 'daisy, pink' are taken to stand between classes"):
        found = read(photos, COMMAS)
    assert {id: {*some} for id, some in found.items()} == {
        f"{i}.png": {part.strip() for part in label.split(",")} for i, label in enumerate(COMMAS)
    }
    with pytest.warns(UserWarning, match="such as 'Bubo, owl', count as one class each. Write Bubo;owl for"):
        assert read(photos, ["Felis catus, cat", "Canis lupus, dog", "Bubo, owl"])["1.png"] == ["Canis lupus, dog"]
    with pytest.warns(UserWarning, match="are taken to stand between classes"):  # two kinds and a colour
        assert read(photos, ["daisy, pink", "pink, rose", "pink, tulip"])["1.png"] == ["pink", "rose"]
    for labels in (["daisy, pink", "pink, daisy", "Bubo, owl"], ["owl, barn", "owl, snowy", "hen, red", "hen, big"]):
        with pytest.raises(UserError, match="may be several classes with commas between them, or the name of one. W"):
            read(photos, labels)


@pytest.mark.parametrize("read", [beside, given, in_memory])
def test_a_name_with_another_sign_does_not_keep_commas_from_standing_between_classes(photos, read):
    with pytest.warns(UserWarning, match="commas as in 'blue, red' are taken to stand between classes"):
        found = read(photos, ["red, blue", "blue, red", "black and white", "black", "white"])
    assert {*found["0.png"]} == {"red", "blue"} and found["2.png"] == ["black and white"]


@pytest.mark.parametrize("read", [beside, given])
def test_a_list_of_one_name_settles_what_commas_are(photos, read):
    found = read(photos, ["daisy, pink", "pink, daisy", "['Bubo, owl']"])
    assert found["0.png"] == ["daisy, pink"] and found["2.png"] == ["Bubo, owl"]


@pytest.mark.parametrize("splits", [("train", "valid"), ("",)])
def test_the_table_of_roboflow(tmp_path, splits):
    """A column for each class, with blanks before the names, beside the images of each split."""
    for split in splits:
        (tmp_path / split).mkdir(exist_ok=True)
        for i in range(3):
            Image.new("RGB", (8, 8), (50 * i, 0, 0)).save(tmp_path / split / f"{split}{i}_jpg.rf.0a{i}.jpg")
        rows = "".join(f"{split}{i}_jpg.rf.0a{i}.jpg, {i % 2}, {int(i > 0)}\n" for i in range(3))
        (tmp_path / split / "_classes.csv").write_text("filename, cat, dog\n" + rows)
    for split in splits:
        found = open_dataset(tmp_path, MultiLabelTargets(), split=split or "train")
        assert found.class_names == ["cat", "dog"] and found.labels.tolist() == [[0, 0], [1, 1], [0, 1]]
    with pytest.warns(UserWarning, match="_classes.csv is not read .* no column label .* are for --task multilabel"):
        assert not load_source(tmp_path).has_target.any()


def test_the_table_of_roboflow_with_one_class_an_image(photos):
    (photos / "_classes.csv").write_text("filename, cat, dog\n0.png, 1, 0\n1.png, 0, 1\n")
    found = load_source(photos)
    assert found.class_names == ["cat", "dog"] and found.labels.tolist() == [0, 1, -1, -1, -1]
