"""What rounds of labels are worth: chosen by the model's doubts, against one round of as many labels; wrong labels
found; masks corrected round after round.

    python recipes/benchmarks/rounds.py classes --data DATA --sets flowers elpv --encoder WEIGHTS --output rounds
    python recipes/benchmarks/rounds.py wrong --data DATA --sets flowers elpv --encoder WEIGHTS --output rounds
    python recipes/benchmarks/rounds.py masks --data DATA --sets wbc --encoder WEIGHTS --output rounds

DATA holds data sets with a train and a test split and the truth of every image, which answers for the person.

classes   40 images by as3l, then twice 20 by each strategy from what a linear probe of frozen features believes;
          against 80 in one round, by as3l and at random. Test accuracy of the probe.
wrong     100 labels at random of which 10 are another class: how many `review` shows, and how many of these are wrong;
          the same of cleanlab's find_label_issues on the same probabilities, where it is installed.
masks     10 images by as3l, then twice 10 by each strategy of `select` from a linear probe of pixels; against 30 in one
          round. Mean IoU on the test images, and the share of pixels that a person has to correct in the model's masks
          of the images that are asked for.

A result that is in OUTPUT/KIND.jsonl is not computed again. Features are those of `auto.py`, in the same folder.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from auto import features
from kept_rows import check_settings

from hf_lowlabel import finetune
from hf_lowlabel.data.splits.splits import Split
from hf_lowlabel.evaluation.neighbors import unit
from hf_lowlabel.finetuning.graph import rooted
from hf_lowlabel.finetuning.linear import probe_head, softmax
from hf_lowlabel.ladder.advice import doubtful_labels
from hf_lowlabel.ladder.encoders import Features
from hf_lowlabel.ladder.frozen import climb
from hf_lowlabel.selection.by_model import BY_MODEL
from hf_lowlabel.selection.strategies import choose
from hf_lowlabel.selection.verbs import select
from hf_lowlabel.tasks import get_task
from hf_lowlabel.tasks.uncertainty import Doubt

FIRST, MORE, ROUNDS = 40, 20, 3
MASKS = 10  # a round
LABELS, WRONG = 100, 10


class Probe:
    """The linear probe of this package on frozen features."""

    def __init__(self, x: np.ndarray, y: np.ndarray, rows: np.ndarray):
        known = np.full(len(y), -1)
        known[rows] = y[rows]
        self.weight, self.bias = probe_head(x, known, num_classes=int(y.max()) + 1)

    def right(self, test_x: np.ndarray, test_y: np.ndarray) -> float:
        return float(((test_x @ self.weight.T + self.bias).argmax(1) == test_y).mean())

    def next(self, strategy: str, x: np.ndarray, rows: np.ndarray, seed: int) -> np.ndarray:
        free, z = np.setdiff1d(np.arange(len(x)), rows), rooted(x)
        p = softmax(x[free] @ self.weight.T + self.bias)
        unsure = get_task("classification").unsure(p, "margin" if strategy == "badge" else strategy)
        return free[BY_MODEL[strategy](Doubt(unsure, p, z[free]), z[rows], MORE, seed)]


def classes(args: argparse.Namespace, name: str, seed: int) -> dict[str, Any]:
    (x, y), (test_x, test_y) = (features(args, name, args.encoder, part) for part in ("train", "test"))
    total, out = FIRST + MORE * (ROUNDS - 1), {}
    for strategy in ("as3l", "random"):
        one = choose(strategy, unit(x), total, seed)
        out[f"one round, {strategy}"] = [Probe(x, y, one).right(test_x, test_y)]
    first = choose("as3l", unit(x), FIRST, seed)
    begun = Probe(x, y, first)
    for strategy in args.strategies or ("margin", "badge"):
        rows, answer = first, begun
        out[f"rounds, {strategy}"] = [answer.right(test_x, test_y)]
        for _ in range(ROUNDS - 1):
            rows = np.concatenate([rows, answer.next(strategy, x, rows, seed)])
            answer = Probe(x, y, rows)
            out[f"rounds, {strategy}"].append(answer.right(test_x, test_y))
    return out


def wrong(args: argparse.Namespace, name: str, seed: int) -> dict[str, Any]:
    x, y = features(args, name, args.encoder, "train")
    random, K = np.random.default_rng(seed), int(y.max()) + 1
    rows = np.sort(random.permutation(len(y))[:LABELS])
    given, planted = y.copy(), rows[random.permutation(LABELS)[:WRONG]]
    given[planted] = (y[planted] + random.integers(1, K, WRONG)) % K
    best = climb([Features("encoder", x, rows, given[rows], K)], given[rows], seed=seed)[0]
    shown = {remark.rows[0] for remark in doubtful_labels(best, given[rows], rows, [str(k) for k in range(K)])}
    out = {"review": [len(shown & set(planted.tolist())), len(shown)]}
    try:
        from cleanlab.filter import find_label_issues
    except ImportError:
        return out
    p = np.zeros((LABELS, K))
    np.add.at(p, best.label, softmax(best.logits / best.t))
    asked = best.asked
    p = p[asked] / np.bincount(best.label, minlength=LABELS)[asked, None]
    known, own = np.unique(given[rows[asked]], return_inverse=True)
    p = p[:, known] / p[:, known].sum(1, keepdims=True)
    issues = rows[asked[find_label_issues(own, p)]]
    out["cleanlab"] = [len(set(issues.tolist()) & set(planted.tolist())), len(issues)]
    ranked = rows[asked[find_label_issues(own, p, return_indices_ranked_by="self_confidence", filter_by="both")]]
    out["cleanlab, both filters"] = [len(set(ranked.tolist()) & set(planted.tolist())), len(ranked)]
    return out


def masks(args: argparse.Namespace, name: str, seed: int) -> dict[str, Any]:
    folder, data = Path(args.output) / f"masks-{name}-{seed}", str(Path(args.data) / name)
    task, out = get_task("segmentation"), {}
    source = task.open(config_of(data))
    how = dict(task="segmentation", dataset=data, model=args.encoder, method="probe", seed=seed)
    how |= dict(image_size=args.image_size, stored_size=args.image_size)

    def train(ids: list[str], what: str):
        split = Split(source.name, source.class_names, dict.fromkeys(ids), fingerprint=source.fingerprint, seed=seed)
        place = folder / f"{what}-{len(ids)}"
        place.mkdir(parents=True, exist_ok=True)
        split.save(place / "split.json")
        return finetune(**how, split=str(place / "split.json"), output_dir=place / "run"), place

    def asked(model: str, strategy: str, place: Path, budget: int, **more) -> list[str]:
        given = dict(task="segmentation", budget=budget, strategy=strategy, seed=seed, **more)
        return select(model, data, output=str(place), **given).ids

    def to_correct(run, ids: list[str]) -> float:
        """Share of the pixels with a class whose class in the model's mask is another."""
        at = np.array([source.ids.index(id) for id in ids])
        held = task.held(run.model, config_of(data), source, at, source.class_names, "asked")
        m = task.tallies(run.model, held, source.class_names).sum(0)
        return float(1 - np.trace(m) / m.sum())

    total, none = MASKS * ROUNDS, str(folder / "none.json")  # images that have a mask are chosen only by a manifest
    folder.mkdir(parents=True, exist_ok=True)
    Split(source.name, source.class_names, {}, fingerprint=source.fingerprint).save(none)
    begin = dict(image_size=args.image_size, split=none)
    for strategy in ("as3l", "random"):
        ids = asked(args.encoder, strategy, folder / f"{strategy}-{total}" / "to_label", total, **begin)
        out[f"one round, {strategy}"] = [train(ids, strategy)[0].metrics["miou"]]
    first = asked(args.encoder, "as3l", folder / f"first-{MASKS}" / "to_label", MASKS, **begin)
    begun, start = train(first, "first")
    for strategy in args.strategies or ("entropy", "uncertain-pixels"):
        ids, run, place = first, begun, start
        out[f"rounds, {strategy}"] = [run.metrics["miou"]]
        out[f"to correct, {strategy}"] = []
        for _ in range(ROUNDS - 1):
            to_label = folder / f"{strategy}-{len(ids)}" / "to_label"
            new = asked(str(place / "run"), strategy, to_label, MASKS, split=str(place / "split.json"))
            out[f"to correct, {strategy}"].append(to_correct(run, new))
            ids = [*ids, *new]
            run, place = train(ids, strategy)
            out[f"rounds, {strategy}"].append(run.metrics["miou"])
    return out


def config_of(data: str):
    from hf_lowlabel.arguments import DataArguments

    return DataArguments(dataset=data)


def table(kind: str, rows: list[dict]) -> str:
    groups: dict[tuple[str, str], list[list[float]]] = defaultdict(list)
    for row in rows:
        for key, values in row["found"].items():
            groups[row["set"], key].append(values)
    if kind == "wrong":
        lines = [f"| set | | of {WRONG} planted found | of those shown wrong |", "|---|---|--:|--:|"]
        for (name, key), found in groups.items():
            hits, shown = np.array(found).sum(0)
            share = f"{hits / max(shown, 1):.0%} of {shown}"
            lines.append(f"| {name} | {key} | {hits / len(found):.1f} | {share} |")
        return "\n".join(lines)
    lines = ["| set | | after each round, in per cent (mean ± standard deviation) |", "|---|---|---|"]
    for (name, key), found in groups.items():
        values = 100 * np.array(found)
        cells = ", ".join(
            f"{m:.1f} ± {s:.1f}" for m, s in zip(values.mean(0), values.std(0, ddof=1 if len(values) > 1 else 0))
        )
        lines.append(f"| {name} | {key} | {cells} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=("classes", "wrong", "masks"))
    parser.add_argument("--data", required=True, help="folder of data sets")
    parser.add_argument("--sets", nargs="+", required=True, help="their names")
    parser.add_argument("--encoder", default="resnet18", help="timm name or folder")
    parser.add_argument("--image-size", type=int, default=128, help="px (default: 128)")
    parser.add_argument("--images", type=int, default=3000, help="training images at most (default: 3000)")
    parser.add_argument("--strategies", nargs="+", help="by the model's doubts (default: two for each kind)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--output", required=True, help="folder for features and results")
    args = parser.parse_args()
    file = Path(args.output) / f"{args.kind}.jsonl"
    check_settings(file, args, "encoder", "image_size", "images", "strategies")
    rows = [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
    done = {(row["set"], row["seed"]) for row in rows}
    for name in args.sets:
        for seed in args.seeds:
            if (name, seed) not in done:
                found = dict(classes=classes, wrong=wrong, masks=masks)[args.kind](args, name, seed)
                rows.append({"set": name, "seed": seed, "found": found})
                with open(file, "a") as out:
                    out.write(json.dumps(rows[-1]) + "\n")
                print(json.dumps(rows[-1]), flush=True)
    print(table(args.kind, rows))


if __name__ == "__main__":
    main()
