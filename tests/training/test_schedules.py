"""Learning rates over a run, against the epochs that the papers state."""

import math

import pytest

from hf_lowlabel.config import FinetuneConfig
from hf_lowlabel.methods import METHODS
from hf_lowlabel.training.optim import learning_rate


@pytest.mark.parametrize(
    "schedule, warmup, epochs",
    [
        (
            "steps",
            0,
            {0: 1, 59: 1, 61: 0.1, 119: 0.1, 121: 0.01, 161: 0.001, 199: 0.001},
        ),  # Gidaris et al., Rebuffi et al. section 4.6
        ("steps-late", 5, {0: 0, 2.5: 0.5, 5: 1, 139: 1, 141: 0.1, 161: 0.01, 181: 0.001}),  # S4L, section 4.1
        ("steps-moam", 10, {0: 0, 5: 0.5, 10: 1, 99: 1, 101: 0.1, 149: 0.1, 151: 0.01, 191: 0.001}),  # S4L, section 5
    ],
)
def test_drops_at_the_epochs_of_the_papers(schedule, warmup, epochs):
    for epoch, expected in epochs.items():
        assert learning_rate(schedule, epoch / 200, warmup / 200) == pytest.approx(expected)


def test_smooth_schedules_start_after_the_warmup():
    assert learning_rate("fixmatch", 1.0) == pytest.approx(math.cos(7 * math.pi / 16))
    assert learning_rate("cosine", 0.1, 0.1) == 1 and learning_rate("cosine", 0.55, 0.1) == pytest.approx(0.5)
    assert learning_rate("linear", 0.25) == 0.75 and learning_rate("constant", 0.9) == 1


@pytest.mark.parametrize(
    "method, preset, steps",
    [("s4l-rotation", "imagenet-10", 100_000), ("vat", "imagenet-1", 50_000), ("moam", "imagenet-10", 200_000)],
)
def test_lengths_in_passes_over_the_labels(method, preset, steps):
    """S4L counts epochs over the labeled images: 200 of 128,000, 1000 of 13,000, 200 of 128,000 at half the batch."""
    from hf_lowlabel.training.setup import steps as length

    config = FinetuneConfig(dataset="x", method=method, preset=preset).resolved()
    found = length(config, 1_281_167, config.batch_size * config.unlabeled_ratio)
    assert found == pytest.approx(steps, rel=0.02) and preset in METHODS[method].presets
