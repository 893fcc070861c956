"""Labels of a table: those of its test images go with the manifest, and are never trained on."""

import hashlib
import json

import numpy as np
import pytest
from PIL import Image

from hf_lowlabel import Split, UserError, auto, evaluate, finetune, load_source
from hf_lowlabel.cli import main
from hf_lowlabel.hub.splits import rows as published
from hf_lowlabel.labeling.importing import import_labels
from hf_lowlabel.labeling.labels import Asked
from hf_lowlabel.models import create_backbone
from hf_lowlabel.tasks import get_task
from hf_lowlabel.training.lineage import taught_by

TINY = dict(model="cnn6_16", from_scratch=True, image_size=16, stored_size=16, method="probe")
NAMES = ("blue", "red")


def photos(folder, count=24):
    """Images without labels, every second of them red."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for i in range(count):
        pixels = rng.integers(60, 120, (16, 16, 3), dtype=np.uint8)
        pixels[..., 2 * (1 - i % 2)] = 250 - i
        Image.fromarray(pixels[..., ::-1] if i % 2 else pixels).save(folder / f"{i:02}.png")
    return folder


def table(path, label=lambda i: NAMES[i % 2], count=24):
    path.write_text("file_name,label\n" + "".join(f"{i:02}.png,{label(i)}\n" for i in range(count)))
    return path


def tags(i):
    return "none" if i == 0 else ";".join(name for k, name in enumerate((*NAMES, "big")) if (i + 1) >> k & 1) or "none"


def given(tmp_path, task="classification", label=lambda i: NAMES[i % 2], folder="photos", *more):
    """(the photos, the manifest that `split --from` a table makes, the file)."""
    data, out = photos(tmp_path / folder), tmp_path / "split.json"
    argv = ["split", "--task", task, "--dataset", str(data), "--from", str(table(tmp_path / "truth.csv", label))]
    drawn = ["--num-labels", "10", "--test-fraction", "0.25", "--validation", "4", "--output", str(out)]
    assert main([*argv, *drawn, *more]) == 0
    return data, Split.load(out), out


@pytest.mark.parametrize("task, label", [("classification", lambda i: NAMES[i % 2]), ("multilabel", tags)])
def test_a_table_is_drawn_from_and_trained_with(tmp_path, task, label):
    data, split, path = given(tmp_path, task, label)
    assert len(split.labeled) == 10 and len(split.test) == 6 and len(split.validation) == 4
    assert {id: label(int(id[:2])) for id in split.held_labels} == split.held_labels
    assert {*split.held_labels} == {*split.test, *split.validation}
    run = finetune(data, split=path, task=task, output_dir=tmp_path / "run", **TINY)
    assert run.metrics["images"] == 6
    assert Split.load(tmp_path / "run" / "split.json") == split
    again = evaluate(tmp_path / "run", data)
    score = get_task(task).score.key
    assert again[score] == run.metrics[score] == evaluate(tmp_path / "run", data, split=str(path))[score]


def test_no_label_of_a_held_out_image_is_learned(tmp_path):
    data, split, path = given(tmp_path)
    assert {*taught_by(split).values()} == {*NAMES} and len(taught_by(split)) == 10
    other = json.loads(path.read_text())
    other["held_labels"] = {id: NAMES[name == NAMES[0]] for id, name in other["held_labels"].items()}
    (tmp_path / "turned.json").write_text(json.dumps(other))
    one, two = (
        finetune(data, split=tmp_path / name, output_dir=tmp_path / f"run-{name}", **TINY)
        for name in ("split.json", "turned.json")
    )
    for a, b in zip(one.model.state_dict().values(), two.model.state_dict().values(), strict=True):
        assert (a == b).all()
    assert one.metrics["accuracy"] == 1 - two.metrics["accuracy"]


def test_manifests_without_such_labels_are_as_they_were(tmp_path):
    old = Split("photos", ["a"], {"1": "a"}, test=["2"])
    fields = dict(config=None, revision=None, fingerprint=None, seed=None, validation=[], unlabeled="rest")
    fields |= dict(dataset="photos", class_names=["a"], labeled={"1": "a"}, test=["2"])
    assert json.loads(old.text()) == fields and Split.from_dict(fields) == old
    assert old.hash == hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()
    with pytest.raises(UserError, match="held label of '3', which is not in validation or test"):
        Split("photos", ["a"], {"1": "a"}, test=["2"], held_labels={"3": "a"})
    with pytest.raises(UserError, match="class of image '2' in the split 'b'"):
        Split("photos", ["a"], {"1": "a"}, test=["2"], held_labels={"2": "b"})
    data = photos(tmp_path / "photos")
    Split("photos", [*NAMES], {"00.png": "blue", "01.png": "red"}, test=["02.png"]).save(tmp_path / "old.json")
    with pytest.raises(UserError, match="1 of the 1 images that .*old.json holds out have no label .*`hf-lowlabel sp"):
        finetune(data, split=tmp_path / "old.json", output_dir=tmp_path / "run", **TINY)


def test_folders_that_are_no_classes_keep_out_of_the_scores(tmp_path):
    data, split, path = given(tmp_path, "classification", lambda i: NAMES[i % 2], "photos/monday", "--allow-missing")
    source = load_source(data.parent)  # all of them lie in monday/
    assert source.class_names == ["monday"]
    table(tmp_path / "truth.csv", lambda i: NAMES[i % 2])
    argv = ["split", "--dataset", str(data.parent), "--from", str(tmp_path / "truth.csv"), "--new-classes"]
    assert main([*argv, "--test-fraction", "0.25", "--output", str(tmp_path / "new.json")]) == 0
    run = finetune(data.parent, split=tmp_path / "new.json", output_dir=tmp_path / "run", **TINY)
    assert run.metrics["images"] == 6 and run.metrics["class_names"] == [*NAMES]


def test_the_next_round_and_the_hub_keep_them(tmp_path):
    data, split, path = given(tmp_path)
    lines = published(split)["test.jsonl"].decode().splitlines()
    assert [json.loads(line) for line in lines] == [{"id": id, "label": split.held_labels[id]} for id in split.test]
    files = {"a.png": next(id for id in load_source(data).ids if id not in {*split.labeled, *split.held_labels})}
    (tmp_path / "next").mkdir()
    more = dict(validation=split.validation, test=split.test, held_labels=split.held_labels, labeled=split.labeled)
    Asked("photos", split.fingerprint, files, class_names=[*NAMES], **more).save(tmp_path / "next")
    (tmp_path / "next" / "labels.csv").write_text("file_name,label\na.png,red\n")
    further = import_labels(tmp_path / "next", source=load_source(data))[0]
    assert further.held_labels == split.held_labels and len(further.labeled) == 11
    (tmp_path / "more.csv").write_text(f"file_name,label\n{files['a.png']},red\n")
    assert import_labels(tmp_path / "more.csv", source=load_source(data), base=split)[0] == further


def test_auto_draws_from_a_table(tmp_path):
    data = photos(tmp_path / "photos")
    truth, more = table(tmp_path / "truth.csv"), dict(train=False, to_label=2, image_size=16)
    create_backbone("test_resnet", pretrained=False, image_size=32).save_pretrained(tmp_path / "net")
    best = auto(
        data,
        tmp_path / "net",
        labels=truth,
        num_labels=12,
        test_fraction=0.25,
        output_dir=tmp_path / "best",
        **more,
    )
    assert best.run.metrics["images"] == 6 and len(Split.load(tmp_path / "best" / "split.json").labeled) == 12
    assert Asked.load(best.to_label).held_labels == Split.load(tmp_path / "best" / "split.json").held_labels


PARTS = ["train"] * 12 + ["", "NaN", "training", "Train"] + ["test", "TEST", "testing"] + ["val", "dev", "validation"]


@pytest.mark.parametrize("column", ["split", "Set", "partition"])
@pytest.mark.parametrize("task", ["classification", "multilabel"])
def test_a_column_of_splits_is_heeded(tmp_path, column, task, capsys):
    data, path = photos(tmp_path / "photos"), tmp_path / "truth.csv"
    lines = [f"{i:02}.png,{NAMES[i % 2]},{part}\n" for i, part in enumerate(PARTS)]
    path.write_text(f"file_name,label,{column}\n" + "".join(lines) + "22.png,,test\n23.png,red,unlabeled\n")
    argv = ["split", "--task", task, "--dataset", str(data), "--from", str(path)]
    assert main([*argv, "--output", str(tmp_path / "split.json")]) == 0
    said, split = capsys.readouterr().err, Split.load(tmp_path / "split.json")
    assert "16 of split 'train' and 3 of split 'validation' and 3 of split 'test'" in said
    assert "1 images of split 'validation' or 'test' have no label, such as 22.png" in said
    assert "1 labels of split 'unlabeled' are not used, such as that of 23.png" in said
    assert [*split.labeled] == [f"{i:02}.png" for i in range(16)]
    assert split.test == ["16.png", "17.png", "18.png"] and split.validation == ["19.png", "20.png", "21.png"]
    assert split.held_labels == {f"{i:02}.png": NAMES[i % 2] for i in range(16, 22)}
    assert main([*argv, "--test-fraction", "0.2", "--output", str(tmp_path / "b.json")]) == 2
    assert "3 test and 3 validation images are held out already" in capsys.readouterr().err
    assert main([*argv, "--num-labels", "6", "--output", str(tmp_path / "c.json")]) == 0
    few = Split.load(tmp_path / "c.json")
    assert len(few.labeled) == 6 and (few.test, few.held_labels) == (split.test, split.held_labels)
    assert {*few.labeled} < {*split.labeled}


def test_a_column_of_splits_that_cannot_be_heeded(tmp_path):
    data, path = photos(tmp_path / "photos"), tmp_path / "truth.csv"
    source = load_source(data)
    path.write_text("file_name,label,split\n00.png,blue,test\n01.png,red,test\n")
    with pytest.raises(UserError, match="truth.csv has labels of 2 of split 'test', and none to train with"):
        import_labels(path, source=source)
    path.write_text("file_name,label,split\n00.png,blue,train\n00.png,blue,test\n01.png,red,train\n")
    with pytest.raises(UserError, match="row 3: '00.png' is of split 'test' here, and of 'train' above"):
        import_labels(path, source=source)
    path.write_text("file_name,label,split\n00.png,blue,train\n01.png,red,reserve\n")
    with pytest.warns(UserWarning, match="'split' is not read as the split of an image, since it says reserve too"):
        assert not import_labels(path, source=source)[0].test
    path.write_text("file_name,label,split\n00.png,blue,left\n01.png,red,right\n")
    assert len(import_labels(path, source=source)[0].labeled) == 2


def test_columns_of_classes_beside_a_column_of_splits(tmp_path):
    data, path = photos(tmp_path / "photos"), tmp_path / "truth.csv"
    path.write_text("file_name,cat,dog,split\n00.png,1,0,train\n01.png,0,1,train\n02.png,1,0,test\n")
    split = import_labels(path, source=load_source(data))[0]
    assert split.test == ["02.png"] and split.held_labels == {"02.png": "cat"} and split.class_names == ["cat", "dog"]
