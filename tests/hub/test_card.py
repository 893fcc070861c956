"""The card: facts present and absent, metadata read back, limits from numbers, and its code executed."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import socket

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from PIL import Image, ImageOps

from hf_lowlabel.evaluation.classification import classification_scores
from hf_lowlabel.hub.card import template, write_card, write_card_safely
from hf_lowlabel.records import Data, Labels, Row, RunRecord, Stage
from hf_lowlabel.tasks import of_record
from hf_lowlabel.text import cell, code, duration

NAMES = ["cat", "dog", "snow_leopard", "a|b", "`tick`", "<b>owl</b>"]


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setattr(socket.socket, "connect", lambda *a, **k: pytest.fail("a card opened a connection"))


def metrics(wrong=12, n=60, absent=None):
    """Class 1 is taken for class 0 `wrong` times, everything else is right; 0.9 sure throughout."""
    targets = np.array([c for c in range(6) if c != absent]).repeat(n)
    guesses = targets.copy()
    guesses[np.flatnonzero(targets == 1)[:wrong]] = 0
    probs = np.full((len(targets), 6), 0.02)
    probs[np.arange(len(targets)), guesses] = 0.9
    return classification_scores(probs, targets, NAMES)


def full(**changes):
    values = dict(
        kind="classification",
        method="fixmatch",
        architecture="resnet18",
        parameters=11_000_000,
        image_size=32,
        class_names=NAMES,
        lineage=[
            Stage("pretrained weights", "resnet18.a1_in1k", hub_id="timm/resnet18.a1_in1k", license="apache-2.0"),
            Stage("target pretraining", method="byol", dataset="pets", images=5000, steps=300),
            Stage("finetuning", method="fixmatch", dataset="pets", images=5000, steps=700),
        ],
        data=Data(
            "pets",
            hub_id="org/pets",
            config="small",
            revision="0123456789abcdef",
            split="train",
            fingerprint="f" * 64,
            license="cc-by-4.0",
            images=5000,
            test="the published test split",
            test_split="test",
        ),
        labels=Labels(20, {n: 4 for n in NAMES[:5]} | {NAMES[5]: 0}, "at random, seed 3", "9" * 64),
        metrics=metrics(),
        comparisons=[Row("supervised, same labels", {"accuracy": 0.71, "ece": 0.2})],
        hyperparameters={"learning_rate": 0.03, "method_args": {"tau": 0.95}, "preset": None},
        seed=3,
        steps=700,
        seconds=3723.0,
        command="hf-lowlabel finetune --dataset org/pets --seed 3",
        versions={"torch": "2.15.0"},
        hardware={"gpu": "NVIDIA H100", "cpu": "x", "cores": 4},
        license="mit",
    )
    return RunRecord(**{**values, **changes})


def test_every_fact_is_there(tmp_path):
    (tmp_path / "curves.png").touch(), (tmp_path / "confusion.png").touch()
    text = write_card(tmp_path, full(name="pets-20")).read_text()
    for words in (
        "# pets-20\n",
        "**20 labeled images** among 5,000",
        "[fixmatch](https://arxiv.org/abs/2001.07685)",
        "![pets-20: training curves](curves.png)",
        "[confusion matrix](confusion.png)",
        "| **this model** | 96.7 % |",
        "| supervised, same labels | 71.0 % | – |",
        "360 test images (the published test split)",
        "[`resnet18.a1_in1k`](https://huggingface.co/timm/resnet18.a1_in1k)",
        "on 5,000 images of pets, 300 steps",
        "[pets](https://huggingface.co/datasets/org/pets), configuration `small`, split `train`",
        ", revision `0123456789ab`",
        "fingerprint `ffffffffffff`",
        "Labels: 20, 0 to 4 per class (none: `<b>owl</b>`), chosen at random, seed 3",
        "sha256 `9999999999999999`",
        "700 steps in 1 h 2 min on NVIDIA H100",
        "```bash\nhf-lowlabel finetune --dataset org/pets --seed 3\n```",
        "| learning_rate | `0.03` |",
        "| method_args | `{'tau': 0.95}` |",
        "| version of torch | `2.15.0` |",
        "| seed | `3` |",
        "This model: mit.",
        "resnet18.a1_in1k: apache-2.0; data set pets: cc-by-4.0",
    ):
        assert words in text, words
    assert "preset" not in text and "None" not in text


def test_what_is_unknown_leaves_no_trace(tmp_path):
    text = write_card(tmp_path, RunRecord("classification")).read_text()
    for words in (
        "None",
        "model-index",
        "Results",
        "Lineage",
        "Labels",
        "Data",
        "Training",
        "curves",
        "details",
        "bash",
        "license:",
    ):
        assert words not in text.replace("`license:`", ""), words
    assert "**Not given yet.**" in text and "add `license:`" in text and "It was not evaluated." in text
    assert text.count("```python") == 2 and not re.search(r"\n{3,}", text)


def test_metadata_reads_back(tmp_path):
    data = ModelCard.load(write_card(tmp_path, full(name="pets-20", hub_id="me/pets-20"))).data
    assert (data.license, data.base_model, data.datasets, data.library_name) == (
        "mit",
        "timm/resnet18.a1_in1k",
        ["org/pets"],
        "transformers",
    )
    assert data.pipeline_tag == "image-classification" and {"fixmatch", "byol", "semi-supervised"} <= set(data.tags)
    assert data.model_name == "pets-20"
    results = {r.metric_type: r for r in data.eval_results}
    r = results["accuracy"]
    assert (
        r.metric_value == pytest.approx(348 / 360, abs=1e-6)
        and r.dataset_type == "org/pets"
        and r.dataset_config == "small"
    )
    assert (
        r.dataset_revision == "0123456789abcdef" and r.dataset_split == "test" and r.task_type == "image-classification"
    )
    assert set(results) == {"accuracy", "top5_accuracy", "balanced_accuracy", "ece", "nll"}


def test_model_index_has_the_shape_the_hub_checks(tmp_path):
    """Strings are strings, values finite numbers, and a local data set is not passed off as one on the Hub."""
    facts = full(data=Data("my photos/2024"), license=None)
    card = ModelCard.load(write_card(tmp_path, facts))
    index = card.data.to_dict()["model-index"]
    assert [set(model) for model in index] == [{"name", "results"}] and index[0]["name"] == tmp_path.name
    for result in index[0]["results"]:
        assert set(result) == {"task", "dataset", "metrics"}
        assert result["task"]["type"] == "image-classification" and result["dataset"]["type"] == "path-to-2024"
        assert all(isinstance(v, str) for v in result["dataset"].values())
        for metric in result["metrics"]:
            assert (
                isinstance(metric["type"], str) and isinstance(metric["value"], float) and np.isfinite(metric["value"])
            )
    assert card.data.datasets is None and card.data.license is None


@pytest.mark.parametrize(
    "given, license, name",
    [("Apache-2.0", "apache-2.0", None), ("ACME Research License 1.1", "other", "acme-research-license-1.1")],
)
def test_license(tmp_path, given, license, name):
    data = ModelCard.load(write_card(tmp_path, full(license=given))).data
    assert (data.license, data.get("license_name")) == (license, name)


def test_several_licenses_of_an_author_are_kept(tmp_path):
    path = write_card(tmp_path, full(license=None))
    path.write_text(path.read_text().replace("---\n", "---\nlicense: [mit, Apache-2.0]\n", 1))
    for _ in range(2):  # what it has written itself, too
        card = ModelCard.load(write_card(tmp_path, full(license=None)))
        assert card.data.license == ["mit", "apache-2.0"] and card.data.get("license_name") is None
        assert "\nThis model: mit and apache-2.0." in card.text
    path.write_text(path.read_text().replace("- apache-2.0\n", "- Clinic\n"))  # the Hub takes no such list
    data = ModelCard.load(write_card(tmp_path, full(license=None))).data
    assert (data.license, data.get("license_name")) == ("other", "mit-and-clinic")


def test_a_license_written_into_the_card_is_kept_and_none_is_invented(tmp_path):
    path = write_card(tmp_path, full(license=None))
    assert ModelCard.load(path).data.license is None
    path.write_text(path.read_text().replace("---\n", "---\nlicense: cc-by-4.0\n", 1))
    again = write_card(tmp_path, full(license=None))
    assert ModelCard.load(again).data.license == "cc-by-4.0" and "This model: cc-by-4.0." in again.read_text()


def limits_of(tmp_path, **changes):
    return write_card(tmp_path, full(**changes)).read_text().partition("## Limits")[2].partition("## How")[0]


def test_limits_are_computed(tmp_path):
    text = limits_of(tmp_path)
    assert (
        "No labeled image showed `&lt;b>owl" not in text
        and "No labeled image showed `<b>owl</b>` (100.0 % correct)" in text
    )
    assert "Worst classes: `dog` 80.0 % (48 of 60)." in text
    assert "on average 6.7 points too low (expected calibration error 6.7 %)" in text
    assert "one of its 6 classes" in text and "Only" not in text
    text = limits_of(tmp_path, metrics=metrics(wrong=50, n=60, absent=4))
    assert "`dog` 16.7 % (10 of 60)" in text and "No test image showed `` `tick` ``: nothing is known about it." in text
    assert "on average 6.7 points too high" in text
    assert "Only 30 test images" in limits_of(tmp_path, metrics=metrics(wrong=0, n=5))
    assert "Worst" not in limits_of(tmp_path, metrics=metrics(wrong=0))


def test_names_cannot_break_the_page(tmp_path):
    facts = full(name="x | y\n---\nlicense: evil", command=None)
    card = ModelCard.load(write_card(tmp_path, facts))
    assert card.data.license == "mit" and card.data.model_name == "x | y\n---\nlicense: evil"
    assert card.text.startswith("# x \\| y --- license: evil\n")
    assert cell("a_b _c_ {{ 1 }} <i>*") == "a_b \\_c\\_ {{ 1 }} &lt;i>\\*" and code("a|b") == "`a¦b`"
    text = write_card(tmp_path, full(data=Data("{{ card_data }} {% raw %}"))).read_text()
    assert "{{ card_data }} {% raw %}" in text


def test_a_failing_card_is_a_warning(tmp_path, caplog):
    (tmp_path / "file").touch()
    with caplog.at_level(logging.WARNING):
        assert write_card_safely(tmp_path / "file" / "run", full()) is None
    assert "no model card was written" in caplog.text and "NotADirectoryError" in caplog.text
    assert write_card_safely(tmp_path, full()) == tmp_path / "README.md"


def test_templates_are_found_in_a_checkout_and_in_an_installed_package(tmp_path, monkeypatch):
    from hf_lowlabel.hub import card

    checkout = template()
    assert checkout.parent.name == "model_cards"
    package = tmp_path / "site-packages" / "hf_lowlabel"
    (package / "model_cards").mkdir(parents=True), (package / "model_cards" / "card.md").touch()
    monkeypatch.setattr(card, "__file__", str(package / "hub" / "card.py"))
    assert template() == package / "model_cards" / "card.md"
    (package / "model_cards" / "card.md").unlink()
    with pytest.raises(FileNotFoundError, match="not complete"):
        template()


def test_duration():
    assert [duration(s) for s in (0.4, 59, 61, 7261)] == ["0 s", "59 s", "1 min 1 s", "2 h 1 min"]


# ---- the code on the card runs --------------------------------------------------------------------------------------


def run_snippets(folder, monkeypatch, photo=None):
    """Executes every Python block of the card verbatim beside the folder and returns what was printed by each."""
    monkeypatch.chdir(folder.parent)
    phone = Image.Exif()
    phone[0x0112] = 6  # held upright: stored on its side
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (50, 40), np.uint8)).save("photo.jpg", exif=phone)  # gray
    if photo is not None:
        photo.save("photo.jpg", "PNG")
    printed = []
    for block in re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL):
        out, scope = io.StringIO(), {}
        with contextlib.redirect_stdout(out):
            exec(compile(block, "README.md", "exec"), scope)
        printed.append((out.getvalue(), scope))
    return printed


@pytest.mark.parametrize("architecture, ours", [("resnet10t", False), ("resnet18_cifar", True)])
def test_classifier_snippets(tmp_path, monkeypatch, architecture, ours):
    from hf_lowlabel.models import create_classifier

    torch.manual_seed(0)
    folder = tmp_path / "pets"
    model = create_classifier(
        architecture, 3, pretrained=False, class_names=["cat", "dog", "owl"], image_size=32
    ).eval()
    model.save_pretrained(folder)
    facts = RunRecord("classification", architecture=architecture, class_names=["cat", "dog", "owl"])
    text = write_card(folder, facts).read_text()
    assert ("trust_remote_code=True" in text) == ours
    assert ModelCard.load(folder / "README.md").data.library_name == "transformers"
    (pipe, _), (auto, scope) = run_snippets(folder, monkeypatch)
    with torch.no_grad():
        logits = model(scope["processor"](scope["image"], return_tensors="pt")["pixel_values"]).logits
    assert torch.equal(scope["output"].logits, logits) and scope["image"].size == (50, 40)  # turned upright
    best = model.config.id2label[int(logits.argmax())]
    assert auto.startswith(best) and eval(pipe)[0]["label"] == best


@pytest.mark.parametrize("value_range", [None, [100.0, 4095.0]])
@pytest.mark.parametrize("kind", ["classification", "multilabel", "segmentation", "backbone"])
def test_snippets_read_16_bits_as_training_did(kind, value_range, tmp_path, monkeypatch):
    """And a pipeline, which opens the file itself, is offered only where its pixels are right."""
    from hf_lowlabel.data.pixels.images import load_rgb
    from hf_lowlabel.models import create_backbone, create_classifier
    from hf_lowlabel.models.segmentation import create_segmenter

    folder, names = tmp_path / "deep", ["cat", "dog"]
    how = dict(pretrained=False, image_size=32)
    if kind == "backbone":
        model = create_backbone("test_resnet", **how)
    else:
        make = create_segmenter if kind == "segmentation" else create_classifier
        model = make("test_resnet", 2, class_names=names, **how)
    model.save_pretrained(folder)
    given = {"value_range": value_range} if value_range else {}
    write_card(folder, RunRecord(kind, architecture="unknown_net", class_names=names, hyperparameters=given))
    text = (folder / "README.md").read_text()
    assert ("pipeline(" in text) == (value_range is None and kind in ("classification", "multilabel"))
    values = Image.fromarray(np.random.default_rng(0).integers(0, 4096, (50, 40)).astype(np.uint16))
    text = re.sub(r"```python\nfrom transformers import pipeline\n.*?```", "", text, flags=re.DOTALL)
    (folder / "README.md").write_text(text)
    scope = run_snippets(folder, monkeypatch, values)[0][1]
    assert np.array_equal(scope["image"], load_rgb(values, tuple(value_range) if value_range else None))


@pytest.mark.parametrize("pixels", [np.float32([[0.1, 0.9]]), np.int32([[-1, 5]]), np.int32([[7, 70_000]])])
def test_lines_refuse_what_predict_refuses(pixels, tmp_path, monkeypatch):
    """Floats, or whole numbers beyond 16 bits, unless a range of values was given."""
    from hf_lowlabel.data.pixels.images import BadImage, load_rgb
    from hf_lowlabel.tasks.data_classes import photo_code

    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.repeat(pixels, 2, 0)).save("photo.jpg", "TIFF")
    with pytest.raises(BadImage, match="give --value-range"), Image.open("photo.jpg") as image:
        load_rgb(image)
    with pytest.raises(ValueError, match="give --value-range"):
        exec(photo_code(None), dict(np=np, Image=Image, ImageOps=ImageOps))
    scope = dict(np=np, Image=Image, ImageOps=ImageOps)
    exec(photo_code([0, 100_000]), scope)
    with Image.open("photo.jpg") as image:
        assert np.array_equal(scope["image"], load_rgb(image, (0, 100_000)))


def test_backbone_snippets(tmp_path, monkeypatch):
    from hf_lowlabel.models import create_backbone

    folder = tmp_path / "pets-byol"
    model = create_backbone("resnet10t", pretrained=False, image_size=32).eval()
    model.save_pretrained(folder)
    facts = RunRecord(
        "backbone",
        method="byol",
        architecture="resnet10t",
        data=Data("pets"),
        steps=3,
        metrics={"knn_accuracy": 0.6, "feature_std": 0.1},
        comparisons=[Row("before", {"knn_accuracy": 0.5})],
    )
    text = write_card(folder, facts).read_text()
    assert "| **this model** | 60.0 % | 0.100 |" in text and "| before | 50.0 % | – |" in text
    assert "hf-lowlabel finetune --model pets-byol" in text and "hardly differ between images (spread 0.10" in text
    assert ModelCard.load(folder / "README.md").data.pipeline_tag == "image-feature-extraction"
    (auto, scope), (_, timm_scope), (_, smp_scope) = run_snippets(folder, monkeypatch)
    x = scope["processor"](scope["image"], return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        expected = model.pooled(x)
        assert torch.equal(scope["features"], expected) and auto.strip() == f"torch.Size([1, {model.num_features}])"
        assert torch.allclose(timm_scope["encoder"](x), expected, atol=1e-6)
        assert torch.equal(smp_scope["segmenter"].encoder.eval()(x)[-1], model.feature_map(x))


@pytest.mark.parametrize(
    "architecture, stride, fits",
    [
        ("resnet10t", None, True),
        ("resnet10t", 32, True),
        ("resnet10t", 16, False),
        ("test_vit", None, False),
        ("test_convnext", None, True),
    ],
)
def test_unet_is_offered_where_smp_can_build_it(architecture, stride, fits):
    facts = RunRecord(
        "backbone", architecture=architecture, hyperparameters={"output_stride": stride} if stride else {}
    )
    assert any("smp.Unet" in code for code in of_record("backbone").snippets(facts, "pets")) == fits


@pytest.mark.parametrize(
    "method, given, tagged",
    [
        ("fixmatch", {}, True),
        ("supervised", {}, False),
        ("knn", {}, False),
        ("label-spreading", {}, True),
        ("probe", {}, False),
        ("probe", {"prior": "priors.safetensors"}, True),
    ],
)
def test_what_learns_from_labels_alone_is_not_tagged_semi_supervised(method, given, tagged, tmp_path):
    card = ModelCard.load(write_card(tmp_path, full(method=method, lineage=[], hyperparameters=given)))
    assert ("semi-supervised" in card.data.tags) == tagged


def test_snippets_name_the_hub_once_pushed():
    facts = RunRecord("backbone", hub_id="me/pets", architecture="resnet10t")
    both = of_record("backbone").snippets(facts, "me/pets")
    assert (
        'from_pretrained("me/pets")' in both[0] and '"hf-hub:me/pets"' in both[1] and '"tu-hf-hub:me/pets"' in both[2]
    )


# ---- segmenters -----------------------------------------------------------------------------------------------------


def mask_facts(**changes):
    from hf_lowlabel.evaluation.confusion import segmentation_metrics

    matrix = np.array([[900, 50, 50, 0], [10, 90, 0, 0], [80, 0, 20, 0], [0, 0, 0, 0]])
    measured = {**segmentation_metrics(matrix, ["background", "cat", "dog", "owl"]), "images": 40}
    values = dict(
        kind="segmentation",
        method="fixmatch",
        class_names=["background", "cat", "dog", "owl"],
        labels=Labels(12, {"background": 12, "cat": 7, "dog": 5, "owl": 0}),
        metrics=measured,
        data=Data("pets", hub_id="org/pets", images=300),
    )
    return RunRecord(**{**values, **changes})


def test_card_of_a_segmenter(tmp_path):
    (tmp_path / "curves.png").touch(), (tmp_path / "predictions.png").touch()
    card = ModelCard.load(write_card(tmp_path, mask_facts(name="pets-12", license="mit")))
    text = card.text
    assert "Sorts every pixel of images of [pets](https://huggingface.co/datasets/org/pets) into 4 classes" in text
    assert (
        "**12 images with masks** among 300" in text
        and "![pets-12: test images with predictions](predictions.png)" in text
    )
    limits = text.partition("## Limits")[2].partition("## How")[0]
    assert "No mask showed `owl`: never named in training." in limits
    iou = 20 / (100 + 70 - 20)
    assert f"`dog` IoU {100 * iou:.1f} % (8.3 % of the test pixels), `cat` IoU 60.0 %" in limits
    assert "No test pixel showed `owl`: nothing is known about it." in limits and "Only 40 test images" in limits
    assert card.data.pipeline_tag == "image-segmentation" and card.data.metrics == ["mean_iou"]
    results = {r.metric_type: r.metric_value for r in card.data.eval_results}
    assert (
        results["mean_iou"] == pytest.approx(np.mean([900 / 1090, 0.6, iou]), abs=1e-6) and "pixel_accuracy" in results
    )


def test_segmenter_snippet(tmp_path, monkeypatch):
    from hf_lowlabel.models.segmentation import create_segmenter

    folder = tmp_path / "pets"
    model = create_segmenter(
        "resnet10t", 3, architecture="unet", pretrained=False, class_names=["background", "cat", "dog"]
    ).eval()
    model.save_pretrained(folder)
    write_card(folder, mask_facts(class_names=["background", "cat", "dog"], metrics={}, labels=None))
    ((said, scope),) = run_snippets(folder, monkeypatch)
    x = scope["processor"](scope["image"], return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        assert torch.equal(scope["p"], model(x).logits.softmax(1))
    assert scope["image"].size == (50, 40) and scope["mask"].shape == (40, 50)  # turned upright
    assert sum(eval(said).values()) == pytest.approx(1) and set(eval(said)) <= {"background", "cat", "dog"}


def test_how_the_labels_fall_on_the_classes(tmp_path):
    """Of masks and of several classes, how many images show each."""

    def line(kind, **counts):
        text = write_card(tmp_path, RunRecord(kind, labels=Labels(8, counts))).read_text()
        return next(row for row in text.splitlines() if "Labels: " in row)

    assert line("classification", cat=4, dog=4).endswith("Labels: 8, 4 per class")
    assert line("classification", cat=3, dog=5).endswith("Labels: 8, 3 to 5 per class")
    assert line("segmentation", sky=8, car=8).endswith("Labels: 8, each class shown by 8 of them")
    assert line("multilabel", sky=8, car=0).endswith("Labels: 8, each class shown by 0 to 8 of them (none: `car`)")
    shown = "Every labeled image showed `sky`: nothing was learned of it."
    assert shown in write_card(tmp_path, RunRecord("multilabel", labels=Labels(8, dict(sky=8, car=3)))).read_text()
