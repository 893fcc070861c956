"""Settings for foundation encoders: what trains by default, how fast each layer, and sizes that patches fill."""

import logging

import pytest
import timm
import torch

from hf_lowlabel.api.running import settled
from hf_lowlabel.errors import UserError
from hf_lowlabel.models import create_classifier
from hf_lowlabel.models.segmentation import create_segmenter
from hf_lowlabel.models.timm_checkpoint import layer_rates
from hf_lowlabel.tasks.attempts import MULTILABEL, SEGMENTATION
from hf_lowlabel.tasks.foundation import branched, whole_patches, with_branches
from hf_lowlabel.training.optim import build_optimizer, slow_down

TINY_VIT = dict(depth=3, embed_dim=24, num_heads=2, patch_size=4)


def config(**given):
    named = {"dataset": "digits", "num_labels": 20, "model": "vit_tiny_patch16_224", "callbacks": ()}
    return settled("finetune", {**named, **given})


@pytest.fixture(scope="module")
def vit():
    return create_classifier("vit_tiny_patch16_224", 3, pretrained=False, image_size=8, model_args=TINY_VIT)


def test_a_pretrained_vision_transformer_gets_branches(vit):
    found = branched(config(method="fixmatch"), vit)
    args = found.training
    assert found.model.adapter_width == 32 and (args.optimizer, args.learning_rate) == ("adamw", 1e-3)
    assert args.unlabeled_ratio == 7 and args.weight_decay == 0.0  # the rest is the method's


@pytest.mark.parametrize(
    "given",
    [
        dict(learning_rate=1e-4),
        dict(optimizer="momentum"),
        dict(lora_rank=4),
        dict(freeze=1),
        dict(from_scratch=True),
        dict(layer_decay=0.8),
        dict(method="fixmatch", preset="pretrained"),
        dict(method="probe"),
    ],
)
def test_what_the_user_said_stays(given, vit):
    said = config(**given)
    assert branched(said, vit) is said


def test_so_does_a_trained_one_in_memory(vit):
    net = timm.create_model("vit_tiny_patch16_224", img_size=16, num_classes=3, **TINY_VIT)
    assert branched(config(model=net), vit).model.adapter_width is None
    net.norm.bias.data.normal_()
    assert branched(config(model=net), vit).model.adapter_width == 32


def test_auto_trains_branches_too(vit):
    probe, *others = with_branches(MULTILABEL, vit)
    assert "adapter_width" not in probe.settings and all(a.settings["adapter_width"] == 32 for a in others)
    assert with_branches(MULTILABEL, create_classifier("cnn6_16", 3, pretrained=False)) == list(MULTILABEL)
    assert with_branches(SEGMENTATION, create_segmenter("test_resnet", 2, pretrained=False)) == list(SEGMENTATION)


def test_networks_that_take_no_branches_train_as_they_did():
    said = config(model="cnn6_16")
    assert branched(said, create_classifier("cnn6_16", 3, pretrained=False)) is said


def test_the_preset_goes_with_every_method_that_trains():
    for method in ("supervised", "fixmatch", "self-training"):
        found = config(method=method, preset="foundation", **({"prior": "p"} if method == "self-training" else {}))
        assert found.model.adapter_width == 32 and found.training.optimizer == "adamw"
    with pytest.raises(UserError, match="unknown preset of probe"):
        config(method="probe", preset="foundation")
    masks = dict(task="segmentation", dataset="shapes", preset="foundation")
    for method in ("cutmix", "unimatch-v2", "supervised"):
        found = config(**masks, method=method)
        assert (found.model.architecture, found.views.image_size, found.views.window) == ("linear", 518, 518)
        assert (found.training.learning_rate, found.training.head_lr) == (5e-6, 40.0)
    assert config(**masks, image_size=224).views.image_size == 224


def test_each_layer_learns_at_its_share(vit):
    rates = layer_rates(vit.timm_model, 0.5)
    assert rates["patch_embed.proj.weight"] == 0.5**4 and rates["blocks.2.attn.qkv.weight"] == 0.5
    assert rates["blocks.0.mlp.fc1.bias"] == 0.5**3 and rates["head.weight"] == 1.0
    slow_down(vit, 0.5)

    class Whole:
        @staticmethod
        def param_groups():
            head = {id(p) for p in vit.timm_model.head.parameters()}
            every = list(vit.parameters())
            return {"base": [p for p in every if id(p) not in head], "head": [p for p in every if id(p) in head]}

    optimizer = build_optimizer(Whole(), config(layer_decay=0.5, head_lr=3.0, optimizer="momentum").training, 0.1)
    rate_of = {id(p): group["base_lr"] for group in optimizer.param_groups for p in group["params"]}
    assert len(rate_of) == len(list(vit.parameters()))
    for name, p in vit.timm_model.named_parameters():
        assert rate_of[id(p)] == pytest.approx(0.1 * (3.0 if name.startswith("head.") else rates[name])), name


def test_the_encoder_of_a_segmenter_has_layers_too():
    model = create_segmenter("test_vit", 2, architecture="linear", pretrained=False)
    slow_down(model, 0.5)
    found = {getattr(p, "rate", None) for p in model.network.encoder.parameters()}
    assert len(found) > 3 and max(found) <= 1.0
    with pytest.raises(UserError, match="no order that timm knows"):
        layer_rates(torch.nn.Sequential(torch.nn.Linear(2, 2)), 0.5)


@pytest.mark.parametrize(
    "given, says",
    [
        (dict(layer_decay=0.5, lora_rank=2), "layer_decay cannot be given with lora_rank"),
        (dict(layer_decay=1.5), "layer_decay is 1.5. It must be above 0 and at most 1"),
        (dict(layer_decay=0.5, method="probe"), "layer_decay means nothing to probe"),
        (
            dict(layer_decay=0.5, freeze_encoder=True, task="segmentation", dataset="shapes"),
            "layer_decay cannot be given with freeze_encoder",
        ),
    ],
)
def test_settings_that_contradict_are_refused(given, says):
    with pytest.raises(UserError, match=says):
        config(**given)


def test_views_are_whole_patches(caplog):
    logging.getLogger("hf_lowlabel").propagate = True
    caplog.set_level(logging.INFO, "hf_lowlabel")
    args = dict(depth=2, embed_dim=24, num_heads=2, patch_size=14)
    model = create_segmenter(
        "vit_tiny_patch16_224", 2, architecture="linear", pretrained=False, encoder_args=dict(args, img_size=56)
    )
    assert whole_patches(model, 518) == 518 and not caplog.records
    assert whole_patches(model, 500) == 504 and "504 px instead of 500: the encoder's patches are 14 px" in caplog.text
    assert whole_patches(model, 3) == 14
    assert whole_patches(create_segmenter("test_resnet", 2, architecture="unet", pretrained=False), 321) == 321
    with torch.no_grad():
        assert model.eval()(torch.zeros(1, 3, 60, 50)).logits.shape[-2:] == (60, 50)
