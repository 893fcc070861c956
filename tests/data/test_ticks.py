"""Tables with a column for each class: the words for yes and no, stray values, and columns that are no classes."""

import warnings

import pandas as pd
import pytest
from PIL import Image

from hf_lowlabel import Config, UserError, load_source
from hf_lowlabel.data.labels.labels import LabelRules
from hf_lowlabel.data.labels.ticks import switches
from hf_lowlabel.data.opening import open_dataset
from hf_lowlabel.data.sources.several_targets import MultiLabelTargets
from hf_lowlabel.labeling.importing import import_labels
from hf_lowlabel.tasks import get_task

ROWS = [(1, 0), (0, 1), (1, 1), (0, 0), (1, 0), (0, 1)]
ONE_EACH = [(1, 0), (0, 1)] * 3


def photos(root, head, rows, name="metadata.csv"):
    """Six images and a table; a row is text."""
    for i in range(6):
        Image.new("RGB", (8, 8), (40 * i, 0, 0)).save(root / f"{i}.png")
    lines = [f"{i}.png,{row}" for i, row in enumerate(rows)]
    (root / name).write_text("\n".join([f"file_name,{head}", *lines]) + "\n")
    return root


def several(root):
    data = Config.from_flat("finetune", {"dataset": str(root), "task": "multilabel"}).data
    return get_task("multilabel").open(data)


def written(rows, no, yes):
    return [",".join((no, yes)[v] for v in row) for row in rows]


WORDS = ["false true", "no yes", "n y", "f t", "No YES", "0.0 1.0", "FALSE TRUE", "0 x"]


@pytest.mark.parametrize("words", WORDS)
def test_words_for_yes_and_no(tmp_path, words):
    photos(tmp_path, "cat,dog", written(ROWS, *words.split()))
    found = several(tmp_path)
    assert found.class_names == ["cat", "dog"] and found.labels.tolist() == [list(row) for row in ROWS]
    photos(tmp_path, "cat,dog", written(ONE_EACH, *words.split()))
    assert load_source(tmp_path).labels.tolist() == [0, 1] * 3


@pytest.mark.parametrize("tick", ["x", "X", "1", "yes"])
def test_a_blank_beside_a_tick_is_no_where_nothing_else_says_so(tmp_path, tick):
    photos(tmp_path, "cat,dog", written(ROWS, "", tick))
    with pytest.warns(UserWarning, match="metadata.csv: no cell says no .0., so that an empty one beside a tick"):
        assert several(tmp_path).labels.tolist() == [[1, 0], [0, 1], [1, 1], [-1, -1], [1, 0], [0, 1]]
    photos(tmp_path, "cat,dog", written(ONE_EACH, "", tick))
    assert load_source(tmp_path).labels.tolist() == [0, 1] * 3


def test_letters_of_something_else_are_no_ticks():
    sex = {"sex": ["f", "F", "f"], "cat": [1, 0, 1]}
    assert list(switches(sex)) == ["cat"]
    assert list(switches(sex | {"dog": ["t", "f", "t"]})) == ["sex", "cat", "dog"]
    assert not switches({"sex": ["f", "m"], "side": ["x", "z"], "age": [1, 30], "none": ["", "nan"]})
    assert switches({"cat": ["-1", "N/A", None, "1"]}) == {"cat": [None, None, None, 1]}


@pytest.mark.parametrize("name", ["metadata.csv", "labels.csv"])
@pytest.mark.parametrize("value", ["2", "yess", "maybe", "0.5"])
def test_a_stray_value_is_named_with_its_row(tmp_path, name, value):
    rows = written(ROWS, "0", "1")
    rows[3] = f"0,{value}"
    photos(tmp_path, "cat,dog", rows, name)
    with pytest.raises(UserError, match=f"Row 5 of {name} has '{value}' in the column 'dog', which holds yes and no"):
        several(tmp_path)
    rows = written(ONE_EACH, "no", "yes")
    rows[2] = f"no,{value}"
    photos(tmp_path, "cat,dog", rows, name)
    with pytest.raises(UserError, match=f"Row 4 of {name} has '{value}' in the column 'dog'"):
        load_source(tmp_path)


def test_a_stray_value_beside_labels_or_attributes_is_nobodys_fault(tmp_path):
    photos(tmp_path, "label,flipped", [f"a,{v}" for v in "010012"])
    assert load_source(tmp_path).class_names == several(tmp_path).class_names == ["a"]
    photos(tmp_path, "flipped,night", ["1,1", "0,0", "1,0", "0,1", "1,1", "2,0"])  # not one class a row
    with pytest.warns(UserWarning, match="metadata.csv has no column called label"):
        assert not load_source(tmp_path).has_target.any()


def test_a_stray_value_of_a_table_in_memory_names_the_image():
    images = [Image.new("RGB", (8, 8)) for _ in range(20)]
    frame = pd.DataFrame({"image": images, "cat": [0, 1] * 10, "dog": [0] * 18 + [2, 3]})
    with pytest.raises(UserError, match="Image '18' of 'memory' has '2' in the column 'dog'.*1 more such cells"):
        open_dataset(frame, MultiLabelTargets())


def test_what_is_not_read_is_said_once(tmp_path):
    ages = [f"{row},{30 + k},sea" for k, row in enumerate(written(ONE_EACH, "0", "1"))]
    photos(tmp_path, "cat,dog,age,place", ages)
    for read in (several, load_source):
        with pytest.warns(UserWarning) as told:
            assert read(tmp_path).class_names == ["cat", "dog"]
        assert [str(w.message).split(" (")[0] for w in told] == ["metadata.csv: columns not read: age, place"]
    photos(tmp_path, "cat,dog", written(ROWS, "nein", "ja"))
    with pytest.warns(UserWarning, match="columns not read: cat, dog .*all images count as unlabeled"):
        assert not several(tmp_path).has_target.any()
    photos(tmp_path, "cat,dog", written(ROWS, "0", "1"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        several(tmp_path)


@pytest.mark.parametrize("task", ["classification", "multilabel"])
def test_words_of_the_user_for_no_label(tmp_path, task):
    rows = [*written(ONE_EACH, "0", "1")[:4], "nix,nix", "0,1"]
    photos(tmp_path, "cat,dog", rows)
    asked = {"dataset": str(tmp_path), "task": task}
    with pytest.raises(UserError, match="Row 6 of metadata.csv has 'nix' in the column 'cat'"):
        get_task(task).open(Config.from_flat("finetune", asked).data)
    data = Config.from_flat("finetune", asked | {"no_label": ["nix"]}).data
    assert get_task(task).open(data).has_target.tolist() == [True] * 4 + [False, True]
    (tmp_path / "metadata.csv").rename(tmp_path / "mine.csv")
    how = dict(source=load_source(tmp_path), several=task == "multilabel")
    assert len(import_labels(tmp_path / "mine.csv", rules=LabelRules(("nix",)), **how)[0].labeled) == 5
    with pytest.raises(UserError, match="Row 6 of mine.csv"):
        import_labels(tmp_path / "mine.csv", **how)
