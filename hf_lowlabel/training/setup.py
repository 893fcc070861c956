"""What a run needs before its first step: devices, trackers, lengths, starting weights, and what identifies it."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import logging
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.state import AcceleratorState
from accelerate.utils import parse_flag_from_env, set_seed
from torch import nn

from ..arguments import Config, ModelArguments, TrainingArguments
from ..data.dataset import ImageDataset
from ..data.splits.splits import Split
from ..distributed import choose_device, world
from ..errors import UserError, unknown
from ..models.memory_format import best_layout
from ..models.quiet import is_unsaid
from ..settings import recorded
from ..tasks.networks import Network, is_model_folder
from ..text import speaks
from .batches import ViewStream
from .checkpoint import load_objective
from .folder import TRACKED
from .same_run import IMAGES, SPLIT, USABLE, settings_of

log = logging.getLogger("hf_lowlabel")
COMPLETE = {"hf_lowlabel", "torch", "timm", "segmentation_models_pytorch", "peft"}  # every weight left gets a gradient


def start_accelerator(args: TrainingArguments, folder: Path) -> Accelerator:
    """Devices, processes and precision; trackers are looked for, and not started.

    Raises:
        UserError: a tracker that is not installed, a device or a precision that is not there.
    """
    check_trackers(args.report_to)
    choose_device(args.device)
    on_cpu = args.device == "cpu" or not torch.cuda.is_available()  # views need float64, which Apple's GPUs lack
    if args.precision == "bf16" and not on_cpu and not torch.cuda.is_bf16_supported():
        raise UserError("This GPU has no bf16 arithmetic. Use --precision fp32.")
    AcceleratorState._reset_state(reset_partial_state=world() == 1)  # else an earlier run's precision and device stay
    accelerator = Accelerator(  # without cpu=True a launch of several processes on a CPU ends up as one
        cpu=on_cpu,
        mixed_precision="bf16" if args.precision == "bf16" else "no",
        log_with=list(args.report_to) or None,
        project_dir=str(folder),
        kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True)],
    )
    share, parts = accelerator.num_processes, args.gradient_accumulation_steps
    if share > 1 and args.batch_size is not None and args.batch_size % (share * parts):
        raise UserError(
            f"A batch_size of {args.batch_size} cannot be shared by {share} processes, in {parts} "
            f"part{'s' * (parts > 1)} of the same size on each. Give a --batch-size that is a multiple of "
            f"{share * parts}."
        )
    logging_level(accelerator.is_main_process)
    # its new name is not known to the oldest torch that is required
    warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
    set_seed(args.seed)
    several = "es" * (accelerator.num_processes > 1)
    where, precision = accelerator.device, args.precision
    log.info("%d process%s on %s, precision %s", accelerator.num_processes, several, where, precision)
    if accelerator.num_processes == 1 and one_of_several():
        log.warning(
            "`accelerate launch --cpu` was asked for several processes and starts one. Start them with torchrun "
            "--nproc-per-node=N instead"
        )
    return accelerator


def start_trackers(accelerator: Accelerator, config: Config) -> None:
    """Once nothing is left that a user may have to correct: a tracker keeps every run that it is told of. A dry run is
    none to keep."""
    if config.training.report_to and not config.training.dry_run:
        known = recorded(config).items()
        flat = {k: v if isinstance(v, (int, float, str, bool)) else str(v) for k, v in known}
        accelerator.init_trackers(TRACKED, config=flat)


@contextlib.contextmanager
def tracked(accelerator: Accelerator) -> Iterator[None]:
    """Whatever trackers are started inside hear of the end, and whether it is that of an error; one that cannot be told
    is a warning, in nobody's way. A run that is stopped, to be resumed, has not failed."""
    failed = False
    try:
        yield
    except Exception:
        failed = True
        raise
    finally:
        for tracker in accelerator.trackers:
            try:
                end(tracker, failed)
            except Exception as error:  # whatever its package raises
                said = f"{type(error).__name__}: {error}"
                log.warning("the tracker %s could not be told that the run is over (%s)", tracker.name, said)


def end(tracker: Any, failed: bool) -> None:
    """Close a run of a tracker. Accelerate's own word for it means that all went well to those that show how it ended.

    Not its end_training(): a second run in the same processes would wait for this one forever.
    """
    if failed and tracker.name in (
        "wandb",
        "mlflow",
    ):  # which have no run on other processes, or where none could start
        if (run := getattr(tracker, "run", None)) is not None:
            run.finish(exit_code=1)
        elif getattr(tracker, "active_run", None) is not None:
            importlib.import_module("mlflow").end_run("FAILED")
    else:
        tracker.finish()


def one_of_several() -> bool:
    """Whether accelerate's launcher was asked for more than the one process that it started, as on a CPU: it sets an
    address to meet at, and neither a rank nor how many there are."""
    said = os.environ  # a cluster may set an address by itself
    return parse_flag_from_env("ACCELERATE_USE_CPU") and "MASTER_ADDR" in said and "WORLD_SIZE" not in said


def across(accelerator: Accelerator, objective: nn.Module) -> nn.Module:
    """The objective as all processes of a launch train it.

    One with modules of other packages, or of the user's own, may have parameters that a step does not use: which these
    are is looked up at every step.
    """
    if world() == 1:
        return objective
    if any(type(module).__module__.partition(".")[0] not in COMPLETE for module in objective.modules()):
        accelerator.ddp_handler.find_unused_parameters = True
        warnings.filterwarnings("ignore", "find_unused_parameters=True was specified", UserWarning)
    wrapped: nn.Module = accelerator.prepare_model(objective)
    return wrapped


def check_trackers(names: list[str]) -> None:
    """An uninstalled tracker is an error, not silence."""
    if not names:
        return
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS
    from accelerate.utils import imports

    for name in names:
        if name not in LOGGER_TYPE_TO_CLASS:
            raise unknown("tracker", name, LOGGER_TYPE_TO_CLASS)
        available = getattr(imports, f"is_{name}_available", None)
        if available is not None and not available():
            raise UserError(
                f"The tracker {name!r} is not installed. Run pip install {name}, or leave it out of --report-to."
            )


def logging_level(main: bool) -> None:
    """Lines from the main process, warnings from the others; a level that a user has set stays, and so does that
    inside `unsaid`."""
    speaks()
    if is_unsaid(log.name):
        return
    level = log.level or logging.INFO  # 0: nobody has set one
    log.setLevel(level if main else max(level, logging.WARNING))


def steps_ahead(args: TrainingArguments, images: int, size: int, device: torch.device) -> int:
    """Steps whose views are made in one call, `images` of `size` px each.

    Up to 16 within half a million pixels on a CPU and four million on a GPU. Small calls spend their time on starting
    operations, not on pixels.
    """
    if args.dry_run:  # which prints what one step takes
        return 1
    pixels = 2**19 if device.type == "cpu" else 2**22
    return min(max(pixels // (max(images, 1) * size**2), 1), 16)


def stream_of(
    args: TrainingArguments,
    accelerator: Accelerator,
    network: Network,
    cache,
    members,
    per_step: int,
    transform,
    **more,
) -> ViewStream:
    """The share of this process in a stream, whose views are made some steps ahead where these may be."""
    chunk = steps_ahead(args, per_step // world(), network.stored, accelerator.device) if transform.in_advance else 1
    where = dict(seed=args.seed, rank=accelerator.process_index, world=world())
    parts = args.gradient_accumulation_steps
    return ViewStream(cache, members, per_step, transform, chunk=chunk, parts=parts, **where, **more)


def steps(args: TrainingArguments, images: int, per_step: int) -> int:
    """Optimizer steps of a run: as given, or `epochs` passes over `images`."""
    if args.max_steps is not None:
        return args.max_steps
    return max(1, round(args.epochs * images / per_step))


def identity(config: Config, dataset: ImageDataset, split: Split | None, cache=None) -> dict[str, dict]:
    """What a resumed run must have again: settings that decide what is computed, and the data.

    A resident cache leaves out every bad image, a streaming one those it looked at.
    """
    data = {IMAGES: dataset.fingerprint}
    if split is not None:
        data[SPLIT] = split.hash
    if cache is not None:
        used = hashlib.sha256(np.asarray(cache.indices, dtype=np.int64).tobytes()).hexdigest()
        data[USABLE] = used
    return {"settings": settings_of(config), "data": data}


def start_from(objective, model: ModelArguments) -> None:
    """--init-from a checkpoint of an unfinished run: its tensors, teacher and all, and nothing else of it.

    What a method knows of single images (`of_images` of its modules, with what it may lack) stays as it is: these may
    be others, and priors are those of this run.
    """
    if not model.init_from or is_model_folder(model.init_from):
        return
    path = Path(model.init_from)
    tensors = {k: v for k, v in load_objective(path).items() if not k.startswith("best::")}
    own = objective.state_dict()
    for at, module in objective.named_modules():
        for name in (f"{at}.{name}".lstrip(".") for name in getattr(module, "of_images", ())):
            tensors.pop(name, None)
            tensors |= {name: own[name]} if name in own else {}
    try:
        objective.load_state_dict(tensors)
    except RuntimeError as e:
        raise UserError(
            f"The checkpoint {path} does not fit this method and model: {' '.join(str(e).split())[:300]}. Give the "
            "settings it was made with, or another --init-from."
        ) from e


def layout_of(config: Config, objective: nn.Module, size: int, device: torch.device) -> torch.memory_format:
    """The layout in memory that was asked for, or the faster one for images of `size` px."""
    asked = config.model.channels_last
    if asked is None:
        return best_layout(objective, size, device)
    return torch.channels_last if asked else torch.contiguous_format
