"""What a run records about itself (run.json): the only source of its card. Nothing is guessed; unknown stays None."""

from __future__ import annotations

import functools
import importlib.metadata
import json
import os
import platform
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from .errors import UserError, unknown
from .fields import check_types
from .files import read_json, write_text
from .machine import cores
from .text import percent

PACKAGES = ("hf_lowlabel", "torch", "torchvision", "transformers", "timm", "datasets", "accelerate", "huggingface_hub")
HEAVY = ("confusion", "reliability")  # parts of the metrics that stay in metrics.json


@dataclass(frozen=True)
class Metric:
    """One number of a result: how the command line, the card, the report and the plots call and show it.

    key: its name in metrics.json. title: for people. percent: a share, shown times 100. higher: whether more is better.
    hub: what the Hub calls it, where it knows it.
    """

    key: str
    title: str
    percent: bool = True
    higher: bool = True
    hub: str | None = None

    def show(self, value: float | None) -> str:
        return "–" if value is None else percent(value) if self.percent else f"{value:.3f}"

    def of(self, metrics: Mapping[str, Any]) -> str:
        """The value among all metrics, with its standard error over the images where that is known."""
        error = metrics.get(f"{self.key}_error")
        return self.show(metrics.get(self.key)) + (f" ± {100 * error:.1f}" if error else "")


@dataclass
class Stage:
    """One step of the lineage. The first one is usually {"what": "pretrained weights", "name": "resnet18.a1_in1k"}."""

    what: str  # "pretrained weights", "random weights", "target pretraining", "finetuning"
    name: str | None = None  # of weights: timm name with tag, Hub id or folder
    hub_id: str | None = None  # org/name where it is on the Hub, for a link
    revision: str | None = None
    license: str | None = None  # as its source states it
    method: str | None = None  # a row of methods.py, or a name of your own
    dataset: str | None = None
    images: int | None = None
    steps: int | None = None
    saw_test: int | None = None  # test images of this stage that the stages before it were trained on
    labels: dict[str, str | None] | None = None  # that taught the network: `lineage.short` of the id -> class
    ids_hash: str | None = None  # of the data that these are of


@dataclass
class Data:
    """The images: `hub_id` only when they really are on the Hub."""

    name: str
    hub_id: str | None = None
    config: str | None = None
    revision: str | None = None
    split: str | None = None  # that training images come from
    fingerprint: str | None = None
    ids_hash: str | None = None  # sha256 of the image ids, which stay the same when labels come
    license: str | None = None
    images: int | None = None  # in the pool, labeled ones included
    unlabeled_from: str | None = None  # name of a second source of raw images
    test: str | None = None  # which images were tested on, in words: "20 % of the images, stratified, held out"
    test_split: str | None = None  # name of a published split, if the test images are exactly that


@dataclass
class Labels:
    """The label budget."""

    number: int
    per_class: dict[str, int] = field(default_factory=dict)  # class name -> labeled images that show it, 0 too
    chosen: str | None = None  # how, in words: "at random, evenly over the classes, seed 0"
    split_hash: str | None = None  # sha256 of the manifest

    @property
    def without(self) -> list[str]:
        """Classes that no labeled image shows."""
        return [name for name, number in self.per_class.items() if number == 0]

    @property
    def always(self) -> list[str]:
        """Classes that every labeled image shows."""
        return [name for name, number in self.per_class.items() if number == self.number]


@dataclass
class Row:
    """A line of the results table beside this model: the supervised baseline, the bare pretrained weights, ..."""

    name: str
    metrics: dict[str, Any]


def why_kept(ladder: list[dict[str, Any]]) -> str:
    """A sentence where the kept row of a ladder is not the one with the highest score; "" otherwise."""
    kept = next((row for row in ladder if row["kept"] and row["by_labels"] is not None), {})
    alike = [row["by_labels"] or 0 for row in ladder if kept and row.get("halves") == kept.get("halves")]
    if not alike or round(max(alike), 3) <= round(kept["by_labels"], 3):  # as it is shown
        return ""
    if kept.get("floor"):
        return "The kept row is not the highest: it is the baseline, and no other row is clearly better."
    return (
        "The kept row is not the highest: few labels cannot rank the rows, so the kept one is their weighted "
        "blend, or one that is clearly better, judged by the probability of the right class."
    )


@dataclass
class RunRecord:
    """All a card is made of. Fields left empty leave their lines out of the card; a missing licence is asked for."""

    kind: str  # name of the task, or "backbone" for a run of pretrain
    name: str | None = None  # title and model-index name; None: the folder's name
    hub_id: str | None = None  # where this model is pushed to
    license: str | None = None  # of this model, as its card says where it was pushed
    license_link: str | None = None  # where it stands, as the card says
    license_here: list[str | None] | None = None  # both as the folder has them, which did not take over those
    card_hash: str | None = None  # of the words of the card that was pushed with it, before any edit on the Hub
    card_seen: str | None = None  # of its words as the last push left them on the Hub, edits there among them
    method: str | None = None
    architecture: str | None = None  # timm architecture
    parameters: int | None = None  # number of weights
    image_size: int | None = None  # px
    class_names: list[str] = field(default_factory=list)
    lineage: list[Stage] = field(default_factory=list)  # oldest first, this run last
    data: Data | None = None
    labels: Labels | None = None
    metrics: dict[str, Any] = field(default_factory=dict)  # scores of the test images, or probes by name
    comparisons: list[Row] = field(default_factory=list)  # same test images
    ladder: list[dict[str, Any]] = field(default_factory=list)  # what was tried: name, by_labels (score), kept
    advice: list[str] = field(default_factory=list)  # sentences about how good it is and what to do next
    hyperparameters: dict[str, Any] = field(default_factory=dict)
    seed: int | None = None
    steps: int | None = None
    seconds: float | None = None  # wall time of training
    command: str | None = None
    versions: dict[str, str] = field(default_factory=dict)
    hardware: dict[str, Any] = field(default_factory=dict)
    extra_tags: list[str] = field(default_factory=list)
    saved_model: bool = True  # False for a method that answers for its own images and leaves no network

    def to_json(self, path: str | Path) -> Path:
        """run.json, whole or not at all; of paths stands the last part, access tokens are left out."""
        values, path = asdict(self.public()), Path(path)
        for metrics in (values["metrics"], *(row["metrics"] for row in values["comparisons"])):
            for name in HEAVY:
                metrics.pop(name, None)
        write_text(path, json.dumps(values, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
        return path

    @classmethod
    def from_json(cls, path: str | Path) -> RunRecord:
        values = read_json(path, "Give a run folder, which has a run.json.")
        facts = _known(cls, values, path)
        facts["lineage"] = [Stage(**_known(Stage, v, path)) for v in facts.get("lineage") or ()]
        facts["comparisons"] = [Row(**_known(Row, v, path)) for v in facts.get("comparisons") or ()]
        for name, kind in (("data", Data), ("labels", Labels)):
            if facts.get(name) is not None:
                facts[name] = kind(**_known(kind, facts[name], path))
        return cls(**facts)

    def public(self) -> RunRecord:
        """A copy without this machine's paths and without access tokens."""
        data = self.data and replace(
            self.data,
            name=public_values(self.data.name),
            unlabeled_from=public_values(self.data.unlabeled_from),
            test=public_text(self.data.test),
        )
        lineage = [replace(s, name=public_values(s.name), dataset=public_values(s.dataset)) for s in self.lineage]
        settings = {k: v for k, v in public_values(self.hyperparameters).items() if not k.endswith("token")}
        rows = [replace(row, name=public_text(row.name)) for row in self.comparisons]
        return replace(
            self,
            data=data,
            lineage=lineage,
            comparisons=rows,
            hyperparameters=settings,
            command=public_command(self.command),
            advice=[public_text(line) for line in self.advice],
        )


def _known(cls: type, values: Any, path: str | Path) -> dict[str, Any]:
    if not isinstance(values, dict):
        raise UserError(
            f"{path} holds a {type(values).__name__} where a run has the fields of {cls.__name__}. Give the run.json "
            "of a run folder."
        )
    for key in values:
        if key not in {f.name for f in fields(cls)}:
            raise unknown(f"field of {cls.__name__} in {path}", key, [f.name for f in fields(cls)])
    check_types(cls, values, str(path))
    return dict(values)


# ---- what is collected at run time ----------------------------------------------------------------------------------
def collect_versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide a result; what is not installed is left out."""
    found = {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}}
    return {name: version for name, version in found.items() if version is not None}


@functools.cache  # a card is written at every checkpoint, and this parses a file
def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def collect_hardware(processes: int = 1) -> dict[str, Any]:
    """Processor, cores, memory and accelerators; no host name, no user name."""
    import torch

    found: dict[str, Any] = {"system": platform.system(), "cpu": _cpu_name(), "cores": cores(), "processes": processes}
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        found["memory_gib"] = round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30)
    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
        found["gpu_memory_gib"] = round(torch.cuda.get_device_properties(0).total_memory / 2**30)
    elif torch.backends.mps.is_available():
        found["gpu"] = "Apple (MPS)"
    return found


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # not Linux
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def collect_command(argv: Sequence[str] | None = None, environ: Mapping[str, str] = os.environ) -> str:
    """The command that started this process, as a reader can type it: paths shortened, tokens left out.

    Launchers hide their own command line; from WORLD_SIZE it is written back as torchrun.
    """
    argv = list(sys.argv if argv is None else argv)
    processes = int(environ.get("WORLD_SIZE", 1))
    start = argv[0] if argv else ""
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    if spec is not None and (Path(start).stem == "__main__" or spec.origin == start):  # python -m
        program = ["-m", spec.name.removesuffix(".__main__")]
    elif start.endswith(".py"):
        program = [start]
    else:
        return public_command(shlex.join([Path(start).name, *argv[1:]]))
    launcher = ["torchrun", f"--nproc_per_node={processes}"] if processes > 1 else ["python"]
    return public_command(shlex.join([*launcher, *program, *argv[1:]]))


# ---- what must not leave this machine -------------------------------------------------------------------------------
TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{16,}|(?<=[-_]token[= ])[^\s-]\S*", re.IGNORECASE)
USER = re.compile(r"(?<=://)[^/\s@]+@")  # user:password in an address
QUERY = re.compile(
    r"([?&;](?:[\w-]*(?:token|key|secret|password|signature|sig|credential)[\w-]*)=)[^&\s'\"#]+", re.IGNORECASE
)
HUB = re.compile(r"(?:hub:|hf[_-]hub:)\S+|[\w.-]+/[\w.-]+(?:@[\w./-]+)?")  # org/name
START = r"(?:(?<=file://)|(?<![\w.~/\\-])(?!(?<=:)//))(?:[A-Za-z]:[\\/]|\\\\|~[\w.-]*/|(?:\.\.?[\\/])+|//?(?=[^\s/]))"
PATH = re.compile(  # quoted, with spaces; or up to a space, and past it where what follows goes on as a path
    rf"""(?<=')(?:{START}|(?=[^'\n]*[\\/]\S))(?!\w+://)[^'\n]+(?=')|(?<=")(?:{START})[^"\n]+(?=")|"""
    rf"""{START}[^\s'",;=()]*(?:[ ](?![-./~'"]|\w+:)[^\s'",;=()]*[\\/][^\s'",;=()]*)*"""
)


def public_text(text: str | None) -> str | None:
    """`text` without what is this machine's: of each path the last part alone, no token, no password in an address."""
    return text and public_address(
        PATH.sub(lambda match: re.sub(r".*[^.,:;](?=[.,:;]*$)", lambda path: _last(path[0]), match[0]), text)
    )


def public_address(text: str) -> str:
    return TOKEN.sub("TOKEN", QUERY.sub(r"\1TOKEN", USER.sub("", text)))


def public_word(word: str) -> str:
    """One word of a command, or a setting, which may be a path as a whole, spaces and all; also behind "NAME="."""
    name, equals, value = word.partition("=")
    if equals and re.fullmatch(r"-{0,2}[\w-]+", name):
        return name + equals + ("TOKEN" if name.endswith("token") else public_word(value))
    return _last(word) if _is_path(word) else public_address(word)


def weights_word(name: str | Path | None) -> str:
    """What weights are called in a heading or a row: of a folder its last part alone."""
    return public_word(str(name)).removeprefix("path/to/") if name else ""


def _is_path(word: str) -> bool:
    if word.startswith("file://"):
        return True
    if re.match(r"\w+://", word) or not re.search(r"[\\/]", word) or len(word) > 4096 or "\n" in word:
        return False
    if HUB.fullmatch(word) and not word.startswith("."):
        return word.partition(":")[0] not in ("hub", "hf_hub", "hf-hub") and os.path.exists(word)
    return not re.search(r"[\[\]{}()]", word) or os.path.isabs(word)


def _last(path: str) -> str:
    """ "photos" of "photos/" and "path/to/photos" of any that stands in folders."""
    parts = [part for part in re.split(r"[\\/]+", path.removeprefix("file://")) if part not in ("", ".", "..", "~")]
    if not parts:
        return "path/to"
    return parts[0] if re.fullmatch(r"(\./)?[^\\/]+[\\/]?", path) else f"path/to/{parts[-1]}"


def public_command(command: str | None) -> str | None:
    """A command as a reader can type it: its words one by one."""
    if command is None:
        return None
    try:
        words = shlex.split(command)
    except ValueError:  # quotes without end: it was not made here
        return public_text(command)
    shown = ["TOKEN" if b.endswith("token") else public_word(w) for b, w in zip(["", *words], words, strict=False)]
    return command if shown == words else shlex.join(shown)


def public_values(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: public_values(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [public_values(v) for v in value]
    return public_word(str(value)) if isinstance(value, (str, Path)) else value
