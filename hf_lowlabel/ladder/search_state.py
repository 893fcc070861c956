"""What a search keeps on disk, so that the same command goes on with it: what it is of, what was planned and tried, and
features of all training images."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..commands import DONE
from ..data.caches.image_cache import StreamingCache, workers_are_there
from ..distributed import barrier, is_main_process, world
from ..errors import UserError
from ..evaluation.inference import seen_by_all
from ..files import read_json, remove_folder, sha256, write_json
from ..models.memory_format import best_layout
from ..models.quiet import unsaid
from ..records import weights_word
from ..selection.feature_file import Features, file_in, read, write
from ..selection.features import check, fingerprint, holds_all, print_of_images, print_of_tensors, rounded
from ..settings import private_names, recorded
from ..training.folder import SEARCH, claim, forget, has_notes_alone, release, was_empty
from ..training.lineage import labels_seen, lineage_of
from ..training.preparing import Prepared, network_of, of_those
from ..training.same_run import changes

log = logging.getLogger("hf_lowlabel")
TRIALS = "trials"  # folder of what was tried
OTHER = {  # facts in words
    "words": "class names, prompts or text model",
    "images": "images or labels beside them",
    "batches": "batch sizes, which the number of processes has to divide",
}
PLAN = "plan.json"  # among the trials
ENCODERS, ROUNDS = "encoders", "rounds"  # that there was time for


class OtherSearch(UserError):
    """A folder holds a search of other settings, labels or images."""


def read_kept(path: Path) -> dict[str, Any]:
    return dict(read_json(path, "Give another --output-dir."))


def holds_any(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())


def has_begun(folder: Path) -> bool:
    """Whether a search was left in a folder before its end. Folders called features or trials say nothing of that:
    people have such too, and what stands beside them is theirs."""
    if (folder / DONE).exists():
        return False
    if not (folder / SEARCH).is_file():
        return has_notes_alone(folder)
    known = read_json(folder / SEARCH, "Give another --output-dir.")
    return known == {} or isinstance(known, dict) and "facts" in known  # else another tool's


@contextlib.contextmanager
def claimed(output_dir: str | Path) -> Iterator[Path]:
    """The run folder; one that was left before its end is gone on with, from the features it has.

    After bad input nothing stays but features; trials do with what they are of, for the same search to go on with.
    """
    path = Path(output_dir).expanduser()
    folder, new = claim(path, has_begun(path), "Give another --output-dir."), False
    try:
        new = is_main_process() and not (folder / SEARCH).is_file()
        if new:
            write_json(folder / SEARCH, {})
        barrier()  # all can read it
        with resumable(folder), workers_are_there():
            yield folder
        barrier()  # all is written
        if is_main_process():
            (folder / SEARCH).unlink(missing_ok=True)
    except (UserError, OSError):
        if is_main_process() and not holds_any(folder / TRIALS):
            if was_empty(folder):
                forget(folder)
            elif new:  # beside files of the user
                (folder / SEARCH).unlink(missing_ok=True)
        raise
    finally:
        release(folder)


@contextlib.contextmanager
def resumable(folder: Path) -> Iterator[None]:
    """Says of what is stopped in it that the same command goes on."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit):  # of the command line, and of training
        if is_main_process():
            log.warning("stopped; the same command resumes from %s", folder)
        raise


def take_up(
    ready: Prepared,
    models: Sequence[Any],
    names: Sequence[str],
    minutes: float,
    train: bool = True,
    words: Sequence[Any] = (),
) -> None:
    """Go on with the search in the run folder. With more minutes than it was planned for, or with networks where it was
    planned without, its trials begin anew.

    Args:
        ready: the run, with the settings of its first attempt.
        models: all encoders; one that cannot be had is told here, before the first has been asked for hours.
        names: of them.
        minutes: of the search.
        train: whether networks are trained.
        words: model, classes and sentences of a search by class names too.

    Raises:
        OtherSearch: the folder's is of other settings, labels, images or weights.
    """
    path, trials = ready.folder / SEARCH, ready.folder / TRIALS
    facts, known = facts_of(ready, models, names, words, train), read_kept(path) if path.is_file() else {}
    asked = {**asked_of(ready), "model": list(names)}
    barrier()  # all have read
    check_same(ready.folder, known, facts, asked)
    there = "settings" in known.get("facts", {})  # else nothing says what trials are of
    planned, trained = known.get("minutes", minutes), there and known.get("train", True)
    with_networks = train and not trained
    anew = minutes > planned or with_networks
    if trials.is_dir() and there:
        if with_networks:
            log.warning("this search was planned without training networks: with them its trials start over")
        elif anew:
            log.warning("this search was planned for %g minutes, and with %g its trials start over", planned, minutes)
        elif minutes < planned:
            log.warning("this search was planned for %g minutes, and keeps that plan", planned)
    if is_main_process():
        if not there or anew:
            known = {name: value for name, value in known.items() if name not in (ENCODERS, ROUNDS, "facts")}
            forget_trials(ready.folder)
        elif trained and not train:
            forget_last(ready.folder)  # of a network, beside a head on frozen features
        plan = {"minutes": minutes if anew else planned, "train": bool(train or trained)}
        write_json(path, {**known, "facts": {**known.get("facts", {}), **facts}, "asked": asked, **plan})
    barrier()


def check_same(
    folder: Path, known: Mapping[str, Any], facts: Mapping[str, str], asked: Mapping[str, Any] | None = None
) -> None:
    """OtherSearch where a folder's search is of something else, or of nothing that this one is of; what an older
    version lacks is no difference. asked: the settings of this one, for the message."""
    before = known.get("facts", {})
    other = [name for name in facts if before.get(name, facts[name]) != facts[name]]
    if other or before and not before.keys() & facts.keys():
        of_images = "images" in other  # whose fingerprint is in the manifest of the labels
        named = [OTHER.get(name, name) for name in other if not (of_images and name == "labels")]
        told = changes(known.get("asked", {}), asked) if asked and "settings" in other and "asked" in known else []
        which = f" ({'; '.join(told)})" if told else ""
        what = ", ".join(named) or "settings, labels or images"
        raise OtherSearch(f"What was tried in {folder} was tried with other {what}{which}. Give another --output-dir.")


def check_unseen(ready: Prepared, models: Sequence[Any]) -> None:
    """UserError for weights that were trained with these labels: labels left out would say nothing of new images."""
    given = ready.chosen.split.labeled
    labels = {id: given.get(id) for id in (ready.dataset.ids[i] for i in ready.at.labeled)}
    for model in (one for one in models if isinstance(one, (str, Path))):
        if seen := labels_seen(model, ready.dataset, labels):
            first = lineage_of(model)[0]
            before = ""
            if first.what == "pretrained weights" and first.name:  # a record has the last part of a path alone
                of_folder = first.name.startswith("path/to/")
                before = f", {'those of the folder' if of_folder else 'such as'} {weights_word(first.name)}"
            raise UserError(
                f"The network {model} was trained with {seen} of these {len(labels)} labels, so that "
                f"cross-validation would be too optimistic. Give the weights from before that{before}, as --model."
            )


def facts_of(
    ready: Prepared, models: Sequence[Any], names: Sequence[str], words: Sequence[Any] = (), train: bool = True
) -> dict[str, str]:
    """What a search is of."""
    settings = asked_of(ready)
    attempts = [(attempt.name, attempt.settings) for attempt in ready.task.attempts]
    batches = [shared_batch(attempt.settings) for attempt in ready.task.attempts]
    return {
        **({"batches": print_of(batches)} if train else {}),
        "settings": print_of([settings, attempts, list(names)]),
        "images": ready.dataset.fingerprint,
        "labels": ready.chosen.split.hash,
        "weights": print_of(weights_of(ready, models)),
        "words": print_of_words(*words),
    }


def shared_batch(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The batch size of an attempt, where it has one, that the processes can share."""
    return {"batch_size": -(-settings["batch_size"] // world()) * world()} if "batch_size" in settings else {}


def asked_of(ready: Prepared) -> dict[str, Any]:
    """The settings of a search, as JSON has them."""
    aside = private_names() | {"split"}
    asked = {k: v for k, v in recorded(ready.config).items() if k not in aside}
    return dict(json.loads(json.dumps(asked, default=str)))


def print_of(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def print_of_words(model: str | None = None, *said: Any) -> str:
    """Of a model that knows words, by the content of its files where it is a folder, and of what it is asked."""
    files = sorted(Path(model).glob("*.safetensors")) if model is not None else []
    return print_of([[sha256(file) for file in files] or model, *said])


def weights_of(ready: Prepared, models: Sequence[Any]) -> list[str]:
    """Of every encoder the fingerprint of its weights, without a head, which each run makes anew."""
    found = list[str]()
    for number, model in enumerate(models):
        network = ready.network
        if number:
            with unsaid(log.name, logging.ERROR):
                network = network_of(ready.task, ready.config.replace(model=model), ready.dataset, ready.names, "cpu")
        net: Any = network.model
        painted = not hasattr(net, "head_names")  # of a segmenter the encoder
        encoder = net.network.encoder if painted else net
        fresh = set() if painted else net.head_names()
        found.append(print_of_tensors({k: v for k, v in encoder.state_dict().items() if k not in fresh}))
    return found


def noted(folder: Path, what: str) -> int | None:
    """How many encoders, or rounds, a search that was begun has had the time for."""
    found = read_kept(folder / SEARCH).get(what)
    barrier()  # all have read
    return None if found is None else int(found)


def note(folder: Path, what: str, count: int) -> None:
    if is_main_process():
        write_json(folder / SEARCH, {**read_kept(folder / SEARCH), what: count})
    barrier()


def no_time_for(folder: Path) -> dict[str, int]:
    """Attempts that the plan of a search left out, and from how many minutes of a new one they are tried."""
    path = folder / TRIALS / PLAN
    later = read_kept(path).get("later", {}) if path.is_file() else {}
    return {name: math.ceil(read_kept(folder / SEARCH)["minutes"] + more) for name, more in later.items()}


def forget_trials(folder: Path) -> None:
    """What they found, and a last run that began by it."""
    forget_last(folder)
    remove_folder(folder / TRIALS)


def forget_last(folder: Path) -> None:
    """What a last run, with all labels, left in the run folder before its end."""
    remove_folder(folder / "checkpoints")
    (folder / "log.jsonl").unlink(missing_ok=True)


def readable(ready: Prepared, keep: Path) -> Prepared:
    """The run without images that cannot be read. A cache that streams has looked at some alone, and gives the next
    image for a bad one; features are of all, so that by them it is known which are bad. keep: folder of features."""
    if not isinstance(ready.training, StreamingCache):
        return ready
    kept = np.flatnonzero(np.isin(ready.training.indices, features_of(ready, keep).indices))
    if len(kept) == len(ready.training):
        return ready
    return of_those(ready, kept)


def features_of_encoder(ready: Prepared, keep: Path) -> np.ndarray:
    """float32 [N, D] of the training images of a run that is `readable`, in their order.

    Raises:
        UserError: one of them cannot be read any more.
    """
    found, indices = features_of(ready, keep), np.asarray(ready.training.indices)
    if len(lost := np.setdiff1d(indices, found.indices)):
        raise not_any_more(ready.dataset.ids[lost[0]])
    return found.values if len(found) == len(indices) else found.values[found.rows(indices)]


def not_any_more(id: str) -> UserError:
    return UserError(f"The image {id!r} cannot be read any more. Mend the file, and start the same command again.")


def features_of(ready: Prepared, keep: Path) -> Features:
    """Of the training images that can be read; from `keep` when model and images are the same."""
    model, cache = ready.network.model, ready.training
    layout = best_layout(model, model.preprocessing["input_size"][-1], model.device)
    model.to(memory_format=layout)  # as `extract` has it; what comes later is the same with kept features
    model_print = fingerprint(model, without=model.head_names())
    data_print = print_of_images(ready.dataset, ready.at.train)  # all that were asked for, whatever can be read
    path = file_in(keep, model.config.architecture, model_print)
    found, indices = read(path, model_print, data_print), np.asarray(cache.indices, dtype=np.int64)
    barrier()
    if found is not None and holds_all(found, ready.dataset, indices, None, model.preprocessing):
        return found
    task: Any = ready.task  # one that `climbs` has features
    values, every = rounded(task.features(model, cache)), torch.arange(len(cache))
    own = (seen_by_all(cache, every) == every).numpy()  # the others are of the image next to them
    x = check(Features(values[own], indices[own], model_print, data_print), ready.dataset)
    if is_main_process():
        write(path, x)
    barrier()
    return x
