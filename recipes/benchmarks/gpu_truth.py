"""Part 1 of gpu.py: what CUDA computes is what the CPU computes, without waiting, and within the memory that was told.

Both sides start from the same weights and draws, with TF32 off. Methods that draw random numbers on the device (mixing,
dropout, VAT's first direction) have others there: their losses differ by more than rounding.
"""

from __future__ import annotations

import contextlib
import shutil
import warnings
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from campaign import Campaign, ratio
from safetensors.torch import load_file
from step import generated

import hf_lowlabel
from hf_lowlabel import Callback, load_source
from hf_lowlabel.methods import find, methods_for
from hf_lowlabel.tasks import TASKS, get_task
from hf_lowlabel.training.loop import Loop
from hf_lowlabel.training.priors import save_priors
from hf_lowlabel.training.recording import peak_memory
from hf_lowlabel.views import build_view, uniforms
from hf_lowlabel.views.table import VIEWS

SMALL = dict(from_scratch=True, batch_size=12, logging_steps=1, eval_steps=10**6, save_steps=10**6)
UNET = dict(architecture="unet", architecture_args=dict(encoder_depth=3, decoder_channels=[16, 8, 8]))
SETTINGS = {  # (verb, task) -> a run of seconds on generated or embedded images
    ("pretrain", "classification"): dict(SMALL, model="wrn_10_2", image_size=16, stored_size=16),
    ("pretrain", "segmentation"): dict(SMALL, model="cnn6_16", image_size=32, dataset="shapes", batch_size=4),
    ("finetune", "classification"): dict(SMALL, model="wrn_10_2", image_size=16, stored_size=16, num_labels=20),
    ("finetune", "multilabel"): dict(SMALL, model="cnn6_16", image_size=16, dataset="scenes", num_labels=20),
    ("finetune", "segmentation"): dict(
        SMALL, **UNET, model="cnn6_16", image_size=32, dataset="shapes", num_labels=8, batch_size=4
    ),
}


def runs() -> list[tuple[str, str, str]]:
    """(verb, task, method) of everything that trains a network."""
    found = [
        ("pretrain", task, name)
        for task in ("classification", "segmentation")
        for name in methods_for("pretrain")
        if task in find(name).tasks
    ]
    for task in TASKS:
        found += [("finetune", task, name) for name in get_task(task).methods("finetune")]
    return [run for run in found if not getattr(find(run[2]), "frozen", False)]


def truth(campaign: Campaign) -> None:
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    few = 1 if campaign.dry else None
    for kind in list(VIEWS)[1:][:few]:
        campaign.figure(f"1/view/{kind}", lambda kind=kind: view(campaign, kind))
    for verb, task, method in [("finetune", "classification", "supervised")] if campaign.dry else runs():
        for precision in ("fp32",) if campaign.dry else ("fp32", "bf16"):
            key = f"1/step/{verb}/{task}/{method}/{precision}"
            campaign.figure(key, lambda run=(verb, task, method, precision): step(campaign, *run))
    three = [("finetune", "classification", "fixmatch"), ("pretrain", "classification", "byol")]
    for verb, task, method in [*three, ("finetune", "segmentation", "cutmix")][:few]:
        campaign.figure(f"1/resume/{method}", lambda run=(verb, task, method): resume(campaign, *run))
        campaign.figure(f"1/memory/{method}", lambda run=(verb, task, method): memory(campaign, *run))
    for verb, task, method in [] if campaign.dry else runs():
        campaign.figure(f"1/waits/{verb}/{task}/{method}", lambda run=(verb, task, method): waits(campaign, *run))


def view(campaign: Campaign, kind: str) -> dict:
    """Pixels of a view on CUDA that are not the CPU's, and by how much."""
    count, size = (2, 32) if campaign.dry else (64, 224)
    # colours of 0 to 255 before normalising
    made = build_view(kind, size=size, mean=(0.0,) * 3, std=(1 / 255,) * 3)
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.integers(0, 256, (count, 3, size + 32, size + 32), dtype=np.uint8))
    u = uniforms(0, "views", 0, count, made.width)
    host, device = made(images, u), made(images.to(campaign.device), u).cpu()
    off = (host - device).abs()
    text = f"{float((off > 0.5).float().mean()):.2e} of the values are off by more than half a level, none by more than"
    return {"text": f"{text} {float(off.max()):.3g} of 255", "largest": float(off.max())}


def settings(campaign: Campaign, verb: str, task: str, method: str, **more) -> dict:
    given = {**SETTINGS[verb, task], "task": task, "method": method, **more}
    given.setdefault("dataset", generated(16, 60 if campaign.dry else 240))
    if task == "segmentation" and verb == "pretrain":
        given["method_args"] = dict(hidden=16, out=8)
    if find(method).prior == "must":
        source = load_source(given["dataset"])
        prior = campaign.work / "priors.safetensors"
        prior.parent.mkdir(parents=True, exist_ok=True)
        worth = np.random.default_rng(0).dirichlet(np.ones(len(source.class_names)), len(source))
        save_priors(prior, worth, source.ids, source.class_names)
        given["prior"] = prior
    return given


def train(campaign: Campaign, name: str, verb: str, task: str, method: str, **more):
    """The run, in a new folder of its own."""
    folder = campaign.work / "truth" / name
    if not more.get("resume"):
        shutil.rmtree(folder, ignore_errors=True)
    return getattr(hf_lowlabel, verb)(**settings(campaign, verb, task, method, **more), output_dir=folder)


def step(campaign: Campaign, verb: str, task: str, method: str, precision: str) -> dict:
    """Losses of two steps: the second shows the gradients, the optimizer and the teacher of the first."""

    def losses(device: str) -> list[float]:
        run = train(campaign, device, verb, task, method, max_steps=2, device=device, precision=precision)
        return [row["loss"] for row in run.history if "loss" in row]

    host, device = losses("cpu"), losses(campaign.device)
    off = [abs(a - b) / max(abs(a), 1e-6) for a, b in zip(host, device, strict=True)]
    goal = "off by 1e-3 at most" if precision == "fp32" else "off by 5e-2 at most"
    found = ratio("second loss on CUDA", device[1], "on the CPU", host[1], "nats", goal=goal, off=off)
    return {**found, "text": f"{found['text']}, off by {off[0]:.1e} and {off[1]:.1e}"}


class Broken(Exception):
    """In place of a machine that is lost."""


class Break(Callback):
    def on_step_end(self, state, scalars) -> None:
        if state.step == 3:
            raise Broken


def resume(campaign: Campaign, verb: str, task: str, method: str) -> dict:
    """Weights after four steps, lost after three and resumed at two, against those of a run that went through."""
    more = dict(max_steps=4, device=campaign.device)
    whole, again = (train(campaign, name, verb, task, method, **{**more, "save_steps": 2}) for name in ("a", "b"))
    with contextlib.suppress(Broken):
        train(campaign, "c", verb, task, method, **{**more, "save_steps": 2}, callbacks=[Break()])
    resumed = train(campaign, "c", verb, task, method, **{**more, "save_steps": 2}, resume=True)
    broken, other = (farthest(whole.folder, run.folder) for run in (resumed, again))
    return ratio("resumed is off by", broken, "a second whole run by", other, "at most", goal="0 and 0")


def farthest(a: Path, b: Path) -> float:
    """Largest difference between the tensors of two finished runs."""
    one, two = (load_file(next(p.glob("checkpoints/step-*4")) / "objective.safetensors") for p in (a, b))
    return max(float((one[k].double() - two[k].double()).abs().max()) for k in one if one[k].numel())


def memory(campaign: Campaign, verb: str, task: str, method: str) -> dict:
    """The most that a run takes, against what --dry-run told."""

    def peak(**more) -> float:
        if campaign.cuda:
            torch.cuda.empty_cache(), torch.cuda.reset_peak_memory_stats()
        train(campaign, "memory", verb, task, method, device=campaign.device, **more)
        return peak_memory() / 2**20

    told = peak(max_steps=20, dry_run=True)
    return ratio("a run of 20 steps", peak(max_steps=3 if campaign.dry else 20), "--dry-run told", told, "MiB")


def waits(campaign: Campaign, verb: str, task: str, method: str) -> dict:
    """Times that steps 2 to 4, the making of their batches included, wait for the device (torch's own detector)."""
    original, found = Loop.train_step, []

    def train_step(self, batch):
        if campaign.cuda:
            torch.cuda.set_sync_debug_mode("warn" if 1 <= self.step < 4 else "default")
        return original(self, batch)

    try:
        with warnings.catch_warnings(record=True) as found, mock.patch.object(Loop, "train_step", train_step):
            warnings.simplefilter("always")
            more = dict(max_steps=5, device=campaign.device, logging_steps=99)
            train(campaign, "waits", verb, task, method, **more)
    finally:
        if campaign.cuda:
            torch.cuda.set_sync_debug_mode("default")
    places = sorted({f"{w.filename}:{w.lineno}" for w in found if "synchroniz" in str(w.message)})
    return ratio("waits in three steps", len(places), "allowed", 0, "places", goal="0", places=places)
