"""Ten labels on digits: does it matter which? Classes covered, prior accuracy and final accuracy of every strategy.

    python recipes/benchmarks/selection_digits.py --output selection-digits                 # seeds 0-4, every strategy
    python recipes/benchmarks/selection_digits.py --output selection-digits --seeds 0 --strategies random as3l
    python recipes/benchmarks/selection_digits.py --output b --backbone runs/backbone --split split.json --priors as3l

One backbone (--pretraining, or --backbone, which left out the held-out images of --split) and one test set (20 %) for
all; a seed decides the choice, the priors and the training: the demo's FlexMatch from the priors of the chosen labels,
for every strategy alike. `--priors as3l` are the paper's clusters, `demo` those of `hf-lowlabel demo`. The last column
but one is scikit-learn's LabelSpreading on the 64 pixels, from the same labels. Half a minute a run on one core. A run
that is in OUTPUT.json already is not repeated: stop it and start it again.
Writes OUTPUT.json and OUTPUT.md. Goal for as3l: 9 of 10 classes and 94 % on average (random labels on pixels: 81 %).
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from sklearn.semi_supervised import LabelSpreading

from hf_lowlabel import ImageDataset, Split, UserError, finetune, load_source, make_split, pretrain
from hf_lowlabel.demo_stages import DIGITS_FINETUNE, DIGITS_PRETRAIN, DIGITS_PRIORS, DIGITS_SHARED, FROM_PRIORS
from hf_lowlabel.evaluation.neighbors import unit
from hf_lowlabel.files import write_text
from hf_lowlabel.records import collect_hardware, collect_versions
from hf_lowlabel.selection.features import Features, extract
from hf_lowlabel.selection.prior_labels import priors
from hf_lowlabel.selection.strategies import STRATEGIES, choose

COLUMNS = {
    "classes": ("classes of 10", "{:.1f}"),
    "prior_accuracy": ("priors right", "{:.1%}"),
    "pixels": ("LabelSpreading on pixels", "{:.1%}"),
    "accuracy": ("final accuracy", "{:.1%}"),
}
SETTINGS = (
    "budget",
    "pretraining",
    "priors",
    "steps",
    "pretrain_steps",
    "backbone",
    "split",
)  # all runs of a file share them


def prepare(args: argparse.Namespace, folder: Path, source: ImageDataset) -> tuple[str, Split]:
    """(backbone, manifest with the test images and no labels); both stay beside the results."""
    if args.split:
        return args.backbone, replace(Split.load(args.split), labeled={})
    path = folder / "held-out.json"
    if not path.is_file():
        replace(make_split(source, args.budget, seed=0, test_fraction=0.2), labeled={}).save(path)
    pre = dict(DIGITS_PRETRAIN[args.pretraining])
    pre["max_steps"] = args.pretrain_steps or pre["max_steps"]
    if not (folder / "backbone" / "metrics.json").is_file():
        pretrain(
            **DIGITS_SHARED,
            **pre,
            from_scratch=True,
            split=str(path),
            output_dir=str(folder / "backbone"),
            resume=(folder / "backbone").exists(),
        )
    return str(folder / "backbone"), Split.load(path)


def run(
    strategy: str,
    seed: int,
    args: argparse.Namespace,
    source: ImageDataset,
    base: Split,
    backbone: str,
    found: Features,
) -> dict:
    begin = time.perf_counter()
    rows = choose(strategy, unit(found.values), args.budget, seed, source.labels[found.indices])
    picked = found.indices[rows]
    split = replace(base, seed=seed, labeled={source.ids[i]: source.class_names[source.labels[i]] for i in picked})
    fine = DIGITS_FINETUNE | dict(
        FROM_PRIORS, max_steps=args.steps, eval_steps=max(1, args.steps // 5), save_steps=10**6
    )
    with tempfile.TemporaryDirectory() as aside:
        manifest, prior = Path(aside, "split.json"), Path(aside, "priors.safetensors")
        split.save(manifest)
        worth = priors(
            backbone,
            "digits",
            split=str(manifest),
            output=str(prior),
            seed=seed,
            **(DIGITS_PRIORS if args.priors == "demo" else {}),
        )
        done = finetune(
            **{**DIGITS_SHARED, **fine, "model": backbone},
            seed=seed,
            split=str(manifest),
            prior=str(prior),
            output_dir=str(Path(aside, "run")),
        )
    return {
        "classes": len(set(split.labeled.values())),
        "prior_accuracy": worth["accuracy"],
        "pixels": pixels(source, base, picked),
        "accuracy": done.metrics["accuracy"],
        "seconds": round(time.perf_counter() - begin, 1),
    }


def pixels(source: ImageDataset, base: Split, picked: np.ndarray) -> float:
    """Test accuracy of label spreading from the same labels, on the pixel values."""
    at = base.resolve(source)
    x = np.stack([np.asarray(source.image(i)) for i in range(len(source))]).reshape(len(source), -1) / 255.0
    y = np.full(len(source), -1)
    y[picked] = source.labels[picked]
    guess = LabelSpreading(kernel="knn", n_neighbors=10).fit(x[at.train], y[at.train]).predict(x[at.test])
    return float((guess == source.labels[at.test]).mean())


def table(runs: dict[str, dict]) -> str:
    """Mean and standard deviation over seeds, a row for each strategy."""
    lines = [
        "| strategy | seeds | " + " | ".join(title for title, _ in COLUMNS.values()) + " | s a run |",
        "|---|---:|" + "---:|" * (len(COLUMNS) + 1),
    ]
    for strategy in STRATEGIES:
        mine = [values for key, values in runs.items() if key.rpartition("/")[0] == strategy]
        if not mine:
            continue
        cells = []
        for name, (_, form) in COLUMNS.items():
            values = [m[name] for m in mine]
            spread = f" ± {form.format(statistics.stdev(values))}" if len(values) > 1 else ""
            cells.append(form.format(statistics.mean(values)) + spread)
        lines.append(
            f"| {strategy} | {len(mine)} | {' | '.join(cells)} | {statistics.mean(m['seconds'] for m in mine):.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--output", default="selection-digits", help="folder for the backbone; OUTPUT.json and OUTPUT.md beside it"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--strategies", nargs="+", choices=list(STRATEGIES), default=list(STRATEGIES))
    parser.add_argument("--budget", type=int, default=10, help="labels")
    parser.add_argument("--pretraining", choices=list(DIGITS_PRETRAIN), default="simclr")
    parser.add_argument("--pretrain-steps", type=int, help="of the backbone (default: those of the demo)")
    parser.add_argument("--priors", choices=("demo", "as3l"), default="demo")
    parser.add_argument("--steps", type=int, default=400, help="of FlexMatch")
    parser.add_argument("--backbone", help="a pretrained backbone instead of the one made here; needs --split")
    parser.add_argument("--split", help="manifest whose test images it left out")
    args = parser.parse_args()
    if bool(args.backbone) != bool(args.split):
        raise UserError("found one of --backbone and --split; expected both or neither")
    logging.getLogger("hf_lowlabel").setLevel(logging.WARNING)
    folder, source = Path(args.output), load_source("digits")
    path = folder.with_name(folder.name + ".json")
    mine = {name: getattr(args, name) for name in SETTINGS}
    kept = json.loads(path.read_text()) if path.is_file() else {"settings": mine, "runs": {}}
    if kept["settings"] != mine:
        raise UserError(f"found results of other settings in {path}: {kept['settings']}; fix: another --output")
    kept |= {"hardware": collect_hardware(), "versions": collect_versions()}
    backbone, base = prepare(args, folder, source)
    found = extract(backbone, source, base.resolve(source).train)
    for seed in args.seeds:
        for strategy in args.strategies:
            if (key := f"{strategy}/{seed}") in kept["runs"]:
                continue
            kept["runs"][key] = run(strategy, seed, args, source, base, backbone, found)
            print(key, kept["runs"][key], flush=True)
            write_text(path, json.dumps(kept, indent=1) + "\n")
    said = f"{args.budget} labels of digits, {args.steps} steps of FlexMatch, {args.priors} priors; mean ± "
    said += f"standard deviation over seeds.\n\n{table(kept['runs'])}\n"
    said += "\n" + ", ".join(f"{k} {v}" for k, v in {**kept["hardware"], **kept["versions"]}.items()) + "\n"
    write_text(path.with_suffix(".md"), said)
    print(said)


if __name__ == "__main__":
    main()
