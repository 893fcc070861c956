"""Masks from clicks and boxes: a SAM of transformers, asked about the image that is painted."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from ..errors import UserError, unknown

# model_type of a repository -> its classes in transformers; SAM 2's repositories are those of its video model
FAMILIES = {
    "sam": ("SamModel", "SamProcessor"),
    "sam2": ("Sam2Model", "Sam2Processor"),
    "sam2_video": ("Sam2Model", "Sam2Processor"),
    "sam_hq": ("SamHQModel", "SamHQProcessor"),
}
HELD = 3  # images whose embeddings are remembered


class Assistant:
    """A SAM, by its Hub id or folder. The heavy part of an image, its embedding, is computed once for each of the last
    images.

    Raises:
        UserError: there is no such model, or it is none of `FAMILIES`.
    """

    def __init__(self, name: str):
        import transformers
        from safetensors import SafetensorError

        from ..distributed import best_device  # torch comes with it, and most pages do without
        from ..models.checkpoint_resolver import model_config
        from ..models.quiet import silent

        kind = str(model_config(name).get("model_type"))
        if kind not in FAMILIES:
            raise unknown("type of model for --assist", kind, FAMILIES)
        model, processor = (getattr(transformers, part) for part in FAMILIES[kind])
        try:
            with silent():
                found = model.from_pretrained(name, use_safetensors=True, trust_remote_code=False)
                self.model: Any = found.float().eval()  # saved in half precision it takes no pixels
                self.processor: Any = processor.from_pretrained(name)
        except (OSError, ValueError, ImportError, RuntimeError, SafetensorError) as error:
            reason = " ".join(str(error).split())[:300]
            raise UserError(f"{name!r} cannot be loaded for --assist: {reason}") from error
        self.device, self.lock = best_device(), threading.Lock()
        self.model.to(self.device)
        self.embedded: dict[str, Any] = {}

    def mask(self, key: str, image: np.ndarray, points: list[list[float]], box: list[float] | None) -> np.ndarray:
        """What is meant by clicks and a box, bool [H, W].

        Args:
            key: names the image.
            image: uint8 [H, W, 3].
            points: (x, y, 1 for inside or 0 for outside) in px.
            box: (left, top, right, bottom) in px; None: no box.

        Raises:
            UserError: nothing is asked, or beside the image.
        """
        height, width = image.shape[:2]
        inside = all(0 <= x <= width and 0 <= y <= height for x, y, _ in points)
        if (
            not (points or box)
            or not inside
            or (box and not (0 <= box[0] < box[2] <= width and box[1] < box[3] <= height))
        ):
            raise UserError("A click or a box has to be on the image.")
        asked: dict[str, Any] = {}
        if points:
            asked |= dict(input_points=[[[p[:2] for p in points]]], input_labels=[[[int(p[2]) for p in points]]])
        if box:
            asked |= dict(input_boxes=[[box]])
        with self.lock:
            return self.answered(key, image, asked, several=len(points) == 1 and not box)

    def answered(self, key: str, image: np.ndarray, asked: dict[str, Any], several: bool) -> np.ndarray:
        """several: one click may mean a part or the whole, so that of three masks the likeliest is taken."""
        import torch

        with torch.inference_mode():
            inputs = self.processor(images=image, **asked, return_tensors="pt").to(self.device)
            pixels = inputs.pop("pixel_values")
            if key not in self.embedded:
                found = self.model.get_image_embeddings(pixels)
                for old in list(self.embedded)[: max(0, len(self.embedded) + 1 - HELD)]:
                    del self.embedded[old]
                self.embedded[key] = found
            sizes = {k: inputs.pop(k) for k in ("original_sizes", "reshaped_input_sizes") if k in inputs}
            held = self.embedded[key]
            if isinstance(held, tuple):  # SAM-HQ has maps of earlier layers beside them
                held = dict(image_embeddings=held[0], intermediate_embeddings=held[1])
            else:
                held = dict(image_embeddings=held)
            said = self.model(**held, **inputs, multimask_output=several)
            masks = self.processor.post_process_masks(
                said.pred_masks.float().cpu(), **{k: v.cpu() for k, v in sizes.items()}
            )
            best = int(said.iou_scores.flatten().argmax())
            return masks[0].reshape(-1, *image.shape[:2])[best].bool().numpy()
