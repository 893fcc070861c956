"""DINO against Caron et al. Eq. 1-4."""
from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from pretraining_stand_in import array, batch_for, make, train


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def outputs(objective, views) -> tuple[list[np.ndarray], list[np.ndarray]]:
    objective = copy.deepcopy(objective)
    student = [array(objective.head(objective.encoder.pooled(x))) for x in views]
    return student, [array(objective.teacher_head(objective.teacher_encoder.module.pooled(x))) for x in views[:2]]


def lively():
    """An objective whose student and teacher tell images apart and differ, as a fresh tiny head does not."""
    objective = make("dino", norm=True)
    train(objective)
    for network in (objective.head, objective.teacher_head.module):
        for layer in network.mlp[::2]:
            torch.nn.init.normal_(layer.weight, std=0.7)
            torch.nn.init.zeros_(layer.bias)
    return objective


@pytest.mark.parametrize("further", [0, 2])
def test_loss_is_equation_3(further):
    """Two global views; further, smaller ones go through the student alone."""
    objective = lively()
    views = batch_for(objective, seed=5)["views"] + [torch.randn(4, 3, 4, 4) for _ in range(further)]
    student, teacher = outputs(objective, views)
    t, terms = 0.05, []
    tau_t = 0.04 + (0.07 - 0.04) * 0.5  # half of the warm-up
    for i in range(2):
        p = softmax((teacher[i] - array(objective.center)) / tau_t)
        for j in range(len(views)):
            if i != j:
                terms.append(np.mean([-np.sum(p[b] * np.log(softmax(student[j] / 0.1)[b])) for b in range(4)]))
    assert len(terms) == 2 + 2 * further and np.std(terms) > 0.05
    assert objective({"views": views}, t)["loss"].item() == pytest.approx(np.mean(terms), rel=1e-4)


def test_center_is_the_running_mean_of_the_teacher_over_micro_batches():
    objective = make("dino", center_m=0.9)
    batch = batch_for(objective)
    expected = np.zeros(12)
    for t in (0.1, 0.2):
        _, teacher = outputs(objective, batch["views"])
        for part in (slice(0, 2), slice(2, 4)):
            before = objective.center.clone()
            objective({"views": [x[part] for x in batch["views"]]}, t)["loss"].backward()
            assert torch.equal(objective.center, before)  # it moves when the step ends
        objective.after_step(t)
        expected = 0.9 * expected + 0.1 * np.concatenate(teacher).mean(0)
        np.testing.assert_allclose(array(objective.center), expected, atol=1e-6)
    assert "center" in objective.state_dict() and not objective.center.requires_grad


def test_a_bad_teacher_output_leaves_the_center_alone():
    objective = make("dino")
    objective.waiting.add(torch.full((12,), float("nan")), 0.1)
    objective.after_step(0.1)
    assert torch.equal(objective.center, torch.zeros(12))


def test_temperature_warms_up_linearly():
    objective = make("dino", tau_t0=0.02, tau_t=0.08, tau_warmup=0.2)
    assert [objective.teacher_temperature(t) for t in (0, 0.1, 0.2, 1)] == pytest.approx([0.02, 0.05, 0.08, 0.08])
    assert make("dino", tau_warmup=0.0).teacher_temperature(0.0) == 0.07


def test_prototypes_rest_while_they_are_frozen():
    objective = make("dino", freeze_last=0.5)
    objective(batch_for(objective), 0.4)["loss"].backward()
    assert objective.head.prototypes.grad.abs().sum() == 0 and objective.head.mlp[0].weight.grad.abs().sum() > 0
    objective(batch_for(objective), 0.5)["loss"].backward()
    assert objective.head.prototypes.grad.abs().sum() > 0


def test_head_gives_cosines():
    """A weight-normalised last layer of gain 1 on unit vectors: the length of a prototype does not count."""
    head = make("dino").head
    x = torch.randn(4, 8)
    before = head(x)
    assert before.abs().max() <= 1 + 1e-6
    with torch.no_grad():
        head.prototypes.mul_(3)
    torch.testing.assert_close(head(x), before)
