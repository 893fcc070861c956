"""What is done to every verb, and how often it holds: python recipes/benchmarks/faults.py --output faults

Commands are killed at their writes, a disk refuses each of their calls, bits of what they read are turned, files and
numbers are replaced by others, and code lies wherever a file of somebody else's may hold some (tests/faults). A case
holds when the command ends in time without a traceback, says what is damaged or answers as it does without the damage,
and after a kill finishes with the same result. With --output, a kind that is done is kept: the same command goes on
with the next one.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", nargs="+", help="of the cases (default: all)")
    parser.add_argument("--share", type=float, default=1.0, help="how much of each sweep is done (default: all of it)")
    parser.add_argument("--output", type=Path, help="OUTPUT.json and OUTPUT.md are written, after each kind")
    args = parser.parse_args()
    sys.path.insert(0, str(ROOT))  # the suite that stays is that of the tests
    os.environ["HF_HUB_OFFLINE"] = "1"  # nothing here is of the Hub, and asking takes its time
    sandbox, kinds = (importlib.import_module(f"tests.faults.{name}") for name in ("sandbox", "kinds"))
    kept = args.output and args.output.with_suffix(".json")
    facts = json.loads(kept.read_text()) if kept and kept.is_file() else {}
    left = [kind for kind in args.kinds or kinds.SWEEPS if facts.get(kind, {}).get("share") != args.share]
    with tempfile.TemporaryDirectory() as folder:
        box = Path(folder, "box")
        box.mkdir()
        if left:
            sandbox.build(box)
        for kind in left:
            facts[kind] = swept(kinds, kind, box, args.share)
            if args.output:
                part = kept.with_suffix(".part")
                part.write_text(json.dumps(facts, indent=1) + "\n")
                part.replace(kept)
    lines = table(kinds, facts)
    print("\n".join(lines))
    if args.output:
        args.output.with_suffix(".md").write_text("\n".join(lines) + "\n")


def table(kinds: ModuleType, facts: dict[str, Any]) -> list[str]:
    """In markdown; share: how much of what there is to try was tried."""
    lines = ["| fault | share | tried | passed |", "|---|---:|---:|---:|"]
    for kind in (kind for kind in kinds.SWEEPS if kind in facts):
        one = facts[kind]
        share = one["share"] if kinds.sized(kind, 1) else 1
        lines.append(f"| {kinds.WORDS[kind]} | {share:g} | {one['tried']} | {one['held']} |")
    total = [sum(one[key] for one in facts.values()) for key in ("tried", "held")]
    return [*lines, f"| together | | {total[0]} | {total[1]} |"]


def swept(kinds: ModuleType, kind: str, box: Path, share: float) -> dict[str, Any]:
    """The cases of a kind: how many were tried and held, in how many seconds, and what was wrong with the others."""
    begin, tried, wrong = time.monotonic(), 0, []
    for case in kinds.SWEEPS[kind](box, **kinds.sized(kind, share)):
        tried += 1
        if case.wrong:
            wrong.append(case._asdict())
            print(f"{case.kind}: {case.name}: {case.wrong}", file=sys.stderr, flush=True)
    return dict(share=share, tried=tried, held=tried - len(wrong), seconds=round(time.monotonic() - begin), wrong=wrong)


if __name__ == "__main__":
    main()
