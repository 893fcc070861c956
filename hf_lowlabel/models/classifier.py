"""An image classifier whose checkpoints are timm's own."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from transformers import TimmWrapperConfig, TimmWrapperForImageClassification
from transformers.conversion_mapping import register_checkpoint_conversion_mapping
from transformers.core_model_loading import PrefixChange
from transformers.models.timm_wrapper.modeling_timm_wrapper import TimmWrapperPreTrainedModel

from ..errors import UserError
from .timm_checkpoint import TimmCheckpointMixin, body_parameters, classifier_modules, head_names, pooled_size


class LowLabelForImageClassification(TimmCheckpointMixin, TimmWrapperForImageClassification):
    """logits = classify(features(x)): `features` [B, D] stand before the last layer, `classify` is the last layer.

    A folder from `save_pretrained` loads with bit-identical logits through `AutoModelForImageClassification`,
    `timm.create_model("local-dir:FOLDER", pretrained=True)`, as the smp encoder `tu-local-dir:FOLDER`, and through this
    class; networks that timm lacks (`models/cifar.py`) travel with their code, and want trust_remote_code=True.
    Made by `create_classifier` or `from_pretrained`; config: transformers' TimmWrapperConfig. Raises UserError for a
    checkpoint without classes.
    """

    def __init__(self, config: TimmWrapperConfig):
        # not TimmWrapperForImageClassification's, which would build a second network
        TimmWrapperPreTrainedModel.__init__(self, config)
        if not config.num_labels:
            raise UserError(
                "The checkpoint is one without classes, and no classifier. create_classifier(FOLDER, num_labels) gives "
                "it a fresh head."
            )
        self.num_labels = config.num_labels
        self.timm_model = self._build(config, config.num_labels)
        self.__dict__["_heads"] = classifier_modules(self.timm_model)  # in __dict__: registered once, in timm_model
        self.post_init()

    @property
    def num_features(self) -> int:
        """D, the length of a feature vector."""
        return pooled_size(self.timm_model)

    def features(self, x: Tensor) -> Tensor:
        """Pooled features before the last layer."""
        self._head()  # two heads read different features
        net = self.timm_model
        x = x.to(self.device, self.dtype)
        return net.forward_head(net.forward_features(x), pre_logits=True)  # [B, D]

    def classify(self, f: Tensor) -> Tensor:
        """The last layer alone."""
        head = self._head()
        if isinstance(head, nn.Conv2d):
            return head(f[:, :, None, None]).flatten(1)  # [B, K]
        return head(f)  # [B, K]

    def body_parameters(self) -> Iterator[nn.Parameter]:
        """All parameters except the last layer's."""
        return body_parameters(self.timm_model)

    @torch.no_grad()
    def set_classifier(self, weight: Tensor, bias: Tensor) -> None:
        """Make classify(f) = f weight^T + bias, [K, D] and [K]. UserError where the last layer is not linear."""
        head = self._head()
        *before, last = head if isinstance(head, nn.Sequential) else [head]
        plain = isinstance(last, nn.Linear) or isinstance(last, nn.Conv2d) and last.kernel_size == (1, 1)
        if not plain or last.bias is None or last.weight.flatten(1).shape != weight.shape:
            raise UserError(
                f"The last layer of {self.config.architecture!r} is a {type(last).__name__}, and must be one linear "
                "layer with a bias, of the features' width. Take another architecture."
            )
        for norm in before[::-1]:
            if isinstance(norm, nn.BatchNorm1d):  # a f + c before the layer: undone in its weights
                a = norm.weight / (norm.running_var + norm.eps).sqrt()
                weight, c = weight.to(a) / a, norm.bias - norm.running_mean * a
                bias = bias.to(a) - weight @ c
        last.weight.copy_(weight.view_as(last.weight))
        last.bias.copy_(bias)

    def head_names(self) -> set[str]:
        """Names of the last layer's tensors in this model's state dict."""
        return {f"timm_model.{name}" for name in head_names(self.timm_model)}

    def _head(self) -> nn.Module:
        heads = self._heads
        if len(heads) != 1:
            raise UserError(
                f"{self.config.architecture!r} has {len(heads)} classifier layers, but features and classify need "
                "exactly one. Take another architecture, or its variant without distillation."
            )
        return heads[0]


register_checkpoint_conversion_mapping(
    "LowLabelForImageClassification", [PrefixChange(prefix_to_add="timm_model")], overwrite=True
)
