"""Methods on frozen features: an ordinary run folder, a model where the method is one, and no step of training."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForImageClassification

from hf_lowlabel import evaluate, finetune, load_source, predict
from hf_lowlabel.api.summary import summarise
from hf_lowlabel.data.splits.splits import Split
from hf_lowlabel.errors import UserError
from hf_lowlabel.finetuning.probes import Probe, probe_head
from hf_lowlabel.hub.push import contents, push
from hf_lowlabel.models import create_classifier
from hf_lowlabel.records import RunRecord
from hf_lowlabel.tasks import get_task
from hf_lowlabel.tasks.classification import eval_view
from hf_lowlabel.training import frozen
from hf_lowlabel.training.priors import load_priors

from ..pictures import OF_CLASSES, draw_nothing

DIGITS = dict(
    dataset="digits",
    model="cnn6_16",
    from_scratch=True,
    image_size=16,
    stored_size=16,
    num_labels=40,
    class_balanced=True,
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("frozen")
    with pytest.MonkeyPatch.context() as patch:
        draw_nothing(patch.setattr, *OF_CLASSES)
        return {
            name: finetune(**DIGITS, method=name, validation=10, output_dir=str(root / name))
            for name in ("probe", "knn", "label-spreading")
        }


@pytest.mark.parametrize("method", ["probe", "knn", "label-spreading"])
def test_a_run_folder_with_the_classes_of_every_image(method, runs):
    import pyarrow.parquet as pq

    run = runs[method]
    facts, metrics = (json.loads((run.folder / name).read_text()) for name in ("run.json", "metrics.json"))
    assert (
        facts["method"] == method
        and facts["metrics"]["accuracy"] == metrics["accuracy"] == run.metrics["accuracy"] > 0.5
    )
    assert f"{metrics['accuracy']:.1%}".replace("%", " %") in (run.folder / "README.md").read_text()
    split, source = Split.load(run.folder / "split.json"), load_source("digits")
    rows = pq.read_table(run.folder / "predictions.parquet").to_pylist()
    assert sorted(r["id"] for r in rows) == sorted(source.ids)
    parts = {part: [r for r in rows if r["part"] == part] for part in ("labeled", "unlabeled", "validation", "test")}
    assert {r["id"] for r in parts["labeled"]} == set(split.labeled) and len(parts["labeled"]) == 40
    assert {r["id"] for r in parts["validation"]} == set(split.validation) and {r["id"] for r in parts["test"]} == set(
        split.test
    )
    true = dict(zip(source.ids, (source.class_names[k] for k in source.labels), strict=True))
    assert np.mean([r["class"] == true[r["id"]] for r in parts["test"]]) == pytest.approx(metrics["accuracy"])
    assert np.mean([r["class"] == true[r["id"]] for r in parts["validation"]]) == metrics["validation_accuracy"]
    trained = {r["id"]: r["class"] for r in parts["labeled"] + parts["unlabeled"]}
    p = load_priors(run.folder / "priors.safetensors", list(trained), split.class_names)
    assert [split.class_names[k] for k in p.argmax(1).tolist()] == list(trained.values())


def test_the_probe_is_a_model_whose_body_has_not_moved(runs):
    run = runs["probe"]
    assert evaluate(str(run.folder), "digits")["accuracy"] == run.metrics["accuracy"]
    model = get_task("classification").load(run.folder, device="cpu")
    view = eval_view(model)
    images = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8)
    x = view(images, torch.zeros(4, view.width, dtype=torch.float64))
    theirs = AutoModelForImageClassification.from_pretrained(run.folder).eval()
    with torch.no_grad():
        assert torch.equal(theirs(x).logits, model(x).logits)
    start = run.model.state_dict()
    saved = load_file(run.folder / "model.safetensors")
    assert all(torch.equal(start[f"timm_model.{k}"].cpu(), v) for k, v in saved.items())
    assert not any(p.grad is not None for p in run.model.parameters())
    assert int(saved["stage1.1.num_batches_tracked"]) == 0


@pytest.mark.parametrize("method", ["knn", "label-spreading"])
def test_neighbours_leave_no_model_and_say_so(method, runs):
    folder = runs[method].folder
    assert not (folder / "model.safetensors").exists() and not (folder / "config.json").exists()
    assert (
        "predictions.parquet" in (folder / "README.md").read_text()
        and "pipeline(" not in (folder / "README.md").read_text()
    )
    with pytest.raises(UserError, match="knn or label-spreading, which leave predictions.parquet"):
        get_task("classification").load(folder)
    with pytest.raises(UserError, match=f"The run of {method} in .*--method probe --prior {folder}/priors.safetensors"):
        push(folder, "org/neighbours")
    assert contents(runs["probe"].folder)["model.safetensors"].is_file()  # a probe is a model


def test_an_image_that_no_label_reaches_has_no_prior(tmp_path, monkeypatch):
    """What label spreading answers for it is even over the classes that have labels, here seven of ten."""
    draw_nothing(monkeypatch.setattr, *OF_CLASSES)
    answered = frozen.predict

    def few_classes(*given, **known):
        parts = answered(*given, **known)
        parts["training"] = np.eye(10, dtype=np.float32)[np.arange(len(parts["training"])) % 7]
        parts["training"][0, :7] = np.float32(1 / 7)
        return parts

    monkeypatch.setattr(frozen, "predict", few_classes)
    run = finetune(**DIGITS, method="label-spreading", output_dir=str(tmp_path / "run"))
    ids = load_ids(run)
    p = load_priors(run.folder / "priors.safetensors", ids, Split.load(run.folder / "split.json").class_names)
    assert torch.allclose(p[0], torch.tensor(0.1)) and (p[1:].amax(1) == 1).all()


@pytest.mark.parametrize("name", ["nosuch", "./nosuch", "/nowhere/nosuch"])
def test_a_model_that_is_not_there_is_named(name, tmp_path):
    with pytest.raises(UserError, match="There is no model .*nosuch'. Give a run folder, a saved model or a Hub id"):
        predict([str(tmp_path)], name, output=None)


def test_a_head_fitted_to_label_spreading_when_it_is_asked_for(runs, tmp_path):
    """--prior: the probe learns from the classes that label spreading gave every image."""
    spread = runs["label-spreading"]
    run = finetune(
        **{**DIGITS, "num_labels": None, "class_balanced": False},
        method="probe",
        split=str(spread.folder / "split.json"),
        prior=str(spread.folder / "priors.safetensors"),
        output_dir=str(tmp_path / "head"),
    )
    p, q = (
        load_priors(
            r.folder / "priors.safetensors", load_ids(spread), Split.load(spread.folder / "split.json").class_names
        )
        for r in (spread, run)
    )
    alone = load_priors(
        runs["probe"].folder / "priors.safetensors",
        load_ids(spread),
        Split.load(spread.folder / "split.json").class_names,
    )
    same = [float((p.argmax(1) == other.argmax(1)).float().mean()) for other in (q, alone)]
    assert same[0] > 0.95 > same[1] and (run.folder / "model.safetensors").is_file()


def load_ids(run) -> list[str]:
    split = Split.load(run.folder / "split.json")
    held = set(split.test) | set(split.validation)
    return [id for id in load_source("digits").ids if id not in held]


@pytest.mark.parametrize(
    "bad, words",
    [
        (
            dict(learning_rate=0.1, max_steps=5),
            "max_steps and learning_rate mean nothing to knn, which trains no network",
        ),
        (dict(prior="x"), "knn has no use for prior pseudo-labels"),
        (dict(method_args={"kk": 3}), "unknown hyperparameter of knn 'kk': did you mean 'k'"),
        (dict(method_args={"k": "all"}), "k of knn is 'all'. Use a number"),
        (dict(init_from="nowhere"), "neither config.json nor objective.safetensors in nowhere"),
        (dict(compare_supervised="nowhere"), "There is no nowhere/run.json"),
        (dict(push_to_hub="org/knn"), "knn leaves no network"),
    ],
)
def test_settings_of_training_are_refused(bad, words, tmp_path):
    with pytest.raises(UserError) as e:
        finetune(**DIGITS, method="knn", output_dir=str(tmp_path / "run"), **bad)
    assert words in str(e.value), str(e.value)


def test_a_baseline_of_another_kind_is_found_before_training(tmp_path, monkeypatch):
    monkeypatch.setattr("hf_lowlabel.tasks.classification.features_of", lambda *args: pytest.fail("computed"))
    for kind, metrics, words in (
        ("backbone", {"knn_accuracy": 0.5}, "one of backbone with results"),
        ("classification", {}, "one of classification without results"),
    ):
        RunRecord(kind, metrics=metrics).to_json(tmp_path / kind / "run.json")
        with pytest.raises(
            UserError, match=f"run in .*{kind} cannot be compared with: it is {words}. Give a finished run of"
        ):
            finetune(
                **DIGITS,
                method="knn",
                compare_supervised=str(tmp_path / kind),
                output_dir=str(tmp_path / f"run-{kind}"),
            )


def test_dry_run(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    summarise(finetune(**DIGITS, method="probe", dry_run=True))
    assert "nothing was kept" in capsys.readouterr().out and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "name, args",
    [
        ("test_resnet", {}),
        ("shvit_s1", {}),
        ("mobilenetv3_small_050", {}),
        ("vit_tiny_patch16_224", dict(depth=1)),
    ],
)
def test_the_head_is_logistic_regression_on_every_kind_of_last_layer(name, args):
    """A BatchNorm before the layer (SHViT) is undone in its weights."""
    torch.manual_seed(0)
    model = create_classifier(name, 3, pretrained=False, image_size=32, model_args=args).eval()
    for m in model.modules():
        if isinstance(m, torch.nn.BatchNorm1d):
            m.running_mean.normal_(std=1e-5)  # as large as the features, whose differences float32 would lose beside 1
            m.running_var.uniform_(0.5, 2)
    x, labels = torch.rand(9, 3, 32, 32), np.arange(9) % 3
    with torch.no_grad():
        f = model.features(x).numpy()
        weight, bias = (torch.from_numpy(v) for v in probe_head(f, labels, num_classes=3, l2=1.0))
        model.set_classifier(weight, bias)
        expected = torch.from_numpy(Probe(l2=1.0).fit_predict(f, labels, f, num_classes=3))
        torch.testing.assert_close(model(x).logits.softmax(1), expected, atol=1e-3, rtol=1e-3)


def test_a_head_of_several_layers_is_refused():
    model = create_classifier("cnn6_16", 3, pretrained=False)
    model.__dict__["_heads"] = [
        torch.nn.Sequential(torch.nn.Linear(64, 8), torch.nn.Linear(8, 3, bias=False))
    ]  # as MetaFormer's
    with pytest.raises(UserError, match="must be one linear layer with a bias"):
        model.set_classifier(torch.zeros(3, 64), torch.zeros(3))


@pytest.mark.parametrize("method", ["probe", "label-spreading"])
def test_a_finished_run_is_not_computed_again_with_other_settings(method, tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        draw_nothing(patch.setattr, *OF_CLASSES)
        first = finetune(**DIGITS, method=method, output_dir=str(tmp_path / "a"))
        before = {file.name: file.read_bytes() for file in first.folder.iterdir() if file.is_file()}
        with pytest.raises(UserError, match="a cannot be resumed with other settings: seed was 0, now 1"):
            finetune(**DIGITS, method=method, output_dir=str(tmp_path / "a"), seed=1, resume=True)
        assert {file.name: file.read_bytes() for file in first.folder.iterdir() if file.is_file()} == before
        again = finetune(**DIGITS, method=method, output_dir=str(tmp_path / "a"), resume=True)
    assert again.metrics["accuracy"] == first.metrics["accuracy"]
