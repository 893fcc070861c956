"""The CIFAR architectures against independent implementations."""

from __future__ import annotations

import importlib.util
import math
import sys
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from segmentation_models_pytorch.encoders import get_encoder
from torch.nn import functional as F

from hf_lowlabel.errors import UserError
from hf_lowlabel.models import brings_code, cifar, create_backbone, create_classifier, plain

NAMES = ["wrn_10_2", "wrn_16_2", "wrn_28_2", "wrn_28_8", "wrn_37_2", "resnet18_cifar"]


def wide_resnet(state: dict, x: torch.Tensor, blocks: int, groups: int, first_stride: int) -> torch.Tensor:
    """Evaluation of a wide ResNet in float64 from its weights alone: FixMatch's residual function, written out."""
    p = {k: v.double() for k, v in state.items()}

    def bn_act(name: str, h: torch.Tensor) -> torch.Tensor:
        mean, var = p[f"{name}.running_mean"][:, None, None], p[f"{name}.running_var"][:, None, None]
        h = (h - mean) / (var + 1e-3).sqrt() * p[f"{name}.weight"][:, None, None] + p[f"{name}.bias"][:, None, None]
        return torch.where(h > 0, h, 0.1 * h)

    def conv(name: str, h: torch.Tensor, stride: int = 1) -> torch.Tensor:
        w = p[f"{name}.weight"]
        return F.conv2d(h, w, p[f"{name}.bias"], stride, w.shape[-1] // 2)

    x = conv("conv1", x.double())
    for g in range(groups):
        for b in range(blocks):
            name, stride = f"group{g + 1}.{b}", (first_stride if g == 0 else 2) if b == 0 else 1
            h = bn_act(f"{name}.bn1", x)
            if g == 0 and b == 0:
                x = h
            h = conv(f"{name}.conv2", bn_act(f"{name}.bn2", conv(f"{name}.conv1", h, stride)))
            x = (conv(f"{name}.shortcut", x, stride) if f"{name}.shortcut.weight" in p else x) + h
    x = bn_act("bn", x).mean((2, 3))
    return x @ p["fc.weight"].T + p["fc.bias"]


@pytest.mark.parametrize(
    ("name", "blocks", "groups", "first_stride"), [("wrn_10_2", 1, 3, 1), ("wrn_28_2", 4, 3, 1), ("wrn_37_2", 4, 4, 2)]
)
@torch.no_grad()
def test_wide_resnet_is_the_formula(name, blocks, groups, first_stride):
    torch.manual_seed(0)
    net = timm.create_model(name, num_classes=10)
    for value in net.state_dict().values():  # statistics and gains away from 0 and 1
        if value.is_floating_point():
            value.mul_(1 + 0.2 * torch.rand_like(value)).add_(0.05 * torch.rand_like(value))
    x = torch.randn(2, 3, 32, 32)
    expected = wide_resnet(net.state_dict(), x, blocks, groups, first_stride)
    assert (net.eval().double()(x.double()) - expected).abs().max() < 1e-9 * expected.abs().max()


@pytest.mark.parametrize(
    ("name", "count"),
    [
        # counted by hand: convolutions k^2 C_in C_out + C_out, norms 2 C, classifier 10 C + 10
        ("wrn_28_2", 1_469_642),
        ("wrn_28_8", 23_362_922),
        ("wrn_37_2", 5_933_770),
        ("resnet18_cifar", 11_173_962),
    ],
)
def test_number_of_parameters(name, count):
    with torch.device("meta"):
        net = timm.create_model(name, num_classes=10)
    assert sum(p.numel() for p in net.parameters()) == count
    if name == "wrn_28_2":  # 1,467,610 is the number known for the form without biases
        biases = sum(m.bias.numel() for m in net.modules() if isinstance(m, torch.nn.Conv2d))
        assert count - biases == 1_467_610


def test_initialisation_is_he_by_output_channels():
    torch.manual_seed(0)
    net = timm.create_model("wrn_28_8", num_classes=100)
    for name in ("group1.1.conv1", "group2.0.conv2", "group3.2.conv1"):
        w = net.get_submodule(name).weight
        assert abs(w.std().item() / math.sqrt(2 / (9 * w.shape[0])) - 1) < 0.01
        assert not net.get_submodule(name).bias.any()
    assert abs(net.fc.weight.std().item() / math.sqrt(2 / (512 + 100)) - 1) < 0.02


def test_batchnorm_momentum_is_the_share_of_the_new_batch(tmp_path):
    slow, fast = timm.create_model("wrn_10_2", bn_momentum=1e-3), timm.create_model("wrn_10_2")
    x = 3 + torch.randn(8, 3, 32, 32)
    fast.load_state_dict(slow.state_dict())
    batch_mean = slow.train().conv1(x).mean((0, 2, 3))
    slow(x), fast.train()(x)
    assert torch.allclose(slow.group1[0].bn1.running_mean, 0.001 * batch_mean, atol=1e-6)
    assert torch.allclose(fast.group1[0].bn1.running_mean, 0.1 * batch_mean, atol=1e-4)
    model = create_classifier("wrn_10_2", 3, pretrained=False, model_args={"bn_momentum": 0.05})
    model.save_pretrained(tmp_path)
    again = create_classifier(str(tmp_path), 3)
    assert {m.momentum for m in again.modules() if isinstance(m, torch.nn.BatchNorm2d)} == {0.05}
    assert {m.eps for m in again.modules() if isinstance(m, torch.nn.BatchNorm2d)} == {1e-3}


@torch.no_grad()
def test_resnet18_cifar_is_torchvisions_with_another_stem():
    torch.manual_seed(0)
    net = timm.create_model("resnet18_cifar", num_classes=10).eval()
    reference = torchvision.models.resnet18(num_classes=10)
    reference.conv1, reference.maxpool = torch.nn.Conv2d(3, 64, 3, 1, 1, bias=False), torch.nn.Identity()
    reference.load_state_dict(net.state_dict())
    x = torch.randn(2, 3, 32, 32)
    assert torch.allclose(net(x), reference.eval()(x), atol=1e-5)
    with pytest.raises(ValueError, match="stride 8"):
        timm.create_model("resnet18_cifar", output_stride=8)


@pytest.mark.parametrize(
    ("name", "strides", "channels"),
    [
        ("wrn_10_2", [1, 2, 4], [32, 64, 128]),
        ("wrn_37_2", [2, 4, 8, 16], [32, 64, 128, 256]),
        ("resnet18_cifar", [1, 2, 4, 8], [64, 128, 256, 512]),
    ],
)
@torch.no_grad()
def test_features_only_and_smp(name, strides, channels):
    net = timm.create_model(name, features_only=True).eval()
    x = torch.randn(1, 3, 64, 64)
    maps = net(x)
    assert net.feature_info.reduction() == strides and net.feature_info.channels() == channels
    assert [m.shape[1:] for m in maps] == [(c, 64 // s, 64 // s) for c, s in zip(channels, strides, strict=True)]
    depth = len(strides) - (strides[0] == 1)
    encoder = get_encoder(f"tu-{name}", depth=depth, weights=None).eval()
    encoder.model.load_state_dict(net.state_dict())
    assert torch.equal(encoder(x)[-1], maps[-1])


@torch.no_grad()
def test_last_map_is_the_one_the_classifier_pools():
    backbone = create_backbone("wrn_10_2", pretrained=False).eval()
    x = torch.randn(2, 3, 32, 32)
    last = backbone.feature_map(x)
    assert torch.allclose(last.mean((2, 3)), backbone.pooled(x), atol=1e-6)
    assert [m.shape[1] for m in backbone.feature_maps(x)] == [32, 64, 128]
    assert [m.shape[1] for m in backbone.feature_maps(x, indices=2)] == [64, 128]
    assert [m.shape[1] for m in backbone.feature_maps(x, indices=[0, -1])] == [32, 128]
    normed = backbone.timm_model.forward_intermediates(x, indices=1, norm=True, intermediates_only=True)
    assert torch.equal(normed[0], last)


@pytest.mark.parametrize("name", ["wrn_10_2", "resnet18_cifar"])
@torch.no_grad()
def test_round_trip(name, tmp_path):
    model = create_classifier(name, 10, pretrained=False, image_size=32, drop_rate=0.5).eval()
    x = torch.randn(2, 3, 32, 32)
    model.save_pretrained(tmp_path)
    assert torch.equal(create_classifier(str(tmp_path), 10).eval()(x).logits, model(x).logits)
    assert torch.equal(model.classify(model.features(x)), model(x).logits)
    assert torch.equal(timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()(x), model(x).logits)


def test_which_names_timm_lacks():
    assert all(brings_code(n) and timm.is_model(n) for n in NAMES) and not brings_code("resnet18")
    with pytest.raises(UserError, match="from-scratch"):
        create_classifier("wrn_28_2", 10)


@pytest.mark.parametrize("module, name", [(cifar, "wrn_10_2"), (plain, "cnn6_16")])
def test_a_copy_of_the_code_changes_nothing_where_the_package_is(module, name, tmp_path):
    """As transformers loads it from a folder of weights, whose author may have changed it."""
    before = type(timm.create_model(name))
    path = tmp_path / "copied.py"
    path.write_text(Path(module.__file__).read_text())
    spec = importlib.util.spec_from_file_location("copied", path)
    copied = importlib.util.module_from_spec(spec)
    sys.modules["copied"] = copied
    try:
        spec.loader.exec_module(copied)
    finally:
        del sys.modules["copied"]
    assert type(timm.create_model(name)) is before and before.__module__ == module.__name__
