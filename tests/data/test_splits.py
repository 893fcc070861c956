from __future__ import annotations

import json
import warnings
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from hf_lowlabel.data.dataset import ArrayReader, ImageDataset, Masks
from hf_lowlabel.data.joining import join
from hf_lowlabel.data.opening import load_source
from hf_lowlabel.data.splits.drawing import make_split
from hf_lowlabel.data.splits.splits import Split, manifest
from hf_lowlabel.errors import UserError
from hf_lowlabel.labeling.importing import drawn_from

NAMES = ["ant", "bee", "cat"]


def source(labels, names=NAMES, fingerprint="f" * 64) -> ImageDataset:
    images = np.zeros((len(labels), 4, 4), dtype=np.uint8)
    ids = [f"im{i}" for i in range(len(labels))]
    reader = ArrayReader(images)
    return ImageDataset(
        "made", None, "train", None, ids, np.array(labels), list(names), fingerprint, None, True, reader
    )


@pytest.fixture(scope="module")
def digits():
    return load_source("digits")


def test_parts_are_disjoint_and_the_cache_holds_the_labeled(digits):
    split = make_split(digits, 40, seed=0, class_balanced=True, validation=30, test_fraction=0.2)
    at = split.resolve(digits)
    assert [len(part) for part in at] == [40, 40, 30, 359, 1797 - 30 - 359]
    assert not set(at.test) & set(at.validation) and not (set(at.test) | set(at.validation)) & set(at.train)
    assert set(at.labeled) <= set(at.train)
    assert set(at.train) | set(at.validation) | set(at.test) == set(range(1797))
    assert np.array_equal(at.labels, digits.labels[at.labeled])
    assert Counter(at.labels.tolist()) == {k: 4 for k in range(10)}


def test_test_and_validation_are_stratified(digits):
    at = make_split(digits, 40, seed=3, validation=100, test_fraction=0.2).resolve(digits)
    share = np.bincount(digits.labels) / len(digits)
    for part in (at.validation, at.test):
        assert np.abs(np.bincount(digits.labels[part], minlength=10) - share * len(part)).max() < 1


def test_the_seed_decides(digits):
    def split(seed, labels=40):
        return make_split(digits, labels, seed=seed, class_balanced=True, test_fraction=0.2)

    assert split(0) == split(0) and split(0).hash == split(0).hash
    assert split(0).test != split(1).test and split(0).labeled != split(1).labeled
    assert split(0, 10).test == split(0, 100).test
    assert set(split(0, 10).labeled) < set(split(0, 40).labeled) < set(split(0, 100).labeled)


def test_random_budgets_follow_the_frequencies(digits):
    counts = sum(np.bincount(make_split(digits, 200, seed=s).resolve(digits).labels, minlength=10) for s in range(10))
    expected = 2000 * np.bincount(digits.labels) / len(digits)
    assert ((counts - expected) ** 2 / expected).sum() < 27.9  # p = 0.001 at 9 degrees of freedom


def test_what_does_not_divide_goes_to_classes_by_the_seed(digits):
    picked = [Counter(make_split(digits, 23, seed=s, class_balanced=True).labeled.values()) for s in range(6)]
    assert all(sorted(count.values()) == [2] * 7 + [3] * 3 for count in picked)
    assert len({tuple(sorted(name for name, n in count.items() if n == 3)) for count in picked}) > 1


def test_unlabeled_images_are_in_the_cache_only():
    data = source([0, 1, 2, 0, 1, 2, -1, -1, -1])
    at = make_split(data, 3, seed=0, class_balanced=True, validation=1, test_fraction=0.2).resolve(data)
    assert {6, 7, 8} <= set(at.train) and not {6, 7, 8} & (set(at.labeled) | set(at.test) | set(at.validation))


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("held", [dict(test_fraction=0.5), dict(validation=4), dict(test_fraction=0.3, validation=2)])
def test_the_last_label_of_a_class_is_kept_to_learn_from(seed, held):
    labels = [0, 1, 2, 2, 2, 2, 2, 2, 0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        split = make_split(source(labels), seed=seed, **held)
        shows = np.array([[1, 0, 1], [0, 1, 1], *[[0, 0, 1]] * 6, [1, 0, 0]], np.int8)
        several = make_split(source(shows), seed=seed, **held).resolve(source(shows))
    assert {*split.labeled.values()} == {*NAMES} and 4 <= len(split.test) + len(split.validation) <= 5
    assert shows[several.labeled].any(0).all() and len(several.test) + len(several.validation) >= 4


def test_fewer_are_held_out_where_classes_have_a_label_each():
    with pytest.warns(UserWarning, match="kept to learn from: 1 images are held out for test, where 2 were asked for"):
        split = make_split(source([0, 0, 1, 2]), test_fraction=0.5)
    assert len(split.test) == 1 and {*split.labeled.values()} == {*NAMES}
    with pytest.warns(UserWarning, match="last label of a class is kept .*: 0 images are held out for validation"):
        assert not make_split(source(np.eye(3, dtype=np.int8)), validation=1).validation


def test_advice_for_classes_without_a_label_is_one_that_helps():
    with pytest.warns(UserWarning, match="cannot be learned: ant, cat. Give more labels, or draw with --class-b"):
        make_split(source([0, 1, 2]), 1)
    with pytest.warns(UserWarning, match="cannot be learned: ant, cat. Label some images of them"):
        manifest(source([0, 1, 2]), {"im1": "bee"})  # labels from elsewhere: no flag draws others
    with pytest.warns(UserWarning, match="cannot be learned: ant, cat. Label some images of them"):
        manifest(source([0, 1, -1]), {"im1": "bee"}, test=["im0"])


def test_advice_for_a_budget_of_several_classes():
    shows = np.array([[1, 0, 0], [1, 0, 0], [1, 1, 0]], np.int8)
    images = source(shows)
    table = Split("made", NAMES, {"im0": "ant", "im1": "ant", "im2": "ant;bee"}, fingerprint="f" * 64)
    with pytest.warns(UserWarning, match="2 of 3 classes .* learned: bee, cat. Give more labels.$"):
        assert "im2" not in drawn_from(table, images, 1, several=True, seed=1).labeled
    with pytest.warns(UserWarning, match="1 of 3 classes .* learned: cat. Label some images of them.$"):
        drawn_from(table, images, several=True)


def test_a_class_without_a_label_is_no_budget_of_0():
    with pytest.raises(UserError, match="cat has 0.*take 1 of each. Label some images of each class, or leave out"):
        make_split(source([0, 1, 0, 1]), 3, class_balanced=True)


def test_no_budget_means_every_label():
    data = source([0, -1, 2, 1, -1])
    assert make_split(data, seed=0).labeled == {"im0": "ant", "im2": "cat", "im3": "bee"}


def test_classes_without_a_label_are_named():
    with pytest.warns(UserWarning, match="2 of 3 classes have no labeled image and cannot be learned: ant, cat"):
        manifest(source([0, 1, 2]), {"im1": "bee"})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make_split(source([0, 1, 2]), 3, class_balanced=True)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(num_labels=2, class_balanced=True), "2 labels cannot cover 3 classes.*--num-labels 3 or more"),
        (dict(num_labels=7), "6 images with a label are left.*budget is 7"),
        (dict(num_labels=7, test_fraction=0.34), r"4 images .*\(6 less 2 for test and 0 for validation\)"),
        (dict(num_labels=6, class_balanced=True), "cat has 1.*--num-labels 3 or fewer"),
        (dict(num_labels=0), "num_labels is 0. Give 1 or more"),
        (dict(num_labels=-4), "num_labels is -4. Give 1 or more"),
        (dict(num_labels=1, test_fraction=1.0), "test fraction of 1.0"),
        (dict(num_labels=1, validation=-1), "validation is -1. Give 0 or more"),
        (dict(num_labels=1, validation=9), "6 labeled images are left for validation, which asks for 9"),
    ],
)
def test_budgets_that_cannot_be_met(arguments, message):
    with pytest.raises(UserError, match=message):
        make_split(source([0, 0, 0, 1, 1, 2, -1, -1]), seed=0, **arguments)


def test_a_source_without_labels_cannot_be_split():
    with pytest.raises(UserError, match="There is no label.*--split"):
        make_split(source([-1, -1], []), 2)


def test_one_class_is_none_to_learn():
    for names in (["ant"], NAMES):
        with pytest.raises(UserError, match="All 3 labels of 'made' are of the one class 'ant'"):
            make_split(source([0, 0, -1, 0], names), 2)


def test_save_and_load_are_exact(tmp_path, digits):
    split = make_split(digits, 40, seed=0, class_balanced=True, validation=10, test_fraction=0.2)
    split.save(tmp_path / "new" / "split.json")
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["split.json"]
    again = Split.load(tmp_path / "new" / "split.json")
    assert again == split and again.hash == split.hash
    content = json.loads((tmp_path / "new" / "split.json").read_text())
    assert content["unlabeled"] == "rest" and content["fingerprint"] == digits.fingerprint and content["seed"] == 0
    assert content["dataset"] == "digits" and len(content["labeled"]) == 40


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch, digits):
    path = tmp_path / "split.json"
    make_split(digits, 10, seed=0, class_balanced=True).save(path)
    before = path.read_text()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        make_split(digits, 40, seed=1, class_balanced=True).save(path)
    assert path.read_text() == before and [p.name for p in tmp_path.iterdir()] == ["split.json"]


def test_the_hash_sees_every_field_but_not_the_order_of_labels():
    base = Split("d", NAMES, {"a": "ant", "b": "bee"})
    assert base.hash == Split("d", NAMES, {"b": "bee", "a": "ant"}).hash
    labeled = {"a": "ant", "b": "bee"}
    others = [
        Split("e", NAMES, labeled),
        Split("d", NAMES, {"a": "ant", "b": "cat"}),
        Split("d", NAMES[::-1], labeled),
        Split("d", NAMES, labeled, seed=1),
        Split("d", NAMES, labeled, test=["c"]),
    ]
    assert len({base.hash, *(other.hash for other in others)}) == 6


def test_other_data_is_refused_with_the_fix():
    split = make_split(source([0, 1, 2]), 3)
    with pytest.raises(UserError, match="differs from the 'made' the split was made for.*--dataset-revision"):
        split.resolve(source([0, 1, 2], fingerprint="e" * 64))


def test_a_class_the_data_lacks():
    split = Split("list", ["ant", "bee", "kat"], {"im0": "ant"})
    with pytest.raises(UserError, match=r"class in the split \(the data 'made' lacks it\) 'kat': did you mean 'cat'"):
        split.resolve(source([0, 1, 2]))
    with pytest.raises(UserError, match="lacks it; 2 labels are of it, such as that of im1"):
        Split("list", ["ant", "kat"], {"im0": "ant", "im1": "kat", "im2": "kat"}).resolve(source([0, 1, 2]))


def test_labels_outside_the_class_names():
    with pytest.raises(UserError, match="class of image 'im0' in the split 'dog'"):
        Split("list", NAMES, {"im0": "dog"})


def test_images_that_had_a_folder_before_them():
    """Those of images/train/, in splits of version 0.1.0."""
    split = Split("list", NAMES, {"images/train/im0": NAMES[0]}, test=["images/val/im9"])
    with pytest.raises(UserError, match="there without images/train/ before them: .* make the split again"):
        split.resolve(source([0, 1, 2]))


def test_images_the_data_lacks():
    with pytest.raises(UserError, match="2 images of the split are not in 'made', such as 'x'"):
        Split("list", NAMES, {"im0": "ant", "x": "bee"}, test=["y"]).resolve(source([0, 1, 2]))


@pytest.mark.parametrize("parts", [dict(test=["im0"]), dict(validation=["im0"]), dict(test=["im1", "im1"])])
def test_an_image_in_two_parts(parts):
    with pytest.raises(UserError, match="List each image once"):
        Split("list", NAMES, {"im0": "ant"}, **parts)


@pytest.mark.parametrize(
    "text, message",
    [
        ("{", "not JSON"),
        ("[]", "holds a list"),
        ('{"dataset": "d", "class_names": ["a"], "labelled": {}}', "unknown key .*'labelled': did you mean 'labeled'"),
        ('{"dataset": "d", "class_names": ["a"]}', "'labeled' is missing in .*s.json"),
        ('{"dataset": "d", "class_names": ["a"], "labeled": ["x"]}', r"'labeled' in .* is \['x'\]"),
        ('{"dataset": "d", "class_names": ["a"], "labeled": {}, "unlabeled": "x"}', "only 'rest'"),
    ],
)
def test_a_damaged_manifest(tmp_path, text, message):
    (tmp_path / "s.json").write_text(text)
    with pytest.raises(UserError, match=message):
        Split.load(tmp_path / "s.json")
    with pytest.raises(UserError, match="There is no .*t.json"):
        Split.load(tmp_path / "t.json")


def test_a_published_list_and_a_source_without_labels():
    raw = source([-1, -1, -1, -1], [])
    split = manifest(raw, {"im3": "bee", "im1": "ant"}, test=["im0"])
    at = split.resolve(raw)
    assert split.class_names == ["ant", "bee"] and at.labeled.tolist() == [1, 3] and at.labels.tolist() == [0, 1]
    assert at.train.tolist() == [1, 2, 3] and at.test.tolist() == [0]
    assert split.targets(raw).tolist() == [-1, 0, -1, 1]


def test_targets_follow_the_splits_class_order():
    data = source([0, 1, 2, -1])
    split = Split("list", ["cat", "bee", "ant"], {"im0": "ant", "im3": "bee"})
    assert split.targets(data).tolist() == [2, 1, 0, 1]
    assert split.resolve(data).labels.tolist() == [2, 1]


def pages(files=24, each=5, masks=False):
    """A file in three of one class, each with so many pages."""
    found = source([k for i in range(files) for k in [i % 3] * each])
    ids = [f"{i}.tif#{k + 1}" for i in range(files) for k in range(each)]
    if masks:
        found = replace(found, labels=np.stack([found.labels == k for k in range(3)], 1).astype(np.int8))
    return replace(found, ids=ids, file_of={id: id.split("#")[0] for id in ids})


def test_ids_that_look_like_pages_are_drawn_one_by_one():
    images = replace(pages(8, 10), file_of={})
    split = make_split(images, 20, validation=7, test_fraction=0.2)
    assert (len(split.labeled), len(split.validation), len(split.test)) == (20, 7, 16)


@pytest.mark.parametrize("masks", [False, True])
def test_a_page_that_is_chosen_takes_its_file_alone_out_of_what_is_held_out(masks):
    images, how = pages(masks=masks), dict(validation=15, test_fraction=0.25)
    drawn = make_split(images, 20, **how)
    chosen = [drawn.test[0], drawn.validation[0]]
    files = {id.split("#")[0] for id in chosen}
    split = make_split(images, labeled=chosen, **how)
    assert {id for id in drawn.test if id.split("#")[0] not in files} < {*split.test}  # which stay, and others come
    assert len(split.test) == len(drawn.test) and len(split.validation) == len(drawn.validation)
    assert not files & {id.split("#")[0] for id in (*split.test, *split.validation)}


@pytest.mark.parametrize("kind", ["classes", "several", "masks"])
def test_as_many_images_are_held_out_however_many_are_chosen(kind):
    """Of 60 with a label a quarter, as long as so many are left; those of the seed stay where they can."""
    images = source([i % 3 for i in range(60)])
    if kind == "several":
        images = replace(images, labels=np.stack([images.labels == k for k in range(3)], 1).astype(np.int8))
    if kind == "masks":
        images = replace(images, masks=Masks(images.reader), labels=np.zeros(60, np.int64))
    before = make_split(images, test_fraction=0.25)
    for number in (5, 20, 45):
        chosen = images.ids[:number]
        split = make_split(images, labeled=chosen, test_fraction=0.25)
        assert [*split.labeled] == chosen and len(split.test) == 15 and not {*chosen} & {*split.test}
        assert {*before.test} - {*chosen} <= {*split.test} or number == 45
    with pytest.warns(UserWarning, match="other images are labeled: 10 images are held out for test, where 15"):
        assert len(make_split(images, labeled=images.ids[:50], test_fraction=0.25).test) == 10


def test_pages_of_joined_data_are_those_of_their_files():
    both = join(pages(24, 5), pages(2, 5))
    split = make_split(both, 40, validation=15, test_fraction=0.25)
    of = [{id.split("#")[0] for id in part} for part in (split.labeled, split.validation, split.test)]
    assert not of[0] & of[1] and not of[0] & of[2] and not of[1] & of[2]


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_pages_of_a_file_are_held_out_together(several, seed):
    images = pages(masks=several)
    split = make_split(images, 40, seed=seed, validation=15, test_fraction=0.25)
    of = [{id.split("#")[0] for id in part} for part in (split.labeled, split.validation, split.test)]
    assert not of[0] & of[1] and not of[0] & of[2] and not of[1] & of[2]
    assert (len(split.labeled), len(split.validation), len(split.test)) == (40, 15, 30)
    if not several:  # by class, as ever
        assert Counter(images.labels[images.ids.index(id)] for id in split.test) == {0: 10, 1: 10, 2: 10}


@pytest.mark.parametrize("several", [False, True])
def test_the_only_page_of_a_class_is_not_held_out_with_its_file(several):
    """A class may be on a later page alone, which the page that is drawn for its file does not say."""
    images, told = pages(8, 4), []
    labels = np.repeat([0, 1] * 4, 4)
    labels[3], labels[7] = 2, 0
    images = replace(images, labels=np.eye(3, dtype=np.int8)[labels] if several else labels)
    for seed in range(12):
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            split = make_split(images, seed=seed, test_fraction=0.4)
        assert images.ids[3] in split.labeled and len(split.test) in (8, 12)
        told += [str(w.message) for w in said if len(split.test) == 8]
    assert told and all("and the last label of a class is kept to learn from: 8 images for test" in t for t in told)


def test_what_pages_leave_to_hold_out():
    with pytest.warns(UserWarning, match="15 images for validation, all of 3 of 24 files, where 13 were asked for"):
        make_split(pages(), 40, validation=13)
    one_stack = replace(pages(1, 20, masks=True))
    with pytest.raises(UserError, match="are the pages of one file.*Add files, or hold out fewer"):
        make_split(one_stack, 4, test_fraction=0.2)
    assert len(make_split(one_stack, 4).labeled) == 4
