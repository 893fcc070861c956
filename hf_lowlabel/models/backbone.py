"""An encoder without classes whose checkpoints are timm's own: what target pretraining trains and saves."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import TimmWrapperConfig, TimmWrapperModel
from transformers.conversion_mapping import register_checkpoint_conversion_mapping
from transformers.core_model_loading import PrefixChange
from transformers.models.timm_wrapper.modeling_timm_wrapper import TimmWrapperPreTrainedModel

from ..errors import UserError
from .timm_checkpoint import TimmCheckpointMixin, pooled_size


class LowLabelBackbone(TimmCheckpointMixin, TimmWrapperModel):
    """pooled(x) [B, D] is what a classifier's last layer would read; feature_map(x) [B, C, h, w] the last map.

    D = `num_features` and C = `num_map_features` are equal for most networks and differ where layers stand between
    pooling and classes (MobileNetV3: 576 and 1024). A saved folder loads through `AutoModel`,
    `timm.create_model("local-dir:FOLDER", pretrained=True)`, as the smp encoder `tu-local-dir:FOLDER`, and here. Made
    by `create_backbone` or `from_pretrained`; config: transformers' TimmWrapperConfig.
    """

    def __init__(self, config: TimmWrapperConfig):
        TimmWrapperPreTrainedModel.__init__(self, config)  # not TimmWrapperModel's: it would build a second network
        self.features_only = False
        self.timm_model = self._build(config, 0)
        self.post_init()

    @property
    def num_features(self) -> int:
        """D, the length of a pooled feature vector."""
        return pooled_size(self.timm_model)

    @property
    def num_map_features(self) -> int:
        """C, the channels of the last feature map."""
        return self.timm_model.num_features

    @property
    def patch(self) -> int:
        """Side in px of which the side of an image must be a multiple: a transformer's patch, 1 for other networks."""
        return getattr(getattr(self.timm_model, "patch_embed", None), "patch_size", (1,))[0]

    def pooled(self, x: Tensor) -> Tensor:
        """Pooled features."""
        net = self.timm_model
        return net.forward_head(net.forward_features(x.to(self.device, self.dtype)), pre_logits=True)  # [B, D]

    def feature_map(self, x: Tensor) -> Tensor:
        """The last feature map; a vision transformer's patch tokens in their grid."""
        net = self.timm_model
        out = net.forward_features(x.to(self.device, self.dtype))
        if not isinstance(out, Tensor) or out.ndim not in (3, 4):
            raise UserError(
                f"The features of {self.config.architecture!r} are no map: neither [B, C, h, w] or [B, h, w, C] nor "
                "tokens. Take another architecture."
            )
        if out.ndim == 4:
            return out.permute(0, 3, 1, 2) if getattr(net, "output_fmt", "NCHW") == "NHWC" else out  # [B, C, h, w]
        h, w = self._grid(x.shape[-2:], out.shape[1])
        tokens = out[:, out.shape[1] - h * w :]  # class and register tokens stand first
        return tokens.transpose(1, 2).unflatten(2, (h, w))  # [B, C, h, w]

    def freeze_beyond_map(self) -> list[str]:
        """Freezes the layers behind the last map (MobileNetV3's conv_head, ConvNeXt's head.norm); returns their names.

        For training on `feature_map` alone: every weight that is left gets a gradient, as DistributedDataParallel
        needs.
        """
        training = self.training
        with torch.enable_grad():
            self.eval().feature_map(torch.zeros(1, *self.preprocessing["input_size"])).sum().backward()
        beyond = [name for name, p in self.named_parameters() if p.requires_grad and p.grad is None]
        for name in beyond:
            self.get_parameter(name).requires_grad_(False)
        self.zero_grad(set_to_none=True)
        self.train(training)
        return beyond

    def feature_maps(self, x: Tensor, indices: int | Sequence[int] | None = None) -> list[Tensor]:
        """Maps of several depths, shallow to deep, before any final norm: all, the last `indices`, or those listed."""
        net = self.timm_model
        if not hasattr(net, "forward_intermediates"):
            raise UserError(
                f"{self.config.architecture!r} gives no intermediate maps, as it lacks timm's forward_intermediates. "
                "Take another architecture, or feature_map for the last map alone."
            )
        maps = net.forward_intermediates(
            x.to(self.device, self.dtype), indices=indices, intermediates_only=True, output_fmt="NCHW"
        )
        return list(maps)  # [B, C_i, h_i, w_i]

    def _grid(self, size: Sequence[int], tokens: int) -> tuple[int, int]:
        """(h, w) of the patch tokens for an image of `size` (H, W) px, which may follow a class token and registers."""
        for prefix in (getattr(self.timm_model, "num_prefix_tokens", 0), 0, 1):
            h = round(((tokens - prefix) * size[0] / size[1]) ** 0.5)
            w = (tokens - prefix) // max(h, 1)
            if h * w == tokens - prefix and abs(h * size[1] - w * size[0]) < max(size):
                return h, w
        raise UserError(
            f"{self.config.architecture!r} has {tokens} tokens for an image of {size[0]} x {size[1]} px, which form no "
            "feature grid of one token per patch. Take an architecture with a regular patch grid."
        )


register_checkpoint_conversion_mapping("LowLabelBackbone", [PrefixChange(prefix_to_add="timm_model")], overwrite=True)
