"""DINO against Caron et al. Eq. 1-4."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from pretraining_stand_in import array, batch_for, make, train
from transformers import AutoModel

from hf_lowlabel.errors import UserError
from hf_lowlabel.models import create_backbone, create_classifier


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def outputs(objective, views) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Of student and teacher, from one pass for each size of views: the first two, and the others."""
    objective = copy.deepcopy(objective)
    passes = [torch.cat(v) for v in (views[:2], views[2:]) if v]
    student = [array(objective.head(objective.encoder.pooled(x))) for x in passes]
    teacher = array(objective.teacher_head(objective.teacher_encoder.module.pooled(passes[0])))
    return [p for s in student for p in np.split(s, len(s) // len(views[0]))], np.split(teacher, 2)


def lively():
    """An objective whose student and teacher tell images apart and differ, as a fresh tiny head does not."""
    objective = make("dino", norm=True)
    train(objective)
    for network in (objective.head, objective.teacher_head.module):
        for layer in network.mlp[::2]:
            torch.nn.init.normal_(layer.weight, std=0.7)
            torch.nn.init.zeros_(layer.bias)
    return objective


@pytest.mark.parametrize("further", [0, 3])
def test_loss_is_equation_3(further):
    """Two global views; local crops go through the student alone."""
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
    objective({"views": [torch.full((4, 3, 8, 8), float("nan"))] * 2}, 0.1)
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


def test_cosines_keep_their_digits_under_autocast():
    """They are divided by 0.04: what bfloat16 drops would be a tenth of a logit."""
    head = make("dino").head
    head.mlp.register_forward_hook(lambda m, x, z: seen.append(z))
    seen: list[torch.Tensor] = []
    with torch.autocast("cpu", torch.bfloat16):
        out = head(torch.randn(4, 8))
    z, w = array(seen[0].float()), array(head.prototypes)
    expected = (z / np.linalg.norm(z, axis=1, keepdims=True)) @ (w / np.linalg.norm(w, axis=1, keepdims=True)).T
    assert seen[0].dtype == torch.bfloat16
    np.testing.assert_allclose(array(out), expected, atol=1e-6)


def test_local_crops_are_views_of_their_own_that_only_the_student_sees():
    objective = make("dino", local_crops=3)
    assert make("dino").views == ("byol1", "byol2")
    assert objective.views == ("byol1", "byol2", "dino-local", "dino-local", "dino-local")
    views = batch_for(make("dino"))["views"]
    local = [torch.randn(4, 3, 4, 4, requires_grad=True) for _ in range(3)]
    passes = []
    objective.teacher_encoder.module.pooled = lambda x: passes.append(x.shape) or x.new_zeros(len(x), 8)
    objective({"views": views + local}, 0.3)["loss"].backward()
    assert passes == [(8, 3, 8, 8)] and all(x.grad.abs().sum() > 0 for x in local)


TINY = dict(depth=1, embed_dim=16, num_heads=2, patch_size=4)


@pytest.mark.parametrize(
    "model, arguments, side",
    [("vit_tiny_patch16_224", TINY, 12), pytest.param("wrn_10_2", {}, 14, marks=pytest.mark.slow)],
)
def test_a_run_with_local_crops(model, arguments, side, tmp_path, monkeypatch):
    """A transformer interpolates its positions; the saved one loads as any other, and takes the views' size."""
    from hf_lowlabel import pretrain
    from hf_lowlabel.pretraining.dino import DINO

    seen, forward = [], DINO.forward

    def spy(self, batch, t):
        seen.append([x.shape[-1] for x in batch["views"]])
        return forward(self, batch, t)

    monkeypatch.setattr(DINO, "forward", spy)
    start = tmp_path / "start"
    create_backbone(model, pretrained=False, image_size=32, model_args=arguments).save_pretrained(start)
    pretrain(
        dataset="digits",
        model=str(start),
        method="dino",
        method_args=dict(local_crops=2, out=16, hidden=16),
        image_size=32,
        stored_size=32,
        batch_size=4,
        max_steps=2,
        eval_steps=100,
        device="cpu",
        output_dir=str(tmp_path / "run"),
    )
    assert seen == [[32, 32, side, side]] * 2
    x = torch.randn(2, 3, 32, 32)
    saved = create_backbone(str(tmp_path / "run")).eval()
    with torch.no_grad():
        torch.testing.assert_close(AutoModel.from_pretrained(tmp_path / "run").eval()(x).pooler_output, saved.pooled(x))
    classifier = create_classifier(str(tmp_path / "run"), 3, image_size=64)
    assert classifier(torch.randn(1, 3, 64, 64)).logits.shape == (1, 3)


def test_a_network_of_one_size_is_refused():
    with pytest.raises(UserError, match="dynamic_img_size"):
        create_backbone("mixer_s32_224", pretrained=False, any_size=True)
