"""A segmenter small enough to redo in float64, and batches for the segmentation methods."""

from __future__ import annotations

from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import nn

from hf_lowlabel.views.counter_rng import keys

K, D, SIDE = 4, 6, 8  # classes, features, px


class TinySegmenter(nn.Module):
    """features = tanh(conv of stride 2), logits = 1x1 convolution, each cell repeated 2 x 2 times."""

    divisor, num_features = 2, D

    def __init__(self, norm: bool = False, seed: int = 0):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.body = nn.Conv2d(3, D, 3, stride=2, padding=1)
            self.norm = nn.BatchNorm2d(D) if norm else nn.Identity()
            self.head = nn.Conv2d(D, K, 1)
            self.head.weight.data.mul_(3)  # some pixels confident, some not

    def encode(self, x):
        return [x, self.norm(self.body(x)).tanh()]

    def decode(self, maps):
        return maps[-1]

    def features(self, x):
        return self.decode(self.encode(x))

    def classify(self, features, size=None):
        logits = F.interpolate(self.head(features), scale_factor=2, mode="nearest")
        return logits if size is None else logits[..., : size[0], : size[1]]

    def forward(self, x):
        return SimpleNamespace(logits=self.classify(self.features(x), tuple(x.shape[-2:])))

    def body_parameters(self):
        return self.body.parameters()


def make_batch(seed: int = 0, labeled: int = 2, unlabeled: int = 3) -> dict:
    g = torch.Generator().manual_seed(seed)
    x = lambda n: torch.randn(n, 3, SIDE, SIDE, generator=g)  # noqa: E731
    target = torch.randint(0, K, (labeled, SIDE, SIDE), generator=g)
    target[:, 0] = -100
    valid = torch.rand(unlabeled, SIDE, SIDE, generator=g) > 0.2
    views = {key: x(unlabeled) for key in ("weak", "weak2", "strong", "strong2")}
    return {
        "labeled": {
            "image": x(labeled),
            "strong": x(labeled),
            "target": target,
            "index": torch.arange(labeled),
            "key": keys(seed, "labeled", 0, labeled),
        },
        "unlabeled": {
            **views,
            "valid": valid,
            "index": torch.arange(unlabeled),
            "key": keys(seed, "unlabeled", 0, unlabeled),
        },
    }


def double(x: torch.Tensor, model: TinySegmenter) -> torch.Tensor:
    """Logits float64 [n, K, H, W] from the weights as they are now; no BatchNorm."""
    w = {k: v.detach().double() for k, v in model.named_parameters()}
    f = F.conv2d(x.double(), w["body.weight"], w["body.bias"], stride=2, padding=1).tanh()
    z = torch.einsum("ndhw,kd->nkhw", f, w["head.weight"][:, :, 0, 0]) + w["head.bias"][:, None, None]
    return z.repeat_interleave(2, 2).repeat_interleave(2, 3)[..., : x.shape[-2], : x.shape[-1]]


def pixels(n: int):
    return [(i, r, c) for i in range(n) for r in range(SIDE) for c in range(SIDE)]


def mean_ce(z: torch.Tensor, y: torch.Tensor) -> float:
    """Mean over pixels with a label of - log p_y, one by one."""
    logp = z.log_softmax(1)
    values = [-float(logp[i, y[i, r, c], r, c]) for i, r, c in pixels(len(z)) if y[i, r, c] >= 0]
    return sum(values) / len(values)
