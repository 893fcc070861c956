"""Models of transformers that compare images with sentences: CLIP, SigLIP, SigLIP 2 and others of two towers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import get_hf_file_metadata, hf_hub_url
from huggingface_hub.errors import EntryNotFoundError
from torch import Tensor, nn
from transformers import MODEL_MAPPING, AutoModel, AutoTokenizer

from ..errors import UserError
from ..files import verify
from . import transformers_layout as layout
from .checkpoint_resolver import address, fetcher, model_config, without_safetensors
from .image_processors import preprocessing_of
from .saved_models import ADAPTER, whole_model

SENTENCES = 256  # in one pass of the text tower
TOKENIZERS = ("tokenizer.json", "vocab.json", "vocab.txt", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model")
EXAMPLE = "Take a model of two towers, for example google/siglip2-base-patch16-224 or openai/clip-vit-base-patch32."


class TwoTowers(nn.Module):
    """Images and sentences as vectors of one space.

    `pooled(x)` of images [B, 3, H, W] and `sentences(texts)` are float32 [B, D] and [n, D], of any length.
    preprocessing: what evaluation does to an image, under timm's names. temperature: of the model's own softmax over
    cosines, 1 / exp(logit_scale).
    """

    def __init__(self, model: nn.Module, tokenizer, preprocessing: dict, source: str):
        super().__init__()
        self.model, self.source, self.preprocessing = model, source, preprocessing
        self.__dict__["tokenizer"] = tokenizer
        scale = getattr(model, "logit_scale", None)
        self.temperature = 0.01 if scale is None else float(torch.exp(-scale.detach().float()))
        siglip = "siglip" in str(model.config.model_type)  # trained on lower case, padded to its full length
        self.lower = siglip
        length = getattr(model.config.text_config, "max_position_embeddings", None) or 64
        self.cut = {"padding": "max_length" if siglip else "longest", "max_length": length, "truncation": True}

    @property
    def num_features(self) -> int:
        """D, the length of a vector."""
        return self.sentences(["a"]).shape[1]

    def pooled(self, x: Tensor) -> Tensor:
        """Vectors of normalised images [B, 3, H, W] -> [B, D]."""
        if self.model.config.vision_config.model_type != "siglip2_vision_model":
            return _vector(self.model.get_image_features(pixel_values=x))
        p = self.model.config.vision_config.patch_size  # SigLIP 2 takes rows of patches
        rows = x.unfold(2, p, p).unfold(3, p, p).permute(0, 2, 3, 4, 5, 1)  # [B, h, w, p, p, 3]
        shape = torch.tensor([rows.shape[1:3]] * len(x), device=x.device)
        rows = rows.flatten(3).flatten(1, 2)
        mask = torch.ones(rows.shape[:2], dtype=torch.long, device=x.device)
        return _vector(
            self.model.get_image_features(pixel_values=rows, pixel_attention_mask=mask, spatial_shapes=shape)
        )

    @torch.inference_mode()
    def sentences(self, texts: Sequence[str]) -> Tensor:
        """Vectors of sentences -> float32 [n, D] on the CPU."""
        texts = [text.lower() for text in texts] if self.lower else list(texts)
        device = next(self.model.parameters()).device
        parts = []
        for start in range(0, len(texts), SENTENCES):
            tokens = self.tokenizer(texts[start : start + SENTENCES], return_tensors="pt", **self.cut)
            given = {k: v.to(device) for k, v in tokens.items() if k in ("input_ids", "attention_mask")}
            if self.lower:  # SigLIP reads its padding too
                given.pop("attention_mask", None)
            parts.append(_vector(self.model.get_text_features(**given)).float().cpu())
        return torch.cat(parts)


def _vector(out) -> Tensor:
    """What get_image_features gives: a tensor, or since transformers 5 an output with one."""
    return out if isinstance(out, Tensor) else out.pooler_output


@dataclass(frozen=True)
class Promise:
    """What a repository of two towers says before its weights are there. place: the folder or Hub id, at a revision."""

    place: str
    revision: str | None
    preprocessing: dict
    tokenizer: Any


def check_two_towers(name: str, revision: str | None = None) -> Promise:
    """All that is known of a model of images and words without its weights.

    Args:
        name: a Hub id or a local folder in transformers' layout.
        revision: commit, tag or branch of a Hub id.

    Raises:
        UserError: it has no text features, no tokenizer or no safetensors.
    """
    if not Path(name).is_dir() and "/" not in name:
        raise UserError(f"{name!r} is no folder and no Hub id, which has the form org/name. {EXAMPLE}")
    config = model_config(name, revision)
    if not config:
        raise UserError(f"There is no config.json in {name}. Give a folder that save_pretrained wrote, or a Hub id.")
    if "architecture" in config:
        raise UserError(f"{name} is a timm model, and has no text tower. {EXAMPLE}")
    parsed = layout.parsed_config(config, name)
    made = MODEL_MAPPING.get(type(parsed), None) if type(parsed) in MODEL_MAPPING else None
    if not (hasattr(made, "get_text_features") and hasattr(made, "get_image_features")):
        raise UserError(
            f"{name} is of type {parsed.model_type}, which has no features of both images and text. {EXAMPLE}"
        )
    fetch = fetcher(name, revision)
    processor = fetch(["preprocessor_config.json", "processor_config.json"])
    if processor is None:
        raise UserError(f"There is no preprocessor_config.json in {name}. Copy it from the model it was made from.")
    preprocessing = preprocessing_of(processor.parent, name)
    if preprocessing.pop("flip_channels", False):
        raise UserError(f"The image processor of {name} takes blue first, which is not known of two towers. {EXAMPLE}")
    place, revision = (name, None) if Path(name).is_dir() else address(name, revision)
    if fetch(list(TOKENIZERS)) is None:  # without files transformers makes one that knows no word
        raise UserError(
            f"There is no tokenizer in {name}, none of {', '.join(TOKENIZERS[:3])}, ... Take a repository with one, or "
            "copy it from the model it was made from."
        )
    if fetch([ADAPTER]) is not None:
        raise UserError(f"There is an {ADAPTER} in {name}. Merge the adapter into the model and save it again.")
    if not _weights_there(place, revision):
        raise UserError(without_safetensors(name))
    return Promise(place, revision, preprocessing, _tokenizer(place, revision, name))


def _weights_there(place: str, revision: str | None) -> bool:
    """Whether there are safetensors; where the Hub cannot be asked, what is in the cache decides later."""
    files = ("model.safetensors", "model.safetensors.index.json")
    if Path(place).is_dir():
        return any(Path(place, file).is_file() for file in files)
    for file in files:
        try:
            get_hf_file_metadata(hf_hub_url(place, file, revision=revision))
            return True
        except EntryNotFoundError:
            continue
        except Exception:  # the network's own, of whichever client huggingface_hub uses
            return True
    return False


def load_two_towers(name: str, revision: str | None = None) -> TwoTowers:
    """A model of images and words in eval mode, float32; name, revision: as for `check_two_towers`.

    Raises:
        UserError: as `check_two_towers`, before the weights are downloaded; or these are damaged or not all there.
    """
    known = check_two_towers(name, revision)
    weights = fetcher(name, revision)(["model.safetensors", "model.safetensors.index.json"])
    if weights is None:
        raise UserError(without_safetensors(name))
    for file in weights.parent.glob("model*.safetensors*"):
        verify(file)
    how: dict[str, Any] = dict(use_safetensors=True, trust_remote_code=False, dtype=torch.float32)
    how |= dict(ignore_mismatched_sizes=True)  # they are told, and refused by their names
    how |= dict(revision=known.revision or "main", output_loading_info=True)
    model = whole_model(name, lambda: AutoModel.from_pretrained(known.place, **how))
    return TwoTowers(model.eval(), known.tokenizer, known.preprocessing, name)


def _tokenizer(place: str, revision: str | None, name: str):
    try:
        return AutoTokenizer.from_pretrained(place, revision=revision or "main", trust_remote_code=False)
    except Exception as error:  # whatever a class of transformers raises for files that are not there
        raise UserError(
            f"The tokenizer of {name} cannot be read by transformers ({type(error).__name__}). Copy it again from the "
            "model it was made from, or install what it needs (sentencepiece)."
        ) from error
