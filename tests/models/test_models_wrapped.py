"""Encoders of transformers that timm lacks: features as transformers' own, whole or not at all; saved models load."""

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from transformers import AutoModel, AutoModelForSemanticSegmentation

from hf_lowlabel.errors import UserError
from hf_lowlabel.models import create_backbone, create_classifier
from hf_lowlabel.models.segmentation import create_segmenter
from tests.transformers_repos import rename, save_repo, shake

STAGES = dict(depths=[1, 1], hidden_sizes=[8, 16])
TINY = {
    "bit": ("Bit", dict(STAGES, embedding_size=8, num_groups=4)),
    "cvt": (
        "Cvt",
        dict(patch_sizes=[7, 3], patch_stride=[4, 2], patch_padding=[2, 1], embed_dim=[8, 16], num_heads=[1, 2])
        | dict(depth=[1, 2], mlp_ratio=[2.0, 2.0], attention_drop_rate=[0.0, 0.0], drop_rate=[0.0, 0.0])
        | dict(drop_path_rate=[0.0, 0.0], qkv_bias=[True, True], cls_token=[False, True])
        | dict(qkv_projection_method=["dw_bn", "dw_bn"], kernel_qkv=[3, 3], padding_kv=[1, 1], stride_kv=[2, 2])
        | dict(padding_q=[1, 1], stride_q=[1, 1]),
    ),
    "dpt": (
        "DPT",
        dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16, image_size=32)
        | dict(patch_size=8, backbone_out_indices=[0, 0, 1, 1], neck_hidden_sizes=[4, 4, 4, 4], fusion_hidden_size=4),
    ),
    "efficientnet": ("EfficientNet", dict(width_coefficient=0.1, depth_coefficient=0.1, image_size=32, hidden_dim=128)),
    "focalnet": ("FocalNet", dict(embed_dim=8, depths=[1, 1], hidden_sizes=[8, 16], image_size=32)),
    "levit": (
        "Levit",
        dict(image_size=32, hidden_sizes=[16, 24, 32], num_attention_heads=[1, 2, 2], depths=[1, 1, 1])
        | dict(key_dim=[4, 4, 4], kernel_size=3, stride=2, patch_size=16)
        | dict(mlp_ratio=[2, 2, 2], attention_ratio=[2, 2, 2]),
    ),
    "mobilenet_v1": ("MobileNetV1", dict(depth_multiplier=0.25, image_size=32)),
    "mobilenet_v2": ("MobileNetV2", dict(depth_multiplier=0.25, image_size=32)),
    "mobilevit": (
        "MobileViT",
        dict(hidden_sizes=[8, 12, 16], neck_hidden_sizes=[4, 4, 8, 8, 8, 16, 16], num_attention_heads=2)
        | dict(image_size=64),
    ),
    "poolformer": (
        "PoolFormer",
        dict(STAGES, num_encoder_blocks=2, patch_sizes=[7, 3], strides=[4, 2], padding=[2, 1]),
    ),
    "pvt_v2": (
        "PvtV2",
        dict(image_size=32, hidden_sizes=[8, 8, 16, 16], num_attention_heads=[1, 1, 2, 2], depths=[1, 1, 1, 1])
        | dict(mlp_ratios=[2, 2, 2, 2]),
    ),
    "regnet": ("RegNet", dict(STAGES, embedding_size=8, groups_width=8)),
    "segformer": (
        "Segformer",
        dict(num_encoder_blocks=2, depths=[1, 1], sr_ratios=[2, 1], hidden_sizes=[8, 16], num_attention_heads=[1, 2])
        | dict(patch_sizes=[7, 3], strides=[4, 2], mlp_ratios=[2, 2], decoder_hidden_size=16),
    ),
}


def make(name: str):
    """A network as its repositories hold it, with a classifier where there is one."""
    kind, values = TINY[name]
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**values)
    whole = getattr(transformers, f"{kind}ForImageClassification", None) or getattr(transformers, f"{kind}Model")
    return shake(whole(config).eval())


def own(repo) -> torch.nn.Module:
    return AutoModel.from_pretrained(repo).eval()


SLOW = ("efficientnet", "mobilenet_v1", "mobilenet_v2")  # of many layers, however narrow


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in TINY])
@torch.no_grad()
def test_features_are_transformers_own_and_a_saved_model_loads(name, tmp_path):
    repo = save_repo(make(name), tmp_path / "repo")
    side = TINY[name][1].get("image_size", 32)
    model, x = create_backbone(str(repo), image_size=side).eval(), torch.randn(2, 3, side, side)
    assert model.config.architecture == "transformers_encoder"
    assert model.load_report.matched and not model.load_report.missing
    theirs = own(repo)(pixel_values=x)
    last = theirs.last_hidden_state
    found = model.pooled(x)
    torch.testing.assert_close(found, last.mean((2, 3)) if last.dim() == 4 else last.mean(1), atol=1e-5, rtol=1e-5)
    pooled = None if name == "dpt" else getattr(theirs, "pooler_output", None)
    if pooled is not None:  # where transformers pools too, it is the same
        torch.testing.assert_close(found, pooled.flatten(1), atol=1e-5, rtol=1e-5)
    model.save_pretrained(tmp_path / "saved")
    assert torch.equal(create_backbone(str(tmp_path / "saved")).eval().pooled(x), found)


@torch.no_grad()
def test_a_network_that_takes_blue_first_is_given_it(tmp_path):
    processor = {"image_processor_type": "MobileViTImageProcessor", "size": {"shortest_edge": 64}}
    repo = save_repo(make("mobilevit"), tmp_path / "repo", processor | {"crop_size": {"height": 64, "width": 64}})
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    expected = own(repo)(**transformers.AutoImageProcessor.from_pretrained(repo)(image, return_tensors="pt"))
    model, x = create_backbone(str(repo)).eval(), torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 255
    torch.testing.assert_close(model.pooled(x), expected.last_hidden_state.mean((2, 3)), atol=1e-5, rtol=1e-5)
    model.save_pretrained(tmp_path / "saved")
    assert torch.equal(create_backbone(str(tmp_path / "saved")).eval().pooled(x), model.pooled(x))


@torch.no_grad()
def test_anyone_loads_a_saved_model_with_its_code(tmp_path):
    for name in ("segformer", "focalnet"):  # of maps and of tokens
        model, x = create_backbone(str(save_repo(make(name), tmp_path / name))).eval(), torch.randn(2, 3, 32, 32)
        model.save_pretrained(tmp_path / f"{name}-saved")
        anyone = AutoModel.from_pretrained(tmp_path / f"{name}-saved", trust_remote_code=True).eval()
        torch.testing.assert_close(anyone(pixel_values=x).pooler_output, model.pooled(x), atol=1e-6, rtol=1e-5)


@torch.no_grad()
def test_a_classifier_and_a_segmenter_stand_on_one(tmp_path):
    repo, x = save_repo(make("segformer"), tmp_path / "repo"), torch.randn(1, 3, 40, 56)
    model = create_classifier(str(repo), 3).eval()
    model.set_classifier(torch.eye(3, 16), torch.zeros(3))
    torch.testing.assert_close(model(x).logits, model.features(x)[:, :3])
    masks = create_segmenter(str(repo), 2, architecture="linear").eval()
    assert masks.network.encoder.strides == [4, 8] and masks(x).logits.shape == (1, 2, 40, 56)
    masks.save_pretrained(tmp_path / "masks")
    there = AutoModelForSemanticSegmentation.from_pretrained(tmp_path / "masks", trust_remote_code=True).eval()
    assert torch.equal(there(x).logits, masks(x).logits)
    with pytest.raises(UserError, match="goes with architecture 'linear'"):
        create_segmenter(str(repo), 2, architecture="unet")


@torch.no_grad()
def test_tokens_of_an_image_that_is_no_square_are_a_map(tmp_path):
    model = create_backbone(str(save_repo(make("focalnet"), tmp_path))).eval()
    x = torch.randn(1, 3, 32, 64)
    assert model.feature_map(x).shape == (1, 16, 4, 8)
    assert [tuple(m.shape[-2:]) for m in model.feature_maps(x)][-1] == (4, 8)


def test_a_network_of_one_size_says_so(tmp_path):
    repo = save_repo(make("levit"), tmp_path, None)
    assert create_backbone(str(repo)).config.pretrained_cfg["fixed_input_size"]
    with pytest.raises(UserError, match="takes images of 32 x 32 px alone"):
        create_backbone(str(repo), image_size=64)


@pytest.mark.parametrize("name, layer", [("segformer", "segformer.encoder.block.1.0"), ("bit", "bit.encoder.stages.1")])
def test_weights_that_fit_in_half_are_an_error(name, layer, tmp_path):
    repo = save_repo(make(name), tmp_path / "repo")
    rename(repo, lambda key: key.replace(layer, f"{layer}_of_another"))
    with pytest.raises(UserError, match="lack .*that its config.json asks for.*cannot be loaded as a whole"):
        create_backbone(str(repo))


def test_a_tensor_too_many_is_an_error(tmp_path):
    repo = save_repo(make("segformer"), tmp_path / "repo")
    rename(repo, lambda key: {"classifier.bias": "segformer.encoder.extra.bias"}.get(key, key))
    with pytest.raises(
        UserError, match="hold segformer.encoder.extra.bias, that the segformer of transformers has not"
    ):
        create_backbone(str(repo))


@pytest.mark.parametrize(
    "kind, says",
    [
        ("Detr", "nor another image encoder"),
        ("Hiera", "nor another image encoder"),
        ("VideoMAE", "is a model of video"),
        ("Bert", "is a model of text"),
    ],
)
def test_models_that_give_no_features_of_an_image_are_refused(kind, says, tmp_path):
    getattr(transformers, f"{kind}Config")().save_pretrained(tmp_path)
    with pytest.raises(UserError, match=says):
        create_backbone(str(tmp_path))
