"""Classes of which the labels teach nothing are named before anything is computed, and at the end."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from hf_lowlabel.cli import main
from hf_lowlabel.labeling.answer_kinds import kind_of
from hf_lowlabel.selection.by_model import said_of, usual_leads
from hf_lowlabel.training import class_counts, preparing

FAST = "--method probe --from-scratch --model test_resnet --image-size 32 --test-fraction 0 --dataset photos".split()


class Computed(Exception):
    pass


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """Twelve images; a function that labels them."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    rng = np.random.default_rng(0)
    for i in range(12):
        Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(tmp_path / f"photos/{i}.png")

    def label(*labels):
        rows = "".join(f"{i}.png,{labels[i % len(labels)]}\n" for i in range(12))
        (tmp_path / "photos" / "labels.csv").write_text(f"file_name,label\n{rows}")

    return label


@pytest.fixture
def nothing_computed(monkeypatch):
    def network_of(*_):
        raise Computed

    monkeypatch.setattr(preparing, "network_of", network_of)


@pytest.mark.parametrize(
    "labels, words",
    [
        (["cat"], "Every one of the 12 labeled images shows cat, .*without it, as none"),
        (["cat;dog"], "shows cat, dog, .*without them, as none"),
    ],
)
@pytest.mark.parametrize("verb", ["finetune", "auto"])
def test_classes_that_all_images_show_are_refused_where_there_is_no_other(photos, capsys, labels, words, verb):
    photos(*labels)
    argv = FAST if verb == "finetune" else ["--dataset", "photos", "--model", "test_resnet", "--no-browser"]
    assert main([verb, "--task", "multilabel", *argv, "--output-dir", "run"]) == 2
    assert re.search(words, capsys.readouterr().err)


def test_a_class_that_all_images_show_is_named_before_anything_is_computed(photos, nothing_computed, caplog):
    photos("cat;dog", "cat", "cat;bird")
    with pytest.raises(Computed):
        main(["finetune", "--task", "multilabel", *FAST, "--output-dir", "run"])
    assert "every labeled image shows cat, and nothing can be learned" in caplog.text and "never" not in caplog.text


def test_a_class_without_a_label_is_named_before_and_at_the_end(photos, tmp_path, caplog, capsys):
    photos("cat", "dog", "cat", "dog", "frog", "dog")
    assert main(["split", "--dataset", "photos", "--output", "split.json"]) == 0
    said = json.loads((tmp_path / "split.json").read_text())
    said["labeled"] = {id: name for id, name in said["labeled"].items() if name != "frog"}
    (tmp_path / "split.json").write_text(json.dumps(said))
    capsys.readouterr()
    argv = [word for word in FAST if word not in ("--test-fraction", "0")]
    assert main(["finetune", *argv, "--split", "split.json", "--output-dir", "run"]) == 0
    words = "no labeled image shows frog: it is never named"
    assert words in caplog.text and words in capsys.readouterr().out.splitlines()[-2]
    assert "0 to 6 per class (none: `frog`)" in (tmp_path / "run" / "README.md").read_text()


@pytest.mark.parametrize(
    "labels, words",
    [
        (("cat|dog", "cat", "dog"), "4 labels such as 'cat|dog' name several at once: --task multilabel learns each"),
        (("cat|dog", "cat|owl", "dog|owl"), "12 labels such as 'cat|dog' name several"),
        (
            ("cat/dog", "cat", "dog"),
            "4 labels such as 'cat/dog' may name several at once; if so, --task multilabel with cat;dog learns",
        ),
        (("cat and dog", "cat", "dog", "cat + dog"), "6 labels such as 'cat [+] dog' may name several"),
        (
            ("cat|dog", "cat", "dog", "cat + dog"),
            "6 labels such as .* may name several at once; if so, --task multilabel with cat;dog",
        ),
        (("cat|dog", *["cat", "dog"] * 6), "1 label such as 'cat|dog' names several at once: --task"),
        (("cat/dog", *["cat", "dog"] * 6), "1 label such as 'cat/dog' may name several"),
        (("black/white", "black", "red"), None),
        (("pets|cat", "pets|dog", "birds|owl"), None),
    ],
)
@pytest.mark.parametrize("verb", ["finetune", "auto"])
def test_labels_of_several_classes_ask_for_their_task(photos, nothing_computed, caplog, labels, words, verb):
    photos(*labels)
    argv = FAST if verb == "finetune" else ["--dataset", "photos", "--model", "test_resnet", "--no-browser"]
    with pytest.raises(Computed):
        main([verb, *argv, "--output-dir", "run"])
    assert ("at once" in caplog.text) == (words is not None)
    assert words is None or caplog.text.count("at once") == 1 and re.search(words.replace("|", "[|]"), caplog.text)


def test_what_is_certain_is_no_doubt():
    names, kind = ["cat", "dog", "sky"], kind_of("multilabel")
    usual = np.full(3, 0.4)
    assert said_of(np.array([1.0, 0.4, 0.001]), 0.5, names, "entropy", kind, usual)[1] == "uncertain: dog (40 %)"
    said = said_of(np.array([1.0, 0.999, 0.001]), 0.5, names, "entropy", kind, usual)[1]
    assert said == "no single class is uncertain, probably cat;dog (100 %)"


def test_a_class_in_doubt_on_every_image_is_no_reason_to_ask():
    names, kind = ["cat", "dog", "sky"], kind_of("multilabel")
    p = np.array([[0.45, 0.66, 0.02], [0.99, 0.62, 0.01], [0.01, 0.7, 0.99], [0.98, 0.64, 0.6]])
    said = [said_of(one, 0.5, names, "margin", kind, usual_leads(p, kind))[1] for one in p]
    assert said[0] == "uncertain: cat (45 %)" and said[3] == "uncertain: sky (60 %)"
    assert said[1] == "no single class is uncertain, probably cat;dog (62 %)"
    one = kind_of("classification")  # a copy of all probabilities is made for several classes alone
    assert usual_leads(p, one) is None
    assert said_of(p[0], 0.5, names, "margin", one, None) == (("dog", 0.66), "uncertain: dog (66 %) or cat (45 %)")


@pytest.mark.parametrize(
    "task, labels", [("classification", ("cat", "dog")), ("multilabel", ("cat;dog", "dog", "cat"))]
)
def test_classes_are_counted_by_their_names(photos, nothing_computed, tmp_path, caplog, task, labels):
    """A list of ids leaves the labels to the data, and a manifest may have the classes in another order."""
    photos(*labels)
    assert main(["split", "--task", task, "--dataset", "photos", "--output", "split.json"]) == 0
    said = json.loads((tmp_path / "split.json").read_text())
    said |= {"class_names": said["class_names"][::-1], "labeled": {id: None for id in ("10.png", "11.png")}}
    (tmp_path / "split.json").write_text(json.dumps(said))
    argv = [word for word in FAST if word not in ("--test-fraction", "0")]
    with pytest.raises(Computed):
        main(["finetune", "--task", task, *argv, "--split", "split.json", "--output-dir", "run"])
    assert "no labeled image shows" not in caplog.text
    if task == "multilabel":  # 10.png and 11.png: dog, and cat alone
        assert "every labeled image shows" not in caplog.text


@pytest.mark.parametrize("verb", ["finetune", "auto"])
@pytest.mark.parametrize("task", ["classification", "multilabel"])
def test_a_class_that_is_a_letter_off_another_is_asked_about(photos, nothing_computed, capsys, task, verb):
    photos("rose", "dandelion", "rose", *["dandelion", "rose"] * 4, "dandelionn")
    argv = FAST if verb == "finetune" else ["--dataset", "photos", "--model", "test_resnet", "--no-browser"]
    with pytest.raises(Computed):
        main([verb, "--task", task, *[word for word in argv if task == "classification" or word not in FAST[:2]]])
    said = capsys.readouterr().err
    assert "one label is of the class 'dandelionn', and 5 are of 'dandelion': did you mean 'dandelion'?" in said


@pytest.mark.parametrize("task", ["classification", "multilabel"])
def test_split_asks_too_whether_a_class_is_a_letter_off_another(photos, tmp_path, capsys, task):
    photos("rose", *["dandelion", "rose"] * 5, "dandelionn")
    (tmp_path / "photos" / "labels.csv").rename(tmp_path / "labels.csv")
    if task == "multilabel":
        text = (tmp_path / "labels.csv").read_text()
        (tmp_path / "labels.csv").write_text(text.replace("1.png,dandelion\n", "1.png,dandelion;rose\n"))
    argv = ["split", "--task", task, "--dataset", "photos", "--from", "labels.csv", "--new-classes"]
    assert main([*argv, "--output", "s.json", "--test-fraction", "0.2", "--seed", "1"]) == 0
    said = capsys.readouterr().err
    assert said.count("one label is of the class 'dandelionn', and 5 are of 'dandelion'") == 1


@pytest.mark.parametrize(
    "one, other, off",
    [
        *[("tulip", other, True) for other in ("tulp", "tuliip", "tulib", "tulpi", "utlip", "Tulip", "atulip")],
        *[("tulip", other, False) for other in ("tulips!", "talib", "cat", "piltu")],
        *[("cat", "car", False), ("grade 1", "grade 2", False), ("n02123045", "n02123046", False)],
        *[("Type A", "type b", False), ("grade I", "grade II", False), ("oak_a", "oak_b", False)],
        *[("stage-iv", "stage-v", False), ("T cell", "B cell", False), ("type-x-left", "type-y-left", False)],
        *[("Type A", "type a", True), ("red oak", "red oac", True), ("oak a", "oac a", True), ("oak_a", "oak_", True)],
    ],
)
def test_what_is_a_letter_off(one, other, off):
    assert class_counts.a_letter_off(one, other) == class_counts.a_letter_off(other, one) == off


def test_of_thousands_of_classes_few_are_compared(monkeypatch, caplog):
    """Every pair of them took half a minute, in each process."""
    letters = "abcdefghijklmnopqrst"
    counted = {f"{a}{b}{c}{d}{a}{c}": 5 for a in letters[:8] for b in letters for c in letters for d in "ab"}
    compared, real = [], class_counts.a_letter_off
    monkeypatch.setattr(class_counts, "a_letter_off", lambda *names: compared.append(names) or real(*names))
    with caplog.at_level("WARNING"):
        class_counts.tell_misspelt({**counted, "tttttt": 9, "tttutt": 1, **{f"zz{name}zz": 1 for name in counted}})
    assert len(compared) < 100 and [record.args[0] for record in caplog.records] == ["tttutt"]


def test_classes_that_differ_by_a_letter_and_have_labels_are_classes(caplog):
    with caplog.at_level("WARNING"):
        class_counts.tell_misspelt({"maple": 4, "mapie": 2, "oak": 1})
        class_counts.tell_misspelt({"maple": 2, "mapie": 1})  # of three labels none is rare
    assert not caplog.records
