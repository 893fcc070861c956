"""Accuracy on digits: supervised, FixMatch, and both after target pretraining, on the same splits, over seeds.

    python recipes/benchmarks/digits_accuracy.py                       # 40 and 10 labels, seeds 0-4
    python recipes/benchmarks/digits_accuracy.py --labels 40 --seeds 0 1 --output digits.json

Class-balanced labels, 20 % stratified test images, the weights at the end (nothing is chosen by the test set). All rows
share the network, the augmentation, the number of steps and the labels; scikit-learn's LabelSpreading and SVM read the
pixels.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from sklearn.semi_supervised import LabelSpreading
from sklearn.svm import SVC

from hf_lowlabel import finetune, load_source, make_split, pretrain
from hf_lowlabel.demo_stages import DIGITS_FINETUNE, DIGITS_PRETRAIN, DIGITS_PRIORS, DIGITS_SHARED, FROM_PRIORS
from hf_lowlabel.records import collect_hardware, collect_versions
from hf_lowlabel.selection.prior_labels import priors


def pixels_rows(split, source) -> dict[str, float]:
    """Test accuracy of two classical methods on the 64 pixel values."""
    at = split.resolve(source)
    x = np.stack([np.asarray(source.image(i)) for i in range(len(source))]).reshape(len(source), -1) / 255.0
    y = np.full(len(source), -1)
    y[at.labeled] = at.labels
    spreading = LabelSpreading(kernel="knn", n_neighbors=10).fit(x[at.train], y[at.train])
    svm = SVC(gamma="scale", C=10).fit(x[at.labeled], at.labels)
    truth = source.labels[at.test]
    return {
        "LabelSpreading on pixels": float((spreading.predict(x[at.test]) == truth).mean()),
        "SVM on pixels": float((svm.predict(x[at.test]) == truth).mean()),
    }


def rows(budgets: list[int], pretraining: str, seed: int, folder: Path) -> dict[int, dict[str, float]]:
    """Test accuracy by budget and row; pretraining sees no label, so all budgets share it."""
    source, out = load_source("digits"), {}
    pre = DIGITS_PRETRAIN[pretraining]
    common = dict(**DIGITS_SHARED, seed=seed, save_steps=10**6, eval_steps=10**6)
    unlabeled, backbone = folder / "unlabeled.json", str(folder / "backbone")
    replace(make_split(source, budgets[0], seed=seed, class_balanced=True, test_fraction=0.2), labeled={}).save(
        unlabeled
    )
    begin = time.perf_counter()
    pretrain(**common, **pre, from_scratch=True, split=str(unlabeled), output_dir=backbone)
    print(f"seed {seed}: {pretraining} in {time.perf_counter() - begin:.0f} s", flush=True)
    for labels in budgets:
        split = make_split(source, labels, seed=seed, class_balanced=True, test_fraction=0.2)
        manifest = folder / f"split-{labels}.json"
        split.save(manifest)
        out[labels] = pixels_rows(split, source)

        def train(name: str, start: bool = False, *, labels=labels, manifest=manifest, **more) -> None:
            begin = time.perf_counter()
            weights = {"model": backbone} if start else {"from_scratch": True}
            run = finetune(
                **{**common, **DIGITS_FINETUNE, **weights, **more},
                split=str(manifest),
                metric_for_best_model="last",
                output_dir=str(folder / f"{name} {labels}"),
            )
            out[labels][name] = run.metrics["accuracy"]
            print(
                f"{labels} labels, seed {seed}: {name} {out[labels][name]:.2%} in {time.perf_counter() - begin:.0f} s",
                flush=True,
            )

        train("supervised", method="supervised")
        train("FixMatch", method="fixmatch")
        train(f"{pretraining} + supervised", start=True, method="supervised")
        train(f"{pretraining} + FixMatch", start=True, method="fixmatch")
        prior = str(folder / f"priors-{labels}.safetensors")
        worth = priors(backbone, "digits", split=str(manifest), output=prior, seed=seed, **DIGITS_PRIORS)
        out[labels][f"{pretraining}, priors alone (training images)"] = worth["accuracy"]
        train(f"{pretraining} + priors + FlexMatch", start=True, prior=prior, **FROM_PRIORS)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=int, nargs="+", default=[40, 10])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--pretraining", default="simclr", choices=DIGITS_PRETRAIN)
    parser.add_argument("--output", help="JSON file for the results")
    args = parser.parse_args()
    result = {"hardware": collect_hardware(), "versions": collect_versions(), "accuracy": {}}
    for seed in args.seeds:
        with tempfile.TemporaryDirectory() as folder:
            for labels, found in rows(args.labels, args.pretraining, seed, Path(folder)).items():
                for name, value in found.items():
                    result["accuracy"].setdefault(labels, {}).setdefault(name, []).append(value)
        if args.output:
            Path(args.output).write_text(json.dumps(result, indent=1) + "\n")
    for labels, table in result["accuracy"].items():
        print(f"\n| {labels} labels | mean | std | seeds {' '.join(map(str, args.seeds))} |\n|---|---:|---:|---|")
        for name, values in table.items():
            spread = statistics.stdev(values) if len(values) > 1 else float("nan")
            print(f"| {name} | {statistics.mean(values):.2%} | {spread:.2%} | {' '.join(f'{v:.1%}' for v in values)} |")
    print(json.dumps({k: result[k] for k in ("hardware", "versions")}))


if __name__ == "__main__":
    main()
