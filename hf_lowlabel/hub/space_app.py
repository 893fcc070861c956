"""A page to try a model on: upload, camera or examples; classes with confidence and the nearest labeled images, or an
overlay with a legend. Reads the folder it lies in and needs gradio, torch, transformers and timm (smp for
segmentation), not hf_lowlabel: as `app.py` it is a Hugging Face Space.

    model/            a saved model
    space.json        answer ("classes" that exclude each other, "labels" that do not, "mask"), title, text, class
                      names, colours
    labeled/          the labeled images, index.json with their classes, features.safetensors [n, D] of unit length
    examples/         images to start with
"""

from __future__ import annotations

import json
import os
from pathlib import Path

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

import gradio as gr
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from safetensors.numpy import load_file
from transformers import AutoImageProcessor, AutoModelForImageClassification, AutoModelForSemanticSegmentation

NEAREST = 6  # labeled images shown
TOP = 5  # classes shown
CSS = """
.legend { display: flex; flex-wrap: wrap; gap: 4px 16px; font-size: 14px }
.legend i { display: inline-block; width: 14px; height: 14px; border-radius: 3px; margin-right: 6px }
.legend i { vertical-align: -2px; border: 1px solid #8888 }
.shown img { width: 100%; height: 100%; object-fit: contain }
.caption-label { white-space: normal !important; overflow-wrap: anywhere; text-align: right }
@media (max-width: 500px) { .grid-container { grid-template-columns: repeat(2, 1fr) !important } }
footer { display: none !important }
"""


def upright(image: Image.Image, value_range=None) -> Image.Image:
    """RGB as in training: more than 8 bits from `value_range` (black, white), else whole numbers from 0 to 65535."""
    image = ImageOps.exif_transpose(image)
    if image.mode in ("F", "I") or image.mode.startswith("I;16"):
        values = np.asarray(image).astype(np.float64)
        if value_range is None and image.mode == "F":
            raise gr.Error("floating-point pixels (mode F), whose range is not known; give --value-range LOW HIGH")
        if value_range is None and not 0 <= values.min() <= values.max() <= 65535:
            said = f"{int(values.min())}..{int(values.max())}"
            raise gr.Error(f"mode {image.mode} with values {said}, outside 0..65535; give --value-range")
        low, high = value_range or (0, 65535)
        values = (values - low) * (255 / (high - low))
        image = Image.fromarray(np.nan_to_num(values + 0.5).clip(0, 255).astype(np.uint8))
    return image.convert("RGB")


class Classifier:
    """probabilities(image) and the labeled images nearest to it, by the cosine of the last layer's inputs."""

    def __init__(self, folder: Path, exclusive: bool = True):
        self.exclusive = exclusive  # whether its classes exclude each other
        self.processor = AutoImageProcessor.from_pretrained(folder / "model")
        self.model = AutoModelForImageClassification.from_pretrained(folder / "model").float().eval()
        self.names = [self.model.config.id2label[i] for i in range(self.model.config.num_labels)]
        index = folder / "labeled" / "index.json"
        self.labeled = json.loads(index.read_text(encoding="utf-8")) if index.is_file() else []
        self.features = load_file(folder / "labeled" / "features.safetensors")["features"] if self.labeled else None
        self.folder = folder

    def seen(self, image: Image.Image) -> Image.Image:
        return upright(image, getattr(self.model.config, "value_range", None))

    @torch.inference_mode()
    def __call__(self, image: Image.Image | None):
        if image is None:
            return None, []
        net, x = self.model.timm_model, self.processor(self.seen(image), return_tensors="pt")["pixel_values"]
        features = net.forward_features(x)
        logits = net.forward_head(features).float()
        p = (logits.softmax(1) if self.exclusive else logits.sigmoid())[0].tolist()
        if self.features is None:
            return dict(zip(self.names, p, strict=True)), []
        f = net.forward_head(features, pre_logits=True).float()[0].numpy()
        similar = self.features @ (f / max(float(np.linalg.norm(f)), 1e-12))
        best = np.argsort(-similar, kind="stable")[:NEAREST]
        shown = [
            (str(self.folder / "labeled" / self.labeled[i]["file"]), f"{self.labeled[i]['label']} ({similar[i]:.2f})")
            for i in best
        ]
        return dict(zip(self.names, p, strict=True)), shown


class Segmenter:
    """The class of every pixel, as colours laid over the image, and a legend with the share of each class."""

    def __init__(self, folder: Path, names: list[str], colors: list[list[int]]):
        self.processor = AutoImageProcessor.from_pretrained(folder / "model")
        # the code that travels with the model, which this folder was made with
        model = AutoModelForSemanticSegmentation.from_pretrained(folder / "model", trust_remote_code=True)
        self.model = model.float().eval()
        self.names, self.colors = names, np.array(colors, np.uint8)

    @torch.inference_mode()
    def segment(self, image: Image.Image | None) -> tuple[np.ndarray, np.ndarray] | None:
        if image is None:
            return None
        image = upright(image, getattr(self.model.config, "value_range", None))
        x = self.processor(image, do_resize=False, return_tensors="pt")["pixel_values"]
        if self.model.config.image_size:  # px of the longer side; the processor would round to whole colours
            scale = self.model.config.image_size / max(image.size)
            x = F.interpolate(
                x, size=[max(int(side * scale), 1) for side in image.size[::-1]], mode="bilinear", antialias=True
            )
        p = self.model(x).logits.softmax(1)
        mask = F.interpolate(p, size=image.size[::-1], mode="bilinear").argmax(1)[0]
        return np.asarray(image), mask.numpy().astype(np.uint8)

    def draw(self, found: tuple[np.ndarray, np.ndarray] | None, opacity: float):
        if found is None:
            return None, ""
        image, mask = found
        colors = self.colors[mask]
        covered = (colors != 0).any(2, keepdims=True)  # a black background stays as it is
        mixed = np.where(covered, (1 - opacity) * image + opacity * colors, image).round().astype(np.uint8)
        share = np.bincount(mask.ravel(), minlength=len(self.names)) / mask.size
        order = [k for k in np.argsort(-share, kind="stable") if share[k] > 0]
        items = "".join(
            f'<span><i style="background:rgb({",".join(map(str, self.colors[k]))})"></i>{_text(self.names[k])} '
            f"{100 * share[k]:.1f} %</span>"
            for k in order
        )
        return mixed, f"<div class=legend>{items}</div>"


def _text(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")


def build(folder: Path) -> tuple[gr.Blocks, dict]:
    """(page, what its `launch` takes)."""
    said = json.loads((folder / "space.json").read_text(encoding="utf-8"))
    if (folder / "lowlabel_architectures").is_dir():
        import importlib
        import sys

        sys.path.insert(0, str(folder))
        importlib.import_module("lowlabel_architectures")  # registers the model's architecture with timm
    examples = sorted(str(p) for p in (folder / "examples").glob("*") if p.suffix in (".png", ".jpg"))
    make = segmentation_page if said["answer"] == "mask" else classification_page
    with gr.Blocks(title=said["title"], analytics_enabled=False) as page:
        gr.Markdown(f"# {said['title']}\n\n{said['text']}")
        make(folder, said, examples)
    theme = gr.themes.Default(
        font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
    )  # none is fetched
    return page, dict(theme=theme, css=CSS, allowed_paths=[str(folder / "labeled"), str(folder / "examples")])


def asked_image() -> gr.Image:
    """The picture that is asked about, as it is: RGB would cut off what has more than 8 bits."""
    sources = ["upload", "webcam", "clipboard"]
    return gr.Image(type="pil", image_mode=None, sources=sources, label="Image", height=320, elem_classes="shown")


def classification_page(folder: Path, said: dict, examples: list[str]) -> None:
    model = Classifier(folder, said["answer"] == "classes")
    with gr.Row():
        with gr.Column(min_width=280):
            image = asked_image()
        with gr.Column(min_width=280):
            answer = gr.Label(num_top_classes=min(TOP, len(model.names)), label="Class and confidence")
            gr.Markdown("Nearest labeled images (class, similarity)", visible=model.features is not None)
            nearest = gr.Gallery(
                label="Nearest labeled images",
                show_label=False,
                columns=3,
                height="auto",
                object_fit="contain",
                visible=model.features is not None,
            )
    if examples:
        gr.Examples(examples, image, label="Examples")
    image.change(model, image, [answer, nearest], show_progress="minimal")


def segmentation_page(folder: Path, said: dict, examples: list[str]) -> None:
    model = Segmenter(folder, said["class_names"], said["colors"])
    found = gr.State()
    with gr.Row():
        with gr.Column(min_width=280):
            image = asked_image()
            opacity = gr.Slider(0, 1, 0.6, step=0.05, label="Opacity of the colours")
        with gr.Column(min_width=280):
            picture = gr.Image(label="Classes", interactive=False, height=320, elem_classes="shown")
            legend = gr.HTML()
    if examples:
        gr.Examples(examples, image, label="Examples")
    image.change(model.segment, image, found, show_progress="minimal").then(
        model.draw, [found, opacity], [picture, legend]
    )
    opacity.change(model.draw, [found, opacity], [picture, legend], show_progress="hidden")


if __name__ == "__main__":
    made, launch = build(Path(__file__).resolve().parent)
    made.launch(**launch)
