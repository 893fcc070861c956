"""Encoders of transformers in timm's layout: the same features, the same preprocessing, and what is refused."""

from __future__ import annotations

import json

import pytest
import timm
import torch
import transformers
from transformers_repos import ENCODERS, make_encoder, save_repo

from hf_lowlabel.models import create_backbone


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
