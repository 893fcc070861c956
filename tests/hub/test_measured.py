"""What is measured after a run stands on its card, which is pushed."""

from __future__ import annotations

import datasets
import pytest

from hf_lowlabel import UserError, evaluate, finetune, push
from tests.test_open_api import FINETUNE, table


@pytest.fixture(scope="module")
def untested(tmp_path_factory):
    folder = tmp_path_factory.mktemp("untested") / "run"
    return finetune(table(24), test_fraction=0, method="supervised", output_dir=folder, **FINETUNE)


def test_an_evaluation_stands_on_the_card(untested, hub):
    """In the place of an earlier one of the same data; and a card with words of one's own stays as it is."""
    new, card = datasets.DatasetDict({"test": table(9, 1)}), untested.folder / "README.md"
    assert "was not measured" in card.read_text()
    for _ in range(2):
        found = evaluate(untested, new, card=True)
    evaluate(untested, table(12, 2), card=True)
    text = card.read_text()
    assert (
        text.count("Evaluated on 9 images of data in memory (split test) on 20") == 1 and "was not measured" not in text
    )
    assert (
        f"accuracy {100 * found['accuracy']:.1f} %" in text and "Evaluated on 12 images of data in memory on 20" in text
    )
    assert "Sorts images into 3 classes, " in text and "*memory*" not in text
    push(untested, "org/pets")
    pushed = hub.repos["model", "org/pets"].content("main")["README.md"].decode()
    assert "Evaluated on 9 images" in pushed
    card.write_text(card.read_text().replace("## Limits", "Ask me.\n\n## Limits"))
    with pytest.warns(UserWarning, match="has been edited, and stays as it is. Add to it: Evaluated on 6 images"):
        evaluate(untested, table(6, 3), card=True)
    assert "Ask me." in card.read_text() and "Evaluated on 6" not in (untested.folder / "run.json").read_text()
    with pytest.raises(
        UserError, match="card is for a run folder or a finished run, and .* has no card. Leave card out"
    ):
        evaluate(untested.model, new, card=True)
