"""The head that finetuning starts from, and what stays as the weights came."""

import numpy as np
import pytest
import timm
import torch
import yaml
from torch import nn

from hf_lowlabel import finetune, load_source, make_split, pretrain
from hf_lowlabel.arguments import Config
from hf_lowlabel.errors import UserError
from hf_lowlabel.finetuning.linear import softmax
from hf_lowlabel.models import create_backbone
from hf_lowlabel.models.began import was_trained
from hf_lowlabel.settings import resolve
from hf_lowlabel.training import head
from hf_lowlabel.training.head import labels_head, no_surer, priors_head
from hf_lowlabel.training.priors import load_priors, save_priors
from hf_lowlabel.training.run import keeps_statistics

SMALL = dict(image_size=16, device="cpu", num_labels=40, class_balanced=True, batch_size=8, max_steps=1)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoder") / "simclr"
    short = dict(batch_size=32, max_steps=30, method_args=dict(hidden=64))
    pretrain("digits", "cnn6_16", "simclr", from_scratch=True, output_dir=folder, image_size=16, device="cpu", **short)
    return folder


def test_a_head_from_priors_without_a_label_is_as_sure_as_they_are():
    """Of many classes, too, pseudo-label thresholds see the images that the priors are sure of, and no others."""
    rng = np.random.default_rng(0)
    means, y = 4 * rng.normal(size=(20, 64)), np.repeat(np.arange(20), 30)
    x = (means[y] + rng.normal(size=(600, 64))).astype(np.float32)
    none = np.zeros(0, np.int64)
    for sure in (0.97, 0.5):
        p = np.full((600, 20), (1 - sure) / 19)
        p[np.arange(600), y] = sure
        weight, bias = priors_head(x, p, x[:0], none)
        found = softmax(x @ weight.T + bias).max(1)
        assert found.mean() == pytest.approx(sure, abs=0.05)
        assert (found > 0.9).mean() > 0.8 if sure == 0.97 else (found > 0.9).mean() < 0.05


@pytest.mark.parametrize("method", ["supervised", "fixmatch", "mean-teacher"])
def test_training_starts_from_what_frozen_features_know(encoder, tmp_path, method):
    """At a rate of next to nothing the run is as good as the probe; from a random head it is at chance."""
    still = dict(SMALL, learning_rate=1e-9)
    known = finetune("digits", encoder, method, output_dir=tmp_path / "a", **still)
    random = finetune("digits", encoder, method, output_dir=tmp_path / "b", head_init="random", **still)
    probe = known.recorder.comparisons[0].metrics["accuracy"]
    assert known.metrics["accuracy"] > probe - 0.03 > random.metrics["accuracy"] + 0.1


def in_memory(trained: bool) -> nn.Module:
    """A network as timm makes it, with a head of ten classes; one step of training moves every weight of it."""
    torch.manual_seed(0)
    module = timm.create_model("test_resnet", num_classes=10)
    if trained:
        module(torch.randn(4, 3, 32, 32)).square().sum().backward()
        torch.optim.SGD(module.parameters(), 1e-3).step()
    return module


@pytest.mark.parametrize(
    "trained, asked, starts",
    [(True, None, True), (True, "random", False), (False, None, False), (False, "probe", True)],
)
def test_a_trained_module_starts_from_a_probe_and_keeps_its_statistics(trained, asked, starts, tmp_path, caplog):
    """As a folder of the same weights does; its head, of as many classes, may be one that timm made at random."""
    module = in_memory(trained)
    before = {k: v.clone() for k, v in module.state_dict().items() if k.endswith("running_mean")}
    given = dict(SMALL, head_init=asked, output_dir=tmp_path / "a")
    with caplog.at_level("INFO", "hf_lowlabel"):
        run = finetune("digits", module, "supervised", **given)
    assert run.recorder.report.head == "fresh"
    assert ("the head starts from a probe of 40 labels" in caplog.text) == starts
    after = run.progress.inner.model.timm_model.state_dict()
    moved = [k for k, v in before.items() if not torch.equal(v, after[k])]
    assert moved == ([] if trained else [*before])
    assert run.config.training.learning_rate == pytest.approx(0.03 / 8 * (0.1 if starts else 1))
    if trained and asked is None:
        create_backbone(module, image_size=16).save_pretrained(tmp_path / "folder")
        same = finetune("digits", tmp_path / "folder", "supervised", **{**given, "output_dir": tmp_path / "b"})
        first = [next(row["loss"] for row in r.history if "loss" in row) for r in (run, same)]
        assert first[0] == pytest.approx(first[1], rel=1e-5)


@pytest.mark.parametrize(
    "name", ["test_resnet", "test_vit", "test_convnext", "test_efficientnet", "swinv2_cr_tiny_224"]
)
def test_what_timm_makes_at_random_shows_no_training(name):
    """A vision transformer has no statistics, and those of a network move in a forward pass too."""
    net = timm.create_model(name, num_classes=3, **({"img_size": 32, "window_size": 1} if "swin" in name else {}))
    x = torch.randn(2, 3, *net.patch_embed.img_size) if hasattr(net, "patch_embed") else torch.randn(2, 3, 64, 64)
    loss = net.train()(x).square().sum()
    assert not was_trained(net)
    loss.backward()
    torch.optim.SGD(net.parameters(), 1e-3).step()
    assert was_trained(net) and not was_trained(nn.Linear(2, 2))


def test_priors_are_a_start_too(encoder, tmp_path):
    first = finetune("digits", encoder, "propagation", num_labels=40, image_size=16, output_dir=tmp_path / "a")
    from_priors = dict(prior=tmp_path / "a/priors.safetensors", split=tmp_path / "a/split.json", learning_rate=1e-9)
    given = {k: v for k, v in SMALL.items() if k not in ("num_labels", "class_balanced")}
    run = finetune("digits", encoder, "flexmatch", output_dir=tmp_path / "b", **given, **from_priors)
    assert run.metrics["accuracy"] > first.metrics["accuracy"] - 0.05


def test_the_head_is_calibrated_on_labels_left_out():
    """Confidence is that of new images, though every label is fitted without an error; on average over five draws."""
    gaps = []
    for seed in range(5):
        rng = np.random.default_rng(seed)
        means, y, new_y = rng.normal(size=(3, 40)), np.repeat(np.arange(3), 12), np.repeat(np.arange(3), 400)
        x, new = (means[c] + 2.5 * rng.normal(size=(len(c), 40)) for c in (y, new_y))
        weight, bias = labels_head(x.astype(np.float32), y, 4)
        assert ((x @ weight.T + bias).argmax(1) == y).all() and np.isfinite(bias).all()
        p = softmax(new @ weight.T + bias)
        assert (p[:, 3] < p[:, :3].max(1)).all()  # of the class without a label
        gaps.append(p.max(1).mean() - (p.argmax(1) == new_y).mean())
    assert abs(np.mean(gaps)) < 0.06


@pytest.mark.parametrize("times, classes, sure", [(0.1, 6, None), (10.0, 6, 0.5), (10.0, 2, 0.7), (1e6, 2, 0.7)])
def test_a_probe_is_not_too_sure_to_train_on_from(times, classes, sure):
    """Else the network below moves further than from a random head. The class of an image stays."""
    rng = np.random.default_rng(0)
    x, weight = rng.normal(size=(200, 40)).astype(np.float32), times * rng.normal(size=(classes, 40)).astype(np.float32)
    bias = times * np.ones(classes, np.float32)
    less = no_surer(weight, bias, x)
    logits = x @ less[0].T + less[1]
    assert (logits.argmax(1) == (x @ weight.T + bias).argmax(1)).mean() > 0.99 and less[0].dtype == np.float32
    if sure is None:
        assert (less[0] == weight).all() and (less[1] == bias).all()
    else:
        assert 0.95 * sure < softmax(logits).max(1).mean() <= sure + 1e-6


def test_what_a_run_starts_from_is_that_probe(encoder, tmp_path, monkeypatch):
    monkeypatch.setattr(head, "SURE", 0.1)  # of ten classes 0.19
    given = dict(learning_rate=1e-9, weight_decay=0.0, output_dir=tmp_path / "a", **SMALL)
    run = finetune("digits", encoder, "supervised", head_init="probe", **given)
    seen = run.model.preprocessing
    mean, std = (torch.tensor(seen[k])[:, None, None] for k in ("mean", "std"))
    with torch.no_grad():
        logits = run.model((run.recorder.caches[0].images.float() / 255 - mean) / std).logits
    assert 0.15 < float(logits.softmax(1).amax(1).mean()) < 0.22


def test_priors_of_other_labels_are_told_where_images_are_tested_on(encoder, tmp_path, caplog):
    source, path = load_source("digits"), tmp_path / "priors.safetensors"
    own = make_split(source, 20, class_balanced=True, test_fraction=0.2)
    p = np.eye(10)[np.arange(len(source)) % 10]
    for facts, said in (({"split": "f" * 64}, True), ({"split": own.hash}, False), ({}, False)):
        caplog.clear()
        save_priors(path, p, source.ids, own.class_names, facts)
        load_priors(path, source.ids, own.class_names, own)
        assert ("made with the labels of another split: if the 359 test images" in caplog.text) == said


def test_a_head_on_priors_outvotes_those_that_are_wrong():
    rng = np.random.default_rng(1)
    y = rng.integers(3, size=600)
    x = (np.eye(3)[y] @ rng.normal(size=(3, 20)) * 2 + rng.normal(size=(600, 20))).astype(np.float32)
    wrong = np.where(rng.random(600) < 0.3, rng.integers(3, size=600), y)
    weight, bias = priors_head(x, np.eye(3)[wrong] * 0.8 + 0.2 / 3, x[:30], y[:30])
    assert ((x @ weight.T + bias).argmax(1) == y).mean() > 0.93 > (wrong == y).mean()


def test_priors_that_are_not_there(encoder, tmp_path):
    with pytest.raises(UserError, match="head_init is priors, and there are none"):
        finetune("digits", encoder, "supervised", output_dir=tmp_path / "a", head_init="priors", **SMALL)
    assert not (tmp_path / "a").exists() or not list((tmp_path / "a").glob("*.*"))


@pytest.mark.parametrize("asked, kept", [(None, True), (True, True), (False, False)])
def test_small_batches_keep_the_statistics_of_the_weights(encoder, tmp_path, asked, kept):
    run = finetune("digits", encoder, "fixmatch", output_dir=tmp_path / "a", freeze_norm=asked, **SMALL)
    before = create_backbone(str(encoder)).state_dict()
    after = run.progress.inner.model.state_dict()
    norms = [k for k in before if k.endswith("running_mean")]
    assert norms and all(torch.equal(before[k], after[k]) == kept for k in norms)
    moved = [n for n, m in run.progress.inner.model.named_modules() if isinstance(m, nn.BatchNorm2d)]
    assert moved


def test_a_fresh_decoder_has_statistics_of_its_own(encoder, few_images, tmp_path):
    """Small batches and a frozen encoder keep the statistics of the weights; a new decoder came with none."""
    run = finetune(
        task="segmentation",
        dataset="shapes",
        num_labels=8,
        model=str(encoder),
        method="mean-teacher",
        architecture="linear",
        architecture_args={"layers": 1},
        freeze_encoder=True,
        image_size=32,
        batch_size=4,
        max_steps=1,
        device="cpu",
        output_dir=tmp_path / "a",
    )
    from hf_lowlabel.models import create_backbone

    before = create_backbone(str(encoder)).state_dict()
    for model in (run.progress.inner.model, run.progress.inner.evaluated):
        assert model.network.norm.running_mean.abs().sum() > 0
        after = {k.removeprefix("network.encoder.model."): v for k, v in model.state_dict().items()}
        same = [
            torch.equal(after[name], v) for k, v in before.items() if (name := k.removeprefix("timm_model.")) in after
        ]
        assert same and all(same)


def test_nothing_is_learned_on_frozen_random_features(tmp_path):
    with pytest.raises(UserError, match="freeze_encoder cannot be given with from_scratch"):
        settings(task="segmentation", dataset="shapes", freeze_encoder=True, from_scratch=True)


def settings(**given) -> Config:
    return resolve(Config.from_flat("finetune", {"dataset": "digits", "num_labels": 40, **given}))


def test_when_statistics_are_kept():
    assert keeps_statistics(settings(batch_size=8)) and not keeps_statistics(settings(batch_size=64))
    assert not keeps_statistics(settings(batch_size=8, from_scratch=True))
    assert not keeps_statistics(settings(batch_size=8, model=in_memory(False)))  # nothing shows that it was trained
    assert keeps_statistics(settings(batch_size=8, model=in_memory(True)))
    assert keeps_statistics(settings(batch_size=64, gradient_accumulation_steps=8))  # it sees a micro-batch at a time
    alone = [keeps_statistics(settings(batch_size=n, method="supervised")) for n in (64, 128)]
    assert alone == [True, False]  # no unlabeled image is in its steps, whatever their ratio


def test_a_default_rate_is_that_of_the_batch_it_was_set_for():
    random = dict(head_init="random")
    assert settings(**random).training.learning_rate == 0.03  # 64 labeled images
    assert settings(batch_size=8, **random).training.learning_rate == pytest.approx(0.03 / 8)
    assert settings(batch_size=256, **random).training.learning_rate == 0.03
    assert settings(batch_size=8, learning_rate=0.03).training.learning_rate == 0.03
    assert settings(batch_size=8, from_scratch=True).training.learning_rate == 0.03
    assert settings(batch_size=8, preset="cifar").training.learning_rate == 0.03


def test_from_a_fitted_head_it_is_a_tenth():
    """The features under it move as little; branches and layers that start at nothing keep their rate."""
    assert settings().training.learning_rate == pytest.approx(0.003)
    assert settings(batch_size=8).training.learning_rate == pytest.approx(0.003 / 8)
    assert settings(method="supervised").training.learning_rate == pytest.approx(0.003)
    assert settings(batch_size=8, model=in_memory(True)).training.learning_rate == pytest.approx(0.003 / 8)
    for whole in (dict(lora_rank=4), dict(adapter_width=8), dict(model=nn.Linear(1, 1)), dict(model=in_memory(False))):
        assert settings(batch_size=8, **whole).training.learning_rate == pytest.approx(0.03 / 8)
    several = resolve(Config.from_flat("finetune", dict(task="multilabel", dataset="scenes", num_labels=40)))
    assert several.training.learning_rate == 0.03


def test_a_fresh_decoder_learns_its_statistics(few_images, tmp_path):
    """It came with none: kept as they are, nothing would be normalised in it."""
    create_backbone("test_resnet", pretrained=False, image_size=32).save_pretrained(tmp_path / "net")
    given = dict(task="segmentation", num_labels=4, architecture="unet", image_size=32, stored_size=32, max_steps=2)
    run = finetune(
        "shapes", tmp_path / "net", "supervised", output_dir=tmp_path / "a", batch_size=4, device="cpu", **given
    )
    state = run.progress.inner.model.state_dict()
    norms = {k: v for k, v in state.items() if k.endswith("num_batches_tracked")}
    decoder = [int(v) for k, v in norms.items() if ".encoder." not in k]
    body = {int(v) for k, v in norms.items() if ".encoder." in k}
    assert decoder and set(decoder) == {2} and body == {0}


def test_weights_that_began_at_random_train_at_the_usual_rate(encoder, tmp_path):
    """Their features are to change more than those of a large pretraining; a rate that is given is kept."""
    plain = create_backbone("cnn6_16", pretrained=False, image_size=16)
    plain.save_pretrained(tmp_path / "weights")  # nobody knows where they come from
    begun = [(encoder, {}, 0.03 / 8), (tmp_path / "weights", {}, 0.003 / 8), (encoder, dict(learning_rate=1e-4), 1e-4)]
    begun += [(encoder, dict(head_init="random"), 0.03 / 8)]
    for i, (model, given, rate) in enumerate(begun):
        run = finetune("digits", str(model), method="supervised", output_dir=tmp_path / str(i), **SMALL, **given)
        assert run.config.training.learning_rate == pytest.approx(rate), i
        assert yaml.safe_load((tmp_path / str(i) / "training.yaml").read_text())["learning_rate"] == pytest.approx(rate)
    again = finetune("digits", str(tmp_path / "0"), method="supervised", output_dir=tmp_path / "again", **SMALL)
    assert again.config.training.learning_rate == pytest.approx(0.03 / 8)  # the classifier that was made of them
