"""The README's Python runs as it stands there."""

import ast
import re
import sys
import types
from pathlib import Path

import pytest

from hf_lowlabel import predict

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


def test_relative_links_lead_somewhere():
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", (ROOT / "README.md").read_text()) if "://" not in link]
    assert links and all((ROOT / link).exists() for link in links)
