"""Segmenter: any timm encoder in any smp architecture as a PreTrainedModel.

Imports nothing but torch, timm, smp and transformers, because this file travels with exported checkpoints, which a
process without hf_lowlabel then loads with trust_remote_code=True.
"""

from __future__ import annotations

import json
import os

import segmentation_models_pytorch as smp
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import SemanticSegmenterOutput

from .configuration_segmenter import LowLabelSegmenterConfig
from .segmenter_parts import OWN

# arguments of timm.create_model that read other files
LEADS_OUT = {"checkpoint_path", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"}


class BatchNorm(nn.BatchNorm2d):
    """BatchNorm that survives a single value per channel (one image, pooled to 1x1): it has no variance, so the running
    statistics normalise it, as in eval mode. smp's ASPP pooling meets this at batch 1; torch refuses it."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training and x.numel() == x.shape[1]:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps)
        return super().forward(x)


def build(config: LowLabelSegmenterConfig) -> nn.Module:
    """The network with `encoder`, `decoder` and `segmentation_head`, initialised as smp and timm do it."""
    args = dict(config.architecture_args or {})
    if not timm.is_model(config.encoder.partition(".")[0]) or LEADS_OUT & set(args):
        raise ValueError(
            f"The encoder {config.encoder!r} with {args} is none of timm's, or its arguments read other files. Give a "
            "timm name, and only sizes and switches as arguments."
        )
    if config.architecture == "dpt":
        args.setdefault("num_classes", 0)  # timm's classifier would be dead weight
    make = OWN.get(config.architecture) or smp.MODEL_ARCHITECTURES_MAPPING.get(config.architecture)
    if make is None:
        known = ", ".join(sorted([*smp.MODEL_ARCHITECTURES_MAPPING, *OWN]))
        raise ValueError(f"There is no architecture {config.architecture!r}. Known are: {known}.")
    net = make(
        encoder_name="tu-" + config.encoder,
        encoder_weights=None,
        in_channels=config.num_channels,
        classes=config.num_labels,
        **args,
    )
    body = getattr(net.encoder, "model", net.encoder)
    if hasattr(body, "prune_intermediate_layers") and hasattr(net.encoder, "_output_indices"):
        body.prune_intermediate_layers(net.encoder._output_indices, prune_norm=True, prune_head=True)
    for module in net.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = BatchNorm
    return net


class LowLabelForSemanticSegmentation(PreTrainedModel):
    """A network for masks, built as `config` says; `create_segmenter` makes one from an encoder's weights.

    `model(x).logits` is [B, K, H, W] at the size of `x` [B, 3, H, W], whatever that size is.
    `encode`, `decode` and `classify` are its three parts: feature maps of the encoder, one map of the decoder, logits.
    """

    config_class = LowLabelSegmenterConfig
    base_model_prefix = "network"
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    _no_split_modules: list[str] = []
    accepts_loss_kwargs = False

    def __init__(self, config: LowLabelSegmenterConfig):
        super().__init__(config)
        self.num_labels = config.num_labels
        on_meta = torch.get_default_device().type == "meta"
        with torch.device("cpu"):
            self.network = build(config)
        # from_pretrained builds on the meta device, replaces every missing weight and non-persistent buffer by an empty
        # one and asks _init_weights for its value; timm and smp cannot re-create single tensors, so theirs are kept
        self.__dict__["_fresh"] = (
            {
                id(module): {name: t for name, t in (module._parameters | module._buffers).items() if t is not None}
                for module in self.network.modules()
            }
            if on_meta
            else {}
        )
        # DPT halves the patch grid once more and doubles it again
        stride = int(self.network.encoder.output_stride) * (2 if config.architecture == "dpt" else 1)
        self.divisor = config.size_divisor or stride
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        for name, fresh in self.__dict__["_fresh"].get(id(module), {}).items():
            tensor = getattr(module, name)
            if tensor is not fresh and not getattr(tensor, "_is_hf_initialized", False):
                tensor.copy_(fresh)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *args, **kwargs):
        """As in transformers, from safetensors only: to open a pickle can run code."""
        name = pretrained_model_name_or_path
        name = os.fspath(name) if isinstance(name, os.PathLike) else name  # transformers takes str() of a finished run
        if not kwargs.setdefault("use_safetensors", True):
            raise ValueError("use_safetensors=False would open a pickle, which can run code. Leave the argument out.")
        out = super().from_pretrained(name, *args, **kwargs)
        (out[0] if isinstance(out, tuple) else out).__dict__["_fresh"] = {}
        return out

    bring_code = None  # (config, folder or None) -> auto_map; the package, which has this file, sets it

    def save_pretrained(self, save_directory, *args, **kwargs) -> None:
        """Writes config.json, model.safetensors and preprocessor_config.json, which AutoImageProcessor reads; and this
        code, so that transformers reads them by trust_remote_code=True where the package is not."""
        main = kwargs.get("is_main_process", True)
        if main:  # before super(), which may push the folder
            os.makedirs(save_directory, exist_ok=True)
        if self.bring_code is not None:
            self.config.auto_map = self.bring_code(self.config.encoder, save_directory if main else None)
        if main:
            with open(os.path.join(save_directory, "preprocessor_config.json"), "w", encoding="utf-8") as file:
                file.write(json.dumps(processor_config(self.config), indent=2) + "\n")
        super().save_pretrained(save_directory, *args, **kwargs)

    @property
    def num_features(self) -> int:
        """Channels of `features(x)`."""
        head = next(m for m in self.network.segmentation_head.modules() if isinstance(m, nn.Conv2d))
        return head.in_channels

    def body_parameters(self) -> list[nn.Parameter]:
        return list(self.network.encoder.parameters())

    def get_input_embeddings(self) -> None:
        return None  # transformers asks every model; there is no table of tokens here

    def pad(self, x: Tensor) -> Tensor:
        """Repeat the last row and column until height and width are multiples of the divisor."""
        bottom, right = (-x.shape[-2] % self.divisor, -x.shape[-1] % self.divisor)
        return F.pad(x, (0, right, 0, bottom), mode="replicate") if bottom or right else x

    def encode(self, x: Tensor) -> list[Tensor]:
        """Feature maps of the padded image, finest first; a plain ViT's prefix tokens [B, n, D] come last."""
        maps = self.network.encoder(self.pad(x.to(self.dtype)))
        if self.config.architecture == "dpt":
            maps = [*maps[0], *(tokens for tokens in maps[1] if tokens is not None)]
        return list(maps)

    def decode(self, maps: list[Tensor]) -> Tensor:
        """[B, D, h, w], the input of the classifier."""
        if self.config.architecture == "dpt":
            count = len(self.network.encoder.out_channels)
            tokens = maps[count:] or [None] * count
            return self.network.decoder(maps[:count], tokens)
        return self.network.decoder(maps)

    def classify(self, features: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """Logits [B, K, H, W] of the padded image, or cropped to `size` = (H, W) of the image before padding."""
        logits = self.network.segmentation_head(features)
        if size is None:
            return logits
        padded = [side + -side % self.divisor for side in size]
        if list(logits.shape[-2:]) != padded:
            logits = F.interpolate(logits, size=padded, mode="bilinear", align_corners=False)
        return logits[..., : size[0], : size[1]]

    def features(self, x: Tensor) -> Tensor:
        return self.decode(self.encode(x))

    def forward(self, pixel_values: Tensor, labels: Tensor | None = None, return_dict: bool | None = None, **kwargs):
        logits = self.classify(self.features(pixel_values), tuple(pixel_values.shape[-2:]))
        loss = None
        if labels is not None:
            ignore = self.config.semantic_loss_ignore_index
            total = F.cross_entropy(logits.float(), labels.long(), ignore_index=ignore, reduction="sum")
            loss = total / (labels != ignore).sum().clamp(min=1)
        return SemanticSegmenterOutput(loss=loss, logits=logits)


def processor_config(config: LowLabelSegmenterConfig) -> dict:
    """preprocessor_config.json: resize the longer side if the config says so, scale to 0..1, normalise.

    SegFormer's processor does that and nothing else, and turns logits back into a map of the image's size.
    """
    side = config.image_size
    return {
        "image_processor_type": "SegformerImageProcessor",
        "do_resize": side is not None,
        "resample": 2,
        "size": {"max_height": side, "max_width": side} if side else {"height": 512, "width": 512},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "do_reduce_labels": False,
        "image_mean": list(config.image_mean),
        "image_std": list(config.image_std),
    }
