"""Accuracy on digits: supervised, FixMatch and BYOL + FixMatch on the same splits, mean and standard deviation over seeds.

    python recipes/benchmarks/digits_accuracy.py                       # 40 and 10 labels, seeds 0-4
    python recipes/benchmarks/digits_accuracy.py --labels 40 --seeds 0 1 --output digits.json

Class-balanced labels, 20 % stratified test images, the weights at the end (nothing is chosen by the test set). All rows share
the network, the augmentation, the number of steps and the labels; scikit-learn's LabelSpreading and SVM read the pixels.
"""
from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from sklearn.semi_supervised import LabelSpreading
from sklearn.svm import SVC

from hf_lowlabel import finetune, load_source, make_split, pretrain
from hf_lowlabel.hub.facts import collect_hardware, collect_versions
from hf_lowlabel.training.demo import settings


def pixels_rows(split, source) -> dict[str, float]:
    """Test accuracy of two classical methods on the 64 pixel values."""
    at = split.resolve(source)
    x = np.stack([np.asarray(source.image(i)) for i in range(len(source))]).reshape(len(source), -1) / 255.0
    y = np.full(len(source), -1)
    y[at.labeled] = at.labels
    spreading = LabelSpreading(kernel="knn", n_neighbors=10).fit(x[at.train], y[at.train])
    svm = SVC(gamma="scale", C=10).fit(x[at.labeled], at.labels)
    truth = source.labels[at.test]
    return {"LabelSpreading on pixels": float((spreading.predict(x[at.test]) == truth).mean()),
            "SVM on pixels": float((svm.predict(x[at.test]) == truth).mean())}


def rows(labels: int, seed: int, folder: Path) -> dict[str, float]:
    source = load_source("digits")
    split = make_split(source, labels, seed=seed, class_balanced=True, test_fraction=0.2)
    split.save(folder / "split.json")
    out = pixels_rows(split, source)
    shared, pre, fine = settings(labels)
    common = dict(**shared, seed=seed, split=str(folder / "split.json"), save_every=10**6, eval_every=10**6)
    scratch = dict(common, from_scratch=True)
    pretrain(**scratch, **pre, output_dir=str(folder / "byol"))
    after = dict(common, model=str(folder / "byol"))
    for name, start, method in (("supervised", scratch, "supervised"), ("FixMatch", scratch, "fixmatch"),
                                ("BYOL + supervised", after, "supervised"), ("BYOL + FixMatch", after, "fixmatch")):
        begin = time.perf_counter()
        out[name] = finetune(**start, **fine, method=method, output_dir=str(folder / name)).metrics["accuracy"]
        print(f"{labels} labels, seed {seed}: {name} {out[name]:.2%} in {time.perf_counter() - begin:.0f} s", flush=True)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=int, nargs="+", default=[40, 10])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--output", help="JSON file for the results")
    args = parser.parse_args()
    result = {"hardware": collect_hardware(), "versions": collect_versions(), "accuracy": {}}
    for labels in args.labels:
        table: dict[str, list[float]] = {}
        for seed in args.seeds:
            with tempfile.TemporaryDirectory() as folder:
                for name, value in rows(labels, seed, Path(folder)).items():
                    table.setdefault(name, []).append(value)
        result["accuracy"][labels] = table
        print(f"\n| {labels} labels | mean | std | seeds {' '.join(map(str, args.seeds))} |\n|---|---:|---:|---|")
        for name, values in table.items():
            spread = statistics.stdev(values) if len(values) > 1 else float("nan")
            print(f"| {name} | {statistics.mean(values):.2%} | {spread:.2%} | {' '.join(f'{v:.1%}' for v in values)} |")
    print(json.dumps({k: result[k] for k in ("hardware", "versions")}))
    if args.output:
        Path(args.output).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
