"""What every self-supervised objective must keep: gradients, teachers, state, hyperparameters, networks of any kind."""

from __future__ import annotations

import copy

import pytest
import torch
from pretraining_stand_in import PRETRAIN, SMALL, batch_for, make, train

from hf_lowlabel.methods import find, hyperparameters
from hf_lowlabel.models.loading import create_backbone
from hf_lowlabel.objective import EMA, build_objective

OTHER = {  # another value of every hyperparameter
    "hidden": 12,
    "out": 6,
    "m0": 0.5,
    "m": 0.5,
    "tau": 0.4,
    "queue": 24,
    "teacher_buffers": "ema",
    "invariance": 10.0,
    "variance": 10.0,
    "covariance": 3.0,
    "bottleneck": 6,
    "tau_s": 0.2,
    "tau_t0": 0.06,
    "tau_t": 0.1,
    "tau_warmup": 0.9,
    "center_m": 0.5,
    "freeze_last": 0.4,
    "instances": 4,
    "dense": 0.2,
    "gamma": 1.0,
    "scale": 2.0,
    "rotation": 90.0,
    "shear": 1.0,
    "translation": 0.3,
    "local_crops": 2,
    "lamb": 0.5,
    "slices": 4,
}
TEACHERS = [n for n in PRETRAIN if any(isinstance(m, EMA) for m in make(n).modules())]


def hyperparameter_list() -> list[tuple[str, str]]:
    elsewhere = {
        "decay_end",
        "patch_loss",
    }  # tested with its schedule, and on networks that have patches (test_ibot.py)
    return [(name, key) for name in PRETRAIN for key in hyperparameters(find(name)) if key not in elsewhere]


@pytest.mark.parametrize("name,key", hyperparameter_list())
def test_every_hyperparameter_changes_the_training(name, key):
    assert {**hyperparameters(find(name)), **SMALL[name]}[key] != OTHER[key]
    usual, other = train(make(name, norm=True)), train(make(name, norm=True, **{key: OTHER[key]}))
    assert usual[-1] != other[-1]


@pytest.mark.parametrize("name", PRETRAIN)
def test_every_trainable_weight_has_a_gradient_and_moves(name):
    objective = make(name)
    before = {k: p.detach().clone() for k, p in objective.named_parameters()}
    out = objective(batch_for(objective), 0.5)
    assert out["loss"].ndim == 0 and out["loss"].requires_grad
    assert not any(v.requires_grad for k, v in out.items() if k != "loss")
    out["loss"].backward()
    trainable = {k: p for k, p in objective.named_parameters() if p.requires_grad}
    assert all(p.grad is not None and p.grad.isfinite().all() for p in trainable.values())
    torch.optim.SGD(trainable.values(), lr=0.1).step()
    for part in ("encoder", "projector", "predictor", "head", "heads", "expander", "value"):
        if hasattr(objective, part):
            moved = [not torch.equal(p, before[k]) for k, p in trainable.items() if k.startswith(f"{part}.")]
            assert any(moved), part


@pytest.mark.parametrize("name", [n for n in PRETRAIN if n != "simsiam"])
def test_the_gradient_is_the_slope_of_the_loss(name):
    """Along the gradient, by central differences; only SimSiam cuts a gradient that would flow without a teacher."""
    objective = make(name)
    batch, state = batch_for(objective, seed=3), copy.deepcopy(objective.state_dict())
    params = [p for p in objective.parameters() if p.requires_grad]

    def loss() -> torch.Tensor:
        torch.manual_seed(0)
        return objective(batch, 0.5)["loss"]

    loss().backward()
    norm = torch.stack([p.grad.square().sum() for p in params]).sum().sqrt()
    ends, h = [], 1e-3 / max(1.0, norm.item())
    for sign in (1, -1):
        objective.load_state_dict(state)
        with torch.no_grad():
            for p in params:
                p.add_(p.grad / norm, alpha=sign * h)
            ends.append(loss().double().item())
    assert (ends[0] - ends[1]) / (2 * h) == pytest.approx(norm.item(), rel=0.02)


@pytest.mark.parametrize("name", PRETRAIN)
def test_parameter_groups_hold_every_trainable_weight_once(name):
    objective = make(name)
    listed = [id(p) for group in objective.param_groups().values() for p in group]
    assert sorted(listed) == sorted(id(p) for p in objective.parameters() if p.requires_grad)
    assert objective.evaluated is objective.encoder


@pytest.mark.parametrize("name", TEACHERS)
def test_the_teacher_takes_no_gradient_and_follows_the_student(name):
    objective = make(name)
    teacher = {k: p for k, p in objective.named_parameters() if k.startswith("teacher")}
    student = {k.replace(".module", "").removeprefix("teacher_"): k for k in teacher}
    assert teacher and not any(p.requires_grad for p in teacher.values())
    started = {k: p.detach().clone() for k, p in teacher.items()}
    train(objective, ts=(0.0,))
    params = dict(objective.named_parameters())
    m = getattr(objective, "m0", None) or objective.m  # the momentum at t = 0
    for own, theirs in student.items():
        torch.testing.assert_close(teacher[theirs], m * started[theirs] + (1 - m) * params[own])
    assert any(not torch.equal(p, started[k]) for k, p in teacher.items())


@pytest.mark.parametrize("name", PRETRAIN)
def test_training_goes_on_from_its_state_dict_bit_for_bit(name):
    whole = make(name, norm=True)
    train(whole, ts=(0.0, 0.3))
    other = make(name, norm=True, seed=7)
    assert train(copy.deepcopy(other), ts=(0.6,), first=2) != train(copy.deepcopy(whole), ts=(0.6,), first=2)
    other.load_state_dict(whole.state_dict())
    assert train(other, ts=(0.6, 0.9), first=2) == train(whole, ts=(0.6, 0.9), first=2)
    for key, value in whole.state_dict().items():
        assert torch.equal(value, other.state_dict()[key]), key


@pytest.mark.parametrize("name", PRETRAIN)
def test_a_loss_that_is_only_measured_changes_no_state(name):
    objective, twin = make(name), make(name)
    train(objective, ts=(0.0,))
    train(twin, ts=(0.0,))
    objective.eval()
    with torch.no_grad():
        objective(batch_for(objective, seed=9), 0.3)
    objective.train()
    assert train(objective, ts=(0.3, 0.6), first=1) == train(twin, ts=(0.3, 0.6), first=1)


@pytest.mark.parametrize("name", PRETRAIN)
def test_bf16_autocast_stays_close_and_finite(name):
    objective = make(name)
    batch = batch_for(objective)
    torch.manual_seed(0)
    full = copy.deepcopy(objective)(batch, 0.5)["loss"]
    torch.manual_seed(0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = objective(batch, 0.5)["loss"]
    half.backward()
    assert half.dtype == torch.float32 and abs(half.item() - full.item()) < 0.1 * max(1, abs(full.item()))
    assert all(p.grad.isfinite().all() for p in objective.parameters() if p.requires_grad)


@pytest.fixture(scope="module", params=["test_resnet", "test_vit"])
def network(request):
    return create_backbone(request.param, pretrained=False, image_size=32)


@pytest.mark.parametrize("name", PRETRAIN)
def test_trains_convolutional_networks_and_vision_transformers(name, network):
    objective = make(name, encoder=copy.deepcopy(network))
    out = objective(batch_for(objective, n=2, size=32), 0.2)
    out["loss"].backward()
    objective.after_step(0.2)
    assert out["loss"].isfinite()
    gradient = sum(p.grad.abs().sum() for p in objective.encoder.parameters() if p.grad is not None)
    assert gradient > 0


@pytest.mark.parametrize("method", ["pixpro", "densecl"])
@pytest.mark.parametrize("name", ["mobilenetv3_small_050", "test_convnext", "vit_tiny_patch16_224"])
def test_every_trained_weight_of_a_real_network_gets_a_gradient(method, name):
    """Layers behind the last map would otherwise wait for a gradient that never comes, and stop a run of several
    processes."""
    from hf_lowlabel.models import create_backbone

    encoder = create_backbone(name, pretrained=False, image_size=32, model_args=dict(depth=1) if "vit" in name else {})
    assert find(method).maps
    beyond = encoder.freeze_beyond_map()
    assert any(
        part in "".join(beyond)
        for part in {"mobilenetv3_small_050": ["conv_head"], "test_convnext": ["head"]}.get(name, [""])
    )
    small = dict(hidden=16, out=8) | (dict(queue=16) if method == "densecl" else {})
    objective = build_objective(method, encoder, small, num_images=8)
    size = torch.tensor([[0.0, 0.0, 32.0, 32.0]] * 4)
    batch = {
        "views": [torch.rand(4, 3, 32, 32) for _ in range(2)],
        "index": torch.arange(4),
        "boxes": [size, size],
        "flips": [torch.zeros(4, dtype=torch.bool)] * 2,
    }
    objective(batch, 0.1)["loss"].backward()
    assert not [n for n, p in objective.named_parameters() if p.requires_grad and p.grad is None]
