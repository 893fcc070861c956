"""A trained segmenter as a checkpoint of segmentation_models_pytorch: `smp.from_pretrained(folder)` loads it."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import segmentation_models_pytorch as smp

from ..errors import UserError
from ..files import as_folder
from ..tasks.parts import photo_code
from ..tasks.segmentation import Segmentation
from .push import SHARED

OURS = ("config.json", "model.safetensors", "preprocessor_config.json")
SNIPPET = """import numpy as np
import segmentation_models_pytorch as smp
import torch
from torchvision.transforms.v2.functional import normalize, pil_to_tensor
from PIL import Image, ImageOps

model = smp.from_pretrained("{name}").eval()
{photo}image = pil_to_tensor(photo.resize(({side}, {side})))  # multiples of {divisor} px
x = normalize(image / 255, {mean}, {std})[None]
with torch.no_grad():
    mask = model(x).argmax(1)[0]  # [H, W] of {names}"""


def export_smp(run: str | os.PathLike[str], output: str | Path) -> Path:
    """Write the bare network of a segmenter, with its card, for those who use smp and not transformers.

    What the wrapper adds is lost: padding to a multiple of the stride, the image processor, the class names.

    Raises:
        UserError: `run` is no segmenter, smp lacks its architecture or cannot rebuild its encoder, or there is an
            `output` already.
    """
    run, output = Path(as_folder(run)), Path(output)
    if output.exists():
        raise UserError(f"{output} is there already. Give another name.")
    model = Segmentation().load(run, device="cpu")
    network, config = model.network, model.config
    if not isinstance(network, tuple(smp.MODEL_ARCHITECTURES_MAPPING.values())):
        raise UserError(
            f"The architecture is {config.architecture!r}, which smp does not have. Push the model as it is."
        )
    network.save_pretrained(output)
    (output / "README.md").unlink()  # it states a licence that nobody gave
    try:
        smp.from_pretrained(str(output))
    except RuntimeError as error:
        shutil.rmtree(output)
        raise UserError(
            "smp builds this encoder with other weights than ours "
            f"({' '.join(str(error).split())[:200]}). Push the model as it is."
        ) from error
    for name in SHARED:
        if name not in OURS and (run / name).is_file():
            shutil.copyfile(run / name, output / name)
    if (run / "README.md").is_file():
        snippet = SNIPPET.format(
            photo=photo_code(getattr(config, "value_range", None), "photo"),
            name=output.resolve().name,
            divisor=model.divisor,
            side=-(-(config.image_size or 512) // model.divisor) * model.divisor,
            mean=[round(v, 4) for v in config.image_mean],
            std=[round(v, 4) for v in config.image_std],
            names=", ".join(config.id2label[i] for i in range(config.num_labels)),
        )
        text = (run / "README.md").read_text(encoding="utf-8")
        text = re.sub(
            r"(\n## Use\n.*?```python\n).*?(\n```)", lambda m: m[1] + snippet + m[2], text, count=1, flags=re.S
        )
        text = re.sub(r"^library_name: .*$", "library_name: segmentation-models-pytorch", text, count=1, flags=re.M)
        (output / "README.md").write_text(text, encoding="utf-8")
    return output
