from __future__ import annotations

import io
import os
import pickle
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin
from timm.data import create_transform
from torchvision.transforms import CenterCrop, InterpolationMode, Resize

from hf_lowlabel.data.dataset import ImageDataset
from hf_lowlabel.data.pixels.images import (
    BadImage,
    decode,
    decoding,
    load_rgb,
    open_image,
    plugins,
    to_rgb,
    upright,
    upright_size,
)
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
        for mode, squash in (("center", False), ("squash", True)):
            said = dict(interpolation=interpolation, crop_pct=1.0, crop_mode=mode, normalize=False)
            seen = decode(image, target, interpolation, squash=squash)
            assert torch.equal(seen, create_transform((3, target, target), **said)(image))


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


T = Image.Transpose
STORED = {  # of an orientation tag, how a camera that writes it stores the upright picture
    2: T.FLIP_LEFT_RIGHT,
    3: T.ROTATE_180,
    4: T.FLIP_TOP_BOTTOM,
    5: T.TRANSPOSE,
    6: T.ROTATE_90,
    7: T.TRANSVERSE,
    8: T.ROTATE_270,
}


def corners(mode: str) -> Image.Image:
    """60 x 40 px: bright at the upper left, less so at the lower right."""
    values = np.zeros((40, 60), np.uint8)
    values[:20, :30], values[20:, 30:] = 255, 120
    if mode == "I;16":
        return Image.fromarray(values.astype(np.uint16) * 257)
    return Image.fromarray(values).convert(mode)


KINDS = [("L", "TIFF"), ("P", "TIFF"), ("I;16", "TIFF"), ("RGB", "TIFF"), ("RGB", "JPEG"), ("P", "PNG")]


@pytest.mark.parametrize("mode, kind", KINDS)
def test_an_orientation_tag_is_obeyed_whatever_the_file(tmp_path, mode, kind):
    """Also where Pillow turns the picture itself, and maps uncompressed pixels with the sides of the turned one."""
    image = corners(mode)
    for tag, stored in STORED.items():
        exif = Image.Exif()
        exif[0x0112] = tag
        for compression in ({}, {"compression": "tiff_lzw"})[: 2 if kind == "TIFF" else 1]:
            image.transpose(stored).save(tmp_path / "x", kind, exif=exif, **compression)
            with open_image(tmp_path / "x") as opened:
                assert upright_size(opened) == (60, 40)
                seen = np.asarray(to_rgb(upright(opened)))[..., 0].astype(int)  # turned once, however often it is asked
            assert np.abs(seen - np.asarray(to_rgb(corners(mode)))[..., 0]).mean() < 2, (tag, compression)


def chunk(kind: bytes, content: bytes) -> bytes:
    return len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")


def xmp(turn: int) -> bytes:
    return b"XML:com.adobe.xmp\0\0\0\0\0" + b'<x:xmpmeta tiff:Orientation="%d"></x:xmpmeta>' % turn


@pytest.mark.parametrize("late", [b"", b"eXIf", b"iTXt", b"tEXt"])
def test_the_size_of_a_png_is_known_without_its_pixels(make, monkeypatch, late):
    """But where a tag may follow them."""
    exif = Image.Exif()
    exif[0x0112] = 6
    content = {b"eXIf": exif.tobytes()[6:], b"iTXt": xmp(6), b"tEXt": b"Comment\0upright"}.get(late)
    whole = make.encoded(make.picture(0, 30, 20))
    whole = whole[:-12] + (chunk(late, content) if content else b"") + whole[-12:]
    loads, load = [], PngImagePlugin.PngImageFile.load
    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", lambda image: loads.append(1) or load(image))
    turned = late in (b"eXIf", b"iTXt")
    with open_image(io.BytesIO(whole)) as image:
        assert upright_size(image) == ((20, 30) if turned else (30, 20)) and bool(loads) == turned
        assert upright(image).size == ((20, 30) if turned else (30, 20))
        assert np.array_equal(np.sort(np.array(upright(image)), None), np.sort(np.array(make.picture(0, 30, 20)), None))
    with open_image(io.BytesIO(whole[: len(whole) // 2])) as torn, pytest.raises(BadImage), decoding():
        upright_size(torn)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "JPEG"])
def test_rubbish_exif_does_not_spoil_an_image(make, kind):
    content = make.encoded(make.picture(0, 30, 20), kind, exif=b"Exif\x00\x00rubbish that is no TIFF header")
    with open_image(io.BytesIO(content)) as image:
        assert upright_size(image) == (30, 20) and upright(image).size == (30, 20)
    assert one_image(content).decode(0, 16).shape == (3, 16, 16) and one_image(content).image(0).size == (30, 20)


def test_only_regular_files_of_known_formats_are_opened(tmp_path, make, monkeypatch):
    os.mkfifo(tmp_path / "pipe.png")
    for path in (tmp_path / "pipe.png", Path("/dev/zero"), tmp_path):
        with pytest.raises(BadImage, match="not a regular file"):
            open_image(path)
    (tmp_path / "x.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n")
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", None)  # a call would be a TypeError
    with pytest.raises(BadImage, match="not an image"):
        open_image(tmp_path / "x.jpg")
    for kind in ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM", "JPEG2000", "TGA", "ICO", "AVIF"):
        if kind in Image.SAVE:
            assert open_image(io.BytesIO(make.encoded(make.picture(0, 32, 32), kind))).size == (32, 32)


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


@pytest.mark.parametrize("kind", ["AVIF", "JXL", "HEIF"])
def test_whatever_a_damaged_file_does_to_its_decoder_is_a_bad_image(make, kind):
    """The decoders of AVIF and JPEG XL raise RuntimeErrors, when the file is opened or later."""
    if kind not in (*plugins(), "AVIF") or kind not in Image.SAVE:
        pytest.skip(f"no {kind} here")
    content, rng, reasons = make.encoded(make.picture(0, 64, 48), kind), np.random.default_rng(0), []
    damaged = [content[:n] for n in range(20, len(content), len(content) // 20)]
    for _ in range(40):
        one = np.frombuffer(content, np.uint8).copy()
        one[rng.integers(0, len(one), 5)] = rng.integers(0, 256, 5)
        damaged.append(one.tobytes())
    for one in damaged:
        try:
            load_rgb(open_image(io.BytesIO(one)))
        except BadImage as error:
            reasons.append(error.reason)
    assert len(reasons) > 10 and (kind == "HEIF" or any("RuntimeError" in reason for reason in reasons))


def test_a_runtime_error_of_our_own_is_not_the_images_fault():
    with pytest.raises(RuntimeError, match="shape '\\[2\\]' is invalid"), decoding():
        torch.zeros(3).reshape(2)
    with pytest.raises(RuntimeError, match="^of our own$"), decoding():
        raise RuntimeError("of our own")
