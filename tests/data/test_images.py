from __future__ import annotations

import io
import pickle
import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import create_transform
from torchvision.transforms import CenterCrop, InterpolationMode, Resize

from hf_lowlabel.data.dataset import ImageDataset
from hf_lowlabel.data.images import BadImage, decode, open_image, to_rgb
from hf_lowlabel.errors import UserError


def reread(make, image: Image.Image, kind: str, **options) -> Image.Image:
    return Image.open(io.BytesIO(make.encoded(image, kind, **options)))


def pixels(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize("size", [(40, 40), (63, 40), (40, 63), (41, 101), (17, 16), (8, 8), (32, 50), (3, 7)])
def test_equals_torchvision_and_timm(make, size, interpolation):
    image = make.picture(1, *size)
    for target in (32, 15):
        ours = decode(image, target, interpolation)
        assert ours.dtype == torch.uint8 and ours.shape == (3, target, target) and ours.is_contiguous()
        mode = InterpolationMode(interpolation)
        assert torch.equal(ours, pixels(CenterCrop(target)(Resize(target, mode)(image))))
        timm = create_transform((3, target, target), interpolation=interpolation, crop_pct=1.0, normalize=False)
        assert torch.equal(ours, timm(image))


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK", "YCbCr", "P", "1", "LA", "RGBA", "HSV"])
def test_modes_become_rgb_as_pil_does_it(make, mode):
    image = make.picture(2, 20, 20, mode)
    assert torch.equal(decode(image, 20), pixels(image.convert("RGB")))


def test_cmyk_jpeg_and_palette_png_from_files(make):
    for mode, kind in (("CMYK", "JPEG"), ("P", "PNG")):
        image = reread(make, make.picture(3, 20, 20, mode), kind)
        assert image.mode == mode
        assert torch.equal(decode(image, 20), pixels(image.convert("RGB")))


def test_transparency_is_dropped_not_laid_on_white():
    image = Image.new("RGBA", (8, 8), (10, 200, 30, 0))
    assert decode(image, 8)[:, 0, 0].tolist() == [10, 200, 30]


def test_a_transparent_palette_gives_its_colours_without_a_warning(make):
    palette = Image.new("P", (8, 8), 1)
    palette.putpalette([0, 0, 0, 10, 200, 30])
    image = reread(make, palette, "PNG", transparency=bytes([255, 100]))
    assert image.mode == "P" and isinstance(image.info["transparency"], bytes)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decode(image, 8)[:, 0, 0].tolist() == [10, 200, 30]


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_grey_keeps_its_range(make, kind):
    values = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    image = reread(make, Image.fromarray(values), kind)
    assert image.mode.startswith("I;16")
    expected = np.rint(values / 257).astype(np.uint8)
    assert np.array_equal(decode(image, 8).numpy(), np.stack([expected] * 3))
    big_endian = Image.frombytes("I;16B", (8, 8), values.astype(">u2").tobytes())
    assert np.array_equal(decode(big_endian, 8)[0].numpy(), expected)


def test_32_bit_and_float_pixels():
    values = np.array([[0, 257], [65535, 514]], dtype=np.int32)
    assert decode(Image.fromarray(values), 2)[0].tolist() == [[0, 1], [255, 2]]
    with pytest.raises(BadImage, match="values -1..5"):
        decode(Image.fromarray(np.array([[-1, 5], [0, 0]], dtype=np.int32)), 2)
    with pytest.raises(BadImage, match="floating-point"):
        decode(Image.fromarray(np.ones((4, 4), dtype=np.float32)), 2)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(make, orientation):
    upright = np.zeros((12, 8, 3), dtype=np.uint8)
    upright[:6, :4] = [255, 0, 0]  # the corner at the top left is red
    stored = Image.fromarray(upright)
    inverse = {
        2: [Image.Transpose.FLIP_LEFT_RIGHT],
        3: [Image.Transpose.ROTATE_180],
        4: [Image.Transpose.FLIP_TOP_BOTTOM],
        5: [Image.Transpose.TRANSPOSE],
        6: [Image.Transpose.ROTATE_90],
        7: [Image.Transpose.TRANSVERSE],
        8: [Image.Transpose.ROTATE_270],
    }
    for step in inverse.get(orientation, []):
        stored = stored.transpose(step)
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = reread(make, stored, "PNG", exif=exif)
    assert np.array_equal(np.array(to_rgb(image)), upright)


def test_animation_gives_its_first_frame(make):
    first, second = Image.new("RGB", (8, 8), (255, 0, 0)), Image.new("RGB", (8, 8), (0, 255, 0))
    image = reread(make, first, "GIF", save_all=True, append_images=[second])
    assert image.n_frames == 2
    assert decode(image, 8)[:, 0, 0].tolist() == [255, 0, 0]


def one_image(content: bytes) -> ImageDataset:
    class Reader:
        def __call__(self, i):
            return open_image(io.BytesIO(content))

    return ImageDataset("one", None, "train", None, ["a/b.png"], np.array([-1]), [], "0", None, True, Reader())


@pytest.mark.parametrize(
    "kind, reason",
    [
        ("truncated jpeg", "truncated"),
        ("truncated png", "OSError|SyntaxError|truncated"),
        ("text", "not an image"),
        ("empty", "not an image"),
        ("broken png", "SyntaxError|OSError|not an image"),
        ("1 px", "1 x 1 px"),
        ("a line", "40 x 1 px"),
        ("a strip", "within 1:100"),
        ("float", "floating-point"),
    ],
)
def test_a_bad_image_says_which_and_why(make, kind, reason):
    jpeg, png = make.encoded(make.picture(0, 64, 64), "JPEG"), make.encoded(make.picture(0, 64, 64))
    content = {
        "truncated jpeg": jpeg[: len(jpeg) // 2],
        "truncated png": png[: len(png) // 2],
        "text": b"<html>404 not found</html>",
        "empty": b"",
        "broken png": png[:30] + bytes(200) + png[230:],
        "1 px": make.encoded(make.picture(0, 1, 1)),
        "a line": make.encoded(make.picture(0, 40, 1)),
        "a strip": make.encoded(make.picture(0, 500, 4)),
        "float": make.encoded(Image.fromarray(np.ones((8, 8), np.float32)), "TIFF"),
    }[kind]
    with pytest.raises(BadImage, match=reason) as caught:
        one_image(content).decode(0, 16)
    assert caught.value.id == "a/b.png" and "'a/b.png'" in str(caught.value)
    assert isinstance(caught.value, UserError)
    again = pickle.loads(pickle.dumps(caught.value))
    assert (again.id, again.reason) == (caught.value.id, caught.value.reason)


def test_a_bomb_is_a_bad_image(make, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(BadImage, match="DecompressionBomb"):
        one_image(make.encoded(make.picture(0, 40, 40))).decode(0, 16)


def test_an_unknown_interpolation_is_not_the_images_fault(make):
    with pytest.raises(UserError, match="did you mean 'bicubic'") as caught:
        decode(make.picture(0), 8, "bicubik")
    assert not isinstance(caught.value, BadImage)
