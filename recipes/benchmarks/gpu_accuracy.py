"""Parts 5 to 7 of gpu.py: accuracy against the clock on CIFAR-10 with 40 labels; the chains of the papers, scaled down.

The papers' figures stand beside ours: their schedules are up to a hundred times as long.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import torch
from campaign import Campaign, ratio
from step import generated

from hf_lowlabel import Callback, finetune, load_source
from hf_lowlabel.data.caches.image_cache import build_cache
from hf_lowlabel.data.pixels.images import square_of
from hf_lowlabel.evaluation.inference import logits_of
from hf_lowlabel.models import create_backbone
from hf_lowlabel.tasks.classification import eval_view

HERE = Path(__file__).resolve()
SCRATCH = dict(model="resnet18_cifar", from_scratch=True, image_size=32, preset="cifar", max_steps=40_000)
HEADLINE = {  # name -> settings of `finetune`; about 25 minutes for three seeds at once on an H100
    "scratch": dict(SCRATCH, method="flexmatch"),
    "imagenet": dict(
        model="resnet18_in1k_pqf", image_size=96, preset="pretrained", method="fixmatch", max_steps=12_000
    ),
}
PAPER = 90.21  # per cent, FixMatch after BYOL from ImageNet weights, 140 hours of a V100 (Xu et al., tables 1 and 5)


class TestAccuracy(Callback):
    """Accuracy on the test images with every evaluation, for the curve alone: nothing is chosen by it."""

    def __init__(self, campaign: Campaign, key: str, dataset):
        self.campaign, self.key, self.source = campaign, key, load_source(dataset, split="test")
        self.labels, self.cache, self.begin = torch.as_tensor(self.source.labels), None, time.perf_counter()

    def on_evaluate(self, state, scores) -> None:
        model = state.objective.evaluated
        if self.cache is None:
            square, device = square_of(model.preprocessing), next(model.parameters()).device
            self.cache = build_cache(self.source, torch.arange(len(self.labels)).numpy(), device=device, **square)
        right = logits_of(model, self.cache, eval_view(model)).argmax(1) == self.labels[self.cache.indices]
        percent, seconds = 100 * float(right.float().mean()), time.perf_counter() - self.begin
        text = f"{percent:.2f} % at step {state.step} of {state.max_steps}, {seconds / 60:.1f} minutes in this process"
        self.campaign.keep(f"{self.key}/curve/{state.step}", {"text": text, "percent": percent, "seconds": seconds})


def cifar(campaign: Campaign):
    """CIFAR-10, or a few images for a dry run."""
    return generated(16, 60) if campaign.dry else str(campaign.data / "cifar10")


def headline(campaign: Campaign) -> None:
    seeds = campaign.seeds[: 1 if campaign.dry else None]
    for row in list(HEADLINE)[: 1 if campaign.dry else None]:
        keys = [f"5/{row}/{seed}" for seed in seeds]
        waiting = [key for key in keys if campaign.wants(key)]
        if len(waiting) > 1:  # each in a process of its own, all on the one card
            flags = ["--part", "5", "--output", campaign.path, "--work", campaign.work, "--data", campaign.data]
            flags += ["--minutes", campaign.seconds() / 60, "--seeds", *seeds, "--only"]
            command = [sys.executable, str(HERE.parent / "gpu.py"), *map(str, flags)]
            for child in [subprocess.Popen([*command, key]) for key in waiting]:
                child.wait()
            campaign.left += [key for key in waiting if not finished(campaign, key)]
            continue
        for key, seed in zip(keys, seeds, strict=True):
            campaign.figure(key, lambda key=key, row=row, seed=seed: one_seed(campaign, key, row, seed))


def finished(campaign: Campaign, key: str) -> bool:
    """Whether another process has kept this figure."""
    rows = map(json.loads, campaign.path.read_text(encoding="utf-8").splitlines())
    return any(row["key"] == key and "error" not in row for row in rows)


def one_seed(campaign: Campaign, key: str, row: str, seed: int) -> dict:
    settings = dict(HEADLINE[row])
    if not settings.get("from_scratch"):
        settings["model"] = str(campaign.data / settings["model"])
    if campaign.dry:
        settings |= dict(model="cnn6_16", image_size=16, stored_size=16, max_steps=2, batch_size=2, unlabeled_ratio=2)
    else:
        settings |= dict(precision="bf16", eval_steps=settings["max_steps"] // 40, num_labels=40, class_balanced=True)
    folder, dataset = campaign.work / key.replace("/", "-"), cifar(campaign)
    run = finetune(
        **{"num_labels": 20, **settings},
        dataset=dataset,
        seed=seed,
        logging_steps=1000,
        resume=folder.is_dir(),
        output_dir=folder,
        device=campaign.device,
        callbacks=[] if campaign.dry else [TestAccuracy(campaign, key, dataset)],
    )
    minutes = run.progress.seconds / 60  # of all its parts
    found = ratio("ours", 100 * run.metrics["accuracy"], "the paper", PAPER, "%", goal="94 % in 25 minutes")
    return {**found, "text": f"{found['text']}, in {minutes:.1f} minutes of training", "minutes": minutes}


def score(folder: Path, name: str) -> float:
    """In per cent, of a finished run."""
    return 100 * json.loads((folder / "metrics.json").read_text())[name]


def masks(campaign: Campaign, name: str, *flags) -> dict:
    """Mean IoU of CutMix after PixPro and of its supervised baseline, both from ImageNet weights."""
    out, steps = campaign.work / f"masks-{name}", (1, 1) if campaign.dry else (1000, 3000)
    if campaign.dry:
        flags = ("--dataset", "shapes", "--model", tiny_backbone(campaign), "--long-side", 32, "--image-size", 32)
    more = ("--output", out, "--seeds", 0, "--device", campaign.device, "--pretrain-steps", steps[1])
    more += ("--max-steps", steps[0], "--methods", "supervised-weak")
    if campaign.dry:
        campaign.launch("masks_accuracy", *flags, *more)
        return {"text": "ran"}
    campaign.launch("masks_accuracy", *flags, *more, "cutmix", "--starts", "weights", "pixpro")
    after, before = (
        score(out / "pixpro" / "cutmix-20-0", "miou"),
        score(out / "weights" / "supervised-weak-20-0", "miou"),
    )
    every = {str(p.parent.relative_to(out)): score(p.parent, "miou") for p in out.glob("*/*/metrics.json")}
    return ratio("PixPro, then CutMix", after, "supervised", before, "% mean IoU", every=every)


def tiny_backbone(campaign: Campaign) -> Path:
    folder = campaign.work / "tiny"
    if not folder.is_dir():
        torch.manual_seed(0)
        create_backbone("resnet10t", pretrained=False, image_size=32).save_pretrained(folder)
    return folder


def recipe(campaign: Campaign, name: str, folder: str, run: str, paper: float, *flags) -> dict:
    """Test accuracy of a recipe's last run on CIFAR-10, beside the paper's."""
    out = campaign.work / folder
    if campaign.dry:
        flags = (*flags, "--dataset", "digits", "--dry-run")
        campaign.launch(name, *flags, "--output-dir", out)
        return {"text": "ran"}
    resume = ("--resume",) if out.is_dir() and name != "as3l_cifar10" else ()
    campaign.launch(
        name, *flags, "--dataset", campaign.data / "cifar10", "--output-dir", out, "--precision", "bf16", *resume
    )
    (found,) = out.rglob(f"*{run}/metrics.json")  # the recipe names the folders above it, and what came before
    return ratio("ours", score(found.parent, "accuracy"), "the paper", paper, "%", flags=list(map(str, flags)))


def chains(campaign: Campaign) -> None:
    """The papers' schedules over a hundred: 3 of 300 epochs of BYOL, 10,000 of 2^20 steps of FixMatch."""
    weights = campaign.data / "resnet18_in1k_pqf"
    large = ("--model", weights, "--long-side", 288, "--image-size", 224)
    streets = "sky building pole road pavement tree sign fence car pedestrian cyclist".split()
    sets = {
        "cvc_clinicdb": ("--classes", "tissue", "polyp"),
        "camvid": ("--classes", *streets, "--mask-ignore", 11),
    }
    for name, flags in list(sets.items())[: 1 if campaign.dry else None]:
        given = ("--dataset", campaign.data / name, *flags, *large)
        campaign.figure(f"6/{name}", lambda name=name, given=given: masks(campaign, name, *given))
    flags = ("--benchmark", "cifar10", "--model", weights, "--image-size", 96)
    flags += ("--pretrain-epochs", 3, "--max-steps", 10_000)
    if campaign.dry:
        flags = ("--model", "cnn6_16", "--from-scratch", "--image-size", 16, "--pretrain", "none", "--num-labels", 20)
    run = ("target_pretraining", "byol-fixmatch", "fixmatch-40", PAPER)
    campaign.figure("6/BYOL, then FixMatch", lambda: recipe(campaign, *run, *flags))


def rows(campaign: Campaign) -> None:
    """20,000 of 2^20 steps each; S4L's own benchmark is ImageNet, so that its figure stands beside supervised's."""
    length = ("--max-steps", 20_000)
    for method, labels, paper in (("fixmatch", 40, 86.19), ("sscl", 40, 89.71))[: 1 if campaign.dry else None]:
        flags = ("--benchmark", "cifar10", "--method", method, "--num-labels", labels, *length)
        if campaign.dry:
            flags = ("--method", method, "--num-labels", 20, "--max-steps", 2, "--model", "cnn6_16")
        run = ("from_scratch", method, f"{method}-{labels}", paper)
        campaign.figure(f"7/{method}", lambda run=run, flags=flags: recipe(campaign, *run, *flags))
    if campaign.dry:
        return
    for method in ("s4l-rotation", "s4l-exemplar"):
        campaign.figure(f"7/{method}", lambda method=method: s4l(campaign, method))
    flags = ("--num-labels", 40, "--pretrain-epochs", 40, *length)
    run = ("as3l_cifar10", "as3l", "flexmatch", 94.32)
    campaign.figure("7/as3l", lambda: recipe(campaign, *run, *flags))


def s4l(campaign: Campaign, method: str) -> dict:
    """CIFAR-10 with 4,000 labels, against supervised training on the same labels and steps."""

    def accuracy(name: str) -> float:
        folder = campaign.work / f"{name}-4000"
        if not (folder / "metrics.json").is_file():
            finetune(
                dataset=cifar(campaign),
                model="wrn_28_2",
                from_scratch=True,
                image_size=32,
                method=name,
                num_labels=4000,
                class_balanced=True,
                batch_size=64,
                max_steps=10_000,
                precision="bf16",
                resume=folder.is_dir(),
                output_dir=folder,
            )
        return score(folder, "accuracy")

    return ratio("ours", accuracy(method), "supervised", accuracy("supervised"), "%")
