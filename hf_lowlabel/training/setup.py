"""From a configuration to the objects a run needs: sources, sizes, networks, pools, views, the objective."""

from __future__ import annotations

import hashlib
import logging
import math
import statistics
import sys
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.state import AcceleratorState
from accelerate.utils import set_seed
from tqdm.auto import tqdm

from ..arguments import RunConfig
from ..data.dataset import ImageDataset, join, load_source
from ..data.folders import has_unlabeled_split
from ..data.image_cache import build_cache
from ..data.splits import Split
from ..distributed import all_gather, best_device, interactive, world
from ..errors import UserError, unknown
from ..views.table import build_view

log = logging.getLogger("hf_lowlabel")


def start_accelerator(config: RunConfig, folder: Path) -> Accelerator:
    """Devices, processes, precision and trackers. An uninstalled tracker is an error, not silence."""
    for name in config.report_to:
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS
        from accelerate.utils import imports

        if name not in LOGGER_TYPE_TO_CLASS:
            raise unknown("tracker", name, LOGGER_TYPE_TO_CLASS)
        available = getattr(imports, f"is_{name}_available", None)
        if available is not None and not available():
            raise UserError(f"tracker {name!r} is not installed; pip install {name}, or leave it out of --report-to")
    best_device(config.device)
    if (
        config.precision == "bf16"
        and torch.cuda.is_available()
        and config.device != "cpu"
        and not torch.cuda.is_bf16_supported()
    ):
        raise UserError("precision is bf16, which this GPU does not have; use --precision fp32")
    on_cpu = config.device == "cpu" or not torch.cuda.is_available()  # views need float64, which Apple's GPUs lack
    AcceleratorState._reset_state(reset_partial_state=world() == 1)  # else an earlier run's precision and device stay
    accelerator = Accelerator(  # without cpu=True a launch of several processes on a CPU ends up as one
        cpu=on_cpu,
        mixed_precision="bf16" if config.precision == "bf16" else "no",
        log_with=list(config.report_to) or None,
        project_dir=str(folder),
        kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True)],
    )
    logging_level(accelerator.is_main_process)
    if config.report_to:
        flat = {k: v if isinstance(v, (int, float, str, bool)) else str(v) for k, v in vars(config).items()}
        accelerator.init_trackers("hf_lowlabel", config=flat)
    set_seed(config.seed)
    log.info(
        "%d process%s on %s, precision %s",
        accelerator.num_processes,
        "es" * (accelerator.num_processes > 1),
        accelerator.device,
        config.precision,
    )
    return accelerator


def logging_level(main: bool) -> None:
    """Plain lines to stderr from the main process, warnings from the others."""
    if not log.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(message)s"))
        log.addHandler(handler)
        log.propagate = False
    log.setLevel(logging.INFO if main else logging.WARNING)


def open_source(config: RunConfig, split: str | None = None) -> ImageDataset:
    """The images a run trains on, the second, unlabeled source joined on."""
    source = load_source(**config.where(split))
    if config.unlabeled_dataset and split is None:
        source = join(source, load_source(config.unlabeled_dataset, split=config.unlabeled_dataset_split))
    elif (
        split is None and config.dataset_split != "unlabeled" and has_unlabeled_split(Path(config.dataset).expanduser())
    ):
        log.warning(
            "the images in unlabeled/ of %r are not used; fix: --unlabeled-dataset %s --unlabeled-dataset-split unlabeled",
            config.dataset,
            config.dataset,
        )
    return source


def typical_side(source: ImageDataset) -> int:
    """Median short side in px of the sampled images."""
    return int(statistics.median_low(min(size) for size in sampled_sizes(source)))


def sampled_sizes(source: ImageDataset) -> list[tuple[int, int]]:
    """(width, height) in px of up to 32 images spread over the source."""
    found = []
    for i in range(0, len(source), max(1, len(source) // 32)):
        try:
            with source.image(i) as image:
                found.append(image.size)
        except UserError:  # an unreadable image is reported when the pool is built
            continue
    if not found:
        raise UserError(
            f"none of the sampled images of {source.name!r} could be read; expected image files PIL can open"
        )
    return found


def sizes(config: RunConfig, model_side: int | None, side: int, fixed: bool = False) -> tuple[int, int]:
    """(side of a view, side of a stored image) in px. `fixed`: the network takes its own size only."""
    size = config.image_size or (model_side if fixed else min(model_side or 224, side))
    if config.stored_size is not None and config.stored_size < size:
        raise UserError(f"stored_size {config.stored_size} is below image_size {size}; expected at least as many px")
    margin = 4 * round(size / 28)
    pool = config.stored_size or (size if size < 64 or side <= size else size + margin)
    if (pool - size) % 4:
        raise UserError(
            f"stored_size {pool} is {pool - size} px above image_size {size}; expected a multiple of 4, for example "
            f"{size + 4 * round((pool - size) / 4)}, so that the saved image processor cuts out the same pixels as evaluation"
        )
    return size, pool


def make_pool(
    config: RunConfig, source: ImageDataset, indices, size: int, interpolation: str, device, what: str, vital=None
):
    """Decode (or prepare to stream) the images at `indices`, with a progress bar; unreadable ones are skipped and listed.

    vital: which of them must be whole, where that is not all; see `build_cache`.
    """
    with tqdm(total=len(indices), desc=f"reading {what}", unit="img", disable=not interactive(), leave=False) as bar:
        pool = build_cache(
            source,
            indices,
            size=size,
            interpolation=interpolation,
            device=device,
            memory_budget=budget(config, device),
            workers=config.workers,
            max_bad=config.max_bad,
            streaming="auto" if config.streaming is None else config.streaming,
            vital=vital,
            progress=lambda done, total: bar.update(done - bar.n),
        )
    tell_skipped(pool, len(indices), what)
    return pool


def tell_skipped(pool, count: int, what: str) -> None:
    if pool.skipped:
        shown = "; ".join(f"{i}: {reason}" for i, reason in pool.skipped[:5])
        log.warning(
            "skipped %d of %d %s images that cannot be used (%s%s)",
            len(pool.skipped),
            count,
            what,
            shown,
            "; ..." if len(pool.skipped) > 5 else "",
        )


def budget(config: RunConfig, device: torch.device) -> int:
    """Bytes that decoded images may take, the same on all ranks: a pool is resident on all of them or on none."""
    if config.memory_budget is not None:
        return int(config.memory_budget * 2**30)
    if torch.device(device).type == "cuda":
        free = torch.cuda.mem_get_info(device)[0] // 2
    else:
        import psutil  # comes with accelerate

        free = psutil.virtual_memory().available // 2
    return int(all_gather(torch.tensor([free], device=device)).min())


def statistics_of(pool, sample: int = 2048) -> tuple[list[float], list[float]]:
    """Channel mean and standard deviation (0..1) of up to `sample` images spread over the pool."""
    chosen = torch.linspace(0, len(pool) - 1, min(sample, len(pool))).long()
    x = pool.take(chosen).double().div(255)
    mean, std = x.mean((0, 2, 3)), x.std((0, 2, 3)).clamp_min(1e-3)
    return [round(v, 6) for v in mean.tolist()], [round(v, 6) for v in std.tolist()]


def make_views(
    config: RunConfig, kinds: dict[str, str], source: ImageDataset, size: int, mean, std, multiple: int = 1
) -> dict:
    flip = source.flip if config.flip is None else config.flip
    return {
        key: build_view(
            kind,
            size=size,
            mean=mean,
            std=std,
            flip=flip,
            preset=config.augment,
            min_scale=config.min_scale,
            color=config.color,
            randaugment=config.randaugment,
            multiple=multiple,
        )
        for key, kind in kinds.items()
    }


def steps_ahead(config: RunConfig, images: int, size: int, device: torch.device) -> int:
    """Steps whose views are made in one call, `images` of `size` px each: up to 16 within half a million pixels on a CPU
    and four million on a GPU. Small calls spend their time on starting operations, not on pixels."""
    if config.dry_run:  # which prints what one step takes
        return 1
    pixels = 2**19 if device.type == "cpu" else 2**22
    return min(max(pixels // (max(images, 1) * size**2), 1), 16)


def make_network(config: RunConfig, source: ImageDataset, create) -> tuple[torch.nn.Module, int, int]:
    """(network, side of a view, side of a stored image) with the preprocessing that evaluation will use."""
    name = config.init_from if config.init_from and is_model_folder(config.init_from) else config.model
    scratch = config.from_scratch and name == config.model
    arguments = dict(name=name, pretrained=not scratch, revision=config.model_revision)
    network = create(**arguments, image_size=config.image_size)
    cfg = network.config.pretrained_cfg
    side = network.preprocessing["input_size"][-1]
    size, stored = sizes(config, side, typical_side(source), fixed=bool(cfg.get("fixed_input_size")))
    cfg.update(input_size=[3, size, size], crop_pct=crop_share(size, stored), crop_mode="center")
    log.info("%s, views of %d px from images of %d px", network.load_report, size, stored)
    return network, size, stored


def crop_share(size: int, stored: int) -> float:
    """size / stored, rounded so that floor(size / share) is `stored` again: processors resize the short side to that."""
    share = size / stored
    return share if math.floor(size / share) == stored else math.nextafter(share, 0.0)


def identity(source: ImageDataset, split: Split | None, pool=None) -> dict[str, str]:
    """What a resumed run must find again. A resident pool leaves out every bad image, a streaming one those it looked at."""
    used = hashlib.sha256(np.asarray(pool.indices, dtype=np.int64).tobytes()).hexdigest() if pool is not None else None
    return {
        "fingerprint of the images": source.fingerprint,
        **({"hash of the split": split.hash} if split else {}),
        **({"list of usable images (see --streaming and --memory-budget)": used} if used else {}),
    }


def is_model_folder(path: str) -> bool:
    return (Path(path) / "config.json").is_file()


def normalise(network, pool) -> None:
    """Mean and standard deviation of the user's own images, for a network that starts from random weights."""
    mean, std = statistics_of(pool)
    network.config.pretrained_cfg.update(mean=mean, std=std)


def start_from(objective, config: RunConfig) -> None:
    """--init-from a checkpoint of an unfinished run: its tensors, teacher and all, and nothing else of it."""
    if not config.init_from or is_model_folder(config.init_from):
        return
    from safetensors.torch import load_file

    path = Path(config.init_from)
    file = path / "objective.safetensors"
    if not file.is_file():
        raise UserError(
            f"found neither config.json nor objective.safetensors in {path}; expected a run folder, a saved model or one "
            "of a run's checkpoints/step-*"
        )
    tensors = {k: v for k, v in load_file(file).items() if not k.startswith("best::")}
    try:
        objective.load_state_dict(tensors)
    except RuntimeError as e:
        raise UserError(
            f"the checkpoint {path} does not fit this method and model: {' '.join(str(e).split())[:300]}"
        ) from e


def steps(config: RunConfig, pool: int, per_step: int | None = None) -> int:
    if config.max_steps is not None:
        return config.max_steps
    return max(1, round(config.epochs * pool / (per_step or config.batch_size)))
