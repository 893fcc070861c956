"""The contact sheet of a folder to label: each chosen image beside those it stands for."""

from __future__ import annotations

import base64
import html
import io

from PIL import Image

from ..data.dataset import ImageDataset
from ..data.pixels.images import BadImage
from .answer_kinds import kind_of
from .labels import Asked
from .suggestions import Suggestions

UNPAINTED = "draw their masks with the tool that those of the data are from, and put them where those are"
THUMB = 96  # px, side of a neighbour


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


def contact_sheet(task: Asked, why: list[dict], said: Suggestions) -> str:
    """One row per chosen image: itself, how many images it stands for, and its nearest neighbours."""
    rows = []
    for (file, id), reason in zip(task.files.items(), why, strict=True):
        near = "".join(
            f'<figure{" class=same" if n["same"] else ""}><img src="{n["thumb"]}" alt="{html.escape(n["id"], True)}" '
            f'title="{html.escape(n["id"], True)}"><figcaption>{n["distance"]:.3f}'
            f"{' (near-duplicate)' if n['same'] else ''}</figcaption></figure>"
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
    unpainted = task.report.get("not_painted")  # the folder's page cannot take their masks
    next_step = UNPAINTED if unpainted else kind_of(task.task).next_step
    lead = (
        f"Chosen by {html.escape(how)}. Next: {next_step}. The number below a neighbour is the "
        "distance of its features: 0 for the same image, 1.4 for images that have nothing in common."
    )
    return SHEET.format(title=html.escape(title), lead=lead, rows="\n".join(rows))
