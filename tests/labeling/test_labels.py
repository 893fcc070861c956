"""Labels that come back, with every fault a spreadsheet or a person can make; nothing is written when one is found."""

import json
import re
from dataclasses import fields

import pytest
from PIL import Image

from hf_lowlabel.cli import main
from hf_lowlabel.data.labels.labels import LabelRules
from hf_lowlabel.data.opening import load_source
from hf_lowlabel.data.splits.splits import Split
from hf_lowlabel.errors import UserError
from hf_lowlabel.labeling.importing import import_labels
from hf_lowlabel.labeling.labels import Asked, Labels, read_labels, write_labels

FILES = {"0000_a.png": "x/a.png", "0001_b.png": "x/b, c.png", "0002_ü.png": "x/ü.png", "0003_d.png": "d.png"}


@pytest.fixture
def folder(tmp_path):
    task = Asked("photos", "f" * 64, dict(FILES), validation=["v.png"], test=["t.png"], labeled={"old.png": "cat"})
    task.save(tmp_path)
    write_labels(tmp_path / "labels.csv", task, Labels())
    return tmp_path


def fill(folder, labels, skipped=()):
    write_labels(folder / "labels.csv", Asked.load(folder), Labels(dict(labels), set(skipped)))


def test_round_trip_to_a_manifest(folder):
    labels = {"x/a.png": "cat", "x/b, c.png": 'a "dog"; big', "x/ü.png": "ça"}
    fill(folder, labels, ["d.png"])
    split, found = import_labels(folder)
    assert found.labels == labels and found.skipped == {"d.png"} and not found.notes
    assert split.labeled == {"old.png": "cat", **labels}  # labels of earlier rounds stay
    assert split.validation == ["v.png"] and split.test == ["t.png"] and split.fingerprint == "f" * 64
    assert split.class_names == sorted({"cat", 'a "dog"; big', "ça"})


@pytest.mark.parametrize("separator, encode", [(",", "utf-8-sig"), (";", "utf-8-sig"), ("\t", "utf-8")])
def test_what_spreadsheets_save(folder, separator, encode):
    rows = [
        ["File_Name", "id", "Label"],
        ["images\\0000_a.png", "", " cat "],
        ["0001_b.png", "x/b, c.png", "dog"],
        ["0002_u\u0308.png", "", "dog"],
        ["", "d.png", ""],
        ["", "", ""],
    ]
    quoted = "\r\n".join(separator.join(f'"{c}"' for c in row) for row in rows)
    (folder / "labels.csv").write_bytes(quoted.encode(encode))
    split, _ = import_labels(folder)
    assert split.labeled == {"old.png": "cat", "x/a.png": "cat", "x/b, c.png": "dog", "x/ü.png": "dog"}


def edited(folder, old, new):
    path = folder / "labels.csv"
    path.write_text(path.read_text(encoding="utf-8-sig").replace(old, new), encoding="utf-8")


def test_faults_are_listed_together_and_nothing_changes(folder):
    (folder / "classes.txt").write_text("cat\ndog\n")
    fill(folder, {"x/a.png": "catt", "x/b, c.png": "dog", "x/ü.png": "dog", "d.png": "cat"})
    edited(folder, "0003_d.png,d.png,cat", "0003_D2.png,,cat")
    before = (folder / "labels.csv").read_bytes()
    with pytest.raises(UserError) as error:
        import_labels(folder)
    text = str(error.value)
    assert "3 faults in labels.csv, and nothing was changed" in text
    assert "row 2: 'catt' (1 labels) is no class; did you mean 'cat'?" in text and "--new-classes" in text
    assert "row 5: no image has the file name '0003_D2.png'; did you mean '0003_d.png'?" in text
    assert "1 of 4 images have no row, such as 'd.png'" in text and "--allow-missing" in text
    assert (folder / "labels.csv").read_bytes() == before


def test_a_renamed_file_is_found_by_its_id(folder):
    fill(folder, {"x/a.png": "cat"})
    edited(folder, "0000_a.png", "my favourite.png")
    split, found = import_labels(folder)
    assert split.labeled["x/a.png"] == "cat" and "matched by their id (1, such as" in found.notes[0]


def test_rows_that_contradict(folder):
    fill(folder, {"x/a.png": "cat"})
    edited(folder, "0003_d.png,d.png", "0000_a.png,d.png")
    with pytest.raises(
        UserError, match="row 5: file name '0000_a.png' is the image 'x/a.png', but the id says 'd.png'"
    ):
        import_labels(folder)
    fill(folder, {"x/a.png": "cat"})
    edited(folder, "0003_d.png,d.png,", "0000_a.png,x/a.png,dog")
    with pytest.raises(UserError, match="'x/a.png' is 'dog' here and 'cat' in row 2"):
        import_labels(folder, allow_missing=True)


def test_missing_rows_are_an_error_unless_allowed(folder):
    fill(folder, {"x/a.png": "cat", "d.png": "cat"})
    edited(folder, "0001_b.png", "#")
    path = folder / "labels.csv"
    path.write_text(
        "\n".join(line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#"))
    )
    with pytest.raises(UserError, match="1 of 4 images have no row"):
        import_labels(folder)
    assert import_labels(folder, allow_missing=True)[0].labeled == {"old.png": "cat", "x/a.png": "cat", "d.png": "cat"}


def test_classes(folder):
    fill(folder, {"x/a.png": "Cat", "d.png": "cat"})
    with pytest.raises(UserError, match="'cat' and 'Cat' differ in capitals only; use one"):
        import_labels(folder)
    (folder / "classes.txt").write_text("zebra\nant\n")
    fill(folder, {"x/a.png": "zebra", "d.png": "bee"})
    with pytest.raises(UserError, match="'bee' .* is no class"):
        import_labels(folder)
    with pytest.warns(UserWarning, match="no labeled image and cannot be learned: ant"):
        split, _ = import_labels(folder, new_classes=True)
    assert split.class_names == ["zebra", "ant", "bee", "cat"]  # the list's order stays


def test_files_that_cannot_be_read(folder):
    for content, words in (
        (b"file_name,label\n0000_a.png,caf\xe9\n", "not UTF-8"),
        (b"name,label\na,b\n", "has the columns name, label. Call the one .* file_name"),
        (b"file_name,animal,age\na,b,3\n", "has the columns file_name, animal, age. Call the one .* label"),
    ):
        (folder / "labels.csv").write_bytes(content)
        with pytest.raises(UserError, match=words):
            import_labels(folder)
    with pytest.raises(UserError, match="There is no .*other.csv"):
        import_labels(folder / "other.csv")
    fill(folder, {})
    with pytest.raises(UserError, match="There is no label"):
        import_labels(folder)


def studio(folder, answers, **extra):
    from hf_lowlabel.labeling.label_studio import label_studio_tasks

    tasks = label_studio_tasks(Asked.load(folder))
    for task, answer in zip(tasks, answers, strict=True):
        task["annotations"] = [
            {
                "was_cancelled": False,
                "result": [{"type": "choices", "from_name": "class", "to_name": "image", "value": {"choices": [name]}}]
                * bool(name),
            }
            for name in answer  # "": submitted without a class
        ]
    path = folder / "export.json"
    path.write_text(json.dumps(tasks))
    return path, tasks


def test_label_studio_exports(folder):
    path, tasks = studio(folder, [["cat"], ["dog", "dog"], [""], ["dog"]])
    split, found = import_labels(path)
    expected = {"old.png": "cat", "x/a.png": "cat", "x/b, c.png": "dog", "d.png": "dog"}
    assert split.labeled == expected and found.skipped == {"x/ü.png"}
    tasks[0]["annotations"].append(
        {"was_cancelled": True, "result": [{"type": "choices", "value": {"choices": ["dog"]}}]}
    )
    for task in tasks:
        del task["data"]["image_id"]  # a storage that knows the file only
    path.write_text(json.dumps(tasks))
    assert import_labels(path)[0].labeled == expected
    flat = [{"image": f"/data/local-files/?d=images/{file}", "id": 7, "choice": "cat"} for file in FILES]
    path.write_text(json.dumps(flat))
    assert set(import_labels(path)[0].labeled) == {"old.png", *FILES.values()}


def test_json_min_names_the_control_of_our_interface(folder):
    from hf_lowlabel.labeling.label_studio import label_studio_config

    control = re.search(r'<Choices name="(\w+)"', label_studio_config(Asked.load(folder)))[1]
    flat = [{"image": f"/data/local-files/?d=images/{file}", "id": 7, control: "cat"} for file in list(FILES)[:3]]
    flat.append({"image": f"/data/local-files/?d=images/{list(FILES)[3]}", "id": 8, "annotation_id": 8})
    (folder / "export.json").write_text(json.dumps(flat))
    split, found = import_labels(folder / "export.json")
    assert set(split.labeled) == {"old.png", *list(FILES.values())[:3]} and found.skipped == {"d.png"}


def test_label_studio_faults(folder):
    path, tasks = studio(folder, [["cat", "dog"], ["dog"], [], ["dog"]])
    with pytest.raises(UserError, match="task 1: 'x/a.png' is labeled 'cat' and 'dog'"):
        import_labels(path)
    path.write_text(json.dumps(tasks[1:]))
    with pytest.raises(UserError, match="1 of 4 images have no task"):
        import_labels(path)
    path.write_text(json.dumps([{"data": {"image": "other.png"}}]))
    with pytest.raises(UserError, match="no image is 'other.png'"):
        import_labels(path)
    path.write_text("{}")
    with pytest.raises(UserError, match="is no list of objects"):
        import_labels(path)


def test_command_line(folder, tmp_path, capsys):
    fill(folder, {"x/a.png": "cat", "d.png": "dog"})
    out = tmp_path / "split.json"
    assert main(["split", "--from", str(folder), "--output", str(out)]) == 0
    assert Split.load(out).labeled == {"old.png": "cat", "x/a.png": "cat", "d.png": "dog"}
    assert main(["split", "--from", str(folder), "--output", str(out)]) == 2 and "exists" in capsys.readouterr().err
    assert main(["split", "--from", str(folder), "--num-labels", "3", "--output", str(tmp_path / "b.json")]) == 2
    assert main(["split", "--output", str(tmp_path / "b.json")]) == 2
    assert "Give --dataset, the data to draw from" in capsys.readouterr().err
    for flag in (["--base", "nowhere.json"], ["--new-classes"], ["--allow-missing"]):
        assert main(["split", "--dataset", "digits", *flag, "--output", str(tmp_path / "b.json")]) == 2
        assert f"{flag[0]} says how finished labels are read" in capsys.readouterr().err


def test_rows_without_a_selection_need_the_data(tmp_path):
    (tmp_path / "mine.csv").write_text("id,label\n0003,3\n0007,7\n")
    with pytest.raises(UserError, match="--dataset"):
        import_labels(tmp_path / "mine.csv")
    source = load_source("digits")
    with pytest.warns(UserWarning, match="8 of 10 classes"):
        split, _ = import_labels(tmp_path / "mine.csv", source=source)
    assert split.labeled == {"0003": "3", "0007": "7"} and split.fingerprint == source.fingerprint
    (tmp_path / "mine.csv").write_text("id,label\n0003,3\nxx,7\n")
    with pytest.raises(UserError, match="row 3"):
        import_labels(tmp_path / "mine.csv", source=source)


def test_folders_that_are_no_classes(tmp_path, capsys):
    for name in ("slide 1/a.png", "slide 1/b.png", "Ülm/c.png", "d.png"):
        (tmp_path / "cells" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "cells" / name)
    (tmp_path / "mine.csv").write_text("image;Class\nslide 1/a.png;flat\nÜlm/c.png;round\n", encoding="utf-8")
    argv = [
        "split",
        "--dataset",
        str(tmp_path / "cells"),
        "--from",
        str(tmp_path / "mine.csv"),
        "--output",
        str(tmp_path / "s.json"),
    ]
    assert main(argv) == 2
    assert "no label (flat, round) is one of the classes that are known: slide 1, Ülm" in capsys.readouterr().err
    assert main([*argv, "--new-classes"]) == 0
    out, err = capsys.readouterr()
    assert "2 classes (flat, round)" in out
    assert "slide 1, Ülm in 'cells' are no classes of mine.csv (flat, round): its labels alone count" in err
    split, source = Split.load(tmp_path / "s.json"), load_source(tmp_path / "cells")
    at = split.resolve(source)
    assert [source.ids[i] for i in at.labeled] == ["slide 1/a.png", "Ülm/c.png"] and at.labels.tolist() == [0, 1]
    assert len(at.train) == 4 and split.targets(source).tolist() == [-1, 0, -1, 1]


def test_one_folder_that_is_no_class_and_names_that_are_not_near(tmp_path):
    for name in ("photos/sub/a.png", "photos/IMG_0119.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    table, source = tmp_path / "mine.csv", load_source(tmp_path / "photos")
    table.write_text("file_name,label\nsub/a.png,red\nIMG_0119.png,blue\n")
    notes = import_labels(table, source=source, new_classes=True)[1].notes
    assert "sub in 'photos' is no class of mine.csv (blue, red): its labels alone count" in notes
    for name, near in (("nope.png", False), ("added_0.png", False), ("IMG_0118.png", True)):
        table.write_text(f"file_name,label\n{name},red\n")
        with pytest.raises(UserError, match=name) as error:
            import_labels(table, source=source, new_classes=True)
        assert ("did you mean 'IMG_0119.png'?" in str(error.value)) is near
        (tmp_path / "photos" / "metadata.csv").write_text(table.read_text())
        with pytest.raises(UserError, match=name) as error:
            load_source(tmp_path / "photos")
        assert ("there is 'IMG_0119.png'" in str(error.value)) is near
        (tmp_path / "photos" / "metadata.csv").unlink()


def test_marks_and_words_that_are_no_class(tmp_path):
    for i in range(6):
        (tmp_path / "photos").mkdir(exist_ok=True)
        Image.new("RGB", (8, 8), (i, 0, 0)).save(tmp_path / "photos" / f"{i}.png")
    table, source = tmp_path / "mine.csv", load_source(tmp_path / "photos")

    def read(*labels):
        table.write_text("file_name,label\n" + "".join(f"{i}.png,{label}\n" for i, label in enumerate(labels)))
        return import_labels(table, source=source)[0].class_names

    with pytest.warns(UserWarning, match="1 x '[?]', 1 x '-' count as no label.*--no-label"):
        assert read("cat", "dog", "?", "-", "") == ["cat", "dog"]
    assert read("+", "-", "+", "-") == ["+", "-"]
    for word in ("unknown", "TBD", "todo"):
        with pytest.warns(UserWarning, match=f"mine.csv: 1 x '{word}' count as a class. If .* --no-label"):
            assert word in read("cat", "dog", word)


def test_ids_may_hold_images_and_a_slash(tmp_path):
    (tmp_path / "labels.csv").write_text("file_name,label\ncat_images/1.jpg,cat\nimages/2.jpg,dog\n")
    ids = {id: id for id in ("cat_images/1.jpg", "2.jpg")}
    assert read_labels(tmp_path / "labels.csv", Asked("photos", None, ids)).labels == {
        "cat_images/1.jpg": "cat",
        "2.jpg": "dog",
    }


def test_reading_changes_no_file(folder):
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    read_labels(folder / "labels.csv", Asked.load(folder))
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before


def again(tasks, at, *answers):
    """The same image once more, with an annotation for each answer."""
    results = [[{"type": "choices", "value": {"choices": list(names)}}] * bool(names) for names in answers]
    return {"data": tasks[at]["data"], "annotations": [{"result": result} for result in results]}


def test_two_tasks_of_an_image_are_no_choice_of_the_last(folder):
    path, tasks = studio(folder, [["cat"], ["dog"], [""], ["dog"]])
    more = {"x/a.png": (again(tasks, 0, ["dog"]), "task 5: 'x/a.png' is 'dog' here and 'cat' in task 1")}
    more["x/b, c.png"] = (again(tasks, 1, []), "task 5: 'x/b, c.png' is '' here and 'dog' in task 2")
    more["x/ü.png"] = (again(tasks, 2, ["cat"]), "task 5: 'x/ü.png' is 'cat' here and '' in task 3")
    for id, (task, said) in more.items():
        path.write_text(json.dumps([*tasks, task]))
        with pytest.raises(UserError, match=re.escape(said)):
            import_labels(path)
        split, found = import_labels(path, rules=LabelRules(skip_conflicts=True))
        assert [left for left, _ in found.left_out] == [id] and id not in {*split.labeled, *found.skipped}
    flat = [{"image": f"/data/local-files/?d=images/{file}", "choice": "cat"} for file in FILES]
    path.write_text(json.dumps([*flat, {**flat[0], "choice": "dog"}]))
    with pytest.raises(UserError, match="task 5: 'x/a.png' is 'dog' here and 'cat' in task 1"):
        import_labels(path)
    path.write_text(json.dumps([*tasks, again(tasks, 0, ["cat"])]))  # which says nothing else
    assert import_labels(path)[0].labeled["x/a.png"] == "cat"


def test_tasks_of_several_classes_agree_too(folder):
    task = Asked.load(folder)
    task.task = "multilabel"
    task.save(folder)
    path, tasks = studio(folder, [["cat"], ["dog"], [""], ["dog"]])
    tasks[0] = again(tasks, 0, ["cat", "dog"], ["dog", "cat"])
    path.write_text(json.dumps([*tasks, again(tasks, 0, ["dog", "cat"])]))
    assert import_labels(path)[0].labeled["x/a.png"] == "cat;dog"
    path.write_text(json.dumps([*tasks, again(tasks, 0, ["dog"])]))
    with pytest.raises(UserError, match="task 5: 'x/a.png' is 'dog' here and 'cat;dog' in task 1"):
        import_labels(path)
    path.write_text(json.dumps([again(tasks, 0, ["cat"], ["dog"]), *tasks[1:]]))
    with pytest.raises(UserError, match="task 1: 'x/a.png' is labeled 'cat' and 'dog'; keep one annotation"):
        import_labels(path)


@pytest.mark.parametrize("ending", ["json", "jsonl"])
def test_a_name_that_json_has_twice(folder, ending):
    path = folder / f"mine.{ending}"
    path.write_text('{"0000_a.png": "cat", "0000_a.png": "dog"}')
    with pytest.raises(UserError, match="'0000_a.png' is in it twice, with different values"):
        import_labels(path)


def test_a_folder_knows_all_that_a_split_says_and_neither_changes_the_other():
    data = load_source("digits")
    lists = dict(validation=[data.ids[1]], test=[data.ids[2]], held_labels={data.ids[2]: "7"})
    split = Split("digits", ["0", "7"], {data.ids[0]: "0"}, **lists, passed_over=[data.ids[3]])
    asked = Asked.of(data, split, strategy="doubt")
    both = {f.name for f in fields(Split)} & {f.name for f in fields(Asked)} - {"dataset", "config", "revision"}
    both -= {"fingerprint", "seed"}  # of the data, and of another draw
    assert {name: getattr(asked, name) for name in both} == {name: getattr(split, name) for name in both}
    asked.labeled.clear(), asked.test.clear()
    assert split.labeled and split.test and asked.fingerprint == data.fingerprint and asked.strategy == "doubt"
    assert Asked.of(data).class_names == data.class_names
