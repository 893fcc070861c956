"""The files of data/ import each other one way; what an import inside a function takes counts too."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import hf_lowlabel.data

PLAIN = (
    "errors",
    "fields",
    "files",
    "locks",
    "machine",
    "mask_palette",
    "table_writer",
    "text",
    "there",
)  # files beside data/
FOLDER = Path(hf_lowlabel.data.__file__).parent


def imported(file: Path) -> set[str]:
    """The files of data/ that this one imports, anywhere in it."""
    names = {path.stem for path in FOLDER.glob("*.py")}
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.level == 1 or (node.module or "").startswith("hf_lowlabel.data")):
            module = (node.module or "").removeprefix("hf_lowlabel.data").strip(".")
            found |= {module} if module else {alias.name for alias in node.names} & names or {"__init__"}
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[-1] for alias in node.names if alias.name.startswith("hf_lowlabel.data")}
    return found - {file.stem}


def test_no_circle_between_the_files():
    graph = {path.stem: imported(path) for path in FOLDER.glob("*.py")}
    assert graph["opening"] >= {"class_targets", "mask_targets", "memory"} and "dataset" in graph["splits"]
    TopologicalSorter(graph).prepare()  # raises CycleError


def test_data_imports_no_folder_above_it():
    for path in FOLDER.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level == 2:
                assert node.module in PLAIN, (path.name, node.module)
