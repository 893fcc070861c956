"""A network small enough to redo in float64, batches for every method, and numpy twins of what the papers write."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import torch
from torch import nn

from hf_lowlabel.methods import find, methods_for
from hf_lowlabel.objective import build_objective

S, D, K, POOL, LABELED = 4, 6, 5, 23, 9  # px, features, classes, unlabeled and labeled images
STEPS = 5


class TinyModel(nn.Module):
    """features = tanh(W x + b) (after BatchNorm if asked), logits = V features + c."""

    def __init__(self, norm: bool = False, seed: int = 0):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            between = nn.BatchNorm1d(D) if norm else nn.Identity()
            self.body = nn.Sequential(nn.Flatten(), nn.Linear(3 * S * S, D), between, nn.Tanh())
            self.head = nn.Linear(D, K)
            self.head.weight.data.mul_(3)  # some predictions confident, some not
        self.num_features = D

    def features(self, x):
        return self.body(x)

    def classify(self, f):
        return self.head(f)

    def forward(self, x):
        return SimpleNamespace(logits=self.classify(self.features(x)))

    def body_parameters(self):
        return self.body.parameters()


class Twin:
    """The same network in numpy float64, from whatever weights it has now."""

    def __init__(self, model: TinyModel):
        self.W, self.b = array(model.body[1].weight), array(model.body[1].bias)
        self.V, self.c = array(model.head.weight), array(model.head.bias)

    def features(self, x):
        return np.tanh(array(x).reshape(len(x), -1) @ self.W.T + self.b)

    def logits(self, x):
        return self.features(x) @ self.V.T + self.c

    def p(self, x):
        return softmax(self.logits(x))


def array(x) -> np.ndarray:
    x = x.detach().cpu() if torch.is_tensor(x) else x
    return np.asarray(x, dtype=np.float64) if np.asarray(x).dtype.kind == "f" else np.asarray(x)


def softmax(z):
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def log_softmax(z):
    z = z - z.max(1, keepdims=True)
    return z - np.log(np.exp(z).sum(1, keepdims=True))


def ce(z, y):
    """Cross-entropy of every row with classes [M] or probabilities [M, K]."""
    y = array(y)
    return -(log_softmax(z) * (np.eye(z.shape[1])[y] if y.ndim == 1 else y)).sum(1)


def norm(p):
    return p / p.sum(1, keepdims=True)


def sharp(p, T):
    return norm(p ** (1 / T))


def unit(v):
    return v / np.linalg.norm(v, axis=1, keepdims=True)


def mlp2(seq: nn.Sequential, f):
    """Linear, ReLU, Linear."""
    h = np.maximum(f @ array(seq[0].weight).T + array(seq[0].bias), 0)
    return h @ array(seq[2].weight).T + array(seq[2].bias)


def linear(layer: nn.Linear, f):
    return f @ array(layer.weight).T + array(layer.bias)


def make_batch(objective, step: int = 0, B: int = 4, M: int = 7, sharpness: float = 2.0) -> dict:
    """A batch with the views the objective declares; a view is the image plus a little noise of its own."""
    g = torch.Generator().manual_seed(100 + step)

    def part(kinds, n, size):
        index = torch.randint(size, (n,), generator=g)
        base = torch.randn(size, 3, S, S, generator=torch.Generator().manual_seed(size))[index] * sharpness
        return {"index": index, **{k: base + 0.3 * torch.randn(n, 3, S, S, generator=g) for k in kinds}}

    labeled = part(objective.labeled_views, B, LABELED)
    return {
        "labeled": {**labeled, "target": labeled["index"] % K},
        "unlabeled": part(objective.unlabeled_views, M, POOL),
    }


def build(name: str, *, model: nn.Module | None = None, **arguments) -> nn.Module:
    """The objective of a method of the table over a tiny network; heads come from seed 1."""
    priors = torch.randn(POOL, K, generator=torch.Generator().manual_seed(5)).softmax(1)
    facts = dict(num_classes=K, num_images=POOL, num_labeled=LABELED, priors=priors)
    facts |= {k: arguments.pop(k) for k in facts if k in arguments}
    torch.manual_seed(1)
    return build_objective(name, model if model is not None else TinyModel(), arguments, **facts)


FINETUNE = [n for n in methods_for("finetune") if "classification" in find(n).tasks and not find(n).frozen]


def train(objective, steps: int, first: int = 0, lr: float = 0.1, total: int = 10) -> list[float]:
    """SGD steps; the loss of each."""
    optimizer = torch.optim.SGD([p for p in objective.parameters() if p.requires_grad], lr=lr, momentum=0.0)
    losses = []
    for step in range(first, first + steps):
        torch.manual_seed(step)
        loss = objective(make_batch(objective, step), step / total)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        objective.after_step(step / total)
        losses.append(float(loss.detach()))
    return losses


def run(name, reference, rtol=2e-4, **arguments):
    """Train STEPS steps and compare every loss with reference(model twin, teacher twin, batch, t)."""
    objective = build(name, **arguments)
    optimizer = torch.optim.SGD([p for p in objective.parameters() if p.requires_grad], lr=0.1)
    for step in range(STEPS):
        batch, t = make_batch(objective, step), step / (2 * STEPS)
        torch.manual_seed(step)
        expected = reference(objective, Twin(objective.model), Twin(objective.ema.module), batch, t)
        torch.manual_seed(step)
        loss = objective(batch, t)["loss"]
        np.testing.assert_allclose(float(loss.detach()), expected, rtol=rtol, err_msg=f"{name}, step {step}")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        objective.after_step(t)
    return objective


def parts(batch, *keys):
    l, u = batch["labeled"], batch["unlabeled"]
    return [l["image"], array(l["target"]), *(u[k] for k in keys)]
