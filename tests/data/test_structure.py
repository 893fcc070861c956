"""The files of data/ import each other one way; what an import inside a function takes counts too."""

from __future__ import annotations

import ast
import importlib
import inspect
from graphlib import TopologicalSorter
from pathlib import Path

import hf_lowlabel.data
from hf_lowlabel.data.dataset import Reader

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


def test_readers_have_all_methods_of_the_protocol():
    """Features of the embedded shapes ended in an AttributeError."""
    wanted = {name for name, value in vars(Reader).items() if inspect.isfunction(value)} - {"__init__"}
    wanted = {name for name in wanted if not name.startswith("_") or name == "__call__"}
    modules = [importlib.import_module(f"hf_lowlabel.data.{path.stem}") for path in FOLDER.glob("[!_]*.py")]
    readers = {
        one
        for module in modules
        for name, one in vars(module).items()
        if inspect.isclass(one) and name.endswith("Reader") and one is not Reader and "__call__" in vars(one)
    }
    assert wanted == {"__call__", "ends"} and len(readers) > 6
    for reader in readers:
        assert wanted <= {*dir(reader)}, reader
