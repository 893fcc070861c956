import numpy as np
import pytest
import torch
from finetuning_stand_in import TinyModel, Twin, array, build, make_batch, unit

from hf_lowlabel.finetuning.functional import frozen_statistics, kl, predict
from hf_lowlabel.finetuning.vat import adversarial_direction


def sharpest(net, x):
    """The unit direction in which KL(p(x) || p(x + r)) grows fastest: top eigenvector of J^T (diag p - p p^T) J, by
    numpy."""
    out = []
    for f, p in zip(net.features(x), net.p(x), strict=True):
        J = (net.V * (1 - f**2)) @ net.W
        out.append(np.linalg.eigh(J.T @ (np.diag(p) - np.outer(p, p)) @ J)[1][:, -1])
    return np.stack(out)


@pytest.mark.parametrize("rounds,xi,least", [(1, 1e-2, 0.5), (6, 1e-2, 0.98), (30, 1e-2, 0.999)])
def test_power_iteration_finds_the_sharpest_direction(rounds, xi, least):
    torch.manual_seed(0)
    model, x = TinyModel(), make_batch(build("vat"), M=16)["unlabeled"]["weak"]
    (logits,) = predict(model, x)
    d = adversarial_direction(model, x[:2], x, logits.detach().softmax(1), xi, rounds)
    torch.testing.assert_close(d.flatten(1).norm(dim=1), torch.ones(16))
    cosine = np.abs((unit(array(d).reshape(16, -1)) * sharpest(Twin(model), x)).sum(1))
    assert np.median(cosine) > least


def test_a_step_of_1e_6_would_be_noise():
    torch.manual_seed(0)
    model, x = TinyModel(), make_batch(build("vat"), M=16)["unlabeled"]["weak"]
    (logits,) = predict(model, x)
    find = lambda xi: adversarial_direction(model, x[:2], x, logits.detach().softmax(1), xi, 30).flatten(1)  # noqa: E731
    assert (find(1e-2) * find(1e-3)).sum(1).abs().median() > 0.99
    assert (find(1e-2) * find(1e-6)).sum(1).abs().median() < 0.9


def test_no_change_means_no_loss_with_batchnorm():
    """The clean and the adversarial pass normalise by batches of the same images: at r = 0 they agree exactly."""
    for seed in range(3):
        torch.manual_seed(seed)
        objective = build("vat", model=TinyModel(norm=True))
        objective.eps = 0.0
        assert float(objective(make_batch(objective, seed), 0.5)["consistency"]) < 1e-6
        objective.eps = 2.0
        assert float(objective(make_batch(objective, seed), 0.5)["consistency"]) > 1e-4


@pytest.mark.parametrize("name, length", [("vat", 6 / 32), ("moam", 71 / 224)])
def test_the_change_grows_with_the_side_of_the_image(name, length):
    """6 at 32 px is 3 at 16 px: the same change of a pixel."""
    usual = build(name)
    batch = make_batch(usual)
    set_by_hand = build(name, eps=length * batch["unlabeled"]["weak"].shape[-1])
    losses = []
    for objective in (usual, set_by_hand):
        torch.manual_seed(0)
        losses.append(float(objective(batch, 0.5)["consistency"]))
    assert losses[0] == losses[1] > 0


def test_statistics_stay_and_come_back():
    model = TinyModel(norm=True)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    x = make_batch(build("vat"))["unlabeled"]["weak"]
    with frozen_statistics(model):
        frozen = model(x).logits
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    torch.testing.assert_close(frozen, model(x).logits)  # the same normalisation, by the batch
    assert not torch.equal(model.body[2].running_mean, before["body.2.running_mean"])


def test_runs_in_float32_whatever_the_precision():
    objective, plain = build("vat"), build("vat")
    batch = make_batch(objective)
    torch.manual_seed(0)
    expected = plain(batch, 0.5)
    torch.manual_seed(0)
    with torch.autocast("cpu", torch.bfloat16):
        out = objective(batch, 0.5)
    assert torch.equal(out["consistency"], expected["consistency"])


def test_kl_of_one_hot_is_cross_entropy():
    z = torch.randn(4, 5)
    p = torch.eye(5)[[0, 1, 2, 3]]
    torch.testing.assert_close(kl(p, z), torch.nn.functional.cross_entropy(z, torch.arange(4), reduction="none"))
