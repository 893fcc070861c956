"""Saved models are opened here: from config.json and model.safetensors alone, and only where these are whole."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from ..errors import UserError
from ..files import verify
from .checkpoint_resolver import download_model, find_weights, model_config
from .quiet import no_progress_bars

M = TypeVar("M", bound=Any)
ADAPTER = "adapter_config.json"  # leads transformers to other files, and to other models


def open_model(cls: type[M], name: str | os.PathLike[str], revision: str | None = None) -> M:
    """A saved model of a folder or of the Hub.

    Args:
        cls: the class it is of, with a `from_pretrained` that runs no code of the model.
        name: a folder or a Hub id.
        revision: of a Hub id.

    Raises:
        UserError: there is none, its files are damaged or have changed since they were written, they do not belong
            together, or they lead to other files.
    """
    name = os.fspath(name)
    model_config(name, revision)  # its types
    folder = Path(name) if os.path.isdir(name) else download_model(name, revision)
    if (folder / ADAPTER).exists():
        raise UserError(f"There is an {ADAPTER} in {name}. Merge the adapter into the model and save it again.")
    verify(find_weights(folder))
    # a run may have saved it in half precision, which processors and masks do not take
    how = dict(dtype=torch.float32, output_loading_info=True)
    return whole_model(name, lambda: cls.from_pretrained(folder, **how))


def whole_model(name: str | Path, load: Callable[[], tuple[M, dict[str, Any]]]) -> M:
    """The model that a `from_pretrained` of transformers gives, with all of its weights.

    Args:
        name: whose it is, for errors.
        load: gives the model and what it says of loading (output_loading_info).

    Raises:
        UserError: its files are damaged or do not belong together, or hold numbers that are none.
    """
    try:
        with no_progress_bars():
            model, info = load()
    except UserError:
        raise
    except Exception as error:  # whatever transformers, timm, smp and safetensors raise for files that are damaged
        first = " ".join(str(error).split())[:200]
        raise UserError(
            f"The model in {name} cannot be opened ({type(error).__name__}: {first}). Copy or download it again, or "
            "give another one."
        ) from error
    absent = sorted({*info["missing_keys"], *(str(key) for key in info["mismatched_keys"])})
    if absent:
        raise UserError(
            f"The weights in {name} lack {', '.join(absent[:3])}{' ...' if absent[3:] else ''}. Check that config.json "
            "and model.safetensors belong together, or copy them again."
        )
    refuse_spoiled(model.state_dict(), name)
    return model


def refuse_spoiled(state: Mapping[str, Tensor], name: str | Path) -> None:
    """Raises UserError where weights are NaN or infinite; masks may be."""
    spoiled = [k for k, v in state.items() if "mask" not in k and not v.isfinite().all()]
    if spoiled:
        raise UserError(
            f"There are NaN or infinite values in {', '.join(spoiled[:3])} of the model in {name}. Its training has "
            "diverged, or the file is damaged: take another checkpoint."
        )
