"""Saved models and starting weights are opened as float32, and only where they are whole."""

from __future__ import annotations

from functools import partial

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from hf_lowlabel import create_backbone, create_classifier, create_segmenter
from hf_lowlabel.errors import UserError
from hf_lowlabel.models.opening import open_model
from tests.transformers_repos import make_encoder, save_repo

MAKE = {
    "backbone": create_backbone,
    "classifier": partial(create_classifier, num_labels=2),
    "segmenter": partial(create_segmenter, num_labels=2, architecture="linear"),
}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", MAKE)
def test_models_in_half_precision_are_opened_in_float32(kind, dtype, tmp_path):
    """transformers opens them as they are; masks, exports and processors want float32."""
    model = MAKE[kind]("resnet10t", pretrained=False).to(dtype)
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


def test_starting_weights_that_are_no_numbers_are_refused(tmp_path):
    create_backbone("resnet10t", pretrained=False).save_pretrained(tmp_path / "timm")
    save_repo(make_encoder("vit"), tmp_path / "vit")
    for folder, name in (("timm", "layer1.0.conv1.weight"), ("vit", "layernorm.bias")):
        rewrite(tmp_path / folder, lambda state, name=name: spoil(state, name))
        for create in (create_backbone, partial(create_classifier, num_labels=3)):
            with pytest.raises(UserError, match=f"NaN or infinite values in {name} of the model in .*{folder}"):
                create(str(tmp_path / folder))
    module = timm.create_model("resnet10t")
    with torch.no_grad():
        module.conv1[0].weight[0] = torch.inf
    with pytest.raises(UserError, match="NaN or infinite values in conv1.0.weight of the model in a ResNet in memory"):
        create_backbone(module)


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int32])
def test_weights_in_whole_numbers_are_refused(tmp_path, dtype):
    create_backbone("resnet10t", pretrained=False).save_pretrained(tmp_path)
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
