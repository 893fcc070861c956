"""Cost of selection and priors at the size of CIFAR-100: N = 50,000 images, D = 512, C = 6 runs, K up to 600.

    python recipes/benchmarks/selection.py --output selection.json
    python recipes/benchmarks/selection.py --num-labels 400 --on scikit-learn
    python recipes/benchmarks/selection.py --images 100000 --num-labels 100 --memory as3l k-medoids coreset [--sampled]

Features are clusters with noise, of unit length. Measured in CPU-seconds: k-means on f_self, Eq. 6, k-means on f_fine
and the choice (`as3l`), the priors with K = classes to 6 times the classes, and with --label-spreading that (LLGC) too.
--memory measures memory alone (Linux): the most that a choice holds, the features in float32 and one copy of an image
among them; with --sampled as above 2 10^9 numbers, of which k-means sees a sample. --whole adds the peers' route for
one step: scikit-learn with k-means++ at N = 10,000, K = 600. Goal: selection and priors in at most 90 CPU-seconds with
faiss.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import threading
import time
from pathlib import Path

import numpy as np
import torch

from hf_lowlabel.evaluation.neighbors import rows_of, unit
from hf_lowlabel.selection import clustering
from hf_lowlabel.selection.as3l import as3l, finetune_features
from hf_lowlabel.selection.priors import cluster_priors, graph_priors, report
from hf_lowlabel.selection.strategies import choose
from hf_lowlabel.selection.verbs import choose_distinct


def features(n: int, d: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((classes, d), dtype=np.float32)
    y = rng.integers(0, classes, n)
    return unit(centres[y] + 1.5 * rng.standard_normal((n, d), dtype=np.float32)), y


def held(strategy: str, x: np.ndarray, budget: int) -> float:
    """The most bytes that this process holds above what it had without x, while `strategy` chooses among it."""
    most, over = 0, threading.Event()

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")

    def watch() -> None:
        nonlocal most
        while not over.wait(0.01):
            most = max(most, resident())

    before, watcher = resident() - x.nbytes, threading.Thread(target=watch)
    watcher.start()
    try:
        x = unit(x, in_place=True)
        none = np.zeros(0, np.int64)
        choose_distinct(x, np.arange(len(x)), none, budget, lambda rows: choose(strategy, rows_of(x, rows), budget))
    finally:
        over.set()
        watcher.join()
    return most - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument(
        "--num-labels", type=int, default=200, help="budget; also K of both sets of k-means of the selection"
    )
    parser.add_argument(
        "--on", choices=("torch", "faiss", "scikit-learn"), help="k-means of this library (default: the best here)"
    )
    parser.add_argument("--label-spreading", action="store_true", help="label spreading too")
    parser.add_argument(
        "--whole", action="store_true", help="scikit-learn's k-means++ at N = 10,000, K = 600, for comparison"
    )
    parser.add_argument("--memory", nargs="+", metavar="STRATEGY", help="the memory of these strategies alone")
    parser.add_argument("--sampled", action="store_true", help="k-means as of more than 2 10^9 numbers (--memory)")
    parser.add_argument("--output", help="write the figures as JSON")
    args = parser.parse_args()
    if args.on:
        clustering.backend = lambda: args.on
    x, y = features(args.images, args.width, args.classes)
    if args.memory:
        choose("as3l", x[:1000], 5)  # what is imported late
        x[-1] = x[0]
        clustering.WHOLE = 0 if args.sampled else clustering.WHOLE
        for strategy in args.memory:
            print(f"{strategy:12} {held(strategy, x, args.num_labels) / len(x) / 1e3:.1f} GB for a million images")
        return
    seconds: dict[str, float] = {}

    def timed(name: str, function):
        begin = time.process_time()
        out = function()
        seconds[name] = round(time.process_time() - begin, 2)
        print(f"{name:28} {seconds[name]:8.2f} CPU-s", flush=True)
        return out

    chosen = timed("selection (as3l)", lambda: as3l(x, args.num_labels))
    fine = timed("f_fine again (of the above)", lambda: finetune_features(x, args.num_labels))
    priors = timed("priors, K up to 6 classes", lambda: cluster_priors(fine, chosen, y[chosen], args.classes))
    worth = report(priors, y, chosen)
    if args.label_spreading:
        timed("label-spreading", lambda: graph_priors(x, chosen, y[chosen], args.classes))
    if args.whole:
        from sklearn.cluster import KMeans

        timed("k-means++ of scikit-learn", lambda: KMeans(600, n_init=1, random_state=0).fit(x[:10_000]))
        timed("ours at the same size", lambda: clustering.kmeans(x[:10_000], 600))
    total = seconds["selection (as3l)"] + seconds["priors, K up to 6 classes"]
    print(f"selection + priors: {total:.1f} CPU-s on {clustering.backend()}; prior accuracy {worth['accuracy']:.3f}")
    if args.output:
        facts = {
            "settings": vars(args),
            "seconds": seconds,
            "total": total,
            "k-means": clustering.backend(),
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
            "machine": platform.processor() or platform.machine(),
            "priors": worth,
        }
        Path(args.output).write_text(json.dumps(facts, indent=1))


if __name__ == "__main__":
    main()
