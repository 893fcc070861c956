"""The licence that a card states, on the Hub and here: given, changed, withdrawn, and where a card cannot be read."""

from __future__ import annotations

import pytest
from hub_runs import asking, card_there, edit, licensed, listing, unlicensed
from huggingface_hub import ModelCard

from hf_lowlabel.data.sources.tables import card_license
from hf_lowlabel.data.splits.splits import Split
from hf_lowlabel.errors import UserError
from hf_lowlabel.hub.push import push
from hf_lowlabel.hub.splits import push_split
from hf_lowlabel.hub.upload import PushError
from hf_lowlabel.licences import license_of

NOT_GIVEN = "**Not given yet.**"


@pytest.fixture
def run(tmp_path):
    return unlicensed(tmp_path / "model")


def here(run, change):
    (run / "README.md").write_text(change((run / "README.md").read_text()))


def without(card):
    return card.replace("license: mit\n", "")


@pytest.mark.parametrize("edited", [False, True], ids=["as written", "edited"])
@pytest.mark.parametrize("where", ["here", "there", "both"])
def test_a_licence_is_withdrawn(hub, run, where, edited):
    here(run, licensed("license: mit"))
    push(run, "org/pets")
    assert "This model: mit." in card_there(hub)
    if edited:
        here(run, asking)
        push(run, "org/pets")
    if where != "there":
        here(run, without)
    if where != "here":
        edit(hub, without)
    for _ in range(2):  # and stays so
        push(run, "org/pets")
        card = card_there(hub)
        assert ModelCard(card).data.license is None and NOT_GIVEN in card and "This model: mit." not in card
        assert ("Ask me anything." in card) == edited and (run / "README.md").read_text() == card
    edit(hub, licensed("license: isc"))
    push(run, "org/pets")
    assert "This model: isc." in card_there(hub) and ModelCard(card_there(hub)).data.license == "isc"


def test_a_licence_is_withdrawn_where_words_were_written_there(hub, run):
    here(run, licensed("license: mit"))
    push(run, "org/pets")
    edit(hub, asking)
    here(run, without)
    push(run, "org/pets")
    card = card_there(hub)
    assert "Ask me anything." in card and ModelCard(card).data.license is None
    assert NOT_GIVEN in card and "This model: mit." not in card


def test_of_two_changes_the_licence_that_is_given_stays(hub, run, tmp_path):
    here(run, licensed("license: mit"))
    push(run, "org/pets")
    here(run, without)
    edit(hub, lambda card: card.replace("license: mit", "license: isc"))
    push(run, "org/pets")
    assert ModelCard(card_there(hub)).data.license == "isc"
    push(unlicensed(tmp_path / "next", 2.0), "org/pets")  # it never had one, and withdraws none
    assert ModelCard(card_there(hub)).data.license == "isc"
    other = unlicensed(tmp_path / "other", 3.0)
    here(other, licensed("license: mit"))
    push(other, "org/other")
    here(other, without)
    push(other, "org/pets")  # what it withdraws is another
    assert ModelCard(card_there(hub)).data.license == "isc"


def test_what_somebody_says_of_the_licence_in_words_stays(hub, run):
    """In a card that is edited, whose block states none, and where none was withdrawn."""
    here(run, asking)
    here(run, lambda card: card.replace(card[card.index(NOT_GIVEN) :].split(" What it")[0], "This model: ask me."))
    push(run, "org/pets")
    assert "This model: ask me." in card_there(hub)


def test_a_link_to_the_licence_is_part_of_it(hub, run):
    here(run, licensed("license: mit"))
    push(run, "org/pets")
    edit(hub, licensed("license_link: LICENSE"))
    push(run, "org/pets")
    assert ModelCard(card_there(hub)).data.license_link == "LICENSE"
    here(run, lambda card: card.replace("license_link: LICENSE", "license_link: LICENCE.md"))
    push(run, "org/pets")
    assert ModelCard(card_there(hub)).data.license_link == "LICENCE.md"
    edit(hub, lambda card: card.replace("license_link: LICENCE.md\n", ""))
    push(run, "org/pets")
    assert ModelCard(card_there(hub)).data.get("license_link") is None
    assert ModelCard(card_there(hub)).data.license == "mit"


def test_a_list_of_licences_goes_to_the_hub_as_a_list(hub, run):
    here(run, licensed("license:\n- mit\n- apache-2.0"))
    push(run, "org/pets")
    assert ModelCard(card_there(hub)).data.license == ["mit", "apache-2.0"]
    assert "This model: mit and apache-2.0." in card_there(hub)
    edit(hub, lambda card: card.replace("- apache-2.0\n", "- isc\n"))
    push(run, "org/pets")
    assert ModelCard(card_there(hub)).data.license == ["mit", "isc"]


BAD = {
    "no YAML": b"---\ntags: [a\n---\n# x\n",
    "no mapping": b"---\n- a\n---\n# x\n",
    "a date that is none": b"---\nday: 2024-13-45\n---\n# x\n",
    "no UTF-8": b"---\ntags: [a]\n---\n# caf\xe9\n",
}


@pytest.mark.parametrize("card", BAD.values(), ids=BAD)
def test_a_card_that_cannot_be_read_is_named(hub, run, card):
    push(run, "org/pets")
    hub.add("model", "org/pets", {"README.md": card})
    before, there = listing(run), hub.repos["model", "org/pets"].content()
    with pytest.raises(
        PushError, match="README.md in org/pets on the Hub .*(cannot be read|not UTF-8).*there.*Push it"
    ):
        push(run, "org/pets")
    assert listing(run) == before and hub.repos["model", "org/pets"].content() == there
    (run / "README.md").write_bytes(card)
    hub.requests.clear()
    with pytest.raises(UserError, match=f"{run / 'README.md'} .*(cannot be read|not UTF-8)"):
        push(run, "org/pets")
    assert not hub.requests


def test_weights_are_used_whatever_is_in_their_card(tmp_path, caplog):
    for card in BAD.values():
        (tmp_path / "README.md").write_bytes(card)
        assert license_of(tmp_path / "README.md") is None
    assert caplog.text.count("the licence of the weights is not known") == 3  # the fourth states none


def test_a_mark_before_the_block_hides_nothing(hub, run, tmp_path):
    """As editors of Windows write it."""
    mark = "\ufeff".encode()
    (run / "README.md").write_bytes(mark + licensed("license: mit")((run / "README.md").read_text()).encode())
    assert license_of(run / "README.md") == card_license(run) == "mit"
    push(run, "org/pets")
    assert card_there(hub).startswith("---") and "This model: mit." in card_there(hub)
    there = card_there(hub).replace("license: mit", "license: isc").replace("\n", "\r\n")
    hub.add("model", "org/pets", {"README.md": mark + there.encode()}, "edited")
    push(run, "org/pets")
    assert ModelCard(card_there(hub)).data.license == "isc" and "\n# pets\n" in card_there(hub)
    page = b"---\nlicense: mit\nconfigs:\n- config_name: photos\n  data_files: photos.csv\n---\n# Photos\n"
    hub.add("dataset", "org/pets", {"README.md": mark + page})
    push_split(Split("photos", ["cat", "dog"], {"a.png": "cat", "b.png": "dog"}), "org/pets", name="few")
    page = ModelCard(hub.repos["dataset", "org/pets"].content()["README.md"].decode())
    assert page.data.license == "mit" and [c["config_name"] for c in page.data.get("configs")] == ["few", "photos"]
