"""Every rule against the paper's formulas in float64, over several steps, with images that come twice in a batch."""

import numpy as np
import pytest
import torch
from finetuning_stand_in import K, array, norm, sharp, softmax

from hf_lowlabel.finetuning.weights import Ada, Fixed, Flex, Free, Prior, Soft, Uda
from hf_lowlabel.once_per_step import OncePerStep

N, M, B, STEPS = 12, 9, 6, 25


def stream(seed=0, scale=3.0):
    """(p, index, p_labeled) of a few steps; an image comes more than once in a batch."""
    g = torch.Generator().manual_seed(seed)
    for _ in range(STEPS):
        p = (scale * torch.randn(M, K, generator=g)).softmax(1)
        yield p, torch.randint(N, (M,), generator=g), (scale * torch.randn(B, K, generator=g)).softmax(1)


def test_fixed():
    for p, index, p_l in stream():
        target, w = Fixed(tau=0.8)(p, index, p_l, 0.0)
        assert np.array_equal(target, array(p).argmax(1))
        assert np.array_equal(w, (array(p).max(1) >= 0.8).astype(float))


def test_flex_against_a_loop_over_the_pool():
    rule, chosen, used = Flex(num_classes=K, num_images=N, tau=0.8), [-1] * N, []
    for p, index, p_l in stream():
        target, w = rule(p, index, p_l, 0.0)
        sigma = np.array([sum(c == k for c in chosen) for k in range(K)])
        beta = sigma / max(sigma.max(), N - sigma.sum())
        threshold = 0.8 * beta / (2 - beta)
        expected = [float(q.max() >= threshold[q.argmax()]) for q in array(p)]
        assert w.tolist() == expected
        assert np.array_equal(target, array(p).argmax(1))
        rule.advance()
        used.append(w.mean())
        for i, q in zip(index.tolist(), array(p), strict=True):
            if q.max() >= 0.8:
                chosen[i] = q.argmax()
        assert rule.last.tolist() == chosen
        assert rule.count.tolist() == [chosen.count(-1), *(chosen.count(k) for k in range(K))]
    assert used[0] == 1 and min(used) < 1  # thresholds rise from 0


def test_free():
    rule = Free(num_classes=K, m=0.9, lambda_f=0.05)
    tau, p_mean, h_mean = 1 / K, np.full(K, 1 / K), np.full(K, 1 / K)
    g = torch.Generator().manual_seed(5)
    for p, index, p_l in stream():
        target, w = rule(p, index, p_l, 0.0)
        q = array(p)
        tau = 0.9 * tau + 0.1 * q.max(1).mean()
        p_mean = 0.9 * p_mean + 0.1 * q.mean(0)
        h_mean = 0.9 * h_mean + 0.1 * np.bincount(q.argmax(1), minlength=K) / M
        expected = q.max(1) >= (tau * p_mean / p_mean.max())[q.argmax(1)]
        assert np.array_equal(w, expected.astype(float))
        logits = torch.randn(M, K, generator=g)
        s = softmax(array(logits))[expected]
        hist = np.bincount(s.argmax(1), minlength=K) / M
        ratio = np.divide(s.sum(0) / M, hist, out=np.zeros(K), where=hist > 0)
        a, b = p_mean / h_mean, ratio
        fairness = 0.05 * (a / a.sum() * np.log(b / b.sum() + 1e-12)).sum()
        np.testing.assert_allclose(rule.penalty(logits, w), fairness, rtol=1e-4)
        rule.advance()
    assert float(rule.penalty(logits, torch.zeros(M))) == 0.0


def test_free_without_confident_images_has_a_finite_gradient():
    rule, logits = Free(num_classes=K), torch.randn(M, K, requires_grad=True)
    rule.penalty(logits, torch.zeros(M)).backward()
    assert torch.equal(logits.grad, torch.zeros(M, K))


def test_free_survives_a_class_that_is_never_predicted():
    """Its share of the histogram shrinks by m in every step, in the end below what a ratio can hold."""
    rule, logits = Free(num_classes=K), torch.randn(M, K, requires_grad=True)
    for smallest in (1e-42, 0.0):
        rule.h_mean[0] = smallest
        rule.penalty(logits, torch.ones(M)).backward()
        assert logits.grad.isfinite().all()


def test_soft():
    rule = Soft(num_classes=K, m=0.9, n=2.0)
    mu, var, p_mean = 1 / K, 1.0, np.full(K, 1 / K)
    for p, index, p_l in stream():
        target, w = rule(p, index, p_l, 0.0)
        q = array(p)
        p_mean = 0.9 * p_mean + 0.1 * q.mean(0)
        confidence = norm(q / p_mean).max(1)
        mu = 0.9 * mu + 0.1 * confidence.mean()
        var = 0.9 * var + 0.1 * confidence.var(ddof=1)
        expected = np.where(confidence < mu, np.exp(-((confidence - mu) ** 2) / (2 * var / 4)), 1.0)
        np.testing.assert_allclose(w, expected, rtol=2e-4)
        assert np.array_equal(target, q.argmax(1))
        rule.advance()


def test_ada():
    """The labeled mean is an average over steps, the unlabeled one that of the last four, 1 / K before the first."""
    rule = Ada(num_classes=K, tau=0.9, m=0.9, memory=4)
    q_l, q_u = np.full(K, 1 / K), [np.full(K, 1 / K)] * 4
    for p, index, p_l in stream():
        target, w = rule(p, index, p_l, 0.0)
        q_l, q_u = 0.9 * q_l + 0.1 * array(p_l).mean(0), [*q_u[1:], array(p).mean(0)]
        aligned = norm(array(p) * q_l / np.mean(q_u, 0))
        assert np.array_equal(target, aligned.argmax(1))
        assert np.array_equal(w, (aligned.max(1) >= 0.9 * array(p_l).max(1).mean()).astype(float))
        for memory in (rule, rule.seen):
            memory.advance()


def test_uda_masks_by_the_prediction_before_sharpening():
    p = torch.tensor([[0.7, 0.2, 0.1], [0.85, 0.1, 0.05]])
    target, w = Uda(temperature=0.4, tau=0.8)(p, None, None, 0.0)
    np.testing.assert_allclose(target, sharp(array(p), 0.4), rtol=1e-5)
    assert target[0].max() > 0.8 and w.tolist() == [0.0, 1.0]


@pytest.mark.parametrize("inner", [Fixed(tau=0.6), Uda(tau=0.6), Flex(num_classes=K, num_images=N, tau=0.6)])
def test_prior_speaks_until_its_time_is_over(inner):
    import copy

    priors = torch.rand(N, K).pow(3)
    priors = priors / priors.sum(1, keepdim=True)
    rule, plain = Prior(copy.deepcopy(inner), priors, until=0.5), copy.deepcopy(inner)
    differed = False
    for step, (p, index, p_l) in enumerate(stream(scale=1.0)):
        t = step / STEPS
        posterior = norm(array(priors)[index] + array(p)) if t <= 0.5 else array(p)
        expected = plain(torch.tensor(posterior).float(), index, p_l, t)
        for mine, theirs in zip(rule(p, index, p_l, t), expected, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)
        rule.rule.advance()
        plain.advance()
        differed |= not np.array_equal(posterior.argmax(1), array(p).argmax(1))
    assert differed


@pytest.mark.parametrize(
    "make",
    [
        lambda: Fixed(),
        lambda: Uda(),
        lambda: Free(num_classes=K),
        lambda: Soft(num_classes=K),
        lambda: Ada(num_classes=K),
    ],
)
def test_pixels_are_judged_like_images(make):
    """[M, K, H, W] gives what [M H W, K] gives."""
    p, p_l = torch.randn(2, K, 3, 4).mul(3).softmax(1), torch.randn(2, K, 3, 4).mul(3).softmax(1)
    flat = lambda x: x.movedim(1, -1).reshape(-1, K)  # noqa: E731
    (target, w), (target_f, w_f) = make()(p, None, p_l, 0.0), make()(flat(p), None, flat(p_l), 0.0)
    torch.testing.assert_close(w.flatten(), w_f)
    torch.testing.assert_close(flat(target) if target.is_floating_point() else target.flatten(), target_f)


def test_a_prediction_that_is_nan_leaves_no_trace_in_the_table():
    rule = Flex(num_classes=K, num_images=N)
    p, index, p_l = next(stream())
    before = {k: v.clone() for k, v in rule.state_dict().items()}
    rule(torch.full_like(p, torch.nan), index, p_l, 0.0)
    rule.advance()
    assert all(torch.equal(v, before[k]) for k, v in rule.state_dict().items())


@pytest.mark.parametrize("make", [Flex, Free, Soft, Ada, lambda **k: Prior(Ada(num_classes=K), torch.eye(K)[:N])])
def test_a_loop_of_ones_own_moves_a_rule_at_the_end_of_a_step(make):
    """All buffers of the rule, of a rule in it and of its averages; never before, and nothing is kept for later."""
    rule = make(num_classes=K, **({"num_images": N} if make is Flex else {}))
    p = torch.eye(K)[torch.arange(M) % K] * 0.99 + 0.01 / K
    start = {k: v.clone() for k, v in rule.named_buffers() if k != "priors"}
    for _ in range(3):  # even at the same t
        before = {k: v.clone() for k, v in rule.named_buffers()}
        _, weight = rule(p, torch.arange(M) % K, p[:2], 0.5)
        assert rule.penalty(p.log(), weight).dim() == 0
        assert all(torch.equal(v, before[k]) for k, v in rule.named_buffers())
        rule.end_step()
        assert not any(m._parts for m in rule.modules() if isinstance(m, OncePerStep))
    assert {k for k, v in rule.named_buffers() if k in start and not torch.equal(v, start[k])} == set(start)
