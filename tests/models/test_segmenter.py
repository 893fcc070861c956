"""The segmenter: every architecture, any size, exact round trips, the encoder's weights, batch 1, the Auto classes."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForSemanticSegmentation, pipeline

from hf_lowlabel.errors import UserError
from hf_lowlabel.models.loading import create_backbone
from hf_lowlabel.models.segmentation import (
    PRESETS,
    architecture_of,
    architectures,
    create_segmenter,
    load_encoder,
)
from hf_lowlabel.tasks.data_classes import MODEL_FILES
from hf_lowlabel.tasks.segmentation import Segmentation
from tests import strangers

TINY_SWIN = dict(embed_dim=24, depths=(1, 1, 1, 1), num_heads=(1, 1, 2, 4))
# the encoders whose outer modules or tables timm renames, drops or re-creates, at the architectures that suit them
SMALL_DPT = dict(decoder_intermediate_channels=(16, 16, 32, 32), decoder_fusion_channels=16)
PAIRS = [
    ("test_resnet", "unet", {}),
    ("test_resnet", "deeplabv2", {}),
    ("test_resnet", "deeplabv3plus-os8", {}),
    ("test_convnext", "segformer", {}),
    ("test_vit", "dpt", dict(architecture_args=SMALL_DPT)),
    ("test_vit", "linear", {}),
    ("test_resnet", "linear", {}),
    ("swin_tiny_patch4_window7_224", "upernet", dict(encoder_args=TINY_SWIN)),
]


def make(encoder: str = "test_resnet", architecture: str = "unet", labels: int = 3, **kwargs):
    torch.manual_seed(0)
    return create_segmenter(encoder, labels, architecture=architecture, pretrained=False, **kwargs)


def shaken(model):
    """Weights away from the points of initialisation: zero gains and equal rows hide mistakes."""
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * 0.05)
    return model


QUICK = ("unet", "upernet", "segformer", "deeplabv2", "deeplabv3plus-os16")


@pytest.mark.parametrize(
    "architecture",
    [a if a in QUICK else pytest.param(a, marks=pytest.mark.slow) for a in architectures() if a != "dpt"],
)
def test_logits_have_the_size_of_the_image_and_every_weight_a_gradient(architecture):
    model = make(architecture=architecture).train()
    out = model(torch.randn(2, 3, 145, 131)).logits
    assert out.shape == (2, 3, 145, 131)
    out.square().mean().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []
    features = model.features(torch.randn(2, 3, 145, 131))
    assert features.shape[1] == model.num_features
    body = {id(p) for p in model.body_parameters()}
    assert body == {id(p) for n, p in model.named_parameters() if n.startswith("network.encoder.")}


@pytest.mark.parametrize(("encoder", "architecture", "args"), PAIRS)
def test_a_saved_folder_gives_the_same_model_bit_for_bit(encoder, architecture, args, tmp_path):
    model = shaken(make(encoder, architecture, **args)).eval()
    model.save_pretrained(tmp_path)
    again = AutoModelForSemanticSegmentation.from_pretrained(tmp_path).eval()
    assert type(again) is type(model)
    for (name, a), (other, b) in zip(model.state_dict().items(), again.state_dict().items(), strict=True):
        assert name == other and torch.equal(a, b), name
    assert all(torch.equal(a, b) for a, b in zip(model.buffers(), again.buffers(), strict=True))
    x = torch.randn(2, 3, 33, 97)
    assert torch.equal(model(x).logits, again(x).logits)


def test_weights_a_file_lacks_keep_their_initialisation(tmp_path):
    """transformers fills them with uninitialised memory otherwise."""
    make("swin_tiny_patch4_window7_224", "upernet", encoder_args=TINY_SWIN).save_pretrained(tmp_path)
    model = AutoModelForSemanticSegmentation.from_pretrained(tmp_path, num_labels=5, ignore_mismatched_sizes=True)
    head = model.network.segmentation_head[0]
    assert head.out_channels == 5 and head.bias.abs().max() == 0
    assert 0 < head.weight.std() < 1  # xavier


def test_parts_make_the_whole():
    model = make(architecture="deeplabv3plus-os16").eval()
    x = torch.randn(1, 3, 50, 61)
    whole = model(x).logits
    maps = model.encode(x)
    assert torch.equal(model.classify(model.decode(maps), (50, 61)), whole)
    assert model.classify(model.features(x)).shape[-2:] == (64, 64)
    padded = F.pad(x, (0, 3, 0, 14), mode="replicate")
    assert torch.equal(model(padded).logits[..., :50, :61], whole)


def test_presets_are_the_papers():
    two = make(architecture="deeplabv2")
    assert [c.dilation[0] for c in two.network.segmentation_head.convs] == [6, 12, 18, 24]
    x = torch.randn(1, 3, 64, 64)
    features = two.eval().features(x)
    assert features.shape[-1] == 8  # output stride 8
    each = sum(
        F.conv2d(features, c.weight, c.bias, padding=c.dilation, dilation=c.dilation)
        for c in two.network.segmentation_head.convs
    )
    expected = F.interpolate(each, size=(64, 64), mode="bilinear", align_corners=False)
    assert torch.allclose(two(x).logits, expected, atol=1e-6)
    for name, stride, rates in (("deeplabv3plus-os16", 16, [6, 12, 18]), ("deeplabv3plus-os8", 8, [12, 24, 36])):
        model = make(architecture=name)
        aspp = model.network.decoder.aspp[0]
        assert [aspp.convs[i][0][0].dilation[0] for i in (1, 2, 3)] == rates
        assert model.encode(x)[-1].shape[-1] == 64 // stride


def test_batch_of_one_trains_and_counts_like_eval():
    model = make(architecture="deeplabv3plus-os16").train()
    pooled = next(m for n, m in model.named_modules() if n.endswith("aspp.0.convs.4.2"))
    seen = {}
    pooled.register_forward_hook(lambda m, args, out: seen.update(x=args[0], y=out))
    before = pooled.running_mean.clone()
    model(torch.randn(1, 3, 64, 64)).logits.sum().backward()
    assert seen["x"].shape[2:] == (1, 1) and torch.equal(pooled.running_mean, before)
    expected = (seen["x"] - before.view(1, -1, 1, 1)) / (pooled.running_var.view(1, -1, 1, 1) + pooled.eps).sqrt()
    assert torch.allclose(seen["y"], expected, atol=1e-6)
    model(torch.randn(2, 3, 64, 64))
    assert not torch.equal(pooled.running_mean, before)


def test_a_target_pretrained_backbone_is_loaded_whole_and_reported(tmp_path):
    for encoder, architecture, args in PAIRS[2:]:
        torch.manual_seed(1)
        backbone = shaken(create_backbone(encoder, pretrained=False, model_args=args.get("encoder_args")))
        backbone.save_pretrained(tmp_path / encoder)
        model = create_segmenter(
            str(tmp_path / encoder), 3, architecture=architecture, architecture_args=args.get("architecture_args")
        )
        report = model.load_report
        theirs = {name: t for name, t in backbone.timm_model.state_dict().items()}
        ours = list(model.network.encoder.state_dict().values())
        assert len(report.matched) == len(ours) and report.source == str(tmp_path / encoder)
        for name in report.matched:
            assert any(t.shape == theirs[name].shape and torch.equal(t, theirs[name]) for t in ours), name
        assert all(not n.startswith("network.encoder.") for n in report.missing)


def test_the_report_keeps_revision_and_licence_of_the_encoder(tmp_path):
    backbone = create_backbone("test_resnet", pretrained=False)
    backbone.save_pretrained(tmp_path)
    backbone = create_backbone(str(tmp_path))
    backbone.load_report.revision, backbone.load_report.license = "abc123", "mit"
    report = load_encoder(make(), backbone)
    assert (report.source, report.revision, report.license) == (str(tmp_path), "abc123", "mit")


def test_pickled_weights_are_refused(tmp_path):
    model = make()
    model.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    for load in (type(model), AutoModelForSemanticSegmentation):
        with pytest.raises(OSError, match="model.safetensors"):
            load.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="Leave the argument out"):
        type(model).from_pretrained(tmp_path, use_safetensors=False)
    with pytest.raises(UserError, match="only pickled"):
        Segmentation().load(str(tmp_path))


def test_the_loss_of_an_image_without_labels_is_zero():
    model = make()
    labels = torch.full((1, 64, 64), 255)
    assert model(torch.randn(1, 3, 64, 64), labels=labels).loss == 0
    labels[:, :2] = 1
    out = model.eval()(torch.randn(1, 3, 64, 64), labels=labels)
    expected = -out.logits.double().log_softmax(1)[:, 1, :2].mean()
    assert abs(out.loss - expected) < 1e-6


def test_pipeline_and_processor(tmp_path):
    make(class_names=["sky", "road", "car"], mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7)).save_pretrained(tmp_path)
    code = ["configuration_segmenter.py", "segmenter.py", "segmenter_parts.py"]
    assert sorted(os.listdir(tmp_path)) == sorted([*MODEL_FILES, *code])
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (65, 47, 3), dtype=np.uint8))
    pixels = AutoImageProcessor.from_pretrained(tmp_path)(image, return_tensors="pt").pixel_values
    expected = (np.asarray(image) / 255 - [0.1, 0.2, 0.3]) / [0.5, 0.6, 0.7]
    assert np.allclose(pixels[0].permute(1, 2, 0), expected, atol=1e-5)
    found = pipeline("image-segmentation", model=str(tmp_path))(image)
    assert {f["label"] for f in found} <= {"sky", "road", "car"} and found[0]["mask"].size == (47, 65)
    make(image_size=32).save_pretrained(tmp_path / "resized")
    pixels = AutoImageProcessor.from_pretrained(tmp_path / "resized")(image, return_tensors="pt").pixel_values
    assert pixels.shape[2:] == (32, 23)


def test_export_loads_where_the_package_cannot_be_imported(tmp_path):
    model = shaken(make(architecture="deeplabv3plus-os16")).eval()
    model.save_pretrained(tmp_path / "model")
    code = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "hf_lowlabel":
            raise ImportError(name)
sys.meta_path.insert(0, Block())
import torch
from transformers import AutoModelForSemanticSegmentation
model = AutoModelForSemanticSegmentation.from_pretrained(sys.argv[1], trust_remote_code=True).eval()
x = torch.linspace(-1, 1, 3 * 33 * 40).view(1, 3, 33, 40)
print(model(x).logits.double().sum().item())
"""
    env = {**os.environ, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"}
    run = strangers.ran(code, str(tmp_path / "model"), env=env, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    x = torch.linspace(-1, 1, 3 * 33 * 40).view(1, 3, 33, 40)
    assert float(run.stdout) == pytest.approx(model(x).logits.double().sum().item(), abs=1e-6)
    assert "auto_map" in json.loads((tmp_path / "model" / "config.json").read_text())


def test_bad_input():
    with pytest.raises(UserError, match="did you mean 'deeplabv3plus'"):
        make(architecture="deeplabv3pluss")
    with pytest.raises(UserError, match="Plain vision transformers go with architecture 'linear' or 'dpt'"):
        make("test_vit", "unet")
    with pytest.raises(UserError, match="images of any size.*another encoder"):
        make("coat_lite_tiny", "unet")
    with pytest.raises(UserError, match=r"num_labels=\['a', 'b'\] is no number of classes. Give 1 or more, and their"):
        make(labels=["a", "b"])
    with pytest.raises(UserError, match="There are 300 classes. A mask has values from 0 to 254"):
        create_segmenter("resnet10t", 300, architecture="unet", pretrained=False)
    with pytest.raises(UserError, match="name of its own"):
        make(class_names=["a", "b"])
    with pytest.raises(UserError, match="cannot build a network"):
        make(architecture_args=dict(encoder_depth=9))
    with pytest.raises(UserError, match="has no weights for"):  # the encoder is not shaped like the backbone
        make(architecture_args=dict(channels=(8, 8, 8, 8)))
    assert set(PRESETS) <= set(architectures())


@torch.no_grad()
def test_a_linear_head_reads_the_last_blocks_of_a_vit_with_patches_of_14_px(tmp_path):
    """DINOv2's own: BatchNorm and a 1x1 convolution on the normed tokens of four blocks; positions as trained."""
    from tests.transformers_repos import make_encoder, save_repo

    save_repo(make_encoder("dinov2", num_hidden_layers=5, patch_size=14, image_size=56), tmp_path)
    model = create_segmenter(str(tmp_path), 3, architecture="linear").eval()
    assert model.divisor == 14 and model.network.encoder.model.pos_embed.shape[1] == 1 + 16  # not those of 32 px
    x = torch.randn(1, 3, 56, 70)
    maps = model.network.encoder.model.get_intermediate_layers(x, n=4, reshape=True, norm=True)
    tokens = torch.cat(maps, 1)  # [1, 4 D, 4, 5]
    norm, conv = model.network.norm, model.network.segmentation_head[0]
    expected = torch.einsum("bdhw,kd->bkhw", norm(tokens), conv.weight[:, :, 0, 0]) + conv.bias[:, None, None]
    expected = F.interpolate(expected, size=(56, 70), mode="bilinear", align_corners=False)
    torch.testing.assert_close(model(x).logits, expected, atol=1e-5, rtol=1e-5)
    assert model(torch.randn(1, 3, 50, 61)).logits.shape == (1, 3, 50, 61)
    with pytest.raises(
        UserError, match="needs them of 8, 16 or 32 px; those of .* are 14 px. Take architecture 'linear'"
    ):
        create_segmenter(str(tmp_path), 3, architecture="dpt")


def test_what_stands_on_an_encoder_where_nobody_says(tmp_path):
    from tests.transformers_repos import make_encoder, save_repo

    for encoder, expected in (("test_resnet", "deeplabv3plus-os16"), ("test_vit", "linear")):
        model = create_segmenter(encoder, 3, pretrained=False)
        assert architecture_of(model.config) == expected
    assert architecture_of(make(architecture="deeplabv2-two-rates").config) == "deeplabv2-two-rates"
    assert architecture_of(make(architecture="unet").config) == "unet"
    save_repo(make_encoder("vit"), tmp_path)
    with pytest.raises(
        UserError, match="encoders of as many layers as timm's own, and .* has 2. Take architecture 'linear'"
    ):
        create_segmenter(str(tmp_path), 3, architecture="dpt")


@torch.no_grad()
def test_dpt_on_an_encoder_of_transformers(tmp_path):
    from tests.transformers_repos import make_encoder, save_repo

    save_repo(make_encoder("dinov3", num_hidden_layers=12, patch_size=16, image_size=64), tmp_path)
    model = create_segmenter(str(tmp_path), 3, architecture="dpt", architecture_args=SMALL_DPT).eval()
    assert model(torch.randn(1, 3, 65, 90)).logits.shape == (1, 3, 65, 90)
