"""A saved folder in a process that cannot import this package: Auto classes, pipeline, image processor, timm, smp."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
import torch
from PIL import Image

from hf_lowlabel.models import create_backbone, create_classifier
from hf_lowlabel.models.segmentation import create_segmenter
from tests import strangers

NAMES = ["cat", "dog", "owl", "yak"]
WITHOUT_PACKAGE = """
import json, sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "hf_lowlabel":
            raise ImportError("blocked")
sys.meta_path.insert(0, Refuse())
sys.modules["hf_lowlabel"] = None
import numpy as np, timm, torch
import segmentation_models_pytorch as smp
from PIL import Image
from transformers import (AutoImageProcessor, AutoModel, AutoModelForImageClassification,
                          AutoModelForSemanticSegmentation, TimmBackbone, pipeline)

root = sys.argv[1]
x = torch.from_numpy(np.load(f"{root}/x.npy"))
image = Image.open(f"{root}/image.png")
out = {}
with torch.no_grad():
    auto = AutoModelForImageClassification.from_pretrained(f"{root}/classifier").eval()
    out["auto"] = auto(x).logits
    out["bf16"] = AutoModelForImageClassification.from_pretrained(f"{root}/bf16").eval()(x).logits.float()
    out["timm"] = timm.create_model(f"local-dir:{root}/classifier", pretrained=True).eval()(x)
    encoder = smp.encoders.get_encoder(f"tu-local-dir:{root}/classifier", weights=True, depth=5).eval()
    out["smp"] = encoder(x)[-1]
    encoder = smp.encoders.get_encoder(f"tu-local-dir:{root}/plain", weights=True, depth=5).eval()
    out["smp_backbone"] = encoder(x)[-1]
    out["backbone"] = AutoModel.from_pretrained(f"{root}/backbone").eval()(x).pooler_output
    out["timm_backbone"] = timm.create_model(f"local-dir:{root}/backbone", pretrained=True).eval()(x)
    maps = TimmBackbone.from_pretrained(f"local-dir:{root}/backbone", out_indices=(2, 3, 4)).eval()(x).feature_maps
    out["auto_backbone"] = maps[-1]
    for wide in ("portrait", "gray", "palette"):
        out[f"processed_{wide}"] = AutoImageProcessor.from_pretrained(f"{root}/classifier")(
            Image.open(f"{root}/{wide}.png").convert("RGB"), return_tensors="pt")["pixel_values"]
    found = pipeline("image-classification", f"{root}/classifier", device="cpu")(image)
    brought = dict(trust_remote_code=True)
    for name in ("wrn_10_2", "cnn6_16"):
        out[name] = AutoModelForImageClassification.from_pretrained(f"{root}/{name}", **brought).eval()(x).logits
    found_own = pipeline("image-classification", f"{root}/wrn_10_2", device="cpu", **brought)(image)
    assert len(found_own) == 4
    out["own_backbone"] = AutoModel.from_pretrained(f"{root}/own_backbone", **brought).eval()(x).pooler_output
    own = AutoModelForSemanticSegmentation.from_pretrained(f"{root}/own_segmenter", **brought).eval()
    out["own_segmenter"] = own(x).logits
assert "hf_lowlabel.models" not in sys.modules
np.savez(f"{root}/out.npz", **{k: v.numpy() for k, v in out.items()})
json.dump({"pipeline": found, "id2label": auto.config.id2label}, open(f"{root}/out.json", "w"))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The saved models, and what the process without the package made of them."""
    root = tmp_path_factory.mktemp("portable")
    torch.manual_seed(0)
    model = create_classifier(
        "resnet10t",
        4,
        pretrained=False,
        class_names=NAMES,
        image_size=48,
        crop_pct=0.9,
        mean=(0.4, 0.5, 0.6),
        std=(0.2, 0.25, 0.3),
        interpolation="bilinear",
    )
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.02 * torch.randn_like(p))
    model.eval().save_pretrained(root / "classifier")
    backbone = create_backbone(str(root / "classifier"), output_stride=16).eval()
    backbone.save_pretrained(root / "backbone")
    create_backbone(str(root / "backbone"), output_stride=32).save_pretrained(root / "plain")  # smp dilates by itself
    create_classifier(str(root / "classifier"), 4).to(torch.bfloat16).save_pretrained(root / "bf16")
    own = {name: create_classifier(name, 4, pretrained=False, image_size=32).eval() for name in ("wrn_10_2", "cnn6_16")}
    own["own_backbone"] = create_backbone("cnn6_16", pretrained=False, image_size=32).eval()
    args = dict(encoder_depth=3, decoder_channels=[16, 8, 8])
    own["own_segmenter"] = create_segmenter(
        "cnn6_16", 4, architecture="unet", pretrained=False, architecture_args=args
    ).eval()
    for name, network in own.items():
        network.save_pretrained(root / name)
    rng = np.random.default_rng(0)
    np.save(root / "x.npy", rng.standard_normal((2, 3, 64, 64)).astype(np.float32))
    pixels = rng.integers(0, 256, (9, 12, 3), dtype=np.uint8)
    image = Image.fromarray(pixels).resize((120, 90), Image.BICUBIC)
    image.save(root / "image.png")
    image.rotate(90, expand=True).save(root / "portrait.png")
    image.convert("L").save(root / "gray.png")
    image.convert("P").save(root / "palette.png")
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": "", "HF_MODULES_CACHE": str(root / "modules")}
    done = strangers.ran(WITHOUT_PACKAGE, str(root), env=env, cwd=root)
    assert done.returncode == 0, done.stderr
    out = {k: torch.from_numpy(v) for k, v in np.load(root / "out.npz").items()}
    with torch.no_grad():
        x = torch.from_numpy(np.load(root / "x.npy"))
        out |= {f"{name} here": (n.pooled(x) if name == "own_backbone" else n(x).logits) for name, n in own.items()}
    return root, model, backbone, out, json.loads((root / "out.json").read_text())


@torch.no_grad()
def test_classifier_without_the_package(folder):
    root, model, _, out, said = folder
    x = torch.from_numpy(np.load(root / "x.npy"))
    logits = model(x).logits
    assert torch.equal(out["auto"], logits) and torch.equal(out["timm"], logits)
    assert torch.equal(out["smp"], model.timm_model.forward_features(x))
    assert said["id2label"] == {str(i): n for i, n in enumerate(NAMES)}


@pytest.mark.parametrize("name", ["wrn_10_2", "cnn6_16", "own_backbone", "own_segmenter"])
def test_networks_that_timm_lacks_bring_their_code(folder, name):
    root, *_, out, _ = folder
    assert torch.equal(out[name], out[f"{name} here"])
    code = {"cifar.py", "plain.py", "wrapped.py", "standalone.py"}
    code = code - {"standalone.py"} | {"segmenter.py"} if name == "own_segmenter" else code
    assert code <= {p.name for p in (root / name).iterdir()}
    assert not list((root / "classifier").glob("*.py"))


@torch.no_grad()
def test_backbone_without_the_package(folder):
    root, _, backbone, out, _ = folder
    x = torch.from_numpy(np.load(root / "x.npy"))
    assert torch.equal(out["backbone"], backbone.pooled(x)) and torch.equal(out["timm_backbone"], backbone.pooled(x))
    last = backbone.feature_map(x)
    assert last.shape == (2, 512, 4, 4)  # output stride 16 travels with the folder
    assert torch.equal(out["auto_backbone"], last)
    assert torch.equal(out["smp_backbone"], create_backbone(str(root / "plain")).eval().feature_map(x))


@torch.no_grad()
def test_bfloat16_folder_loads_everywhere(folder):
    root, model, _, out, _ = folder
    x = torch.from_numpy(np.load(root / "x.npy"))
    ours = create_classifier(str(root / "bf16"), 4).eval()
    assert ours.dtype == torch.float32  # training starts in float32 whatever was saved
    half = create_classifier(str(root / "classifier"), 4).to(torch.bfloat16).eval()
    assert torch.equal(out["bf16"], half(x).logits.float())
    rounded = half.state_dict()
    assert all(torch.equal(v, rounded[k].float()) for k, v in ours.state_dict().items() if v.is_floating_point())
    assert (out["bf16"] - model(x).logits).abs().max() < 0.1


def preprocessed(image: Image.Image, size: int, crop_pct: float, mean, std) -> np.ndarray:
    """Evaluation in PIL and float64: short side to floor(size / crop_pct), centre crop, (x / 255 - mean) / std."""
    image = image.convert("RGB")
    short = int(size / crop_pct)
    w, h = image.size
    w, h = (short, int(short * h / w)) if w <= h else (int(short * w / h), short)
    resized = image.resize((w, h), Image.BILINEAR)
    left, top = round((w - size) / 2), round((h - size) / 2)
    pixels = np.asarray(resized.crop((left, top, left + size, top + size)), dtype=np.float64)
    return ((pixels / 255 - np.asarray(mean)) / np.asarray(std)).transpose(2, 0, 1)


@pytest.mark.parametrize("kind", ["portrait", "gray", "palette"])
def test_image_processor_is_the_evaluation_preprocessing(folder, kind):
    root, model, _, out, _ = folder
    expected = preprocessed(Image.open(root / f"{kind}.png"), 48, 0.9, (0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
    assert out[f"processed_{kind}"].shape == (1, 3, 48, 48)
    assert np.abs(out[f"processed_{kind}"][0].numpy() - expected).max() < 1e-5
    assert model.preprocessing["input_size"] == [3, 48, 48] and model.preprocessing["crop_pct"] == 0.9
    assert model.preprocessing["interpolation"] == "bilinear"
    assert tuple(model.preprocessing["mean"]) == (0.4, 0.5, 0.6)


@torch.no_grad()
def test_pipeline_names_the_classes(folder):
    root, model, _, _, said = folder
    x = preprocessed(Image.open(root / "image.png"), 48, 0.9, (0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
    p = model(torch.from_numpy(x[None]).float()).logits.softmax(1)[0]
    expected = sorted(zip(p.tolist(), NAMES), reverse=True)
    assert [r["label"] for r in said["pipeline"]] == [n for _, n in expected]
    assert all(abs(r["score"] - q) < 1e-5 for r, (q, _) in zip(said["pipeline"], expected))


def test_preprocessor_file_says_the_same_as_the_config(folder):
    root = folder[0] / "classifier"
    config = json.loads((root / "config.json").read_text())
    processor = json.loads((root / "preprocessor_config.json").read_text())
    assert processor["image_processor_type"] == "TimmWrapperImageProcessor"
    assert {k: processor["pretrained_cfg"][k] for k in config["pretrained_cfg"]} == config["pretrained_cfg"]
    assert str(folder[0]) not in json.dumps(config) + json.dumps(processor)  # no places of this machine travel
