"""The pull to the starting weights (Xu et al., Eq. 3)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pretraining_stand_in import PRETRAIN, array, batch_for, make, train

from hf_lowlabel import pretrain
from hf_lowlabel.models import create_backbone
from hf_lowlabel.pretraining.l2_sp import L2SP, l2_distance

LAMBDA = 0.03


def moved(name: str = "byol", weight: float = LAMBDA) -> tuple[L2SP, dict[str, np.ndarray]]:
    """An anchored objective some way from its start, and the encoder's weights there."""
    objective = L2SP(make(name, norm=True), weight)
    start = {k: array(p) for k, p in objective.evaluated.named_parameters()}
    train(objective, ts=(0.0, 0.2))
    with torch.no_grad():
        for p in objective.evaluated.parameters():  # a bias before BatchNorm has no gradient of its own
            p.add_(0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1)))
    return objective, start


def gradients(objective, batch) -> dict[str, np.ndarray]:
    objective.zero_grad()
    torch.manual_seed(0)
    objective(batch, 0.5)["loss"].backward()
    return {k.removeprefix("objective."): array(p.grad) for k, p in objective.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("name", PRETRAIN)
def test_the_gradient_is_the_methods_own_plus_2_lambda_times_the_way_gone(name):
    objective, start = moved(name)
    batch = batch_for(objective, seed=4)
    whole, own = gradients(objective, batch), gradients(objective.objective, batch)
    for key, gradient in whole.items():
        pull = 0.0
        if key.startswith("encoder."):
            now = array(dict(objective.evaluated.named_parameters())[key.removeprefix("encoder.")])
            pull = 2 * LAMBDA * (now - start[key.removeprefix("encoder.")])
            assert np.abs(pull).max() > 1e-3
        np.testing.assert_allclose(gradient, own[key] + pull, atol=1e-5, err_msg=key)


def test_the_loss_adds_lambda_times_the_squared_distance_of_the_encoder_alone():
    objective, start = moved()
    batch = batch_for(objective, seed=4)
    distance = sum(np.sum((array(p) - start[k]) ** 2) for k, p in objective.evaluated.named_parameters())
    out = objective(batch, 0.5)
    assert distance > 1e-3 and out["distance"].item() == pytest.approx(distance, rel=1e-5)
    assert out["loss"].item() == pytest.approx(out["self"].item() + LAMBDA * distance, rel=1e-5)


def test_projectors_and_buffers_are_free():
    objective, _ = moved()
    batch = batch_for(objective, seed=4)
    before = objective(batch, 0.5)["distance"].item()
    with torch.no_grad():
        objective.evaluated.norm.running_mean.add_(3)
        objective.objective.projector[0].weight.add_(3)
    assert objective(batch, 0.5)["distance"].item() == before


def test_the_start_never_moves_and_travels_in_the_state():
    objective, start = moved()
    state = objective.state_dict()
    saved = [state[f"start{i}"] for i in range(len(start))]
    for value, expected in zip(saved, start.values(), strict=True):
        np.testing.assert_array_equal(array(value), expected)
    other = L2SP(make("byol", norm=True, seed=3), LAMBDA)
    other.load_state_dict(state)
    batch = batch_for(objective, seed=4)
    assert other(batch, 0.5)["loss"].item() == objective(batch, 0.5)["loss"].item()


def test_the_pull_of_a_run_that_begins_with_a_checkpoint_is_to_its_own_start(tmp_path):
    """Not to what the run that wrote it had begun with; a resumed run keeps its start."""
    given = dict(dataset="digits", model="cnn6_16", method="byol", method_args=dict(hidden=16), image_size=16)
    given |= dict(batch_size=16, device="cpu", l2_sp=1.0, learning_rate=1.0, warmup_ratio=0.0)
    create_backbone("cnn6_16", pretrained=False, image_size=16).save_pretrained(tmp_path / "start")
    given["model"] = str(tmp_path / "start")
    first = pretrain(**given, max_steps=3, output_dir=tmp_path / "a")
    assert first.metrics["moved"] > 1e-3
    begun = str(tmp_path / "a/checkpoints/step-00000003")
    still = dict(given, learning_rate=0.0, init_from=begun, output_dir=tmp_path / "b")
    assert pretrain(**still, max_steps=1).metrics["moved"] == 0
    on = pretrain(**given, max_steps=4, resume=True, output_dir=tmp_path / "a")
    assert on.metrics["moved"] > first.metrics["moved"] / 2


def test_the_pull_is_zero_at_the_start_and_holds_weights_back():
    objective = L2SP(make("byol"), 1.0)
    assert objective(batch_for(objective), 0.0)["distance"].item() == 0
    free, held = L2SP(make("byol"), 0.0), L2SP(make("byol"), 1.0)
    train(free)
    train(held)
    batch = batch_for(free, seed=4)
    assert 0 < held(batch, 0.5)["distance"] < free(batch, 0.5)["distance"]


def test_it_speaks_for_the_objective_inside():
    for name in ("simsiam", "pixpro", "exemplar"):
        inner = make(name)
        outer = L2SP(inner, LAMBDA)
        assert outer.views == inner.views and outer.geometry == inner.geometry and outer.evaluated is inner.encoder
        assert outer.param_groups().keys() == inner.param_groups().keys()
    assert L2SP(make("pixpro"), LAMBDA).geometry and not L2SP(make("byol"), LAMBDA).geometry


def test_distance_is_summed_in_float32():
    p = torch.full((4, 1000), 1.0, dtype=torch.bfloat16)
    assert l2_distance([p], [torch.zeros(4, 1000)]).item() == 4000
