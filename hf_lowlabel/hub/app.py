"""`hf-lowlabel demo-app RUN`: a Gradio page for a trained model, and the folder of a Space with the same page."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import io
import json
import logging
import math
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from PIL import Image

from ..data.pixels.images import square_of
from ..errors import UserError, at_least
from ..files import A_RUN, by_name, of_disk, whole_folder, write_tensors, write_text
from ..licences import card_in
from ..records import RunRecord
from ..tasks import TASKS, get_task, of_record, read_record
from ..tasks.base import Task
from ..tasks.classification_card import spread
from ..tasks.data_classes import MODEL_FILES
from .card import license_values, summary
from .push import check_weights

log = logging.getLogger("hf_lowlabel")
MOST_LABELED = 500  # labeled images that are offered as neighbours
EXAMPLES = 8
HERE = ("127.0.0.1", "localhost")
SIDE = 256  # px, long side of a stored picture that is only looked at, and of no example less


def demo_app(
    run: str | os.PathLike[str], *, port: int | None = None, images: bool = True, share: bool = False, wait: bool = True
):
    """Start the page for a run folder and return it; `wait` keeps the process until Ctrl-C."""
    at_least("port", port, 1, 65535)
    if importlib.util.find_spec("gradio") is None:
        raise UserError("The demo page needs gradio, which is not installed. Run pip install 'hf_lowlabel[demo]'.")
    folder = tempfile.TemporaryDirectory(prefix="hf-lowlabel-demo-")
    space = export_space(run, Path(folder.name, "space"), images=images)
    from .space_app import build

    page, launch = build(space)
    page.folder = folder  # the pictures are read while the page is open; the folder goes with it
    if not share and "GRADIO_SERVER_NAME" not in os.environ:
        launch["app_kwargs"] = {"middleware": own_pages()}
    page.launch(server_port=port, share=share, prevent_thread_lock=not wait, **launch)
    return page


def own_pages() -> list:
    """For a page of this machine alone: asked by another name (DNS rebinding) or from another site, it does not
    answer, and no other page shows it in a frame."""
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    return [Middleware(TrustedHostMiddleware, allowed_hosts=[*HERE], www_redirect=False), Middleware(OwnPages)]


class OwnPages:
    """ASGI: refuses what another site sends, and forbids frames."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] not in ("http", "websocket"):
            return await self.app(scope, receive, send)
        origin = dict(scope["headers"]).get(b"origin", b"").decode("latin-1")
        if origin and urlsplit(origin).hostname not in HERE:
            await send({"type": "http.response.start", "status": 403, "headers": [(b"content-length", b"0")]})
            return await send({"type": "http.response.body", "body": b""})

        async def framed(message) -> None:
            if message["type"] == "http.response.start":
                policy = (b"content-security-policy", b"frame-ancestors 'none'")
                message = {**message, "headers": [*message["headers"], policy]}
            await send(message)

        return await self.app(scope, receive, framed)


def export_space(run: str | os.PathLike[str], output: str | Path, *, images: bool = True) -> Path:
    """Write the folder of a Space: page, model, requirements and, unless `images` is off, labeled and example images.

    Raises UserError when `run` is no trained classifier or segmenter, when its card cannot be read, or when `output`
    has files in it.
    """
    run, output = Path(by_name("run", run, A_RUN, needed=True)), Path(output)
    record, readme = check_run(run), run / "README.md"
    card = card_in(readme) if readme.is_file() else ""
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UserError(f"{output} is there already. Give another --export-space.")
    with whole_folder(output.resolve()) as part:
        _write_space(run, record, card, part, images)
    return output


def _write_space(run: Path, record: RunRecord, card: str, output: Path, images: bool) -> None:
    (output / "model").mkdir()
    task = get_task(record.kind)
    task.export(run, output / "model")
    here = Path(__file__).parent
    shutil.copyfile(here / "space_app.py", output / "app.py")
    _architectures(record, output)
    title = record.name or (record.hub_id or "").rpartition("/")[2] or run.resolve().name
    said = {"title": title, "text": summary(record), "class_names": record.class_names}
    said |= task.space(record, output / "model")
    write_text(output / "space.json", json.dumps(said, indent=1, ensure_ascii=False) + "\n")
    if images:
        add_images(run, record, output)
    write_text(output / "requirements.txt", "".join(f"{line}\n" for line in requirements(task.packages)))
    write_text(output / "README.md", space_card(record, title, card))


def check_run(run: Path) -> RunRecord:
    for name in ("run.json", *MODEL_FILES):
        if not (run / name).is_file():
            raise UserError(f"There is no {name} in {run}. Give the folder of a finished run.")
    record = read_record(run)
    if record.kind not in TASKS:
        product = of_record(record.kind).product
        raise UserError(f"The model in {run} is a {product}, which gives features and no answer. Finetune it first.")
    check_weights(run / "model.safetensors")
    return record


def _architectures(record: RunRecord, output: Path) -> None:
    """The code of an architecture that timm alone does not know travels with the Space."""
    files = of_record(record.kind).code(record)
    if not files:
        return
    models, folder = Path(__file__).parents[1] / "models", output / "lowlabel_architectures"
    folder.mkdir()
    for name in files:
        shutil.copyfile(models / name, folder / name)
    modules = ", ".join(Path(name).stem for name in files)
    write_text(folder / "__init__.py", f"from . import {modules}  # they register their architectures with timm\n")


def requirements(packages: Sequence[str]) -> list[str]:
    """Packages and the versions this was tried with; gradio itself is named in the README of the Space."""
    return [f"{name}=={importlib.metadata.version(name).partition('+')[0]}" for name in packages]


def space_card(record: RunRecord, title: str, card: str = "") -> str:
    """README.md of a Space. card: of the model, which states its licence."""
    import yaml

    try:
        version = importlib.metadata.version("gradio")
    except importlib.metadata.PackageNotFoundError:
        version = None
    values = {
        "title": title[:60],
        "sdk": "gradio",
        "sdk_version": version,
        "app_file": "app.py",
        "pinned": False,
        "models": [record.hub_id] if record.hub_id else None,
        **license_values(card, record),
    }
    head = yaml.safe_dump({k: v for k, v in values.items() if v is not None}, sort_keys=False, allow_unicode=True)
    model = f" The model: [{record.hub_id}](https://huggingface.co/{record.hub_id})." if record.hub_id else ""
    return f"---\n{head}---\n{summary(record)}{model}\n"


# ---- pictures -------------------------------------------------------------------------------------------------------


def add_images(run: Path, record: RunRecord, output: Path) -> None:
    """The labeled images with their features, and test images as examples; without the data, a page without them."""
    wanted = {"labeled": _add_labeled} if get_task(record.kind).has_neighbours else {}
    for name, add in {**wanted, "examples": _add_examples}.items():
        try:
            add(run, record, output)
        except Exception as error:  # data that moved or cannot be reached: the model answers all the same
            if disk := of_disk(error, output):
                raise disk from error
            shutil.rmtree(output / name, ignore_errors=True)
            log.warning("no %s images on the page: %s", name.removesuffix("s"), error)


def _add_labeled(run: Path, record: RunRecord, output: Path) -> None:
    import torch

    from ..data.splits.splits import Split
    from .report_data import config_of

    config = config_of(run)
    task, split = get_task(config.task), Split.load(run / "split.json")
    source = task.open(config.data)
    at = split.resolve(source)
    chosen = at.labeled[spread(len(at.labeled), MOST_LABELED)]
    names = {int(i): split.class_names[k] for i, k in zip(at.labeled, at.labels, strict=True)}
    model = task.load(run, device="cpu")
    cache = task.held(model, config.data, source, chosen, split.class_names, "labeled").cache
    with torch.inference_mode():
        features = task.features(model, cache)
    features /= np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    (output / "labeled").mkdir()
    index = []
    for n, i in enumerate(cache.indices.tolist()):
        index.append({"file": _save(source.rgb(i), output / "labeled" / f"{n:04d}", enlarge=True), "label": names[i]})
    features = np.ascontiguousarray(features, np.float32)
    write_tensors(output / "labeled" / "features.safetensors", {"features": features})
    write_text(output / "labeled" / "index.json", json.dumps(index, indent=0, ensure_ascii=False) + "\n")


def _add_examples(run: Path, record: RunRecord, output: Path) -> None:
    from .report_data import labeled_images

    images, task = labeled_images(run, record), get_task(record.kind)
    model = task.load(run, device="cpu")
    (output / "examples").mkdir()
    for n, i in enumerate(images.chosen[spread(len(images.chosen), EXAMPLES)]):
        shown = images.dataset.rgb(int(i))
        _save(shown, output / "examples" / f"{n}", side=max(SIDE, side_seen(task, model, shown.size)))


def side_seen(task: Task, model: Any, size: tuple[int, int]) -> int:
    """px of the long side at which a model sees an image of this size, as `predict` gives it; not above its own."""
    if task.labeling == "mask":
        return min(model.config.image_size or max(size), max(size))
    return min(math.ceil(square_of(model.preprocessing)["size"] * max(size) / min(size)), max(size))


def _save(shown: Image.Image, path: Path, side: int = SIDE, enlarge: bool = False) -> str:
    """The image beside the page, without whatever else its file held; its name.

    side: px of its long side at most. enlarge: tiny images are shown with larger pixels; what the model is to read is
    not touched.
    """
    shown.thumbnail((side, side), Image.Resampling.LANCZOS)
    file, tiny = io.BytesIO(), max(shown.size) <= 64
    if tiny and enlarge:
        scale = SIDE // 2 // max(shown.size)
        shown = shown.resize([scale * side for side in shown.size], Image.Resampling.NEAREST)
    shown.save(file, "PNG" if tiny else "JPEG", **({} if tiny else {"quality": 90}))
    path = path.with_suffix(".png" if tiny else ".jpg")
    path.write_bytes(file.getvalue())
    return path.name
