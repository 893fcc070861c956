"""Architectures of the semi-supervised papers for 32 to 96 px, registered with timm under `wrn_*` and `resnet18_cifar`.

Wide ResNet (Zagoruyko & Komodakis 2016, https://arxiv.org/abs/1605.07146) in the form of FixMatch (Sohn et al. 2020):
a pre-activation block is x + conv(act(bn(conv(act(bn(x)))))), act is a leaky ReLU with slope 0.1, and where the width
changes a 1x1 convolution stands on the shortcut. In the very first block the shortcut reads act(bn(x)). Convolutions
have biases; weights start from N(0, 2 / (k^2 C_out)), the classifier from Glorot's normal. BatchNorm has eps 1e-3 and
`bn_momentum` 0.1, the share of the NEW batch in the running statistics as torch counts it. The reference's 1e-3 (0.999
of the OLD ones) suits its 2^20 steps; in runs of a few thousand the statistics would never leave their start.

`wrn_D_W` has 3 groups of n = (D - 4) / 6 blocks with 16W, 32W, 64W channels at strides 1, 2, 4. `wrn_37_2` (STL-10,
96 px) has a fourth group, 128W, and starts at stride 2: 4 groups of 4 blocks are 32 convolutions, and 37 counts stem
and 4 shortcuts. `resnet18_cifar` is ResNet-18 with a 3x3 stem of stride 1 and no max pooling.

timm alone does not know these names, and no timm architecture with arguments expresses them (its resnets keep a stem of
stride 2, its pre-activation ones have no leaky ReLU of slope 0.1), so this file travels with such a checkpoint: the
Auto classes and the pipeline load it by trust_remote_code=True, `timm.create_model` after `import hf_lowlabel.models`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from timm.layers import create_classifier
from timm.models import build_model_with_cfg, generate_default_cfgs, is_model, register_model
from timm.models.resnet import BasicBlock, ResNet
from torch import Tensor, nn

__all__ = ["CifarResNet", "WideResNet"]

CIFAR_MEAN, CIFAR_STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


class PreActBlock(nn.Module):
    """x + conv2(act(bn2(conv1(act(bn1(x)))))), the shortcut projected where the width or the stride changes."""

    def __init__(self, dim_in: int, dim_out: int, stride: int, bn: dict, activate_shortcut: bool):
        super().__init__()
        self.bn1, self.act1 = nn.BatchNorm2d(dim_in, **bn), nn.LeakyReLU(0.1, inplace=True)
        self.conv1 = nn.Conv2d(dim_in, dim_out, 3, stride, 1)
        self.bn2, self.act2 = nn.BatchNorm2d(dim_out, **bn), nn.LeakyReLU(0.1, inplace=True)
        self.conv2 = nn.Conv2d(dim_out, dim_out, 3, 1, 1)
        same = dim_in == dim_out and stride == 1
        self.shortcut = nn.Identity() if same else nn.Conv2d(dim_in, dim_out, 1, stride)
        self.activate_shortcut = activate_shortcut

    def forward(self, x: Tensor) -> Tensor:
        h = self.act1(self.bn1(x))
        skip = self.shortcut(h if self.activate_shortcut else x)
        return skip + self.conv2(self.act2(self.bn2(self.conv1(h))))


class WideResNet(nn.Module):
    """Wide ResNet of `depth` n_blocks * 6 + 4 and width factor `width`.

    groups: 3, or 4 for larger images; first_stride: stride of the first group; bn_momentum: share of the new batch in
    BatchNorm's running statistics; drop_rate: dropout before the classifier.
    """

    def __init__(
        self,
        depth: int = 28,
        width: int = 2,
        groups: int = 3,
        first_stride: int = 1,
        num_classes: int = 1000,
        in_chans: int = 3,
        global_pool: str = "avg",
        drop_rate: float = 0.0,
        bn_momentum: float = 0.1,
    ):
        super().__init__()
        if (depth - 4) % 6:
            raise ValueError(f"A wide ResNet has a depth of 6 n + 4 layers, and not of {depth}.")
        blocks, bn = (depth - 4) // 6, {"eps": 1e-3, "momentum": bn_momentum}
        self.num_classes, self.in_chans, self.drop_rate = num_classes, in_chans, drop_rate
        self.conv1 = nn.Conv2d(in_chans, 16, 3, 1, 1)
        self.feature_info, dim, reduction = [], 16, 1
        for g in range(groups):
            dim_out, stride = 16 * width * 2**g, first_stride if g == 0 else 2
            layers = [PreActBlock(dim, dim_out, stride, bn, activate_shortcut=g == 0)]
            layers += [PreActBlock(dim_out, dim_out, 1, bn, activate_shortcut=False) for _ in range(blocks - 1)]
            self.add_module(f"group{g + 1}", nn.Sequential(*layers))
            dim, reduction = dim_out, reduction * stride
            self.feature_info.append({"num_chs": dim, "reduction": reduction, "module": f"group{g + 1}"})
        self.groups = groups
        self.bn, self.act = nn.BatchNorm2d(dim, **bn), nn.LeakyReLU(0.1, inplace=True)
        self.feature_info[-1]["module"] = "act"  # the last map is taken where the classifier takes it
        self.num_features = self.head_hidden_size = dim
        self.global_pool, self.fc = create_classifier(dim, num_classes, pool_type=global_pool)
        self.init_weights()

    @torch.no_grad()
    def init_weights(self) -> None:
        for m in self.modules():
            if isinstance(m, nn.Conv2d):
                nn.init.normal_(m.weight, std=math.sqrt(2 / (m.kernel_size[0] * m.kernel_size[1] * m.out_channels)))
                nn.init.zeros_(m.bias)
            elif isinstance(m, nn.Linear):
                nn.init.xavier_normal_(m.weight)
                nn.init.zeros_(m.bias)

    @torch.jit.ignore
    def group_matcher(self, coarse: bool = False) -> dict:
        return {
            "stem": r"^conv1",
            "blocks": r"^group(\d+)" if coarse else [(r"^group(\d+)\.(\d+)", None), (r"^bn", (99999,))],
        }

    @torch.jit.ignore
    def get_classifier(self) -> nn.Module:
        return self.fc

    def reset_classifier(self, num_classes: int, global_pool: str = "avg") -> None:
        self.num_classes = num_classes
        self.global_pool, self.fc = create_classifier(self.num_features, num_classes, pool_type=global_pool)

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | Sequence[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ):
        """timm's interface: the map after every group, the last one after norm and activation when `norm`."""
        every = range(self.groups)
        if indices is None or isinstance(indices, int):
            chosen = every[-(indices or self.groups) :]
        else:
            chosen = [every[i] for i in indices]
        if output_fmt != "NCHW":
            raise ValueError(f"output_fmt is {output_fmt!r}; this network has NCHW maps")
        x, maps = self.conv1(x), []
        for g in range(self.groups):
            x = getattr(self, f"group{g + 1}")(x)
            if g in chosen:
                maps.append(self.act(self.bn(x)) if norm and g == self.groups - 1 else x)
            if stop_early and intermediates_only and g == max(chosen):
                break
        return maps if intermediates_only else (self.act(self.bn(x)), maps)

    def forward_features(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        for g in range(self.groups):
            x = getattr(self, f"group{g + 1}")(x)
        return self.act(self.bn(x))  # [B, D, h, w]

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        x = self.global_pool(x)
        if self.drop_rate:
            x = nn.functional.dropout(x, self.drop_rate, self.training)
        return x if pre_logits else self.fc(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))


class CifarResNet(ResNet):
    """timm's ResNet with a 3x3 stem of stride 1 and no max pooling: strides 1, 2, 4, 8."""

    def __init__(self, *args, output_stride: int = 32, **kwargs):
        if output_stride != 32:
            raise ValueError(f"output_stride is {output_stride}; this network ends at stride 8 and has no dilated form")
        super().__init__(*args, **kwargs)
        conv = nn.Conv2d(self.conv1.in_channels, self.conv1.out_channels, 3, 1, 1, bias=False)
        nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
        self.conv1, self.maxpool = conv, nn.Identity()
        self.feature_info = [{"num_chs": 64 * 2**i, "reduction": 2**i, "module": f"layer{i + 1}"} for i in range(4)]


def _cfg(size: int) -> dict:
    return {
        "input_size": (3, size, size),
        "crop_pct": 1.0,
        "interpolation": "bicubic",
        "mean": CIFAR_MEAN,
        "std": CIFAR_STD,
        "num_classes": 10,
        "first_conv": "conv1",
        "classifier": "fc",
        "license": "apache-2.0",
    }


default_cfgs = generate_default_cfgs(
    {
        "wrn_10_2": _cfg(32),
        "wrn_16_2": _cfg(32),
        "wrn_28_2": _cfg(32),
        "wrn_28_8": _cfg(32),
        "wrn_37_2": _cfg(96),
        "resnet18_cifar": _cfg(32),
    }
)


def _wrn(variant: str, pretrained: bool, **kwargs) -> nn.Module:
    feature_cfg = {"out_indices": tuple(range(kwargs.get("groups", 3)))}
    return build_model_with_cfg(WideResNet, variant, pretrained, feature_cfg=feature_cfg, **kwargs)


def register(entry: Callable) -> Callable:
    """A name that timm has stays as it is: a copy of this file beside weights changes nothing where this package is."""
    return entry if is_model(entry.__name__) else register_model(entry)


@register
def wrn_10_2(pretrained: bool = False, **kwargs) -> WideResNet:
    """One block per group, 0.3 M parameters: for CPU demonstrations."""
    return _wrn("wrn_10_2", pretrained, **{"depth": 10, "width": 2, **kwargs})


@register
def wrn_16_2(pretrained: bool = False, **kwargs) -> WideResNet:
    """Two blocks per group, 0.7 M parameters."""
    return _wrn("wrn_16_2", pretrained, **{"depth": 16, "width": 2, **kwargs})


@register
def wrn_28_2(pretrained: bool = False, **kwargs) -> WideResNet:
    """CIFAR-10 and SVHN in FixMatch and its successors: 1.5 M parameters."""
    return _wrn("wrn_28_2", pretrained, **{"depth": 28, "width": 2, **kwargs})


@register
def wrn_28_8(pretrained: bool = False, **kwargs) -> WideResNet:
    """CIFAR-100: 23 M parameters."""
    return _wrn("wrn_28_8", pretrained, **{"depth": 28, "width": 8, **kwargs})


@register
def wrn_37_2(pretrained: bool = False, **kwargs) -> WideResNet:
    """STL-10 at 96 px: four groups, the first with stride 2, 5.9 M parameters."""
    return _wrn("wrn_37_2", pretrained, **{"depth": 28, "width": 2, "groups": 4, "first_stride": 2, **kwargs})


@register
def resnet18_cifar(pretrained: bool = False, **kwargs) -> CifarResNet:
    """ResNet-18 for 32 px: 11.2 M parameters."""
    feature_cfg = {"out_indices": (0, 1, 2, 3)}
    args = {"block": BasicBlock, "layers": (2, 2, 2, 2), **kwargs}
    return build_model_with_cfg(CifarResNet, "resnet18_cifar", pretrained, feature_cfg=feature_cfg, **args)
