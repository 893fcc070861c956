"""Arguments of `auto`, each in its type."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..arguments import Config
from ..data.splits.splits import Split
from ..errors import UserError, above_zero, at_least
from ..files import as_folder, by_name

DRAW = ("class_balanced", "test_fraction")


def checked(said: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the arguments that name files or say which labels are drawn, as `finetune` would read them; and the
    models.

    Raises:
        UserError: one is of another kind, or out of range.
    """
    model = said["model"]
    models = [as_folder(one) for one in (model if isinstance(model, (list, tuple)) else [model])]
    if not models:
        raise UserError("Give at least one --model.")
    above_zero("minutes", said["minutes"])
    at_least("to_label", said["to_label"], 0)
    labels, features = (by_name(name, said[name]) for name in ("labels", "features"))
    if features is not None and Path(features).exists() and not Path(features).is_dir():
        raise UserError(
            f"features {str(features)!r} is no folder. Give the folder that features are kept in, such as "
            "features/ of a run: a single file, as `select` writes it, is for `select` alone."
        )
    names = ("num_labels", *DRAW, "split", "output_dir")
    whole = {"split": said["split"]} if isinstance(said["split"], Split) else {}
    asked = Config.from_flat("finetune", {name: said[name] for name in names if name not in whole}).flat() | whole
    return {name: asked[name] for name in names} | {"models": models, "labels": labels, "features": features}
