"""A network in memory is the start of a run as it is, or is refused: timm keeps no arguments."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
import timm
import torch
from torch import nn

from hf_lowlabel import (
    LowLabelBackbone,
    LowLabelForImageClassification,
    LowLabelForSemanticSegmentation,
    create_backbone,
    create_classifier,
    create_segmenter,
    finetune,
    load_source,
)
from hf_lowlabel.errors import UserError
from hf_lowlabel.models.saved_models import open_model
from hf_lowlabel.selection.features import extract
from tests.test_open_api import pairs

X = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def pooled(net, x=X):
    return net.forward_head(net.forward_features(x), pre_logits=True)


def extra_layer():
    net = timm.create_model("test_byobnet")
    net.final_conv = nn.Conv2d(256, 256, 1)
    return net


def no_activation():
    net = timm.create_model("test_resnet")
    net.act1 = nn.Identity()
    return net


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: timm.create_model("test_resnet", act_layer="silu"), "model_args"),
        (lambda: timm.create_model("test_resnet", output_stride=8), "features of a ResNet in memory are not those"),
        (lambda: timm.create_model("test_resnet", global_pool="max"), "are not those"),
        (no_activation, "are not those"),
        (lambda: timm.create_model("test_resnet", drop_rate=0.5), "dropout at drop_rate"),
        (lambda: timm.create_model("test_vit", drop_path_rate=0.3), "dropout at blocks.1.drop_path1.drop_prob"),
        (lambda: timm.create_model("test_vit", proj_drop_rate=0.3), "dropout at blocks.0"),
        (lambda: timm.create_model("test_resnet", in_chans=1), "1 channels"),
        (extra_layer, "final_conv"),
        (
            lambda: timm.create_model("test_resnet", features_only=True),
            "FeatureListNet in memory .* without features_only",
        ),
        (lambda: timm.create_model("test_vit", features_only=True), "FeatureGetterNet in memory .* without features_o"),
        (lambda: nn.Linear(2, 2), "Linear cannot be the model.*Register your own network with timm: the README"),
    ],
)
def test_what_timm_does_not_build_by_the_name_is_refused(make, said):
    for use in (create_backbone, lambda module: create_classifier(module, 3)):
        with pytest.raises(UserError, match=said):
            use(make())


class Bare(nn.Module):
    """Half of what timm's networks have."""

    num_classes, num_features = 3, 4

    def __init__(self, **_):
        super().__init__()
        self.fc = nn.Linear(4, 3)
        self.pretrained_cfg = {"architecture": "bare_net_of_the_tests", "input_size": (3, 32, 32)}

    def forward_head(self, x, pre_logits=False):
        return x if pre_logits else self.fc(x)


def bare_net_of_the_tests(pretrained=False, **settings):
    return Bare(**settings)


def test_a_registered_network_says_what_it_lacks(monkeypatch):
    name, known = bare_net_of_the_tests.__name__, timm.models._registry
    monkeypatch.setitem(known._model_entrypoints, name, bare_net_of_the_tests)  # as register_model does, to be undone
    with pytest.raises(UserError, match="has no forward_features, get_classifier, as networks of timm have"):
        create_classifier(Bare(), 3)
    with pytest.raises(UserError, match=r"Beside the function that registers it, say default_cfgs = generate_default"):
        create_classifier(name, 3, pretrained=False)
    monkeypatch.setitem(known._model_pretrained_cfgs, name, timm.models.PretrainedCfg(input_size=(3, 32, 32)))
    with pytest.raises(UserError, match="has no forward_features, get_classifier"):
        create_classifier(name, 3, pretrained=False)


def test_a_saved_network_that_nobody_registered(tmp_path):
    create_classifier("test_resnet", 3, pretrained=False).save_pretrained(tmp_path)
    config = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(config.replace("test_resnet", "their_own_net"))
    with pytest.raises(UserError, match="'their_own_net'.* once the module that registers it is imported"):
        create_classifier(str(tmp_path), 3)


def test_it_is_seen_as_the_module_wants_it_and_stays_as_it_was(tmp_path):
    torch.manual_seed(0)
    seen = dict(mean=(0.1, 0.2, 0.3), interpolation="bilinear", label_names=["b", "g", "r"])  # of the data
    module = timm.create_model("test_resnet", num_classes=3, pretrained_cfg_overlay=seen).half()
    module.train()
    done = finetune(
        pairs(tmp_path, 12),
        model=module,
        method="supervised",
        output_dir=tmp_path / "run",
        learning_rate=0,
        max_steps=1,
        num_labels=6,
        image_size=32,
        batch_size=3,
        method_args={"ema_decay": 0},
    )
    cfg = json.loads((done.folder / "config.json").read_text())["pretrained_cfg"]
    assert cfg["mean"] == [0.1, 0.2, 0.3] and cfg["interpolation"] == "bilinear"
    assert module.training and next(module.parameters()).dtype == torch.float16
    for (name, a), b in zip(module.named_parameters(), done.model.timm_model.parameters(), strict=True):
        assert a.float().equal(b), name


def test_positions_follow_the_size_of_the_images():
    torch.manual_seed(0)
    module = timm.create_model("test_vit", img_size=64, num_classes=3)  # of a size that its name does not say
    made = create_backbone(module)
    assert list(made.preprocessing["input_size"]) == [3, 64, 64]
    assert pooled(module.eval()).equal(made.eval().pooled(X))
    small = create_classifier(module, 3, image_size=32)
    assert small.timm_model.pos_embed.shape[1] < module.pos_embed.shape[1] and small.load_report.head == "kept"


@torch.no_grad()
def test_models_of_ours_keep_arguments_and_preprocessing():
    torch.manual_seed(0)
    args = dict(global_pool="max", drop_rate=0.3, act_layer="silu")
    given = create_classifier("test_resnet", 3, pretrained=False, mean=(0.1,) * 3, model_args=args)
    again = create_classifier(given, 3)
    assert again.preprocessing == given.preprocessing and again.config.model_args == given.config.model_args
    assert again.timm_model.drop_rate == 0.3 and again.eval()(X).logits.equal(given.eval()(X).logits)
    backbone = create_backbone(given)
    assert backbone.eval().pooled(X).equal(given.features(X)) and "fc.weight" in backbone.load_report.unexpected
    segmenter = create_segmenter(create_backbone(given), 2, architecture="linear")
    assert segmenter.config.image_mean == [0.1] * 3 and segmenter.config.architecture_args["act_layer"] == "silu"


def test_a_head_stays_for_the_same_names_alone():
    given = create_classifier("test_resnet", 3, pretrained=False, class_names=["a", "b", "c"])
    heads = [create_classifier(given, 3, class_names=list(n)).load_report.head for n in ("abc", "cab", "abd")]
    assert heads == ["kept", "fresh", "fresh"]
    normed = timm.create_model("levit_128s", num_classes=3)  # a BatchNorm stands in its head
    assert create_classifier(normed, 3).load_report.head == "kept"


def test_a_head_without_names_is_kept_where_none_are_asked_for_alone(caplog):
    """It is as random as timm makes it, or of a thousand other classes; who trained it on these can say so."""
    names, module = ["a", "b", "c"], timm.create_model("test_resnet", num_classes=3)
    unnamed = create_classifier(module, 3)
    assert unnamed.load_report.head == "kept"
    for given, said in ((module, 'pretrained_cfg["label_names"]'), (unnamed, "config.id2label")):
        with caplog.at_level("INFO", "hf_lowlabel"):
            assert create_classifier(given, 3, class_names=names).load_report.head == "fresh"
        assert said in caplog.messages[-2] and "is not kept" in caplog.messages[-2]
    module.pretrained_cfg["label_names"] = tuple(names)
    unnamed.config.id2label = dict(enumerate(names))
    caplog.clear()
    for given in (module, unnamed):
        heads = [create_classifier(given, 3, class_names=order).load_report.head for order in (names, names[::-1])]
        assert heads == ["kept", "fresh"]
        again = create_classifier(given, 3)
        assert again.load_report.head == "kept" and list(again.config.id2label.values()) == names
    assert "is not kept" not in caplog.text


def own_layers():
    return nn.Sequential(nn.Dropout(0.1), nn.Linear(512, 64), nn.ReLU(), nn.Linear(64, 3))


def own_dropout():
    return nn.Sequential(nn.Dropout(0.2), nn.Linear(512, 3))


def no_bias():
    return nn.Linear(512, 3, bias=False)


@pytest.mark.parametrize("head", [own_layers, own_dropout, no_bias])
def test_a_head_of_other_layers_is_not_kept_as_is_said(head):
    module = timm.create_model("test_resnet", num_classes=3)
    module.fc = head()
    for classes in (3, 5):
        with pytest.warns(UserWarning, match=f"head of a ResNet in memory is not kept.* {classes} classes is fresh"):
            made = create_classifier(module, classes)
        assert made.load_report.head == "fresh" and set(made.load_report.missing) == {"fc.weight", "fc.bias"}
        assert made.timm_model.layer1[0].conv1.weight.equal(module.layer1[0].conv1.weight)
    given = create_classifier("test_resnet", 3, pretrained=False, class_names=["a", "b", "c"])
    given.timm_model.fc = head()
    with pytest.warns(UserWarning, match="is not kept"):
        again = create_classifier(given, 3)
    assert again.load_report.head == "fresh" and again.config.id2label[0] == "LABEL_0"


@pytest.mark.parametrize("name", ["test_vit", "levit_128s", "deit_tiny_distilled_patch16_224"])
def test_a_head_of_timm_is_kept_without_a_word(name):
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "The head of")
        assert create_classifier(timm.create_model(name, num_classes=3), 3).load_report.head == "kept"
        assert create_classifier(timm.create_model(name, num_classes=0), 3).load_report.head == "fresh"


def test_compiled_modules_are_those_that_were_compiled():
    module = timm.create_model("test_resnet", num_classes=3)
    made = create_classifier(torch.compile(module), 3)
    assert made.load_report.source == "a ResNet in memory" and made.load_report.head == "kept"
    again = create_backbone(torch.compile(made))
    assert again.timm_model.conv1[0].weight.equal(module.conv1[0].weight)
    made.timm_model = torch.compile(made.timm_model)
    assert create_classifier(made, 3).load_report.head == "kept"


class Ended:
    """What a finished run is to those that open models: it has a folder, and its text is another."""

    def __init__(self, folder):
        self.folder = folder

    def __fspath__(self):
        return str(self.folder)


def test_a_finished_run_is_opened_by_its_folder(tmp_path):
    """By its text it was looked for as a name of timm, or on the Hub."""
    names = ["a", "b", "c"]
    made = create_classifier("test_resnet", 3, pretrained=False, class_names=names, image_size=32)
    made.save_pretrained(tmp_path / "c")
    backbone = create_backbone(made)
    backbone.save_pretrained(tmp_path / "b")
    create_segmenter(backbone, 3, architecture="linear").save_pretrained(tmp_path / "s")
    run, weight = Ended(tmp_path / "c"), made.timm_model.conv1[0].weight
    for again in (
        create_classifier(run, 3, class_names=names),
        create_backbone(run),
        create_segmenter(run, 3, architecture="linear"),
        LowLabelForImageClassification.from_pretrained(run),
        LowLabelBackbone.from_pretrained(Ended(tmp_path / "b")),
        LowLabelForSemanticSegmentation.from_pretrained(Ended(tmp_path / "s")),
        open_model(LowLabelForImageClassification, run),
    ):
        assert any(p.shape == weight.shape and p.equal(weight) for p in again.parameters())
    features = extract(run, load_source("digits"), np.arange(4), device="cpu")
    assert features.values.shape == (4, made.num_features)
