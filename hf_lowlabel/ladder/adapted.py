"""The encoder adapted to the images first (target pretraining), if time remains after all other candidates.

seconds of a step, measured -> steps that fit -> pretrain, pulled to the weights it starts from -> the frozen rungs on
the new features, judged on the same labels left out

How far the images are from what the encoder knows is not guessed: clearly more labels left out have to be right. Short
runs did harm (recipes/benchmarks/README.md), so that it needs many steps.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..api.running import settled
from ..arguments import Config, known_settings
from ..distributed import all_mean, barrier, is_main_process, of_first, world
from ..errors import Diverged
from ..files import write_json
from ..tasks.attempts import ADAPTATION
from ..text import percent
from ..training import pretrain
from ..training.preparing import Prepared
from .class_names import ByNames
from .clock import Clock
from .encoders import Features
from .frozen import climb
from .image_side import rebuilt
from .planning import SPENT
from .rungs import Tried, clearly_more
from .search_state import TRIALS, features_of_encoder, read_kept
from .trained import hushed

log = logging.getLogger("hf_lowlabel")
FEWEST, MOST = 500, 2000  # steps
LEAST = 120.0  # seconds below which nothing is measured
PASSES = 8  # forward passes that a step's time is worth: two views there and back, two of the teacher


@dataclass
class Adapted:
    """The frozen rungs on the adapted encoder, the best first, and the best without it on the same labels left out."""

    ready: Prepared
    encoder: Features
    tried: list[Tried]
    before: Tried
    steps: int

    @property
    def kept(self) -> bool:
        return clearly_more(self.tried[0].correct, self.before.correct)

    def sentence(self) -> str:
        """What it brought, for the advice."""
        a, b = percent(self.before.accuracy or 0.0), percent(self.tried[0].accuracy or 0.0)
        verdict = "taken" if self.kept else "not taken"
        return (
            f"Adapting the encoder to the images without labels first ({ADAPTATION.name}, {self.steps} steps): {b} "
            f"right in cross-validation, {a} without it; {verdict}."
        )


def adapt(
    ready: Prepared,
    given: Mapping[str, Any],
    encoder: Features,
    before: Tried,
    seconds: float,
    names: ByNames | None = None,
    rounds: int | None = None,
) -> Adapted | None:
    """The rung, where the time allows `FEWEST` steps and a label can be left out.

    Args:
        ready: the run, with the network that is adapted.
        given: settings of `finetune`, of which those that `pretrain` has are taken.
        encoder: its features. before: the best of the rungs on them.
        seconds: time left.
        names: what the names of the classes say of the images.
        rounds: of cross-validation, those of the rungs before.
    """
    folder, begin, seconds = ready.folder / TRIALS / "adapted", time.perf_counter(), of_first(seconds)
    if before.accuracy is None or not (seconds > LEAST or (folder / "steps.json").is_file()):
        return None
    config = settings(ready, given, folder)
    try:
        steps = planned(ready, config, folder, seconds)
        if not steps:
            return None
        pretrained(ready, config, folder, steps)
    except Diverged as error:
        log.warning("the encoder is not adapted: %s", str(error).split(";")[0])
        return None
    with hushed():
        own = rebuilt(ready, model=str(folder / "encoder"))
    name = f"{encoder.name} adapted to the images"
    x = features_of_encoder(own, folder)  # of this search alone
    said = None if names is None else names.p
    found = Features(name, x, encoder.rows, encoder.y, encoder.num_classes, said, encoder.copies)
    tried = climb([found], encoder.y, seed=ready.config.training.seed, rounds=rounds, beside=before)
    for one in tried:
        one.adapted = True
    out = Adapted(own, found, tried, before, steps)
    log.info("%s in %.0f s", out.sentence().rstrip("."), time.perf_counter() - begin)
    return out


def settings(ready: Prepared, given: Mapping[str, Any], folder: Path) -> Config:
    known = known_settings("pretrain")
    own = {name: value for name, value in given.items() if name in known} | dict(ADAPTATION.settings)
    own["batch_size"] = max(min(own["batch_size"], len(ready.training)) // world(), 2) * world()
    where = dict(split=str(ready.folder / "split.json"), output_dir=str(folder / "encoder"), callbacks=())
    return settled("pretrain", {**own, **where})


def planned(ready: Prepared, config: Config, folder: Path, seconds: float) -> int:
    """Steps that fit, 0 for none; from the disk where a search was begun."""
    path = folder / "steps.json"
    if path.is_file():
        return int(read_kept(path)["steps"])
    begin, steps = time.perf_counter(), 0
    if FEWEST * at_a_glance(ready, config) < seconds:
        each = seconds_of_step(ready, config, folder / "clock")
        after = 4 * len(ready.training) / (PASSES * config.training.batch_size) * each  # features of all, four times
        left = SPENT * (seconds - (time.perf_counter() - begin)) - after
        steps = min(int(left / each), MOST)
    if steps < FEWEST:
        steps = 0
        log.info("too little time is left to adapt the encoder to the images: a new search with more --minutes does")
    if is_main_process():
        shutil.rmtree(folder / "clock", ignore_errors=True)
        write_json(path, {"steps": steps})
    barrier()
    return int(read_kept(path)["steps"])  # what the first process has planned, by its clock


def at_a_glance(ready: Prepared, config: Config) -> float:
    """Seconds that a step takes at least, by a forward pass: to measure one needs all images once more."""
    task: Any = ready.task
    begin = time.perf_counter()
    task.features(ready.network.model, ready.training, torch.arange(config.training.batch_size))
    return float(all_mean(torch.tensor(0.5 * PASSES * (time.perf_counter() - begin))))


def seconds_of_step(ready: Prepared, config: Config, folder: Path) -> float:
    clock = Clock()
    with hushed():
        once = config.replace(max_steps=10**6, save_steps=10**6, output_dir=str(folder))
        pretrain.run(ready.task, once, folder, [clock], trial=True)
    return float(all_mean(torch.tensor(clock.seconds)))


def pretrained(ready: Prepared, config: Config, folder: Path, steps: int) -> None:
    """The adapted encoder in folder/encoder; what a killed search has of it is gone on with."""
    done = folder / "done.json"
    if done.is_file():
        return
    home = folder / "encoder"
    home.mkdir(parents=True, exist_ok=True)
    with hushed():
        pretrain.run(ready.task, config.replace(max_steps=steps, resume=(home / "checkpoints").is_dir()), home)
    if is_main_process():
        write_json(done, {"steps": steps})
        shutil.rmtree(home / "checkpoints", ignore_errors=True)  # after it: half of them are none to go on from
    barrier()
