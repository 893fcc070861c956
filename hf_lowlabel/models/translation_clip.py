"""The image towers of CLIP and SigLIP in timm's layout, a function for each family: config -> Translation."""

from __future__ import annotations

import torch
from torch import Tensor

from .translation import Plan, Positions, Translation, activation, common, mlp_ratio_of, size_word, square_side


def _clip_block(plan: Plan, to: str, name: str) -> None:
    """A layer of CLIP and SigLIP."""
    plan.layer(f"{to}.attn.qkv", *(f"{name}.self_attn.{part}_proj" for part in "qkv"))
    plan.layer(f"{to}.attn.proj", f"{name}.self_attn.out_proj")
    for k in (1, 2):
        plan.layer(f"{to}.norm{k}", f"{name}.layer_norm{k}")
        plan.layer(f"{to}.mlp.fc{k}", f"{name}.mlp.fc{k}")


def clip(config) -> Translation:
    """The image tower of CLIP and MetaCLIP 2; its features are those before the projection to the words."""
    plan = Plan()
    plan.layer("patch_embed.proj", "embeddings.patch_embedding", bias=False)
    plan.take("cls_token", "embeddings.class_embedding", make=lambda token: token.view(1, 1, -1))
    plan.take("pos_embed", "embeddings.position_embedding.weight", make=lambda table: table[None])
    for i in range(config.num_hidden_layers):
        _clip_block(plan, f"blocks.{i}", f"encoder.layers.{i}")
    plan.layer("norm_pre", "pre_layrnorm")
    plan.layer("norm", "post_layernorm")
    size = size_word(config, ("base", "large"))
    args = common(
        config,
        size,
        mlp_ratio=mlp_ratio_of(config.intermediate_size, config.hidden_size),
        act_layer=activation(config.hidden_act),
        global_pool="token",
    )
    return Translation(
        f"vit_{size}_patch{14 if size == 'large' else 16}_clip_224",
        args,
        plan,
        "embeddings.patch_embedding.weight",
        square_side(config.image_size),
        args["patch_size"],
        ignored=("embeddings\\.position_ids",),
        positions=Positions(1),
    )


def siglip(config, *, flat: bool = False) -> Translation:
    """The image tower of SigLIP and SigLIP 2, with its attention pooling; flat: patches are rows of a linear layer."""
    patch = square_side(config.patch_size)
    plan = Plan()
    weight, bias = (f"embeddings.patch_embedding.{part}" for part in ("weight", "bias"))

    def convolution(w: Tensor) -> Tensor:
        return w.view(len(w), patch, patch, -1).permute(0, 3, 1, 2).contiguous() if flat else w

    plan.take("patch_embed.proj.weight", weight, make=convolution)
    plan.take("patch_embed.proj.bias", bias)
    plan.take("pos_embed", "embeddings.position_embedding.weight", make=lambda table: table[None])
    for i in range(config.num_hidden_layers):
        _clip_block(plan, f"blocks.{i}", f"encoder.layers.{i}")
    plan.layer("norm", "post_layernorm")
    pooled = getattr(config, "vision_use_head", True)
    if pooled:
        plan.take("attn_pool.latent", "head.probe")
        for part in ("weight", "bias"):
            whole = f"head.attention.in_proj_{part}"
            plan.take(f"attn_pool.q.{part}", whole, make=lambda w: w.chunk(3)[0])
            plan.take(f"attn_pool.kv.{part}", whole, make=lambda w: torch.cat(w.chunk(3)[1:]))
        plan.layer("attn_pool.proj", "head.attention.out_proj")
        plan.layer("attn_pool.norm", "head.layernorm")
        for k in (1, 2):
            plan.layer(f"attn_pool.mlp.fc{k}", f"head.mlp.fc{k}")
    size = size_word(config, ("base", "large"))
    args = common(
        config,
        size,
        mlp_ratio=mlp_ratio_of(config.intermediate_size, config.hidden_size),
        act_layer=activation(config.hidden_act),
        global_pool="map" if pooled else "avg",
        fc_norm=False,
    )
    return Translation(
        f"vit_{size}_patch16_siglip_{224 if size == 'base' else 256}",
        args,
        plan,
        "embeddings.patch_embedding.weight",
        patch * round(config.num_patches**0.5) if flat else square_side(config.image_size),
        patch,
        ignored=("embeddings\\.position_ids",),
        positions=Positions(0, "bilinear", True) if flat else Positions(0),
    )


def siglip2(config) -> Translation:
    """SigLIP 2 of any aspect ratio (NaFlex), here for squares."""
    return siglip(config, flat=True)
