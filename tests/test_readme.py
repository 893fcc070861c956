"""The README's Python runs as it stands there."""

import ast
import importlib
import re
import shlex
import sys
import types
from pathlib import Path

import pytest

from hf_lowlabel import UserError, cli, predict
from hf_lowlabel.cli import flags, train

from .pictures import OF_CLASSES, OF_MASKS, draw_nothing
from .quick import few_digits, few_shapes

ROOT = Path(__file__).parent.parent
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """The names that all blocks leave, executed one after the other in an empty folder."""
    module = types.ModuleType("readme")  # where timm looks for what stands beside a network that is registered
    scope = vars(module)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "readme", module)
        patch.chdir(tmp_path_factory.mktemp("readme"))
        few_shapes(patch.setattr)
        few_digits(patch.setattr, 600)
        draw_nothing(patch.setattr, *OF_CLASSES, *OF_MASKS)
        for block in BLOCKS:
            exec(compile(block, "README.md", "exec"), scope)
    return scope


def test_five_lines_to_a_saved_model():
    for block in BLOCKS[:2]:
        statements = ast.parse(block).body
        assert len(statements) <= 5 and ast.unparse(statements[0]).startswith("from hf_lowlabel import")


def test_they_train_save_and_load(ran):
    assert ran["best"].run.metrics["accuracy"] > 0.7 and 0 < ran["run"].metrics["miou"] < 1
    image = ran["load_source"]("digits").image(0)
    assert {answer["label"] for answer in ran["classify"](image, top_k=10)} == {str(k) for k in range(10)}
    assert type(ran["small"].model.timm_model) is ran["Net"] and len(predict(image, ran["small"].folder).rows) == 1
    assert ran["segmenter"].config.id2label[1] == "disc"


class Parsed(Exception):
    """The command line is fine; nothing more of the verb is run."""


def test_every_command_parses(monkeypatch):
    """Of README and the pages of recipes, with the verb's own parser; in a sentence a verb may stand alone."""

    def then_stop(parse):
        def only_parse(*given):
            parse(*given)
            raise Parsed

        return only_parse

    monkeypatch.setattr(flags.Parser, "parse_args", then_stop(flags.Parser.parse_args))
    monkeypatch.setattr(train, "parse_config", then_stop(train.parse_config))
    refused, count = [], 0
    for page in (ROOT / "README.md", *(ROOT / "recipes").rglob("*.md")):
        blocks = re.split(r"^```.*\n", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
        whole = [line for block in blocks[1::2] for line in block.replace("\\\n", " ").splitlines()]
        parts = [part for block in blocks[::2] for part in re.findall(r"`([^`]+)`", block)]
        for line in (*whole, *parts):
            if not (found := re.search(r"(?:^|&& )hf-lowlabel (?=[a-z])(.+)", " ".join(line.split()))):
                continue
            count += 1
            verb, *argv = (word for word in shlex.split(found[1], comments=True) if word != "--help")
            module = importlib.import_module(f"hf_lowlabel.cli.{cli.VERBS[verb][0]}")
            if not argv and line in parts:
                continue
            try:
                with pytest.raises(Parsed):
                    getattr(module, verb.replace("-", "_"))(argv)
            except (UserError, SystemExit) as error:
                refused.append((line, str(error)))
    assert count > 40 and not refused


def test_the_table_of_faults_is_that_of_the_sweep():
    """README tells of each kind of fault in fewer words than the file that the sweep writes, and in its order."""
    of_readme, of_sweep = (
        re.findall(r"^\| ([^|]+) \|(?: [\d.]+ \|)? ([\d,]+ \| [\d,]+) \|$", (ROOT / page).read_text(), re.MULTILINE)
        for page in ("README.md", "recipes/results/faults.md")
    )
    assert len(of_sweep) == 10 and [counts for _, counts in of_readme] == [counts for _, counts in of_sweep]


def test_relative_links_lead_somewhere():
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", (ROOT / "README.md").read_text()) if "://" not in link]
    assert links and all((ROOT / link).exists() for link in links)
