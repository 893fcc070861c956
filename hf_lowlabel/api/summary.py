"""Console summary at the end of a run."""

from __future__ import annotations

import yaml

from ..distributed import is_main_process
from ..hub.card_parts import columns
from ..settings import recorded
from ..tasks import get_task, of_record
from ..tasks.choosing import DRAWN
from ..text import clock
from ..training.class_counts import without
from ..training.cross_validated import left_out_words
from ..training.loop import Loop
from ..training.preparing import Run
from ..training.recording import peak_memory

FEW_DRAWN = 20  # test images below which a score is hardly one
LEFT = (
    *("model.safetensors", "predictions.parquet", "priors.safetensors", "README.md", "split.json", "metrics.json"),
    "curves.png",
)


def summarise(run: Run) -> None:
    """Print the results, or for a dry run what the real run will cost; only on the first process."""
    if not is_main_process():
        return
    if run.config.training.dry_run:
        tell_dry(run)
        return
    speaks = of_record(run.recorder.kind)
    shown = {m.key for m in columns(speaks, [run.metrics], len(run.metrics.get("class_names") or ()))}
    if run.config.verb == "finetune":
        shown.add(f"validation_{get_task(run.config.task).score.key}")
    scores = {k: v for k, v in run.metrics.items() if isinstance(v, float) and k in shown}
    said, tested = "  ".join(f"{k} {v:.4f}" for k, v in scores.items()), run.metrics.get("images")
    of = f"  ({tested:,} test image{'s' * (tested != 1)})" if said and tested else ""
    lines = [*filter(None, [f"{said}{of}", left_out_words(run)])]
    if not lines and not run.recorder.ladder:  # `auto` has said how good it is by labels left out
        lines = ["not measured: no labeled image is held out to test on"]
    for line in lines:
        print(line)
    for line in speaks.console(run.metrics):
        print(line)
    if said and tested and tested < FEW_DRAWN and (run.recorder.test_words or "").endswith(DRAWN):
        print(
            f"A test on so few images ({tested}, drawn from the labeled ones) is no verdict: "
            "--test-fraction 0 learns from all labels, and cross-validates a layer on the frozen features."
        )
    if run.config.verb == "finetune" and (names := run.recorder.labels().without):
        print(without(names))
    print(f"saved to {run.folder}: {', '.join(name for name in LEFT if (run.folder / name).is_file())} ...")


def tell_dry(run: Run) -> None:
    config, loop = run.config, run.progress
    given = {k: v for k, v in recorded(config).items() if v not in (None, [], {})}
    print(yaml.safe_dump(given, sort_keys=False, allow_unicode=True).rstrip())
    images = sum(cache.nbytes for cache in run.recorder.caches)
    print(f"\nmemory: {peak_memory() / 2**30:.2f} GiB at most ({images / 2**30:.3f} GiB of it images)")
    if not loop.steps:
        print("dry run: features, evaluation and save worked; nothing was kept")
        return
    assert isinstance(loop, Loop)  # whatever takes steps is one
    steps = config.training.max_steps
    seconds = steps * loop.step_seconds + steps / loop.real_eval_steps() * loop.eval_seconds
    print(
        f"time: {clock(seconds)} expected for {steps} steps at {loop.step_seconds:.3f} s each "
        f"and {loop.eval_seconds:.1f} s an evaluation"
    )
    print("dry run: 2 steps, evaluation and save worked; nothing was kept")
