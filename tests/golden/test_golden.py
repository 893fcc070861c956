"""Every method against numbers that other code made: its authors', or the paper's equations in float64 (values.py)."""

import pytest
from cases import chosen, difference, hard_difference, ours
from values import CHOSEN, GOLDEN

from hf_lowlabel.methods import METHODS, find
from hf_lowlabel.objective import Objective


def test_every_method_that_trains_has_golden_numbers():
    assert {name for name in METHODS if not find(name).frozen} <= set(GOLDEN)


@pytest.mark.parametrize("case", GOLDEN)
def test_losses_are_those_of_the_reference(case):
    assert difference(case) < GOLDEN[case].tolerance


@pytest.mark.parametrize("case", CHOSEN)
def test_choices_are_those_of_the_authors(case):
    assert chosen(case) == CHOSEN[case][2]


def test_hard_pixels_are_those_of_the_authors():
    assert hard_difference() < 1e-6


REMEMBERS = "flexmatch freematch softmatch adamatch remixmatch simmatch comatch comatch-imagenet self-tuning sscl"
REMEMBERS += " temporal-ensembling temporal-consistency self-training moco densecl dino"


@pytest.mark.parametrize("case", REMEMBERS.split())
def test_the_numbers_depend_on_what_a_method_remembers(case, monkeypatch):
    """Without the end of its steps the last loss is another: the numbers look at memories too."""
    monkeypatch.setattr(Objective, "after_step", lambda self, t: None)
    assert ours(case)[-1] != pytest.approx(GOLDEN[case].values[-1], rel=10 * GOLDEN[case].tolerance)
