"""Image encoders of transformers that timm lacks, as a network that timm builds: `transformers_encoder`.

    timm.create_model("transformers_encoder", encoder_config={"model_type": "segformer", ...})

The network is transformers' own, built from its configuration. Features are the mean over the positions of its last
map or tokens; maps, for dense tasks, are those of its hidden states that have the form [B, C, h, w].

Imports nothing but torch, timm and transformers, because this file travels with saved models.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from timm.models import build_model_with_cfg, generate_default_cfgs, is_model, register_model
from torch import Tensor, nn
from transformers import MODEL_MAPPING, AutoBackbone, AutoConfig, AutoModel

SIDE = 64  # px of the image that tells how wide and how fine maps are, where the configuration names no size


def parsed(config: dict):
    """transformers' configuration of a config.json."""
    return AutoConfig.for_model(config["model_type"], **{k: v for k, v in config.items() if k != "model_type"})


def own_network(config: dict) -> nn.Module:
    """transformers' network of a config.json, with random weights, and without layers that no feature passes."""
    made = parsed(config)
    made.architectures = []  # of several classes for one configuration the first
    net = (AutoModel if type(made) in MODEL_MAPPING else AutoBackbone).from_config(made, trust_remote_code=False)
    pooler = getattr(net, "pooler", None)
    if isinstance(pooler, nn.Module) and any(True for _ in pooler.parameters()):
        net.pooler = None
    return net


def own_side(config) -> int | None:
    """Side in px of the images that a configuration of transformers names."""
    side = getattr(config, "image_size", None)
    if isinstance(side, (list, tuple)) and len(set(side)) == 1:
        side = side[0]
    return side if isinstance(side, int) else None


class TransformersEncoder(nn.Module):
    """encoder_config: as config.json of the encoder has it. drop_rate: dropout before the classifier.
    img_size: (height, width) in px, of a network that takes one size alone. flip_channels: it was trained on blue,
    green, red, and is given red, green, blue."""

    def __init__(
        self,
        encoder_config: dict,
        num_classes: int = 1000,
        in_chans: int = 3,
        global_pool: str = "avg",
        drop_rate: float = 0.0,
        img_size: Sequence[int] | int | None = None,
        flip_channels: bool = False,
    ):
        super().__init__()
        self.flip_channels = flip_channels
        self.encoder = own_network(encoder_config)
        self.num_classes, self.in_chans, self.drop_rate, self.global_pool = num_classes, in_chans, drop_rate, "avg"
        side = own_side(self.encoder.config) or SIDE
        if img_size not in (None, side, [side, side], (side, side)):
            raise ValueError(f"{type(self.encoder).__name__} takes images of {side} x {side} px alone")
        self.encoder.eval()
        with torch.no_grad():
            last, maps = self._run(torch.zeros(1, in_chans, side, side))
        self.encoder.train()
        self.num_features = self.head_hidden_size = last.shape[1] if last.dim() == 4 else last.shape[-1]
        self.feature_info = [
            {"num_chs": m.shape[1], "reduction": round(side / m.shape[-1]), "module": f"map {i}"}
            for i, m in enumerate(maps)
        ]
        self.reset_classifier(num_classes)

    def _run(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(the last map [B, D, h, w] or tokens [B, n, D], all hidden states that are maps or tokens of a grid)."""
        x = x.flip(1) if self.flip_channels else x
        out = self.encoder(pixel_values=x, output_hidden_states=True, return_dict=True)
        last = out.feature_maps[-1] if "feature_maps" in out else out.last_hidden_state
        maps = (as_map(state, x.shape[-2:]) for state in out.hidden_states or out.get("feature_maps") or ())
        return last, [m for m in maps if m is not None]

    def get_classifier(self) -> nn.Module:
        return self.fc

    def reset_classifier(self, num_classes: int, global_pool: str = "avg") -> None:
        self.num_classes = num_classes
        self.fc = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()

    def forward_features(self, x: Tensor) -> Tensor:
        x = x.flip(1) if self.flip_channels else x
        out = self.encoder(pixel_values=x, return_dict=True)
        return out.feature_maps[-1] if "feature_maps" in out else out.last_hidden_state  # [B, D, h, w] or [B, n, D]

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        x = x.mean((2, 3)) if x.dim() == 4 else x.mean(1)  # [B, D]
        x = nn.functional.dropout(x, self.drop_rate, self.training)
        return x if pre_logits else self.fc(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | Sequence[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ):
        """timm's interface: the maps of all depths, as transformers gives them, with or without its norms."""
        if output_fmt != "NCHW" or not self.feature_info:
            raise ValueError(f"{type(self.encoder).__name__} has no maps of the format {output_fmt}")
        last, maps = self._run(x)
        chosen = range(len(maps))[-(indices or len(maps)) :] if indices is None or isinstance(indices, int) else indices
        found = [maps[i] for i in chosen]
        return found if intermediates_only else (last, found)


def as_map(state: Tensor, size: Sequence[int]) -> Tensor | None:
    """A hidden state as a map [B, C, h, w] of an image of `size` (H, W) px; None where its tokens form no grid."""
    if state.dim() != 3:
        return state if state.dim() == 4 else None
    height, width = size
    for before in (0, 1):  # a class token stands first
        h = round(((state.shape[1] - before) * height / width) ** 0.5)
        w = (state.shape[1] - before) // max(h, 1)
        if h * w == state.shape[1] - before and abs(h * width - w * height) < max(size):
            return state[:, before:].transpose(1, 2).unflatten(2, (h, w))
    return None


default_cfgs = generate_default_cfgs(
    {
        "transformers_encoder": {
            "input_size": (3, 224, 224),
            "crop_pct": 1.0,
            "interpolation": "bilinear",
            "mean": (0.485, 0.456, 0.406),
            "std": (0.229, 0.224, 0.225),
            "num_classes": 1000,
            "first_conv": None,
            "classifier": "fc",
        }
    }
)


def register(entry: Callable) -> Callable:
    """A name that timm has stays as it is: a copy of this file beside weights changes nothing where this package is."""
    return entry if is_model(entry.__name__) else register_model(entry)


@register
def transformers_encoder(pretrained: bool = False, **kwargs) -> TransformersEncoder:
    """An encoder of transformers by its configuration, `encoder_config`."""
    return build_model_with_cfg(TransformersEncoder, "transformers_encoder", pretrained, **kwargs)
