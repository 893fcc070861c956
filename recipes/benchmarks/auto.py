"""What `auto` finds and says, against the truth of test sets: is the best rung taken, do its intervals hold?

    python recipes/benchmarks/auto.py --data DATA --sets flowers elpv neu_steel --encoders WEIGHTS --output auto
    python recipes/benchmarks/auto.py --data DATA --sets cifar10 --per-class 1 4 25 --output auto
    python recipes/benchmarks/auto.py --data DATA --sets flowers neu_steel --balanced --tail 0.03 --output tail

DATA holds data sets with a train and a test split and real labels. Frozen features are computed once for each encoder
and kept in OUTPUT/. A draw is SEED and a number of labels: at random over the images, with one of each class at least
(--balanced: as many of each; --tail: of images of which some classes have few). Each encoder is alone, or all are in
one search, where they vote (--together). For each draw, on test images that nothing else sees:

    auto       the rung that cross-validation on the labels takes          best    the best rung of each draw
    one        the rung of the best mean over all draws of a set and       probe   this package's linear probe
               encoder, in hindsight: what a user gets who always takes
               the same, and happens to know which
    peer       scikit-learn's LogisticRegressionCV on the same features, unscaled, penalty by 3 folds of the labels
               (5 values from 1e-4 to 1e4)
    fastai     its vision_learner(...).fine_tune(EPOCHS) on the same images, weights and side, all else its defaults
               (--fastai EPOCHS, where fastai is installed)

and whether the 80 % interval for the accuracy holds the truth, what is said of unlabeled images against the sign of
(best rung that uses them - probe), and the forecast for 2.5 times the labels against `auto` with these. A draw that is
in OUTPUT/draws.jsonl is not repeated: stop it and start it again. About 15 seconds a draw of 3,000 images on one core.
Constants were set on seeds 0 to 8, 30 to 34 and 60 to 79 of flowers, elpv and neu_steel with ResNet-18, all but the
first also of CIFAR-10 at 64 px; report on others.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections import defaultdict
from pathlib import Path

import numpy as np
from kept_rows import check_settings
from sklearn.linear_model import LogisticRegressionCV

from hf_lowlabel import load_source
from hf_lowlabel.files import write_text
from hf_lowlabel.ladder.encoders import Features
from hf_lowlabel.ladder.estimates import MORE, accuracy, confidence, learning_curve, unlabeled_help
from hf_lowlabel.ladder.frozen import climb
from hf_lowlabel.ladder.rungs import PROBE, Tried
from hf_lowlabel.models import create_backbone
from hf_lowlabel.records import collect_hardware, collect_versions
from hf_lowlabel.selection.features import extract
from hf_lowlabel.tasks.networks import encoder_of_runs

KEYS = ("set", "encoder", "image_size", "per_class", "seed", "balanced", "tail")  # of a draw


def features(args: argparse.Namespace, name: str, encoder: str, split: str) -> tuple[np.ndarray, np.ndarray]:
    """(float32 [N, D], labels int64 [N]) of at most --images training images, or of as many test images, which the
    encoder sees as a run on the training images does."""
    train, source = (load_source(str(Path(args.data) / name), split=part) for part in ("train", split))
    members = members_of(args, len(source))
    file = Path(args.output) / f"{name}-{split}-{Path(encoder).name}-{args.image_size or 'own'}.safetensors"
    sees = encoder_of_runs(encoder, train, args.image_size, None, create_backbone)
    found = extract(sees, source, members, path=file)
    return np.array(found.values), source.labels[found.indices]


def long_tailed(y: np.ndarray, tail: float) -> np.ndarray:
    """Rows of which the last class has `tail` times as many as the first, and those between fall evenly, none below 20;
    1: all rows."""
    if tail == 1:
        return np.arange(len(y))
    count = np.bincount(y)
    share = count.min() * tail ** np.linspace(0, 1, len(count))
    return np.sort(np.concatenate([np.flatnonzero(y == k)[: max(20, int(n))] for k, n in enumerate(share)]))


def members_of(args: argparse.Namespace, count: int) -> np.ndarray:
    """The images of a split that take part."""
    members = np.arange(count)
    return members if count <= args.images else np.sort(np.random.default_rng(0).permutation(members)[: args.images])


def draw(y: np.ndarray, number: int, seed: int, balanced: bool) -> np.ndarray:
    """Rows that are labeled; a larger number holds a smaller one."""
    random, classes = np.random.default_rng(seed), np.unique(y)
    order = random.permutation(len(y))
    first = np.array([next(i for i in order if y[i] == k) for k in classes])
    if balanced:
        return np.concatenate([[i for i in order if y[i] == k][: number // len(classes)] for k in classes])
    return np.concatenate([first, [i for i in order if i not in set(first)]])[:number].astype(int)


def peer(x: np.ndarray, y: np.ndarray, test_x: np.ndarray, test_y: np.ndarray) -> float:
    folds = min(3, int(np.bincount(y)[np.unique(y)].min()))
    if folds < 2:
        from sklearn.linear_model import LogisticRegression

        return float(LogisticRegression(max_iter=1000).fit(x, y).score(test_x, test_y))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = LogisticRegressionCV(Cs=5, cv=folds, max_iter=1000, scoring="accuracy")
        return float((fit.fit(x, y).predict(test_x) == test_y).mean())


def fine_tuned(args: argparse.Namespace, name: str, encoder: str, rows: np.ndarray, seed: int) -> float:
    """Test accuracy of fastai's fine_tune on the training images `rows` (positions among those of `features`)."""
    from fastai.vision import all as fastai

    from hf_lowlabel.models import create_backbone

    sources = {split: load_source(str(Path(args.data) / name), split=split) for split in ("train", "test")}

    def at(item: str) -> tuple:  # fastai takes tuples apart
        split, i = item.split()
        return sources[split], int(i)

    train, test = sources.values()
    members = members_of(args, len(train))[rows]
    weights = create_backbone(encoder).timm_model
    fastai.set_seed(seed, reproducible=True)
    items = [f"train {i}" for i in [*members, members[0]]]  # the last one is looked at as "validation" alone
    block = fastai.DataBlock(
        blocks=(fastai.ImageBlock, fastai.CategoryBlock(vocab=list(range(len(train.class_names))))),
        get_x=lambda item: fastai.PILImage.create(np.asarray(at(item)[0].image(at(item)[1]))),
        get_y=lambda item: int(at(item)[0].labels[at(item)[1]]),
        splitter=fastai.IndexSplitter([len(items) - 1]),
        item_tfms=fastai.Resize(args.image_size or 224),
        batch_tfms=[*fastai.aug_transforms(), fastai.Normalize.from_stats(*fastai.imagenet_stats)],
    )
    loaders = block.dataloaders(items, bs=min(16, len(rows)), num_workers=0)
    learner = fastai.vision_learner(loaders, weights.default_cfg["architecture"], pretrained=False)
    found = learner.model[0].model.load_state_dict(weights.state_dict(), strict=False)
    assert not found.missing_keys, found
    with learner.no_bar(), learner.no_logging():
        learner.fine_tune(args.fastai)
        asked = learner.dls.test_dl([f"test {i}" for i in range(len(test))], bs=64, num_workers=0)
        p, _ = learner.get_preds(dl=asked)
    return float((p.argmax(1).numpy() == test.labels).mean())


def one(args: argparse.Namespace, xs: dict, y, test_xs: dict, test_y, number: int, seed: int) -> dict:
    """All about one draw. xs, test_xs: features by the name of each encoder."""

    def name_of(one: Tried) -> str:
        return one.name if len(xs) > 1 else one.rung.name

    def go(n: int):
        rows = draw(y, n, seed, args.balanced)
        encoders = {k: Features(k, x, rows, y[rows], int(y.max()) + 1, among=len(xs)) for k, x in xs.items()}
        tried = climb([*encoders.values()], y[rows], seed=seed)
        right = {}
        for one in tried:
            weight, bias = encoders[one.encoder].head(one)
            right[name_of(one)] = float(((test_xs[one.encoder] @ weight.T + bias).argmax(1) == test_y).mean())
        return rows, encoders, tried, right

    begin = time.perf_counter()
    rows, encoders, tried, right = go(number)
    seconds = time.perf_counter() - begin
    best, help = tried[0], unlabeled_help(tried)
    probe = max((one for one in tried if one.rung is PROBE), key=lambda one: one.score)
    said = accuracy(best, confidence(encoders[best.encoder], best))
    curve = learning_curve([*encoders.values()], y[rows], best, said)
    using = [right[name_of(one)] for one in tried if one.rung.unlabeled and not one.votes]
    gain = max(using) - right[name_of(probe)]
    x, test_x = (np.concatenate([*some.values()], 1) for some in (xs, test_xs))
    out = {
        "labels": len(rows),
        "auto": right[name_of(best)],
        "best": max(right.values()),
        "probe": right[name_of(probe)],
        "peer": peer(x[rows], y[rows], test_x, test_y),
        "rungs": right,
        "taken": name_of(best),
        "interval": None if said is None else [said.low, said.high],
        "helps": help.verdict,
        "gain": gain,
        "seconds": seconds,
    }
    if curve is not None and MORE * len(rows) <= len(y) / 2:
        _, _, more, reached = go(round(MORE * len(rows)))
        forecast = curve.forecast
        out |= {"forecast": [forecast.value, forecast.low, forecast.high], "then": reached[name_of(more[0])]}
    return out


def table(rows: list[dict]) -> str:
    """A line for each set, encoder, way to draw and number of labels; and what held over all."""
    keys = ["auto", "best", "probe", "peer", *(["fastai"] if all("fastai" in row for row in rows) else [])]
    titles = " | ".join({"best": "best in hindsight"}.get(key, key) for key in keys)
    lines = [f"| set | encoder | labels a class | {titles} |", "|---|---|---:|" + "---:|" * len(keys)]
    for found in alike(rows, "seed"):
        cells = []
        for key in keys:
            values = [100 * row[key] for row in found]
            spread = f" ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
            cells.append(f"{np.mean(values):.1f}{spread}")
        one = found[0]
        lines.append(f"| {one['set']} | {how(one)} | {one['per_class']} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", *held(rows)])


def where_of(row: dict) -> tuple:
    return tuple({"tail": 1.0, **row}[key] for key in KEYS)


def alike(rows: list[dict], *but: str) -> list[list[dict]]:
    """Groups of draws that have all of KEYS in common, `but` some."""
    groups: dict[tuple, list[dict]] = defaultdict(list)
    for row in rows:
        groups[tuple(value for key, value in zip(KEYS, where_of(row)) if key not in but)].append(row)
    return list(groups.values())


def how(row: dict) -> str:
    """The encoder, with what of a draw is not the default."""
    said = [f"{row['image_size']} px"] if row["image_size"] else []
    said += ["balanced"] if row["balanced"] else []
    said += [f"tail {row['tail']:g}"] if row.get("tail", 1) != 1 else []
    return ", ".join([row["encoder"], *said])


def best_single(rows: list[dict]) -> tuple[str, float]:
    """The rung of the best mean accuracy over these draws, and that mean."""
    always = set.intersection(*(set(row["rungs"]) for row in rows))
    means = {name: float(np.mean([row["rungs"][name] for row in rows])) for name in sorted(always)}
    return max(means.items(), key=lambda found: found[1])


def held(rows: list[dict]) -> list[str]:
    lines = []
    known = [r for r in rows if r["interval"]]
    hits = [r["interval"][0] <= r["auto"] <= r["interval"][1] for r in known]
    lines.append(f"- 80 % intervals for the accuracy held in {np.mean(hits):.0%} of {len(hits)} draws.")
    committed = [r for r in known if r["helps"] != "unclear"]
    right = [(r["gain"] > 0) == (r["helps"] == "yes") for r in committed]
    lines.append(
        f"- Unlabeled images: {1 - len(committed) / max(len(known), 1):.0%} unclear; right in "
        f"{np.mean(right) if right else float('nan'):.0%} of the {len(right)} others."
    )
    far = [r for r in rows if "forecast" in r]
    if far:
        inside = [r["forecast"][1] <= r["then"] <= r["forecast"][2] for r in far]
        error = [100 * abs(r["forecast"][0] - r["then"]) for r in far]
        lines.append(
            f"- {MORE} times the labels: mean error {np.mean(error):.1f} points, 80 % intervals held in "
            f"{np.mean(inside):.0%} of {len(far)} draws."
        )
    for found in alike(rows, "seed", "per_class"):
        taken, every = (100 * np.mean([row[key] for row in found]) for key in ("auto", "best"))
        said, one = best_single(found)
        lines.append(
            f"- {found[0]['set']}, {how(found[0])}, all draws: "
            f"auto {taken:.1f}, the best rung of each draw {every:.1f}, the best for "
            f"all draws ({said}) {100 * one:.1f}."
        )
    lines.append(f"- Seconds for the frozen rungs of a draw: {np.median([r['seconds'] for r in rows]):.1f} (median).")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder of data sets")
    parser.add_argument("--sets", nargs="+", required=True, help="their names")
    parser.add_argument("--encoders", nargs="+", default=["resnet18"], help="timm names or folders")
    parser.add_argument("--image-size", type=int, help="px (default: that which the encoder learned from, as in runs)")
    parser.add_argument("--images", type=int, default=3000, help="training images at most (default: 3000)")
    parser.add_argument("--per-class", type=int, nargs="+", default=[2, 4, 8, 16], help="labels a class")
    parser.add_argument("--seeds", type=int, nargs="+", default=[10, 11, 12, 13, 14])
    parser.add_argument("--balanced", action="store_true", help="as many labels of each class")
    parser.add_argument(
        "--tail", type=float, default=1.0, help="images of the last class, a share of those of the first"
    )
    parser.add_argument("--together", action="store_true", help="all encoders in one search, which vote")
    parser.add_argument("--fastai", type=int, default=0, metavar="EPOCHS", help="of fastai's fine_tune (default: not)")
    parser.add_argument("--output", required=True, help="folder for features, draws and the table")
    args = parser.parse_args()
    if args.fastai and (args.tail != 1 or args.together):
        parser.error("--fastai is for all images and one encoder at a time. Leave out --tail and --together.")
    if len({Path(encoder).name for encoder in args.encoders}) < len(args.encoders):
        parser.error("Two of --encoders have one name. Rename the folder of one.")
    folder = Path(args.output)
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "draws.jsonl"
    check_settings(file, args, "images")
    rows = [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
    done = {where_of(row) for row in rows}
    for name in args.sets:
        for some in [args.encoders] if args.together else [[encoder] for encoder in args.encoders]:
            xs, test_xs = dict[str, np.ndarray](), dict[str, np.ndarray]()
            for encoder in some:
                both = [features(args, name, encoder, part) for part in ("train", "test")]
                kept = [long_tailed(y, args.tail) for _, y in both]
                (x, y), (test_x, test_y) = ((x[rows], y[rows]) for (x, y), rows in zip(both, kept))
                xs[Path(encoder).name], test_xs[Path(encoder).name] = x, test_x
            for per_class in args.per_class:
                for seed in args.seeds:
                    where = (name, " + ".join(xs), args.image_size, per_class, seed, args.balanced, args.tail)
                    if where in done:
                        continue
                    number = per_class * len(np.unique(y))
                    row = dict(zip(KEYS, where)) | one(args, xs, y, test_xs, test_y, number, seed)
                    if args.fastai:
                        rows_drawn = draw(y, number, seed, args.balanced)
                        row["fastai"] = fine_tuned(args, name, encoder, rows_drawn, seed)
                    rows.append(row)
                    with open(file, "a") as out:
                        out.write(json.dumps(row) + "\n")
                    print(
                        " ".join(map(str, where)),
                        {k: row[k] for k in ("auto", "best", "probe", "peer", "fastai") if k in row},
                        flush=True,
                    )
    versions, machine = collect_versions(), collect_hardware(1)
    text = f"{table(rows)}\n\nmachine: {machine}; versions: {versions}\n"
    write_text(folder / "auto.md", text)
    print(text)


if __name__ == "__main__":
    main()
