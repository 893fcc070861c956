"""Vision transformers of transformers in timm's layout, a function for each family: config -> Translation.

Their attention has query, key and value as three layers, timm's as one. LayerNorm's epsilon is that of timm's network
(1e-6, or 1e-5 for CLIP and DINOv3), where some configurations of transformers have 1e-12.
"""

from __future__ import annotations

from ..errors import UserError
from .translation import Plan, Positions, Translation, activation, common, mlp_ratio_of, size_word, square_side


def _bert_block(plan: Plan, to: str, name: str, *, qkv_bias: bool = True) -> None:
    """Attention and norms as in ViT, DeiT and I-JEPA; the names of BERT."""
    qkv = [f"{name}.attention.attention.{part}" for part in ("query", "key", "value")]
    plan.layer(f"{to}.attn.qkv", *qkv, bias=qkv_bias)
    plan.layer(f"{to}.attn.proj", f"{name}.attention.output.dense")
    plan.layer(f"{to}.norm1", f"{name}.layernorm_before")
    plan.layer(f"{to}.norm2", f"{name}.layernorm_after")
    plan.layer(f"{to}.mlp.fc1", f"{name}.intermediate.dense")
    plan.layer(f"{to}.mlp.fc2", f"{name}.output.dense")


def vit(config, *, tokens: tuple[str, ...] = ("cls_token",)) -> Translation:
    """ViT, ViT-MSN and ViT-MAE (encoder); I-JEPA without `tokens`; DeiT, whose second one is a register to timm."""
    plan = Plan()
    plan.layer("patch_embed.proj", "embeddings.patch_embeddings.projection")
    plan.take("pos_embed", "embeddings.position_embeddings")
    for to, name in zip(("cls_token", "reg_token"), tokens):
        plan.take(to, f"embeddings.{name}")
    for i in range(config.num_hidden_layers):
        _bert_block(plan, f"blocks.{i}", f"encoder.layer.{i}", qkv_bias=config.qkv_bias)
    plan.layer("norm", "layernorm")
    size = size_word(config, ("tiny", "small", "base", "large"))
    args = common(
        config,
        size,
        mlp_ratio=mlp_ratio_of(config.intermediate_size, config.hidden_size),
        qkv_bias=config.qkv_bias,
        act_layer=activation(config.hidden_act),
        class_token=bool(tokens),
        reg_tokens=max(0, len(tokens) - 1),
        global_pool="token" if tokens else "avg",
        fc_norm=False,
    )
    return Translation(
        f"vit_{size}_patch16_224",
        args,
        plan,
        "embeddings.patch_embeddings.projection.weight",
        square_side(config.image_size),
        args["patch_size"],
        ignored=("pooler\\.", "embeddings\\.mask_token"),
        positions=Positions(len(tokens)),
        head=("head", "classifier") if len(tokens) == 1 else None,
    )


def deit(config) -> Translation:
    return vit(config, tokens=("cls_token", "distillation_token"))


def ijepa(config) -> Translation:
    return vit(config, tokens=())


def beit(config) -> Translation:
    """BEiT and Data2Vec-vision: relative positions, no bias of the key, layer scale."""
    if config.use_shared_relative_position_bias or config.layer_scale_init_value <= 0:
        raise UserError(
            "This BEiT shares its relative positions between layers, or has no layer scale, as one before finetuning "
            "has. Take one after it, such as microsoft/beit-base-patch16-224-pt22k-ft22k."
        )
    plan = Plan()
    plan.layer("patch_embed.proj", "embeddings.patch_embeddings.projection")
    plan.take("cls_token", "embeddings.cls_token")
    if config.use_absolute_position_embeddings:
        plan.take("pos_embed", "embeddings.position_embeddings")
    for i in range(config.num_hidden_layers):
        to, name = f"blocks.{i}", f"encoder.layer.{i}"
        _bert_block(plan, to, name, qkv_bias=False)
        inner = f"{name}.attention.attention"
        plan.take(f"{to}.attn.q_bias", f"{inner}.query.bias")
        plan.take(f"{to}.attn.v_bias", f"{inner}.value.bias")
        plan.take(f"{to}.gamma_1", f"{name}.lambda_1")
        plan.take(f"{to}.gamma_2", f"{name}.lambda_2")
        if config.use_relative_position_bias:
            table = f"{inner}.relative_position_bias.relative_position_bias_table"
            plan.take(f"{to}.attn.relative_position_bias_table", table)
    mean = config.use_mean_pooling
    plan.layer("fc_norm" if mean else "norm", "pooler.layernorm" if mean else "layernorm")
    size = size_word(config, ("base", "large"))
    args = common(
        config,
        size,
        mlp_ratio=mlp_ratio_of(config.intermediate_size, config.hidden_size),
        init_values=config.layer_scale_init_value,
        use_abs_pos_emb=config.use_absolute_position_embeddings,
        use_rel_pos_bias=config.use_relative_position_bias,
        global_pool="avg" if mean else "token",
    )
    return Translation(
        f"beit_{size}_patch16_224",
        args,
        plan,
        "embeddings.patch_embeddings.projection.weight",
        square_side(config.image_size),
        args["patch_size"],
        ignored=(".*relative_position_index", "embeddings\\.mask_token"),
        positions=Positions(1) if config.use_absolute_position_embeddings else None,
        head=("head", "classifier"),
        exact={"hidden_act": "gelu"},
    )


def dinov2(config) -> Translation:
    """DINOv2 with and without registers: timm adds the class token's position to the token itself."""
    registers = getattr(config, "num_register_tokens", 0)
    position = "embeddings.position_embeddings"
    plan = Plan()
    plan.layer("patch_embed.proj", "embeddings.patch_embeddings.projection")
    if registers:
        plan.take("cls_token", "embeddings.cls_token", position, make=lambda token, p: token + p[:, :1])
        plan.take("pos_embed", position, make=lambda p: p[:, 1:])
        plan.take("reg_token", "embeddings.register_tokens")
    else:
        plan.take("cls_token", "embeddings.cls_token")
        plan.take("pos_embed", position)
    for i in range(config.num_hidden_layers):
        to, name = f"blocks.{i}", f"encoder.layer.{i}"
        qkv = [f"{name}.attention.attention.{part}" for part in ("query", "key", "value")]
        plan.layer(f"{to}.attn.qkv", *qkv, bias=config.qkv_bias)
        plan.layer(f"{to}.attn.proj", f"{name}.attention.output.dense")
        for k in (1, 2):
            plan.layer(f"{to}.norm{k}", f"{name}.norm{k}")
            plan.take(f"{to}.ls{k}.gamma", f"{name}.layer_scale{k}.lambda1")
            gated = f"{name}.mlp.weights_{'in' if k == 1 else 'out'}"
            plan.layer(f"{to}.mlp.fc{k}", gated if config.use_swiglu_ffn else f"{name}.mlp.fc{k}")
    plan.layer("norm", "layernorm")
    hidden = int(config.hidden_size * config.mlp_ratio)
    if config.use_swiglu_ffn:
        hidden = 2 * ((int(hidden * 2 / 3) + 7) // 8 * 8)
    size = "giant" if config.use_swiglu_ffn else size_word(config, ("small", "base", "large"))
    args = common(
        config,
        size,
        mlp_ratio=mlp_ratio_of(hidden, config.hidden_size),
        qkv_bias=config.qkv_bias,
        init_values=float(config.layerscale_value),
        global_pool="token",
        reg_tokens=registers,
        no_embed_class=bool(registers),
    )
    return Translation(
        f"vit_{size}_patch14_{'reg4_' if registers else ''}dinov2",
        args,
        plan,
        "embeddings.patch_embeddings.projection.weight",
        square_side(config.image_size),
        args["patch_size"],
        ignored=("embeddings\\.mask_token",),
        positions=Positions(0 if registers else 1, antialias=bool(registers)),
        exact={"hidden_act": "gelu"},
    )


def dinov3(config) -> Translation:
    """DINOv3 ViT: rotary positions, registers, no bias of the key; timm's Eva."""
    plan = Plan()
    plan.layer("patch_embed.proj", "embeddings.patch_embeddings")
    plan.take("cls_token", "embeddings.cls_token")
    if config.num_register_tokens:
        plan.take("reg_token", "embeddings.register_tokens")
    gated = config.use_gated_mlp
    mlp = (
        {"fc1_g": "gate_proj", "fc1_x": "up_proj", "fc2": "down_proj"}
        if gated
        else {"fc1": "up_proj", "fc2": "down_proj"}
    )
    for i in range(config.num_hidden_layers):
        to, name = f"blocks.{i}", f"layer.{i}"
        plan.layer(f"{to}.attn.qkv", *(f"{name}.attention.{part}_proj" for part in "qkv"), bias=False)
        if config.query_bias:
            plan.take(f"{to}.attn.q_bias", f"{name}.attention.q_proj.bias")
            plan.take(f"{to}.attn.v_bias", f"{name}.attention.v_proj.bias")
        plan.layer(f"{to}.attn.proj", f"{name}.attention.o_proj")
        for k in (1, 2):
            plan.layer(f"{to}.norm{k}", f"{name}.norm{k}")
            plan.take(f"{to}.gamma_{k}", f"{name}.layer_scale{k}.lambda1")
        for to_layer, layer in mlp.items():
            plan.layer(f"{to}.mlp.{to_layer}", f"{name}.mlp.{layer}")
    plan.layer("norm", "norm")
    size = size_word(config, ("small", "base", "large"))
    args = common(
        config,
        size,
        mlp_ratio=mlp_ratio_of(config.intermediate_size, config.hidden_size),
        qkv_bias=config.query_bias,
        init_values=float(config.layerscale_value),
        num_reg_tokens=config.num_register_tokens,
        rope_temperature=float(config.rope_theta),
        global_pool="token",
    )
    if gated:
        args |= {"swiglu_mlp": True, "swiglu_align_to": 1}
    return Translation(
        f"vit_{size}_patch16_dinov3{'_qkvb' if config.query_bias else ''}",
        args,
        plan,
        "embeddings.patch_embeddings.weight",
        square_side(config.image_size),
        args["patch_size"],
        ignored=("embeddings\\.mask_token", "rope_embeddings\\."),
        renamed=(("^model\\.layer\\.", "layer."),),
        exact={
            "key_bias": False,
            "value_bias": config.query_bias,
            "proj_bias": True,
            "mlp_bias": True,
            "hidden_act": "silu" if gated else "gelu",
        },
    )
