"""Saved models and starting weights are opened as float32, and only where they are whole."""

from __future__ import annotations

import shutil
from functools import partial

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from hf_lowlabel import create_backbone, create_classifier, create_segmenter
from hf_lowlabel.errors import UserError
from hf_lowlabel.models.saved_models import open_model
from hf_lowlabel.models.two_towers import load_two_towers
from tests.transformers_repos import make_encoder, save_repo, save_two_towers

MAKE = {
    "backbone": create_backbone,
    "classifier": partial(create_classifier, num_labels=2),
    "segmenter": partial(create_segmenter, num_labels=2, architecture="linear"),
}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", MAKE)
def test_models_in_half_precision_are_opened_in_float32(kind, dtype, tmp_path):
    """transformers opens them as they are; masks, exports and processors want float32."""
    model = MAKE[kind]("test_resnet", pretrained=False).to(dtype)
    model.save_pretrained(tmp_path)
    again = open_model(type(model), tmp_path)
    assert {p.dtype for p in again.parameters()} == {torch.float32}
    assert all(a.float().equal(b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


def rewrite(folder, change):
    """The weights after change(state), which may give another mapping."""
    state = load_file(folder / "model.safetensors")
    save_file(change(state) or state, folder / "model.safetensors", metadata={"format": "pt"})


def spoil(state, name):
    state[name] = state[name].clone()
    state[name].view(-1)[0] = torch.nan


@pytest.fixture(scope="module")
def towers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("towers")
    save_two_towers("CLIP", folder)
    return folder


def test_towers_that_are_damaged_are_one_sentence(towers, tmp_path):
    shutil.copytree(towers, tmp_path, dirs_exist_ok=True)
    weights = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(UserError, match="cannot be opened .*SafetensorError.*Copy or download it again"):
        load_two_towers(str(tmp_path))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: s | {"text_projection.weight": s["text_projection.weight"][1:].clone()}, "text_projection"),
        (lambda s: spoil(s, "text_projection.weight"), "NaN or infinite values in text_projection.weight"),
        (lambda s: {k: v for k, v in s.items() if k != "visual_projection.weight"}, "lack visual_projection.weight"),
    ],
)
def test_towers_that_are_not_whole_are_refused(towers, tmp_path, change, said):
    shutil.copytree(towers, tmp_path, dirs_exist_ok=True)
    rewrite(tmp_path, change)
    with pytest.raises(UserError, match=said):
        load_two_towers(str(tmp_path))


def test_starting_weights_that_are_no_numbers_are_refused(tmp_path):
    create_backbone("test_resnet", pretrained=False).save_pretrained(tmp_path / "timm")
    save_repo(make_encoder("vit"), tmp_path / "vit")
    for folder, name in (("timm", "layer1.0.conv1.weight"), ("vit", "layernorm.bias")):
        rewrite(tmp_path / folder, lambda state, name=name: spoil(state, name))
        for create in (create_backbone, partial(create_classifier, num_labels=3)):
            with pytest.raises(UserError, match=f"NaN or infinite values in {name} of the model in .*{folder}"):
                create(str(tmp_path / folder))
    module = timm.create_model("test_resnet")
    with torch.no_grad():
        module.conv1[0].weight[0] = torch.inf
    with pytest.raises(UserError, match="NaN or infinite values in conv1.0.weight of the model in a ResNet in memory"):
        create_backbone(module)


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int32])
def test_weights_in_whole_numbers_are_refused(tmp_path, dtype):
    create_backbone("test_resnet", pretrained=False).save_pretrained(tmp_path)
    rewrite(tmp_path, lambda state: {k: v.to(dtype) for k, v in state.items()})
    with pytest.raises(
        UserError, match=f"are whole numbers .torch.{str(dtype)[6:]}: .*Take the model in floating point"
    ):
        create_backbone(str(tmp_path))


@pytest.mark.parametrize("name", ["vit", "dinov2"])
@pytest.mark.parametrize("count", [16, 1])
def test_positions_that_form_no_square_name_their_tensor(tmp_path, name, count):
    """Of 16 patches and a class token, one is missing, or all but the class token."""
    save_repo(make_encoder(name), tmp_path)
    tensor = "embeddings.position_embeddings"
    rewrite(tmp_path, lambda state: state | {tensor: state[tensor][:, :count].clone()})
    for size in (None, 48):
        with pytest.raises(UserError, match="position_embeddings of .* patches, which form no square|do not fit"):
            create_backbone(str(tmp_path), image_size=size)
