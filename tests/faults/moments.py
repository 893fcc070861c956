"""What comes from outside while a verb runs, at its writes and in the middle of what it computes: a signal, another
process that does the same; and the end of a training run at any of its writes, for every method."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

from hf_lowlabel.cli import main

from .injector import Fault, attempt
from .sandbox import VERBS, clear, run
from .sweeps import Case, finished, said, spread, to_go_on

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
HANGS = "THE SECOND ONE DID NOT END"
RUN = (
    *("training/loop.py:train_step", "training/guard.py:undo_if_bad", "training/journal.py:record"),
    *("evaluation/inference.py:run_over", "training/checkpoint.py:save_checkpoint", "training/recording.py:save_model"),
    *("training/recording.py:facts", "hub/card.py:write_card", "api/running.py:publish"),
)
OPENS, SEES = "models/saved_models.py:open_model", "evaluation/inference.py:run_over"
INSIDE: dict[str, tuple[str, ...]] = {  # verb -> functions in the middle of which a signal comes
    "finetune": ("finetuning/fixmatch.py:forward", "training/run.py:finish", *RUN),
    "pretrain": ("pretraining/simclr.py:forward", *RUN),
    "knn": (SEES, "finetuning/probes.py:fit_predict", "hub/card.py:write_card"),
    "probe": ("finetuning/probes.py:head", "training/recording.py:save_model", "api/running.py:publish"),
    "auto": (
        "ladder/frozen.py:judge",
        "ladder/frozen.py:climb",
        "ladder/on_features.py:save",
        "ladder/advice_files.py:page",
    ),
    "auto masks": ("ladder/trained.py:part", "finetuning/pixel_probe.py:head", "ladder/advice_files.py:page"),
    "loop": ("ladder/frozen.py:judge", "selection/feature_file.py:write", "ladder/rounds.py:state_of"),
    "review": ("labeling/to_label.py:write_image", "ladder/review.py:write"),
    "evaluate": (OPENS, SEES, "evaluation/classification.py:classification_scores"),
    "evaluate masks": (OPENS, "evaluation/segmentation.py:probabilities"),
    "predict": ("data/pixels/images.py:open_image", "evaluation/inference.py:predict_images"),
    "predict masks": ("data/pixels/images.py:open_image", "evaluation/segmentation.py:segment"),
    "select": ("selection/features.py:batches", "selection/strategies.py:choose", "selection/reasons.py:reasons"),
    "priors": ("selection/features.py:batches", "selection/priors.py:cluster_priors", "training/priors.py:save_priors"),
    "split": ("data/splits/splits.py:save",),
    "report": ("hub/report.py:read_run", SEES),
    "demo-app": ("hub/app.py:_write_space", "hub/app.py:add_images"),
    "export": ("hub/export_graph.py:write_graph", "hub/export.py:compare"),
    "label": ("labeling/page.py:take", "labeling/page.py:state"),
    "label masks": ("labeling/mask_page.py:save",),
}


def signals(box: Path, verbs: Sequence[str] = tuple(VERBS), most: int = 3, seed: int = 0) -> Iterator[Case]:
    """Each signal before up to `most` of the writes of a verb."""
    for verb, number, answer in whole_runs(box, verbs):
        for signum in SIGNALS:
            for at in spread(number, most, seed + signum):
                wrong = interrupted(box, verb, Fault(at, signum), answer)
                yield Case("signal", f"{verb}: {signum.name} at write {at} of {number}", wrong)


def moments(box: Path, verbs: Sequence[str] = tuple(INSIDE), most: int = 6, seed: int = 0) -> Iterator[Case]:
    """Signals in `most` of the calls of functions in the middle of a verb: each of the three in the first and last."""
    for verb, _, answer in whole_runs(box, verbs):
        for place in INSIDE[verb]:
            number = run(box, VERBS[verb][0], Fault(0, "", place)).touched
            clear(box)
            if not number:
                yield Case("moment", f"{verb}: {place}", "it is never called")
            pairs = [(signum, at) for signum in SIGNALS for at in spread(number, 2, seed)]
            for signum, at in random.Random(f"{place} {seed}").sample(pairs, min(most, len(pairs))):
                wrong = interrupted(box, verb, Fault(at, signum, place), answer)
                yield Case("moment", f"{verb}: {signum.name} in {place}, call {at} of {number}", wrong)


def interrupted(box: Path, verb: str, fault: Fault, answer: tuple) -> str:
    """What is wrong after a signal: the verb ends as it asks, or is done, and the same command finishes."""
    command, left = VERBS[verb]
    done = run(box, command, fault)
    wrong = "" if done.code in (0, 128 + int(fault.error)) else done.verdict or f"exit code {done.code}"
    wrong = wrong or ("traceback" if "Traceback" in done.text else "")
    wrong = wrong or finished(box, command, to_go_on(command), left, answer, verb)
    clear(box)
    return wrong


def writers(box: Path, verbs: Sequence[str] = tuple(VERBS), most: int = 4, seed: int = 0) -> Iterator[Case]:
    """The same command from another process before a write: both end in a sentence, and one whole result is there."""
    for verb, number, answer in whole_runs(box, verbs):
        command, left = VERBS[verb]

        def second(command: str = command) -> None:
            done = attempt(lambda: main(command.split()), seconds=60)
            os.write(1, (HANGS if done.code is None else done.text).encode())

        for at in spread(number, most, seed):
            done = run(box, command, Fault(at, second), seconds=120)
            wrong = done.verdict or (HANGS if HANGS in done.text else "" if done.code in (0, 2) else str(done.code))
            wrong = wrong or finished(box, command, to_go_on(command), left, answer, verb)
            yield Case("two writers", f"{verb} at write {at} of {number}", wrong)
            clear(box)


def whole_runs(box: Path, verbs: Sequence[str]) -> Iterator[tuple[str, int, tuple]]:
    """(verb, its writes, what it says and leaves) of those that end well and leave something."""
    for verb in verbs:
        command, left = VERBS[verb]
        whole = run(box, command)
        answer = said(whole, box, left)
        clear(box)
        if whole.code == 0 and verb != "pretrain --config":
            yield verb, whole.touched, answer
