"""The whole chain on scikit-learn's digits: 1,797 real scans, offline, a few of them labeled.

split -> supervised baseline -> target pretraining -> prior pseudo-labels -> FlexMatch from both -> one test set for all
"""

from __future__ import annotations

import logging
import time
from pathlib import Path

from ..data.dataset import load_source
from ..data.splits import make_split
from ..errors import UserError, unknown
from .checkpoint import write_json
from .runs import Run, finetune, pretrain

log = logging.getLogger("hf_lowlabel")
SHARED = dict(dataset="digits", model="cnn6_32", image_size=16, stored_size=16, color=False, logging_steps=100)
_PRETRAIN = dict(batch_size=256, optimizer="sgd", weight_decay=1e-4, warmup_ratio=0.1, randaugment=True)
PRETRAIN = {  # contrast learns most in two minutes; BYOL needs more steps and smaller crops
    "simclr": dict(_PRETRAIN, method="simclr", max_steps=1500, learning_rate=0.2, min_scale=0.5),
    "byol": dict(
        _PRETRAIN,
        method="byol",
        max_steps=1500,
        learning_rate=1.5,
        min_scale=0.2,
        method_args=dict(hidden=256, out=64, m0=0.95),
    ),
}
PRIORS = dict(propagation="label-spreading", neighbors=7, balanced=True, hard=True, finetune=False)
FINETUNE = dict(max_steps=600, batch_size=16, unlabeled_ratio=5, learning_rate=0.03)
FROM_PRIORS = dict(
    method="flexmatch", prior_until=0.6
)  # its thresholds start low: priors count before the network is sure


def settings(pretraining: str = "simclr") -> tuple[dict, dict, dict]:
    """What every stage shares, those of target pretraining, and those of finetuning."""
    if pretraining not in PRETRAIN:
        raise unknown("pretraining of the demo", pretraining, PRETRAIN)
    return dict(SHARED), dict(PRETRAIN[pretraining]), dict(FINETUNE)


def check_empty(output_dir: str) -> Path:
    folder = Path(output_dir)
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"output_dir {output_dir} is not empty; give another --output-dir, so that nothing is lost")
    return folder


def demo(
    output_dir: str = "demo-digits", num_labels: int = 40, seed: int = 0, pretraining: str = "simclr"
) -> dict[str, Run]:
    """Run the chain in `output_dir`; returns the runs by name. The finished model lies in output_dir/model."""
    from ..selection.verbs import priors

    folder = check_empty(output_dir)
    begin = time.perf_counter()
    shared, pre, fine = settings(pretraining)
    split = make_split(load_source("digits"), num_labels, seed=seed, class_balanced=True, test_fraction=0.2)
    split.save(folder / "split.json")
    common = dict(shared, seed=seed, split=str(folder / "split.json"))
    backbone, prior = str(folder / "pretrained"), str(folder / "priors.safetensors")
    print(f"{len(split.labeled)} labeled, {len(split.test)} test images\n1/4 supervised baseline on the labels alone")
    supervised = finetune(
        **common, **fine, from_scratch=True, method="supervised", output_dir=str(folder / "supervised")
    )
    print(f"2/4 target pretraining without labels ({pre['method']})")
    pretrained = pretrain(**common, **pre, from_scratch=True, output_dir=backbone)
    print("3/4 prior pseudo-labels: the few labels spread over the features of all images")
    worth = priors(backbone, "digits", split=common["split"], output=prior, seed=seed, **PRIORS)
    print(
        f"{worth['accuracy']:.1%} of {worth['images'] - worth['labeled']} pseudo-labels are right\n"
        "4/4 FlexMatch (FixMatch with a threshold per class), from the pretrained weights and the priors"
    )
    model = finetune(
        **dict(common, model=backbone),
        **fine,
        **FROM_PRIORS,
        prior=prior,
        output_dir=str(folder / "model"),
        compare_supervised=str(folder / "supervised"),
    )
    runs = {"supervised": supervised, "pretrained": pretrained, "model": model}
    name, seconds = f"{pre['method']} + priors + flexmatch", time.perf_counter() - begin
    results = {
        "supervised": supervised.metrics["accuracy"],
        "priors": worth["accuracy"],
        name: model.metrics["accuracy"],
        "seconds": round(seconds, 1),
    }
    write_json(folder / "results.json", results)
    print(
        f"\ntest accuracy with {num_labels} labels: supervised {results['supervised']:.1%}, {name} {results[name]:.1%}   ({seconds:.0f} s)"
    )
    print(f"model, card and pictures: {folder / 'model'}")
    return runs
