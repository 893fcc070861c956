"""A trained segmenter as a checkpoint of segmentation_models_pytorch: `smp.from_pretrained(folder)` loads it."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

import segmentation_models_pytorch as smp

from ..distributed import is_main_process
from ..errors import UserError
from ..files import A_RUN, by_name, whole_folder
from ..licences import card_in
from ..tasks.data_classes import photo_code
from ..tasks.segmentation import Segmentation
from ..tasks.segmenters import brought_code
from .once import by_another
from .push import SHARED, contents, push_folder
from .upload import Uploaded, check_target

OURS = ("config.json", "model.safetensors", "preprocessor_config.json")
SNIPPET = """import numpy as np
import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torchvision.transforms.v2.functional import normalize, pil_to_tensor

model = smp.from_pretrained("{name}").eval()
{photo}x = normalize(pil_to_tensor(photo) / 255, {mean}, {std})[None]
{resize}h, w = x.shape[-2:]
x = F.pad(x, (0, -w % {divisor}, 0, -h % {divisor}), mode="replicate")  # multiples of {divisor} px
with torch.no_grad():
    p = model(x).softmax(1)[..., :h, :w]
mask = F.interpolate(p, size=photo.size[::-1], mode="bilinear").argmax(1)[0]  # [H, W] of {names}"""
RESIZE = """scale = {side} / max(photo.size)  # the longer side becomes {side} px
size = [max(int(side * scale), 1) for side in photo.size[::-1]]
x = F.interpolate(x, size=size, mode="bilinear", antialias=True)
"""


def export_smp(run: str | os.PathLike[str], output: str | Path) -> Path:
    """Write the bare network of a segmenter, with its card, for those who use smp and not transformers.

    What the wrapper adds is not in the network, and in the lines of its card: the size at which it sees an image,
    padding to a multiple of the stride, the class names.

    Raises:
        UserError: `run` is no segmenter, smp lacks its architecture or cannot rebuild its encoder, its card cannot be
            read, or there is an `output` already.
    """
    run, output = Path(by_name("run", run, A_RUN, needed=True)), Path(output)
    if output.exists():
        raise UserError(f"{output} is there already. Give another name.")
    card = card_in(run / "README.md") if (run / "README.md").is_file() else None
    model = Segmentation().load(run, device="cpu")
    network, config = model.network, model.config
    if not isinstance(network, tuple(smp.MODEL_ARCHITECTURES_MAPPING.values())):
        raise UserError(
            f"The architecture is {config.architecture!r}, which smp does not have. Push the model as it is."
        )
    if brought_code(model):
        raise UserError(
            f"The encoder is {config.encoder!r}, which timm lacks, so that smp could not open it where this package is "
            "not. Push the model as it is: it brings its code."
        )
    with whole_folder(output) as part:
        network.save_pretrained(part)
        (part / "README.md").unlink()  # it states a licence that nobody gave
        try:
            smp.from_pretrained(str(part))
        except Exception as error:  # whatever smp and timm raise for arguments that no configuration keeps
            raise UserError(
                "smp builds this encoder with other weights than ours "
                f"({type(error).__name__}: {' '.join(str(error).split())[:200]}). Push the model as it is."
            ) from error
        for name in SHARED:
            if name not in (*OURS, "README.md") and (run / name).is_file():
                shutil.copyfile(run / name, part / name)
        if card is not None:
            (part / "README.md").write_text(_card(card, output.resolve().name, model), encoding="utf-8")
    return output


def push_smp(
    run: str | os.PathLike[str],
    repo_id: str,
    *,
    private: bool = False,
    create_pr: bool = False,
    revision: str | None = None,
) -> Uploaded:
    """Push what `export_smp` writes.

    Args:
        run: folder of a segmenter.
        repo_id: where to.
        private: as of `push`.
        create_pr: as of `push`.
        revision: as of `push`.

    Returns:
        Where it is.

    Raises:
        UserError: of `export_smp` and of `push`.
    """
    check_target(repo_id, create_pr, revision)
    if not is_main_process():
        return by_another(repo_id)
    contents(Path(by_name("run", run, A_RUN, needed=True)))  # what `push` refuses of the run itself
    again = dict(private=private, create_pr=create_pr, revision=revision)
    with tempfile.TemporaryDirectory() as aside:
        folder = export_smp(run, Path(aside, repo_id.rpartition("/")[2]))
        return push_folder(folder, repo_id, run=Path(run), again=again, as_smp=True)


def _card(card: str, name: str, model: Any) -> str:
    """The card of a run with the lines that use smp. name: of the folder."""
    config = model.config
    snippet = SNIPPET.format(
        photo=photo_code(getattr(config, "value_range", None), "photo"),
        name=name,
        divisor=model.divisor,
        resize=RESIZE.format(side=config.image_size) if config.image_size else "",
        mean=[float(f"{v:.7g}") for v in config.image_mean],
        std=[float(f"{v:.7g}") for v in config.image_std],
        names=", ".join(config.id2label[i] for i in range(config.num_labels)),
    )
    text = re.sub(r"(\n## Use\n.*?```python\n).*?(\n```)", lambda m: m[1] + snippet + m[2], card, count=1, flags=re.S)
    text = re.sub(r"^library_name: .*$", "library_name: segmentation-models-pytorch", text, count=1, flags=re.M)
    return text
