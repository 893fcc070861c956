"""Recipes refuse what cannot be done before anything is computed, and hand on what was asked for."""

import importlib
import json
import logging
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from hf_lowlabel.arguments import Config
from hf_lowlabel.methods import find
from hf_lowlabel.models import create_backbone
from hf_lowlabel.settings import filled_in, resolve
from hf_lowlabel.training.priors import save_priors
from tests.recipes.test_recipes import RECIPES, own_photos, run, small_batches, write
from tests.recipes.test_segment_recipes import camvid, isic, voc


class Started(Exception):
    """A stage has begun, with the settings that it holds."""


@pytest.fixture
def stages(monkeypatch):
    """The first stage of a recipe is not run, but raises its settings."""

    def started(**settings):
        raise Started(settings)

    monkeypatch.syspath_prepend(str(RECIPES))
    shared, _ = (importlib.import_module(name) for name in ("data_sets", "pixpro_cutmix"))  # with the verbs themselves
    monkeypatch.setattr(shared, "pretrain", started)
    for verb in ("pretrain", "finetune"):
        monkeypatch.setattr(f"hf_lowlabel.{verb}", started)


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    return own_photos(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="module")
def cifar(tmp_path_factory) -> str:
    root = tmp_path_factory.mktemp("cifar")
    write(root / "data", "train", [i % 3 for i in range(24)], 3, "label", 16, "img")
    write(root / "data", "test", [i % 3 for i in range(12)], 3, "label", 16, "img")
    return str(root)


def begun(monkeypatch, tmp_path, recipe: str, *flags) -> dict:
    with pytest.raises(Started) as found:
        run(monkeypatch, tmp_path, recipe, *flags)
    return found.value.args[0]


def refused(monkeypatch, tmp_path, recipe: str, *flags) -> str:
    with pytest.raises(SystemExit) as found:
        run(monkeypatch, tmp_path, recipe, *flags)
    assert not [*tmp_path.rglob("run.json")]
    return str(found.value)


SHORT = ("--num-labels", 6)
WRONG = [
    ("target_pretraining", ("--method", "fixmatsh"), "did you mean 'fixmatch'"),
    ("target_pretraining", ("--num-labels", 99), "the label budget is 99"),
    ("target_pretraining", ("--num-labels", 0), "num_labels is 0"),
    ("target_pretraining", (*SHORT, "--max-steps", 0), "max_steps is 0"),
    ("target_pretraining", (*SHORT, "--learning-rate", -1), "learning_rate is -1"),
    ("from_scratch", (*SHORT, "--pretrain", "simsiam", "--method", "cutmix"), "cutmix is a method for segmentation"),
    ("from_scratch", ("--num-labels", 1, "--pretrain", "simsiam"), "1 labels cannot cover 2 classes"),
    ("imagenet", (*SHORT, "--pretrain", "byol-eman", "--method", "self-training"), "self-training needs pseudo-labels"),
    ("imagenet", (*SHORT, "--pretrain", "byol", "--epochs", 0), "epochs is 0"),
    ("imagenet", (*SHORT, "--pretrain", "rotnet"), "rotnet has no preset for ImageNet .* Give --pretrain-epochs"),
    ("imagenet", (*SHORT, "--pretrain", "exemplar"), "Give --pretrain-epochs"),
    ("imagenet", ("--label-with", "nowhere"), "no model.safetensors in nowhere"),
    ("alternating_optimisation", (*SHORT, "--epochs", 0), "epochs is 0"),
    ("alternating_optimisation", ("--num-labels", 99), "the label budget is 99"),
    ("alternating_optimisation", ("--refine", "nowhere"), "nowhere"),
    ("as3l_cifar10", SHORT, "has no test split"),
    ("transfer_matrix", ("--local", "cifar10=nowhere", "--sources", "cifar10"), "nowhere"),
]


@pytest.mark.parametrize("recipe, flags, said", WRONG)
def test_wrong_flags_are_refused_before_pretraining(recipe, flags, said, photos, tmp_path, monkeypatch, stages):
    data = () if recipe == "transfer_matrix" else ("--dataset", photos)
    found = refused(monkeypatch, tmp_path, recipe, *data, *flags)
    assert re.search(f"^error: .*{said}", found, re.S)


@pytest.mark.parametrize(
    "name, build", [("pixpro_cutmix_voc", voc), ("byol_cutmix_isic", isic), ("pixpro_cutmix_camvid", camvid)]
)
def test_wrong_flags_of_masks_too(name, build, tmp_path, monkeypatch, stages):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    flags = (*build(tmp_path / "data"), "--dataset", tmp_path / "data", "--max-steps", 1)
    wrong = ("--batch-size", 0) if name == "pixpro_cutmix_camvid" else ("--method", "fixmatsh")
    assert begun(monkeypatch, tmp_path, name, *flags)["epochs"] > 0
    found = refused(monkeypatch, tmp_path, name, *flags, *wrong)
    assert re.search("^error: .*(fixmatsh|batch_size is 0)", found)
    if name == "pixpro_cutmix_voc":
        assert re.search("^error: .*missing.txt", refused(monkeypatch, tmp_path, name, *flags, "--labeled=missing.txt"))


def test_flags_that_were_wrong_are_not_in_the_way_of_right_ones(photos, tmp_path, monkeypatch, stages):
    flags = ("--dataset", photos, *SHORT, "--pretrain", "simsiam")
    refused(monkeypatch, tmp_path, "from_scratch", *flags, "--pretrain-epochs", 7, "--method", "fixmatsh")
    refused(monkeypatch, tmp_path, "from_scratch", *flags, "--pretrain-epochs", 7, "--max-steps", 0)
    assert begun(monkeypatch, tmp_path, "from_scratch", *flags, "--pretrain-epochs", 9)["epochs"] == 9


@pytest.mark.parametrize(
    "recipe, flags, said",
    [
        ("alternating_optimisation", ("--batch-size", 3), "--batch-size 3; expected a multiple of 4"),
        ("alternating_optimisation", ("--batch-size", 10), "--batch-size 10; expected a multiple of 4"),
        ("alternating_optimisation", ("--cycles", 0), "found 0, expected a whole number above 0"),
        ("alternating_optimisation", ("--refine", "runs/mt", "--num-labels", 6), "--num-labels beside --refine"),
        ("as3l_cifar10", ("--strategy", "as31"), "invalid choice: 'as31'"),
        ("as3l_cifar10", ("--strategy", "class-balanced"), "invalid choice: 'class-balanced'"),  # it reads all labels
        ("moam", ("--epochs", 1, 0, 1), "found 0, expected a number above 0"),
        ("vpet", ("--widths", 64, 0), "found 0, expected a whole number above 0"),
        ("transfer_matrix", ("--local", "svhn:photos"), "--local svhn:photos; expected NAME=PATH"),
        ("transfer_matrix", ("--local", "cifar-10=copy"), "NAME is one of cifar10, cifar100, svhn"),
        (
            "foundation",
            ("--dataset", "x", "--task", "segmentation", "--class-names", "q"),
            "--class-names, which is not",
        ),
        ("foundation", ("--dataset", "x", "--task", "segmentation", "--labels", "q"), "--labels, which is not"),
        ("foundation", ("--dataset", "x", "--classes", "q"), "--classes, which is not for --task classification"),
    ],
)
def test_flags_that_mean_nothing_are_refused_at_once(recipe, flags, said, tmp_path, monkeypatch, capsys, stages):
    with pytest.raises(SystemExit):
        run(monkeypatch, tmp_path, recipe, *flags)
    assert said in capsys.readouterr().err and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "recipe, flags, expected",
    [
        ("target_pretraining", ("--method", "self-tuning"), dict(max_steps=27_000)),
        ("target_pretraining", ("--method", "fixmatch", "--learning-rate", 0), dict(max_steps=2**20, learning_rate=0)),
        ("target_pretraining", ("--method", "supervised"), dict(max_steps=2**20, learning_rate=0.1)),
        ("from_scratch", ("--method", "adamatch"), dict(max_steps=2**17, eval_steps=2**7)),
        ("from_scratch", ("--method", "sscl"), dict(max_steps=None, epochs=200)),
        ("from_scratch", ("--method", "sscl", "--max-steps", 9), dict(max_steps=9, epochs=None)),
        ("imagenet", ("--method", "sscl"), dict(max_steps=None, epochs=800)),
    ],
)
def test_a_run_is_as_long_as_its_preset_says(recipe, flags, expected, photos, tmp_path, monkeypatch, stages):
    given = begun(monkeypatch, tmp_path, recipe, "--dataset", photos, *SHORT, "--pretrain", "none", *flags)
    settled = resolve(Config.from_flat("finetune", given)).flat()
    assert {name: settled[name] for name in expected} == expected


def test_pretraining_for_imagenet_has_a_length_of_its_own(photos, tmp_path, monkeypatch, stages):
    """byol-eman that of its paper, a method without a preset what is given."""
    flags = ("--dataset", photos, *SHORT, "--method", "fixmatch-eman", "--workers", 0, "--pretrain")
    found = begun(monkeypatch, tmp_path, "imagenet", *flags, "byol-eman")
    assert filled_in("pretrain", None, found["method"], found["preset"])[1]["epochs"] == 200
    folders = []
    for epochs in (3, 4):  # beside each other: the classifier of one start is not that of the other
        found = begun(monkeypatch, tmp_path, "imagenet", *flags, "rotnet", "--pretrain-epochs", epochs)
        assert found["epochs"] == epochs and found["preset"] is None
        folders.append(found["output_dir"])
    assert folders[0] != folders[1]


@pytest.mark.parametrize(
    "recipe, number", [("alternating_optimisation", 100), ("target_pretraining", 40), ("from_scratch", 40)]
)
def test_a_default_may_be_written_out_when_a_run_goes_on(recipe, number, tmp_path, monkeypatch, stages):
    write(tmp_path / "copy" / "data", "train", [i % 10 for i in range(120)], 10, "label", 16, "img")
    write(tmp_path / "copy" / "data", "test", [i % 10 for i in range(20)], 10, "label", 16, "img")
    flags = ("--benchmark", "cifar10", "--dataset", tmp_path / "copy")
    before = begun(monkeypatch, tmp_path, recipe, *flags)
    (next(tmp_path.rglob("recipe.json")).parent / "begun").mkdir()
    assert begun(monkeypatch, tmp_path, recipe, *flags, "--num-labels", number) == before


def test_what_is_looked_at_first_is_said_by_the_run_alone(tmp_path_factory, tmp_path, monkeypatch, recwarn, stages):
    """Of labels and of the test images to hold out; what is wrong is still said, and later warnings too."""
    photos = own_photos(tmp_path_factory.mktemp("photos"))
    next(photos.rglob("*.png")).with_suffix(".dcm").write_bytes(b"x")
    flags = ("--dataset", photos, "--pretrain", "simsiam")
    assert begun(monkeypatch, tmp_path, "from_scratch", *flags, *SHORT)["split"].endswith("held-out.json")
    refused(monkeypatch, tmp_path, "from_scratch", *flags, "--num-labels", 99)
    assert not [w for w in recwarn if "DCM file" in str(w.message)]
    with pytest.warns(UserWarning, match="DCM file"):
        importlib.import_module("data_sets").source_of(dict(dataset=str(photos)))
    assert not logging.getLogger("hf_lowlabel").disabled


def test_backbones_of_one_name_all_vote(cifar, tmp_path, monkeypatch, capsys):
    size = dict(depth=1, embed_dim=24, num_heads=2, patch_size=4)
    for place in ("a", "b"):
        vit = create_backbone("vit_tiny_patch16_224", pretrained=False, image_size=16, model_args=size)
        vit.save_pretrained(tmp_path / place / "backbone")
    flags = ("--benchmark", "cifar10", "--dataset", cifar, *SHORT, "--image-size", 16, "--batch-size", 6, "--ranks")
    two = ("--widths", 3, "--max-steps", 1, "--backbones", "a/backbone", "b/backbone")
    run(monkeypatch, tmp_path, "vpet", *flags, *two)
    text = capsys.readouterr().out
    assert "only, a/backbone width 3" in text and "only, b/backbone width 3" in text and "on 2 votes" in text


COPIES = {f"train-{k}.png" for k in range(6, 10)}


def with_copies(root: Path) -> Path:
    """6 labeled images, and without labels copies of 4 of them and of 6 of the 8 test images."""
    named = {"train/{}": range(6), "train/unlabeled": [0, 1, 2, 3, 6, 7, 8, 9, 10, 11], "test/{}": range(6, 14)}
    number = 0
    for folder, shown in named.items():
        for i in shown:
            place = root / folder.format("ab"[i % 2]) / f"{folder.split('/')[0]}-{number}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.random.default_rng(i).integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(place)
            number += 1
    return root


def test_moam_labels_copies_as_their_originals_and_no_test_images(
    tmp_path_factory, tmp_path, monkeypatch, capsys, caplog
):
    """However wrong the guesses are after one step; each step is tested on the same images."""
    small_batches(monkeypatch)
    photos = with_copies(tmp_path_factory.mktemp("photos"))
    flags = ("--dataset", photos, "--model", "wrn_10_2", "--num-labels", 6, "--image-size", 16, "--stored-size", 16)
    run(monkeypatch, tmp_path, "moam", *flags, "--epochs", 1, 1, 1)
    assert len(re.findall(r"step \d: top-5", capsys.readouterr().out)) == 3
    first, second, _ = (json.loads(p.read_text())["labeled"] for p in sorted(tmp_path.rglob("?-*/split.json")))
    known, named = ({Path(id).name: name for id, name in of.items()} for of in (first, second))
    assert set(known) == {f"train-{k}.png" for k in range(6)} and set(named) == {*known, *COPIES}
    assert named.items() >= known.items()
    assert all(named[f"train-{k + 6}.png"] == known[f"train-{k}.png"] for k in range(4))
    assert "test images are copies" not in caplog.text
    shutil.rmtree(next(tmp_path.rglob("3-labels")))  # as if stopped before it
    before = next(tmp_path.rglob("pseudo-labels.json")).read_bytes()
    run(monkeypatch, tmp_path, "moam", *flags, "--epochs", 1, 1, 1, "--resume")
    assert next(tmp_path.rglob("pseudo-labels.json")).read_bytes() == before


def test_alternating_goes_on_without_copies_of_test_images(tmp_path_factory, tmp_path, monkeypatch, capsys):
    photos = with_copies(tmp_path_factory.mktemp("photos"))
    flags = ("--dataset", photos, "--model", "wrn_10_2", "--num-labels", 6, "--image-size", 16, "--batch-size", 4)
    more = ("--pretrain-epochs", 1, "--cycles", 1, "--whole", 1, "--epochs", 1)
    run(monkeypatch, tmp_path, "alternating_optimisation", *flags, *more)
    assert "cycle 1: test accuracy" in capsys.readouterr().out
    ids = json.loads(load_file(next(tmp_path.rglob("cycle-01/priors.safetensors")))["ids"].tobytes())
    assert {Path(id).name for id in ids} == {f"train-{k}.png" for k in range(6)} | COPIES


def test_an_image_of_which_nothing_is_believed_is_given_no_class(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(RECIPES))
    kept_labels = importlib.import_module("alternating_optimisation").kept_labels
    save_priors(tmp_path / "found", np.array([[0.2, 0.8], [0, 0]]), ["a", "b"], ["x", "y"])
    kept_labels(tmp_path / "found", tmp_path / "kept", ["x", "y"], soft=False, share=1.0, seed=0)
    assert load_file(tmp_path / "kept")["priors"].tolist() == [[0, 1], [0, 0]]


def test_more_own_images_without_labels_are_learned_from(photos, tmp_path_factory, tmp_path, monkeypatch):
    """In every stage, beside test images that no stage has seen."""
    small_batches(monkeypatch)
    raw = tmp_path_factory.mktemp("raw")
    for i in range(9):
        pixels = np.random.default_rng(100 + i).integers(0, 255, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(raw / f"{i}.png")
    flags = ("--dataset", photos, "--unlabeled-dataset", raw, "--model", "wrn_10_2", *SHORT, "--image-size", 16)
    run(monkeypatch, tmp_path, "alternating_optimisation", *flags, "--pretrain-epochs", 1, "--cycles", 1, "--epochs", 1)
    records = [json.loads(p.read_text()) for p in tmp_path.rglob("run.json")]
    assert len(records) == 3 and not any(stage["saw_test"] for r in records for stage in r["lineage"])
    splits = [json.loads((p.parent / "split.json").read_text()) for p in tmp_path.rglob("run.json")]
    assert len({tuple(split["test"]) for split in splits}) == 1
    data_sets = importlib.import_module("data_sets")
    assert len(data_sets.source_of(dict(dataset=str(photos), unlabeled_dataset=str(raw), seed=0))) == 24 + 9


def test_as3l_goes_on_after_the_choice(cifar, tmp_path_factory, tmp_path, monkeypatch, capsys):
    small_batches(monkeypatch)
    start = tmp_path_factory.mktemp("start")
    create_backbone("wrn_10_2", pretrained=False, image_size=16).save_pretrained(start)
    flags = ("--dataset", cifar, *SHORT, "--backbone", start, "--max-steps", 1)
    run(monkeypatch, tmp_path, "as3l_cifar10", *flags)
    first = capsys.readouterr().out.splitlines()[-1]
    shutil.rmtree(next(tmp_path.rglob("flexmatch")))  # as if stopped between `select` and the manifest
    for name in ("split.json", "priors.safetensors"):
        next(p for p in tmp_path.rglob(name) if p.parent.name != "to_label").unlink()
    run(monkeypatch, tmp_path, "as3l_cifar10", *flags, "--resume")
    assert capsys.readouterr().out.splitlines()[-1] == first
    for number in (2, 25):
        with pytest.raises(SystemExit) as found:
            run(monkeypatch, tmp_path, "as3l_cifar10", "--dataset", cifar, "--num-labels", number)
        assert f"error: Found --num-labels {number}. Give 3, one for each class, to 24" in str(found.value)


def test_runs_of_one_name_label_apart_and_a_dry_run_labels_nothing(photos, tmp_path, monkeypatch, capsys):
    small_batches(monkeypatch)
    monkeypatch.setitem(find("supervised").presets["imagenet-1"], "max_steps", 1)
    tiny = ("--dataset", photos, "--model", "wrn_10_2", "--image-size", 16, "--workers", 0)
    for place, seed in (("a", 0), ("b", 1)):
        more = ("--method", "supervised", "--output-dir", place, "--seed", seed)
        run(monkeypatch, tmp_path, "imagenet", *tiny, *SHORT, *more)
    said = capsys.readouterr().out
    assert said.count("6 labels: top-1") == 2 and "% of the labels" not in said
    before = sorted(tmp_path.rglob("*"))
    first, second = sorted(p.parent for p in tmp_path.rglob("run.json"))
    run(monkeypatch, tmp_path, "imagenet", *tiny, "--label-with", first, "--dry-run")
    assert sorted(tmp_path.rglob("*")) == before
    for given in (first, second):
        run(monkeypatch, tmp_path, "imagenet", *tiny, "--label-with", given, "--epochs", 1)
    assert len([*tmp_path.rglob("pseudo-labels-of-supervised-6-labels-*.safetensors")]) == 2
    assert len([*tmp_path.rglob("self-training-of-supervised-6-labels-*/run.json")]) == 2


def test_the_first_process_alone_prints(monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(RECIPES))
    say = importlib.import_module("data_sets").say
    say("one")
    monkeypatch.setenv("RANK", "1")
    say("two")
    assert capsys.readouterr().out == "one\n"
    prints = [p.stem for p in RECIPES.glob("*.py") if re.search(r"^\s+print\(", p.read_text(encoding="utf-8"), re.M)]
    assert prints == ["visible_loop"]  # which tells its processes apart itself
