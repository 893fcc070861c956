"""The page of `natural_images.py`, made from its JSON lines."""

from __future__ import annotations

import statistics
from pathlib import Path

from hf_lowlabel.errors import UserError
from hf_lowlabel.files import write_text

WHY = "## Why"
TITLE = """# On natural images

Made by `python recipes/benchmarks/natural_images.py --table-only --page recipes/results/natural_images.md` from the
lines of its finished runs; only the last section is written by hand. CIFAR-10, 500 images of each class to train on
(block `temporal`: 200) and 200 to test on, cnn6_16 at 32 px. Accuracy in per cent, mean and standard deviation over
seeds; a seed draws the labels and the weights, and the last weights count. The third column is the difference on the
same seeds to labels alone with the same views of them, rate and steps, the fourth that to the block's first row."""


def spread(values: list[float]) -> str:
    """Mean and standard deviation in points."""
    deviation = f" ± {100 * statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{100 * statistics.mean(values):.1f}{deviation}"


def gain(found: dict[int, dict], base: dict[int, dict]) -> str:
    """The difference in points on the seeds that both have."""
    both = [found[s]["accuracy"] - base[s]["accuracy"] for s in found if s in base]
    return f"{'+' if statistics.mean(both) >= 0 else ''}{spread(both)}" if both else "–"


def block_table(rows: list[dict], common: dict) -> str:
    """One block: a line for each row in the order of its first run."""
    by: dict[str, dict[int, dict]] = {}
    for r in rows:
        by.setdefault(r["row"], {})[r["seed"]] = r
    first = next(iter(by.values()))
    out = ["| row | accuracy | over labels alone, same views | over the first row | seeds | CPU-seconds |"]
    out += ["|---|---:|---|---:|---:|---:|"]
    for name, found in by.items():
        said = next(iter(found.values()))["baseline"]
        base = gain(found, by.get(said, {}))
        accuracy = spread([r["accuracy"] for r in found.values()])
        counted = [r["cpu_seconds"] for r in found.values() if r["cpu_seconds"] is not None]
        seconds = f"{statistics.median(counted):.0f}" if counted else "–"
        out.append(
            f"| {name} | {accuracy} | {f'{base} ({said})' if said else '–'} | "
            f"{'–' if found is first else gain(found, first)} | {len(found)} | {seconds} |"
        )
    settings = ", ".join(f"{k} {v}" for k, v in common.items() if isinstance(v, (int, float, str)))
    return "\n".join(out) + f"\n\nEvery row: {settings}.\n"


def page(rows: list[dict], blocks: dict[str, dict], starts: dict[str, dict], path: str | None) -> str:
    """The tables of what was run, and where `path` is given, the page.

    Raises:
        UserError: there is no finished run.
    """
    if not rows:
        raise UserError("There is no finished run to make a table of.")
    text = ""
    for name, common in blocks.items():
        own = [r for r in rows if r["block"] == name]
        text += f"## {name}\n\n{block_table(own, common)}\n" if own else ""
    for name, settings in starts.items():
        text += (
            f"Start `{name}`: " + ", ".join(f"{k} {v}" for k, v in settings.items()) + ", on the same images, once.\n"
        )
    versions = ", ".join(f"{k} {v}" for k, v in rows[-1]["versions"].items())
    machine = ", ".join(f"{k} {v}" for k, v in rows[-1]["hardware"].items())
    text += f"\nMachine, shared with other work: {machine}; {versions}.\n"
    if path:
        before = Path(path).read_text() if Path(path).is_file() else ""
        said = before[before.index(WHY) :] if WHY in before else f"{WHY}\n"
        write_text(Path(path), f"{TITLE}\n\n{text}\n{said}")
    return text
