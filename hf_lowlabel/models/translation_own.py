"""Encoders that timm lacks: transformers' own network inside `wrapped.TransformersEncoder`, loaded by transformers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from transformers import MODEL_FOR_BACKBONE_MAPPING, MODEL_MAPPING
from transformers.models.auto import modeling_auto

from ..errors import UserError
from .quiet import silent
from .translation import Plan, Translation
from .wrapped import own_network, own_side, parsed

# transformers' tables of models that read one image and give features, and of those that give or take something else
GIVE = ("IMAGE", "IMAGE_CLASSIFICATION", "BACKBONE")
OTHER = ("OBJECT_DETECTION", "VIDEO_CLASSIFICATION", "IMAGE_TO_IMAGE", "TIME_SERIES_CLASSIFICATION")
SCRAMBLED = ("hiera",)  # their tokens stand in no raster, so that no map can be made of them
# of config.json: what is no part of the network
LEFT_OUT = {"architectures", "id2label", "label2id", "torch_dtype", "dtype", "transformers_version", "auto_map"}


def is_encoder(config) -> bool:
    """Whether transformers has an image encoder of this configuration that reads pixels and nothing else."""
    kind = config.model_type
    if kind.startswith("timm_") or kind in SCRAMBLED or any(kind in _table(name) for name in OTHER):
        return False
    made = next((m[type(config)] for m in (MODEL_MAPPING, MODEL_FOR_BACKBONE_MAPPING) if type(config) in m), None)
    return any(kind in _table(name) for name in GIVE) and getattr(made, "main_input_name", None) == "pixel_values"


def _table(name: str) -> dict:
    return getattr(modeling_auto, f"MODEL_FOR_{name}_MAPPING_NAMES", {})


class Own(Translation):
    """No tensor is renamed here: transformers fits the names of a file to its network, as `from_pretrained` does."""

    @property
    def network(self) -> str:
        return f"the {self.model_args['encoder_config']['model_type']} of transformers"

    def wanted(self, names: Iterable[str], source: str) -> list[str]:
        return list(names)

    def apply(self, state: dict[str, Tensor], source: str, size: Iterable[int] | None) -> dict[str, Tensor]:
        config = self.model_args["encoder_config"]
        cls: Any = type(own_network(config))
        try:
            with silent():
                net, info = cls.from_pretrained(
                    None, config=parsed(config), state_dict=dict(state), output_loading_info=True
                )
        except RuntimeError as error:  # tensors of other shapes
            said = " ".join(str(error).split())[:200]
            raise UserError(
                f"The weights of {source} do not fit its config.json ({said}). Check that both belong together."
            ) from error
        base = f"{cls.base_model_prefix}."
        inside = any(name.startswith(base) for name in state)
        self._check(sorted(n for n in info["missing_keys"] if not n.startswith("pooler.")), "lack", source, "")
        strange = [n for n in sorted(info["unexpected_keys"]) if not n.removeprefix(base).startswith("pooler.")]
        self._check([n for n in strange if n.startswith(base) or not inside and not _head(n)], "hold", source, "")
        return {f"encoder.{n}": t for n, t in net.state_dict().items() if not n.startswith("pooler.")}


def own_names(state: dict[str, Tensor], config: dict, source: str) -> dict[str, Tensor]:
    """A saved `transformers_encoder` under the names of the network here; versions of transformers differ in them.

    Args:
        state: its tensors as they were saved.
        config: its encoder_config.
        source: whose they are, for errors.
    """
    encoder = {n.removeprefix("encoder."): t for n, t in state.items() if n.startswith("encoder.")}
    named = Own("transformers_encoder", {"encoder_config": config}, Plan(), "", 0).apply(encoder, source, None)
    return named | {n: t for n, t in state.items() if not n.startswith("encoder.")}


def _head(name: str) -> bool:
    return name.startswith(("classifier.", "decode_head.", "head.", "neck.", "decoder."))


def own(config: dict, source: str) -> Own:
    """The encoder of a config.json as transformers builds it.

    Args:
        config: config.json.
        source: whose it is, for errors.

    Raises:
        UserError: transformers cannot build it.
    """
    kept = {k: v for k, v in config.items() if k not in LEFT_OUT and not k.startswith("_")}
    try:
        with torch.device("meta"):
            net = own_network(kept).eval()
    except Exception as error:  # whatever a class of transformers raises for a field, or for a package it lacks
        said = " ".join(str(error).split())[:200]
        raise UserError(
            f"transformers cannot build the {config.get('model_type')} of {source} ({type(error).__name__}: {said}). "
            "Take another model, for example facebook/dinov2-small."
        ) from error
    side = own_side(net.config)
    fixed = side is not None and not _takes(net, side + 64)
    return Own("transformers_encoder", {"encoder_config": kept}, Plan(), "", side or 224, fixed=fixed)


def _takes(net: torch.nn.Module, side: int) -> bool:
    """Whether a network on the meta device takes images of another size than its own."""
    try:
        net(pixel_values=torch.zeros(1, 3, side, side, device="meta"))
    except Exception:  # of size, whichever operation meets it first
        return False
    return True
