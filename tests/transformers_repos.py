"""Tiny random encoders of transformers, saved as their repositories are, with weights that make every part count."""

from __future__ import annotations

import json
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file, save_file

WIDE = dict(
    hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, image_size=32, patch_size=8
)
SHORT = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, image_size=32, patch_size=8)
SWIN = dict(embed_dim=16, depths=[2, 2], num_heads=[2, 4], window_size=4, image_size=32, patch_size=2)
STAGES = dict(hidden_sizes=[8, 16, 16, 32], depths=[1, 1, 2, 1])
# name -> (class of the configuration, its values)
ENCODERS = {
    "beit": ("Beit", WIDE | dict(use_relative_position_bias=True)),
    "beit-token": ("Beit", WIDE | dict(use_absolute_position_embeddings=True, use_mean_pooling=False)),
    "clip": ("CLIPVision", WIDE),
    "clip-gelu": ("CLIPVision", WIDE | dict(hidden_act="gelu")),
    "convnext": ("ConvNext", STAGES | dict(image_size=32)),
    "convnextv2": ("ConvNextV2", STAGES | dict(image_size=32)),
    "data2vec": ("Data2VecVision", WIDE | dict(use_relative_position_bias=True)),
    "deit": ("DeiT", WIDE),
    "dinov2": ("Dinov2", SHORT | dict(mlp_ratio=2)),
    "dinov2-giant": ("Dinov2", SHORT | dict(use_swiglu_ffn=True)),
    "dinov2-registers": ("Dinov2WithRegisters", SHORT),
    "dinov3": ("DINOv3ViT", WIDE | dict(num_register_tokens=4)),
    "dinov3-gated": (
        "DINOv3ViT",
        WIDE | dict(num_register_tokens=4, use_gated_mlp=True, hidden_act="silu", query_bias=False, value_bias=False),
    ),
    "dinov3-convnext": ("DINOv3ConvNext", STAGES | dict(image_size=32)),
    "ijepa": ("IJepa", WIDE),
    "metaclip2": ("MetaClip2Vision", WIDE),
    "resnet": ("ResNet", dict(embedding_size=64, hidden_sizes=[64, 96, 128, 160], depths=[1, 2, 1, 1])),
    "resnet-basic": (
        "ResNet",
        dict(embedding_size=64, hidden_sizes=[64, 32, 48, 64], depths=[1, 2, 1, 1], layer_type="basic"),
    ),
    "siglip": ("SiglipVision", WIDE | dict(intermediate_size=70)),
    "siglip-no-head": ("SiglipVision", WIDE | dict(vision_use_head=False)),
    "siglip2": ("Siglip2Vision", {k: v for k, v in WIDE.items() if k != "image_size"} | dict(num_patches=16)),
    "swin": ("Swin", SWIN),
    "swinv2": ("Swinv2", SWIN),
    "vit": ("ViT", WIDE),
    "vit-mae": ("ViTMAE", WIDE | dict(mask_ratio=0.0)),
    "vit-msn": ("ViTMSN", WIDE),
}
PROCESSOR = {
    "image_processor_type": "ViTImageProcessor",
    "size": {"height": 32, "width": 32},
    "image_mean": [0.4, 0.5, 0.6],
    "image_std": [0.2, 0.25, 0.3],
    "resample": 3,
}


def config_of(name: str, **more):
    kind, values = ENCODERS[name]
    return getattr(transformers, f"{kind}Config")(**{**values, **more})


def shake(model: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Weights of the size that trained ones have: no zero gammas, no biases of zero, no fresh statistics."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.ndim > 1 and "token" not in name and "position" not in name:
                p.normal_(std=p[0].numel() ** -0.5)
            else:
                p.copy_(torch.randn_like(p) * 0.3 + (1.0 if "weight" in name and p.ndim == 1 else 0.2))
        for name, b in model.named_buffers():
            if "running" in name:
                b.uniform_(0.5, 1.5)
    return model.eval()


def make_encoder(name: str, **more) -> torch.nn.Module:
    config = config_of(name, **more)
    if name == "data2vec":  # finetuned ones have it
        return shake(transformers.Data2VecVisionModel(config, add_pooling_layer=True))
    if name == "metaclip2":  # AutoModel does not know its image tower
        return shake(transformers.MetaClip2VisionModel(config))
    return shake(transformers.AutoModel.from_config(config))


def make_two_towers(kind: str, words: int = 40) -> torch.nn.Module:
    """CLIP, SigLIP, SigLIP 2 or MetaCLIP 2: a tiny model with get_text_features and get_image_features."""
    text = {k: v for k, v in WIDE.items() if k not in ("image_size", "patch_size")} | dict(vocab_size=words)
    text |= dict(max_position_embeddings=16, eos_token_id=1, bos_token_id=0, pad_token_id=2)
    seen = dict(WIDE)
    if kind == "Siglip2":
        seen = {k: v for k, v in WIDE.items() if k != "image_size"} | dict(num_patches=16)
    values = dict(text_config=text, vision_config=seen, projection_dim=32)
    config = getattr(transformers, f"{kind}Config")(**values)
    return shake(getattr(transformers, f"{kind}Model")(config))


def save_repo(model: torch.nn.Module, folder: Path, processor: dict | None = PROCESSOR, card: str = "") -> Path:
    model.save_pretrained(folder)
    if processor is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    if card:
        (folder / "README.md").write_text(card)
    return folder


def rename(folder: Path, change) -> None:
    """Write the weights anew under other names; change(name) is None for one that goes."""
    state = load_file(folder / "model.safetensors")
    named = {change(k): v for k, v in state.items()}
    save_file({k: v for k, v in named.items() if k}, folder / "model.safetensors", metadata={"format": "pt"})


def files_of(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir()}


WORDS = "a an the of photo picture painting sky car red green blue crop annual itap bad origami large in art".split()


def save_tokenizer(folder: Path) -> None:
    """A tokenizer as real repositories have it (tokenizer.json, tokenizer_config.json): words, an end, padding."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    vocabulary = {word: i for i, word in enumerate(["<s>", "</s>", "<pad>", "<unk>", ".", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing("$A </s>", None, [("</s>", 1)])
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="</s>", pad_token="<pad>", unk_token="<unk>", model_max_length=16
    ).save_pretrained(folder)


def save_two_towers(kind: str, folder: Path, train: bool = False, **more) -> torch.nn.Module:
    """A whole repository of CLIP, SigLIP or SigLIP 2; train: it knows three colours of pictures by their names."""
    processor = dict(PROCESSOR)
    if kind == "Siglip2":
        processor = {"image_processor_type": "Siglip2ImageProcessor", "patch_size": 8, "max_num_patches": 16}
        processor |= {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    model = make_two_towers(kind)
    save_tokenizer(folder)
    if train:
        teach_colours(model, transformers.AutoTokenizer.from_pretrained(folder))
    return save_repo(model, folder, processor) and model


def teach_colours(model: torch.nn.Module, tokenizer, steps: int = 60) -> None:
    """Contrastive training on plain colours, until it tells them apart."""
    torch.manual_seed(0)
    colours = torch.tensor([[200.0, 40, 40], [40, 200, 40], [40, 40, 200]]) / 255
    text = tokenizer([f"a photo of a {c}." for c in ("red", "green", "blue")], return_tensors="pt")
    mean, std = (torch.tensor(PROCESSOR[f"image_{k}"])[:, None, None] for k in ("mean", "std"))
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    for _ in range(steps):
        x = (colours[:, :, None, None] + 0.15 * torch.rand(3, 3, 32, 32) - 0.07 - mean) / std
        out = model(input_ids=text["input_ids"], attention_mask=text["attention_mask"], pixel_values=x)
        loss = torch.nn.functional.cross_entropy(out.logits_per_image, torch.arange(3))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
