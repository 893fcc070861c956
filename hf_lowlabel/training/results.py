"""What a run leaves in its folder: model, split, metrics, pictures, configuration, facts and card."""

from __future__ import annotations

import logging
import os
import resource
import shutil
import sys
from pathlib import Path

import numpy as np
import torch
import yaml
from safetensors import SafetensorError
from transformers.utils import logging as transformers_logging

from ..arguments import RunConfig
from ..data.dataset import ImageDataset
from ..data.published import is_published
from ..data.splits import Split
from ..distributed import world
from ..errors import UserError
from ..evaluation import plots
from ..evaluation.overlays import Examples
from ..hub.card import write_card_safely
from ..hub.lineage import compare_with, ids_hash, images_seen, lineage_of, starting_weights
from ..models.lora import merged
from ..records import Data, Labels, Row, RunRecord, Stage, collect_command, collect_hardware, collect_versions
from ..settings import to_dict
from .checkpoint import write_json
from .loop import Loop

log = logging.getLogger("hf_lowlabel")
PRIVATE = ("output_dir", "resume", "dry_run", "push_to_hub", "hub_private")  # settings that say nothing about the model


class Recorder:
    """Collects the facts of a run while it goes on and writes them down; only the main process writes."""

    def __init__(
        self,
        config: RunConfig,
        folder: Path,
        source: ImageDataset,
        split: Split | None,
        load_report,
        pools: dict,
        squares: int = 1,
    ):
        self.config, self.folder, self.source, self.split, self.report, self.pools = (
            config,
            folder,
            source,
            split,
            load_report,
            pools,
        )
        self.squares = squares  # of each image in the first pool
        self.main = int(os.environ.get("RANK", "0")) == 0
        self.test_words = self.test_split = self.saw_test = None
        self.before = self._before(load_report) if self.main else []
        self._check_baseline()
        self.comparisons: list[Row] = []  # rows beside this run's own in the table of its card
        self.shown: dict[str, int] | None = None  # class -> labeled masks that show it
        if self.main and not config.resume:
            (folder / "training.yaml").write_text(yaml.safe_dump(to_dict(config), sort_keys=False))
        if self.main and split is not None:
            split.save(folder / "split.json")

    def _before(self, report) -> list[Stage]:
        """The lineage of the weights that the run starts from."""
        known = lineage_of(*self.start) if self.start else []
        return known or [starting_weights(report.source, report.revision or self.config.model_revision, report.license)]

    def _check_baseline(self) -> None:
        """A baseline that cannot be compared with is found before training."""
        folder = getattr(self.config, "compare_supervised", None)
        if folder and self.main:
            other = RunRecord.from_json(Path(folder, "run.json"))
            if other.kind != self.config.task or not other.metrics:
                raise UserError(
                    f"found a run of {other.kind} with{'' if other.metrics else 'out'} results in {folder}; expected a "
                    f"finished run of {self.config.task} to compare with; fix: another --compare-supervised, or leave it out"
                )

    @property
    def start(self) -> tuple[str, str | None] | None:
        """(folder or Hub id, revision) of the weights the run starts from; None: random ones."""
        if self.config.from_scratch and not self.config.init_from:
            return None
        return self.config.init_from or self.config.model.model, self.report.revision or self.config.model_revision

    def tests_on(
        self, source: ImageDataset, indices: np.ndarray, words: str | None = None, published: str | None = None
    ) -> None:
        """Note which images are the test set, and warn of those that the starting weights have been trained on."""
        self.test_words, self.test_split = words, published
        if not (self.main and self.start and len(indices)):
            return
        self.saw_test = images_seen(self.start[0], source, [source.ids[i] for i in indices], self.start[1]) or None
        if self.saw_test:
            log.warning(
                "%d of the %d test images are among those that %s was trained on: results on them may be too good; fix: "
                "give the same --split to pretrain, which then leaves them out",
                self.saw_test,
                len(indices),
                self.start[0],
            )

    def start_words(self) -> str:
        """What the run starts from, for a row of a table."""
        stage = self.before[-1] if self.before else Stage("the starting weights")
        if stage.what == "target pretraining":
            return f"the weights after {stage.method}"
        return " ".join(filter(None, [stage.what, stage.name]))

    def save(self, loop, metrics: dict, final: bool, model: bool = True) -> None:
        """Write the evaluated network (unless `model` is False: the run made none) and all that belongs to it."""
        if not self.main:
            return
        network = merged(loop.inner.evaluated)
        if model:
            save_model(network, self.folder)
        facts = self.facts(loop, network, metrics)
        if metrics:
            write_json(self.folder / "metrics.json", metrics)
        facts.to_json(self.folder / "run.json")
        if final and loop.history:
            plots.curves(loop.history, self.folder / "curves.png", title=f"{self.config.method} on {self.source.name}")
        write_card_safely(self.folder, facts)
        if final:
            for (
                tracker
            ) in loop.accelerator.trackers:  # not end_training(), which would leave the other processes' group: a
                tracker.finish()  # second run in the same processes would wait for this one forever

    def facts(self, loop, network, metrics: dict) -> RunRecord:
        config, kind = self.config, "backbone" if self.config.verb == "pretrain" else self.config.task
        pool = next(iter(self.pools.values()))
        images = (
            len(pool) // self.squares if hasattr(pool, "__len__") else None
        )  # nobody counts those of a ShardedStream
        verb = "target pretraining" if kind == "backbone" else "finetuning"
        stage = Stage(
            verb, method=config.method, dataset=self.source.name, images=images, steps=loop.step, saw_test=self.saw_test
        )
        hub_id = self.source.name if self.source.revision else None
        counted = images is not None
        facts = RunRecord(
            kind,
            method=config.method,
            architecture=network.config.encoder if kind == "segmentation" else network.config.architecture,
            parameters=sum(p.numel() for p in network.parameters()),
            image_size=config.image_size if kind == "segmentation" else network.preprocessing["input_size"][-1],
            class_names=list(self.split.class_names) if self.split and kind != "backbone" else [],
            lineage=[*self.before, stage],
            data=Data(
                self.source.name,
                hub_id=hub_id,
                config=self.source.config,
                revision=self.source.revision,
                split=self.source.split,
                fingerprint=self.source.fingerprint if counted else None,
                ids_hash=ids_hash(self.source) if counted else None,
                license=self.source.license,
                images=images,
                unlabeled_from=config.unlabeled_dataset,
                test=self.test_words,
                test_split=self.test_split,
            ),
            labels=self.labels() if kind != "backbone" else None,
            metrics=metrics,
            hyperparameters={k: v for k, v in to_dict(config).items() if v not in (None, [], {}) and k not in PRIVATE},
            seed=config.seed,
            steps=loop.step,
            seconds=round(loop.seconds, 1),
            command=collect_command(),
            versions=collect_versions(),
            hardware={**collect_hardware(world()), "peak_memory_gib": round(peak_memory() / 2**30, 3)},
        )
        stride = (network.config.model_args or {}).get("output_stride") if kind == "backbone" else None
        if stride:  # also where the weights it started from brought it along
            facts.hyperparameters["output_stride"] = stride
        baseline = getattr(config, "compare_supervised", None)
        if baseline:
            facts.comparisons.append(compare_with(facts, baseline, "supervised, same labels"))
        facts.comparisons += self.comparisons
        return facts

    def labels(self) -> Labels:
        given = list(self.split.labeled.values())
        name = self.config.split and (
            self.config.split if is_published(self.config.split) else Path(self.config.split).name
        )
        how = (
            f"from the manifest {name}"
            if name
            else (
                f"at random, {'the same number per class, ' if self.config.class_balanced else ''}seed {self.config.seed}"
            )
        )
        counts = {name: given.count(name) for name in self.split.class_names} if self.shown is None else self.shown
        return Labels(len(given), counts, how, self.split.hash)

    def pictures(
        self, pool, probabilities: np.ndarray, targets: np.ndarray, class_names: list[str], metrics: dict
    ) -> None:
        """predictions.png, confusion.png and reliability.png of the test images."""
        if not self.main:
            return
        plots.predictions(
            lambda i: self._picture(pool, i), probabilities, targets, class_names, self.folder / "predictions.png"
        )
        plots.confusion(metrics, self.folder / "confusion.png")
        plots.reliability(metrics, self.folder / "reliability.png")

    def mask_pictures(self, examples: Examples, metrics: dict) -> None:
        """predictions.png (input, truth, prediction, confidence) and confusion.png of the test images."""
        examples.save(metrics["class_names"], self.folder / "predictions.png")
        plots.confusion({**metrics, "accuracy": metrics["pixel_accuracy"]}, self.folder / "confusion.png")

    @staticmethod
    def _picture(pool, i: int) -> np.ndarray:
        return pool.take(torch.tensor([i]))[0].permute(1, 2, 0).cpu().numpy()


class Run:
    """A finished (or dry) run, as `pretrain` and `finetune` return it.

    config: the settings, resolved. folder: where model, card, split, metrics and pictures lie. model: the network that was
    saved, in memory; `model.save_pretrained(folder)` saves it elsewhere. metrics: results on the test images by name.
    loop: the training loop, whose `history` has the logged rows. recorder: what the card is made of.
    """

    def __init__(
        self, config: RunConfig, folder: Path, model: torch.nn.Module, metrics: dict, loop: Loop, recorder: Recorder
    ):
        self.config, self.folder, self.model, self.metrics = config, folder, model, metrics
        self.loop, self.recorder = loop, recorder

    def __repr__(self) -> str:
        shown = {k: round(v, 4) for k, v in self.metrics.items() if isinstance(v, float)}
        return f"Run({self.config.verb} {self.config.method}, {self.folder}, {shown})"

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool = False,
        create_pr: bool = False,
        revision: str | None = None,
        token: str | None = None,
    ):
        """Put model, card, split, metrics and pictures on the Hub in one commit; see `hf_lowlabel.hub.push.push`."""
        from ..hub.push import push

        return push(self.folder, repo_id, private=private, create_pr=create_pr, revision=revision, token=token)


def save_model(network, folder: Path) -> None:
    """config.json, model.safetensors, preprocessor_config.json and a segmenter's code: written aside, then moved into place one by one."""
    aside = folder / f".model.{os.getpid()}"
    shutil.rmtree(aside, ignore_errors=True)
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        save_standalone(network, aside)
        for file in sorted(aside.iterdir(), key=lambda p: p.name == "config.json"):  # the last one, it says: complete
            os.replace(file, folder / file.name)
    except (OSError, SafetensorError) as e:  # the latter on a full disk too
        raise UserError(
            f"could not write the model to {folder}: {getattr(e, 'strerror', None) or e}; what was there is as it was; fix: "
            "free some space and go on with --resume"
        ) from e
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        if bars:
            transformers_logging.enable_progress_bar()


def save_standalone(network, folder: Path) -> None:
    """As others load it: a segmenter with its code beside it, for processes without this package."""
    if network.config.model_type == "lowlabel-segmenter":
        from ..models.segmentation import export_standalone

        export_standalone(network, folder)
    else:
        network.save_pretrained(folder)


def peak_memory() -> int:
    """Bytes: of the GPU where there is one, else the most this process has held."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
