"""Encoders of transformers in timm's layout: the same features, the same preprocessing, and what is refused."""

from __future__ import annotations

import json

import pytest
import timm
import torch
import transformers
from safetensors.torch import load_file, save_file

from hf_lowlabel.errors import UserError
from hf_lowlabel.models import create_backbone, create_classifier
from hf_lowlabel.models.transformers_layout import translation_of
from tests.transformers_repos import (
    ENCODERS,
    PROCESSOR,
    WIDE,
    config_of,
    make_encoder,
    make_two_towers,
    rename,
    save_repo,
    shake,
)


def outputs(model, x: torch.Tensor, **kwargs) -> tuple[torch.Tensor, torch.Tensor]:
    """(tokens or map, pooled) by transformers alone, as each family defines its pooled features."""
    kind = model.config.model_type
    if kind == "siglip2_vision_model":
        p, (h, w) = model.config.patch_size, [s // model.config.patch_size for s in x.shape[-2:]]
        patches = x.unfold(2, p, p).unfold(3, p, p).permute(0, 2, 3, 4, 5, 1).flatten(3).flatten(1, 2)
        shape = torch.tensor([[h, w]] * len(x))
        out = model(patches, torch.ones(len(x), h * w, dtype=torch.long), shape)
    elif kind == "vit_mae":
        out = model(x, noise=torch.arange(16.0).repeat(len(x), 1))
    else:
        out = model(x, **kwargs)
    last = out.last_hidden_state
    if kind in ("clip_vision_model", "metaclip_2_vision_model"):
        last = model.post_layernorm(last)  # transformers normalises the class token alone
    if kind in ("vit", "deit", "vit_mae", "vit_msn"):  # a pooler of transformers is a part of its classifiers
        return last, last[:, 0]
    if kind in ("beit", "data2vec-vision"):
        if not model.config.use_mean_pooling:
            return last, last[:, 0]
        return last, model.pooler(last)
    if kind == "ijepa" or out.pooler_output is None:
        return last, last.mean(1)
    return last, out.pooler_output.flatten(1)


@pytest.mark.parametrize("name", ENCODERS)
@torch.no_grad()
def test_features_are_those_of_transformers(name, tmp_path):
    model = make_encoder(name)
    save_repo(model, tmp_path / "repo")
    backbone = create_backbone(str(tmp_path / "repo")).eval()
    x = torch.randn(2, 3, 32, 32)
    last, pooled = outputs(model, x)
    torch.testing.assert_close(backbone.pooled(x), pooled, atol=1e-5, rtol=1e-5)
    own = backbone.timm_model.forward_features(x)
    if own.ndim == 4 and last.ndim == 3:  # Swin
        own = own.flatten(1, 2)
    if own.shape == last.shape and own.ndim == 3 and not name.startswith(("beit", "data2vec")):
        torch.testing.assert_close(own, last, atol=1e-5, rtol=1e-5)
    assert backbone.load_report.missing == []
    # and what is saved loads without this package
    backbone.save_pretrained(tmp_path / "saved")
    auto = transformers.AutoModel.from_pretrained(tmp_path / "saved").eval()
    assert torch.equal(auto(x).pooler_output, backbone.pooled(x))
    ours = timm.create_model(f"local-dir:{tmp_path / 'saved'}", pretrained=True, num_classes=0).eval()
    assert torch.equal(ours(x), backbone.pooled(x))


# ---- other sizes ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["clip", "deit", "dinov2", "dinov2-registers", "dinov3", "siglip", "siglip2", "vit"])
@torch.no_grad()
def test_positions_of_another_size_are_those_of_transformers(name, tmp_path):
    model = make_encoder(name)
    save_repo(model, tmp_path)
    x = torch.randn(1, 3, 48, 48)
    asked = {} if name in ("dinov2", "dinov2-registers", "dinov3") else {"interpolate_pos_encoding": True}
    _, pooled = outputs(model, x, **asked)
    backbone = create_backbone(str(tmp_path), image_size=48).eval()
    assert backbone.preprocessing["input_size"] == [3, 48, 48]
    torch.testing.assert_close(backbone.pooled(x), pooled, atol=1e-5, rtol=1e-5)
    # one network for every size: a square of 32 px and one that is none
    free = create_backbone(str(tmp_path), image_size=48, any_size=True).eval()
    torch.testing.assert_close(free.pooled(x), pooled, atol=1e-5, rtol=1e-5)
    assert free.feature_map(torch.randn(1, 3, 32, 64)).shape == (1, 32, 4, 8)


# ---- whole models ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["CLIP", "Siglip", "MetaClip2"])
@torch.no_grad()
def test_the_image_tower_of_a_model_with_words(kind, tmp_path):
    model = make_two_towers(kind)
    save_repo(model, tmp_path)
    backbone = create_backbone(str(tmp_path)).eval()
    x = torch.randn(2, 3, 32, 32)
    expected = model.vision_model(x).pooler_output
    torch.testing.assert_close(backbone.pooled(x), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "kind, name",
    [("ViT", "vit"), ("ResNet", "resnet"), ("ConvNext", "convnext"), ("Swin", "swin"), ("Beit", "beit")],
)
@torch.no_grad()
def test_a_classifier_keeps_its_head_and_names(kind, name, tmp_path):
    config = config_of(name, id2label={0: "cat", 1: "dog", 2: "eel"}, label2id={"cat": 0, "dog": 1, "eel": 2})
    model = shake(getattr(transformers, f"{kind}ForImageClassification")(config))
    save_repo(model, tmp_path)
    x = torch.randn(2, 3, 32, 32)
    kept = create_classifier(str(tmp_path), 3).eval()
    assert kept.load_report.head == "kept" and kept.config.id2label == {0: "cat", 1: "dog", 2: "eel"}
    torch.testing.assert_close(kept(x).logits, model(x).logits, atol=2e-5, rtol=1e-5)
    fresh = create_classifier(str(tmp_path), 2, class_names=["a", "b"])
    assert fresh.load_report.head == "fresh" and len(fresh.load_report.missing) == 2
    assert create_backbone(str(tmp_path)).load_report.missing == []


@pytest.mark.parametrize("kind, name", [("ViT", "vit"), ("ResNet", "resnet"), ("Swin", "swin"), ("Beit", "beit")])
@torch.no_grad()
def test_two_classes_without_names_are_two_classes(kind, name, tmp_path):
    """transformers leaves them out of config.json."""
    model = shake(getattr(transformers, f"{kind}ForImageClassification")(config_of(name, num_labels=2))).eval()
    save_repo(model, tmp_path)
    assert "id2label" not in json.loads((tmp_path / "config.json").read_text())
    x = torch.randn(2, 3, 32, 32)
    kept = create_classifier(str(tmp_path), 2).eval()
    assert kept.load_report.head == "kept"
    torch.testing.assert_close(kept(x).logits, model(x).logits, atol=2e-5, rtol=1e-5)
    assert create_classifier(str(tmp_path), 5).load_report.head == "fresh"
    assert create_backbone(str(tmp_path)).load_report.missing == []


def test_a_head_on_other_features_stays_out(tmp_path):
    """DINOv2's own classifier sees the class token and the mean of the patches; timm's sees the token."""
    model = shake(transformers.Dinov2ForImageClassification(config_of("dinov2", num_labels=3)))
    save_repo(model, tmp_path)
    assert create_classifier(str(tmp_path), 3).load_report.head == "fresh"


def test_a_masked_autoencoder_leaves_its_decoder(tmp_path):
    small = {f"decoder_{k}": v for k, v in WIDE.items() if k in ("hidden_size", "num_hidden_layers")}
    config = config_of("vit-mae", **small, decoder_num_attention_heads=2, decoder_intermediate_size=8)
    save_repo(transformers.ViTMAEForPreTraining(config), tmp_path)
    assert create_backbone(str(tmp_path)).load_report.missing == []


def test_files_of_other_versions(tmp_path):
    """Buffers that older files carry, and the names that DINOv3 has in memory."""
    save_repo(make_encoder("dinov3"), tmp_path / "dinov3")
    rename(tmp_path / "dinov3", lambda name: f"model.{name}" if name.startswith("layer.") else name)
    create_backbone(str(tmp_path / "dinov3"))
    save_repo(make_encoder("clip"), tmp_path / "clip")
    state = load_file(tmp_path / "clip" / "model.safetensors")
    state = {f"vision_model.{k}": v.half() for k, v in state.items()}
    state["vision_model.embeddings.position_ids"] = torch.arange(17)[None]
    save_file(state, tmp_path / "clip" / "model.safetensors")
    assert {p.dtype for p in create_backbone(str(tmp_path / "clip")).parameters()} == {torch.float32}


# ---- preprocessing --------------------------------------------------------------------------------------------------
DINO = {"size": {"shortest_edge": 256}, "do_center_crop": True, "crop_size": {"height": 224, "width": 224}}


@pytest.mark.parametrize(
    "kind, processor, expected",
    [
        ("Bit", DINO, (224, 0.875, "center", "bicubic")),
        ("ViT", {"size": 384, "resample": 2}, (384, 1.0, "squash", "bilinear")),
        ("CLIP", {"size": 224}, (224, 1.0, "center", "bicubic")),
        ("ConvNext", {"size": {"shortest_edge": 224}}, (224, 0.875, "center", "bicubic")),
        ("ConvNext", {"size": {"shortest_edge": 384}}, (384, 1.0, "squash", "bicubic")),
        ("Siglip2", {"max_num_patches": 256, "patch_size": 16}, (256, 1.0, "squash", "bilinear")),
    ],
)
def test_the_repositorys_own_preprocessing(kind, processor, expected, tmp_path):
    key = "feature_extractor_type" if kind == "CLIP" else "image_processor_type"  # as the first repositories have it
    fields = {key: f"{kind}{'FeatureExtractor' if kind == 'CLIP' else 'ImageProcessor'}", **processor}
    fields |= {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.25, 0.3]}
    save_repo(make_encoder("resnet"), tmp_path, fields)
    cfg = create_backbone(str(tmp_path)).config.pretrained_cfg
    side, crop, mode, interpolation = expected
    assert cfg["input_size"] == [3, side, side] and cfg["crop_pct"] == crop and cfg["crop_mode"] == mode
    assert cfg["mean"] == [0.4, 0.5, 0.6] and cfg["std"] == [0.2, 0.25, 0.3]
    assert cfg["interpolation"] == interpolation


@pytest.mark.parametrize("values", [{}, {"rescale_factor": 1 / 127.5}, {"do_normalize": False}, {"do_rescale": False}])
def test_pixels_are_those_of_the_repositorys_processor(values, tmp_path):
    from PIL import Image

    from hf_lowlabel.views.table import build_view

    save_repo(make_encoder("vit"), tmp_path, PROCESSOR | values)
    pixels = torch.randint(0, 256, (32, 32, 3), dtype=torch.uint8)
    own = transformers.AutoImageProcessor.from_pretrained(tmp_path)
    expected = own(Image.fromarray(pixels.numpy()), return_tensors="pt")["pixel_values"]
    prep = create_backbone(str(tmp_path)).preprocessing
    view = build_view("eval", size=32, mean=prep["mean"], std=prep["std"])
    got = view(pixels.permute(2, 0, 1)[None], torch.zeros(1, view.width, dtype=torch.float64))
    torch.testing.assert_close(got, expected, atol=1e-5 * float(expected.abs().max()), rtol=1e-5)


def test_without_a_processor_it_says_what_it_takes(tmp_path, caplog):
    save_repo(make_encoder("dinov2"), tmp_path, None)
    assert create_backbone(str(tmp_path)).preprocessing["input_size"] == [3, 32, 32]
    assert "no preprocessor_config.json" in caplog.text and "0.485" in caplog.text


# ---- what is refused ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["vit", "convnext", "siglip"])
def test_weights_that_match_by_half_are_an_error_that_names_them(name, tmp_path):
    save_repo(make_encoder(name), tmp_path)
    second = {"vit": "encoder.layer.1.", "convnext": "encoder.stages.1.", "siglip": "encoder.layers.1."}[name]
    state = load_file(tmp_path / "model.safetensors")
    gone = sorted(k for k in state if k.startswith(second))
    rename(tmp_path, lambda k: None if k in gone else k)
    with pytest.raises(UserError, match=f"lack {gone[0]}.* and {len(gone) - 4} more.*config.json asks for"):
        create_backbone(str(tmp_path))
    rename(tmp_path, lambda k: k)
    save_file(state | {f"{second}new.weight": torch.zeros(2)}, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=f"hold {second}new.weight, that .* of timm has not"):
        create_backbone(str(tmp_path))


def test_a_tensor_of_another_shape_is_an_error(tmp_path):
    save_repo(make_encoder("vit"), tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    state["encoder.layer.0.output.dense.weight"] = torch.zeros(32, 60)
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match="do not fit vit_base_patch16_224 .*mlp.fc2"):
        create_backbone(str(tmp_path))


@pytest.mark.parametrize(
    "config, match",
    [
        ({"model_type": "bert"}, "is a model of text \\(bert\\), and sees no images. Take an image encoder"),
        ({"model_type": "wav2vec2"}, "is a model of audio"),
        ({"model_type": "detr"}, "is of type detr, which is neither .*nor another image encoder.*dinov2"),
        ({"model_type": "no_such_type"}, "'no_such_type', which is neither timm's layout"),
        ({}, "'unknown', which is neither"),
        ({"model_type": "vit", "num_channels": 1}, "sees 1 channels"),
        ({"model_type": "vit", "hidden_act": "mish"}, "activation 'mish'"),
        ({"model_type": "resnet", "embedding_size": 32}, "has embedding_size=32, where timm's resnet50 has 64"),
        ({"model_type": "dinov3_vit", "key_bias": True}, "has key_bias=True"),
        ({"model_type": "beit", "use_shared_relative_position_bias": True}, "shares its relative positions"),
        ({"model_type": "vit", "patch_size": [16, 8]}, "must be squares"),
    ],
)
def test_what_cannot_be_translated_is_said_before_weights_are_read(config, match, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(config))  # and no weights at all
    with pytest.raises(UserError, match=match):
        create_backbone(str(tmp_path))


def test_only_pickled_weights(tmp_path):
    save_repo(make_encoder("vit"), tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match="only pickled"):
        create_backbone(str(tmp_path))
    assert "random weights" in create_backbone(str(tmp_path), pretrained=False).load_report.source


# ---- the sizes of the repositories people know ----------------------------------------------------------------------
GIANT = dict(hidden_size=1536, num_hidden_layers=40, num_attention_heads=24, use_swiglu_ffn=True)
REAL = {
    "vit_small_patch14_dinov2": dict(
        model_type="dinov2", hidden_size=384, num_attention_heads=6, patch_size=14, image_size=518,
    ),
    "vit_giant_patch14_dinov2": dict(model_type="dinov2", patch_size=14, image_size=518, **GIANT),
    "vit_giant_patch14_reg4_dinov2": dict(model_type="dinov2_with_registers", patch_size=14, image_size=518, **GIANT),
    "vit_small_patch16_dinov3_qkvb": dict(model_type="dinov3_vit", num_register_tokens=4),
    "vit_huge_plus_patch16_dinov3_qkvb": dict(
        model_type="dinov3_vit", hidden_size=1280, intermediate_size=5120, num_hidden_layers=32, num_attention_heads=20,
        use_gated_mlp=True, hidden_act="silu", num_register_tokens=4,
    ),
    "vit_7b_patch16_dinov3": dict(
        model_type="dinov3_vit", hidden_size=4096, intermediate_size=8192, num_hidden_layers=40, num_attention_heads=32,
        use_gated_mlp=True, hidden_act="silu", query_bias=False, value_bias=False, num_register_tokens=4,
    ),
    "convnext_tiny": dict(model_type="dinov3_convnext"),
    "vit_base_patch32_clip_quickgelu_224": dict(model_type="clip_vision_model", hidden_size=768),
    "vit_large_patch14_clip_224": dict(
        model_type="clip_vision_model", hidden_size=1024, intermediate_size=4096, num_hidden_layers=24,
        num_attention_heads=16, patch_size=14,
    ),
    "vit_base_patch16_siglip_224": dict(model_type="siglip_vision_model"),
    "vit_so400m_patch14_siglip_384": dict(
        model_type="siglip_vision_model", hidden_size=1152, intermediate_size=4304, num_hidden_layers=27,
        num_attention_heads=16, patch_size=14, image_size=378,
    ),
    "vit_base_patch16_224": dict(model_type="vit"),
    "beit_base_patch16_224": dict(model_type="beit", use_relative_position_bias=True),
    "resnet50": dict(model_type="resnet"),
    "resnet18": dict(model_type="resnet", layer_type="basic", hidden_sizes=[64, 128, 256, 512], depths=[2, 2, 2, 2]),
    "convnextv2_tiny": dict(model_type="convnextv2"),
    "swin_tiny_patch4_window7_224": dict(model_type="swin"),
    "swinv2_tiny_window8_256": dict(model_type="swinv2", image_size=256, window_size=8),
}  # fmt: skip


LARGE = ("vit_giant", "vit_huge", "vit_7b", "vit_so400m", "vit_large", "convnextv2", "swinv2")  # seconds to build


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow if n.startswith(LARGE) else ()) for n in REAL])
def test_known_repositories_become_the_networks_timm_has_of_them(name):
    found = translation_of(REAL[name], name)
    size = {} if name.startswith(("res", "conv")) or "dinov3" in name else {"img_size": found.image_size}
    with torch.device("meta"):
        made = timm.create_model(found.architecture, num_classes=0, **found.model_args, **size)
        own = timm.create_model(name, num_classes=0, **({"img_size": found.image_size} if size else {}))
    shapes, expected = ({k: tuple(v.shape) for k, v in net.state_dict().items()} for net in (made, own))
    assert shapes == expected and set(found.plan) == set(shapes)
