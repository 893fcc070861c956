"""The loss of every method without embeddings, step after step, against float64 numpy written from the papers.

A reference keeps its own memory from the first step on; it is given the weights before the step and the same draws.
"""

import copy
import math

import numpy as np
import pytest
import torch
from finetuning_stand_in import (
    POOL,
    D,
    K,
    TinyModel,
    Twin,
    array,
    build,
    ce,
    linear,
    log_softmax,
    make_batch,
    norm,
    parts,
    run,
    sharp,
    softmax,
    unit,
)

from hf_lowlabel.arguments import ModelArguments
from hf_lowlabel.finetuning import pixels
from hf_lowlabel.finetuning.vat import gaussian_like
from hf_lowlabel.training import setup


def gauss(t, ramp):
    return math.exp(-5 * (1 - min(1, t / ramp)) ** 2)


def kl(p, z):
    return (p * (np.log(np.maximum(p, 1e-300)) - log_softmax(z))).sum(1)


def entropy(z):
    return -(softmax(z) * log_softmax(z)).sum(1)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_supervised(smoothing):
    def reference(o, net, teacher, batch, t):
        x, y = parts(batch)
        y = np.eye(K)[y] * (1 - smoothing) + smoothing / K
        return 0.5 * ce(net.logits(x), y).mean() + 0.5 * ce(net.logits(batch["labeled"]["strong"]), y).mean()

    run("supervised", reference, label_smoothing=smoothing)


def fixmatch(predict, used):
    def reference(o, net, teacher, batch, t):
        x, y, w, s = parts(batch, "weak", "strong")
        p = predict(net, teacher, w)
        mask = p.max(1) >= 0.6
        used.append(mask.mean())
        return ce(net.logits(x), y).mean() + 1.7 * (mask * ce(net.logits(s), p.argmax(1))).sum() / len(mask)

    return reference


@pytest.mark.parametrize("joint", [None, True, False])
def test_fixmatch(joint):
    used = []
    run("fixmatch", fixmatch(lambda net, teacher, x: net.p(x), used), tau=0.6, lambda_u=1.7, concat_weak=joint)
    assert 0 < np.mean(used) < 1


def test_fixmatch_eman_asks_the_teacher():
    used = []
    run("fixmatch-eman", fixmatch(lambda net, teacher, x: teacher.p(x), used), tau=0.6, lambda_u=1.7)
    assert 0 < np.mean(used) < 1


def test_flexmatch():
    chosen = [-1] * POOL

    def reference(o, net, teacher, batch, t):
        x, y, w, s = parts(batch, "weak", "strong")
        p, sigma = net.p(w), np.array([chosen.count(k) for k in range(K)])
        beta = sigma / max(sigma.max(), chosen.count(-1))
        mask = p.max(1) >= (0.6 * beta / (2 - beta))[p.argmax(1)]
        for i, q in zip(batch["unlabeled"]["index"].tolist(), p, strict=True):
            if q.max() >= 0.6:
                chosen[i] = int(q.argmax())
        return ce(net.logits(x), y).mean() + (mask * ce(net.logits(s), p.argmax(1))).mean()

    run("flexmatch", reference, tau=0.6)


def test_freematch():
    memory = dict(tau=1 / K, p=np.full(K, 1 / K), h=np.full(K, 1 / K))

    def reference(o, net, teacher, batch, t):
        x, y, w, s = parts(batch, "weak", "strong")
        p, q = net.p(w), net.p(s)
        memory["tau"] = 0.8 * memory["tau"] + 0.2 * p.max(1).mean()
        memory["p"] = 0.8 * memory["p"] + 0.2 * p.mean(0)
        memory["h"] = 0.8 * memory["h"] + 0.2 * np.bincount(p.argmax(1), minlength=K) / len(p)
        mask = p.max(1) >= (memory["tau"] * memory["p"] / memory["p"].max())[p.argmax(1)]
        hist = np.bincount(q[mask].argmax(1), minlength=K) / len(q)
        b = np.divide((q * mask[:, None]).mean(0), hist, out=np.zeros(K), where=hist > 0)
        a = memory["p"] / memory["h"]
        fair = (a / a.sum() * np.log(b / b.sum() + 1e-12)).sum()
        return ce(net.logits(x), y).mean() + (mask * ce(net.logits(s), p.argmax(1))).mean() + 0.05 * fair

    run("freematch", reference, m=0.8, lambda_f=0.05)


def test_softmatch():
    memory = dict(mu=1 / K, var=1.0, p=np.full(K, 1 / K))

    def reference(o, net, teacher, batch, t):
        x, y, w, s = parts(batch, "weak", "strong")
        p = net.p(w)
        memory["p"] = 0.8 * memory["p"] + 0.2 * p.mean(0)
        c = norm(p / memory["p"]).max(1)
        memory["mu"] = 0.8 * memory["mu"] + 0.2 * c.mean()
        memory["var"] = 0.8 * memory["var"] + 0.2 * c.var(ddof=1)
        weight = np.where(c < memory["mu"], np.exp(-((c - memory["mu"]) ** 2) / (2 * memory["var"] / 4)), 1)
        return ce(net.logits(x), y).mean() + (weight * ce(net.logits(s), p.argmax(1))).mean()

    run("softmatch", reference, m=0.8)


def test_adamatch():
    memory = dict(l=np.full(K, 1 / K), u=[np.full(K, 1 / K)] * 3)

    def reference(o, net, teacher, batch, t):
        x, y, w, s = parts(batch, "weak", "strong")  # without BatchNorm both passes agree: no interpolation to see
        p_l, p = net.p(x), net.p(w)
        memory["l"] = 0.8 * memory["l"] + 0.2 * p_l.mean(0)
        memory["u"] = [*memory["u"][1:], p.mean(0)]
        p = norm(p * memory["l"] / np.mean(memory["u"], 0))
        mask = p.max(1) >= 0.9 * p_l.max(1).mean()
        labeled = 0.5 * ce(net.logits(x), y).mean() + 0.5 * ce(net.logits(batch["labeled"]["strong"]), y).mean()
        mu = 0.5 - math.cos(min(math.pi, 2 * math.pi * t)) / 2
        return labeled + mu * (mask * ce(net.logits(s), p.argmax(1))).mean()

    run("adamatch", reference, m=0.8, memory=3)


def test_adamatch_draws_each_labeled_logit_between_two_normalisations():
    """z' of the labeled images in the batch with all others, z'' in a batch of their own; lambda for every logit."""
    objective = build("adamatch", model=TinyModel(norm=True))
    batch, twin = make_batch(objective), copy.deepcopy(objective.model)
    x, u = torch.cat([batch["labeled"][k] for k in ("image", "strong")]), batch["unlabeled"]
    joint, alone = (array(twin(v).logits)[: len(x)] for v in (torch.cat([x, u["weak"], u["strong"]]), x))
    torch.manual_seed(3)
    share = array(torch.rand(len(x) // 2, 2, K).transpose(0, 1).reshape(-1, K))
    torch.manual_seed(3)
    target, found = array(batch["labeled"]["target"].repeat(2)), float(objective(batch, 0.0)["supervised"])
    assert found == pytest.approx(ce(share * joint + (1 - share) * alone, target).mean(), rel=1e-4)
    assert all(abs(found - ce(z, target).mean()) > 1e-3 for z in (joint, alone))


@pytest.mark.parametrize("tsa", [None, "linear", "log", "exp"])
def test_uda(tsa):
    def reference(o, net, teacher, batch, t):
        x, y, w, s = parts(batch, "weak", "strong")
        p, z = net.p(w), net.logits(x)
        mask, target = p.max(1) >= 0.6, sharp(p, 0.4)
        alpha = {None: 9.0, "linear": t, "log": 1 - math.exp(-5 * t), "exp": math.exp((t - 1) * 5)}[tsa]
        kept = softmax(z)[np.arange(len(y)), y] < alpha * (1 - 1 / K) + 1 / K
        labeled = (ce(z, y) * kept).sum() / max(kept.sum(), 1)
        divergence = kl(target, net.logits(s)) + entropy(np.log(target))  # KL up to a constant of the target
        return labeled + (mask * divergence).mean()

    run("uda", reference, tsa=tsa, tau=0.6)


def test_training_signal_annealing_counts_the_open_images_of_all_processes(monkeypatch):
    objective, logits, target = build("uda", tsa="linear"), torch.zeros(3, K), torch.tensor([0, 1, 2])
    logits[0, 0] = 9.0  # already learned
    alone = float(objective.supervised(logits, {"target": target}, 0.5))
    monkeypatch.setattr(pixels, "all_mean", lambda count: (count + 6) / 2)  # another process has six open ones
    assert alone == pytest.approx(math.log(K)) and float(
        objective.supervised(logits, {"target": target}, 0.5)
    ) == pytest.approx(2 * alone / 4)


def test_pseudo_label():
    def reference(o, net, teacher, batch, t):
        x, y, u = parts(batch, "weak")
        p = net.p(u)
        mask = p.max(1) >= 0.6
        return ce(net.logits(x), y).mean() + min(1, t / 0.3) * 2 * (mask * ce(net.logits(u), p.argmax(1))).mean()

    run("pseudo-label", reference, tau=0.6, lambda_u=2.0, ramp=0.3)


def test_pi_model():
    def reference(o, net, teacher, batch, t):
        x, y, u, v = parts(batch, "weak", "weak2")
        return ce(net.logits(x), y).mean() + gauss(t, 0.3) * 10 * ((net.p(u) - net.p(v)) ** 2).mean()

    run("pi-model", reference, ramp=0.3)


def test_mean_teacher():
    def reference(o, net, teacher, batch, t):
        x, y, u, v = parts(batch, "weak", "weak2")
        return ce(net.logits(x), y).mean() + gauss(t, 0.4) * 50 * ((net.p(u) - teacher.p(v)) ** 2).mean()

    run("mean-teacher", reference)


def test_the_mean_teacher_normalises_by_the_batch_its_student_sees():
    objective = build("mean-teacher", model=TinyModel(norm=True))
    with torch.no_grad():
        for p in objective.ema.parameters():
            p.add_(0.1)
    (x, _, u, v), twin = parts(batch := make_batch(objective), "weak", "weak2"), copy.deepcopy(objective)
    p, q = (
        softmax(array(net(torch.cat([x, w])).logits)[len(x) :]) for net, w in ((twin.model, u), (twin.ema.module, v))
    )
    assert float(objective(batch, 0.5)["consistency"]) == pytest.approx(((p - q) ** 2).mean(), rel=1e-4)


def test_temporal_ensembling():
    Z, visits = np.zeros((POOL, K)), np.zeros(POOL, int)

    def reference(o, net, teacher, batch, t):
        x, y, u = parts(batch, "weak")
        index, p, cost = array(batch["unlabeled"]["index"]), net.p(u), 0.0
        before, times = Z.copy(), visits.copy()
        for i, q in zip(index, p, strict=True):
            if times[i]:
                cost += ((q - before[i] / (1 - 0.6 ** times[i])) ** 2).mean() / len(p)
            Z[i], visits[i] = 0.6 * before[i] + 0.4 * q, times[i] + 1
        return ce(net.logits(x), y).mean() + gauss(t, 0.3) * 30 * cost

    objective = run("temporal-ensembling", reference, ramp=0.3)
    np.testing.assert_allclose(objective.ensemble[:, :K], Z, atol=1e-5)
    assert objective.ensemble[:, K].tolist() == visits.tolist()


def previous():
    table = {}

    def cost(index, p, z):
        before, total = dict(table), 0.0
        for i, q, zi in zip(index.tolist(), p, z, strict=True):
            if i in before:
                total += kl(before[i][None], zi[None])[0] / len(p)
            table[i] = q
        return total

    return cost


def test_temporal_consistency():
    cost = previous()

    def reference(o, net, teacher, batch, t):
        x, y, u = parts(batch, "weak")
        temporal = cost(batch["unlabeled"]["index"], net.p(u), net.logits(u))
        return ce(net.logits(x), y).mean() + min(1, t / 0.3) * 2 * temporal

    run("temporal-consistency", reference, ramp=0.3, lambda_u=2.0)


def test_self_training():
    """Phase two of the alternating optimisation is share 0.5 without labels; images with a row of zeros take no
    part."""
    pseudo = torch.randn(POOL, K).softmax(1)
    pseudo[::3] = 0
    seen = {}

    def reference(o, net, teacher, batch, t):
        x, y, u = parts(batch, "weak")
        loss = 0.0
        for i, p, z in zip(batch["unlabeled"]["index"].tolist(), net.p(u), net.logits(u), strict=True):
            if pseudo[i].sum() > 0:
                agree = kl(seen[i][None], z[None])[0] if i in seen else 0.0
                loss += (
                    (0.7 * ce(z[None], array(pseudo[i])[None])[0] + 0.3 * agree)
                    / len(u)
                    / (array(pseudo).sum(1) > 0).mean()
                )
        seen.update(zip(batch["unlabeled"]["index"].tolist(), net.p(u), strict=True))
        return 0.5 * ce(net.logits(x), y).mean() + 2 * loss

    run("self-training", reference, priors=pseudo, share=0.3, lambda_l=0.5, lambda_u=2.0)


def test_self_training_remembers_no_predictions_that_have_no_weight():
    def reference(o, net, teacher, batch, t):
        x, y, u, index = parts(batch, "weak", "index")
        return ce(net.logits(x), y).mean() + ce(net.logits(u), array(o.priors[index])).mean()

    objective = run("self-training", reference)
    assert "priors" in objective.state_dict() and not any("previous" in k for k in objective.state_dict())


@pytest.mark.parametrize("shares", [(0.3, 0.0), (0.0, 0.3), (0.3, 0.3)])
def test_self_training_starts_from_a_checkpoint_with_predictions_or_without(shares, monkeypatch):
    """They are of the images of that run: one of another `share`, or from an earlier version, fits too."""
    other, own = (build("self-training", share=share) for share in shares)
    monkeypatch.setattr(setup, "load_objective", lambda path: {k: v + 1 for k, v in other.state_dict().items()})
    before = {k: v.clone() for k, v in own.state_dict().items()}
    setup.start_from(own, ModelArguments(init_from="checkpoint"))
    for k, v in own.state_dict().items():
        assert torch.equal(v, before[k] if k in ("priors", "previous.table") else before[k] + 1), k


def adversary(net, x, xi, eps, copies=1):
    """x + r after one round of power iteration, by hand: d KL / d x = (p(x + xi d) - p(x)) dz / dx."""
    d, shape = unit(array(gaussian_like(x, copies)).reshape(len(x), -1)), x.shape
    near = array(x) + xi * d.reshape(shape)
    back = (net.p(near) - net.p(x)) @ net.V * (1 - net.features(near) ** 2)
    return array(x) + eps * unit(back @ net.W).reshape(shape)


def test_vat_and_entmin():
    def reference(o, net, teacher, batch, t):
        x, y, u = parts(batch, "weak")
        smooth = kl(net.p(u), net.logits(adversary(net, u, 1e-2, 2.0))).mean()
        return ce(net.logits(x), y).mean() + gauss(t, 0.6) * 0.3 * smooth + 0.5 * entropy(net.logits(u)).mean()

    run("vat-entmin", reference, rtol=2e-3, eps=2.0, entropy=0.5, ramp=0.6)


def mixed(x, y, alpha):
    lam = array(torch._sample_dirichlet(torch.full((len(x), 2), alpha)))[:, 0]
    other = array(torch.randperm(len(x)))
    lam = np.maximum(lam, 1 - lam)
    x = array(x)
    return lam[:, None, None, None] * x + (1 - lam)[:, None, None, None] * x[other], lam[:, None] * y + (1 - lam)[
        :, None
    ] * y[other]


def test_mixmatch():
    def reference(o, net, teacher, batch, t):
        x, y, u, v = parts(batch, "weak", "weak2")
        q = sharp((net.p(u) + net.p(v)) / 2, 0.5)
        xs, ys = mixed(torch.cat([x, u, v]), np.concatenate([np.eye(K)[y], q, q]), 0.75)
        z, n = net.logits(xs), len(y)
        return ce(z[:n], ys[:n]).mean() + min(1, t / 0.3) * 75 * ((softmax(z[n:]) - ys[n:]) ** 2).mean()

    run("mixmatch", reference, ramp=0.3)


def rot(x, k):
    return np.rot90(array(x), k, (2, 3))


def test_remixmatch():
    seen_p, seen_y = [np.full(K, 1 / K)] * 3, []

    def reference(o, net, teacher, batch, t):
        x, y, w, s, s2 = parts(batch, "weak", "strong", "strong2")
        p, y1 = net.p(w), np.eye(K)[y]
        seen_y.append(y1.mean(0))
        q = sharp(norm(p * (np.mean(seen_y[-3:], 0) + 1e-6) / (np.mean(seen_p[-3:], 0) + 1e-6)), 0.5)
        seen_p.append(p.mean(0))  # after its own step
        xs, ys = mixed(torch.cat([x, s, s2, w]), np.concatenate([y1, q, q, q]), 0.75)
        r = array(torch.randint(4, (len(q),)))
        turned = np.stack([rot(s[i : i + 1], k)[0] for i, k in enumerate(r)])
        z, n, a = net.logits(xs), len(y), min(1, t / 0.3)
        rotation = ce(linear(o.turn, net.features(turned)), r).mean()
        return (
            ce(z[:n], ys[:n]).mean()
            + a * 1.5 * ce(z[n:], ys[n:]).mean()
            + a * 0.6 * ce(net.logits(s), q).mean()
            + 0.5 * rotation
        )

    run("remixmatch", reference, ramp=0.3, memory=3, lambda_1=0.6)


def rotations(o, net, x):
    return np.mean([ce(linear(o.turn, net.features(rot(x, k))), np.full(len(x), k)).mean() for k in range(4)])


def test_s4l_rotation():
    def reference(o, net, teacher, batch, t):
        x, y, u = parts(batch, "weak")
        labeled = np.mean([ce(net.logits(rot(x, k)), y).mean() for k in range(4)])
        return labeled + 1.3 * (rotations(o, net, x) + rotations(o, net, u)) / 2

    run("s4l-rotation", reference, lambda_u=1.3)


def test_s4l_exemplar():
    def triplets(o, net, views, index):  # an image that is twice in the batch is one image
        z = np.concatenate([unit(linear(o.projector, net.features(v))) for v in views])
        image, cost = np.tile(index, len(views)), []
        for a in range(len(z)):
            far = np.linalg.norm(z - z[a], axis=1)
            same = image == image[a]
            cost.append(math.log1p(math.exp(far[same].max() - far[~same].min())))
        return np.mean(cost)

    def reference(o, net, teacher, batch, t):
        y = array(batch["labeled"]["target"])
        views = [[batch[part][k] for k in ("image", "view2", "view3")] for part in ("labeled", "unlabeled")]
        labeled = np.mean([ce(net.logits(v), y).mean() for v in views[0]])
        both = [triplets(o, net, v, array(batch[part]["index"])) for v, part in zip(views, ("labeled", "unlabeled"))]
        return labeled + 1.3 * sum(both) / 2

    run("s4l-exemplar", reference, lambda_u=1.3, instances=3, width=7)


def test_moam():
    def reference(o, net, teacher, batch, t):
        x, y, u = parts(batch, "weak")
        labeled = np.mean([ce(net.logits(rot(x, k)), y).mean() for k in range(4)])
        turned = torch.cat([u.rot90(k, (2, 3)) for k in range(4)])
        smooth = kl(net.p(turned), net.logits(adversary(net, turned, 1e-2, 2.0, copies=4))).mean()
        free = (
            0.7 * (rotations(o, net, x) + rotations(o, net, u)) / 2
            + 0.3 * smooth
            + 0.2 * entropy(net.logits(turned)).mean()
        )
        return 0.3 * labeled + 1.3 * free

    run("moam", reference, rtol=2e-3, lambda_u=1.3, w_sup=0.3, w_ent=0.2, eps=2.0)


def test_references_are_of_the_network():
    """The twin is the network: otherwise every comparison above would be empty."""
    objective = build("fixmatch")
    x = make_batch(objective)["labeled"]["image"]
    np.testing.assert_allclose(Twin(objective.model).logits(x), array(objective.model(x).logits), rtol=1e-4, atol=1e-6)
    assert objective.model.num_features == D
