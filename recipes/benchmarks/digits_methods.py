"""All methods on digits: {10, 40} labels x seeds x starting weights, in one table made from the run folders.

    python recipes/benchmarks/digits_methods.py --output runs/digits-methods               # everything, seeds 0-4
    python recipes/benchmarks/digits_methods.py --seeds 0 1 --methods fixmatch supervised  # a part; go on later
    python recipes/benchmarks/digits_methods.py --table-only --page recipes/results/digits_methods.md

The last one makes the tables of what is there; of a page that exists it keeps the cells that are not there, and what
stands from "## Why" on.

A finished run folder is not run again and a broken one starts anew, so it may be stopped at any time and run in several
processes at once, each with its own --seeds. All rows share the network, the augmentation, the optimizer and the number
of steps; hyperparameters are each method's own defaults, and self-training learns from the run of label-spreading.
Nothing is chosen by the test images: the last weights count. The baseline sees weak and strong views; the row
supervised-weak sees weak ones alone, as the methods without strong views do. fixmatch-apart saves the backward pass of
the weak views.
Cost: 31 rows x 2 budgets x 5 seeds = 310 runs for each of three starts, of about 20 s on one core of a 2.5 GHz Xeon
(s4l-exemplar a minute).
"""

from __future__ import annotations

import argparse
import re
import shutil
from pathlib import Path

import torch

from hf_lowlabel import finetune, load_source, make_split, pretrain
from hf_lowlabel.demo_stages import DIGITS_PRETRAIN
from hf_lowlabel.errors import Diverged, UserError
from hf_lowlabel.files import write_text
from hf_lowlabel.hub.table import NOTHING, grid, methods_table
from hf_lowlabel.methods import METHODS, find, methods_for

SHARED = dict(
    dataset="digits",
    image_size=16,
    stored_size=16,
    flip=False,
    logging_steps=100,
    save_steps=10**6,
    eval_steps=10**6,
    device="cpu",
)
TRAINED = dict(
    max_steps=500,
    batch_size=10,
    optimizer="sgd",
    learning_rate=0.03,
    lr_scheduler_type="fixmatch",
    weight_decay=5e-4,
    metric_for_best_model="last",
)
RATIO = 5  # unlabeled images per labeled one; less where a method has a lower ratio of its own
ROWS = {
    **{n: (n, {}) for n in methods_for("finetune") if "classification" in find(n).tasks},
    "supervised-weak": ("supervised", dict(strong=False)),
    "fixmatch-apart": ("fixmatch", dict(concat_weak=False)),
}  # row -> method, its arguments
STARTS = ("scratch", *DIGITS_PRETRAIN)  # or weights pretrained as in `hf-lowlabel demo`

TITLE = """# All methods on digits

Made by `python recipes/benchmarks/digits_methods.py --table-only --page recipes/results/digits_methods.md` from the run
folders that are there; only the last section is written by hand."""
WHY = "## Why"


def once(verb, folder: Path, **settings) -> None:
    """Run unless the folder holds a finished run."""
    if (folder / "run.json").is_file() and (folder / "metrics.json").is_file():
        return
    shutil.rmtree(folder, ignore_errors=True)
    print(f"{folder}", flush=True)
    try:
        verb(**settings, output_dir=str(folder))
    except Diverged as error:  # its cell has one seed less
        print(f"{folder.name}: {error}", flush=True)


def one_seed(root: Path, seed: int, labels: list[int], starts: list[str], rows: list[str], model: str) -> None:
    common = dict(SHARED, seed=seed)
    scratch = dict(model=model, from_scratch=True)
    source = load_source("digits")
    tests = set()
    for number in labels:
        split = make_split(source, number, seed=seed, class_balanced=True, test_fraction=0.2)
        split.save(root / f"split-{number}-{seed}.json")
        tests.add(tuple(sorted(split.test)))
    assert len(tests) == 1, "the test images must not depend on the number of labels"
    for start in starts:
        if start != "scratch":
            none = str(root / f"split-{labels[0]}-{seed}.json")  # pretraining looks at its test images alone
            once(pretrain, root / f"{start}-{seed}", **common, **scratch, **DIGITS_PRETRAIN[start], split=none)
        weights = scratch if start == "scratch" else dict(model=str(root / f"{start}-{seed}"))
        for number in labels:
            for row in rows:
                method, arguments = ROWS[row]
                prior = root / start / f"label-spreading-{number}-{seed}" / "priors.safetensors"
                if find(method).prior == "must" and not prior.is_file():
                    print(f"left out {method}: it learns from label-spreading's run, which is not there", flush=True)
                    continue
                own = (
                    {}
                    if find(method).frozen
                    else dict(TRAINED, unlabeled_ratio=min(RATIO, find(method).defaults.get("unlabeled_ratio", RATIO)))
                )
                if find(method).prior == "must":
                    own["prior"] = str(prior)
                once(
                    finetune,
                    root / start / f"{row}-{number}-{seed}",
                    **common,
                    **weights,
                    **own,
                    method=method,
                    # gray images have no colours, but its HSV jitter changes brightness
                    color=method != "s4l-exemplar",
                    method_args=arguments,
                    split=str(root / f"split-{number}-{seed}.json"),
                )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", default="runs/digits-methods", help="folder of all run folders, and of table.md")
    parser.add_argument("--methods", nargs="+", default=[*ROWS], choices=ROWS, metavar="NAME")
    parser.add_argument("--labels", type=int, nargs="+", default=[10, 40])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--starts", nargs="+", default=["scratch", "byol"], choices=STARTS)
    parser.add_argument("--model", default="cnn6_16", help="architecture")
    parser.add_argument(
        "--threads", type=int, default=1, help="of this process: two processes on two cores do more than one on both"
    )
    parser.add_argument("--table-only", action="store_true", help="run nothing")
    parser.add_argument("--page", help="markdown file to write the tables to as well")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    root = Path(args.output)
    for seed in [] if args.table_only else args.seeds:
        one_seed(root, seed, args.labels, args.starts, args.methods, args.model)
    done = sorted(p.parent for start in STARTS for p in (root / start).glob("*/metrics.json"))
    if not done:
        raise UserError(f"There is no finished run in {root} to make a table of.")
    text = methods_table(done)
    write_text(root / "table.md", text)
    if args.page:
        write_page(Path(args.page), text)
    print(text)


def write_page(path: Path, tables: str) -> None:
    """TITLE and the tables, with the cells of an earlier page that were not run again and what it said from WHY on."""
    before, _, said = (path.read_text() if path.is_file() else "").partition(WHY)
    tables, kept = with_cells_of(tables, before)
    note = f"\nOf earlier runs, with margins over the baselines of those: {'; '.join(kept)}.\n" if kept else ""
    write_text(path, f"{TITLE}\n\n{tables}{note}\n{WHY}{said or chr(10)}")


def with_cells_of(tables: str, page: str) -> tuple[str, list[str]]:
    """The tables, each with the cells that the page's table under the same heading has and it has not.

    Also says which columns and rows are of the page alone.
    """
    earlier = {heading(part): table(part) for part in sections(page)}
    out, columns, rows = [], dict[str, None](), dict[str, None]()
    for part in sections(tables):
        new, old = table(part), earlier.get(heading(part), {})
        both: dict[str, dict[str, str]] = {}
        for row in sorted({**old, **new}, key=lambda row: (order(row), row)):
            both[row] = {**old.get(row, {}), **{k: v for k, v in new.get(row, {}).items() if v != NOTHING}}
        heads = [*dict.fromkeys(head for found in (old, new) for cells in found.values() for head in cells)]
        columns |= dict.fromkeys(head for head in heads if not any(head in cells for cells in new.values()))
        rows |= dict.fromkeys(row for row in both if row not in new)
        body = {row: [cells.get(head, NOTHING) for head in heads] for row, cells in both.items()}
        lines = [line for line in part.splitlines() if line.startswith("|")]
        out.append(part.replace("\n".join(lines), "\n".join(grid(heads, body))))
    return "".join(out), [*columns, *rows]


def sections(text: str) -> list[str]:
    """The text, cut before each of its headings of the second level, without parts that have no table."""
    return [part for part in re.split(r"(?m)^(?=## )", text) if table(part)]


def heading(part: str) -> str:
    return part.splitlines()[0] if part.startswith("## ") else ""


def table(part: str) -> dict[str, dict[str, str]]:
    """Row -> column -> cell of the table of a part."""
    cells = [[c.strip() for c in line.strip("|").split("|")] for line in part.splitlines() if line.startswith("|")]
    return {row[0]: dict(zip(cells[0][1:], row[1:], strict=True)) for row in cells[2:]}


def order(name: str) -> int:
    """Where the method of a row stands in the list of all."""
    return [*METHODS].index(name.split()[0])


if __name__ == "__main__":
    main()
