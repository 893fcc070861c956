"""From chosen images to a folder a person can label: images, contact sheet, labels.csv, Label Studio tasks.

    to_label/images/0000_cat.jpg   index.html   labels.csv   selection.json   classes.txt (where classes are known)
             label_studio_tasks.json   label_studio_config.xml   .here.json (paths out of the working directory)

For segmentation there is no labels.csv: the masks are painted in Label Studio, and split.json says which images they
are for. selection.json is written last: a folder with it is complete.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np

from ..data.dataset import ImageDataset
from ..data.pixels.images import BadImage
from ..errors import UserError
from ..files import SEAL, filling, seal
from ..locks import open_alone, open_locked
from .answer_kinds import kind_of
from .contact_sheet import contact_sheet
from .display import file_to_show
from .label_studio import label_studio_config, label_studio_tasks
from .labels import Asked, write_text
from .next_steps import HERE
from .suggestions import Suggestions, write_suggestions

log = logging.getLogger("hf_lowlabel")


class NoneReadable(UserError):
    """None of the images to label can be read any more."""


KEPT = ("features.safetensors", "left_out.csv", HERE, ".DS_Store")  # what may lie in the folder before
LAST = "selection.json"  # a folder with it is complete, and may have been labeled since
BEGUN = ".begun"  # in a folder that is not complete; what is beside it is ours


def is_complete(folder: Path) -> bool:
    """Whether a folder has its last file; what was ended between that and its end is ended here."""
    if not (folder / LAST).is_file():
        return False
    if (folder / BEGUN).is_file():
        with contextlib.suppress(OSError), open_locked(folder / BEGUN)[0]:  # else its writer is at it, or it cannot be
            if not (folder / SEAL).is_file():
                seal(folder, [LAST])
            (folder / BEGUN).unlink(missing_ok=True)
    return True


def check_folder(folder: Path) -> None:
    """An error for a folder that holds anything, so that no labels are ever written over."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{str(folder)!r} is a file. Give a folder to write to.")
    if is_complete(folder) or not (folder / BEGUN).is_file():
        refuse(folder)


def refuse(folder: Path) -> None:
    """UserError for what is in a folder, where it is anything."""
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    there = sorted(name for name in names if name not in KEPT and name != BEGUN and not name.endswith(".part"))
    if there:
        shown = f"{', '.join(there[:3])}{' ...' if len(there) > 3 else ''}"
        raise UserError(
            f"There is {shown} in {str(folder)!r}. Use another --output, an empty folder, so that nothing labeled is "
            "lost."
        )


def export(
    folder: Path,
    source: ImageDataset,
    chosen: np.ndarray,
    task: Asked,
    why: list[dict],
    said: Suggestions | None = None,
) -> Asked:
    """Write the folder to label in; selection.json comes last.

    Args:
        folder: where to write.
        source: the images.
        chosen: positions of the chosen ones in it, int64 [budget].
        task: what is asked, without its files.
        why: what the contact sheet says of each chosen image (`reasons`).
        said: what a model takes each for, and why it is chosen, for the page.

    Returns:
        The task with the names of the files, of those images that can be read still.

    Raises:
        UserError: another process has written the folder meanwhile, or is at it.
        NoneReadable: no image can be read any more; nothing is left of the folder.
    """
    with alone(folder):
        if (folder / LAST).is_file():
            (folder / BEGUN).unlink()
            refuse(folder)
        shutil.rmtree(folder / "images", ignore_errors=True)  # of one that was killed
        (folder / "images").mkdir()
        written = write_images(source, chosen, folder)
        reasons, files = [why[n] for n in written.values()], {f: source.ids[chosen[n]] for f, n in written.items()}
        task, said = replace(task, files=files), {id: one for id, one in (said or {}).items() if id in files.values()}
        write_text(
            folder / "label_studio_tasks.json", json.dumps(label_studio_tasks(task), indent=1, ensure_ascii=False)
        )
        write_text(folder / "label_studio_config.xml", label_studio_config(task))
        write_text(folder / "index.html", contact_sheet(task, reasons, said))
        if said:
            write_suggestions(folder, said)
        kind_of(task.task).write(folder, task)
        task.save(folder)
        seal(folder, [LAST])
    return task


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """No other process writes to the folder in here; what is ended before its end leaves BEGUN."""
    with filling(folder):
        words = f"Another process is writing to {str(folder)!r}. Wait for it, or use another --output."
        with open_alone(folder / BEGUN, words) as mark:
            mark.truncate(0)
            mark.write("`hf-lowlabel select` is writing here, or was ended before it was done.\n")
            mark.flush()
            yield
            (folder / BEGUN).unlink()


def write_images(source: ImageDataset, chosen: Sequence[int] | np.ndarray, folder: Path) -> dict[str, int]:
    """images/ of a folder: name of each file -> which of `chosen` it is; warnings name those that cannot be read.

    Raises:
        NoneReadable: it is none.
    """
    files = dict[str, int]()
    for n, i in enumerate(chosen):
        try:
            files[write_image(source, int(i), folder / "images", n)] = n
        except BadImage as error:
            log.warning("%s: it is not among those to label", error)
    if len(chosen) and not files:
        (folder / "images").rmdir()
        (folder / BEGUN).unlink(missing_ok=True)
        raise NoneReadable("None of the chosen images can be read any more. Mend the files, and start again.")
    return files


def write_image(source: ImageDataset, i: int, folder: Path, number: int) -> str:
    """Copy image i as it is where browsers show what the network sees of it, else as PNG; returns its file name,
    `number` first."""
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", PurePosixPath(source.ids[i]).stem)[:60].strip("-.") or "image"
    if file := source.of_opened(i, file_to_show):
        name = f"{number:04d}_{stem}{file.suffix.lower()}"
        shutil.copyfile(file, folder / name)
    else:
        name = f"{number:04d}_{stem}.png"
        source.rgb(i).save(folder / name)
    return name
