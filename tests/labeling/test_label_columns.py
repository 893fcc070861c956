"""Finished labels in a table with a column for each class, where --labels and --from read one."""

import pytest
from PIL import Image

from hf_lowlabel import Split, UserError, load_source
from hf_lowlabel.cli import main
from hf_lowlabel.labeling.importing import import_labels

HEAD = "file_name,cat,dog,bird,age\n"
ROWS = ["1,1,0,3", "0,0,0,4", ",,,5", "0,1,0,6"]


@pytest.fixture
def photos(tmp_path):
    for i in range(4):
        (tmp_path / "photos").mkdir(exist_ok=True)
        Image.new("RGB", (8, 8), (60 * i, 0, 0)).save(tmp_path / "photos" / f"{i}.png")
    return tmp_path / "photos"


def table(photos, rows, head=HEAD):
    path = photos.parent / "mine.csv"
    path.write_text(head + "\n".join(f"{i}.png,{row}" for i, row in enumerate(rows)) + "\n")
    return path


def test_several_classes(photos, tmp_path, capsys):
    argv = ["split", "--dataset", str(photos), "--from", str(table(photos, ROWS)), "--output", str(tmp_path / "s.json")]
    with pytest.warns(UserWarning) as told:
        assert main([*argv, "--task", "multilabel"]) == 0
    assert "3 classes (cat, dog, bird)" in capsys.readouterr().out
    assert sum("mine.csv: columns not read: age" in str(w.message) for w in told) == 1
    assert any("1 of 3 classes have no labeled image and cannot be learned: bird" in str(w.message) for w in told)
    split = Split.load(tmp_path / "s.json")
    assert split.labeled == {"0.png": "cat;dog", "1.png": "none", "3.png": "dog"}
    beside = photos / "metadata.csv"
    beside.write_text((tmp_path / "mine.csv").read_text())
    (tmp_path / "s.json").unlink()
    assert (
        main(argv) == 2 and "or give --task multilabel for classes that each have a column" in capsys.readouterr().err
    )


def test_one_class_an_image_where_each_row_has_one(photos):
    path = table(photos, ["yes,no,no,3", "no,yes,no,4", ",,,5", "no,yes,no,6"])
    with pytest.warns(UserWarning, match="columns not read: age"):
        split, _ = import_labels(path, source=load_source(photos))
    assert split.labeled == {"0.png": "cat", "1.png": "dog", "3.png": "dog"}
    assert split.class_names == ["cat", "dog", "bird"]


def test_faults_of_columns_are_errors_before_anything_is_written(photos):
    source = load_source(photos)
    for rows, words in (
        (["1,0,0,3", "0,1,0,4", "0,2,0,5", "0,1,0,6"], "Row 4 of mine.csv has '2' in the column 'dog'"),
        (
            ["1,,0,3", "0,1,0,4"],
            "1 of 2 labels in 'mine.csv' say yes or no of some classes alone, such as that of row 2",
        ),
    ):
        with pytest.raises(UserError, match=words):
            import_labels(table(photos, rows), source=source, several=True)
    with pytest.raises(UserError, match="column 'cat;dog' of mine.csv cannot be one of several classes"):
        import_labels(table(photos, ["1,0"], "file_name,cat;dog,bird\n"), source=source, several=True)
    with pytest.raises(UserError, match="Call the one with the classes label"):  # an export's own numbers
        import_labels(table(photos, ["1,1"], "image,annotation_id,annotator\n"), source=source, several=True)


@pytest.mark.parametrize("several, said", [(False, "Gänseblümchen"), (True, "Gänseblümchen;gelb")])
def test_columns_in_any_language(photos, several, said, caplog):
    """Of a table with no more than names of pictures and classes, as a shop exports it."""
    path = photos.parent / "liste.csv"
    path.write_text(f"\ufeffDateiname;Kategorien\n0.png;{said.replace(';', '|')}\n1.png;Rose\n2.png;\n", "utf-8")
    split, _ = import_labels(path, source=load_source(photos), several=several)
    assert split.labeled == {"0.png": said, "1.png": "Rose"}
    assert "the column 'Kategorien' of liste.csv is read as the labels" in caplog.text
    path.write_text("Dateiname;Kategorien;Preis\n0.png;Rose;3\n1.png;Tulpe;4\n", "utf-8")
    with pytest.raises(UserError, match="Kategorien, Preis. Call the one with the classes label"):
        import_labels(path, source=load_source(photos), several=several)
    path.write_text("Dateiname;Vorschau;Klasse\n0.png;a.png;Rose\n1.png;b.png;Tulpe\n", "utf-8")
    with pytest.raises(UserError, match="Call the one with the file names file_name"):
        import_labels(path, source=load_source(photos), several=several)


def test_x_and_nothing(photos):
    with pytest.warns(UserWarning, match="mine.csv: no cell says no"):
        split, _ = import_labels(
            table(photos, ["x,x", ",", "x,"], "file_name,cat,dog\n"), source=load_source(photos), several=True
        )
    assert split.labeled == {"0.png": "cat;dog", "2.png": "cat"}
