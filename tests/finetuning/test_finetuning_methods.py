"""What every method of the table must do, whatever its paper says."""

import copy

import pytest
import torch
from finetuning_stand_in import FINETUNE, POOL, K, TinyModel, build, make_batch, train

from hf_lowlabel.errors import UserError
from hf_lowlabel.methods import find, hyperparameters
from hf_lowlabel.views.table import VIEWS

SEMI = [n for n in FINETUNE if n != "supervised"]
LIVELY = {"tau": 0.3, "ramp": 0.2}  # so that the unlabeled loss is at work from the first steps on
SMALL = {
    "comatch": dict(bank=16, edge=0.2, memory=2),
    "sscl": dict(memory=2, queue=16),
    "remixmatch": dict(memory=2),
    "simmatch": dict(memory=2),
    "freematch": dict(m=0.5),
    "softmatch": dict(m=0.5),
    "adamatch": dict(m=0.5, tau=0.6),
    "flexmatch": dict(tau=0.4),
    "s4l-exemplar": dict(instances=3, width=8),
    "self-tuning": dict(width=8, queue=4),
}


def lively(name, **changes):
    own = hyperparameters(find(name))
    return build(name, **{**{k: v for k, v in LIVELY.items() if k in own}, **SMALL.get(name, {}), **changes})


def grads(objective, step=3, t=0.3):
    torch.manual_seed(7)
    loss = objective(make_batch(objective, step), t)["loss"]
    objective.zero_grad()
    loss.backward()
    return [p.grad.clone() for p in objective.model.body.parameters()]


@pytest.mark.parametrize("name", SEMI)
def test_the_gradient_changes_with_the_unlabeled_weight(name):
    first, second = lively(name), lively(name)
    train(first, 3)
    second.load_state_dict(first.state_dict())
    second.lambda_u = 2 * first.lambda_u
    for a, b in zip(grads(first), grads(second), strict=True):
        assert not torch.allclose(a, b, rtol=1e-3, atol=1e-9)


@pytest.mark.parametrize("name", FINETUNE)
def test_every_weight_gets_a_gradient_and_no_teacher_or_table_does(name):
    objective = lively(name)
    train(objective, 2)
    grads(objective)
    trainable = {n for n, p in objective.named_parameters() if p.requires_grad}
    assert {n for n, p in objective.named_parameters() if p.grad is not None} == trainable
    assert all(p.grad is None for p in objective.ema.parameters())
    assert not any(b.requires_grad for b in objective.buffers())
    grouped = [p for group in objective.param_groups().values() for p in group]
    assert len({id(p) for p in grouped}) == len(grouped) == len(trainable)


ALTERNATIVES = {
    "tsa": "linear",
    "teacher": True,
    "rounds": 2,
    "memory": 1,
    "queue": 2,
    "bank": 8,
    "positives": 1,
    "width": 5,
    "clusters": 7,
    "instances": 4,
    "ema_decay": 0.05,
    "entropy": 0.5,
    "label_smoothing": 0.2,
    "xi": 1.0,
    "n": 1.0,
    "margin": 0.5,
    "m": 0.1,
    "prototype_m": 0.1,
    "bank_m": 0.05,
    "edge": 0.9,
    "tau": 0.999,
    "ramp": 0.05,
    "concat_weak": False,
    "passes": 3,
}


@pytest.mark.parametrize("name,key", [(n, k) for n in FINETUNE for k in hyperparameters(find(n))])
def test_every_hyperparameter_matters(name, key):
    net = lambda: TinyModel(norm=key == "concat_weak")  # noqa: E731
    usual = lively(name, model=net())
    default = hyperparameters(find(name))[key]
    new = not default if isinstance(default, bool) else ALTERNATIVES.get(key, 0.5 * (default or 1.0))
    changed = lively(name, model=net(), **{key: new})
    if name == "flexmatch":  # its thresholds start at 0; here every image has been confident once
        for rule in (usual.rule, changed.rule):
            rule.last.copy_(torch.arange(POOL) % K)
            rule.count.copy_(torch.bincount(rule.last + 1, minlength=K + 1))
    losses = train(usual, 6), train(changed, 6)
    end = [torch.cat([p.flatten() for p in o.evaluated.parameters()]) for o in (usual, changed)]
    assert losses[0] != losses[1] or not torch.equal(*end), f"{key}={new} changes nothing"
    assert all(torch.isfinite(e).all() for e in end)


@pytest.mark.parametrize("name", FINETUNE)
def test_state_survives_a_stop_bit_for_bit(name):
    whole, broken = lively(name), lively(name)
    expected = train(whole, 6)
    assert train(broken, 3) == expected[:3]
    state = {k: v.clone() for k, v in broken.state_dict().items()}
    fresh = build(
        name,
        model=TinyModel(seed=9),
        **{**{k: v for k, v in LIVELY.items() if k in hyperparameters(find(name))}, **SMALL.get(name, {})},
    )
    fresh.load_state_dict(state)
    assert train(fresh, 3, first=3) == expected[3:]
    for k, v in whole.state_dict().items():
        assert torch.equal(fresh.state_dict()[k], v), k


@pytest.mark.parametrize("name", FINETUNE)
def test_views_exist_and_logs_are_detached_scalars(name):
    objective = lively(name)
    assert set(objective.labeled_views.values()) | set(objective.unlabeled_views.values()) <= set(VIEWS)
    out = objective(make_batch(objective), 0.1)
    assert out["loss"].requires_grad and out["loss"].dtype == torch.float32
    assert all(v.dim() == 0 and not v.requires_grad for k, v in out.items() if k != "loss")


@pytest.mark.parametrize("name", ["mean-teacher", "fixmatch-eman", "self-tuning", "sscl"])
def test_methods_that_need_a_teacher_say_so(name):
    with pytest.raises(UserError, match="ema_decay of .* is 0.0. It must be above 0 and below 1"):
        build(name, ema_decay=0.0)


@pytest.mark.parametrize("name", FINETUNE)
def test_running_statistics_of_batchnorm_come_from_one_pass(name):
    """Adversarial, guessing, mixing and labeled-only passes leave them alone."""
    objective = build(name, model=TinyModel(norm=True), **SMALL.get(name, {}))
    for times, joint in enumerate([True, False][: 1 + hasattr(objective, "concat_weak")], 1):
        objective.concat_weak = joint
        objective(make_batch(objective), 0.3)
        assert int(objective.model.body[2].num_batches_tracked) == times


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("name", [n for n in SEMI if hasattr(lively(n), "concat_weak") and n != "fixmatch-eman"])
def test_weak_views_apart(name, norm):
    """Without BatchNorm they are no other loss and cost no backward pass; with it they are, and have to be asked
    for."""
    joint, apart = (lively(name, model=TinyModel(norm=norm)) for _ in range(2))
    assert joint.concat_weak == apart.concat_weak == norm
    joint.concat_weak, apart.concat_weak = True, False
    for o in (joint, apart):
        o.load_state_dict(joint.state_dict())
    batch, trained, losses = make_batch(joint), [], []
    for o in (joint, apart):
        rows: list[int] = []
        hook = o.model.body[1].register_forward_hook(lambda m, inputs, out: rows.append(len(out) * out.requires_grad))
        torch.manual_seed(7)
        loss = o(batch, 0.3)["loss"]
        loss.backward()
        losses.append(loss.item())
        trained.append(sum(rows))
        hook.remove()
    same = [
        torch.allclose(a.grad, b.grad, rtol=1e-3, atol=1e-6)
        for a, b in zip(joint.model.body.parameters(), apart.model.body.parameters(), strict=True)
    ]
    assert trained[0] - trained[1] == len(batch["unlabeled"]["weak"])
    assert all(same) and losses[0] == pytest.approx(losses[1], rel=1e-4) if not norm else not all(same)


@pytest.mark.parametrize("name", SEMI)
def test_a_batch_without_confident_images_is_harmless(name):
    objective = build(name, **{**SMALL.get(name, {}), **({"tau": 1.0} if "tau" in hyperparameters(find(name)) else {})})
    before = copy.deepcopy(objective.model.state_dict())
    losses = train(objective, 3)
    assert all(torch.isfinite(torch.tensor(losses)))
    assert any(not torch.equal(v, before[k]) for k, v in objective.model.state_dict().items())
