"""What pages say of the benchmarks' commands: the parsers take each as it stands, and say what --output is."""

import argparse
import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BENCHMARKS = ROOT / "recipes" / "benchmarks"
PAGES = [ROOT / "README.md", *(ROOT / "recipes").rglob("*.md")]
COMMAND = re.compile(r"`(?:python )?(?:recipes/benchmarks/)?(\w+\.py)(\s[^`]*)`")
USAGE = re.compile(r"^ +python recipes/benchmarks/(\w+\.py)(.*(?:\n {8,}\S.*)*)", re.M)  # in a script's own text


class Parsed(Exception):
    """The command line is fine; nothing more of the script is run."""


@pytest.fixture
def parsed(monkeypatch):
    """parsed(script, *flags): the parser of a script that took these flags."""
    parse = argparse.ArgumentParser.parse_args

    def only_parse(self, *given):
        parse(self, *given)
        raise Parsed(self)

    def run(name: str, *flags: str) -> argparse.ArgumentParser:
        monkeypatch.setattr("sys.argv", [name, *flags])
        with pytest.raises(Parsed) as found:
            runpy.run_path(str(BENCHMARKS / name), run_name="__main__")
        return found.value.args[0]

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", only_parse)
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    before = set(sys.modules)
    yield run
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(BENCHMARKS)):
            del sys.modules[name]  # what it put on sys.path is gone, too


def commands() -> list[tuple[str, str]]:
    found = {match for page in PAGES for match in COMMAND.findall(page.read_text(encoding="utf-8"))}
    found |= {match for file in BENCHMARKS.glob("*.py") for match in USAGE.findall(file.read_text(encoding="utf-8"))}
    return sorted((name, flags) for name, flags in found if (BENCHMARKS / name).is_file())


def words(flags: str) -> list[str]:
    return shlex.split(flags.replace("\\\n", " "), comments=True)


def test_every_command_of_a_page_or_a_script_parses(parsed):
    refused = []
    for name, flags in commands():
        try:
            parsed(name, *words(flags))
        except SystemExit:
            refused.append(f"{name}{flags}")
    assert len(commands()) > 70 and not refused


def test_help_says_whether_output_is_a_file_or_a_folder(parsed):
    known = dict(commands())
    assert set(known) == {f.name for f in BENCHMARKS.glob("*.py") if "ArgumentParser(" in f.read_text(encoding="utf-8")}
    unsaid = []
    for name, flags in known.items():
        helps = [a.help or "" for a in parsed(name, *words(flags))._actions if "--output" in a.option_strings]
        unsaid += [name for text in helps if not re.search(r"\b(files?|folder)\b", text)]
    assert not unsaid


def test_every_set_of_a_command_has_a_source(parsed):
    page = (BENCHMARKS / "README.md").read_text(encoding="utf-8")
    sources = set(re.findall(r"^\| (\w+) \|.*<https://", page, re.M))
    used = {"digits"}
    for name, flags in commands():
        given = vars(parsed(name, *words(flags)).parse_known_args(words(flags))[0])
        used |= {one for key in ("sets", "strips", "quarters") for one in given.get(key) or []}
    assert used - sources == {"digits"} and len(used) > 5  # the digits are scikit-learn's
