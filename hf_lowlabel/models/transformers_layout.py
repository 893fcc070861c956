"""Repositories in transformers' layout: which encoders there are, and their tensors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from safetensors import safe_open
from torch import Tensor
from transformers import AutoConfig
from transformers.models.auto import modeling_auto

from ..errors import UserError
from ..files import read_json
from .translation import Translation
from .translation_clip import clip, siglip, siglip2
from .translation_own import is_encoder, own
from .translation_stages import convnext, convnextv2, dinov3_convnext, resnet, swin, swinv2
from .translation_vit import beit, deit, dinov2, dinov3, ijepa, vit

# model_type of config.json, or of the vision_config in it -> its translation
FAMILIES: dict[str, Callable[..., Translation]] = {
    "beit": beit,
    "clip_vision_model": clip,
    "convnext": convnext,
    "convnextv2": convnextv2,
    "data2vec-vision": beit,
    "deit": deit,
    "dinov2": dinov2,
    "dinov2_with_registers": dinov2,
    "dinov3_convnext": dinov3_convnext,
    "dinov3_vit": dinov3,
    "ijepa": ijepa,
    "metaclip_2_vision_model": clip,
    "resnet": resnet,
    "siglip2_vision_model": siglip2,
    "siglip_vision_model": siglip,
    "swin": swin,
    "swinv2": swinv2,
    "vit": vit,
    "vit_mae": vit,
    "vit_msn": vit,
}
# what a model does -> transformers' tables of such models; the first that has it names the modality
MODALITIES = {
    "video": "VIDEO_CLASSIFICATION",
    "images": "IMAGE IMAGE_CLASSIFICATION BACKBONE OBJECT_DETECTION SEMANTIC_SEGMENTATION DEPTH_ESTIMATION "
    "UNIVERSAL_SEGMENTATION",
    "audio": "AUDIO_CLASSIFICATION CTC SPEECH_SEQ_2_SEQ AUDIO_XVECTOR TEXT_TO_WAVEFORM",
    "text": "CAUSAL_LM MASKED_LM SEQ_TO_SEQ_CAUSAL_LM SEQUENCE_CLASSIFICATION TEXT_ENCODING",
}


def translation_of(config: dict, source: str) -> Translation:
    """The translation of the image encoder that config.json describes.

    Raises:
        UserError: it describes none, or one that timm has no architecture for.
    """
    whole = parsed_config(config, source)
    vision = whole if whole.model_type in FAMILIES else getattr(whole, "vision_config", None)
    kind = getattr(vision, "model_type", None)
    if vision is None and is_encoder(whole):
        return own(config, source)
    if kind not in FAMILIES:
        raise UserError(_refusal(whole.model_type, kind, source))
    if getattr(vision, "num_channels", 3) != 3:
        raise UserError(
            f"The encoder of {source} sees {vision.num_channels} channels. Take one of red, green and blue."
        )
    found = FAMILIES[kind](vision)
    for name, value in found.exact.items():
        if (has := getattr(vision, name, value)) != value:
            raise UserError(
                f"The encoder of {source} has {name}={has!r}, where timm's {found.architecture} has {value!r}, so its "
                "features would not be the same. Take another model."
            )
    if not is_classifier(config):
        found.head = None
    return found


def is_classifier(config: dict) -> bool:
    return any(str(name).endswith("ForImageClassification") for name in config.get("architectures") or [])


def class_names(config: dict) -> list[str] | None:
    """id2label in its order; None where the names are the placeholders of transformers."""
    listed = config.get("id2label") or {}
    names = [str(listed[key]) for key in sorted(listed, key=int)]
    return None if all(name == f"LABEL_{i}" for i, name in enumerate(names)) else names


def parsed_config(config: dict, source: str):
    kind = config.get("model_type")
    try:
        return AutoConfig.for_model(kind, **{k: v for k, v in config.items() if k != "model_type"})
    except Exception as error:  # an unknown type, or whatever a field of the wrong type makes a configuration raise
        raise UserError(
            f"The checkpoint in {source} is of type {kind or 'unknown'!r}, which is neither timm's layout, with "
            f"'architecture' in config.json, nor one that this version of transformers reads ({type(error).__name__}). "
            "Take another model, for example facebook/dinov2-small or timm/resnet18.a1_in1k."
        ) from error


def _refusal(kind: str, vision: str | None, source: str) -> str:
    known = ", ".join(sorted({name.removesuffix("_vision_model") for name in FAMILIES}))
    if vision is None and (sees := _modality(kind)) in ("text", "audio", "video"):
        return (
            f"{source} is a model of {sees} ({kind}), and sees no images. Take an image encoder, for example "
            "facebook/dinov2-small or google/siglip2-base-patch16-224."
        )
    name = kind if vision is None else f"{kind} with {vision}"
    return (
        f"{source} is of type {name}, which is neither one of these ({known}) nor another image encoder that "
        "transformers alone can run. Take a timm name, or a repository of one, for example facebook/dinov2-small."
    )


def _modality(kind: str) -> str | None:
    for what, tables in MODALITIES.items():
        for table in tables.split():
            if kind in getattr(modeling_auto, f"MODEL_FOR_{table}_MAPPING_NAMES", {}):
                return what
    return None


# ---- weights ---------------------------------------------------------------------------------------------------------
def shards(index: Path, translation: Translation, source: str) -> list[str]:
    """The files of a sharded checkpoint in which the encoder is; the text model of a large CLIP stays where it is."""
    try:
        places = read_json(index)["weight_map"]
        found = sorted({str(places[name]) for name in translation.wanted(places, source)})
        if strange := [name for name in found if Path(name).name != name]:
            raise ValueError(f"{strange[0]} lies in another folder")
        return found
    except (UserError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"There is a damaged {index.name} in {source} ({error}). Download it again.") from error


def read_encoder(path: Path, translation: Translation, source: str) -> dict[str, Tensor]:
    """The encoder's tensors under the repository's names. path: a safetensors file, or the index of several."""
    sharded = path.name.endswith(".index.json")
    files = [path.parent / name for name in shards(path, translation, source)] if sharded else [path]
    names: dict[str, Path] = {}
    for file in files:
        with safe_open(file, "pt") as opened:
            names |= dict.fromkeys(opened.keys(), file)
    wanted = translation.wanted(names, source)
    out: dict[str, Tensor] = {}
    for file in files:
        with safe_open(file, "pt") as opened:
            out |= {name: opened.get_tensor(name) for name in wanted if names[name] == file}
    return out
