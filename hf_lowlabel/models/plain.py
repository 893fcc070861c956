"""A plain six-layer convolutional network for tiny images (8 to 32 px) on a CPU: `cnn6_16` and `cnn6_32` to timm.

Three stages of two 3x3 convolutions with BatchNorm and ReLU; the first convolution of every stage has stride 2 and
twice the channels of the stage before; average pooling; one linear layer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from timm.layers import create_classifier
from timm.models import build_model_with_cfg, generate_default_cfgs, is_model, register_model
from torch import Tensor, nn

STAGES = 3


class PlainCNN(nn.Module):
    """`width` channels in the first stage, 2 and 4 times as many later; drop_rate: dropout before the classifier."""

    def __init__(
        self,
        width: int = 16,
        num_classes: int = 1000,
        in_chans: int = 3,
        global_pool: str = "avg",
        drop_rate: float = 0.0,
    ):
        super().__init__()
        self.num_classes, self.in_chans, self.drop_rate = num_classes, in_chans, drop_rate
        self.feature_info, dim = [], in_chans
        for s in range(STAGES):
            out = width * 2**s
            layers: list[nn.Module] = []
            for stride in (2, 1):
                layers += [nn.Conv2d(dim, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out), nn.ReLU(inplace=True)]
                nn.init.kaiming_normal_(layers[-3].weight, mode="fan_out", nonlinearity="relu")
                dim = out
            self.add_module(f"stage{s + 1}", nn.Sequential(*layers))
            self.feature_info.append({"num_chs": dim, "reduction": 2 ** (s + 1), "module": f"stage{s + 1}"})
        self.num_features = self.head_hidden_size = dim
        self.global_pool, self.fc = create_classifier(dim, num_classes, pool_type=global_pool)

    @torch.jit.ignore
    def group_matcher(self, coarse: bool = False) -> dict:
        """timm's interface: the first convolution with its BatchNorm is the stem, the rest are the stages."""
        stages = r"^stage(\d+)" if coarse else [(r"^stage(\d+)\.(\d+)", None)]
        return {"stem": r"^stage1\.[01]\.", "blocks": stages}

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
        """timm's interface: the map after every stage."""
        if output_fmt != "NCHW":
            raise ValueError(f"output_fmt is {output_fmt!r}; this network has NCHW maps")
        every = list(range(STAGES))
        chosen = (
            every[-(indices or STAGES) :]
            if indices is None or isinstance(indices, int)
            else [every[i] for i in indices]
        )
        maps = []
        for s in every:
            x = getattr(self, f"stage{s + 1}")(x)
            if s in chosen:
                maps.append(x)
        return maps if intermediates_only else (x, maps)

    def forward_features(self, x: Tensor) -> Tensor:
        return self.stage3(self.stage2(self.stage1(x)))  # [B, D, h, w]

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        x = self.global_pool(x)
        if self.drop_rate:
            x = nn.functional.dropout(x, self.drop_rate, self.training)
        return x if pre_logits else self.fc(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))


def _cfg() -> dict:
    return {
        "input_size": (3, 16, 16),
        "crop_pct": 1.0,
        "interpolation": "bicubic",
        "mean": (0.5, 0.5, 0.5),
        "std": (0.25, 0.25, 0.25),
        "num_classes": 10,
        "first_conv": "stage1.0",
        "classifier": "fc",
        "license": "apache-2.0",
    }


default_cfgs = generate_default_cfgs({"cnn6_16": _cfg(), "cnn6_32": _cfg()})


def register(entry: Callable) -> Callable:
    """A name that timm has stays as it is: a copy of this file beside weights changes nothing where this package is."""
    return entry if is_model(entry.__name__) else register_model(entry)


@register
def cnn6_16(pretrained: bool = False, **kwargs) -> PlainCNN:
    """16, 32 and 64 channels: 72,000 parameters."""
    return build_model_with_cfg(
        PlainCNN, "cnn6_16", pretrained, feature_cfg={"out_indices": (0, 1, 2)}, **{"width": 16, **kwargs}
    )


@register
def cnn6_32(pretrained: bool = False, **kwargs) -> PlainCNN:
    """32, 64 and 128 channels: 288,000 parameters."""
    return build_model_with_cfg(
        PlainCNN, "cnn6_32", pretrained, feature_cfg={"out_indices": (0, 1, 2)}, **{"width": 32, **kwargs}
    )
