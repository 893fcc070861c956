"""Saved models and starting weights are opened as float32, and only where they are whole."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from hf_lowlabel import create_backbone, create_classifier, create_segmenter
from hf_lowlabel.models.opening import open_model

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
