"""The whole chain on scikit-learn's digits: 1,797 real scans, offline, a few of them labeled.

    split -> supervised baseline -> target pretraining (BYOL) -> FixMatch from those weights -> one test set for all
"""
from __future__ import annotations

import logging
import time
from pathlib import Path

from ..data.sources import load_source
from ..data.splits import make_split
from ..errors import UserError
from .checkpoint import write_json
from .runs import Run, finetune, pretrain

log = logging.getLogger("hf_lowlabel")
SHARED = dict(dataset="digits", model="cnn6_32", image_size=16, pool_size=16, color=False, log_every=100)
PRETRAIN = dict(method="byol", max_steps=600, batch_size=128, optimizer="sgd", lr=0.2, weight_decay=1e-4, warmup=0.1, min_scale=0.5,
                randaugment=True, method_args=dict(hidden=256, out=64, m0=0.97))
FINETUNE = dict(max_steps=1500, batch_size=16, unlabeled_ratio=5, lr=0.03)


def settings(num_labels: int) -> tuple[dict, dict, dict]:
    """What every stage shares, target pretraining and finetuning for a budget of labels."""
    few = dict(batch_size=10, unlabeled_ratio=8) if num_labels < 16 else {}
    return dict(SHARED), dict(PRETRAIN), {**FINETUNE, **few}


def demo(output_dir: str = "demo-digits", num_labels: int = 40, seed: int = 0) -> dict[str, Run]:
    """Run the chain in `output_dir`; returns the runs by name. The finished model lies in output_dir/model."""
    folder = Path(output_dir)
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"output_dir {output_dir} is not empty; give another --output-dir, so that nothing is lost")
    begin = time.perf_counter()
    split = make_split(load_source("digits"), num_labels, seed=seed, class_balanced=True, test_fraction=0.2)
    split.save(folder / "split.json")
    shared, pre, fine = settings(num_labels)
    common = dict(shared, seed=seed, split=str(folder / "split.json"))
    scratch = dict(common, from_scratch=True)
    print(f"{len(split.labeled)} labeled, {len(split.test)} test images\n1/3 supervised baseline on the labels alone")
    supervised = finetune(**scratch, **fine, method="supervised", output_dir=str(folder / "supervised"))
    print("2/3 target pretraining without labels (BYOL)")
    pretrained = pretrain(**scratch, **pre, output_dir=str(folder / "pretrained"))
    print("3/3 FixMatch on labeled and unlabeled images, from the pretrained weights")
    after = dict(common, model=str(folder / "pretrained"))
    model = finetune(**after, **fine, method="fixmatch", output_dir=str(folder / "model"), compare_supervised=str(folder / "supervised"))
    runs = {"supervised": supervised, "pretrained": pretrained, "model": model}
    seconds = time.perf_counter() - begin
    results = {"supervised": supervised.metrics["accuracy"], "byol + fixmatch": model.metrics["accuracy"], "seconds": round(seconds, 1)}
    write_json(folder / "results.json", results)
    print(f"\ntest accuracy with {num_labels} labels: supervised {results['supervised']:.1%}, "
          f"BYOL + FixMatch {results['byol + fixmatch']:.1%}   ({seconds:.0f} s)")
    print(f"model, card and pictures: {folder / 'model'}")
    return runs
