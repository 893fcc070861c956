"""How near every method is to its authors' code and to its paper's equations, from the golden numbers of the tests.

    python recipes/benchmarks/fidelity.py                                    # the table
    python recipes/benchmarks/fidelity.py --page recipes/results/fidelity.md

Of each case the losses of three steps on fixed tensors, in float32 on the CPU, beside those that other code gave
(tests/golden/values.py says which, and how). Seconds on one core; needs a clone of the repository.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from hf_lowlabel.files import write_text

ROOT = Path(__file__).resolve().parents[2]
for folder in ("finetuning", "pretraining", "golden"):
    sys.path.insert(0, str(ROOT / "tests" / folder))

PAGE = """# Fidelity

Made by `python recipes/benchmarks/fidelity.py --page recipes/results/fidelity.md` from the golden numbers of
`tests/golden`: the losses of three steps of every method on the same fixed tensors, here in float32, and as other code
computes them. Nothing is trained in between, but what a method remembers moves on. A number is the largest relative
difference of a case. Settings and lengths of presets, views and schedules are not part of it; what is not as in the
authors' code stands in the class's docstring.

| method | reference | how its numbers were made | compared | largest difference |
|---|---|---|---|---:|
"""


def rows() -> list[str]:
    """The lines of the table."""
    from cases import chosen, difference, hard_difference
    from values import CHOSEN, GOLDEN, HARD, RUN

    lines = [
        f"| {case} | {g.reference} | {g.how} | {g.compared} | {difference(case):.0e} |" for case, g in GOLDEN.items()
    ]
    lines.append(f"| unimatch, hard pixels | {HARD[0]} | {RUN} | loss of labeled pixels | {hard_difference():.0e} |")
    for case, (reference, budget, expected) in CHOSEN.items():
        found = "none" if chosen(case) == expected else f"{len(set(chosen(case)) - set(expected))} images"
        lines.append(f"| {case} | {reference} | {RUN} | {budget} images chosen of 60 | {found} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--page", help="Markdown file for the table")
    args = parser.parse_args()
    text = PAGE + "\n".join(rows()) + "\n"
    print(text)
    if args.page:
        write_text(Path(args.page), text)


if __name__ == "__main__":
    main()
