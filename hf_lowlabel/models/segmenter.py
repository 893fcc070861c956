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
from segmentation_models_pytorch.encoders import get_encoder
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import SemanticSegmenterOutput

from .configuration_segmenter import LowLabelSegmenterConfig

# arguments of timm.create_model that read other files
LEADS_OUT = {"checkpoint_path", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"}


class BatchNorm(nn.BatchNorm2d):
    """BatchNorm that survives a single value per channel (one image, pooled to 1x1): it has no variance, so the running
    statistics normalise it, as in eval mode. smp's ASPP pooling meets this at batch 1; torch refuses it."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training and x.numel() == x.shape[1]:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps)
        return super().forward(x)


class DilatedSum(nn.Module):
    """DeepLabV2's classifier (Chen et al. 2017, ASPP-L): the sum over rates r of a 3x3 convolution with dilation r."""

    def __init__(self, channels: int, classes: int, rates: list[int], upsampling: int):
        super().__init__()
        self.upsampling = upsampling
        self.convs = nn.ModuleList(nn.Conv2d(channels, classes, 3, padding=r, dilation=r) for r in rates)
        for conv in self.convs:
            nn.init.normal_(conv.weight, std=0.01)
            nn.init.zeros_(conv.bias)

    def forward(self, x: Tensor) -> Tensor:
        logits = sum(conv(x) for conv in self.convs)
        return F.interpolate(logits, scale_factor=self.upsampling, mode="bilinear", align_corners=False)


class DeepLabV2(nn.Module):
    """DeepLabV2 (Chen et al. 2017): dilated encoder at output stride 8 and one classifier summed over four rates.

    The code that the CutMix-Seg, ClassMix and CLMB tables were made with returns inside the loop over the rates, so
    that only the first two, 6 and 12, take part: `rates=[6, 12]` is their network, the default is the paper's.
    """

    def __init__(
        self,
        encoder_name: str,
        in_channels: int,
        classes: int,
        output_stride: int = 8,
        rates: tuple[int, ...] = (6, 12, 18, 24),
        encoder_weights: None = None,
        **encoder_args,
    ):
        super().__init__()
        self.encoder = get_encoder(
            encoder_name,
            in_channels=in_channels,
            depth=5,
            weights=encoder_weights,
            output_stride=output_stride,
            **encoder_args,
        )
        self.segmentation_head = DilatedSum(self.encoder.out_channels[-1], classes, list(rates), output_stride)

    @staticmethod
    def decoder(maps: list[Tensor]) -> Tensor:
        return maps[-1]


class Maps(nn.Module):
    """The last `layers` maps of a timm network, after its final norm: those of a ViT are its blocks' patch tokens."""

    def __init__(self, name: str, in_channels: int, layers: int, **args):
        super().__init__()
        net = timm.create_model(name, pretrained=False, in_chans=in_channels, num_classes=0, **args)
        self.layers = min(layers, len(net.feature_info))
        if hasattr(net, "prune_intermediate_layers"):
            net.prune_intermediate_layers(self.layers, prune_norm=False, prune_head=True)
        self.model = net
        info = net.feature_info[-self.layers :]
        self.out_channels = [i["num_chs"] for i in info]
        self.strides = [i["reduction"] for i in info]
        self.output_stride = max(self.strides)

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = self.model.forward_intermediates(
            x, indices=self.layers, norm=True, output_fmt="NCHW", intermediates_only=True
        )
        return list(maps)  # [B, D, h, w] each


class Linear(nn.Module):
    """A linear classifier of every patch, as DINOv2 is measured on segmentation (Oquab et al. 2023, section 7.4): the
    maps of the last `layers` blocks beside each other, BatchNorm, a 1x1 convolution, bilinear to the image's size."""

    def __init__(self, encoder_name: str, in_channels: int, classes: int, encoder_weights: None = None, **args):
        super().__init__()
        layers = args.pop("layers", 4)
        self.encoder = Maps(encoder_name.removeprefix("tu-"), in_channels, layers, **args)
        width = sum(self.encoder.out_channels)
        self.norm, conv = nn.BatchNorm2d(width), nn.Conv2d(width, classes, 1)
        nn.init.normal_(conv.weight, std=0.01)
        nn.init.zeros_(conv.bias)
        self.segmentation_head = nn.Sequential(conv, nn.Upsample(scale_factor=self.encoder.strides[0], mode="bilinear"))

    def decoder(self, maps: list[Tensor]) -> Tensor:
        size = maps[0].shape[-2:]  # the finest
        fitted = [m if m.shape[-2:] == size else F.interpolate(m, size=size, mode="bilinear") for m in maps]
        return self.norm(torch.cat(fitted, dim=1))

    @torch.no_grad()
    def scale_maps(self, x: Tensor | None) -> None:
        """The norm takes its statistics from features [M, D], and divides each map as a whole: (f - mean) / s with
        s^2 = mean |f - mean|^2, so that no depth is louder than another. None: a norm that changes nothing."""
        norm = self.norm
        if x is None:
            norm.reset_parameters()
            norm.running_var.fill_(1 - norm.eps)
            return
        norm.running_mean.copy_(x.mean(0))
        norm.running_var.copy_(x.var(0, unbiased=False))
        widths = self.encoder.out_channels
        totals = torch.cat([part.sum().clamp_min(1e-12).repeat(len(part)) for part in norm.running_var.split(widths)])
        norm.weight.copy_(((norm.running_var + norm.eps) / totals).sqrt())


OWN = {"deeplabv2": DeepLabV2, "linear": Linear}  # architectures that smp has not


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
    def from_pretrained(cls, *args, **kwargs):
        """As in transformers, from safetensors only: to open a pickle can run code."""
        if not kwargs.setdefault("use_safetensors", True):
            raise ValueError("use_safetensors=False would open a pickle, which can run code. Leave the argument out.")
        out = super().from_pretrained(*args, **kwargs)
        (out[0] if isinstance(out, tuple) else out).__dict__["_fresh"] = {}
        return out

    def save_pretrained(self, save_directory, *args, **kwargs) -> None:
        """Writes config.json, model.safetensors and preprocessor_config.json, which AutoImageProcessor reads."""
        if kwargs.get("is_main_process", True):  # before super(), which may push the folder
            os.makedirs(save_directory, exist_ok=True)
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
        maps = self.network.encoder(self.pad(x))
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
