"""RandAugment's operations against timm's and torchvision's on the same images.

Equal level by level on Pillow images. torchvision's tensors round elsewhere: one level, of the operations that blend
or stretch; its shears fetch other pixels along an edge, 5 % at 33 px. What differs between the three is not in the
operations but around them: timm fills with gray and draws Pillow's bilinear or bicubic filter unless it is told,
torchvision moves right where a positive strength moves left here and in Pillow, and the ranges of strengths are each
one's own (translation up to 0.3 of the side here, 0.45 in timm, 150 / 331 in torchvision; brightness, colour, contrast
and sharpness 0.05 to 0.95 here, 0.1 to 1.9 in both).
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import timm.data.auto_augment as timm_ops
import torch
import torchvision.transforms.v2.functional as V
from PIL import Image
from views_reference import from_pil, images, to_pil

from hf_lowlabel.views.counter_rng import Groups
from hf_lowlabel.views.randaugment import OP, OPS, apply_layer

NEAREST = dict(resample=Image.Resampling.NEAREST)
STRENGTHS = {  # in Pillow's unit
    **dict.fromkeys(("identity", "autocontrast", "equalize"), (0,)),
    **dict.fromkeys(("brightness", "color", "contrast", "sharpness"), (0.05, 0.5, 0.95)),
    "posterize": (4, 6, 8),
    "solarize": (0, 101, 256),
    "rotate": (-27, 17),
    "shear_x": (-0.27, 0.2),
    "shear_y": (-0.27, 0.2),
    "translate_x": (-9, 6),
    "translate_y": (-9, 6),
}


def in_timm(x: Image.Image, name: str, v: float) -> Image.Image:
    without = {"identity": lambda x: x, "autocontrast": timm_ops.auto_contrast, "equalize": timm_ops.equalize}
    if name in without:
        return without[name](x)
    op = getattr(timm_ops, f"{name}_abs" if name.startswith("translate") else name)
    return op(x, v, **NEAREST) if OP[name] >= OP["rotate"] else op(x, v)


def in_torchvision(x: Image.Image | torch.Tensor, name: str, v: float) -> Image.Image | torch.Tensor:
    def moved(translate=(0, 0), shear=(0.0, 0.0)):
        return V.affine(x, 0.0, list(translate), 1.0, [math.degrees(math.atan(s)) for s in shear], center=[0, 0])

    return {
        "identity": lambda: x,
        "autocontrast": lambda: V.autocontrast(x),
        "equalize": lambda: V.equalize(x),
        "brightness": lambda: V.adjust_brightness(x, v),
        "color": lambda: V.adjust_saturation(x, v),
        "contrast": lambda: V.adjust_contrast(x, v),
        "sharpness": lambda: V.adjust_sharpness(x, v),
        "posterize": lambda: V.posterize(x, v),
        "solarize": lambda: V.solarize(x, v) if v < 256 else x,
        "rotate": lambda: V.rotate(x, v),
        "shear_x": lambda: moved(shear=(v, 0.0)),
        "shear_y": lambda: moved(shear=(0.0, v)),
        "translate_x": lambda: moved(translate=(-v, 0)),
        "translate_y": lambda: moved(translate=(0, -v)),
    }[name]()


@pytest.mark.parametrize("name", OPS)
def test_operations_are_those_of_timm_and_torchvision(name):
    x = images(16, 33, seed=3)
    for v in STRENGTHS[name]:
        batch = Groups(x.clone())
        apply_layer(batch, np.full(len(x), OP[name]), np.full(len(x), float(v)))
        ours = batch.restored()
        assert torch.equal(ours, from_pil([in_timm(p, name, v) for p in to_pil(x)]))
        assert torch.equal(ours, from_pil([in_torchvision(p, name, v) for p in to_pil(x)]))
        off = (ours.int() - torch.stack([in_torchvision(i, name, v) for i in x]).int()).abs()
        if name.startswith("shear"):
            assert (off > 0).float().mean() < 0.1
        else:
            assert off.max() <= (name in ("autocontrast", "color", "contrast", "sharpness"))
