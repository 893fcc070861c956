"""From chosen images to a folder a person can label: images, contact sheet, labels.csv, Label Studio tasks.

    to_label/images/0000_cat.jpg   index.html   labels.csv   selection.json   classes.txt (where classes are known)
             label_studio_tasks.json   label_studio_config.xml

For segmentation there is no labels.csv: the masks are painted in Label Studio, and split.json says which images they
are for. selection.json is written last: a folder with it is complete.
"""

from __future__ import annotations

import base64
import contextlib
import html
import io
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from ..data.dataset import ImageDataset
from ..data.images import BadImage
from ..errors import UserError
from ..evaluation.neighbors import neighbours
from ..files import SEAL, filling, seal
from ..locks import open_alone, open_locked
from .clustering import nearest
from .kinds import kind_of
from .label_studio import label_studio_config, label_studio_tasks
from .labels import Task, write_text
from .next_steps import HERE
from .shown import file_to_show
from .suggestions import Suggestions, write_suggestions

THUMB = 96  # px, side of a neighbour on the contact sheet
NEIGHBOURS = 6  # on the contact sheet
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
    folder: Path, source: ImageDataset, chosen: np.ndarray, task: Task, why: list[dict], said: Suggestions | None = None
) -> Task:
    """Write the folder to label in; selection.json comes last.

    Args:
        folder: where to write.
        source: the images.
        chosen: positions of the chosen ones in it, int64 [budget].
        task: what is asked, without its files.
        why: what the contact sheet says of each chosen image (`reasons`).
        said: what a model takes each for, and why it is chosen, for the page.

    Returns:
        The task with the names of the files.

    Raises:
        UserError: another process has written the folder meanwhile, or is at it.
    """
    with alone(folder):
        if (folder / LAST).is_file():
            (folder / BEGUN).unlink()
            refuse(folder)
        shutil.rmtree(folder / "images", ignore_errors=True)  # of one that was killed
        (folder / "images").mkdir()
        task = replace(
            task, files={write_image(source, int(i), folder / "images", n): source.ids[i] for n, i in enumerate(chosen)}
        )
        write_text(
            folder / "label_studio_tasks.json", json.dumps(label_studio_tasks(task), indent=1, ensure_ascii=False)
        )
        write_text(folder / "label_studio_config.xml", label_studio_config(task))
        write_text(folder / "index.html", contact_sheet(task, why, said or {}))
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


# ---- why these -------------------------------------------------------------------------------------------------------
def reasons(x: np.ndarray, chosen: np.ndarray, source: ImageDataset, indices: np.ndarray) -> list[dict]:
    """What the contact sheet says of each chosen image.

    Args:
        x: features, float32 [N, D].
        chosen: rows of the chosen images, int64 [budget].
        source: the images.
        indices: the position in it of each row, int64 [N].

    Returns:
        For each chosen image "stands_for", how many images it is the nearest chosen one of, and "neighbours", the
        nearest images, "same" where all but the same: nearer than a tenth of the median distance between a chosen
        image and its nearest ones.
    """
    index, distance = neighbours(x, NEIGHBOURS, chosen)
    index, distance = index[:, :NEIGHBOURS], np.sqrt(distance)
    stands_for = np.bincount(nearest(x, x[chosen])[0], minlength=len(chosen))
    limit = 0.1 * float(np.median(distance)) if distance.size else 0.0
    out = []
    for row in range(len(chosen)):
        shown = [
            {
                "id": source.ids[indices[j]],
                "distance": round(float(d), 4),
                "thumb": thumbnail(source, int(indices[j])),
                "same": bool(d < limit),
            }
            for j, d in zip(index[row], distance[row], strict=True)
        ]
        out.append({"stands_for": int(stands_for[row]), "neighbours": shown})
    return out


def thumbnail(source: ImageDataset, i: int) -> str:
    """A small JPEG as a data address."""
    try:
        small = source.rgb(i)
    except BadImage:
        return ""
    if max(small.size) < THUMB:
        small = small.resize([side * THUMB // max(small.size) or 1 for side in small.size], Image.Resampling.NEAREST)
    small.thumbnail((THUMB, THUMB))
    data = io.BytesIO()
    small.save(data, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode()


SHEET = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
 :root {{ color-scheme: light dark; }}
 body {{ font: 15px/1.4 system-ui, sans-serif; margin: 1.5rem; max-width: 70rem; overflow-wrap: anywhere; }}
 section {{ display: flex; gap: 1rem; align-items: center; padding: .8rem 0; border-top: 1px solid #8885; }}
 section > img {{ width: 160px; height: 160px; flex: none; object-fit: contain; background: #8882; }}
 .tiny {{ image-rendering: pixelated; }}
 figure {{ display: inline-block; margin: 0 .2rem; text-align: center; font-size: .75rem; }}
 figure.same img {{ outline: 3px solid #d60; }} p {{ margin: .2rem 0; }}
 @media (max-width: 600px) {{ body {{ margin: .8rem; }} section {{ display: block; }} figure img {{ width: 72px; }} }}
</style>
<h1>{title}</h1><p>{lead}</p>
{rows}
</html>
"""


def contact_sheet(task: Task, why: list[dict], said: Suggestions) -> str:
    """One row per chosen image: itself, how many images it stands for, and its nearest neighbours."""
    rows = []
    for (file, id), reason in zip(task.files.items(), why, strict=True):
        near = "".join(
            f'<figure{" class=same" if n["same"] else ""}><img src="{n["thumb"]}" alt="{html.escape(n["id"], True)}" '
            f'title="{html.escape(n["id"], True)}"><figcaption>{n["distance"]:.3f}'
            f"{' (all but the same)' if n['same'] else ''}</figcaption></figure>"
            for n in reason["neighbours"]
        )
        rows.append(
            f'<section id="{html.escape(file, True)}"><img src="images/{html.escape(file, True)}" '
            f'alt="{html.escape(id, True)}" '
            f'loading="lazy" onload="if (naturalWidth < 128) className = \'tiny\'">'
            f"<div><p><b>{html.escape(file)}</b> ({html.escape(id)})</p>"
            f"<p>{html.escape(said[id][1]) + '; ' if id in said else ''}nearest chosen image of "
            f"{reason['stands_for']} images; its nearest neighbours and their distances:</p>{near}</div></section>"
        )
    title = f"{len(task.files)} images of {task.dataset} to label"
    how = f"strategy {task.strategy}, seed {task.seed}" + (f", features of {task.model}" if task.model else "")
    lead = (
        f"Chosen by {html.escape(how)}. Next: {kind_of(task.task).next_step}. The number below a neighbour is the "
        "distance of its features: 0 for the same image, 1.4 for images that have nothing in common."
    )
    return SHEET.format(title=html.escape(title), lead=lead, rows="\n".join(rows))
