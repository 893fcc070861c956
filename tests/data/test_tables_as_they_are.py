"""Tables of labels as people have them: any usual kind, name and column, names that need looking for, holes, faults."""

import csv
import json

import pandas as pd
import pytest
from PIL import Image
from tiny_sets import pictures

from hf_lowlabel import Config, UserError, load_source
from hf_lowlabel.arguments import DataArguments
from hf_lowlabel.cli import main
from hf_lowlabel.data.files.table_files import match_names, read_table
from hf_lowlabel.data.splits.splits import Split
from hf_lowlabel.labeling.labels import Asked, read_labels
from hf_lowlabel.tasks import get_task

ROWS = [("0.png", "a"), ("1.png", "b"), ("2.png", "a"), ("3.png", "")]


def text(separator=",", head=("file_name", "label"), rows=ROWS):
    return "\n".join(separator.join(row) for row in [head, *rows]) + "\n"


def objects(rows=ROWS):
    return [{"file_name": name, "label": label or None} for name, label in rows]


FRAME = pd.DataFrame(ROWS, columns=["file_name", "label"])
KINDS = {
    "commas.csv": lambda p: p.write_text(text()),
    "semicolons.csv": lambda p: p.write_text(text(";")),
    "tabs.csv": lambda p: p.write_text(text("\t")),
    "marked.csv": lambda p: p.write_bytes(text().encode("utf-8-sig")),
    "utf16.csv": lambda p: p.write_bytes(text("\t").encode("utf-16")),
    "sep.csv": lambda p: p.write_text("sep=;\n" + text(";")),
    "quoted.csv": lambda p: p.write_text('"file_name","label"\r\n' + "\r\n".join(f'"{f}","{x}"' for f, x in ROWS)),
    "tabs.tsv": lambda p: p.write_text(text("\t")),
    "lines.jsonl": lambda p: p.write_text("\n".join(map(json.dumps, objects()))),
    "list.json": lambda p: p.write_text(json.dumps(objects())),
    "names.json": lambda p: p.write_text(json.dumps({name: label for name, label in ROWS})),
    "columns.json": lambda p: p.write_text(FRAME.to_json()),
    "frame.parquet": lambda p: FRAME.to_parquet(p),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_table_wherever_one_is_read(tmp_path, kind):
    data, beside = pictures(tmp_path / "a"), pictures(tmp_path / "b")
    KINDS[kind](data / f"metadata.{kind.split('.')[1]}")
    source = load_source(data)
    assert source.labels.tolist() == [0, 1, 0, -1] and source.class_names == ["a", "b"]
    KINDS[kind](tmp_path / kind)
    task = Asked("b", None, {f"{i}.png": f"{i}.png" for i in range(4)})
    assert read_labels(tmp_path / kind, task).labels == {"0.png": "a", "1.png": "b", "2.png": "a"}
    assert (
        main(["split", "--from", str(tmp_path / kind), "--dataset", str(beside), "--output", f"{tmp_path}/s.json"]) == 0
    )


def test_workbooks(tmp_path):
    pytest.importorskip("openpyxl")
    FRAME.to_excel(pictures(tmp_path) / "Labels.xlsx", index=False)
    assert load_source(tmp_path).labels.tolist() == [0, 1, 0, -1]


def test_a_workbook_names_the_package_that_reads_it(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "openpyxl", None)
    (pictures(tmp_path) / "labels.xlsx").write_bytes(b"PK")
    with pytest.raises(UserError, match="pip install openpyxl"):
        load_source(tmp_path)


@pytest.mark.parametrize("name", ["Metadata.csv", "labels.csv", "train.csv", "LABELS.TSV", "training.csv"])
def test_usual_names_of_tables(tmp_path, name):
    (pictures(tmp_path) / name).write_text(text("\t" if name.endswith("TSV") else ","))
    assert load_source(tmp_path).labels.tolist() == [0, 1, 0, -1]


@pytest.mark.parametrize(
    "head", [("Filename", "Class"), ("IMAGE", "Category"), ("Image Path", "target"), ("id", "label")]
)
def test_usual_names_of_columns(tmp_path, head):
    rows = [(name.removesuffix(".png") if head[0] == "id" else name, label) for name, label in ROWS]
    (pictures(tmp_path) / "train.csv").write_text(text(head=head, rows=rows))
    assert load_source(tmp_path).labels.tolist() == [0, 1, 0, -1]


def test_a_table_of_something_else_is_named_and_left(tmp_path):
    pictures(tmp_path, "cat/0.png", "dog/0.png")
    (tmp_path / "labels.csv").write_text("number,name\n0,cat\n1,dog\n")
    with pytest.warns(UserWarning, match="labels.csv is not read as a table of labels"):
        assert load_source(tmp_path).class_names == ["cat", "dog"]


def test_one_table_over_folders_of_splits_and_one_for_each(tmp_path):
    for data in (tmp_path / "a", tmp_path / "b"):
        pictures(data, "train/0.png", "train/1.png", "test/0.png", "test/2.png")
    (tmp_path / "a/Labels.csv").write_text("file,label\ntrain/0.png,x\ntest/0.png,y\n1.png,y\n2.png,x\n")
    (tmp_path / "b/train.csv").write_text("file,label\n0.png,x\n1.png,y\n")
    (tmp_path / "b/test.csv").write_text("file,label\n0.png,y\n2.png,x\n")
    for data in (tmp_path / "a", tmp_path / "b"):
        assert load_source(data).labels.tolist() == [0, 1]
        assert load_source(data, split="test").labels.tolist() == [1, 0]


@pytest.mark.parametrize(
    "name, id",
    [
        ("/home/me/photos/sub/0.png", "sub/0.png"),
        ("C:\\photos\\sub\\0.png", "sub/0.png"),
        ("1.png", "deep/er/1.png"),
        ("er/1.png", "deep/er/1.png"),
        ("other/place/2.png", "2.png"),
        ("./2.png", "2.png"),
        ("2", "2.png"),
        ("x/sub/3.png", "sub/3.png"),  # of two called so the one in a folder called so
        ("3.png", None),
        ("4.png", None),
        ("2.jpg", None),
    ],
)
def test_names_are_looked_for(tmp_path, name, id):
    ids = ["2.png", "deep/er/1.png", "sub/0.png", "sub/3.png", "tub/3.png"]
    from hf_lowlabel.data.files.table_files import plain_name

    assert match_names([plain_name(name)], ids)[0] == [id]


def test_an_image_is_found_loosely_by_one_name_alone(tmp_path):
    assert match_names(["a/0.png", "b/0.png"], ["a/0.png"]) == (["a/0.png", None], 0)
    assert match_names(["a/0.png", "b/0.png"], ["c/0.png"]) == ([None, None], 0)


def test_names_that_were_looked_for_are_counted(tmp_path):
    rows = [("/x/0.png", "a"), ("1.png", "b"), ("y\\2.png", "a")]
    (pictures(tmp_path) / "metadata.csv").write_text(text(rows=rows))
    with pytest.warns(UserWarning, match="2 of 3 file names in metadata.csv are matched .*'/x/0.png' with '0.png'"):
        assert load_source(tmp_path).labels.tolist() == [0, 1, 0, -1]


@pytest.mark.parametrize("word", ["NaN", "None", "null", "NA", "N/A"])
def test_words_for_no_label_are_said_and_may_be_a_class(tmp_path, word):
    rows = [("0.png", "a"), ("1.png", word), ("2.png", "b"), ("3.png", "")]
    (pictures(tmp_path) / "metadata.csv").write_text(text(rows=rows))
    with pytest.warns(UserWarning, match=f"1 x '{word}' count as no label.*--no-label"):
        assert load_source(tmp_path).labels.tolist() == [0, -1, 1, -1]
    assert sorted(load_source(tmp_path, no_label=[""]).class_names) == sorted(["a", "b", word])
    pd.DataFrame({"image": [b"x"] * 4, "label": ["a", word, "b", None]}).to_parquet(tmp_path / "t.parquet")
    with pytest.warns(UserWarning, match="count as no label"):
        assert load_source(tmp_path / "t.parquet").class_names == ["a", "b"]


def test_none_is_no_class_of_several(tmp_path):
    rows = [("0.png", "a;b"), ("1.png", "none"), ("2.png", "NaN"), ("3.png", "['a']")]
    (pictures(tmp_path) / "metadata.csv").write_text(text(rows=rows))
    config = Config.from_flat("finetune", {"dataset": str(tmp_path), "task": "multilabel"})
    assert get_task("multilabel").open(config.data).labels.tolist() == [[1, 1], [0, 0], [-1, -1], [1, 0]]


@pytest.mark.parametrize("cell", [["a", "b"], {"name": "a"}, "['a', 'b']", '{"name": "a"}'])
def test_lists_and_objects_name_their_column(tmp_path, cell):
    content = [{"file_name": "0.png", "class": cell}, {"file_name": "1.png", "class": cell}]
    (pictures(tmp_path) / "metadata.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="in column 'class' of metadata.json is a .*--task multilabel"):
        load_source(tmp_path)


def test_faults_are_errors_or_left_out_and_listed(tmp_path):
    rows = [*ROWS, ("9.png", "a"), ("0.png", "b"), ("8.png", "b")]
    (pictures(tmp_path / "d") / "metadata.csv").write_text(text(rows=rows))
    with pytest.raises(UserError, match="2 file names .*'9.png'.*--skip-missing"):
        load_source(tmp_path / "d")
    with pytest.raises(UserError, match="'0.png' twice.*--skip-conflicts"):
        load_source(tmp_path / "d", skip_missing=True)
    source = load_source(tmp_path / "d", skip_missing=True, skip_conflicts=True)
    assert source.labels.tolist() == [-1, 1, 0, -1]
    flags = ["--skip-missing", "--skip-conflicts", "--output", str(tmp_path / "s.json")]
    assert main(["split", "--dataset", str(tmp_path / "d"), *flags]) == 0
    with open(tmp_path / "s.left_out.csv", encoding="utf-8") as file:
        assert [row["name"] for row in csv.DictReader(file)] == ["9.png", "8.png", "0.png"]


def test_finished_labels_leave_out_the_same_faults(tmp_path):
    (tmp_path / "l.csv").write_text(text(rows=[*ROWS, ("9.png", "a"), ("0.png", "b")]))
    command = ["split", "--from", f"{tmp_path}/l.csv", "--dataset", str(pictures(tmp_path / "d"))]
    assert main([*command, "--output", f"{tmp_path}/a.json"]) == 2
    assert main([*command, "--output", f"{tmp_path}/b.json", "--skip-missing", "--skip-conflicts"]) == 0
    assert Split.load(tmp_path / "b.json").labeled == {"1.png": "b", "2.png": "a"}
    assert (tmp_path / "b.left_out.csv").read_text().count("\n") == 3


def test_finished_labels_get_a_test_set_and_a_budget(tmp_path):
    data = pictures(tmp_path / "d", *(f"{i}.png" for i in range(20)))
    (tmp_path / "l.csv").write_text(text(rows=[(f"photos/{i}.png", "ab"[i % 2]) for i in range(18)]))
    command = ["split", "--from", f"{tmp_path}/l.csv", "--dataset", str(data), "--class-balanced"]
    command += ["--num-labels", "6", "--test-fraction", "0.34", "--validation", "4", "--output", f"{tmp_path}/s.json"]
    assert main(command) == 0
    split = Split.load(tmp_path / "s.json")
    assert (len(split.labeled), len(split.test), len(split.validation)) == (6, 6, 4)
    assert sorted(split.labeled.values()) == ["a"] * 3 + ["b"] * 3
    split.resolve(load_source(data))  # it is that data's


def test_a_test_set_drawn_from_a_table_beside_the_photos_or_elsewhere(tmp_path):
    """The manifest has its answers where the data has none."""
    data = pictures(tmp_path / "d", *(f"{i}.png" for i in range(20)))
    (tmp_path / "l.csv").write_text(text(rows=[(f"{i}.png", "ab"[i % 2]) for i in range(18)]))
    split = ["split", "--from", f"{tmp_path}/l.csv", "--dataset", str(data), "--output", f"{tmp_path}/s.json"]
    assert main([*split, "--test-fraction", "0.34"]) == 0
    run = [
        "finetune",
        "--dataset",
        str(data),
        "--split",
        f"{tmp_path}/s.json",
        "--model",
        "test_resnet",
        "--from-scratch",
    ]
    assert main([*run, "--method", "supervised", "--dry-run", "--output-dir", f"{tmp_path}/run"]) == 0
    (tmp_path / "l.csv").rename(data / "labels.csv")
    again = ["split", "--dataset", str(data), "--test-fraction", "0.34", "--output", f"{tmp_path}/t.json"]
    assert main(again) == 0
    source, task = load_source(data), get_task("classification")
    assert len(task.choose_split(DataArguments(dataset=str(data), split=f"{tmp_path}/t.json"), 0, source).test_at) == 6


def test_drawing_from_finished_labels_needs_the_data(tmp_path, capsys):
    (tmp_path / "l.csv").write_text(text())
    assert main(["split", "--from", f"{tmp_path}/l.csv", "--num-labels", "2", "--output", f"{tmp_path}/s.json"]) == 2
    assert "--dataset" in capsys.readouterr().err


@pytest.mark.parametrize(
    "name, content, words",
    [
        ("a.csv", "file_name,label\n0.png,a,b\n", "row 2 has more cells than the header"),
        ("a.csv", "file_name,label,label\n0.png,a,b\n", "two columns called 'label'"),
        ("a.json", '{"images": [], "annotations": []}', "COCO.*--task segmentation"),
        ("a.json", "[1, 2]", "no list of objects"),
        ("a.jsonl", '{"file_name": "0.png"}\n[1]\n', "line 2 holds no object"),
        ("a.parquet", "nothing", "cannot be read as a parquet table"),
        ("a.csv", b"file_name,label\n0.png,caf\xe9\n", "not UTF-8"),
    ],
)
def test_what_is_no_table(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=words):
        read_table(tmp_path / name)


@pytest.mark.parametrize(
    "name, id",
    [
        ("cam2/4.png", None),  # a folder that contradicts
        ("photos/cam2/4.png", None),
        ("CAM2/4.PNG", None),
        ("cam2/4", None),
        ("x/cam1/../cam2/4.png", None),
        ("cam2/7.png", None),  # a number, whose zeros a spreadsheet drops
        ("cam1/7.png", "cam1/007.png"),
        ("CAM1/7.png", "cam1/007.png"),
        ("cam1/4", "cam1/4.png"),
        ("Cam1/4.PNG", "cam1/4.png"),
        ("4.png", "cam1/4.png"),
        ("/4.png", "cam1/4.png"),
        ("/data/photos/cam1/4.png", "cam1/4.png"),
        ("photos/cam1/4.png", "cam1/4.png"),
        ("C:\\x\\cam1\\4.png", "cam1/4.png"),
        ("C:4.png", None),
        ("../4.png", "cam1/4.png"),
        ("../cam1/4.png", "cam1/4.png"),
        ("https://host/bucket/cam1/4.png", "cam1/4.png"),
        ("s3://bucket/cam1/4.png?x=1", "cam1/4.png"),
        ("/x/deep/er/5.png", "deep/er/5.png"),
        ("/x/keep/er/5.png", None),
        ("er/5.png", "deep/er/5.png"),
        ("cam2/top.png", "top.png"),
    ],
)
@pytest.mark.parametrize("few", [0, 20])
def test_a_name_whose_folder_contradicts_is_no_image(monkeypatch, name, id, few):
    from hf_lowlabel.data.files import table_files

    monkeypatch.setattr(table_files, "FEW", few)
    ids = [*(f"cam1/{i}.png" for i in range(5)), "cam1/007.png", "cam2/0.png", "deep/er/5.png", "top.png"]
    assert match_names([table_files.plain_name(name)], ids)[0] == [id]


def test_a_missing_file_is_no_image_of_another_folder(tmp_path):
    for name in [*(f"cam1/{i}.png" for i in range(5)), "cam2/0.png"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    (tmp_path / "metadata.csv").write_text("file_name,label\ncam1/0.png,cat\ncam2/0.png,cat\ncam2/4.png,dog\n")
    with pytest.raises(UserError, match="1 file names in metadata.csv have no image, such as 'cam2/4.png'"):
        load_source(tmp_path)
    source = load_source(tmp_path, skip_missing=True)
    assert dict(zip(source.ids, source.labels))["cam1/4.png"] == -1 and source.class_names == ["cat"]
