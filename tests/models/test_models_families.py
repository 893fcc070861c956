"""Every family of timm: one saved folder, bit-identical through our class, the Auto classes and timm."""

from __future__ import annotations

import pytest
import timm
import torch
from transformers import AutoModel, AutoModelForImageClassification

from hf_lowlabel.errors import UserError
from hf_lowlabel.models import LowLabelBackbone, LowLabelForImageClassification, create_backbone, create_classifier

# the normal suite: the designs whose tables transformers 5 would corrupt on the meta device, shared modules (CoaT),
# heads that are convolutions or two, layers between pooling and classes, and the plain ones
QUICK = [
    "resnet10t",
    "mobilenetv3_small_050",
    "test_vit",
    "test_convnext",
    "test_efficientnet",
    "test_nfnet",
    "test_maxvit",
    "test_coatnet",
    "test_byobnet",
    "test_mambaout",
    "test_vit_relpos",
    "efficientvit_b0",
    "efficientvit_m0",
    "swin_tiny_patch4_window7_224",
    "coat_lite_tiny",
    "deit_tiny_distilled_patch16_224",
]
# small stand-ins for the families whose smallest member is large
SMALLER = {
    "swin_tiny_patch4_window7_224": {"embed_dim": 24, "depths": (1, 1, 2, 1), "num_heads": (1, 1, 2, 4)},
    "deit_tiny_distilled_patch16_224": {"depth": 2},
    "beit_base_patch16_224": {"depth": 2},
    "deit3_small_patch16_224": {"depth": 2},
}
SLOW = """
    beit_base_patch16_224 botnet26t_256 halonet26t caformer_s18 cait_xxs24_224 coat_tiny coatnet_nano_rw_224
    convit_tiny convmixer_768_32 convnext_atto crossvit_tiny_240 cs3darknet_focus_s csatv2 cspnext_tiny davit_tiny
    densenet121 dla46_c nf_regnet_b0 dpn48b ese_vovnet19b_slim_dw resnet18 edgenext_xx_small efficientformer_l1
    efficientformerv2_s0 efficientnet_b0 eva02_tiny_patch14_224 fasternet_t0
    fastvit_t8 lcnet_035 mobilenetv4_conv_small_035 focalnet_tiny_srf gcvit_xxtiny ghostnetv3_050 gmixer_12_224
    gmlp_ti16_224 hardcorenas_a hgnetv2_b0 hiera_tiny_224 sam2_hiera_tiny hrnet_w18_small inception_next_atto
    inception_resnet_v2 inception_v3 inception_v4 legacy_seresnet18 legacy_xception levit_128s mambaout_femto
    mobilevit_xxs mobilevitv2_050 mvitv2_tiny nest_tiny nextvit_small pit_ti_224 pvt_v2_b0 rdnet_tiny regnetx_002
    repghostnet_050 repvit_m0_9 res2net50_14w_8s resnest14d resnetv2_18 rexnet_100 selecsls42 sequencer2d_s shvit_s1
    skresnet18 starnet_s050 swiftformer_xs swin_tiny_patch4_window7_224 swin_s3_tiny_224 swinv2_tiny_window8_256
    swinv2_cr_tiny_224 vit_relpos_small_patch16_224 tiny_vit_5m_224 tnt_s_patch16_224 tresnet_m twins_svt_small vgg11
    visformer_tiny vit_tiny_r_s16_p8_224 vitamin_small_224 volo_d1_224 xception41 xcit_nano_12_p8_224
    maxvit_pico_rw_256 deit3_small_patch16_224 vit_tiny_patch16_224 vit_small_patch14_reg4_dinov2
    iformer_m lcnetv2_small lowformer_b0 cpubone_nano efficientvim_m1 mobileone_s0 repvgg_b0 flexivit_small
    eva02_small_patch14_224 vit_small_patch16_dinov3 resnest26d seresnet18 convformer_s18 ghostnet_050 lambda_resnet26t
""".split()
MANY_HEADED = {
    "deit_tiny_distilled_patch16_224",
    "levit_128s",
    "efficientformer_l1",
    "efficientformerv2_s0",
    "crossvit_tiny_240",
    "swiftformer_xs",
    "volo_d1_224",
    "efficientvim_m1",
}
OWN_SIZE = {
    "halonet26t": 256,
    "lambda_resnet26t": 64,
    "coat_lite_tiny": 64,
    "test_maxvit": 64,
    "deit_tiny_distilled_patch16_224": 64,
}  # px; halo attention has blocks of 8 cells
NO_MAP = {"coat_tiny"}  # families whose last features are no single map


@pytest.mark.parametrize("name", QUICK)
def test_round_trip_is_exact(name, tmp_path):
    round_trip(name, SMALLER.get(name, {}), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_round_trip_is_exact_for_every_family(name, tmp_path):
    if not timm.is_model(name):
        pytest.skip(f"timm {timm.__version__} has no {name}")
    round_trip(name, SMALLER.get(name, {}), tmp_path)


@torch.no_grad()
def round_trip(name: str, model_args: dict, folder) -> None:
    torch.manual_seed(0)
    cfg = timm.get_pretrained_cfg(name)
    size = OWN_SIZE.get(name, cfg.input_size[-1] if cfg.fixed_input_size else min(cfg.input_size[-1], 96))
    model = create_classifier(name, 5, pretrained=False, image_size=size, model_args=model_args)
    for parameter in model.parameters():  # leave the points of initialisation: zero gains and equal rows hide mistakes
        parameter.add_(0.01 * torch.randn_like(parameter))
    model.eval()
    x = torch.randn(2, 3, size, size)
    logits = model(x).logits
    assert logits.std() > 0
    model.save_pretrained(folder / "c")
    written = sorted(p.name for p in (folder / "c").iterdir())
    assert written == ["config.json", "model.safetensors", "preprocessor_config.json"]
    assert torch.equal(LowLabelForImageClassification.from_pretrained(folder / "c").eval()(x).logits, logits)
    assert torch.equal(AutoModelForImageClassification.from_pretrained(folder / "c").eval()(x).logits, logits)
    assert torch.equal(timm.create_model(f"local-dir:{folder / 'c'}", pretrained=True).eval()(x), logits)
    assert torch.equal(create_classifier(str(folder / "c"), 5).eval()(x).logits, logits)
    if name in MANY_HEADED:
        with pytest.raises(UserError, match="classifier layers"):
            model.features(x)
        assert create_classifier(str(folder / "c"), 7).load_report.head == "fresh"
        return
    features = model.features(x)  # [B, D]
    assert features.shape == (2, model.num_features)
    assert torch.equal(model.classify(features), logits)

    backbone = create_backbone(str(folder / "c")).eval()
    pooled = backbone.pooled(x)
    assert backbone.num_features == model.num_features and torch.equal(pooled, features)
    backbone.save_pretrained(folder / "b")
    assert torch.equal(LowLabelBackbone.from_pretrained(folder / "b").eval().pooled(x), pooled)
    assert torch.equal(AutoModel.from_pretrained(folder / "b").eval()(x).pooler_output, pooled)
    assert torch.equal(timm.create_model(f"local-dir:{folder / 'b'}", pretrained=True).eval()(x), pooled)
    again = create_classifier(str(folder / "b"), 7)
    assert again.load_report.head == "fresh" and torch.equal(again.eval().features(x), pooled)
    if name in NO_MAP:
        with pytest.raises(UserError, match="feature"):
            backbone.feature_map(x)
        return
    last = backbone.feature_map(x)  # [B, C, h, w]
    assert last.shape[:2] == (2, backbone.num_map_features) and last.shape[2] == last.shape[3]


@pytest.mark.parametrize(
    "name, stages", [("resnet18", 4), ("wrn_10_2", 3), ("cnn6_16", 3), ("vit_tiny_patch16_224", 12)]
)
def test_freezing_leaves_the_later_stages_and_the_head(name, stages):
    from hf_lowlabel.models.timm_checkpoint import freeze_stages

    model = create_classifier(name, 3, pretrained=False)
    freeze_stages(model, 2)
    still = {n for n, p in model.named_parameters() if not p.requires_grad}
    part = {"resnet18": "layer", "wrn_10_2": "group", "cnn6_16": "stage", "vit_tiny_patch16_224": "blocks."}[name]
    first = 0 if "vit" in name else 1
    for k in range(first, first + stages):
        rows = [n for n, _ in model.named_parameters() if f"timm_model.{part}{k}." in n]
        assert rows and all((n in still) == (k < first + 2) for n in rows)
    assert any("conv1" in n or "patch_embed" in n or "stage1.0" in n for n in still)
    heads = {id(p) for p in model.parameters()} - {id(p) for p in model.body_parameters()}
    assert all(p.requires_grad for p in model.parameters() if id(p) in heads)
    with pytest.raises(UserError, match=f"less than its {stages} stages"):
        freeze_stages(model, stages)


def test_freezing_needs_an_architecture_that_names_its_stages(monkeypatch):
    from hf_lowlabel.models.plain import PlainCNN
    from hf_lowlabel.models.timm_checkpoint import freeze_stages

    monkeypatch.delattr(PlainCNN, "group_matcher")
    with pytest.raises(UserError, match="'cnn6_16' names no stages"):
        freeze_stages(create_classifier("cnn6_16", 3, pretrained=False), 1)
