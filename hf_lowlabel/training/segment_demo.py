"""The whole chain on the embedded shapes: 800 generated images of 64 px, a few of them with masks.

split -> supervised baseline -> target pretraining (PixPro) -> CutMix from those weights -> one test set for all
"""

from __future__ import annotations

import time
from pathlib import Path

from ..data.mask_splits import make_mask_split
from ..data.segmentation import load_segmentation
from .checkpoint import write_json
from .demo import check_empty
from .runs import Run, finetune, pretrain

SHARED = dict(
    task="segmentation",
    dataset="shapes",
    model="cnn6_16",
    channels_last=True,
    optimizer="adamw",
    weight_decay=1e-2,
    logging_steps=100,
)
PRETRAIN = dict(
    method="pixpro",
    image_size=48,
    stored_size=64,
    max_steps=500,
    batch_size=32,
    learning_rate=0.02,
    warmup_ratio=0.1,
    min_scale=0.4,
    method_args=dict(hidden=256, out=64, m0=0.97),
)  # SGD collapses these small maps within 100 steps
FINETUNE = dict(
    architecture="unet",
    architecture_args=dict(encoder_depth=3, decoder_channels=[32, 16, 16]),
    image_size=48,
    scale=[0.8, 1.25],
    max_steps=1200,
    batch_size=8,
    learning_rate=3e-3,
    head_lr=1.0,
    lr_scheduler_type="cosine",
    eval_steps=400,
)
METHODS = {
    "supervised": dict(
        method="supervised", method_args=dict(ema_decay=0.99, strong=False)
    ),  # the views that CutMix has
    "supervised, strong views": dict(method="supervised", method_args=dict(ema_decay=0.99)),
    "cutmix": dict(method="cutmix", method_args=dict(tau=0.9)),
}


def rows(folder: Path, num_labels: int, seed: int, wanted: dict[str, tuple[bool, str]]) -> dict[str, Run]:
    """Runs by name on one split; `wanted`: name -> (after target pretraining, method)."""
    split = make_mask_split(load_segmentation("shapes"), num_labels, seed=seed)
    split.save(folder / "split.json")
    common = dict(SHARED, seed=seed, split=str(folder / "split.json"))
    runs: dict[str, Run] = {}
    for name, (pretrained, method) in wanted.items():
        start = dict(from_scratch=True)
        if pretrained:
            if "pretrained" not in runs:
                print("target pretraining without masks (PixPro)", flush=True)
                runs["pretrained"] = pretrain(**common, **start, **PRETRAIN, output_dir=str(folder / "pretrained"))
            start = dict(model=str(folder / "pretrained"))
        compare = dict(compare_supervised=str(folder / "supervised")) if runs.get("supervised") else {}
        print(name, flush=True)
        runs[name] = finetune(
            **{**common, **start, **FINETUNE, **METHODS[method]}, **compare, output_dir=str(folder / name)
        )
    return runs


def segment_demo(output_dir: str = "demo-shapes", num_labels: int = 20, seed: int = 0) -> dict[str, Run]:
    """Run the chain in `output_dir`; returns the runs by name. The finished model lies in output_dir/model."""
    folder = check_empty(output_dir)
    begin = time.perf_counter()
    runs = rows(
        folder,
        num_labels,
        seed,
        {"supervised": (False, "supervised"), "cutmix": (False, "cutmix"), "model": (True, "cutmix")},
    )
    seconds = time.perf_counter() - begin
    shown = {
        "supervised, no pretraining": "supervised",
        "CutMix, no pretraining": "cutmix",
        "PixPro, then CutMix": "model",
    }
    print(f"\n{num_labels} images with masks among 800, 200 test images   mean IoU  pixel accuracy")
    for words, name in shown.items():
        print(f"{words:55} {runs[name].metrics['miou']:8.1%} {runs[name].metrics['pixel_accuracy']:15.1%}")
    print(f"({seconds:.0f} s; model, card and overlays: {folder / 'model'})")
    results = {words: runs[name].metrics["miou"] for words, name in shown.items()}
    write_json(folder / "results.json", {**results, "seconds": round(seconds, 1)})
    return runs
