"""The command to run after labeling, with the data and model recorded in the folder."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..arguments import DataArguments
from ..commands import MASKS, MODEL, ROUND, SOURCE, UNKNOWN, auto_command, command, data_flags, free
from ..data.masks.own_names import CLASSES_FILE
from ..data.pixels.mask_colors import Colors
from ..data.pixels.masks import list_classes
from ..errors import UserError
from ..files import read_json, write_json
from ..yaml_files import read_yaml
from .answer_kinds import kind_of
from .labels import Asked

BUILT_IN = ("digits", "shapes")
MEANT = tuple(name for name in MASKS if name != "classes")  # what masks mean; a folder to label has its own classes
HERE = ".here.json"  # paths of this machine, beside selection.json, which may go to somebody else
PATHS = ("dataset", "model", "features", "text_model")
USUAL = {"seed": 0, "max_bad": DataArguments.max_bad}  # of settings of a round that are not None without being given


def given_to_select(data: DataArguments, model: str | None, **more: Any) -> dict[str, Any]:
    """What selection.json remembers for `settings_so_far`: nothing of data in memory, which no command can name, and no
    path that leads out of the working directory, since the folder may go to somebody else. more: what holds for a run
    of those labels too."""
    if not isinstance(data.dataset, (str, Path)):
        return {}
    own = {"dataset": shared(str(data.dataset)), "model": model and (shared(model) or MODEL)}
    given = {**data_flags(vars(data), (*SOURCE, *MEANT)), **own, **public(more)}
    return {name: value for name, value in given.items() if value is not None}


def public(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a round that are not left as they are, without a path out of the working directory."""
    given = {name: value for name, value in settings.items() if value != USUAL.get(name)}
    gaps = {"features": None, "text_model": MODEL}
    return given | {name: shared(str(given[name])) or gap for name, gap in gaps.items() if name in given}


def remember(folder: Path, settings: Mapping[str, Any]) -> None:
    """Let a folder to label know what was given to `auto` for every round."""
    keep_here(folder, settings)
    asked = Asked.load(folder)
    said = {name: value for name, value in {**asked.given, **public(settings)}.items() if value is not None}
    if said != asked.given:
        replace(asked, given=said).save(folder)


def shared(path: str) -> str | None:
    """A path as it is called from the working directory, unless that is the root; None for one that says what machine
    this is, and leads out of it. A name that is no path stays."""
    here, given = Path.cwd(), Path(path).expanduser()
    from_root = here == here.parent and (here / Path(*given.parts[:1])).exists()
    if ".." in given.parts or from_root:
        return None
    if not given.is_absolute():
        return path
    return str(given.relative_to(here)) if here in given.parents else None


def keep_here(folder: Path, settings: Mapping[str, Any]) -> None:
    """Note those paths, settings by name, that selection.json leaves out: the commands of this machine have them."""
    paths = {name: value for name in PATHS if isinstance(value := settings.get(name), (str, Path))}
    outside = {name: str(Path(path).expanduser()) for name, path in paths.items() if shared(str(path)) is None}
    if outside:
        write_json(folder / HERE, {**here(folder), **outside})


def here(folder: Path) -> dict[str, str]:
    """What `keep_here` noted."""
    said = None
    with contextlib.suppress(UserError):  # edited, or cut short: the command has a gap then
        said = read_json(folder / HERE) if (folder / HERE).is_file() else None
    return {k: v for k, v in said.items() if k in PATHS and isinstance(v, str)} if isinstance(said, dict) else {}


def run_of(folder: Path) -> Path | None:
    """The finished run that a folder to label lies in."""
    run = folder.parent if folder.name not in ("", "..") else folder.resolve().parent
    return run if (run / "training.yaml").is_file() else None


def settings_so_far(folder: Path, asked: Asked, run: Path | None = None) -> dict[str, Any]:
    """Settings by name, of the run that the folder belongs to or of `select`, as far as they still lead somewhere.

    Args:
        folder: to label. asked: its selection.json.
        run: the run, where it is known; None: that which the folder lies in.
    """
    said: Mapping[str, Any] = {**asked.given, **here(folder)}
    run = run or run_of(folder)
    if run is not None:
        with contextlib.suppress(UserError):  # edited, or cut short: the command has a gap then
            said = read_yaml(run / "training.yaml")
    known = {name: said[name] for name in (*SOURCE, *MEANT, "model") if said.get(name) not in (None, [], False)}
    known |= {name: value for name, value in rounds(folder, asked, run).items() if name in ROUND}
    dataset, model = known.get("dataset", asked.dataset), known.get("model")
    of_hub = dataset == asked.dataset and "/" in str(dataset)  # kept by its whole name
    named = dataset in BUILT_IN or of_hub
    if named or isinstance(dataset, str) and "dataset" in known and Path(dataset).expanduser().exists():
        known["dataset"] = dataset
    else:
        known.pop("dataset", None)
    within = run is not None and isinstance(model, str) and run.resolve() in Path(model).resolve().parents
    if not isinstance(model, str) or within:
        known.pop("model", None)  # adapted in the run itself
    known |= {name: MODEL for name in ("model", "text_model") if is_gone(known.get(name))}
    return known


def is_gone(path: Any) -> bool:
    return isinstance(path, str) and Path(path).is_absolute() and not Path(path).exists()


def rounds(folder: Path, asked: Asked, run: Path | None) -> dict[str, Any]:
    """What was given for every round, as the folder knows it or that of the images the run asks for."""
    if asked.given or run is None or not (run / "to_label" / "selection.json").is_file():
        return {**asked.given, **here(folder)}
    with contextlib.suppress(UserError):
        return {**Asked.load(run / "to_label").given, **here(run / "to_label")}
    return {}


def refuse_mixing(folder: Path, asked: Asked) -> None:
    """UserError where painted masks cannot lie among those of the data that a folder to label is about."""
    if why := why_not_mixed(settings_so_far(folder, asked), folder / "images"):
        raise UserError(why)


def why_not_mixed(said: Mapping[str, Any], images: Path | None = None) -> str:
    """Why painted masks cannot lie among those of data, of which settings by name are said; "" where they can.

    images: to paint, which the words then name.
    """
    binary = said.get("mask_format") == "binary" and said.get("mask_ignore")
    if not (said.get("instances") or binary):
        return ""
    of = "with --instances" if said.get("instances") else "of --mask-format binary with --mask-ignore"
    which = f"the images in {str(images)!r}" if images else "further images"
    return (
        f"The masks of the data are {of}, and the page paints class numbers, which cannot lie among them. Draw the "
        f"masks of {which} with the tool that the others are from, and put them where those are; `hf-lowlabel auto` "
        "into another --output-dir learns from all of them."
    )


def declared_colors(data: DataArguments) -> Colors:
    """The colours of the classes, of data whose masks are of colours; {} of other data."""
    if data.mask_format != "colors" or len(data.classes) > 1:
        return {}
    own = Path(data.dataset) / CLASSES_FILE if isinstance(data.dataset, (str, Path)) else None
    file = Path(data.classes[0]) if data.classes else own
    file = file and file.expanduser()
    return list_classes(file)[1] if file is not None and file.is_file() else {}


def colored_by(folder: Path, asked: Asked) -> Path | None:
    """The file of the colours that the masks of a folder to label have; None where they are class numbers alone."""
    return folder / CLASSES_FILE if settings_so_far(folder, asked).get("mask_format") == "colors" else None


def painted_binary(folder: Path, asked: Asked) -> bool:
    """Whether the masks of a folder to label lie among masks of 0 and 255."""
    return settings_so_far(folder, asked).get("mask_format") == "binary"


def after_labels(folder: Path, asked: Asked, run: Path | None = None) -> str:
    """What takes the classes that were given in a folder."""
    said = settings_so_far(folder, asked, run)
    if "dataset" in said or kind_of(asked.task).several:
        run = run or run_of(folder)
        return auto_command(said, asked.task, labels=folder, output_dir=free(run) if run else None)
    return command("split", **{"from": folder}, output=manifest())


def after_masks(folder: Path, asked: Asked, missing: bool) -> str:
    """What puts the masks that were painted in a folder beside the images of the data set.

    Args:
        folder: to label. asked: its selection.json.
        missing: images are left that have no mask.
    """
    dataset = settings_so_far(folder, asked).get("dataset")
    if dataset is None or not Path(dataset).expanduser().is_dir():
        dataset = UNKNOWN
    more = dict(dataset=dataset, allow_missing=missing, output=manifest())
    return command("split", task=asked.task, **{"from": folder}, **more)


def manifest() -> Path | None:
    """Where `split` is to write; None: where it does by itself."""
    usual = Path("split.json")
    return None if (place := free(usual)) == usual else place
