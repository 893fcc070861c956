"""What grows with the number of files: the start of a run and prediction, for classes and for masks.

    python recipes/benchmarks/growth_files.py --output growth-files.json     # 10 thousand and 100 thousand files

Ten folders of tiny JPEGs (hard links to a thousand of them) with a table of LABELED labels, or one folder of them with
as many masks; a process for every row. start: from the call to the first step of a run that streams its images, so that
reading the folder, the split, the network and the look at a thousand images count, and decoding all does not. memory:
the most the process held above what it had imported. Seconds are of the processor and, behind the slash, of the clock.
The disk is warm: the files have just been written.
Cost: five minutes of one core.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SIDE, DISTINCT, LABELED, COUNTS = 32, 1000, 200, (10_000, 100_000)
NET = dict(model="cnn6_16", from_scratch=True, image_size=SIDE, stored_size=SIDE, workers=0, device="cpu")
SEGMENT = dict(architecture="unet", architecture_args=dict(encoder_depth=3, decoder_channels=[16, 8, 8]))
WHAT = ("start", "start, masks", "predict", "predict, masks")


def write(folder: Path, count: int, masks: bool) -> None:
    """`count` files, links to DISTINCT pictures; LABELED of them have a class or a mask."""
    import numpy as np
    from PIL import Image

    rng, base = np.random.default_rng(0), folder / ".base"
    base.mkdir(parents=True)
    for i in range(DISTINCT):
        Image.fromarray(rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)).save(base / f"{i}.jpg", quality=75)
        Image.fromarray(rng.integers(0, 2, (SIDE, SIDE), dtype=np.uint8)).save(base / f"{i}.png")
    for name in ("images", "masks") if masks else map(str, range(10)):
        (folder / name).mkdir()
    for i in range(count):
        own = folder / ("images" if masks else str(i % 10)) / f"{i:07d}.jpg"
        os.link(base / f"{i % DISTINCT}.jpg", own)
        if masks and i < LABELED:
            os.link(base / f"{i % DISTINCT}.png", folder / "masks" / f"{i:07d}.png")
    if not masks:
        rows = [f"{i % 10}/{i:07d}.jpg,{'ab'[i // 10 % 2]}\n" for i in range(LABELED)]
        (folder / "labels.csv").write_text("file_name,label\n" + "".join(rows))


def one(what: str, count: int, output: Path) -> None:
    import psutil
    import torch

    from hf_lowlabel import Callback, finetune
    from hf_lowlabel.prediction import predictions

    torch.set_num_threads(1)
    masks = what.endswith("masks")
    task = dict(NET, task="segmentation", **SEGMENT) if masks else NET
    photos, model = output.parent / "photos", output.parent / "model"
    write(photos, count, masks)
    shown = photos / "images" if masks else photos
    first: list[float] = []

    class Clock(Callback):
        def on_step_end(self, state, scalars):
            first.extend([time.process_time(), time.perf_counter()] if not first else [])

    given = dict(dataset=str(photos), num_labels=40, batch_size=4, unlabeled_ratio=2, max_steps=2, **task)
    if what.startswith("predict"):
        small = output.parent / "small"
        write(small, 200, masks)
        finetune(**{**given, "dataset": str(small)}, output_dir=str(model))
    before = psutil.Process().memory_info().rss
    begin = time.process_time(), time.perf_counter()
    if what.startswith("predict"):
        written = output.parent / ("out" if masks else "out.csv")
        assert sum(1 for _ in predictions([str(shown)], str(model), [], output=str(written))) == count
        first = [time.process_time(), time.perf_counter()]
    else:
        finetune(**given, memory_budget=0.001, output_dir=str(model), callbacks=[Clock()])
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before / 2**20
    seconds = [round(b - a, 2) for a, b in zip(begin, first, strict=True)]
    output.write_text(json.dumps(dict(what=what, files=count, cpu_s=seconds[0], wall_s=seconds[1], memory_mib=memory)))


def main() -> None:
    if sys.argv[1:2] == ["--one"]:
        return one(sys.argv[2], int(sys.argv[3]), Path(sys.argv[4]))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="+", default=list(COUNTS))
    parser.add_argument("--what", nargs="+", default=list(WHAT), choices=WHAT)
    parser.add_argument("--output", help="JSON file for the figures")
    args = parser.parse_args()
    rows = []
    for what in args.what:
        for count in args.counts:
            with tempfile.TemporaryDirectory() as folder:
                out = Path(folder) / "seen.json"
                command = [sys.executable, __file__, "--one", what, str(count), str(out)]
                done = subprocess.run(
                    command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
                )
                if done.returncode:
                    raise SystemExit(done.stderr[-2000:])
                rows.append(json.loads(out.read_text()))
                print(rows[-1], file=sys.stderr, flush=True)
    from hf_lowlabel.records import collect_hardware, collect_versions

    print("| what | files | seconds | memory MiB |\n|---|---:|---:|---:|")
    for r in rows:
        print(f"| {r['what']} | {r['files']:,} | {r['cpu_s']:.1f} / {r['wall_s']:.1f} | {r['memory_mib']:.0f} |")
    facts = {**collect_hardware(), **collect_versions()}
    print("\n" + ", ".join(f"{k} {v}" for k, v in facts.items()))
    if args.output:
        Path(args.output).write_text(json.dumps({"rows": rows, "facts": facts}, indent=1) + "\n")


if __name__ == "__main__":
    main()
