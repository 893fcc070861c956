"""Networks of stages in timm's layout: ConvNeXt, ResNet, Swin, a function for each family: config -> Translation."""

from __future__ import annotations

from ..errors import UserError
from .translation import Plan, Translation, activation, square_side


def _convnext(config, plan: Plan, anchor: str, *, version: int = 1) -> Translation:
    args = {
        "depths": list(config.depths),
        "dims": list(config.hidden_sizes),
        "patch_size": square_side(getattr(config, "patch_size", 4)),
        "global_pool": "avg",
        "act_layer": activation(config.hidden_act),
    }
    if version == 1:
        args["ls_init_value"] = config.layer_scale_init_value or None
    size = {(3, 3, 9, 3): "tiny"}.get(tuple(config.depths), "base")
    size = "large" if size == "base" and config.hidden_sizes[0] >= 192 else size
    name = f"convnext{'v2' if version == 2 else ''}_{size}"
    return Translation(name, args, plan, anchor, square_side(config.image_size), head=("head.fc", "classifier"))


def convnext(config, *, version: int = 1) -> Translation:
    """ConvNeXt and, as version 2, ConvNeXt V2 with its response normalisation."""
    if len(config.depths) != 4:
        raise UserError(f"This ConvNeXt has {len(config.depths)} stages, and timm's has four. Take another model.")
    plan = Plan()
    plan.layer("stem.0", "embeddings.patch_embeddings")
    plan.layer("stem.1", "embeddings.layernorm")
    for s, depth in enumerate(config.depths):
        if s:
            for k in (0, 1):
                plan.layer(f"stages.{s}.downsample.{k}", f"encoder.stages.{s}.downsampling_layer.{k}")
        for b in range(depth):
            to, name = f"stages.{s}.blocks.{b}", f"encoder.stages.{s}.layers.{b}"
            plan.layer(f"{to}.conv_dw", f"{name}.dwconv")
            plan.layer(f"{to}.norm", f"{name}.layernorm")
            for k in (1, 2):
                plan.layer(f"{to}.mlp.fc{k}", f"{name}.pwconv{k}")
            if version == 2:
                for part in ("weight", "bias"):
                    plan.take(f"{to}.mlp.grn.{part}", f"{name}.grn.{part}", make=lambda x: x.flatten())
            elif config.layer_scale_init_value:
                plan.take(f"{to}.gamma", f"{name}.layer_scale_parameter")
    plan.layer("head.norm", "layernorm")
    return _convnext(config, plan, "embeddings.patch_embeddings.weight", version=version)


def convnextv2(config) -> Translation:
    return convnext(config, version=2)


def dinov3_convnext(config) -> Translation:
    """DINOv3's ConvNeXt."""
    plan = Plan()
    for s, depth in enumerate(config.depths):
        for k in (0, 1):
            to = f"stages.{s}.downsample.{k}" if s else f"stem.{k}"
            plan.layer(to, f"stages.{s}.downsample_layers.{k}")
        for b in range(depth):
            to, name = f"stages.{s}.blocks.{b}", f"stages.{s}.layers.{b}"
            plan.layer(f"{to}.conv_dw", f"{name}.depthwise_conv")
            plan.layer(f"{to}.norm", f"{name}.layer_norm")
            for k in (1, 2):
                plan.layer(f"{to}.mlp.fc{k}", f"{name}.pointwise_conv{k}")
            if config.layer_scale_init_value:
                plan.take(f"{to}.gamma", f"{name}.gamma")
    plan.layer("head.norm", "layer_norm")
    found = _convnext(config, plan, "stages.0.downsample_layers.0.weight")
    found.renamed, found.head = (("^model\\.stages\\.", "stages."),), None
    return found


RESNETS = {(2, 2, 2, 2): ("resnet18", "resnet26"), (3, 4, 6, 3): ("resnet34", "resnet50")}


def resnet(config) -> Translation:
    """ResNet v1.5, of basic blocks or bottlenecks."""
    basic = config.layer_type == "basic"
    shrunk = 1 if basic else 4
    plan = Plan()
    plan.layer("conv1", "embedder.embedder.convolution", bias=False)
    plan.norm("bn1", "embedder.embedder.normalization")
    channels = config.embedding_size
    for s, (depth, width) in enumerate(zip(config.depths, config.hidden_sizes)):
        for b in range(depth):
            to, name = f"layer{s + 1}.{b}", f"encoder.stages.{s}.layers.{b}"
            for k in range(2 if basic else 3):
                plan.layer(f"{to}.conv{k + 1}", f"{name}.layer.{k}.convolution", bias=False)
                plan.norm(f"{to}.bn{k + 1}", f"{name}.layer.{k}.normalization")
            if b == 0 and (s > 0 or channels != width):
                plan.layer(f"{to}.downsample.0", f"{name}.shortcut.convolution", bias=False)
                plan.norm(f"{to}.downsample.1", f"{name}.shortcut.normalization")
    args = {
        "layers": list(config.depths),
        "channels": [width // shrunk for width in config.hidden_sizes],
        "act_layer": activation(config.hidden_act),
        "global_pool": "avg",
    }
    pair = RESNETS.get(tuple(config.depths), ("resnet34", "resnet152" if config.depths[1] == 8 else "resnet101"))
    return Translation(
        pair[not basic],
        args,
        plan,
        "embedder.embedder.convolution.weight",
        224,
        head=("fc", "classifier.1"),
        exact={"embedding_size": 64, "downsample_in_bottleneck": False, "downsample_in_first_stage": False},
    )


def swin(config, *, version: int = 1) -> Translation:
    """Swin and, as version 2, Swin V2: timm merges patches at the start of a stage, transformers at its end."""
    plan = Plan()
    plan.layer("patch_embed.proj", "embeddings.patch_embeddings.projection")
    plan.layer("patch_embed.norm", "embeddings.norm")
    for s, depth in enumerate(config.depths):
        if s:
            plan.layer(f"layers.{s}.downsample.norm", f"encoder.layers.{s - 1}.downsample.norm")
            plan.layer(f"layers.{s}.downsample.reduction", f"encoder.layers.{s - 1}.downsample.reduction", bias=False)
        for b in range(depth):
            to, name = f"layers.{s}.blocks.{b}", f"encoder.layers.{s}.blocks.{b}"
            inner = f"{name}.attention.self"
            qkv = [f"{inner}.{part}" for part in ("query", "key", "value")]
            plan.layer(f"{to}.attn.qkv", *qkv, bias=config.qkv_bias and version == 1)
            plan.layer(f"{to}.attn.proj", f"{name}.attention.output.dense")
            plan.layer(f"{to}.norm1", f"{name}.layernorm_before")
            plan.layer(f"{to}.norm2", f"{name}.layernorm_after")
            plan.layer(f"{to}.mlp.fc1", f"{name}.intermediate.dense")
            plan.layer(f"{to}.mlp.fc2", f"{name}.output.dense")
            if version == 1:
                table = "relative_position_bias_table"
                plan.take(f"{to}.attn.{table}", f"{inner}.{table}")
                continue
            plan.take(f"{to}.attn.logit_scale", f"{inner}.logit_scale")
            plan.layer(f"{to}.attn.cpb_mlp.0", f"{inner}.continuous_position_bias_mlp.0")
            plan.layer(f"{to}.attn.cpb_mlp.2", f"{inner}.continuous_position_bias_mlp.2", bias=False)
            if config.qkv_bias:
                plan.take(f"{to}.attn.q_bias", f"{inner}.query.bias")
                plan.take(f"{to}.attn.v_bias", f"{inner}.value.bias")
    plan.layer("norm", "layernorm")
    patch = square_side(config.patch_size)
    args = {
        "patch_size": patch,
        "embed_dim": config.embed_dim,
        "depths": list(config.depths),
        "num_heads": list(config.num_heads),
        "window_size": config.window_size,
        "mlp_ratio": config.mlp_ratio,
        "global_pool": "avg",
    }
    if version == 1:
        args["qkv_bias"] = config.qkv_bias
    elif any(config.pretrained_window_sizes):
        args["pretrained_window_sizes"] = list(config.pretrained_window_sizes)
    size = {96: "tiny", 128: "base", 192: "large"}.get(config.embed_dim, "base")
    size = "small" if size == "tiny" and len(config.depths) > 2 and config.depths[2] > 6 else size
    version_1 = f"swin_{size}_patch4_window7_224"
    version_2 = "swinv2_large_window12_192" if size == "large" else f"swinv2_{size}_window8_256"
    return Translation(
        version_1 if version == 1 else version_2,
        args,
        plan,
        "embeddings.patch_embeddings.projection.weight",
        square_side(config.image_size),
        patch,
        ignored=(".*relative_position_index", ".*relative_coords_table", "embeddings\\.mask_token"),
        head=("head.fc", "classifier"),
        exact={"use_absolute_embeddings": False, "hidden_act": "gelu", **({"qkv_bias": True} if version == 2 else {})},
    )


def swinv2(config) -> Translation:
    return swin(config, version=2)
