"""What stands on an encoder where smp has nothing of the kind: DeepLabV2's head, a linear layer on patches, neighbours.

Imports nothing but torch, timm and smp, because this file travels with exported checkpoints.
"""

from __future__ import annotations

import timm
import torch
import torch.nn.functional as F
from segmentation_models_pytorch.encoders import get_encoder
from torch import Tensor, nn


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


class Neighbours(nn.Conv2d):
    """p_c propto sum of w_j exp(s_j / T) over the k most similar of M stored features of class c, s their cosine
    similarity; log p are the logits (Wu et al. 2018, section 3.4). weight: unit features [M, D, 1, 1]; `classes` int64
    and `counts` float32 [M]: the class of each, and how much it counts."""

    CHUNK = 1 << 24  # similarities at once

    def __init__(self, channels: int, classes: int, stored: int, k: int, temperature: float):
        super().__init__(channels, stored, 1, bias=False)
        self.weight.requires_grad_(False)
        self.num_classes, self.k, self.temperature = classes, min(k, stored), temperature
        self.register_buffer("classes", torch.zeros(stored, dtype=torch.long))
        self.register_buffer("counts", torch.ones(stored))

    def forward(self, x: Tensor) -> Tensor:
        z = F.normalize(x.float(), dim=1).permute(0, 2, 3, 1).flatten(0, 2)  # [n, D]
        bank = self.weight[:, :, 0, 0].float()
        # in a graph the number of parts, as any len(), would fix the number of images
        parts = [z] if torch.compiler.is_exporting() else z.split(max(self.CHUNK // len(bank), 1))
        out = torch.cat([self.votes(part @ bank.T) for part in parts])
        return out.view(x.shape[0], *x.shape[-2:], -1).permute(0, 3, 1, 2)  # [B, K, h, w]

    def votes(self, similarity: Tensor) -> Tensor:
        """Log probabilities [n, K] of similarities [n, M]."""
        near, at = similarity.topk(self.k, dim=1)
        w = self.counts[at] * ((near - near[:, :1]) / self.temperature).exp()
        p = w.new_zeros(w.shape[0], self.num_classes).scatter_add_(1, self.classes[at], w)
        return (p / p.sum(1, keepdim=True)).clamp_min(1e-4).log()


class Nearest(Linear):
    """The classes of the most similar stored pixels, at every patch: the maps of `Linear`, and `Neighbours` on them."""

    def __init__(self, encoder_name: str, in_channels: int, classes: int, encoder_weights: None = None, **args):
        stored, k, temperature = args.pop("stored", 1), args.pop("k", 1), args.pop("temperature", 0.07)
        super().__init__(encoder_name, in_channels, classes, encoder_weights, **args)
        self.segmentation_head[0] = Neighbours(sum(self.encoder.out_channels), classes, stored, k, temperature)

    @torch.no_grad()
    def remember(self, x: Tensor, classes: Tensor, counts: Tensor, k: int, temperature: float) -> dict:
        """Store features [M, D] behind the norm; returns the arguments with which this network is built again."""
        old = self.segmentation_head[0]
        new = Neighbours(x.shape[1], old.num_classes, len(x), k, temperature).to(old.weight.device)
        new.weight.copy_(F.normalize(x, dim=1)[:, :, None, None])
        new.classes.copy_(classes)
        new.counts.copy_(counts)
        self.segmentation_head[0] = new
        return {"stored": len(x), "k": k, "temperature": temperature}


OWN = {"deeplabv2": DeepLabV2, "linear": Linear, "knn": Nearest}  # architectures that smp has not
