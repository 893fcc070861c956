"""The losses of multi-label methods, step after step, and the probe, against float64 numpy by the formulas."""

import math

import numpy as np
import pytest
import torch
from finetuning_stand_in import LABELED, STEPS, D, K, TinyModel, Twin, array, make_batch
from sklearn.linear_model import LogisticRegression

from hf_lowlabel.errors import UserError
from hf_lowlabel.finetuning.multilabel import (
    FIXED,
    MultiLabelFixMatch,
    MultiLabelMeanTeacher,
    MultiLabelProbe,
    MultiLabelSupervised,
)
from hf_lowlabel.methods import check_hyperparameters, name_of
from hf_lowlabel.objective import build_objective

TARGETS = (np.random.default_rng(0).random((LABELED, K)) < 0.4).astype(np.float32)


def sigma(z):
    return 1 / (1 + np.exp(-z))


def bce(y, z):
    return -(y * np.log(sigma(z)) + (1 - y) * np.log(1 - sigma(z)))


def run(method, reference, **arguments):
    """Train STEPS steps and compare each loss with reference(model twin, teacher twin, labels, batch, t)."""
    torch.manual_seed(1)
    objective = build_objective(method, TinyModel(), arguments, num_classes=K)
    optimizer = torch.optim.SGD([p for p in objective.parameters() if p.requires_grad], lr=0.1)
    for step in range(STEPS):
        batch, t = make_batch(objective, step), step / (2 * STEPS)
        batch["labeled"]["target"] = torch.from_numpy(TARGETS)[batch["labeled"]["index"]]
        y = array(batch["labeled"]["target"])
        expected = reference(Twin(objective.model), Twin(objective.ema.module), y, batch, t)
        out = objective(batch, t)
        np.testing.assert_allclose(float(out["loss"].detach()), expected, rtol=2e-4, err_msg=f"step {step}")
        optimizer.zero_grad()
        out["loss"].backward()
        optimizer.step()
        objective.after_step(t)
    return out


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("strong", [True, False])
def test_supervised(smoothing, strong):
    def reference(net, teacher, y, batch, t):
        y = y * (1 - smoothing) + smoothing / 2
        views = ("image", "strong") if strong else ("image",)
        return np.mean([bce(y, net.logits(batch["labeled"][view])).mean() for view in views])

    out = run(MultiLabelSupervised, reference, label_smoothing=smoothing, strong=strong)
    assert 0 <= out["train_accuracy"] <= 1


def test_mean_teacher():
    def reference(net, teacher, y, batch, t):
        p, q = sigma(net.logits(batch["unlabeled"]["weak"])), sigma(teacher.logits(batch["unlabeled"]["weak2"]))
        ramp = math.exp(-5 * (1 - min(1, t / 0.3)) ** 2)
        return bce(y, net.logits(batch["labeled"]["image"])).mean() + ramp * 3.0 * ((p - q) ** 2).mean()

    run(MultiLabelMeanTeacher, reference, lambda_u=3.0, ramp=0.3, ema_decay=0.9)


def test_fixmatch_has_thresholds_on_both_sides():
    used = []

    def reference(net, teacher, y, batch, t):
        p, z = sigma(net.logits(batch["unlabeled"]["weak"])), net.logits(batch["unlabeled"]["strong"])
        there, absent = p >= 0.7, p <= 0.2
        used.append((there.mean(), absent.mean()))
        loss = np.where(there | absent, bce(there.astype(float), z), 0)
        return bce(y, net.logits(batch["labeled"]["image"])).mean() + 1.5 * loss.mean()

    out = run(MultiLabelFixMatch, reference, tau=0.7, tau_absent=0.2, lambda_u=1.5)
    assert np.min(used, 0).max() > 0 and np.max(np.sum(used, 1)) < 1  # both sides are used, and not everything is
    assert float(out["mask_ratio"]) == pytest.approx(sum(used[-1]))
    for tau, tau_absent in ((0.5, 0.5), (0.3, 0.6), (0.04, 0.05)):
        with pytest.raises(UserError, match="Give a tau_absent below tau"):
            check_hyperparameters(MultiLabelFixMatch, dict(tau=tau, tau_absent=tau_absent))


def test_pseudo_labels_bring_no_gradient_to_the_weak_view():
    objective = MultiLabelFixMatch(TinyModel(), tau=0.5 + 1e-6, tau_absent=0.5 - 1e-6, lambda_u=1.0)
    batch = make_batch(objective)
    batch["labeled"]["target"] = torch.from_numpy(TARGETS)[batch["labeled"]["index"]]
    batch["unlabeled"]["weak"].requires_grad_()
    objective(batch, 0.0)["loss"].backward()
    assert batch["unlabeled"]["weak"].grad.abs().max() == 0


def test_probe_is_one_logistic_regression_a_class():
    rng = np.random.default_rng(2)
    features = rng.normal(size=(60, D)) * rng.uniform(0.5, 3, D) + rng.normal(size=D)
    labels = np.full((60, K), -1)
    z = features[:30] @ rng.normal(size=(D, K)) + rng.normal(size=(30, K))
    labels[:30] = (z > np.median(z, 0)).astype(int)
    labels[:30, 1], labels[:30, 2] = 1, 0  # all have one class, none has another
    method = MultiLabelProbe(l2=0.5)
    weight, bias = method.head(features.astype(np.float32), labels, num_classes=K)
    p = method.fit_predict(features.astype(np.float32), labels, features.astype(np.float32), num_classes=K)
    x = (features - features.mean(0)) / np.sqrt(features.var(0).sum())
    for k in (0, 3, 4):
        fit = LogisticRegression(C=2.0, max_iter=1000).fit(x[:30], labels[:30, k])
        np.testing.assert_allclose(p[:, k], fit.predict_proba(x)[:, 1], atol=2e-3)
    assert (weight[1] == 0).all() and (bias[1], bias[2]) == (FIXED, -FIXED)
    assert (p[:, 1] > 0.999).all() and (p[:, 2] < 0.001).all()


def test_names():
    named = [name_of(m) for m in (MultiLabelSupervised, MultiLabelMeanTeacher, MultiLabelFixMatch, MultiLabelProbe)]
    assert named == ["supervised", "mean-teacher", "fixmatch", "probe"]

    class BetterMatch(MultiLabelFixMatch):
        pass

    assert name_of(BetterMatch) == "better-match"
