"""The methods of this library, one row each. Nothing heavy is imported here: `hf-lowlabel methods` answers at once."""
from __future__ import annotations

import ast
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Method:
    """`cls` is "module:Class" below hf_lowlabel; `defaults` and `presets` are settings of a run (see config.py)."""

    verb: str  # "pretrain" or "finetune"
    cls: str
    paper: str
    year: int
    arxiv: str
    needs: str  # what it asks of a batch, beside labeled images
    rule: str | None = None  # "module:Class" of the pseudo-label rule, for the FixMatch family
    tasks: tuple[str, ...] = ("classification",)
    defaults: dict = field(default_factory=dict)
    presets: dict[str, dict] = field(default_factory=dict)


METHODS: dict[str, Method] = {
    "byol": Method(
        "pretrain", "pretraining.byol:BYOL", "Grill et al., Bootstrap your own latent", 2020, "2006.07733", "two views",
        defaults=dict(batch_size=256, lr=0.3, weight_decay=1e-6, optimizer="lars"),
        presets={
            "target": dict(batch_size=256, lr=0.3, epochs=300, l2_start=1e-2),  # Xu et al., section 4.1
            "imagenet": dict(batch_size=4096, lr=0.2, weight_decay=1.5e-6, epochs=1000, warmup=0.01, l2_start=0.0,
                             method_args=dict(m0=0.996)),  # Grill et al., section 3.3
        }),
    "supervised": Method(
        "finetune", "finetuning.supervised:Supervised", "labels only, the baseline of every table", 2012, "", "nothing",
        defaults=dict(lr=0.03, batch_size=64)),
    "fixmatch": Method(
        "finetune", "finetuning.fixmatch:FixMatch", "Sohn et al., FixMatch", 2020, "2001.07685", "weak and strong view",
        rule="finetuning.weights:Fixed",
        defaults=dict(lr=0.03, batch_size=64, unlabeled_ratio=7),
        presets={
            "cifar": dict(lr=0.03, batch_size=64, unlabeled_ratio=7, weight_decay=5e-4, max_steps=2**20),
            "pretrained": dict(lr=0.1, batch_size=64, unlabeled_ratio=7, weight_decay=5e-4, max_steps=2**20),  # Xu et al.
            "imagenet": dict(lr=0.3, batch_size=1024, unlabeled_ratio=5, weight_decay=3e-4, warmup=0.0125,
                             method_args=dict(tau=0.7, lambda_u=10.0)),
        }),
}


def hyperparameters(method: Method) -> dict[str, object]:
    """Keyword hyperparameters of a method and its rule with their defaults, read from the source without importing it."""
    out: dict[str, object] = {}
    for path in (method.cls, method.rule):
        if path:
            out |= _signature(*path.split(":"))
    return {k: v for k, v in out.items() if k not in ("num_classes", "pool", "rule")}


def _signature(module: str, name: str) -> dict[str, object]:
    tree = ast.parse(Path(__file__).parent.joinpath(*module.split(".")).with_suffix(".py").read_text())
    cls = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name)
    init = next((n for n in cls.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"), None)
    if init is None:
        return {}
    given = [(a.arg, d) for a, d in zip(init.args.kwonlyargs, init.args.kw_defaults) if d is not None]
    return {name: ast.literal_eval(default) for name, default in given}
