"""Tables as spreadsheets and scripts leave them: sheets, formulas, dates, quotation marks, addresses, splits."""

import datetime

import pytest
from tiny_sets import pictures

from hf_lowlabel import Config, UserError, load_source
from hf_lowlabel.data.labels.labels import class_order
from hf_lowlabel.errors import MissingSplit
from hf_lowlabel.tasks import get_task


def labels(source):
    return [source.class_names[k] if k >= 0 else None for k in source.labels.tolist()]


def workbook(path, *sheets):
    """A workbook; of each sheet (title, rows)."""
    book = pytest.importorskip("openpyxl").Workbook()
    book.remove(book.active)
    for title, rows in sheets:
        sheet = book.create_sheet(title)
        for row in rows:
            sheet.append(row)
    book.save(path)
    return book


HEAD = ["file_name", "label"]


def test_the_sheet_with_the_table_is_read_below_its_title(tmp_path):
    rows = [["Labels of May"], [], HEAD, ["0.png", "a"], ["1.png", "b"]]
    workbook(pictures(tmp_path) / "metadata.xlsx", ("Notes", [["by me"]]), ("Sheet 2", rows))
    with pytest.warns(UserWarning, match="sheet 'Sheet 2' of metadata.xlsx is read, and not Notes"):
        assert labels(load_source(tmp_path)) == ["a", "b", None, None]


def test_a_merged_cell_is_the_label_of_each_of_its_rows(tmp_path):
    rows = [HEAD[::-1], ["a", "0.png"], [None, "1.png"], ["b", "2.png"], [None, "3.png"]]
    book = workbook(pictures(tmp_path) / "labels.xlsx", ("x", rows))
    book["x"].merge_cells("A2:A3")
    book.save(tmp_path / "labels.xlsx")
    assert labels(load_source(tmp_path)) == ["a", "a", "b", None]


def test_a_formula_without_a_result_is_no_empty_cell(tmp_path):
    workbook(pictures(tmp_path) / "metadata.xlsx", ("x", [HEAD, ["0.png", '="a"'], ["1.png", "b"]]))
    with pytest.raises(UserError, match="cell B2 is a formula without a result"):
        load_source(tmp_path)


def test_dates_and_errors_of_a_spreadsheet_are_said(tmp_path):
    rows = [HEAD, ["0.png", datetime.datetime(2024, 3, 1)], ["1.png", "#REF!"], ["2.png", datetime.date(2024, 3, 2)]]
    workbook(pictures(tmp_path) / "metadata.xlsx", ("x", rows))
    with pytest.warns(UserWarning) as told:
        assert labels(load_source(tmp_path)) == ["2024-03-01", None, "2024-03-02", None]
    said = " ".join(str(warning.message) for warning in told)
    assert "2 labels are dates, such as 2024-03-01" in said and "1 x '#REF!' count as no label" in said


@pytest.mark.parametrize(
    "names",
    [
        ("Cat", "cat"),
        ("polar bear", "polar  bear"),
        ("cat", "cat\u200b"),
        ("a b", "a\u00a0b"),
        ("01", "1"),
        ("1.0", "1"),
    ],
)
def test_classes_that_look_alike_are_said(tmp_path, names):
    text = "file_name,label\n" + "".join(f"{i}.png,{name}\n" for i, name in enumerate((*names, "dog")))
    (pictures(tmp_path) / "metadata.csv").write_text(text, encoding="utf-8")
    with pytest.warns(UserWarning, match="count as different classes"):
        assert len(load_source(tmp_path).class_names) == 3


def test_folders_that_look_alike_are_said(tmp_path):
    with pytest.warns(UserWarning, match="'cat' and 'cat ' count as different classes"):
        load_source(pictures(tmp_path, "cat/0.png", "cat /1.png", "dog/2.png"))


def test_numbers_have_one_order_whatever_their_zeros():
    for _ in range(5):
        assert class_order({"10", "1", "01", "001", "2"}) == ["001", "01", "1", "2", "10"]


@pytest.mark.parametrize(
    "text, words",
    [
        ('file_name,label\n0.png,"a\n1.png,b\n2.png,c\n', "cannot be read after row 1.*quotation marks"),
        ('file_name,label\n0.png,a\n1.png,"b" c\n', "cannot be read after row 2"),
        ("# by a tool\nfile_name,label\n0.png,a\n", "first line .# by a tool"),
        ("0.png,a\n1.png,b\n", "begins with 0.png, a.*file_name,label"),
        ("file_name,label\n0.png,a\0\n", "zero bytes"),
    ],
)
@pytest.mark.parametrize("name", ["metadata.csv", "labels.csv"])
def test_a_torn_table_is_an_error(tmp_path, name, text, words):
    (pictures(tmp_path) / name).write_text(text)
    with pytest.raises(UserError, match=words):
        load_source(tmp_path)


def test_bars_between_cells(tmp_path):
    (pictures(tmp_path) / "metadata.csv").write_text("file_name|label\n0.png|a\n1.png|b\n")
    assert labels(load_source(tmp_path)) == ["a", "b", None, None]


@pytest.mark.parametrize(
    "name, written",
    [
        ("my cat.png", "my%20cat.png"),
        ("my cat.png", "https://there.org/pics/my%20cat.png?size=full#top"),
        ("0.png", "file:///home/me/0.png"),
        ("IMG_1.JPG", "img_1.jpg"),
        ("Deep/IMG_1.JPG", "deep/img_1"),
        ("007.png", "7"),
        ("007.png", "7.png"),
        ("0070.png", 70),
    ],
)
def test_names_that_another_program_wrote(tmp_path, name, written):
    (pictures(tmp_path, name, "9.png") / "metadata.csv").write_text(f"file_name,label\n{written},a\n9.png,b\n")
    with pytest.warns(UserWarning, match="1 of 2 file names"):
        found = load_source(tmp_path)
    assert labels(found)[found.ids.index(name)] == "a"


def test_zeros_count_where_both_names_are_there(tmp_path):
    (pictures(tmp_path, "1.png", "01.png") / "metadata.csv").write_text("file_name,label\n1.png,a\n01.png,b\n")
    assert dict(zip(load_source(tmp_path).ids, labels(load_source(tmp_path)))) == {"01.png": "b", "1.png": "a"}
    (tmp_path / "metadata.csv").write_text("file_name,label\n001.png,a\n")
    with pytest.raises(UserError, match="have no image"):
        load_source(tmp_path)


def test_an_error_names_the_image_that_is_nearest(tmp_path):
    (pictures(tmp_path) / "metadata.csv").write_text("file_name,label\n0.jpg,a\n")
    with pytest.raises(UserError, match="such as '0.jpg' .there is '0.png'"):
        load_source(tmp_path)


SPLITS = "file_name,label,Split\n0.png,a,train\n1.png,b,\n2.png,c,TEST\n3.png,a,test\n"


@pytest.mark.parametrize("task", ["classification", "multilabel"])
def test_a_column_of_splits_keeps_test_images_apart(tmp_path, task):
    (pictures(tmp_path, *(f"{i}.png" for i in range(5))) / "metadata.csv").write_text(SPLITS)
    data = Config.from_flat("finetune", {"dataset": str(tmp_path), "task": task}).data
    with pytest.warns(UserWarning, match="column 'Split' of metadata.csv.*3 of 5"):
        train = get_task(task).open(data)
    assert train.ids == ["0.png", "1.png", "4.png"] and train.class_names == ["a", "b", "c"]
    test = get_task(task).open(data, "test")
    assert test.ids == ["2.png", "3.png"] and test.class_names == train.class_names
    with pytest.raises(MissingSplit):
        get_task(task).open(data, "validation")
    assert get_task(task).test_dataset(data).ids == test.ids


def test_a_column_called_split_may_mean_something_else(tmp_path):
    (pictures(tmp_path) / "metadata.csv").write_text("file_name,label,split\n0.png,a,left\n1.png,b,right\n")
    assert len(load_source(tmp_path)) == 4


def test_a_column_for_each_class(tmp_path):
    (pictures(tmp_path) / "labels.csv").write_text("image,MEL,NV\n0,1.0,0.0\n1,0.0,1.0\n2,,\n")
    assert labels(load_source(tmp_path)) == ["MEL", "NV", None, None]
    data = Config.from_flat("finetune", {"dataset": str(tmp_path), "task": "multilabel"}).data
    assert get_task("multilabel").open(data).labels.tolist() == [[1, 0], [0, 1], [-1, -1], [-1, -1]]
    (tmp_path / "labels.csv").write_text("image,MEL,NV\n0,1,1\n1,0,1\n")
    with pytest.warns(UserWarning, match="labels.csv is not read .*--task multilabel"):
        assert labels(load_source(tmp_path)) == [None] * 4
    pictures(tmp_path, "cat/5.png", "dog/6.png")  # the folders stay classes beside columns of something else
    assert load_source(tmp_path).class_names == ["cat", "dog"]


def test_two_columns_of_labels_are_said(tmp_path):
    (pictures(tmp_path) / "metadata.csv").write_text("file_name,label,class\n0.png,a,x\n1.png,b,y\n")
    with pytest.warns(UserWarning, match="column 'label' of metadata.csv, and not of class"):
        assert load_source(tmp_path).class_names == ["a", "b"]
    assert load_source(tmp_path, label_column="class").class_names == ["x", "y"]
