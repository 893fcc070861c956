"""Pixels as the image processors of transformers' repositories make them, of photos of any shape; or a refusal."""

import json
import logging

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from hf_lowlabel import load_source
from hf_lowlabel.data.caches.decoding import decode_chunks
from hf_lowlabel.data.pixels.images import square_of
from hf_lowlabel.errors import UserError
from hf_lowlabel.models import create_backbone
from hf_lowlabel.models.image_processors import crop_share, preprocessing_of
from hf_lowlabel.selection.features import extract
from hf_lowlabel.views import build_view
from tests.transformers_repos import PROCESSOR, make_encoder, save_repo, save_two_towers

SIDES = {"height": 48, "width": 48}
PROCESSORS = [  # (name, fields), as their repositories have them
    ("Beit", {"size": {"height": 64, "width": 64}, "crop_size": SIDES, "do_center_crop": True}),
    ("Bit", {}),
    ("CLIP", {}),
    ("ConvNext", {"size": {"shortest_edge": 224}}),
    ("ConvNext", {"size": {"shortest_edge": 384}}),
    ("DeiT", {}),
    ("DINOv3ViT", {}),
    ("DPT", {"size": SIDES}),
    ("EfficientNet", {"size": SIDES, "do_center_crop": False}),
    ("EfficientNet", {"size": SIDES, "rescale_factor": 1 / 127.5, "rescale_offset": True}),
    ("Levit", {}),
    ("MobileNetV2", {}),
    ("MobileViT", {"size": {"shortest_edge": 72}, "crop_size": {"height": 64, "width": 64}}),
    ("PoolFormer", {}),
    ("PoolFormer", {"size": {"shortest_edge": 384}, "crop_size": {"height": 384, "width": 384}}),
    ("Pvt", {}),
    ("Segformer", {"size": SIDES}),
    ("Siglip", {}),
    ("ViT", {"resample": 3}),
]


def written(folder, name: str, fields: dict) -> None:
    (folder / "preprocessor_config.json").write_text(
        json.dumps({"image_processor_type": f"{name}ImageProcessor"} | fields)
    )


def processor(folder, name: str, fields: dict):
    written(folder, name, fields)
    return transformers.AutoImageProcessor.from_pretrained(folder)


def photos(folder, sizes=((400, 300), (300, 400), (48, 48))):
    """A wide photo, a tall one and a small square."""
    noise = np.random.default_rng(0).integers(0, 256, (16, 12, 3), dtype=np.uint8)
    folder.mkdir()
    for i, size in enumerate(sizes):
        Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC).save(folder / f"{i}.png")
    return load_source(folder)


def seen_of(source, prep) -> torch.Tensor:
    """What a network is shown of every photo, float32 [N, 3, H, W]."""
    ((_, pixels, _),) = decode_chunks(source, np.arange(len(source)), 1, **square_of(prep))
    view = build_view("eval", size=prep["input_size"][-1], mean=prep["mean"], std=prep["std"])
    return view(pixels, torch.zeros(len(source), view.width, dtype=torch.float64))


@pytest.mark.parametrize("name, fields", PROCESSORS)
def test_pixels_are_those_of_the_processor_whatever_the_shape(name, fields, tmp_path):
    own, source = processor(tmp_path, name, fields), photos(tmp_path / "photos")
    prep = preprocessing_of(tmp_path, name)
    got = seen_of(source, prep)
    got = got.flip(1) if prep.get("flip_channels") else got
    assert bool(prep.get("flip_channels")) is (name == "MobileViT")
    expected = torch.cat([own(source.image(i), return_tensors="pt")["pixel_values"] for i in range(len(source))])
    step = max(1 / 255 / s for s in prep["std"])  # of a pixel's value, which two roundings may move by two
    torch.testing.assert_close(got, expected, atol=2.1 * step, rtol=0)
    # DINOv3's keeps fractions of a level, which are rounded here
    assert float((got - expected).abs().mean()) < (0.3 if name == "DINOv3ViT" else 0.03) * step


@pytest.mark.parametrize(
    "name, fields, says",
    [
        ("GLPN", {}, "makes 96 x 64 px of a photo of 96 x 64 px"),
        ("TextNet", {}, "makes 960 x 640 px"),
        ("Donut", {"size": {"height": 64, "width": 48}}, "makes 48 x 64 px"),
        ("DPT", {"size": SIDES, "keep_aspect_ratio": True}, "makes 72 x 48 px"),
        ("CLIP", {"do_center_crop": False}, "makes 336 x 224 px"),
        ("ViT", {"do_resize": False}, "makes 96 x 64 px"),
        ("MobileViT", {}, "does more to a photo than resize"),  # it pads what is smaller than its crop
        ("PPLCNet", {}, "does more to a photo than resize"),
    ],
)
def test_what_makes_no_squares_of_one_size_is_refused(name, fields, says, tmp_path):
    processor(tmp_path, name, fields)
    with pytest.raises(UserError, match=rf"{says}.* Take another encoder"):
        preprocessing_of(tmp_path, "a/b")


def test_a_network_that_sees_photos_in_their_own_shape_says_so(tmp_path, caplog):
    processor(tmp_path, "Siglip2", {"max_num_patches": 16, "patch_size": 8})
    with caplog.at_level(logging.WARNING):
        assert preprocessing_of(tmp_path, "a/b")["input_size"] == [3, 32, 32]
    assert "a/b sees photos in their own shape" in caplog.text


@torch.no_grad()
def test_features_of_wide_and_tall_photos_are_transformers_own(tmp_path):
    """Of an encoder and of a model of words, to the half precision in which features are kept."""
    source = photos(tmp_path / "photos", ((90, 40), (40, 90)))
    save_repo(make_encoder("vit"), tmp_path / "vit", dict(PROCESSOR, resample=2))
    theirs = transformers.AutoModel.from_pretrained(tmp_path / "vit").eval()
    own = transformers.AutoImageProcessor.from_pretrained(tmp_path / "vit")
    x = torch.cat([own(source.image(i), return_tensors="pt")["pixel_values"] for i in range(2)])
    found = torch.from_numpy(extract(str(tmp_path / "vit"), source).values)
    torch.testing.assert_close(found, theirs(x).last_hidden_state[:, 0], atol=0.02, rtol=0.02)

    from hf_lowlabel.models.two_towers import load_two_towers

    save_two_towers("Siglip", tmp_path / "siglip")
    model = load_two_towers(str(tmp_path / "siglip"))
    own = transformers.AutoImageProcessor.from_pretrained(tmp_path / "siglip")
    x = torch.cat([own(source.image(i), return_tensors="pt")["pixel_values"] for i in range(2)])
    torch.testing.assert_close(torch.from_numpy(extract(model, source).values), model.pooled(x), atol=0.02, rtol=0.02)


@pytest.mark.parametrize("size", [15, 224, 331, 378])
def test_the_share_of_a_crop_gives_its_sides_back(size):
    for stored in range(size, size + 80):
        assert int(size / crop_share(size, stored)) == stored


def test_a_border_around_photos_is_refused(tmp_path):
    save_repo(make_encoder("vit"), tmp_path / "vit")
    model = create_backbone(str(tmp_path / "vit"))
    model.config.pretrained_cfg["crop_mode"] = "border"
    model.save_pretrained(tmp_path / "saved")
    with pytest.raises(UserError, match="keeps photos whole inside a border"):
        create_backbone(str(tmp_path / "saved"))


@pytest.mark.parametrize(
    "fields, says",
    [
        ({"image_mean": None}, "image_mean is None, and three numbers are needed"),
        ({"image_mean": [0.5]}, "three numbers"),
        ({"image_std": [0.5, None, 0.5]}, "image_std|Error"),
        ({"image_std": [0.5, 0, 0.5]}, "nothing can be divided by 0"),
        ({"resample": "bicubic"}, "bicubic|Error"),
        ({"resample": 9}, "resample|Error"),
    ],
)
def test_fields_that_say_nothing_are_refused(fields, says, tmp_path):
    with pytest.raises(UserError, match=f"describes no image processor that transformers reads .*({says})"):
        written(tmp_path, "ViT", fields)
        preprocessing_of(tmp_path, "here")


def test_one_number_is_that_of_all_channels(tmp_path):
    written(tmp_path, "ViT", {"image_mean": 0.5, "image_std": 0.25})
    found = preprocessing_of(tmp_path, "here")
    assert found["mean"] == [0.5] * 3 and found["std"] == [0.25] * 3
