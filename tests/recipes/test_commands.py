"""Commands of benchmarks that stand in Markdown files: the script's parser takes each as it stands."""

import argparse
import re
import runpy
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BENCHMARKS = ROOT / "recipes" / "benchmarks"
PAGES = [ROOT / "README.md", *(ROOT / "recipes").rglob("*.md")]
COMMAND = re.compile(r"`(?:python )?(?:recipes/benchmarks/)?(\w+\.py)(\s[^`]*)`")


class Parsed(Exception):
    """The command line is fine; nothing more of the script is run."""


def commands() -> list[tuple[str, str]]:
    found = {match for page in PAGES for match in COMMAND.findall(page.read_text(encoding="utf-8"))}
    return sorted((name, flags) for name, flags in found if (BENCHMARKS / name).is_file())


def test_every_command_of_a_page_parses(monkeypatch):
    parse = argparse.ArgumentParser.parse_args

    def only_parse(self, *given):
        parse(self, *given)
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", only_parse)
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    refused = []
    for name, flags in commands():
        monkeypatch.setattr("sys.argv", [name, *shlex.split(flags)])
        try:
            with pytest.raises(Parsed):
                runpy.run_path(str(BENCHMARKS / name), run_name="__main__")
        except SystemExit:
            refused.append(f"{name}{flags}")
    assert len(commands()) > 15 and not refused
