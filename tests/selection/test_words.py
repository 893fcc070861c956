"""Class names as priors: the same as transformers' own probabilities, a temperature that fits, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from scipy.special import log_softmax

from hf_lowlabel import finetune, predict
from hf_lowlabel.cli import main
from hf_lowlabel.data import Split, load_source
from hf_lowlabel.errors import UserError
from hf_lowlabel.models.two_towers import load_two_towers
from hf_lowlabel.selection.by_class import shared_out
from hf_lowlabel.selection.prior_labels import priors
from hf_lowlabel.selection.words import (
    class_name_priors,
    fit_temperature,
    in_words,
    named_classes,
    prompt_templates,
    spread_words,
    text_prototypes,
)
from hf_lowlabel.training.priors import load_priors
from tests.transformers_repos import make_encoder, save_repo, save_two_towers

from .conftest import blobs, paint

COLOURS = ["red", "green", "blue"]


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> str:
    """A CLIP that knows three colours."""
    folder = tmp_path_factory.mktemp("clip")
    save_two_towers("CLIP", folder, train=True)
    return str(folder)


@pytest.fixture
def pictures(tmp_path):
    """24 unlabeled pictures of the size the models see; the colour of picture i is COLOURS[i % 3]."""
    paint(tmp_path / "pictures")
    for file in (tmp_path / "pictures").iterdir():
        Image.open(file).resize((32, 32), Image.Resampling.NEAREST).save(file)
    return tmp_path / "pictures"


@pytest.mark.parametrize("kind", ["CLIP", "Siglip", "Siglip2", "MetaClip2"])
@torch.no_grad()
def test_priors_are_the_models_own_probabilities(kind, pictures, tmp_path):
    """With one prompt and no label: softmax of the logits that transformers' own processor and model give."""
    model = save_two_towers(kind, tmp_path / "model")
    source = load_source(pictures)
    found = class_name_priors(str(tmp_path / "model"), source, COLOURS, prompts=["a photo of a {}."])
    own = transformers.AutoImageProcessor.from_pretrained(tmp_path / "model")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "model")
    siglip = kind.startswith("Siglip")
    text = tokenizer(
        [f"a photo of a {c}." for c in COLOURS],
        padding="max_length" if siglip else True,
        max_length=16,
        return_tensors="pt",
    )
    images = own([source.image(i) for i in range(len(source))], return_tensors="pt")
    given = {"input_ids": text["input_ids"]} | ({} if siglip else {"attention_mask": text["attention_mask"]})
    expected = model(**given, **images).logits_per_image.softmax(1).numpy()
    np.testing.assert_allclose(found.priors, expected, atol=1e-4)
    assert found.temperature == pytest.approx(1 / float(model.logit_scale.exp())) and len(found.features) == 24


def test_prompts_are_averaged_as_unit_vectors(clip):
    model = load_two_towers(clip)
    templates = ["a photo of a {}.", "a painting of the {}."]
    got = text_prototypes(model, COLOURS, templates)
    for k, colour in enumerate(COLOURS):
        vectors = model.sentences([t.replace("{}", colour) for t in templates]).double()
        mean = (vectors / vectors.norm(dim=1, keepdim=True)).mean(0)
        np.testing.assert_allclose(got[k], (mean / mean.norm()).numpy(), atol=1e-6)
    twice = model.sentences(["a photo of a red."] * 300)  # more than one pass, the same answer
    assert torch.allclose(twice[0], twice[-1], atol=1e-6) and len(twice) == 300


def test_from_class_names_to_a_model(clip, pictures, tmp_path, capsys):
    """No label at all: priors, and a probe that learns from them."""
    out = tmp_path / "p.safetensors"
    given = ["priors", "--text-model", clip, "--dataset", str(pictures), "--output", str(out), "--device", "cpu"]
    assert main([*given, "--classes", "red", "leaf=green", "blue", "--prompts", "a photo of a {}."]) == 0
    said = capsys.readouterr().out
    assert (
        "images 24" in said
        and "labeled 0" in said
        and "temperature" in said
        and f"--prior {out} --split {tmp_path / 'p.json'}" in said
    )
    source = load_source(pictures)
    p = load_priors(out, source.ids, ["red", "leaf", "blue"]).numpy()
    truth = np.arange(24) % 3
    assert p.shape == (24, 3) and np.allclose(p.sum(1), 1, atol=1e-5) and (p.argmax(1) == truth).mean() > 0.9
    assert main([*given, "--classes", "red", "blue"]) == 2 and "exists" in capsys.readouterr().err
    run = finetune(
        dataset=str(pictures),
        split=str(tmp_path / "p.json"),
        model=clip,
        method="probe",
        prior=str(out),
        output_dir=str(tmp_path / "run"),
        device="cpu",
    )
    answers = predict([pictures / id for id in source.ids], tmp_path / "run", device="cpu").rows
    assert run.model.config.id2label[1] == "leaf"
    assert np.mean([row["class"] == ["red", "leaf", "blue"][k] for row, k in zip(answers, truth, strict=True)]) > 0.9


def test_a_budget_is_shared_out_over_the_classes_of_priors(clip, pictures, tmp_path, capsys):
    """As many of each class by its name, whatever the strategy would take; the page knows the classes."""
    (pictures / "photo 00.png").rename(tmp_path / "away.png")  # seven red, eight of the others
    out = tmp_path / "p.safetensors"
    given = ["--text-model", clip, "--dataset", str(pictures), "--output", str(out), "--device", "cpu"]
    assert main(["priors", *given, "--classes", *COLOURS, "--prompts", "a photo of a {}."]) == 0
    common = ["select", "--model", clip, "--dataset", str(pictures), "--prior", str(out), "--device", "cpu"]
    for strategy in ("k-medoids", "random"):
        folder = tmp_path / strategy
        assert main([*common, "--budget", "7", "--strategy", strategy, "--output", str(folder)]) == 0
        asked = json.loads((folder / "selection.json").read_text())
        counts = np.bincount([int(id[6:8]) % 3 for id in asked["files"].values()])
        assert sorted(counts) == [2, 2, 3] and asked["class_names"] == COLOURS
    assert main([*common, "--budget", "3", "--output", str(tmp_path / "no"), "--classes", "cat", "dog"]) == 2
    assert "are of the classes red, green, blue, and the run has cat, dog" in capsys.readouterr().err
    assert main([*common[:-4], "--prior", "none", "--budget", "3", "--output", str(tmp_path / "no")]) == 2
    assert "There is no file 'none'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "budget, sizes, shares", [(7, [3, 9, 1], [3, 3, 1]), (2, [5, 6, 7], [0, 1, 1]), (9, [2, 2], [2, 2])]
)
def test_shares_of_a_budget(budget, sizes, shares):
    assert shared_out(budget, np.array(sizes)).tolist() == shares


def test_labels_fit_the_temperature_and_stay_what_they_are(clip, pictures, tmp_path):
    source = load_source(pictures)
    labeled = {source.ids[i]: COLOURS[i % 3] for i in range(9)} | {source.ids[9]: "blue"}  # one of them wrong
    Split("pictures", COLOURS[::-1], labeled, fingerprint=source.fingerprint, test=source.ids[20:]).save(
        tmp_path / "split.json"
    )
    scores = priors(
        None,
        str(pictures),
        text_model=clip,
        split=str(tmp_path / "split.json"),
        output=str(tmp_path / "p.safetensors"),
        prompts=["a photo of a {}."],
        device="cpu",
        features=str(tmp_path / "features.safetensors"),
    )
    assert scores["images"] == 20 and scores["labeled"] == 10 and (tmp_path / "features.safetensors").is_file()
    own = load_two_towers(clip).temperature
    assert scores["words_right"] == pytest.approx(0.9)
    assert scores["temperature"] > own  # a label against its words: less confident
    p = load_priors(tmp_path / "p.safetensors", source.ids[:20], COLOURS).numpy()
    assert p[9].argmax() == 2 and p[9].max() == 1 and p[:9].max(1).min() == 1


def test_the_temperature_minimises_what_it_should():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 200)
    s = 0.2 + 0.02 * rng.standard_normal((200, 4))
    s[np.arange(200), labels] += 0.03
    assert fit_temperature(s[:0], labels[:0], 0.01) == 0.01
    fitted = fit_temperature(s, labels, 0.01)

    def loss(t):
        return -log_softmax(s / t, axis=1)[np.arange(200), labels].sum() + np.log(t / 0.01) ** 2 / 2

    assert all(loss(fitted) <= loss(fitted * f) for f in (0.8, 0.95, 1.05, 1.25))
    # labels of which none contradicts the words ask for T = 0, and get a finite one; fewer of them, a milder one
    sure = s + np.eye(4)[labels]
    assert 0.001 < fit_temperature(sure[:4], labels[:4], 0.01) <= 0.01
    # flat similarities become confidences near the share that is right
    confidence = np.exp(log_softmax(s / fitted, axis=1)).max(1).mean()
    assert abs(confidence - (s.argmax(1) == labels).mean()) < 0.05


def test_words_and_labels_spread_over_the_graph_of_another_encoder():
    """Words that are often wrong, at random: the images around are right more often."""
    x, y = blobs(4, 40, spread=0.25)
    rng = np.random.default_rng(1)
    told = np.where(rng.random(len(y)) < 0.45, rng.integers(0, 4, len(y)), y)
    p = 0.1 + 0.6 * np.eye(4, dtype=np.float32)[told]
    labeled = np.array([int(np.flatnonzero(y == c)[0]) for c in (0, 1)])
    none = np.zeros(0, np.int64)
    alone = (p.argmax(1) == y).mean()
    by_words = spread_words(x, p, none, none, k=20)
    both = spread_words(x, p, labeled, y[labeled], k=20)
    assert np.allclose(both.sum(1), 1, atol=1e-5) and (both[labeled].argmax(1) == y[labeled]).all()
    assert (by_words.argmax(1) == y).mean() > alone + 0.2 and (both.argmax(1) == y).mean() > alone + 0.2
    # as sure as the words agree; with labels as sure as the graph is right, so that thresholds see it
    assert 0.55 < by_words.max(1).mean() < p.max(1).mean()
    some = np.arange(0, len(y), 20)
    sure = spread_words(x, p, some, y[some], k=20)
    assert sure.max(1).mean() == pytest.approx((sure.argmax(1) == y).mean(), abs=0.03) and sure.max(1).mean() > 0.95


def test_priors_from_words_and_features(clip, backbone, pictures, tmp_path):
    scores = priors(
        backbone, str(pictures), text_model=clip, classes=COLOURS, output=str(tmp_path / "p.safetensors"), device="cpu"
    )
    assert scores["images"] == 24 and scores["labeled"] == 0


# ---- names and prompts ----------------------------------------------------------------------------------------------
def test_names_become_words(caplog):
    assert in_words(["AnnualCrop", "annual_crop", "sea-lion", "Rose", "tiger cat"]) == [
        *("annual crop", "annual crop", "sea lion", "Rose", "tiger cat")
    ]
    assert named_classes(["n01=tench", "fire_truck"]) == (["n01", "fire_truck"], ["tench", "fire truck"])
    assert not caplog.text
    in_words(["0", "1"])
    assert "class names such as 0 mean nothing to a text model: give --classes 0=WORDS" in caplog.text


def test_prompts_of_a_domain():
    assert len(prompt_templates(None)) == 8 and "satellite" in prompt_templates(["satellite"])[0]
    assert prompt_templates(["a {} in the sky"]) == ("a {} in the sky",) and prompt_templates(["plain"]) == ("{}",)


@pytest.mark.parametrize(
    "given, words",
    [
        (["--classes", "red"], "two classes or more"),
        (["--classes", "red", "red"], "'red' are given twice"),
        (["--classes", "red="], "are empty"),
        (["--classes", "red", "blue", "--prompts", "a photo of a cat"], "has not one {} in the place of the class"),
        (["--classes", "red", "blue", "--prompts", "a {} of {}"], "has not one {}"),
        (["--classes", "red", "blue", "--prompts", "satelite"], "satellite"),
        ([], "name no classes"),
        (["--classes", "red", "blue", "--neighbors", "5"], "no graph without features"),
        (["--classes", "red", "blue", "--clusters", "5"], "--clusters"),
    ],
)
def test_bad_words_are_refused_before_anything_is_computed(given, words, pictures, tmp_path, capsys):
    out = tmp_path / "p.safetensors"
    asked = ["priors", "--text-model", str(tmp_path / "none"), "--dataset", str(pictures), "--output", str(out)]
    assert main([*asked, *given]) == 2
    assert words in capsys.readouterr().err and not out.exists()


def test_without_a_text_model_it_needs_labels_and_features(capsys):
    assert main(["priors", "--dataset", "digits"]) == 2
    assert "or from the names of the classes (--text-model)" in capsys.readouterr().err
    asked = ["priors", "--dataset", "digits", "--model", "x", "--split", __file__]
    assert main([*asked, "--prompts", "plain"]) == 2 and "Add --text-model" in capsys.readouterr().err


def test_classes_that_do_not_fit_the_labels(clip, pictures, tmp_path):
    source = load_source(pictures)
    Split("pictures", COLOURS, {source.ids[0]: "red"}, fingerprint=source.fingerprint).save(tmp_path / "s.json")
    with pytest.raises(UserError, match="classes red, yellow do not fit the labels, which are of red, green, blue"):
        priors(None, str(pictures), text_model=clip, classes=["red", "yellow"], split=str(tmp_path / "s.json"))


# ---- models without words -------------------------------------------------------------------------------------------
def test_models_that_read_nothing(backbone, clip, tmp_path):
    import shutil

    with pytest.raises(UserError, match="is a timm model, and has no text tower"):
        load_two_towers(backbone)
    save_repo(make_encoder("vit"), tmp_path / "vit")
    with pytest.raises(
        UserError, match="of type vit, which has no features of both images and text. Take a model of two"
    ):
        load_two_towers(str(tmp_path / "vit"))
    (tmp_path / "bert").mkdir()
    (tmp_path / "bert" / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(UserError, match="of type bert, which has no features of both"):
        load_two_towers(str(tmp_path / "bert"))

    def copy(name: str, without: str):
        shutil.copytree(clip, tmp_path / name, ignore=shutil.ignore_patterns(without))
        return str(tmp_path / name)

    with pytest.raises(UserError, match="no tokenizer"):
        load_two_towers(copy("a", "tokenizer*"))
    with pytest.raises(UserError, match="no preprocessor_config.json"):
        load_two_towers(copy("b", "preprocessor*"))
    with pytest.raises(UserError, match="no model.safetensors"):
        load_two_towers(copy("c", "model*"))


def test_killed_between_its_two_files_the_same_command_finishes(clip, pictures, tmp_path, monkeypatch, capsys):
    out, beside = tmp_path / "p.safetensors", tmp_path / "p.json"
    given = ["priors", "--text-model", clip, "--dataset", str(pictures), "--output", str(out), "--device", "cpu"]
    given += ["--prompts", "plain"]

    def killed(*_):
        raise KeyboardInterrupt

    for place in ("save_priors", "Split.save"):
        with monkeypatch.context() as patch:
            patch.setattr(f"hf_lowlabel.selection.prior_labels.{place}", killed)
            assert main([*given, "--classes", *COLOURS]) == 130
        assert main([*given, "--classes", *COLOURS]) == 0
        assert Split.load(beside).class_names == COLOURS and load_priors(out, load_source(pictures).ids, COLOURS).shape
        out.unlink()
        manifest = beside.read_bytes()
        capsys.readouterr()
        assert main([*given, "--classes", "red", "blue"]) == 2  # of other classes it is somebody's
        assert f"{beside} exists. Give another --output" in capsys.readouterr().err
        assert beside.read_bytes() == manifest and not out.exists()
        beside.unlink()
