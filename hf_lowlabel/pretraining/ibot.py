"""Masked patches as iBOT has them (Zhou et al. 2022, arXiv 2111.07832, Eq. 2), for DINO on a vision transformer.

    L_MIM = mean over images of  -1/|M| sum_{i in M} P_t(u_i) log P_s(u^_i)

u_i are the teacher's patch tokens of a whole view, u^_i the student's where the patches in M are replaced by a learned
token; both pass the heads of DINO's class token (the paper's shared heads). Half of the views are whole; of the others
10 to 50 % are masked, in blocks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import UserError
from ..evaluation.inference import evaluating

MASKED, SHARES = 0.5, (0.1, 0.5)  # share of the views with masked patches, and of the patches in these
ASPECT, SMALLEST, ATTEMPTS = 0.3, 4, 10  # of a block: least ratio of its sides, its patches, tries to place one


def check_tokens(encoder: nn.Module) -> None:
    """UserError for a network without patch tokens."""
    net = getattr(encoder, "timm_model", encoder)
    if not (hasattr(net, "patch_embed") and hasattr(net, "num_prefix_tokens")):
        raise UserError(
            f"patch_loss masks the patches of a vision transformer, and this is a {type(net).__name__}. Leave "
            "patch_loss out, or take another --model, such as facebook/dinov2-small."
        )


@torch.no_grad()
def patch_channels(encoder: Any) -> int:
    """C, the width of what the first layer makes of a patch."""
    with evaluating(encoder):
        x = torch.zeros(1, *encoder.preprocessing["input_size"], device=encoder.device)
        return encoder.timm_model.patch_embed(x).shape[-1]


def tokens(encoder: Any, x: Tensor, mask: Tensor | None = None, token: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """(pooled features [B, D], patch tokens [B, n, D] behind the last norm), class and register tokens left out.

    Args:
        encoder: a backbone over a vision transformer.
        x: images [B, 3, H, W].
        mask: bool [B, n], patches that `token` [C] replaces where they become tokens; None: none.
    """
    net = encoder.timm_model

    def replaced(module: nn.Module, given: tuple, out: Tensor) -> Tensor:
        hidden = mask if out.dim() == 3 else mask.view(out.shape[:3])  # [B, h, w, C] of networks of any size
        return torch.where(hidden[..., None], token.to(out), out)

    hook = net.patch_embed.register_forward_hook(replaced) if mask is not None else None
    try:
        found = net.forward_features(x.to(encoder.device, encoder.dtype))
    finally:
        if hook is not None:
            hook.remove()
    return net.forward_head(found, pre_logits=True), found[:, net.num_prefix_tokens :]


def masks(grid: tuple[int, int], numbers: Sequence[int], step: int) -> np.ndarray:
    """Which patches of some views are masked, bool [n, h w]; each view's own draw by (step, its number).

    Args:
        grid: (h, w). numbers: of the views, the same on however many processes.
    """
    out = np.zeros((len(numbers), *grid), bool)
    for number, mask in zip(numbers, out, strict=True):
        random = np.random.default_rng([step, number])
        if random.random() < MASKED:
            fill_blocks(mask, round(random.uniform(*SHARES) * mask.size), random)
    return out.reshape(len(numbers), -1)


def fill_blocks(mask: np.ndarray, wanted: int, random: np.random.Generator) -> None:
    """Mask blocks of many shapes until `wanted` patches, at most, are masked (Bao et al. 2022, algorithm 1)."""
    while (left := wanted - int(mask.sum())) > 0:
        for _ in range(ATTEMPTS):
            area = random.uniform(min(SMALLEST, left), left)
            aspect = math.exp(random.uniform(math.log(ASPECT), -math.log(ASPECT)))
            h, w = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if not (0 < h <= mask.shape[0] and 0 < w <= mask.shape[1]):
                continue
            y, x = random.integers(mask.shape[0] - h + 1), random.integers(mask.shape[1] - w + 1)
            new = h * w - int(mask[y : y + h, x : x + w].sum())
            if 0 < new <= left:
                mask[y : y + h, x : x + w] = True
                break
        else:
            return


def masked_entropy(teacher: Tensor, student: Tensor, mask: Tensor) -> Tensor:
    """L_MIM from the teacher's probabilities and the student's log-probabilities of the masked patches, [m, K] in the
    order of mask [B, n]; images without a masked patch count as 0."""
    weight = (mask / mask.sum(1, keepdim=True).clamp_min(1))[mask]  # [m]
    return -((teacher * student).sum(1) * weight).sum() / len(mask)
