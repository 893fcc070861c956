"""The structure of the package, read from its files: order of imports, where tasks are told apart, length of files."""

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "hf_lowlabel"

# An import goes to a later row or stays within its folder. Folders of one row import each other only as WITHIN_A_ROW
# says; the last row is plain files, any of which may import another as long as no circle arises.
ROWS = (
    ("__main__",),
    ("cli", "demo", "demo_active"),
    ("ladder",),
    ("api", "hub", "selection", "labeling"),
    ("training", "prediction"),
    ("settings",),
    ("tasks", "losses"),
    ("pretraining", "finetuning"),
    ("input_types",),  # types alone
    ("views", "models", "data"),
    ("evaluation",),
    (
        *(
            "arguments",
            "commands",
            "records",
            "objective",
            "once_per_step",
            "methods",
            "errors",
            "distributed",
            "files",
            "fields",
        ),
        *(
            "demo_stages",
            "foreign_names",
            "licences",
            "locks",
            "machine",
            "mask_palette",
            "partial_files",
            "progress",
            "ranges",
            "table_writer",
            "text",
            "missing_inputs",
        ),
        *("view_arguments", "yaml_files"),
    ),
)
WITHIN_A_ROW = {
    ("cli", "demo"),
    ("cli", "demo_active"),
    ("demo_active", "demo"),
    ("api", "hub"),
    ("selection", "labeling"),
    ("training", "prediction"),
    ("finetuning", "pretraining"),
}
NEVER = {
    "hub": {"models"},  # hub reaches models through prediction alone
    "training": {"hub"},
    "pretraining": {"data", "training", "hub"},
    "finetuning": {"data", "training", "hub"},
    "evaluation": {"arguments", "methods"},  # metrics know the errors, records and processes, and nothing of a run
}
TASKS = {"classification", "segmentation", "multilabel", "backbone"}
MAX_LINES = 350


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name without "hf_lowlabel."; the package itself is ""."""
    names = {}
    for file in sorted(PACKAGE.rglob("*.py")):
        parts = file.relative_to(PACKAGE).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return names


MODULES = modules()


@functools.cache
def parse(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"), str(file))


def statements(tree: ast.AST, typing_only: bool = False) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
    """Every import below `tree`, inside functions too, and whether it stands under `if TYPE_CHECKING`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield node, typing_only
        elif isinstance(node, ast.If) and ast.unparse(node.test).split(".")[-1] == "TYPE_CHECKING":
            for child in node.body:
                yield from statements(ast.Module([child], []), True)
            for child in node.orelse:
                yield from statements(ast.Module([child], []), typing_only)
        else:
            yield from statements(node, typing_only)


def targets(module: str, file: Path, node: ast.Import | ast.ImportFrom) -> list[str]:
    """The modules of this package that one import statement imports; names that are no module raise LookupError."""
    if isinstance(node, ast.Import):
        own = [a.name for a in node.names if a.name.split(".")[0] == "hf_lowlabel"]
        found = [name.partition(".")[2] for name in own]
    elif node.level:
        package = module.split(".") if file.name == "__init__.py" else module.split(".")[:-1]
        base = [part for part in package if part][: len([p for p in package if p]) - (node.level - 1)]
        found = _from(".".join([*base, *(node.module or "").split(".")]).strip("."), node)
    elif (node.module or "").split(".")[0] == "hf_lowlabel":
        found = _from(node.module.partition(".")[2], node)
    else:
        found = []
    if missing := [name for name in found if name not in MODULES]:
        raise LookupError(f"{file.relative_to(ROOT)}:{node.lineno} imports {missing}, which does not exist")
    return found


def _from(base: str, node: ast.ImportFrom) -> list[str]:
    """`from base import a, b` imports the modules base.a and base.b where these are modules, and base otherwise."""
    found = []
    for alias in node.names:
        below = f"{base}.{alias.name}".strip(".")
        found.append(below if below in MODULES else base)
    return found


@functools.cache
def edges() -> set[tuple[str, str]]:
    """(importer, imported) for every import between two modules; the lazy __init__ of the package is left out."""
    found = set()
    for module, file in MODULES.items():
        for node, typing_only in statements(parse(file)):
            there = targets(module, file, node)  # all of them: LookupError of what does not exist
            if module and not typing_only:
                found |= {(module, target) for target in there if target != module}
    return found


def folder(module: str) -> str:
    return module.split(".")[0]


def circles(pairs: set[tuple[str, str]]) -> set[frozenset[str]]:
    """The sets of two or more names that reach each other (strongly connected components)."""
    names = {name for pair in pairs for name in pair}
    reach = {name: {b for a, b in pairs if a == name} for name in names}
    for middle in names:  # Warshall's closure
        for name in names:
            if middle in reach[name]:
                reach[name] |= reach[middle]
    return {frozenset(b for b in reach[a] if a in reach[b]) for a in names if a in reach[a]}


def is_task_name(node: ast.AST) -> bool:
    if isinstance(node, (ast.Tuple, ast.List, ast.Set)):
        return any(is_task_name(element) for element in node.elts)
    return isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in TASKS


def task_switches(file: Path) -> list[int]:
    """The lines on which code asks for a task by its name: ==, !=, in, not in, and the cases of a match statement."""
    lines = []
    for node in ast.walk(parse(file)):
        if isinstance(node, ast.Compare) and any(map(is_task_name, [node.left, *node.comparators])):
            lines.append(node.lineno)
        elif isinstance(node, ast.MatchValue) and is_task_name(node.value):
            lines.append(node.lineno)
    return lines


def told(found: set[frozenset[str]]) -> str:
    return "\n".join(" <-> ".join(sorted(circle)) for circle in found)


def shown(pairs: set[tuple[str, str]]) -> str:
    return "\n".join(f"{a} imports {b}" for a, b in sorted(pairs))


def test_every_import_exists():
    assert edges()


def test_an_import_of_nothing_is_seen():
    with pytest.raises(LookupError, match=r"cli/auto.py:1 imports \['no_such'\]"):
        targets("cli.auto", MODULES["cli.auto"], ast.parse("from ..no_such import x").body[0])


def test_lazy_names_are_typed_alike():
    """The names that __getattr__ finds at run time are those that type checkers see, from the same modules."""
    import hf_lowlabel

    seen = {}
    for node, typing_only in statements(parse(PACKAGE / "__init__.py")):
        if typing_only and isinstance(node, ast.ImportFrom) and node.level:
            assert all(alias.asname == alias.name for alias in node.names), "`import x as x` marks what is public"
            seen |= {alias.name: node.module for alias in node.names}
    assert seen == hf_lowlabel._HOMES


def test_no_circle_between_files():
    found = circles(edges())
    assert not found, f"imports in a circle:\n{told(found)}"


def test_no_circle_between_folders():
    pairs = {(folder(a), folder(b)) for a, b in edges() if folder(a) != folder(b)}
    found = circles(pairs)
    assert not found, f"imports in a circle:\n{told(found)}"


def test_every_module_has_its_place():
    known = {part for row in ROWS for part in row}
    assert {folder(module) for module in MODULES if module} <= known, "a new folder or file needs a row in ROWS"


def test_imports_run_one_way():
    row_of = {part: number for number, row in enumerate(ROWS) for part in row}
    wrong = set()
    for importer, imported in edges():
        a, b = folder(importer), folder(imported)
        if a == b:
            continue
        down = row_of[a] < row_of[b] or row_of[a] == row_of[b] == len(ROWS) - 1 or (a, b) in WITHIN_A_ROW
        if not down or b in NEVER.get(a, ()):
            wrong.add((importer, imported))
    assert not wrong, shown(wrong)


def test_the_library_imports_no_recipe():
    for file in MODULES.values():
        for node, _ in statements(parse(file)):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            assert not any(name.split(".")[0] in ("recipes", "tests") for name in names), file


def test_tasks_are_told_apart_in_their_own_folder_alone():
    found = {}
    for module, file in MODULES.items():
        if folder(module) != "tasks" and (lines := task_switches(file)):
            found[file.relative_to(PACKAGE).as_posix()] = lines
    assert not found, f"switches on a task's name outside tasks/ (file: lines): {found}"


def test_files_are_short():
    long = {}
    for file in [*MODULES.values(), *(ROOT / "recipes").rglob("*.py")]:
        if (lines := len(file.read_text(encoding="utf-8").splitlines())) >= MAX_LINES:
            long[file.relative_to(ROOT).as_posix()] = lines
    assert not long, f"files of {MAX_LINES} lines and more hold two things: {long}"


def test_every_method_has_its_file():
    from hf_lowlabel.methods import METHODS

    for name, place in METHODS.items():
        module, _, attribute = place.partition(":")
        assert module in MODULES, f"{name}: no file for {module}"
        defined = [getattr(node, "name", None) for node in parse(MODULES[module]).body]
        assert attribute in defined, f"{name}: {module} defines no {attribute}"


@pytest.mark.parametrize(
    "code, expected",
    [
        ("if task == 'segmentation': pass", 1),
        ("x = kind in ('backbone', 'other')", 1),
        ("match task:\n  case 'multilabel' | 'classification': pass", 2),
        ("x = {'segmentation': 1}", 0),
        ("x = mode == 'train'", 0),
    ],
)
def test_a_task_switch_is_seen(tmp_path, code, expected):
    file = tmp_path / "code.py"
    file.write_text(code)
    assert len(task_switches(file)) == expected


def test_a_circle_is_seen():
    assert circles({("a", "b"), ("b", "c"), ("c", "a"), ("c", "d")}) == {frozenset("abc")}
    assert circles({("a", "b"), ("b", "c")}) == set()


def test_each_setting_of_data_is_known_to_what_passes_data_on():
    """A setting that no list had was read by one verb, and forgotten by the command that it printed."""
    from dataclasses import fields

    from hf_lowlabel.arguments import DataArguments
    from hf_lowlabel.commands import MASKS, SOURCE

    of_labels = {"split", "num_labels", "class_balanced", "validation", "test_fraction", "test_dataset_split"}
    of_a_run = {"unlabeled_dataset", "unlabeled_dataset_split", "max_bad", "memory_budget", "streaming", "workers"}
    every = {field.name for field in fields(DataArguments)}
    assert every == {*SOURCE, *MASKS, *of_labels, *of_a_run, "sharded"}
