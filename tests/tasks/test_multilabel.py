"""Multi-label classification: how labels are read, runs of a few steps, and what comes of a run."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import pytest
from huggingface_hub import ModelCard
from PIL import Image

from hf_lowlabel import Split, cli, evaluate, finetune, predict
from hf_lowlabel.arguments import DataArguments
from hf_lowlabel.data.labels.labels import LabelRules
from hf_lowlabel.data.opening import load_source, open_dataset
from hf_lowlabel.data.sources.several_targets import MultiLabelTargets, scenes
from hf_lowlabel.data.splits.drawing import make_split
from hf_lowlabel.errors import MissingSplit, UserError
from hf_lowlabel.evaluation.multilabel import multilabel_scores
from hf_lowlabel.hub.app import export_space
from hf_lowlabel.hub.report import report
from hf_lowlabel.labeling.importing import import_labels
from hf_lowlabel.tasks import get_task, of_model, with_threshold
from tests import strangers

COLORS = {"blue": (30, 60, 230), "green": (40, 200, 60), "red": (220, 40, 40)}
TINY = dict(
    task="multilabel",
    model="cnn6_16",
    from_scratch=True,
    image_size=16,
    stored_size=16,
    num_labels=12,
    batch_size=6,
    unlabeled_ratio=2,
    max_steps=4,
    logging_steps=2,
    save_steps=2,
    eval_steps=2,
)


def picture(names, rng) -> Image.Image:
    """16 px of noise with a patch of every colour that is named."""
    pixels = rng.integers(100, 150, (16, 16, 3), dtype=np.uint8)
    for k, (name, color) in enumerate(COLORS.items()):
        if name in names:
            pixels[5 * k : 5 * k + 5, 3:12] = color
    return Image.fromarray(pixels)


def drawn(count: int, seed: int) -> list[list[str]]:
    rng = np.random.default_rng(seed)
    return [[name for name in COLORS if rng.random() < 0.5] for _ in range(count)]


def make_folder(root: Path, count: int, seed: int, labeled: int) -> None:
    rng = np.random.default_rng(seed)
    root.mkdir(parents=True)
    with open(root / "metadata.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["file_name", "labels"])
        for i, names in enumerate(drawn(count, seed)):
            picture(names, rng).save(root / f"{i:02d}.png")
            if i < labeled:
                rows.writerow([f"{i:02d}.png", ";".join(names) or "none"])


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """Train: 36 images, 24 of them labeled; test: 16."""
    root = tmp_path_factory.mktemp("several") / "photos"
    make_folder(root / "train", 36, 0, 24)
    make_folder(root / "test", 16, 1, 16)
    return root


@pytest.fixture(scope="session")
def run(photos, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "model"
    return finetune(photos, method="fixmatch", output_dir=folder, **dict(TINY, max_steps=30, eval_steps=10))


def read(data, split="train", **more):
    return open_dataset(data, MultiLabelTargets(**more), split=split)


def images(count: int = 4) -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [picture([], rng) for _ in range(count)]


LISTS = [["cat", "dog"], [], None, ["dog"]]
EXPECTED = [[1, 1], [0, 0], [-1, -1], [0, 1]]


# ---- labels ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["Dataset", "DataFrame", "pairs", "parquet", "a;b", "a|b"])
def test_lists_and_texts(tmp_path, kind):
    texts = ["cat;dog", "none", "", " dog "]
    table = datasets.Dataset.from_dict({"image": images(), "labels": LISTS}).cast_column("image", datasets.Image())
    if kind == "DataFrame":
        table = pd.DataFrame({"image": images(), "labels": LISTS})
    elif kind == "pairs":
        for i, image in enumerate(images()):
            image.save(tmp_path / f"{i}.png")
        table = [(tmp_path / f"{i}.png", labels) for i, labels in enumerate(LISTS)]
    elif kind == "parquet":
        table.to_parquet(tmp_path / "t.parquet")
        table = tmp_path / "t.parquet"
    elif kind in ("a;b", "a|b"):
        texts = [text.replace(";", kind[1]) for text in texts]
        table = datasets.Dataset.from_dict({"image": images(), "labels": texts}).cast_column("image", datasets.Image())
    found = read(table)
    assert found.class_names == ["cat", "dog"] and found.labels.tolist() == EXPECTED
    assert found.has_target.tolist() == [True, True, False, True] and found.target(0).tolist() == [1, 1]
    assert found.target(2) is None and read(table).fingerprint == found.fingerprint


def test_metadata_of_a_folder(tmp_path):
    for i, image in enumerate(images(5)):
        image.save(tmp_path / f"{i}.png")
    rows = ["file_name,labels", "0.png,cat|dog", "1.png,none", "2.png,", "3.png,dog"]
    (tmp_path / "metadata.csv").write_text("\n".join(rows))
    found = read(tmp_path)
    assert found.class_names == ["cat", "dog"] and found.labels.tolist() == [*EXPECTED, [-1, -1]]
    before = found.fingerprint
    (tmp_path / "metadata.csv").write_text("\n".join(rows).replace("3.png,dog", "3.png,cat"))
    assert read(tmp_path).fingerprint != before
    (tmp_path / "metadata.csv").write_text("\n".join([*rows, "3.png,cat"]))
    assert read(tmp_path).labels.tolist() == [*EXPECTED[:3], [1, 1], [-1, -1]]
    (tmp_path / "metadata.csv").write_text("\n".join([*rows, "1.png,cat"]))
    with pytest.raises(UserError, match="names '1.png' twice, and the rows contradict each other. Keep one of them"):
        read(tmp_path)
    (tmp_path / "metadata.csv").write_text(
        "file_name,cat,dog,place\n0.png,1,1,sea\n1.png,0,0,sea\n2.png,,,\n3.png,0,1,\n"
    )
    assert read(tmp_path).labels.tolist() == [*EXPECTED, [-1, -1]] and read(tmp_path).class_names == ["cat", "dog"]
    (tmp_path / "metadata.csv").unlink()
    lines = [json.dumps({"file_name": f"{i}.png", "labels": labels}) for i, labels in enumerate(LISTS)]
    (tmp_path / "metadata.jsonl").write_text("\n".join(lines))
    assert read(tmp_path).labels.tolist() == [*EXPECTED, [-1, -1]]
    (tmp_path / "metadata.jsonl").unlink()
    assert not read(tmp_path).has_target.any()
    with pytest.raises(UserError, match="no label in"):
        make_split(read(tmp_path), 2)


@pytest.mark.parametrize("kind", [int, float, bool])
def test_columns_of_0_and_1(kind):
    columns = {"cat": [1, 0, None, 0], "dog": [1, 0, None, 1]}
    columns = {name: [None if v is None else kind(v) for v in values] for name, values in columns.items()}
    frame = pd.DataFrame({"image": images(), "year": [2001, 2002, 2003, 2004], **columns})
    assert read(frame).class_names == ["cat", "dog"] and read(frame).labels.tolist() == EXPECTED
    frame.loc[1, "dog"] = None
    words = "1 of 3 labels in 'memory' say yes or no of some classes alone, such as that of image '1'"
    with pytest.raises(UserError, match=f"{words}. Fill in all, or none, or give --skip-missing to leave"):
        read(frame)
    rules = LabelRules(skip_missing=True, several=True)
    with pytest.warns(UserWarning, match=f"{words}: these images count as without a label"):
        assert read(frame, rules=rules).labels.tolist() == [EXPECTED[0], [-1, -1], *EXPECTED[2:]]


@pytest.mark.parametrize("kind", ["columns", "lists"])
def test_a_table_of_labels_that_answers_some_classes_alone(tmp_path, kind):
    """The usual kind of missing answer, in a file for `split --from` too."""
    for i in range(4):
        Image.new("RGB", (8, 8), (60 * i, 0, 0)).save(tmp_path / f"{i}.png")
    marks, table = [(1, 0, 1), (0, -1, 1), (1, 1, 0), (-1, 1, 1)], tmp_path / "labels" / "mine.csv"
    rows = [
        f"{i}.png,{a},{b},{c}" if kind == "columns" else f'{i}.png,"[{a}, {b}, {c}]"'
        for i, (a, b, c) in enumerate(marks)
    ]
    table.parent.mkdir()
    table.write_text("\n".join(["file,cat,dog,cow" if kind == "columns" else "file,label", *rows]))
    how = dict(source=load_source(tmp_path), several=True, new_classes=True, allow_missing=True)
    words = "2 of 4 labels in 'mine.csv' say .* of some classes alone, such as those of row 3, row 5"
    with pytest.raises(UserError, match=words):
        import_labels(table, rules=LabelRules(several=True), **how)
    with pytest.warns(UserWarning, match=f"{words}: these images count as without a label"):
        split, _ = import_labels(table, rules=LabelRules(several=True, skip_missing=True), **how)
    assert [*split.labeled] == ["0.png", "2.png"]


def test_declared_classes_stay_where_they_are():
    names = ["zebra", "cat", "dog"]
    features = datasets.Features(
        {"image": datasets.Image(), "labels": datasets.Sequence(datasets.ClassLabel(names=names))}
    )
    found = read(datasets.Dataset.from_dict({"image": images(), "labels": [[1, 2], [], None, [2]]}, features=features))
    assert found.class_names == names and found.labels[:, 1:].tolist() == EXPECTED
    assert found.labels[:, 0].tolist() == [0, 0, -1, 0]


def test_what_is_no_label():
    with pytest.raises(UserError, match="The label 3 of image '0' is neither a list nor text. Write it as a;b."):
        read(pd.DataFrame({"image": images(1), "label": [3]}))
    with pytest.raises(UserError, match="label column in memory 'tag'"):
        read(pd.DataFrame({"image": images(1), "tags": ["a"]}), label_column="tag")
    assert read(pd.DataFrame({"image": images(2), "tags": ["a", "-1"]}), label_column="tags").labels.tolist() == [
        [1],
        [-1],
    ]
    numbers = read(pd.DataFrame({"image": images(2), "labels": [[10, 9], []]}))
    assert numbers.class_names == ["9", "10"] and numbers.labels.tolist() == [[1, 1], [0, 0]]


def test_the_embedded_set():
    found, test = scenes(), scenes("test")
    assert (len(found), len(test)) == (800, 200) and found.class_names == ["disc", "square", "triangle", "cross"]
    assert found.has_target.all() and 0.3 < found.labels.mean() < 0.7 and (found.labels.sum(1) > 0).all()
    assert found.image(3).size == (64, 64) and not set(found.ids) & set(test.ids)
    assert read("scenes").fingerprint == found.fingerprint != test.fingerprint
    with pytest.raises(MissingSplit):
        scenes("tset")


# ---- splits ---------------------------------------------------------------------------------------------------------
def test_a_split_has_the_labels_in_the_data(photos, tmp_path):
    data = read(photos)
    split = make_split(data, 6, validation=3, test_fraction=0.25)
    assert set(split.labeled.values()) == {None} and split.class_names == sorted(COLORS)
    assert len(split.test) == 6 and len(split.validation) == 3
    at = split.resolve(data)
    assert data.has_target[at.labeled].all() and (at.labels == -1).all()
    assert np.array_equal(split.targets(data), data.labels)
    with pytest.raises(UserError, match="class_balanced is for images of one class each"):
        make_split(data, 6, class_balanced=True)


def test_a_manifest_may_order_the_classes_otherwise(photos, tmp_path):
    data, names = read(photos), ["red", "blue", "green"]
    given = Split("photos", names, dict.fromkeys(make_split(data, 8).labeled), fingerprint=data.fingerprint)
    given.save(tmp_path / "split.json")
    settings = {k: v for k, v in TINY.items() if k != "num_labels"}
    done = finetune(photos, method="supervised", split=tmp_path / "split.json", output_dir=tmp_path / "r", **settings)
    at = given.resolve(data).labeled
    shown = {name: int(data.labels[at, data.class_names.index(name)].sum()) for name in names}
    assert done.recorder.record.labels.per_class == shown and list(shown) == names
    assert done.model.config.id2label == dict(enumerate(names))


# ---- runs -----------------------------------------------------------------------------------------------------------
DRAWN = ("supervised", "probe")  # one that trains, one that does not


@pytest.mark.parametrize(
    "method", [*(pytest.param(m, marks=pytest.mark.pictures) for m in DRAWN), "mean-teacher", "fixmatch"]
)
def test_methods(photos, tmp_path, method):
    trains = dict(batch_size=None, unlabeled_ratio=None, max_steps=None) if method == "probe" else {}
    done = finetune(photos, method=method, output_dir=tmp_path / "run", validation=4, **{**TINY, **trains})
    assert {"map", "f1_macro", "f1_micro", "exact_match", "validation_map"} <= set(done.metrics)
    assert done.metrics["images"] == 16 and done.metrics["class_names"] == sorted(COLORS)
    record = json.loads((done.folder / "run.json").read_text())
    assert (record["kind"], record["method"]) == ("multilabel", method)
    assert json.loads((done.folder / "config.json").read_text())["problem_type"] == "multi_label_classification"
    if method == "probe":
        assert done.metrics["map"] > 0.5  # colours are seen by random features too
    else:
        assert done.history[-1]["validation_map"] == pytest.approx(done.metrics["validation_map"])
    assert method not in DRAWN or (done.folder / "predictions.png").is_file()
    found = evaluate(done.folder, photos)
    assert found == {k: v for k, v in done.metrics.items() if k in found} and "map" in found


def test_methods_that_it_has_and_has_not(photos, tmp_path):
    assert get_task("multilabel").methods("finetune") == ["supervised", "probe", "fixmatch", "mean-teacher"]
    with pytest.raises(
        UserError, match="classmix is a method for segmentation.*supervised, probe, fixmatch, mean-teacher"
    ):
        finetune(photos, method="classmix", output_dir=tmp_path, **TINY)
    with pytest.raises(UserError, match="class_balanced is a setting of --task classification"):
        finetune(photos, class_balanced=True, output_dir=tmp_path, **TINY)
    with pytest.raises(UserError, match="tau is 0.1 and tau_absent 0.5"):
        finetune(photos, method_args=dict(tau=0.1, tau_absent=0.5), output_dir=tmp_path, **TINY)
    assert not list(tmp_path.iterdir())


def test_it_learns(run):
    rows = [row for row in run.history if "loss" in row]
    assert run.metrics["map"] > 0.6 and rows[-1]["loss"] < rows[0]["loss"] and 0 < rows[-1]["mask_ratio"] <= 1
    assert not any("sel" in row for row in run.history)


# ---- use ------------------------------------------------------------------------------------------------------------
def test_predict(run, photos, tmp_path):
    found = predict(photos / "test", run.folder, output=tmp_path / "p.csv")
    row = found.rows[0]
    assert list(row) == ["file", "classes", "confidence_blue", "confidence_green", "confidence_red"]
    for row in found.rows:
        named = [name for name in COLORS if row[f"confidence_{name}"] > 0.5]
        assert row["classes"] == (";".join(named) or "none")
    written = pd.read_csv(tmp_path / "p.csv", keep_default_na=False)
    assert written["classes"].tolist() == found.to_pandas()["classes"].tolist() and len(written) == 16
    with pytest.raises(UserError, match="A window is for segmentation; this is a multi-label classifier"):
        predict(photos / "test", run.folder, window=8)
    with pytest.raises(UserError, match="This is a model for multilabel, not for classification"):
        predict(photos / "test", run.folder, task="classification")
    assert of_model(json.loads((run.folder / "config.json").read_text())).name == "multilabel"


def test_the_saved_model_needs_no_package_of_ours(photos, tmp_path):
    settings = dict(TINY, model="test_resnet", image_size=32, stored_size=32, max_steps=2)
    done = finetune(photos, method="supervised", output_dir=tmp_path / "run", **settings)
    file = str(photos / "test" / "00.png")
    code = (
        "import sys, json\nsys.modules['hf_lowlabel'] = None\n"
        "from transformers import pipeline\n"
        "classify = pipeline('image-classification', model=sys.argv[1])\n"
        "assert classify.model.config.problem_type == 'multi_label_classification'\n"
        "print('RESULT' + json.dumps(classify(sys.argv[2])))"
    )
    ran = strangers.ran(code, str(done.folder), file, env=dict(os.environ), cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    said = {row["label"]: row["score"] for row in json.loads(ran.stdout.split("RESULT")[1])}
    ours = predict(file, done.folder).rows[0]
    for name in COLORS:
        assert said[name] == pytest.approx(ours[f"confidence_{name}"], abs=1e-4)


def test_card(run):
    card = ModelCard.load(run.folder / "README.md")
    assert card.data.pipeline_tag == "image-classification" and "fixmatch" in card.data.tags
    (result,) = [r for r in card.data.eval_results if r.metric_type == "map"]
    assert result.metric_value == pytest.approx(run.metrics["map"], abs=1e-6)
    text = card.text
    for words in (
        "Names what is in images of *photos*, out of 3 classes, learned from **12 labeled images** among 36 with "
        "[fixmatch]",
        "| | Mean average precision | F1, mean of the classes | F1, all classes together | All classes of an image "
        "right |",
        "output.logits.sigmoid()",
        "A class is predicted above a probability of 50.0 %",
        "Only 16 test images",
        "Sohn et al., FixMatch",
    ):
        assert words in text, words
    assert "softmax" not in text and "Sorts images" not in text and str(Path.home()) not in text


def test_report(run, tmp_path):
    page = report([run.folder], tmp_path / "r.html").read_text()
    for words in (
        "multi-label classifier with fixmatch on photos, 12 labels",
        "Average precision of the classes, worst first",
    ):
        assert words in page
    assert "Mean average precision" in page and "t-SNE" not in page and "No list of the worst answers" not in page
    assert "No pictures of the data" not in page


def test_space(run, tmp_path):
    space = export_space(run.folder, tmp_path / "space")
    said = json.loads((space / "space.json").read_text())
    assert said["answer"] == "labels" and said["class_names"] == sorted(COLORS)
    assert len(list((space / "examples").iterdir())) == 8 and not (space / "labeled").exists()
    assert "out of 3 classes" in (space / "README.md").read_text()


def test_command_line(photos, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    data = ["--task", "multilabel", "--dataset", str(photos)]
    small = "--model cnn6_16 --from-scratch --image-size 16 --max-steps 2 --batch-size 4 --unlabeled-ratio 1".split()
    assert cli.main(["split", *data, "--num-labels", "8", "--output", "s.json"]) == 0
    assert "8 labeled, 0 validation, 0 test of 36 images in 3 classes (blue, green, red)" in capsys.readouterr().out
    assert cli.main(["finetune", *data, "--split", "s.json", "--output-dir", "run", *small]) == 0
    assert "map 0." in capsys.readouterr().out
    assert cli.main(["evaluate", "--model", "run", "--dataset", str(photos)]) == 0
    assert "map" in capsys.readouterr().out
    assert cli.main(["predict", str(photos / "test"), "--model", "run", "--output", "p.csv"]) == 0
    assert (tmp_path / "p.csv").read_text().startswith("file,classes,confidence_blue")
    scenes_run = ["--task", "multilabel", "--dataset", "scenes", "--num-labels", "8", "--dry-run", *small]
    assert cli.main(["finetune", *scenes_run]) == 0
    assert "task: multilabel" in capsys.readouterr().out


def test_a_second_source_without_labels(photos, tmp_path):
    make_folder(tmp_path / "more", 10, 5, 0)
    (tmp_path / "more" / "metadata.csv").unlink()
    done = finetune(photos, unlabeled_dataset=tmp_path / "more", output_dir=tmp_path / "run", **TINY)
    assert done.recorder.images == 46 and done.metrics["images"] == 16
    assert get_task("multilabel").open(DataArguments(dataset=str(tmp_path / "more"))).class_names == []


@pytest.mark.parametrize("part", ["test", "validation"])
def test_held_out_images_without_any_class_are_named_before_training(tmp_path, part):
    """Rare defects: a draw of a few images may show none."""
    rng, rows = np.random.default_rng(0), ["file_name,label"]
    (tmp_path / "d").mkdir()
    for i in range(20):
        picture([], rng).save(tmp_path / f"d/{i}.png")
        rows.append(f"{i}.png,{ {3: 'dent', 7: 'scratch'}.get(i, 'none') }")
    (tmp_path / "d/metadata.csv").write_text("\n".join(rows))
    labels = {f"{i}.png": {3: "dent", 7: "scratch"}.get(i, "none") for i in range(14)}
    split = Split("d", ["dent", "scratch"], labels, **{part: [f"{i}.png" for i in range(14, 20)]})
    split.save(tmp_path / "split.json")
    given = {k: v for k, v in TINY.items() if k != "num_labels"} | dict(split=str(tmp_path / "split.json"))
    with pytest.raises(UserError, match=f"None of the 6 {part} images has any of the classes dent, scratch,"):
        finetune(str(tmp_path / "d"), method="supervised", output_dir=tmp_path / "run", **given)
    assert not (tmp_path / "run").exists()


def test_the_console_names_the_classes_that_are_missed():
    """By the totals alone nobody sees which class they come from."""
    y = np.array([[1, 0, 1, 0], [1, 0, 1, 0], [0, 1, 1, 0], [0, 1, 1, 0]], np.int8)
    p = np.array([[0.9, 0.1, 0.8, 0.6], [0.8, 0.2, 0.4, 0.3], [0.1, 0.7, 0.3, 0.1], [0.2, 0.6, 0.2, 0.1]])
    names, task = ["cat", "dog", "red", "fog"], get_task("multilabel")
    lines, rest = task.console(multilabel_scores(p, y, names)), "average precision 1.00; 4 images show it, it is named"
    assert lines[0] == f"red: F1 0.40, precision 1.00, recall 0.25, {rest} on 1"
    assert all(f"{name}: F1 1.00, precision 1.00, recall 1.00" in lines[k] for k, name in ((1, "cat"), (2, "dog")))
    assert lines[3:] == ["no image shows fog (1), named on so many"]
    assert task.console({}) == []
    unnamed = task.console(multilabel_scores(p, y, names, threshold=0.85))
    assert unnamed[0] == "dog: F1 0.00, recall 0.00, average precision 1.00; 2 images show it, it is named on 0"
    lower = with_threshold(task, 0.25).scores(p, y, names)
    assert lower["threshold"] == 0.25 and lower["per_class_named"] == [2, 2, 3, 2]
    assert lower["map"] == task.scores(p, y, names)["map"]


def test_a_threshold_of_evaluate_and_predict(run, photos, tmp_path, capsys):
    files, model = str(photos / "test"), str(run.folder)
    plain = predict(files, model).rows
    at = float(np.quantile([row[f"confidence_{name}"] for row in plain for name in COLORS], 0.9)) - 1e-3
    for row, other in zip(predict(files, model, threshold=at).rows, plain, strict=True):
        assert row == {**other, "classes": ";".join(n for n in COLORS if other[f"confidence_{n}"] > at) or "none"}
    assert all(row["classes"] == ";".join(COLORS) for row in predict(files, model, threshold=0.0).rows)
    low = evaluate(model, photos, threshold=0.0, output=tmp_path / "low")
    assert low["per_class_named"] == [16] * len(COLORS) and low["map"] == run.metrics["map"]
    assert json.loads((tmp_path / "low/metrics.json").read_text())["threshold"] == 0
    assert cli.main(["evaluate", "--model", model, "--dataset", str(photos), "--threshold", "0"]) == 0
    assert capsys.readouterr().out.count("it is named on 16") == len(COLORS)
    assert (
        cli.main(["predict", files, "--model", model, "--threshold", "1.5", "--output", str(tmp_path / "p.csv")]) == 2
    )
    assert "A threshold of 1.5 is not in 0 <= threshold < 1" in capsys.readouterr().err
    assert evaluate(model, photos)["threshold"] == 0.5  # that of others stays


@pytest.mark.parametrize("kind", ["classification", "segmentation"])
def test_a_threshold_is_refused_where_an_image_has_one_class(kind):
    with pytest.raises(UserError, match=f"for multi-label models; this is a {get_task(kind).product}. Leave out --thr"):
        with_threshold(get_task(kind), 0.3)
