"""Tables 6, 8 and 9 of AS3L (Wen et al. 2024) on your features: which images to label, how labels spread, which K.

    python recipes/benchmarks/as3l_tables.py --dataset uoft-cs/cifar10 --model resnet18 --image-size 128

Features of --images training images, drawn once, are computed once and kept in OUTPUT.safetensors; a cell (labels,
seed) that is in OUTPUT.json is not repeated: stop it and start it again. A seed decides k-means and the draws. The
labels are spread over f_fine for every choice; the true labels of the data set count what is right.
Writes OUTPUT.json and OUTPUT.md. The paper's figures stand beside ours: CIFAR-10, 50,000 images, features of SimSiam on
WRN-28-2 trained on CIFAR-10 itself. Other features have other figures; what compares is the rows of one column.
Cost: minutes on one CPU core, features and figures each.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import numpy as np

from hf_lowlabel import UserError, load_source
from hf_lowlabel.data.permutation import epoch_permutation
from hf_lowlabel.evaluation.neighbors import unit
from hf_lowlabel.files import write_text
from hf_lowlabel.records import collect_hardware, collect_versions
from hf_lowlabel.selection.as3l import finetune_features, multi_cluster
from hf_lowlabel.selection.clustering import backend
from hf_lowlabel.selection.features import extract
from hf_lowlabel.selection.priors import cluster_priors, graph_priors, report
from hf_lowlabel.selection.strategies import coreset, k_medoids, random, usl

SETTINGS = ("dataset", "split", "model", "image_size", "images")  # all cells of a file share them
AS3L = "multi-cluster on f_fine"
PAPER: dict[str, dict[str, dict[int, tuple[float, float]]]] = {  # table -> row -> labels -> mean, standard deviation
    "table 6, priors right (%)": {
        "k-medoids on f_self": {10: (44.90, 1.88), 40: (69.62, 0.83)},
        "multi-cluster on f_self": {10: (61.94, 5.42), 40: (72.54, 1.42)},
        "k-medoids on f_fine": {10: (64.70, 6.27), 40: (72.72, 2.77)},
        AS3L: {10: (71.41, 4.10), 40: (74.91, 1.66)},
    },
    "table 6, classes covered": {
        "k-medoids on f_self": {10: (7.2, 1.4), 40: (10.0, 0.0)},
        "multi-cluster on f_self": {10: (9.0, 0.7), 40: (10.0, 0.0)},
        "k-medoids on f_fine": {10: (9.2, 0.8), 40: (10.0, 0.0)},
        AS3L: {10: (9.5, 0.5), 40: (10.0, 0.0)},
    },
    "table 8, priors right (%)": {
        "label_spreading, random": {10: (53.42, 5.36), 20: (59.91, 2.58), 40: (69.59, 2.35)},
        "label_spreading, coreset": {10: (31.57, 6.31), 20: (56.06, 3.35), 40: (74.47, 5.17)},
        "label_spreading, k-medoids": {10: (45.53, 2.96), 20: (62.28, 5.39), 40: (71.51, 1.36)},
        "label_spreading, usl": {10: (53.90, 0.56), 20: (63.47, 3.19), 40: (70.82, 1.76)},
        "label_spreading, as3l": {10: (62.94, 3.47), 20: (71.61, 1.64), 40: (75.50, 1.40)},
        "clusters, random": {10: (52.12, 9.10), 20: (60.32, 4.67), 40: (69.40, 2.49)},
        "clusters, coreset": {10: (37.43, 3.24), 20: (59.56, 3.30), 40: (73.82, 3.01)},
        "clusters, k-medoids": {10: (44.90, 1.88), 20: (62.12, 6.97), 40: (69.62, 0.83)},
        "clusters, usl": {10: (54.20, 0.43), 20: (57.62, 5.10), 40: (67.61, 1.86)},
        "clusters, as3l": {10: (71.41, 4.10), 20: (72.63, 0.96), 40: (74.91, 1.66)},
    },
    "table 9, calibration error (%)": {
        "6 x K": {10: (27.8, 3.9), 20: (16.6, 3.8), 40: (11.2, 2.1)},
        "K, 2 K ... 6 K": {10: (23.7, 4.1), 20: (8.7, 1.4), 40: (6.7, 1.3)},
        "K, 5 x 6 K": {10: (23.3, 4.0), 20: (13.3, 3.7), 40: (8.2, 1.1)},
    },
    "table 9, priors right (%)": {
        "6 x K": {10: (70.50, 4.13), 20: (70.66, 4.05), 40: (70.81, 2.13)},
        "K, 2 K ... 6 K": {10: (71.41, 4.10), 20: (72.63, 0.96), 40: (74.91, 1.66)},
        "K, 5 x 6 K": {10: (70.53, 4.09), 20: (70.46, 2.82), 40: (73.67, 1.67)},
    },
}


def cell(x: np.ndarray, y: np.ndarray, classes: int, budget: int, seed: int) -> dict[str, dict[str, float]]:
    """{table: {row: figure}} of one budget and seed. x: f_self [N, D] of unit length; y: true classes [N]."""
    fine = finetune_features(x, budget, seed=seed)
    near = unit(fine)
    chosen = {
        "k-medoids on f_self": k_medoids(x, budget, seed),
        "k-medoids on f_fine": k_medoids(fine, budget, seed),
        "multi-cluster on f_self": multi_cluster(x, budget, seed=seed),
        AS3L: multi_cluster(fine, budget, seed=seed),
    }
    rivals = {
        "random": random(x, budget, seed),
        "coreset": coreset(x, budget, seed),
        "usl": usl(x, budget, seed),
        "k-medoids": chosen["k-medoids on f_self"],
        "as3l": chosen[AS3L],
    }

    def clusters(at: np.ndarray, counts: list[int] | None = None) -> dict:
        return report(cluster_priors(fine, at, y[at], classes, counts=counts, seed=seed), y, at)

    worth = {name: clusters(at) for name, at in chosen.items()}
    series = {"6 x K": 6 * [classes], "K, 5 x 6 K": [classes, *5 * [6 * classes]]}
    by_k = {**{name: clusters(chosen[AS3L], counts) for name, counts in series.items()}, "K, 2 K ... 6 K": worth[AS3L]}
    spread = {
        f"label_spreading, {name}": report(graph_priors(near, at, y[at], classes), y, at) for name, at in rivals.items()
    }
    spread |= {f"clusters, {name}": clusters(at) for name, at in rivals.items()}
    return {
        "table 6, priors right (%)": {k: 100 * v["accuracy"] for k, v in worth.items()},
        "table 6, classes covered": {k: len(np.unique(y[at])) for k, at in chosen.items()},
        "table 8, priors right (%)": {k: 100 * v["accuracy"] for k, v in spread.items()},
        "table 9, calibration error (%)": {k: 100 * v["ece"] for k, v in by_k.items()},
        "table 9, priors right (%)": {k: 100 * v["accuracy"] for k, v in by_k.items()},
    }


def table(name: str, cells: dict[str, dict], labels: list[int]) -> str:
    """Mean ± standard deviation over seeds, the paper's beside it."""
    lines = [f"| {name} |" + "".join(f" {n} labels | paper |" for n in labels), "|---|" + 2 * len(labels) * "---:|"]
    for row, paper in PAPER[name].items():
        line = f"| {row} |"
        for n in labels:
            values = [c[name][row] for key, c in cells.items() if key.split("/")[0] == str(n)]
            spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
            theirs = "{:.1f} ± {:.1f}".format(*paper[n]) if n in paper else "-"
            line += f" {statistics.mean(values):.1f}{spread} | {theirs} |"
        lines.append(line)
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="uoft-cs/cifar10", help="Hub id or a local copy, with labels")
    parser.add_argument("--split", default="train")
    parser.add_argument("--model", default="resnet18", help="timm name, local folder or Hub id")
    parser.add_argument("--image-size", type=int, default=128, help="px that the network sees")
    parser.add_argument("--images", type=int, default=10_000, help="drawn at random, the same for every seed")
    parser.add_argument("--labels", type=int, nargs="+", default=[10, 20, 40], help="budgets")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--output", default="as3l-tables", help="files OUTPUT.safetensors, .json and .md")
    args = parser.parse_args()
    path = Path(args.output + ".json")
    mine = {name: getattr(args, name) for name in SETTINGS}
    kept = json.loads(path.read_text()) if path.is_file() else {"settings": mine, "cells": {}}
    if kept["settings"] != mine:
        raise UserError(f"found figures of other settings in {path}: {kept['settings']}; fix: another --output")
    source = load_source(args.dataset, split=args.split)
    known = np.flatnonzero(source.labels >= 0)
    if len(known) < args.images or args.images <= 6 * len(source.class_names) + max(args.labels):
        raise UserError(
            f"found {len(known)} images with a label; expected at least --images {args.images}, and that "
            f"above six times the {len(source.class_names)} classes; fix: --images"
        )
    members = np.sort(known[epoch_permutation(0, "images", 0, args.images, len(known))])
    begin = time.perf_counter()
    found = extract(args.model, source, members, path=args.output + ".safetensors", image_size=args.image_size)
    if not found.reused:
        kept["feature_seconds"] = round(time.perf_counter() - begin, 1)
    x, y = unit(found.values), source.labels[found.indices]
    kept |= {"hardware": collect_hardware(), "versions": collect_versions(), "k-means": backend(), "width": x.shape[1]}
    for seed in args.seeds:
        for budget in args.labels:
            if (key := f"{budget}/{seed}") not in kept["cells"]:
                begin = time.perf_counter()
                kept["cells"][key] = cell(x, y, len(source.class_names), budget, seed)
                kept["cells"][key]["seconds"] = round(time.perf_counter() - begin, 1)
                write_text(path, json.dumps(kept, indent=1) + "\n")
                print(key, kept["cells"][key]["seconds"], "s", flush=True)
    counted = sorted({int(key.split("/")[0]) for key in kept["cells"]})
    seeds = len({key.split("/")[1] for key in kept["cells"]})
    said = (
        f"{args.images:,} images of {Path(args.dataset).name}, features of {Path(args.model).name} at "
        f"{args.image_size} px; mean ± standard deviation over {seeds} seeds.\n\n"
    )
    said += "\n\n".join(table(name, kept["cells"], counted) for name in PAPER) + "\n\n"
    facts = {**kept["hardware"], **kept["versions"], "k-means": kept["k-means"]}
    said += ", ".join(f"{k} {v}" for k, v in facts.items()) + "\n"
    write_text(path.with_suffix(".md"), said)
    print(said)


if __name__ == "__main__":
    main()
