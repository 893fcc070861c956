"""What a run leaves in its folder: model, split, metrics, pictures, settings, and the record of which its card is
made."""

from __future__ import annotations

import logging
import os
import resource
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import SafetensorError

from .. import methods
from ..arguments import Config
from ..data.dataset import ImageDataset
from ..data.skipped import write_left_out
from ..data.splits.published import is_published
from ..data.splits.splits import Split
from ..distributed import is_main_process, world
from ..errors import UserError
from ..evaluation import plots
from ..files import as_neighbours, seal, sha256, unseal, write_json, write_text
from ..models.lora import merged
from ..models.quiet import no_progress_bars
from ..records import (
    Data,
    Labels,
    Row,
    RunRecord,
    Stage,
    collect_command,
    collect_hardware,
    collect_versions,
    weights_word,
)
from ..settings import private_names, recorded
from ..tasks import of_record
from ..tasks.data_classes import MODEL_FILES
from ..yaml_files import read_yaml
from .checkpoint import checkpoints
from .folder import ASIDE
from .lineage import (
    compare_with,
    images_seen,
    labels_seen,
    lineage_of,
    start_of,
    starting_weights,
    taught_by,
)
from .measured import measured, noted

log = logging.getLogger("hf_lowlabel")
SEALED = (
    *MODEL_FILES,
    *"split.json training.yaml run.json metrics.json priors.safetensors predictions.parquet".split(),
)

RESULTS = ("metrics.json", "predictions.png", "confusion.png", "reliability.png")  # what a test leaves


class Recorder:
    """Collects the facts of a run while it goes on and writes them down; only the main process writes."""

    def __init__(
        self,
        config: Config,
        folder: Path,
        dataset: ImageDataset,
        split: Split | None,
        load_report,
        images: int | None,
        caches: Sequence[Any] = (),
    ):
        """Args:
        images: in the training set; None where nobody counts them. caches: whose memory a dry run tells.
        """
        self.config, self.folder, self.dataset, self.split, self.report = config, folder, dataset, split, load_report
        self.images, self.caches = images, list(caches)
        self.main = is_main_process()
        self.kind = "backbone" if config.verb == "pretrain" else config.task
        self.speaks = of_record(self.kind)
        self.test_words = self.test_split = self.saw_test = None
        self.before = self._before() if self.main else []
        self._check_baseline()
        self.comparisons: list[Row] = []  # rows beside this run's own in the table of its card
        self.ladder: list[dict[str, Any]] = []  # what was tried before this network was taken
        self.advice: list[str] = []  # sentences for the card
        self.left_out: dict[str, float] = {}  # score of labels left out, where no image is tested on
        self.shown: dict[str, int] | None = None  # class -> labeled images in which it occurs
        self.record: RunRecord | None = None  # as it was written last
        if self.main:
            self._write_settings()

    def _write_settings(self) -> None:
        """training.yaml and split.json; a run that goes on from a checkpoint leaves those of its first start alone."""
        goes_on = self.config.training.resume and checkpoints(self.folder / "checkpoints")
        path, manifest = self.folder / "training.yaml", self.folder / "split.json"
        unseal(self.folder)
        if not (goes_on and path.is_file()):
            write_text(path, yaml.safe_dump(recorded(self.config), sort_keys=False, allow_unicode=True))
        if self.split is not None and not (goes_on and manifest.is_file()):
            self.split.save(manifest)
        write_left_out(self.dataset, self.folder / "left_out.csv")

    def _note_length(self) -> None:
        """A resumed run may be longer than its training.yaml says."""
        path = self.folder / "training.yaml"
        now = {key: getattr(self.config.training, key) for key in ("max_steps", "epochs")}
        said = read_yaml(path) if self.config.training.resume and path.is_file() else now
        if said.get("epochs") != now["epochs"] or said.get("max_steps") not in (None, now["max_steps"]):
            write_text(path, yaml.safe_dump({**said, **now}, sort_keys=False, allow_unicode=True))

    def takes(self, config: Config, load_report) -> None:
        """Go on as a run with other settings: those of what was found to be best."""
        self.config, self.report = config, load_report
        if self.main:
            self.before = self._before()
            write_text(
                self.folder / "training.yaml", yaml.safe_dump(recorded(config), sort_keys=False, allow_unicode=True)
            )

    def _before(self) -> list[Stage]:
        """The lineage of the weights that the run starts from."""
        known = lineage_of(*self.start) if self.start else []
        revision = self.report.revision or self.config.model.model_revision
        return known or [starting_weights(self.report.source, revision, self.report.license)]

    def _check_baseline(self) -> None:
        """A baseline that cannot be compared with is found before training."""
        folder = self.config.training.compare_supervised
        if not folder or not self.main:
            return
        other = RunRecord.from_json(Path(folder, "run.json"))
        if other.kind != self.kind or not other.metrics:
            raise UserError(
                f"The run in {folder} cannot be compared with: it is one of {other.kind} "
                f"with{'' if other.metrics else 'out'} "
                f"results. Give a finished run of {self.kind} as --compare-supervised, or leave it out."
            )

    @property
    def start(self) -> tuple[str, str | None] | None:
        """See `lineage.start_of`."""
        return start_of(self.config.model, self.report.revision)

    def tests_on(self, dataset: ImageDataset, indices, words: str | None = None, published: str | None = None) -> None:
        """Note which images are the test set, and warn of those that the starting weights have been trained on."""
        self.test_words, self.test_split = words, published
        if not (self.main and self.start and len(indices)):
            return
        ids = [dataset.ids[i] for i in indices]
        self.saw_test = images_seen(self.start[0], dataset, ids, self.start[1]) or None
        if self.saw_test:
            log.warning(
                "%d of the %d test images are among those that %s was trained on: results on them may be too good. "
                "Give the same --split to pretrain, which then leaves them out",
                self.saw_test,
                len(indices),
                self.start[0],
            )

    def labels_seen(self, labeled) -> int:
        """With how many of the labeled images (positions) the starting weights were trained with their labels."""
        given = self.split.labeled if self.split else {}
        names = {id: given.get(id) for id in (self.dataset.ids[i] for i in labeled)}
        return labels_seen(self.start[0], self.dataset, names, self.start[1]) if self.start else 0

    def start_words(self) -> str:
        """What the run starts from, for a row of a table."""
        stage = self.before[-1] if self.before else Stage("the starting weights")
        if stage.what == "target pretraining":
            return f"the weights after {stage.method}"
        return " ".join(filter(None, [stage.what, weights_word(stage.name)]))

    def warn(self, said: str | None) -> None:
        """Say what is wrong with the model, where something is, here and on its card."""
        if said and not self.config.training.dry_run:
            log.warning(said)
            self.advice.append(said)

    def save(self, progress, metrics: dict, *, final: bool, model: bool = True) -> RunRecord | None:
        """Write the evaluated network (unless `model` is False: the run made none) and all that belongs to it.

        Args:
            progress: a Loop, or what stands in its place: `inner.evaluated`, step, seconds, history.
        """
        if not self.main:
            return None
        unseal(self.folder)
        self._note_length()
        network, (said, weights) = merged(progress.inner.evaluated), measured(self.folder)
        if model:
            save_model(network, self.folder, self.speaks.save)
        self.record = self.facts(progress, network, metrics)
        self.record.saved_model = model
        if weights and sha256(self.folder / "model.safetensors") == weights:  # a finished run, resumed
            self.record.advice = noted(self.record.advice, said)
        if metrics:
            write_json(self.folder / "metrics.json", metrics)
        else:
            for name in RESULTS:  # of the weights that are replaced, where a finished run goes on
                (self.folder / name).unlink(missing_ok=True)
        self.record.to_json(self.folder / "run.json")
        if final and progress.history:
            title = f"{self.record.method} on {self.dataset.name}"
            scores = {m.key: m.title for m in self.speaks.metrics}
            plots.curves(progress.history, self.folder / "curves.png", title=title, scores=scores)
        seal(self.folder, [*SEALED, *(["log.jsonl"] if final else [])])
        return self.record

    def facts(self, progress, network, metrics: dict) -> RunRecord:
        config, method = self.config, methods.name_of(self.config.method)
        verb = "target pretraining" if config.verb == "pretrain" else "finetuning"
        taught = self.split is not None and verb == "finetuning" and progress.step > 0
        stage = Stage(
            verb,
            method=method,
            dataset=self.dataset.name,
            images=self.images,
            steps=progress.step,
            saw_test=self.saw_test,
            labels=taught_by(self.split) if taught else None,
            ids_hash=self.dataset.ids_hash if taught and self.images is not None else None,
        )
        architecture, side, more = describe(network)
        settings = {k: v for k, v in recorded(config).items() if v not in (None, [], {}) and k not in private_names()}
        record = RunRecord(
            self.kind,
            method=method,
            architecture=architecture,
            parameters=sum(p.numel() for p in network.parameters()),
            image_size=config.views.image_size or side,
            class_names=list(self.split.class_names) if self.split and config.verb == "finetune" else [],
            lineage=[*self.before, stage],
            data=self.data(),
            labels=self.labels() if config.verb == "finetune" else None,
            metrics=metrics,
            hyperparameters={**settings, **more},
            seed=config.training.seed,
            steps=progress.step,
            seconds=round(progress.seconds, 1),
            command=collect_command(),
            versions=collect_versions(),
            hardware={**collect_hardware(world()), "peak_memory_gib": round(peak_memory() / 2**30, 3)},
        )
        if config.training.compare_supervised:
            record.comparisons.append(
                compare_with(record, config.training.compare_supervised, "supervised, same labels")
            )
        record.comparisons += self.comparisons
        record.ladder, record.advice = list(self.ladder), list(self.advice)
        return record

    def data(self) -> Data:
        dataset, counted = self.dataset, self.images is not None
        return Data(
            dataset.name,
            hub_id=dataset.name if dataset.revision else None,
            config=dataset.config,
            revision=dataset.revision,
            split=dataset.split,
            fingerprint=dataset.fingerprint if counted else None,
            ids_hash=dataset.ids_hash if counted else None,
            license=dataset.license,
            images=self.images,
            unlabeled_from=recorded(self.config).get("unlabeled_dataset"),
            test=self.test_words,
            test_split=self.test_split,
        )

    def labels(self) -> Labels:
        given, data = list(self.split.labeled.values()), self.config.data
        name = data.split and (data.split if is_published(data.split) else Path(data.split).name)
        drawn = "evenly over the classes, " if data.class_balanced else ""
        how = f"from the manifest {name}" if name else f"at random, {drawn}seed {self.config.training.seed}"
        counts = {name: given.count(name) for name in self.split.class_names} if self.shown is None else self.shown
        return Labels(len(given), counts, how, self.split.hash)


def describe(network) -> tuple[str, int | None, dict[str, Any]]:
    """(timm architecture or encoder, side in px of what it sees, settings that came along with its weights)."""
    config = network.config
    if hasattr(config, "encoder"):
        return config.encoder, None, {}
    stride = (config.model_args or {}).get("output_stride")
    return config.architecture, network.preprocessing["input_size"][-1], {"output_stride": stride} if stride else {}


def save_model(network, folder: Path, save: Callable[[Any, Path], None]) -> None:
    """config.json, model.safetensors, preprocessor_config.json and a segmenter's code.

    They are written aside and moved into place one by one, config.json as the last, which says that the model is
    complete.

    Raises:
        UserError: the disk is full or cannot be written to; what was there is as it was.
    """
    aside = folder / f"{ASIDE}{os.getpid()}"
    shutil.rmtree(aside, ignore_errors=True)
    try:
        with no_progress_bars():
            save(network, aside)
        for file in sorted(aside.iterdir(), key=lambda p: p.name == "config.json"):
            as_neighbours(file)
            os.replace(file, folder / file.name)
    except (OSError, SafetensorError) as e:  # the latter on a full disk too
        raise UserError(
            f"The model could not be written to {folder}: {getattr(e, 'strerror', None) or e}. What was there is as "
            "it was. Free some space and start the same command again, a run with --resume."
        ) from e
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def peak_memory() -> int:
    """Bytes: of the GPU where there is one, else the most this process has held."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
