"""The Python API with what a user has in hand: data in memory, a module as model, a class as method, callbacks."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import pytest
import timm
import torch
import torch.nn.functional as F
import yaml
from PIL import Image
from safetensors.torch import load_file

from hf_lowlabel import (
    Callback,
    FinetuneObjective,
    PretrainObjective,
    create_backbone,
    create_classifier,
    create_segmenter,
    evaluate,
    finetune,
    losses,
    predict,
    pretrain,
    report,
)
from hf_lowlabel.errors import UserError
from hf_lowlabel.objective import IGNORE_INDEX
from tests.pictures import draw_nothing
from tests.quick import few_shapes

SMALL = dict(
    model="cnn6_16",
    from_scratch=True,
    image_size=16,
    stored_size=16,
    batch_size=6,
    max_steps=4,
    logging_steps=1,
    save_steps=2,
    eval_steps=4,
)
FINETUNE = dict(SMALL, num_labels=10, unlabeled_ratio=2)
PRETRAIN = dict(SMALL, method="simsiam", method_args=dict(out=32, hidden=16))


def picture(k: int, rng) -> Image.Image:
    pixels = rng.integers(90, 160, (16, 16, 3), dtype=np.uint8)
    pixels[4:12, 4:12, k] = 250
    return Image.fromarray(pixels)


def rows(count: int, seed: int = 0) -> dict:
    rng = np.random.default_rng(seed)
    labels = [i % 3 for i in range(count)]
    return {"image": [picture(k, rng) for k in labels], "label": labels}


def table(count: int, seed: int = 0) -> datasets.Dataset:
    names = datasets.ClassLabel(names=["red", "green", "blue"])
    return datasets.Dataset.from_dict(
        rows(count, seed), features=datasets.Features({"image": datasets.Image(), "label": names})
    )


def frame(count: int, seed: int = 0) -> pd.DataFrame:
    return pd.DataFrame(rows(count, seed))


def pairs(root: Path, count: int, seed: int = 0) -> list:
    given, root = rows(count, seed), root / "private-folder"
    root.mkdir(parents=True, exist_ok=True)
    for i, image in enumerate(given["image"]):
        image.save(root / f"{i:02d}.png")
    return [(root / f"{i:02d}.png", "rgb"[k]) for i, k in enumerate(given["label"])]


DATA = {
    "Dataset": lambda root: table(24),
    "DatasetDict": lambda root: datasets.DatasetDict({"train": table(24), "test": table(9, 1)}),
    "DataFrame": lambda root: frame(24),
    "list": lambda root: pairs(root, 24),
}


def weights(done) -> dict[str, torch.Tensor]:
    return load_file(done.folder / "model.safetensors")


def equal(a, b) -> bool:
    a, b = weights(a), weights(b)
    return a.keys() == b.keys() and all(a[k].equal(b[k]) for k in a)


def says_no_path(folder: Path, *paths: Path) -> None:
    for name in ("run.json", "training.yaml", "README.md", "split.json"):
        if (folder / name).is_file():
            text = (folder / name).read_text()
            for path in (*paths, "private-folder", "object at 0x"):
                assert str(path) not in text, f"{path} in {name}"


class StopAtStep2(Callback):
    def on_save(self, state):
        if state.step == 2:
            raise KeyboardInterrupt


# ---- data in memory -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", DATA)
def test_finetune_and_pretrain_on_data_in_memory(tmp_path, kind):
    data = DATA[kind](tmp_path)
    start = pretrain(data, output_dir=tmp_path / "backbone", **PRETRAIN)
    settings = {**FINETUNE, "model": str(start.folder), "from_scratch": False}
    done = finetune(data, method="supervised", output_dir=tmp_path / "run", **settings)
    facts = json.loads((done.folder / "run.json").read_text())
    assert facts["data"]["name"] == "memory" and facts["data"]["images"] == (24 if kind == "DatasetDict" else 19)
    assert done.metrics["images"] == (9 if kind == "DatasetDict" else 5)
    assert facts["data"]["test"] == (
        "split 'test'" if kind == "DatasetDict" else "20 % of the labeled images, held out"
    )
    assert yaml.safe_load((done.folder / "training.yaml").read_text())["dataset"] == f"a {kind} in memory"
    says_no_path(done.folder)
    says_no_path(start.folder)
    again = evaluate(done.folder, data)
    assert again["accuracy"] == pytest.approx(done.metrics["accuracy"]) and again["images"] == done.metrics["images"]


@pytest.mark.parametrize("kind", DATA)
def test_unlabeled_data_in_memory(tmp_path, kind):
    more = DATA[kind](tmp_path)
    done = finetune(table(15), unlabeled_dataset=more, output_dir=tmp_path / "run", **FINETUNE)
    facts = json.loads((done.folder / "run.json").read_text())
    assert facts["data"]["images"] == 12 + 24 - 3  # the test images are among the 24, and not learned from
    assert facts["data"]["unlabeled_from"] == f"a {kind} in memory"
    assert done.metrics["images"] == 3
    says_no_path(done.folder)


def test_other_targets_in_memory(tmp_path):
    data = frame(20)
    data["labels"] = [["a", "b"][: i % 3] for i in range(20)]
    several = data.drop(columns="label")
    done = finetune(several, task="multilabel", output_dir=tmp_path / "m", **FINETUNE)
    assert evaluate(done.folder, several)["map"] == pytest.approx(done.metrics["map"])
    for i in range(12):
        Image.fromarray(np.random.default_rng(i).integers(0, 2, (16, 16), dtype=np.uint8)).save(tmp_path / f"m{i}.png")
    masks = [(file, tmp_path / f"m{i}.png") for i, (file, _) in enumerate(pairs(tmp_path, 12))]
    settings = {k: v for k, v in FINETUNE.items() if k != "stored_size"} | dict(num_labels=4, architecture="unet")
    small = dict(architecture_args=dict(encoder_depth=3, decoder_channels=[16, 8, 8]))
    done = finetune(masks, task="segmentation", method="supervised", output_dir=tmp_path / "s", **settings, **small)
    assert "miou" in done.metrics
    says_no_path(done.folder)


@pytest.mark.parametrize("kind", DATA)
def test_a_run_on_data_in_memory_goes_on(tmp_path, kind):
    make = DATA[kind]
    whole = finetune(make(tmp_path), output_dir=tmp_path / "whole", **FINETUNE)
    with pytest.raises(KeyboardInterrupt):
        finetune(make(tmp_path), output_dir=tmp_path / "cut", callbacks=[StopAtStep2()], **FINETUNE)
    other = make(tmp_path)
    if kind == "list":
        other = [(path, "r") for path, _ in other]
        other[1] = (other[1][0], "g")
    elif kind == "DatasetDict":
        other["train"] = table(24, seed=7)
    else:
        other = {"Dataset": table, "DataFrame": frame}[kind](24, seed=7)
    with pytest.raises(
        UserError, match="cannot be resumed with other data: (classes gone: b; labels: |images, or labels)"
    ):
        finetune(other, output_dir=tmp_path / "cut", resume=True, **FINETUNE)
    again = finetune(make(tmp_path), output_dir=tmp_path / "cut", resume=True, **FINETUNE)
    assert equal(whole, again) and again.metrics == whole.metrics


def test_a_report_says_what_it_cannot_open(tmp_path):
    done = finetune(frame(24), method="supervised", output_dir=tmp_path / "run", **FINETUNE)
    page = report([done.folder], tmp_path / "r.html").read_text()
    assert "The data of this run was a DataFrame in memory, which is not in its folder." in page
    assert "Accuracy of the classes" in page
    with pytest.raises(UserError, match="The data of this run was a DataFrame in memory"):
        finetune(output_dir=tmp_path / "x", **{**FINETUNE, **dict(dataset="a DataFrame in memory")})


# ---- a module as the model ------------------------------------------------------------------------------------------
FROM_MODULE = {k: v for k, v in FINETUNE.items() if k not in ("model", "from_scratch")}


def test_a_timm_module(tmp_path):
    torch.manual_seed(3)
    module = timm.create_model("test_resnet", num_classes=7)
    before = {k: v.clone() for k, v in module.state_dict().items()}
    probe = {k: v for k, v in FROM_MODULE.items() if k not in ("batch_size", "max_steps", "unlabeled_ratio")}
    done = finetune(table(24), model=module, method="probe", output_dir=tmp_path / "run", **probe)
    assert done.model.config.num_labels == 3
    for key, value in done.model.timm_model.state_dict().items():
        if not key.startswith("fc."):
            assert value.equal(before[key]), key
    assert all(v.equal(before[k]) for k, v in module.state_dict().items())
    lineage = json.loads((done.folder / "run.json").read_text())["lineage"]
    assert lineage[0] == {**lineage[0], "what": "pretrained weights", "name": "a ResNet in memory", "hub_id": None}
    assert yaml.safe_load((done.folder / "training.yaml").read_text())["model"] == "a ResNet in memory"
    page = report([done.folder], tmp_path / "r.html").read_text()
    assert "a DataFrame" not in page and "was a Dataset in memory" in page
    says_no_path(done.folder)
    trained = pretrain(
        table(24),
        model=module,
        output_dir=tmp_path / "pre",
        **{k: v for k, v in PRETRAIN.items() if k in FROM_MODULE or "method" in k},
    )
    assert trained.model.config.architecture == "test_resnet"
    assert predict(pairs(tmp_path, 3)[0][0], done.model).rows[0]["class"] in ("red", "green", "blue")


@pytest.mark.parametrize("make", ["classifier", "backbone"])
def test_models_of_ours(tmp_path, make):
    torch.manual_seed(1)
    made = (
        create_classifier("cnn6_16", 3, pretrained=False, class_names=["red", "green", "blue"], image_size=16)
        if make == "classifier"
        else create_backbone("cnn6_16", pretrained=False, image_size=16)
    )
    first = next(made.timm_model.parameters()).clone()
    done = finetune(
        table(24), model=made, method="supervised", output_dir=tmp_path / "r", **dict(FROM_MODULE, learning_rate=0)
    )
    assert next(done.model.timm_model.parameters()).equal(first)
    if make == "classifier":
        for a, b in zip(made.parameters(), done.model.parameters(), strict=True):
            assert a.equal(b)


def test_a_segmenter_of_ours(tmp_path, monkeypatch):
    few_shapes(monkeypatch.setattr)
    made = create_segmenter(
        "cnn6_16",
        5,
        architecture="unet",
        architecture_args=dict(encoder_depth=3, decoder_channels=[16, 8, 8]),
        pretrained=False,
        class_names=["background", "disc", "square", "triangle", "cross"],
    )
    first = next(made.parameters()).clone()
    settings = {k: v for k, v in FROM_MODULE.items() if k != "stored_size"} | dict(
        num_labels=4, max_steps=1, eval_steps=9
    )
    common = dict(task="segmentation", method="supervised", **settings)
    done = finetune("shapes", model=made, output_dir=tmp_path / "r", **dict(common, learning_rate=0))
    assert next(done.model.parameters()).equal(first)
    encoder = timm.create_model("test_resnet")
    done = finetune(
        "shapes", model=encoder, output_dir=tmp_path / "e", architecture="unet", **dict(common, learning_rate=0)
    )
    stem = encoder.state_dict()["conv1.0.weight"]
    assert any(v.shape == stem.shape and v.equal(stem) for v in done.model.state_dict().values())


# ---- a class as the method ------------------------------------------------------------------------------------------
class SureMatch(FinetuneObjective):
    """FixMatch whose threshold rises over training, in twenty lines; it counts the images it has used."""

    paper, year = "nobody, nowhere", 2026

    def __init__(self, model, *, tau: float = 0.4, ema_decay: float = 0.9):
        super().__init__(model, ema_decay=ema_decay)
        self.tau = tau
        self.register_buffer("used", torch.zeros(()))

    def forward(self, batch, t):
        labeled, unlabeled = batch["labeled"], batch["unlabeled"]
        supervised = F.cross_entropy(self.model(labeled["image"]).logits, labeled["target"])
        with torch.no_grad():
            confidence, guess = self.model(unlabeled["weak"]).logits.softmax(1).max(1)
        sure = (confidence >= self.tau + 0.1 * t).float()
        self.used += sure.sum()
        noise = torch.rand((), device=sure.device)  # as a dropout would draw
        loss = F.cross_entropy(self.model(unlabeled["strong"]).logits, guess, reduction="none")
        return {"loss": supervised + (sure * loss).mean() * noise, "sure": sure.mean(), "used": self.used.clone()}


class Rotation(PretrainObjective):
    """Which of two quarter turns."""

    views = ("byol1",)

    def __init__(self, encoder):
        super().__init__(encoder)
        self.head = torch.nn.Linear(encoder.num_features, 2)

    def forward(self, batch, t):
        (x,) = batch["views"]
        both = torch.cat([x, x.rot90(1, (2, 3))])
        target = torch.arange(2, device=x.device).repeat_interleave(len(x))
        return {"loss": F.cross_entropy(self.head(self.encoder.pooled(both)), target)}


def test_a_method_of_ones_own(tmp_path):
    settings = dict(FINETUNE, method=SureMatch, method_args=dict(tau=0.3))
    whole = finetune(table(24), output_dir=tmp_path / "whole", **settings)
    with pytest.raises(KeyboardInterrupt):
        finetune(table(24), output_dir=tmp_path / "cut", callbacks=[StopAtStep2()], **settings)
    again = finetune(table(24), output_dir=tmp_path / "cut", resume=True, **settings)
    assert equal(whole, again)
    rows = [row for row in whole.history if "loss" in row]
    assert all({"sure", "used"} <= row.keys() for row in rows) and rows[-1]["used"] >= rows[0]["used"] > 0
    assert [row["used"] for row in rows] == [row["used"] for row in again.history if "loss" in row]
    card = (whole.folder / "README.md").read_text()
    assert "with sure-match" in card and "tau" in card
    assert json.loads((whole.folder / "run.json").read_text())["method"] == "sure-match"
    assert yaml.safe_load((whole.folder / "training.yaml").read_text())["method"] == "sure-match"
    report([whole.folder], tmp_path / "r.html")
    with pytest.raises(UserError, match="hyperparameter of sure-match 'tua'.*tau"):
        finetune(table(24), output_dir=tmp_path / "x", **dict(settings, method_args=dict(tua=1)))
    with pytest.raises(UserError, match="cannot be resumed with other settings: method_args"):
        finetune(table(24), output_dir=tmp_path / "cut", resume=True, **dict(settings, method_args=dict(tau=0.5)))


class Dice(FinetuneObjective):
    """1 - Dice of the pixels that take part, as `help(FinetuneObjective)` says which do."""

    seen: list = []

    def forward(self, batch, t):
        labeled, unlabeled = batch["labeled"], batch["unlabeled"]
        target, valid = labeled["target"], labeled["valid"]
        self.seen.append((target.dtype, target.shape[0] == len(labeled["key"]), {*target.unique().tolist()}))
        assert valid.dtype == torch.bool and valid.shape == target.shape and (target[~valid] == IGNORE_INDEX).all()
        assert unlabeled["valid"].shape == unlabeled["strong"][:, 0].shape
        counts = (target != IGNORE_INDEX)[:, None]
        p = self.model(labeled["image"]).logits.softmax(1) * counts
        y = F.one_hot(target.clamp_min(0), p.shape[1]).permute(0, 3, 1, 2) * counts
        return {"loss": 1 - 2 * (p * y).sum() / (p + y).sum()}


def test_a_method_for_masks_of_ones_own(tmp_path):
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 255, (32, 32, 3), dtype=np.uint8) for _ in range(6)]
    masks = [rng.integers(0, 3, (32, 32), dtype=np.uint8) for _ in range(4)]
    for mask in masks:
        mask[:8] = 255
    data = [*zip(images, [*masks, None, None], strict=True)]
    made = dict(task="segmentation", classes=["a", "b", "c"], model="test_resnet", from_scratch=True, max_steps=2)
    few = dict(image_size=32, batch_size=2, architecture="unet", device="cpu", eval_steps=9, test_fraction=0.0)
    finetune(data, method=Dice, output_dir=tmp_path / "r", **made, **few)
    assert all(kind == torch.int64 and whole for kind, whole, _ in Dice.seen)
    assert {IGNORE_INDEX, 0, 1, 2} == set.union(*(values for *_, values in Dice.seen))


def test_a_pretraining_of_ones_own(tmp_path):
    done = pretrain(table(24), output_dir=tmp_path / "r", **dict(SMALL, method=Rotation))
    card = (done.folder / "README.md").read_text()
    assert "with rotation" in card and [row["step"] for row in done.history if "loss" in row] == [1, 2, 3, 4]


# ---- wrong objects --------------------------------------------------------------------------------------------------
class Nothing:
    pass


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(method=Rotation), "The method of finetune is .*Rotation.*subclass of FinetuneObjective"),
        (dict(method=Nothing), "The method of finetune is .*Nothing.*subclass of FinetuneObjective"),
        (dict(method=3), "The method of finetune is 3. Give a name"),
        (dict(method=FinetuneObjective), "FinetuneObjective has no forward.batch, t."),
        (dict(dataset=3), "A data set cannot be read from a int"),
        (dict(dataset={"image": []}), "A data set cannot be read from a dict"),
        (dict(dataset=[3]), "A list of images holds images or .image, label. pairs, not"),
        (dict(dataset=None), "No data is given"),
        (dict(dataset=pd.DataFrame({"x": [1]})), "columns with images"),
        (dict(model=torch.nn.Linear(2, 2)), "An object of Linear cannot be the model of a run"),
        (dict(model=3), "An object of int cannot be the model of a run"),
        (dict(callbacks=[Nothing()]), "Nothing.* is no callback. Give objects"),
        (dict(lr=0.1), "lr is called learning_rate here"),
        (dict(num_train_epochs=3), "num_train_epochs is called epochs here"),
        (dict(callbacks=[Callback]), "is no callback. Give objects"),
    ],
)
def test_wrong_objects(tmp_path, changes, message):
    settings = {**FINETUNE, "dataset": table(12), "output_dir": str(tmp_path / "run"), **changes}
    if isinstance(settings["model"], torch.nn.Module):
        settings["from_scratch"] = False
    with pytest.raises(UserError, match=message) as caught:
        finetune(**settings)
    assert len(str(caught.value)) < 400
    assert not (tmp_path / "run").exists() or not any((tmp_path / "run").iterdir())


# ---- callbacks ------------------------------------------------------------------------------------------------------
class Notes(Callback):
    def __init__(self):
        self.seen = []

    def on_step_end(self, state, scalars):
        self.seen.append(("step", state.step, sorted(scalars)[0]))

    def on_log(self, state, row):
        self.seen.append(("log", row["step"]))

    def on_evaluate(self, state, scores):
        self.seen.append(("evaluate", state.step, *scores))

    def on_save(self, state):
        self.seen.append(("save", state.step, state.record.method))

    def on_train_end(self, state):
        self.seen.append(("end", state.step, (state.folder / "README.md").is_file()))


def test_callbacks(tmp_path):
    notes = Notes()
    settings = dict(FINETUNE, method="supervised", callbacks=[notes])
    done = finetune(table(24), output_dir=tmp_path / "r", **settings)
    kinds = [note[0] for note in notes.seen]
    assert kinds == ["step", "log"] * 2 + ["save"] + ["step", "log"] * 2 + ["evaluate", "save", "save", "end"]
    assert notes.seen[-1] == ("end", 4, True) and ("evaluate", 4, "test_accuracy") in notes.seen
    assert ("save", 2, "supervised") in notes.seen and repr(done).startswith("Run(finetune supervised, ")

    class Stop(Callback):
        def on_step_end(self, state, scalars):
            state.stop = state.step == 3

    early = finetune(table(24), output_dir=tmp_path / "e", **dict(settings, callbacks=[Stop()]))
    assert early.progress.step == 3 and (early.folder / "model.safetensors").is_file()
    notes = Notes()
    pretrain(table(12), output_dir=tmp_path / "p", **PRETRAIN, callbacks=[notes])
    assert notes.seen[-1][0] == "end" and ("save", 2, "simsiam") in notes.seen


# ---- losses ---------------------------------------------------------------------------------------------------------
def test_losses_are_plain_functions():
    g = torch.Generator().manual_seed(0)
    z, w = (torch.randn(6, 8, generator=g) for _ in range(2))
    logits, target = torch.randn(6, 4, generator=g), torch.tensor([0, 1, 2, 3, 0, 1])
    p, index, t = logits.softmax(1), torch.arange(6), 0.5
    negatives = F.normalize(torch.randn(10, 8, generator=g), dim=1)
    u, v = F.normalize(z, dim=1), F.normalize(w, dim=1)
    called = {
        "byol_loss": losses.byol_loss(z, w).mean(),
        "nt_xent": losses.nt_xent(u, 0.5),
        "info_nce": losses.info_nce(u, v, negatives, 0.2),
        "negative_cosine": losses.negative_cosine(z, w).mean(),
        "variance": losses.variance(z),
        "covariance": losses.covariance(z),
        "cross_entropy": losses.cross_entropy(logits, target),
        "masked_mean": losses.masked_mean(p, p > 0.1),
        "entropy": losses.entropy(logits).mean(),
        "kl": losses.kl(p, torch.randn(6, 4, generator=g)).mean(),
        "sharpen": losses.sharpen(p, 0.5).mean(),
        "align": losses.align(p, p.mean(0)).mean(),
        "mixup": losses.mixup(z, p, 0.75)[0].mean(),
        "linear_rampup": torch.tensor(losses.linear_rampup(0.2, 0.4)),
        "sigmoid_rampup": torch.tensor(losses.sigmoid_rampup(0.2, 0.4)),
    }
    rules = {
        "Fixed": losses.Fixed(tau=0.3),
        "Flex": losses.Flex(num_classes=4, num_images=6),
        "Free": losses.Free(num_classes=4),
        "Soft": losses.Soft(num_classes=4),
        "Ada": losses.Ada(num_classes=4),
        "Uda": losses.Uda(),
    }
    rules["Prior"] = losses.Prior(losses.Fixed(tau=0.3), p.flip(0))
    for name, rule in rules.items():
        assert isinstance(rule, losses.Rule)
        guess, weight = rule(p, index, p, t)
        assert guess.shape in ((6,), (6, 4)) and weight.shape == (6,) and ((weight >= 0) & (weight <= 1)).all(), name
        assert rule.penalty(logits, weight).shape == ()
    for name, value in called.items():
        assert value.shape == () and torch.isfinite(value), name
    assert {*called, *rules, "Rule"} == set(losses.__all__)
    assert losses.byol_loss(z, z).tolist() == pytest.approx([0] * 6, abs=1e-5)


def test_losses_stay_finite_in_half_precision_and_where_a_class_is_ruled_out():
    """float16 ends at 65,504: a sum over the pixels of one mask, or a ratio to a mean of almost 0, is larger."""
    half = dict(dtype=torch.float16)
    logits, mask = torch.zeros(1, 3, 300, 300, **half), torch.zeros(1, 300, 300, dtype=torch.int64)
    assert losses.cross_entropy(logits, mask).item() == pytest.approx(np.log(3), rel=1e-3)
    assert losses.masked_mean(torch.ones(300, 300, **half), mask[0] == 0) == 1
    z = 400 * torch.randn(64, 8, generator=torch.Generator().manual_seed(0)).half()
    for loss in (losses.covariance, losses.variance):
        assert loss(z).item() == pytest.approx(loss(z.float()).item(), rel=1e-3)
    p = torch.tensor([[1.0, 0, 0], [0, 0, 0]], **half)
    assert torch.equal(losses.align(p, torch.tensor([0.5, 0, 0.5], **half))[0], p[0].float())
    assert losses.sharpen(p, 0.5)[1].tolist() == pytest.approx([1 / 3] * 3)
    out = torch.tensor([[0.0, 0.0, -torch.inf]], requires_grad=True)
    for loss in (losses.entropy(out), losses.kl(torch.tensor([[0.5, 0.5, 0.0]]), out) + np.log(2)):
        assert loss.item() == pytest.approx(np.log(2))
        assert torch.autograd.grad(loss.sum(), out)[0].isfinite().all()
    assert losses.kl(torch.tensor([[0.5, 0.0, 0.5]]), out).isinf().all()


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    draw_nothing(monkeypatch.setattr, "sheets.captioned")
    logging.getLogger("hf_lowlabel").setLevel(logging.WARNING)
