"""The contract every method meets: what a batch is, what a step returns, how a teacher follows its student.

Shape letters: B batch, C channels, H W height and width in px, K classes, D features, N images of a run.
"""

from __future__ import annotations

import copy
import math
import numbers
import re
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .errors import UserError
from .methods import Method, check_hyperparameters, find, keywords, name_of
from .once_per_step import OncePerStep
from .text import brief, series

IGNORE_INDEX = -100  # targets that take no part in a loss; in files of masks they are 255


class Objective(OncePerStep, Method):
    """One paper = one subclass. `forward` is the paper's loss; `after_step` is what happens once per optimizer step.

    `forward(batch, t)` takes a dict of tensors and `t`, the progress of training in [0, 1]; it returns a dict with
    "loss" (a differentiable scalar) and any number of detached scalars to log. It is called once per micro-batch, so
    that DDP and autocast see one forward pass. State that must survive a resume is a registered buffer, and moves once
    per step (`OncePerStep`). Random numbers come from torch's global generators, which the trainer seeds from (seed,
    step, rank) before every step; those of images by `distributed.drawn`, so that two processes do what one does.

    Each process of a launch sees its own images, and a checkpoint holds the buffers of the first: what goes into one is
    gathered before, [n, ...] of each process to [world * n, ...] on all, in the order of the batch:

        (z,) = self.so_far(t, hf_lowlabel.distributed.all_gather(z))  # of the step's micro-batches up to now
        self.later(bank=torch.cat([z, self.bank])[: len(self.bank)])

    Class attributes name the paper, its settings and what it needs (`Method`); a class of one's own needs none of them.
    """

    def forward(self, batch: dict, t: float) -> dict[str, Tensor]:
        raise TypeError(f"{type(self).__name__} must define forward(batch, t)")

    clips_each: ClassVar[bool] = False  # max_grad_norm holds for the gradient of each tensor, not for all together

    def decay(self, t: float) -> float:
        """Multiplier of the weight decay at progress t."""
        return 1.0

    def after_step(self, t: float) -> None:
        """Called once after every optimizer step: memories take in what its batches brought; teachers follow."""
        self.end_step()

    @property
    def evaluated(self) -> nn.Module:
        """The network that is evaluated and saved as the model."""
        raise TypeError(f"{type(self).__name__} must define `evaluated`")

    def param_groups(self) -> dict[str, list[nn.Parameter]]:
        """Trainable parameters by role; the trainer scales the learning rate of "head" and keeps that of
        "fixed" constant.

        Every trainable parameter stands in exactly one group.
        """
        return {"base": [p for p in self.parameters() if p.requires_grad]}


def check_views(cls: type[Objective]) -> None:
    """Raises UserError for views that are not written as `PretrainObjective` and `FinetuneObjective` have them."""
    for name, form in (("views", (list, tuple)), ("labeled_views", Mapping), ("unlabeled_views", Mapping)):
        value = getattr(cls, name, None)
        kinds = value.values() if isinstance(value, Mapping) else value
        if value is None or isinstance(value, property):
            continue
        if not isinstance(value, form) or not all(isinstance(kind, str) for kind in kinds):
            wanted = 'names of views, ("byol1", "byol2")' if name == "views" else 'a dict, {"weak": "weak"}'
            raise UserError(
                f"The {name} of {cls.__name__} is {brief(value)}. Give {wanted}: see help({cls.__base__.__name__})."
            )


def scalars_of(objective: Objective, out: Any) -> dict[str, Tensor]:
    """What a forward pass returned, its numbers as tensors.

    Raises:
        UserError: it is no dict with a loss that can be learned from, and scalars to log.
    """
    name, form = type(objective).__name__, 'forward has to return a dict with "loss", a scalar tensor'
    if not isinstance(out, dict) or "loss" not in out:
        found = f"a dict of {series(map(str, out)) or 'nothing'}" if isinstance(out, dict) else brief(out)
        raise UserError(f"The forward of {name} returned {found}: {form}.")
    loss = out["loss"]
    if not isinstance(loss, Tensor) or loss.dim():
        raise UserError(f"The loss of {name} is {brief(loss)}: {form}. Take the mean of losses of images.")
    if not loss.requires_grad:
        raise UserError(
            f"The loss of {name} needs no gradient: nothing that is trained has a part in it. Compute it from the "
            "network's output, without no_grad, detach or item."
        )
    scalars = {}
    for key, value in out.items():
        if not isinstance(key, str):
            raise UserError(
                f"The forward of {name} returned a dict with {brief(key)} for a name. Name what stands beside the loss "
                "by text."
            )
        if (one := scalar_of(value)) is None:
            raise UserError(
                f"{key!r} of the forward of {name} is {brief(value)}. What stands beside the loss is one number."
            )
        scalars[key] = torch.as_tensor(one, device=loss.device)
    return scalars


def scalar_of(value: Any) -> Tensor | float | None:
    """One number of any library; None for what is none, or has no place in a float."""
    if isinstance(value, Tensor):
        return None if value.dim() else value
    if getattr(value, "shape", None) == ():
        value = value.item()
    try:
        return float(value) if isinstance(value, numbers.Real) else None
    except OverflowError:
        return None


class PretrainObjective(Objective):
    """Self-supervised: `views` names the kinds of view of every image, in the order of `batch["views"]`.

    batch: {"views": [float [B, 3, H, W], ...], "index": int64 [B], "boxes": [float [B, 4], ...], "flips": [bool [B],
    ...]} where a box is (x0, y0, x1, y1) in px of the stored image the view was cut from. encoder: the network that is
    trained, evaluated and saved.

    The kinds, random crops but for the first three: eval (centre, unchanged), weak (shifted, mirrored), strong (weak,
    then RandAugment), byol1 and pixpro1 (colours, always blurred), byol2 and pixpro2 (colours, seldom blurred,
    solarised), moco and simsiam (colours, half blurred), simclr (strong colours, half blurred), comatch (colours, never
    blurred), dino-local (small parts, blurred), exemplar (hues alone). State of your own is as in `Objective`.
    """

    verb: ClassVar[str] = "pretrain"
    views: tuple[str, ...] = ("byol1", "byol2")
    geometry: bool = False  # whether a batch must bring "boxes" and "flips"
    maps: bool = False  # whether it trains on feature maps; what the encoder has behind them then stays as it is
    compares: bool = False  # whether images are told from each other: one alone teaches nothing then

    def __init__(self, encoder: nn.Module):
        super().__init__()
        self.encoder = encoder

    @property
    def evaluated(self) -> nn.Module:
        return self.encoder


class FinetuneObjective(Objective):
    """Supervised or semi-supervised: the class axis of logits is 1, any spatial axes follow.

    `labeled_views` and `unlabeled_views` map a key of the batch to the kind of view found there; by those of the class
    a run refuses settings that no view reads (augment, min_scale, randaugment). The kinds: eval (centre, unchanged),
    weak (shifted, mirrored), strong (weak, then RandAugment), or those of `PretrainObjective`. State of your own is as
    in `Objective`. batch: {"labeled": {"image": float [B, 3, H, W], "target": int64 [B], of several classes [B, K] of 0
    and 1}, "unlabeled": {"weak", "strong": float [M, 3, H, W], "index": int64 [M], of the image}}. For segmentation
    target is [B, H, W], and -100 (`IGNORE_INDEX`) where a pixel takes no part; both bring "valid" bool [n, H, W], False
    outside the image, and "key" int64 [n], from which its boxes and the like are drawn (views.counter_rng.keyed).
    The average of the weights (`ema_decay` per optimizer step; 0 switches it off) is evaluated and saved. Its momentum
    starts low, min(ema_decay, (1 + n) / (10 + n)) at update n, so that short runs forget the first weights too.
    `ema_buffers`: its BatchNorm policy (see EMA). `model`: the network, with its last layer. `method_args={"tau": 0.7}`
    sets an argument of your own class, `def __init__(self, model, tau=0.5, **more)`, or one that **more passes on.

    Most papers do not say how the average starts; many authors' code keeps ema_decay from the first step on. The two
    differ while n < (10 ema_decay - 1) / (1 - ema_decay), about 9,000 updates at 0.999.
    """

    verb: ClassVar[str] = "finetune"
    labeled_views: dict[str, str] = {"image": "weak"}
    unlabeled_views: dict[str, str] = {"weak": "weak", "strong": "strong"}

    def __init__(self, model: nn.Module, *, ema_decay: float = 0.999, ema_buffers: str = "copy"):
        super().__init__()
        self.model, self.ema_decay = model, ema_decay
        self.ema = EMA(model, buffers=ema_buffers) if ema_decay else None
        self.updates = 0  # of the average; on the host, where its momentum is needed

    @property
    def evaluated(self) -> nn.Module:
        return self.ema.module if self.ema is not None else self.model

    @property
    def momentum(self) -> float:
        """The share of the average that its latest update kept."""
        return min(self.ema_decay, (1 + self.updates) / (10 + self.updates))

    def after_step(self, t: float) -> None:
        super().after_step(t)
        self.updates += 1
        if self.ema is not None:
            self.ema.update(self.model, self.momentum)

    def get_extra_state(self) -> Tensor:
        return torch.tensor(self.updates)

    def set_extra_state(self, state: Tensor) -> None:
        self.updates = int(state)

    def param_groups(self) -> dict[str, list[nn.Parameter]]:
        body = {id(p) for p in self.model.body_parameters()}
        trainable = [p for p in self.parameters() if p.requires_grad]
        return {"base": [p for p in trainable if id(p) in body], "head": [p for p in trainable if id(p) not in body]}


class EMA(nn.Module):
    """A frozen copy that follows a student: theta' <- m theta' + (1 - m) theta.

    buffers: what happens to BatchNorm statistics. "copy" takes the student's after every step (FixMatch, Mean Teacher);
    "own" keeps what the teacher's own train-mode forward collects (BYOL, MoCo); "ema" averages them like the weights,
    and the teacher always runs in eval mode (EMAN, Cai et al. 2021).
    """

    def __init__(self, student: nn.Module, buffers: str = "copy"):
        super().__init__()
        if buffers not in ("copy", "own", "ema"):
            raise ValueError(f"buffers is {buffers!r}. Use 'copy', 'own' or 'ema'.")
        self.module, self.buffers_policy = copy.deepcopy(student).requires_grad_(False), buffers
        self.train(self.training)

    def train(self, mode: bool = True) -> EMA:
        super().train(mode and self.buffers_policy != "ema")
        return self

    @torch.no_grad()
    def update(self, student: nn.Module, m: float) -> None:
        """One step towards the student's weights, `m` the share that is kept."""
        torch._foreach_lerp_(list(self.module.parameters()), [p.detach() for p in student.parameters()], 1.0 - m)
        if self.buffers_policy == "own":
            return
        for mine, theirs in zip(self.module.buffers(), student.buffers(), strict=True):
            if self.buffers_policy == "ema" and mine.is_floating_point():
                mine.lerp_(theirs, 1.0 - m)
            else:
                mine.copy_(theirs)

    @torch.no_grad()
    def forward(self, *args, **kwargs):
        return self.module(*args, **kwargs)


def wide(x: Tensor) -> Tensor:
    """x in float32 at least: float16 ends at 65,504, which sums over pixels and ratios of small means pass."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


@torch.no_grad()
def feature_std(z: Tensor) -> Tensor:
    """sqrt(D) times the mean standard deviation of unit features [B, D]: near 1 when spread out, 0 when collapsed."""
    return F.normalize(z.float(), dim=1).std(0, unbiased=False).mean() * z.shape[1] ** 0.5


def cosine_momentum(m0: float, t: float) -> float:
    """m(t) = 1 - (1 - m0) (cos(pi t) + 1) / 2: from m0 to 1 over training (Grill et al. 2020, section 3.2)."""
    return 1 - (1 - m0) * (math.cos(math.pi * t) + 1) / 2


def mlp(dim_in: int, hidden: int, dim_out: int, depth: int = 2, bias: bool = True) -> nn.Sequential:
    """`depth - 1` blocks Linear-BatchNorm-ReLU and a final Linear; He initialisation."""
    layers: list[nn.Module] = []
    for _ in range(depth - 1):
        layers += [nn.Linear(dim_in, hidden, bias=False), nn.BatchNorm1d(hidden), nn.ReLU(inplace=True)]
        dim_in = hidden
    head = nn.Sequential(*layers, nn.Linear(dim_in, dim_out, bias=bias))
    for layer in head:
        if isinstance(layer, nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return head


def build_objective(
    method: str | type[Objective],
    network: nn.Module,
    arguments: dict,
    *,
    num_classes: int | None = None,
    num_images: int | None = None,
    num_labeled: int | None = None,
    priors: Tensor | None = None,
) -> Objective:
    """The objective of a method over a network.

    Args:
        method: a name of the table, or a class of one's own.
        network: what is trained: a backbone for pretraining, a classifier or segmenter for finetuning.
        arguments: hyperparameters of the method and its rule, name -> value.
        num_classes, num_images, num_labeled: of the run; `num_images` counts those it trains on, labeled or not.
        priors: float [num_images, num_classes], prior pseudo-labels.

    Raises:
        UserError: for a name or a hyperparameter there is none of, that the class sets itself, or that should be a
            number.
    """
    cls: Any = find(method) if isinstance(method, str) else method
    own, rules = keywords(cls), keywords(cls.rule_class)
    check_hyperparameters(cls, arguments)
    facts = {"num_classes": num_classes, "num_images": num_images, "num_labeled": num_labeled, "priors": priors}
    given = {**facts, **arguments}
    try:
        if cls.rule_class is not None:
            given["rule"] = cls.rule_class(**{k: v for k, v in given.items() if k in rules})
        objective: Objective = cls(network, **{k: v for k, v in given.items() if k in own})
        return objective
    except (TypeError, RuntimeError, ArithmeticError, MemoryError) as error:  # as of sizes below zero, or beyond memory
        if not arguments:
            raise
        told = re.search(r"multiple values.*argument '(\w+)'", str(error))
        if told is not None and told[1] in arguments:
            raise UserError(f"{name_of(cls)} sets {told[1]} itself. Leave it out of method_args.") from error
        said, inside = " ".join(str(error).split())[:200], traceback.extract_tb(error.__traceback__)[1:2]
        at = "".join(f"{Path(one.filename).name}, line {one.lineno}: " for one in inside)
        raise UserError(
            f"{name_of(cls)} cannot be built with {arguments} ({at}{said}). Give other hyperparameters, or mend the "
            "class."
        ) from error
