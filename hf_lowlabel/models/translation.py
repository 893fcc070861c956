"""From a checkpoint in transformers' layout to the same network in timm's: the plan of an encoder, and its execution.

A plan says of every tensor of timm's network which tensors of the repository it is made of. So an encoder is translated
as a whole or not at all: a tensor of the plan that the file lacks, and one of the encoder that no line of the plan asks
for, are errors that name them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import UserError

ACTIVATIONS = {"gelu": "gelu", "quick_gelu": "quick_gelu", "gelu_pytorch_tanh": "gelu_tanh", "relu": "relu"}
SIZES = {192: "tiny", 384: "small", 768: "base", 1024: "large"}
DEPTHS = {"tiny": 12, "small": 12, "base": 12, "large": 24, "giant": 40}  # blocks of timm's networks of that word


def stacked(*tensors: Tensor) -> Tensor:
    """One tensor as it is; several, such as query, key and value, on top of each other."""
    return tensors[0] if len(tensors) == 1 else torch.cat(tensors)


class Plan(dict[str, tuple[tuple[str, ...], Callable[..., Tensor]]]):
    """timm's name -> (the repository's names, how the tensor is made of them)."""

    def take(self, to: str, *names: str, make: Callable[..., Tensor] = stacked) -> None:
        """One tensor."""
        self[to] = (names, make)

    def layer(self, to: str, *names: str, bias: bool = True) -> None:
        """`weight` and `bias` of a layer, or of several that become one."""
        for part in ("weight", "bias") if bias else ("weight",):
            self.take(f"{to}.{part}", *(f"{name}.{part}" for name in names))

    def norm(self, to: str, name: str) -> None:
        """A BatchNorm with its statistics."""
        for part in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
            self.take(f"{to}.{part}", f"{name}.{part}")


@dataclass(frozen=True)
class Positions:
    """How transformers fits absolute position embeddings to another size.

    before: rows for tokens that have no place in the grid. mode, antialias: as `torch.nn.functional.interpolate`.
    """

    before: int
    mode: str = "bicubic"
    antialias: bool = False


@dataclass
class Translation:
    """An encoder of transformers as timm builds it.

    architecture, model_args: what `timm.create_model` is given, JSON values alone. patch: px. image_size: px that it
    was trained with. anchor: the tensor that tells where in a file the encoder is. ignored: regular expressions of
    tensors that its features do not need. positions: None without absolute positions. head: timm's and the
    repository's name of the classifier, where both have one layer on the same features.
    """

    architecture: str
    model_args: dict
    plan: Plan
    anchor: str
    image_size: int
    patch: int = 1
    ignored: tuple[str, ...] = ()
    positions: Positions | None = None
    head: tuple[str, str] | None = None
    renamed: tuple[tuple[str, str], ...] = ()  # (regular expression, replacement): other spellings of a file
    fixed: bool = False  # it takes images of image_size alone
    exact: dict = field(default_factory=dict)  # config's fields that timm's network has fixed -> their only value

    @property
    def network(self) -> str:
        """What the tensors are for, in words."""
        return f"{self.architecture} of timm"

    def where(self, names: Iterable[str], source: str) -> str:
        """The prefix of the encoder's tensors in a file, from the names in it.

        Raises:
            UserError: there is no such encoder, or several.
        """
        ends = [n.removesuffix(self.anchor) for n in names if n == self.anchor or n.endswith(f".{self.anchor}")]
        if len(ends) != 1:
            raise UserError(
                f"There {'is no tensor' if not ends else f'are {len(ends)} tensors'} {self.anchor!r} in the weights of "
                f"{source}, where its config.json promises one encoder. Check that both files belong together."
            )
        return ends[0]

    def wanted(self, names: Iterable[str], source: str) -> list[str]:
        """Those names of a file that the translation reads: the encoder and its classifier."""
        names = list(names)
        prefix = self.where(names, source)
        outside = f"{self.head[1]}." if self.head else None
        return [n for n in names if n.startswith(prefix) or outside and n.startswith(outside)]

    def apply(self, state: dict[str, Tensor], source: str, size: Iterable[int] | None) -> dict[str, Tensor]:
        """timm's state dict.

        Args:
            state: tensors of the file; `wanted` ones are enough.
            source: whose they are, for errors.
            size: (height, width) in px of the images the network will be built for; None: as it was trained.

        Raises:
            UserError: names the tensors of the encoder that are missing, or that nothing asks for.
        """
        prefix = self.where(state, source)
        head = self.head[1] if self.head else None
        inside = {}
        for name, tensor in state.items():
            if name.startswith(prefix) and not (head and name.startswith(f"{head}.")):
                short = name.removeprefix(prefix)
                for pattern, to in self.renamed:
                    short = re.sub(pattern, to, short)
                inside[short] = tensor
        asked = {name for names, _ in self.plan.values() for name in names}
        self._check(sorted(asked - set(inside)), "lack", source, prefix)
        known = re.compile("|".join(self.ignored)) if self.ignored else None
        strange = sorted(n for n in set(inside) - asked if prefix or not _elsewhere(n))
        self._check([n for n in strange if not (known and known.match(n))], "hold", source, prefix)
        out = {to: make(*(inside[n] for n in names)) for to, (names, make) in self.plan.items()}
        if self.positions is not None:
            count = out["pos_embed"].shape[1] - self.positions.before
            if math.isqrt(max(count, 0)) ** 2 != count:
                name = prefix + self.plan["pos_embed"][0][-1]
                raise UserError(
                    f"{name} of {source} has positions for {count} patches, which form no square. Check that "
                    "config.json and model.safetensors belong together, or take another model."
                )
            out["pos_embed"] = fitted(out["pos_embed"], self.positions, self._grid(size))
        if self.head is not None:
            out |= {f"{self.head[0]}.{p}": state[n] for p in ("weight", "bias") if (n := f"{head}.{p}") in state}
        return out

    def _grid(self, size: Iterable[int] | None) -> tuple[int, int]:
        h, w = (self.image_size, self.image_size) if size is None else size
        return h // self.patch, w // self.patch

    def _check(self, names: list[str], verb: str, source: str, prefix: str) -> None:
        if not names:
            return
        few = ", ".join(prefix + n for n in names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
        what = f"{verb} {few}"
        because = "that its config.json asks for" if verb == "lack" else f"that {self.network} has not"
        raise UserError(
            f"The weights of {source} {what}, {because}, so they cannot be loaded as a whole. Check that config.json "
            "and model.safetensors belong together, or take another model."
        )


def _elsewhere(name: str) -> bool:
    """Whether a tensor beside an encoder without a prefix is of a classifier, a decoder or a text model."""
    return name.startswith(("classifier.", "cls_classifier.", "distillation_classifier.", "decoder.", "lm_head."))


def fitted(embedding: Tensor, positions: Positions, grid: tuple[int, int]) -> Tensor:
    """Position embeddings [1, n + side^2, D] resampled to a grid (h, w), as transformers does it."""
    first, rest = embedding[:, : positions.before], embedding[:, positions.before :]
    side = round(rest.shape[1] ** 0.5)
    if grid == (side, side):
        return embedding
    maps = rest.float().unflatten(1, (side, side)).permute(0, 3, 1, 2)  # [1, D, side, side]
    maps = F.interpolate(maps, size=grid, mode=positions.mode, align_corners=False, antialias=positions.antialias)
    return torch.cat([first.float(), maps.flatten(2).transpose(1, 2)], dim=1)


# ---- what configurations of transformers have in common ------------------------------------------------------------
def size_word(config, known: tuple[str, ...]) -> str:
    """The word of timm's names for a width; any width can be built from any of them."""
    word = SIZES.get(config.hidden_size, "base")
    return word if word in known else "base"


def mlp_ratio_of(hidden: int, width: int) -> float:
    """mlp_ratio of which int(width * ratio) is `hidden` again."""
    return hidden / width if hidden % width == 0 else (hidden + 0.5) / width


def common(config, word: str, **more) -> dict:
    """Arguments that every vision transformer of timm takes; word: of the network they are given to."""
    # smp's encoders have a depth of another meaning, so it is left out where timm's own is right
    depth = {} if config.num_hidden_layers == DEPTHS[word] else {"depth": config.num_hidden_layers}
    return {
        "patch_size": square_side(config.patch_size),
        "embed_dim": config.hidden_size,
        **depth,
        "num_heads": config.num_attention_heads,
        **more,
    }


def square_side(value) -> int:
    """A side in px that transformers allows to be a pair."""
    if isinstance(value, int):
        return value
    if len(set(value)) != 1:
        raise UserError(f"The patches or images of this model are {tuple(value)} px, and must be squares.")
    return int(value[0])


def activation(name: str) -> str:
    if name not in ACTIVATIONS:
        raise UserError(f"The activation {name!r} of this model has no counterpart in timm's. Take another model.")
    return ACTIVATIONS[name]
