"""What becomes of a card: words and a licence written on the Hub or here, branches, a folder that takes no notes."""

from __future__ import annotations

import json
import logging
import os

import pytest
from hub_runs import asking, card_there, edit, licensed, listing, unlicensed
from huggingface_hub import ModelCard

from hf_lowlabel.errors import UserError
from hf_lowlabel.hub.hub_card import words_of
from hf_lowlabel.hub.push import push
from hf_lowlabel.hub.upload import PushError
from hf_lowlabel.records import RunRecord

NOT_GIVEN = "**Not given yet.**"


@pytest.fixture
def run(tmp_path):
    return unlicensed(tmp_path / "model")


@pytest.mark.parametrize("edited", [False, True])
def test_a_licence_in_the_block_is_what_the_card_says(hub, run, edited):
    """As the card itself tells, whether or not somebody wrote more into it."""
    card = licensed("license: other\nlicense_name: Clinic Licence\nlicense_link: LICENSE")(
        (run / "README.md").read_text()
    )
    (run / "README.md").write_text(asking(card) if edited else card)
    push(run, "org/pets")
    card = card_there(hub)
    data = ModelCard(card).data
    assert NOT_GIVEN not in card and "This model: " in card and "\n# pets\n" in card or edited
    assert NOT_GIVEN not in card and data.license == "other" and data.license_link == "LICENSE"
    assert ("Ask me anything." in card) == edited
    commits = len(hub.repos["model", "org/pets"].history())
    push(run, "org/pets")
    assert len(hub.repos["model", "org/pets"].history()) == commits


def test_words_beside_the_licence_stay(hub, run):
    card = licensed("license: mit")((run / "README.md").read_text())
    (run / "README.md").write_text(card.rstrip() + " Ask the clinic.\n")
    push(run, "org/pets")
    assert "This model: mit. What it was made from: data set pets: not recorded. Ask the clinic.\n" in card_there(hub)


def test_a_licence_given_on_the_hub_stays(hub, run, tmp_path):
    hub.add("model", "org/pets", {"README.md": b"---\nlicense: mit\n---\n"})  # as its page makes a repository
    push(run, "org/pets")
    assert ModelCard(card_there(hub)).data.license == "mit" and "This model: mit." in card_there(hub)
    assert (run / "README.md").read_text() == card_there(hub)
    edit(hub, lambda card: card.replace("license: mit", "license: apache-2.0"))
    push(unlicensed(tmp_path / "next", 2.0), "org/pets")  # another model
    assert ModelCard(card_there(hub)).data.license == "apache-2.0" and "This model: apache-2.0." in card_there(hub)
    edit(hub, lambda card: card.replace("license: apache-2.0", "license: cc0-1.0"))
    push(tmp_path / "next", "org/pets")  # which says what it was pushed with
    assert ModelCard(card_there(hub)).data.license == "cc0-1.0"
    given = (tmp_path / "next" / "README.md").read_text()
    (tmp_path / "next" / "README.md").write_text(given.replace("license: cc0-1.0", "license: isc"))
    push(tmp_path / "next", "org/pets")  # changed here, after the last push
    assert ModelCard(card_there(hub)).data.license == "isc" and "This model: isc." in card_there(hub)


def test_words_written_on_the_hub_stay(hub, run, tmp_path):
    push(run, "org/pets")
    edit(hub, lambda card: asking(card).replace("\n", "\r\n"))  # as a browser sends it
    push(run, "org/pets")
    assert "Ask me anything." in card_there(hub) and (run / "README.md").read_text() == card_there(hub)
    commits = len(hub.repos["model", "org/pets"].history())
    push(run, "org/pets")
    assert len(hub.repos["model", "org/pets"].history()) == commits
    other, there = unlicensed(tmp_path / "other", 2.0), hub.repos["model", "org/pets"].content()
    (other / "README.md").write_text(asking((other / "README.md").read_text()))
    before = listing(other)
    with pytest.raises(PushError, match="written or edited on the Hub.*delete README.md there.*Push it again"):
        push(other, "org/pets")
    assert hub.repos["model", "org/pets"].content() == there and listing(other) == before
    del hub.repos["model", "org/pets"].at("main")[1]["README.md"]
    push(other, "org/pets")
    assert hub.repos["model", "org/pets"].content()["model.safetensors"] == before["model.safetensors"]


def test_what_was_edited_there_and_taken_over_is_edited_here(hub, run, tmp_path):
    """Every later edit of the card here goes to the Hub, until somebody edits that there again."""
    push(run, "org/pets")
    edit(hub, asking)
    push(run, "org/pets")
    for line in ("A line of mine.", "Another one."):
        (run / "README.md").write_text((run / "README.md").read_text() + f"\n{line}\n")
        push(run, "org/pets")
        assert line in card_there(hub) and "Ask me anything." in card_there(hub)
        assert (run / "README.md").read_text() == card_there(hub)
    other = unlicensed(tmp_path / "other", 2.0)
    (other / "README.md").write_text((other / "README.md").read_text() + "\nOf another.\n")
    with pytest.raises(PushError, match="written or edited on the Hub"):  # what was written there stays
        push(other, "org/pets")
    edit(hub, lambda card: card.replace("Ask me", "Ask us"))
    (run / "README.md").write_text((run / "README.md").read_text() + "\nA third one.\n")
    with pytest.raises(PushError, match="written or edited on the Hub"):
        push(run, "org/pets")
    assert "Ask us anything." in card_there(hub)


def test_a_card_of_a_version_that_noted_no_hash(hub, run, tmp_path):
    """It is as that version wrote it, whose code was another; words that somebody wrote into it stay."""
    push(run, "org/pets")
    there = hub.repos["model", "org/pets"].content()
    facts = json.loads(there["run.json"])
    for name in [name for name in facts if name.startswith("card_")]:
        del facts[name]
    card = there["README.md"].decode()
    code = "from transformers import"
    assert code in card
    old = {"README.md": card.replace(code, f"import numpy as np\n{code}", 1), "run.json": json.dumps(facts)}
    hub.add("model", "org/pets", {name: text.encode() for name, text in old.items()}, "of an older version")
    edit(hub, asking)
    other = unlicensed(tmp_path / "other", 2.0)
    (other / "README.md").write_text((other / "README.md").read_text() + "\nOf the second year.\n")
    with pytest.raises(PushError, match="written or edited on the Hub"):
        push(other, "org/pets")
    edit(hub, lambda _: old["README.md"])
    push(other, "org/pets")
    assert hub.repos["model", "org/pets"].content()["README.md"] == (other / "README.md").read_bytes()
    assert "Of the second year." in card_there(hub)


def test_a_card_that_no_push_wrote_is_not_replaced(hub, run):
    theirs = {"README.md": b"---\nlicense: mit\n---\n# Ours\n", "run.json": b"[1"}
    hub.add("model", "org/pets", theirs)
    with pytest.raises(PushError, match="card of org/pets was written or edited on the Hub"):
        push(run, "org/pets")
    assert hub.repos["model", "org/pets"].content() == theirs
    push(run, "org/pets", create_pr=True)  # somebody looks at the difference
    assert "license: mit" in card_there(hub, "refs/pr/1")


def test_metadata_in_another_order_is_no_edit(hub, run, tmp_path):
    """The Hub's own editor writes the block anew."""
    import yaml

    push(run, "org/pets")

    def anew(card):
        _, head, text = card.split("---\n", 2)
        return f"---\n{yaml.safe_dump({'license': 'mit', **yaml.safe_load(head)}, sort_keys=True)}---\n{text}"

    edit(hub, anew)
    push(unlicensed(tmp_path / "other", 2.0), "org/pets")
    assert ModelCard(card_there(hub)).data.license == "mit"
    assert words_of("---\na: 1\nb: 2\n---\nx") == words_of("---\nb: 2\nlicense:\n- mit\na: 1\n---\nx")


@pytest.mark.parametrize("kind", ["classification", "backbone"])
def test_a_branch_is_named_by_its_card_and_by_nothing_else(hub, run, kind):
    from hf_lowlabel.hub.card import write_card

    push(run, "org/other")
    record = RunRecord.from_json(run / "run.json")
    record.kind, record.architecture, record.hub_id = kind, "resnet10t", None
    record.to_json(run / "run.json")
    write_card(run, record)
    before = listing(run)
    push(run, "org/pets", revision="half")
    assert listing(run) == before
    card, use = card_there(hub, "half"), card_there(hub, "half").partition("## Use")[2].partition("## Limits")[0]
    loaded = use.count("from_pretrained(") + use.count("model=") + use.count("--model ") + use.count("hf-hub:")
    named = use.count('"org/pets", revision="half"') + use.count("--model org/pets --model-revision half")
    assert loaded and loaded == named + use.count('hf-hub:org/pets@half"') and "\n# pets\n" in card
    assert json.loads(hub.repos["model", "org/pets"].content("half")["run.json"])["hub_id"] is None
    push(run, "org/pets", revision="main")
    assert "half" not in card_there(hub) and RunRecord.from_json(run / "run.json").hub_id == "org/pets"


def test_the_command_to_push_again_has_the_branch(hub, run):
    with pytest.raises(PushError, match=f"`hf-lowlabel push {run} org/pets --revision half`"):
        push(run, "org/pets", revision="half", token="hf_read")


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="the owner may write everywhere")
def test_a_folder_that_cannot_be_written_is_no_failure(hub, run, caplog):
    run.chmod(0o500)
    try:
        with caplog.at_level(logging.WARNING, "hf_lowlabel"):
            done = push(run, "org/pets")
    finally:
        run.chmod(0o700)
    assert done.commit == hub.repos["model", "org/pets"].refs["main"]
    assert f"pushed; the Hub id could not be noted in {run}" in caplog.text


def test_no_disk_for_the_notes_is_no_failure(hub, run, caplog, monkeypatch):
    from hf_lowlabel.hub import push as module

    def full(path, text):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(module, "write_text", full)
    with caplog.at_level(logging.WARNING, "hf_lowlabel"):
        assert push(run, "org/pets").commit == hub.repos["model", "org/pets"].refs["main"]
    assert f"could not be noted in {run}: No space left on device" in caplog.text


def test_words_written_on_the_hub_of_a_folder_without_a_run_are_not_replaced(hub, run, caplog):
    """It has no notes of the card that it was pushed with; the history of the Hub has it."""
    (run / "run.json").unlink()
    push(run, "org/pets")
    edit(hub, asking)
    (run / "metrics.json").write_text("{}")
    there, before = hub.repos["model", "org/pets"].content(), listing(run)
    with pytest.raises(PushError, match="written or edited on the Hub.*Copy what should stay.*Push it again"):
        push(run, "org/pets")
    assert hub.repos["model", "org/pets"].content() == there and listing(run) == before
    with caplog.at_level(logging.WARNING, "hf_lowlabel"):
        push(run, "org/pets", create_pr=True)  # somebody looks at the difference
    assert "was edited on the Hub; that of" in caplog.text
    (run / "README.md").write_text(asking((run / "README.md").read_text()))
    push(run, "org/pets")
    (run / "README.md").write_text((run / "README.md").read_text() + "\nA line of mine.\n")
    push(run, "org/pets")
    assert "Ask me anything." in card_there(hub) and "A line of mine." in card_there(hub)


@pytest.mark.parametrize("told", [False, True], ids=["a page", "a page beside a run.json"])
def test_a_folder_without_a_run_takes_no_place_of_what_others_wrote(hub, run, told):
    theirs = {"README.md": b"---\nlicense: mit\n---\n# Ours\n"}
    if told:
        push(run, "org/pets")
        edit(hub, asking)
    else:
        hub.add("model", "org/pets", theirs)
    there = hub.repos["model", "org/pets"].content()
    (run / "run.json").unlink()
    (run / "README.md").write_text("# Mine\n")
    with pytest.raises(PushError, match="card of org/pets was written or edited on the Hub"):
        push(run, "org/pets")
    assert hub.repos["model", "org/pets"].content() == there
    push(run, "org/new")
    (run / "README.md").write_text("# Mine\n\nAnd more.\n")
    push(run, "org/new")  # its own card, which nobody else wrote
    assert "And more." in hub.repos["model", "org/new"].content()["README.md"].decode()


def test_a_picture_that_is_not_shown_leaves_the_card_too(hub, run):
    from hf_lowlabel.hub.card import write_card

    (run / "predictions.png").write_bytes((run / "curves.png").read_bytes())
    write_card(run, RunRecord.from_json(run / "run.json"))
    assert "(predictions.png)" in (run / "README.md").read_text()
    (run / "predictions.png").unlink()
    push(run, "org/pets")
    card = card_there(hub)
    assert "predictions.png" not in card and "(curves.png)" in card and "\n# pets\n" in card
    (run / "curves.png").unlink()
    push(run, "org/pets")
    assert ".png" not in card_there(hub) and (run / "README.md").read_text() == card_there(hub)


def test_a_picture_that_somebody_took_from_the_card_stays_away(hub, run):
    card = (run / "README.md").read_text()
    (run / "README.md").write_text("".join(line for line in card.splitlines(True) if "curves.png" not in line))
    push(run, "org/pets")
    assert "curves.png" not in card_there(hub)


def test_a_folder_that_was_renamed_is_no_edit(hub, run):
    moved = run.rename(run.with_name("m (2)"))
    push(moved, "org/pets")
    assert "\n# pets\n" in card_there(hub) and "model" not in card_there(hub).split("\n# ")[1].split("\n")[0]
    other = unlicensed(run.with_name("titled"))
    (other / "README.md").write_text((other / "README.md").read_text().replace("# titled", "# Of the clinic"))
    push(other.rename(run.with_name("m3")), "org/other")  # a title that somebody gave
    assert "# Of the clinic\n" in hub.repos["model", "org/other"].content()["README.md"].decode()


def test_a_bad_name_is_still_a_sentence(run):
    with pytest.raises(UserError, match="Give org/name"):
        push(run, "pets", revision="half")
