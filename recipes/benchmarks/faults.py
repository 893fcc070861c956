"""What is done to every verb, and how often it holds: python recipes/benchmarks/faults.py --output faults

Commands are killed at their writes, a disk refuses each of their calls, bits of what they read are turned, files and
numbers are replaced by others, and code lies wherever a file of somebody else's may hold some (tests/faults). A case
holds when the command ends in time without a traceback, says what is damaged or answers as it does without the damage,
and after a kill finishes with the same result.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kinds", nargs="+", help="of the cases (default: all)")
    parser.add_argument("--share", type=float, default=1.0, help="how much of each sweep is done (default: all of it)")
    parser.add_argument("--output", type=Path, help="OUTPUT.json and OUTPUT.md are written")
    args = parser.parse_args()
    sys.path.insert(0, str(ROOT))  # the suite that stays is that of the tests
    sandbox, sweeps = (importlib.import_module(f"tests.faults.{name}") for name in ("sandbox", "sweeps"))
    tried, held, seconds, wrong = Counter(), Counter(), Counter(), []
    with tempfile.TemporaryDirectory() as folder:
        box = Path(folder, "box")
        box.mkdir()
        sandbox.build(box)
        for kind in args.kinds or sweeps.SWEEPS:
            begin = time.monotonic()
            for case in sweeps.SWEEPS[kind](box, **sweeps.sized(kind, args.share)):
                tried[kind] += 1
                held[kind] += not case.wrong
                if case.wrong:
                    wrong.append(case)
                    print(f"{case.kind}: {case.name}: {case.wrong}", file=sys.stderr, flush=True)
            seconds[kind] += round(time.monotonic() - begin)
    lines = ["| what is done | tried | held |", "|---|---:|---:|"]
    lines += [f"| {sweeps.WORDS[kind]} | {tried[kind]} | {held[kind]} |" for kind in tried]
    print("\n".join(lines))
    if args.output:
        facts = dict(tried=tried, held=held, seconds=seconds, wrong=[case._asdict() for case in wrong])
        args.output.with_suffix(".json").write_text(json.dumps(facts, indent=1) + "\n")
        args.output.with_suffix(".md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
