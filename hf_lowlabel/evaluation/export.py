"""A module of `modules.py` as a folder of its own, for `evaluate.load` and for a Space on the Hub."""

from __future__ import annotations

import inspect
from pathlib import Path

from ..errors import UserError, unknown
from ..files import whole_folder
from . import classification, confusion, modules, multilabel

METRICS = {
    "classification": (modules.ClassificationScores, classification),
    "multilabel": (modules.MultiLabelScores, multilabel),
    "segmentation": (modules.SegmentationScores, confusion),
}
IMPORTED = "from ..errors import UserError\n"  # the one import that the formulas take from this package
INSTEAD = "import abc\n\nimport datasets\nimport evaluate\n\nUserError = ValueError\n"
PACKAGES = {"numpy": "numpy", "sklearn": "scikit-learn", "torch": "torch"}
README = """---
title: {title}
sdk: static
tags:
- evaluate
- metric
---
# {title}

{description}

```python
import evaluate

scores = evaluate.load("{name}", class_names=["a", "b", "c"])  # this folder, or its name on the Hub
scores.add_batch(predictions=predictions, references=references)  # as often as there are batches
scores.compute()
```

## How they are computed

{formulas}
"""


def export_metric(name: str, folder: str | Path) -> Path:
    """Write a module as a folder that `evaluate.load` takes, without this package: script, README and requirements.

    Pushed as a Space, the folder is loaded by the Space's name, which has to end in the folder's.

    Args:
        name: "classification", "multilabel" or "segmentation".
        folder: where to write; it must not exist. Its name becomes that of the script.

    Returns:
        The folder.

    Raises:
        UserError: for an unknown name, and for a folder that exists or whose name no script can have.
    """
    if name not in METRICS:
        raise unknown("metric", name, METRICS)
    folder = Path(folder)
    if not folder.name.isidentifier():
        raise UserError(f"The folder is called {folder.name!r}. Use letters, digits and _, for a script is named so.")
    if folder.exists():
        raise UserError(f"{folder} exists. Give another name, so that nothing is written over.")
    with whole_folder(folder) as part:
        _write(name, folder.name, part)
    return folder


def _write(metric: str, name: str, folder: Path) -> None:
    module, formulas = METRICS[metric]
    (folder / f"{name}.py").write_text(_script(module, formulas), encoding="utf-8")
    text = README.format(
        title=name.replace("_", " ").capitalize(),
        description=inspect.getdoc(module),
        name=name,
        formulas=inspect.getdoc(formulas),
    )
    (folder / "README.md").write_text(text, encoding="utf-8")
    lines = inspect.getsource(formulas).splitlines()
    needed = [
        package
        for word, package in PACKAGES.items()
        if any(f"{w} {word}" in line for line in lines for w in ("import", "from"))
    ]
    (folder / "requirements.txt").write_text("\n".join(["evaluate", "datasets", *needed]) + "\n", encoding="utf-8")


def _script(module: type, formulas) -> str:
    """The formulas' file, its one import from this package replaced, then the module and what it stands on."""
    source = inspect.getsource(formulas)
    assert IMPORTED in source, formulas
    classes = [inspect.getsource(cls).rstrip() + "\n" for cls in (modules.Scores, module)]
    return "\n\n".join([source.replace(IMPORTED, INSTEAD).rstrip() + "\n", *classes])
