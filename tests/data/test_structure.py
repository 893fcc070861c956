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
    "missing_inputs",
    "yaml_files",
)  # files beside data/
FOLDER = Path(hf_lowlabel.data.__file__).parent
ORDER = ("pixels", "labels", "files", "", "caches", "annotations", "splits", "masks", "sources")  # "": beside folders
ABOVE = (
    "opening",
    "given_files",
    "given_images",
    "skipped",
    "shrinking",
    "shrink_record",
    "pages",
)  # over all folders


def modules() -> dict[str, Path]:
    """The files of data/ by their names below it, "pixels.images"."""
    return {".".join(path.relative_to(FOLDER).with_suffix("").parts): path for path in FOLDER.rglob("*.py")}


def imported(name: str) -> tuple[set[str], set[str]]:
    """Of one file (the files of data/ that it imports, anywhere in it; the others of the package)."""
    known, parts = modules(), ["hf_lowlabel", "data", *name.split(".")]
    inside, outside = set[str](), set[str]()
    for node in ast.walk(ast.parse(known[name].read_text(encoding="utf-8"))):
        found: list[str] = []
        if isinstance(node, ast.ImportFrom):
            base = (
                ".".join([*parts[: len(parts) - node.level], *filter(None, [node.module])])
                if node.level
                else node.module
            )
            found = [f"{base}.{alias.name}" for alias in node.names]
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        for one in found:
            if one.startswith("hf_lowlabel.data."):
                below = one.removeprefix("hf_lowlabel.data.")
                inside.add(below if below in known else below.rpartition(".")[0] or "__init__")
            elif one.startswith("hf_lowlabel."):
                outside.add(one.split(".")[1])
    return inside - {name}, outside


def test_no_circle_between_the_files():
    graph = {name: imported(name)[0] for name in modules()}
    assert graph["opening"] >= {"sources.class_targets", "sources.mask_targets", "sources.memory"}
    assert "dataset" in graph["splits.splits"]
    TopologicalSorter(graph).prepare()  # raises CycleError


def test_each_folder_imports_those_before_it():
    def floor(name: str) -> int:
        folder, _, leaf = name.rpartition(".")
        return len(ORDER) if leaf in ABOVE and not folder else ORDER.index(folder)

    files = [name for name in modules() if not name.endswith("__init__")]
    assert {name.rpartition(".")[0] for name in files} == {*ORDER}
    up = [(a, b) for a in files for b in imported(a)[0] if "__init__" not in b and floor(b) > floor(a)]
    assert not up, up


def test_data_imports_no_folder_above_it():
    for name in modules():
        assert imported(name)[1] <= {*PLAIN}, (name, imported(name)[1])


def test_readers_have_all_methods_of_the_protocol():
    """Features of the embedded shapes ended in an AttributeError."""
    wanted = {name for name, value in vars(Reader).items() if inspect.isfunction(value)} - {"__init__"}
    wanted = {name for name in wanted if not name.startswith("_") or name == "__call__"}
    found = [importlib.import_module(f"hf_lowlabel.data.{name}") for name in modules() if "__init__" not in name]
    readers = {
        one
        for module in found
        for name, one in vars(module).items()
        if inspect.isclass(one) and name.endswith("Reader") and one is not Reader and "__call__" in vars(one)
    }
    assert wanted == {"__call__", "ends"} and len(readers) > 6
    for reader in readers:
        assert wanted <= {*dir(reader)}, reader
