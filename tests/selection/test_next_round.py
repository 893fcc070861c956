"""A command printed for the next round has the settings that hold for it too, as the product itself reads it."""

import json
import re
import shlex

import numpy as np
import pytest
from PIL import Image

from hf_lowlabel.cli import auto as verb, main
from hf_lowlabel.cli.flags import data_source
from hf_lowlabel.cli.train import parse_config
from hf_lowlabel.labeling.labels import Asked
from hf_lowlabel.labeling.next_steps import after_labels, remember

from .conftest import paint

# of a round alone
ONCE = {
    "labels",
    "split",
    "num_labels",
    "class_balanced",
    "test_fraction",
    "output_dir",
    "budget",
    "no_browser",
    "json",
}
SIZES = ["--image-size", "64", "--stored-size", "96", "--minutes", "0.5", "--to-label", "7"]
OTHERS = ["--no-train", "--seed", "3", "--device", "cpu", "--max-bad", "0.2", "--features", "kept"]
DATA = ["--dataset-split", "val", "--value-range", "0", "4095", "--skip-missing", "--pages"]
WORDS = ["--text-model", "org/words", "--class-names", "cat=a cat", "dog", "--prompts", "a {}.", "--model", "a", "b"]
MASKS = ["--mask-ignore", "11", "12", "--architecture", "unet", "--instances"]
ALONE = [
    "--num-labels",
    "9",
    "--class-balanced",
    "--test-fraction",
    "0.3",
    "--output-dir",
    "a",
    "--no-browser",
    "--json",
]


def settings(argv):
    return vars(verb._parser().parse_args(argv))


def holds(argv):
    return {name: value for name, value in settings(argv).items() if name not in ONCE}


def words_of(line):
    return shlex.split(line)[2:]


@pytest.mark.parametrize("flags", [[], SIZES, OTHERS, DATA, WORDS, MASKS, [*SIZES, *OTHERS, *DATA, *WORDS, *MASKS]])
@pytest.mark.parametrize("task", ["classification", "multilabel", "segmentation"])
def test_auto_repeats_what_holds_and_nothing_else(tmp_path, task, flags):
    argv = ["--dataset", "photos", "--task", task, *flags, *ALONE, "--labels", "old.csv"]
    args = verb._parser().parse_args(argv)
    data = data_source(args)
    then = words_of(verb.again(args, data, tmp_path / "to label", tmp_path / "b"))
    assert holds(then) == holds(argv)
    usual = settings(["--dataset", "x"]) | {"labels": str(tmp_path / "to label"), "output_dir": str(tmp_path / "b")}
    assert all(settings(then)[name] == usual[name] for name in ONCE)


@pytest.mark.parametrize("task", ["classification", "multilabel", "segmentation"])
def test_the_folder_to_label_knows_them(tmp_path, monkeypatch, backbone, capsys, task):
    """After `select`, and after `auto`, on the page and where masks were taken over."""
    monkeypatch.chdir(tmp_path)
    names = ["a", "b"]
    paint(tmp_path / "photos" / ("images" if task == "segmentation" else ""), 6)
    argv = ["--dataset", "photos", "--task", task, "--model", backbone, "--image-size", "32", "--device", "cpu"]
    more = ["--seed", "2", "--max-bad", "0.1"]
    assert main(["select", *argv, *more, "--budget", "3", "--output", "out", "--classes", *names]) == 0
    folder = tmp_path / "out"

    def then():
        if task != "segmentation":
            return words_of(after_labels(folder, Asked.load(folder)))
        (tmp_path / "split.json").unlink(missing_ok=True)
        capsys.readouterr()
        assert main(["split", "--task", task, "--from", "out", "--dataset", "photos"]) == 0
        return words_of(capsys.readouterr().out.partition("next: ")[2])

    if task == "segmentation":
        (folder / "masks").mkdir()
        for file in Asked.load(folder).files:
            Image.fromarray(np.eye(16, dtype=np.uint8)).save((folder / "masks" / file).with_suffix(".png"))
    known = holds([*argv, *more])
    known |= {"classes": ["out/classes.txt"]} if task == "segmentation" else {}
    assert holds(then()) == known
    words = ["--text-model", str(tmp_path.parent)]
    given = verb._parser().parse_args(["--dataset", "photos", *SIZES, *OTHERS, *words])
    remember(folder, verb.of_round(given))
    expected = holds(["--dataset", "photos", "--task", task, *SIZES, *OTHERS, *words])
    assert holds(then()) == {**expected, "model": known["model"], "classes": known["classes"]}
    assert str(tmp_path.parent) not in (folder / "selection.json").read_text()  # which may go to somebody else
    run = tmp_path / "run"
    (run / "review").mkdir(parents=True)  # asks about the run beside it
    (run / "training.yaml").write_text(json.dumps({"dataset": "photos", "mask_ignore": [11]}))
    folder.rename(run / "to_label")
    asked = Asked.load(run / "to_label")
    asked.given.clear()
    reviewed = holds(words_of(after_labels(run / "review", asked, run)))
    assert reviewed["image_size"] == 64 and reviewed["mask_ignore"] == [11] and not reviewed["train"]


def test_priors_say_how_the_network_sees_images(tmp_path, monkeypatch, backbone, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s.json").write_text("{}")
    monkeypatch.setattr("hf_lowlabel.selection.prior_labels.priors", lambda **_: {})
    flags = ["--dataset", "digits", "--model", backbone, "--image-size", "32", "--seed", "4", "--device", "cpu"]
    assert main(["priors", "--split", "s.json", *flags, "--max-bad", "0.3", "--balanced"]) == 0
    then = re.search("next: (.*)", capsys.readouterr().out)[1]
    made, given = parse_config("finetune", words_of(then)).flat(), parse_config("finetune", flags).flat()
    assert made == {**given, "max_bad": 0.3, "prior": "priors.safetensors", "split": "s.json"}
