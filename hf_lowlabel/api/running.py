"""What surrounds a run: settings brought together, the folder claimed, the result published."""

from __future__ import annotations

import contextlib
import functools
import inspect
import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

from ..arguments import Config, known_settings
from ..commands import slug
from ..data.caches.image_cache import workers_are_there
from ..data.splits.splits import Split
from ..distributed import barrier, is_main_process
from ..errors import UserError
from ..files import as_folder
from ..foreign_names import no_such_setting
from ..methods import name_of
from ..settings import resolve
from ..text import brief
from ..training.callbacks import Callback
from ..training.folder import claim, forget, release, was_empty
from ..training.preparing import Run
from ..training.stopping import Interrupted
from ..yaml_files import GIVEN_SPLIT, read_yaml

log = logging.getLogger("hf_lowlabel")
F = TypeVar("F", bound=Callable[..., Any])


def settled(verb: str, arguments: Mapping[str, Any]) -> Config:
    """The resolved settings of a call: `arguments` are those of `pretrain` or `finetune` by name.

    Raises:
        UserError: see `resolve`; or the Hub, asked for a push, does not let this user write.
    """
    given = {name: value for name, value in arguments.items() if name != "callbacks"}
    if not isinstance(arguments["callbacks"], (list, tuple)):
        raise UserError(f"callbacks is {brief(arguments['callbacks'])}. Give a list of callbacks.")
    for callback in arguments["callbacks"]:
        if not isinstance(callback, Callback):
            raise UserError(
                f"{callback!r} is no callback. Give objects whose class is derived from hf_lowlabel.Callback."
            )
    given |= {name: as_folder(given[name]) for name in ("model", "init_from") if name in given}
    given |= {"split": GIVEN_SPLIT} if isinstance(given.get("split"), Split) else {}
    given |= {name: {} for name in ("method_args", "architecture_args") if given.get(name, 0) is None}
    config = resolve(Config.from_flat(verb, given))
    if config.training.push_to_hub and is_main_process():
        from ..hub.upload import check_access

        check_access(config.training.push_to_hub)
    return config


def named(function: F) -> F:
    """`function`, which says of a setting that it does not have what it is called here."""
    known = inspect.signature(function).parameters

    @functools.wraps(function)
    def call(*args, **settings):
        for name in settings:
            if name not in known:
                raise no_such_setting(name, known, "call", known_settings())
        return function(*args, **settings)

    return cast(F, call)


@contextlib.contextmanager
def run_folder(config: Config, split: Any = None) -> Iterator[Path]:
    """The claimed folder of a run; that of a dry run vanishes, and so does what bad input has left. split: as it was
    given; a Split is written there."""
    args = config.training
    if args.dry_run:
        with tempfile.TemporaryDirectory(prefix="hf-lowlabel-dry-") as dry, kept_split(config, Path(dry), split):
            yield Path(dry)
        return
    folder = claim(args.output_dir or default_folder(config), args.resume)
    try:
        with kept_split(config, folder, split), workers_are_there():
            yield folder
    except (UserError, OSError):
        if was_empty(folder) and is_main_process():
            forget(folder)
        raise
    except (KeyboardInterrupt, Interrupted):
        if (folder / "checkpoints").is_dir() and is_main_process():
            log.warning("resume with --resume")
        raise
    finally:
        release(folder)
    barrier()  # the first process has written all that another may open


@contextlib.contextmanager
def kept_split(config: Config, folder: Path, split: Any) -> Iterator[None]:
    """From here on a Split is a file like any other, which says what the run was given when it is resumed. It goes
    again where the run ends before its settings are written down."""
    file, writes = folder / GIVEN_SPLIT, is_main_process() or config.training.dry_run
    path = Path(config.data.split or "")
    if path.suffix == ".json" and (path.name == GIVEN_SPLIT or has_given_split(folder)):
        split = split if isinstance(split, Split) else Split.load(path)  # of this run or another, or saved elsewhere
    if not isinstance(split, Split):
        yield
        return
    if writes:
        if has_given_split(folder) and Split.load(file) != split:
            raise UserError(
                f"{folder} is a run of another split ({GIVEN_SPLIT} in it). Resume it with that, or give another "
                "output_dir."
            )
        split.save(file)
    barrier()
    config.data.split = str(file)
    try:
        yield
    except BaseException:  # Ctrl-C too
        with contextlib.suppress(UserError):  # of settings that are damaged
            if writes and not has_given_split(folder):
                file.unlink(missing_ok=True)
        raise


def has_given_split(folder: Path) -> bool:
    """Whether the run in a folder was given a Split."""
    written = folder / "training.yaml"
    return (folder / GIVEN_SPLIT).is_file() and written.is_file() and read_yaml(written).get("split") == GIVEN_SPLIT


def default_folder(config: Config) -> str:
    """runs/VERB-METHOD-DATA."""
    return f"runs/{config.verb}-{name_of(config.method)}-{slug(config.data.dataset)}"


def publish(run: Run) -> None:
    """Push a finished run, where that was asked for; called by every process."""
    args = run.config.training
    if not args.push_to_hub or args.dry_run:
        return
    from ..hub.once import once
    from ..hub.push import push

    once(lambda: push(run.folder, args.push_to_hub, private=args.hub_private))
