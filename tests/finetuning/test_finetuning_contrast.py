"""The loss of every method with embeddings and memories, step after step, against float64 numpy written from the
papers."""

import math

import numpy as np
import pytest
import torch
from finetuning_stand_in import LABELED, K, array, build, ce, linear, log_softmax, mlp2, norm, parts, run, softmax, unit

from hf_lowlabel.finetuning.functional import products
from hf_lowlabel.finetuning.less import assignments


def z_of(projector, net, x):
    return unit(mlp2(projector, net.features(x)))


@pytest.mark.parametrize("teacher_on", [False, True])
def test_simmatch(teacher_on):
    bank, owner, seen, used = {}, {}, [], []

    def reference(o, net, teacher, batch, t):
        x, y, w, s = parts(batch, "weak", "strong")
        source = teacher if teacher_on else net
        head = o.teacher_projector.module if teacher_on else o.projector
        z_l, z_w, z_s = z_of(head, source, x), z_of(head, source, w), z_of(o.projector, net, s)
        old = dict(bank)
        for i, z, c in zip(batch["labeled"]["index"].tolist(), z_l, y, strict=True):
            bank[i] = unit((0.7 * old[i] + 0.3 * z)[None])[0] if i in old else z
            owner[i] = c
        p = source.p(w)
        seen.append(p.mean(0))
        p = norm(p * (1 + 1e-6) / (np.mean(seen[-3:], 0) + 1e-6))
        if not old:
            used.append(0)
            return ce(net.logits(x), y).mean() + 1.5 * ((p.max(1) >= 0.6) * ce(net.logits(s), p)).mean()
        used.append(1)
        v = np.stack([old[i] for i in sorted(old)])
        c = np.array([owner[i] for i in sorted(old)])  # of the bank before the step
        q = softmax(z_w @ v.T / 0.1)
        unfolded = norm(q * p[:, c])
        target = 0.9 * p + 0.1 * q @ np.eye(K)[c]
        mask = target.max(1) >= 0.6
        instance = -(unfolded * log_softmax(z_s @ v.T / 0.1)).sum(1).mean()
        return ce(net.logits(x), y).mean() + 1.5 * (mask * ce(net.logits(s), target)).mean() + 2 * instance

    objective = run("simmatch", reference, teacher=teacher_on, memory=3, tau=0.6, lambda_u=1.5, lambda_in=2.0, width=7)
    assert (
        used == [0, 1, 1, 1, 1]
        and len(bank) <= LABELED
        and sorted(bank) == [i for i, c in enumerate(objective.label.tolist()) if c >= 0]
    )


@pytest.mark.parametrize(
    "name, arguments, slow",
    [
        ("simmatch", dict(teacher=True), "teacher_projector"),
        ("self-tuning", {}, "key_projector"),
        ("sscl", {}, "key_projector"),
    ],
)
def test_the_averaged_projector_follows_with_the_averaged_network(name, arguments, slow):
    objective = build(name, **arguments)
    with torch.no_grad():
        for p in objective.projector.parameters():
            p.add_(1.0)
    average = getattr(objective, slow)
    before = [p.clone() for p in average.parameters()]
    objective.after_step(0.5)
    assert objective.train().ema.training == (name != "simmatch")  # SimMatch's normalises by averaged statistics
    for b, p, q in zip(before, average.parameters(), objective.projector.parameters(), strict=True):
        torch.testing.assert_close(p, torch.lerp(q.detach(), b, objective.momentum))


def test_comatch():
    store, seen = [], []

    def reference(o, net, teacher, batch, t):
        x, y, w, s, s2 = parts(batch, "weak", "strong", "strong2")
        p = net.p(w)
        seen.append(p.mean(0))
        p = norm(p * (1 + 1e-6) / (np.mean(seen[-2:], 0) + 1e-6))
        z_l, z_w, z_1, z_2 = (z_of(o.projector, net, v) for v in (x, w, s, s2))
        q = p
        if len(store) >= 16:
            z, m = (np.stack(v) for v in zip(*store[-16:], strict=True))
            q = 0.9 * p + 0.1 * softmax(z_w @ z.T / 0.2) @ m
        store.extend(zip([*z_w, *z_l], [*p, *np.eye(K)[y]], strict=True))
        mask, Q = q.max(1) >= 0.6, q @ q.T
        np.fill_diagonal(Q, 1)
        Q = norm(Q * (Q >= 0.4))
        graph = -(Q * log_softmax(z_1 @ z_2.T / 0.2)).sum(1).mean()
        return ce(net.logits(x), y).mean() + 1.5 * (mask * ce(net.logits(s), q)).mean() + 2 * graph

    run("comatch", reference, bank=16, memory=2, tau=0.6, edge=0.4, lambda_u=1.5, lambda_c=2.0, width=7)
    assert len(store) > 16


def test_comatch_with_a_momentum_encoder_and_a_queue_of_strong_keys():
    """The authors' imagenet/Model.py: smoothing, the weight of the graph and the momentum depend on the pass."""
    store, strong, seen = [], [], []

    def reference(o, net, teacher, batch, t):
        x, y, w, s, s2 = parts(batch, "weak", "strong", "strong2")
        head = o.teacher_projector.module
        p = teacher.p(w)
        seen.append(p.mean(0))
        p = norm(p * (1 + 1e-6) / (np.mean(seen[-2:], 0) + 1e-6))
        z_l, z_w, z_2 = (z_of(head, teacher, v) for v in (x, w, s2))
        z_1, q = z_of(o.projector, net, s), p
        if len(store) >= 16 and t * 4 >= 1:
            z, m = (np.stack(v) for v in zip(*store[-16:], strict=True))
            q = 0.9 * p + 0.1 * softmax(z_w @ z.T / 0.2) @ m
        store.extend(zip([*z_w, *z_l], [*p, *np.eye(K)[y]], strict=True))
        Q, keys = q @ q.T, z_2
        np.fill_diagonal(Q, 1)
        if strong:
            z, m = (np.stack(v) for v in zip(*strong[-16:], strict=True))
            Q, keys = np.concatenate([Q, q @ m.T], 1), np.concatenate([z_2, z])
        strong.extend(zip(z_2, q, strict=True))
        Q = norm(Q * (Q >= 0.4))
        graph = -(Q * log_softmax(z_1 @ keys.T / 0.2)).sum(1).mean()
        unlabeled = 1.5 * ((q.max(1) >= 0.6) * ce(net.logits(s), q)).mean()
        return ce(net.logits(x), y).mean() + unlabeled + min(int(t * 4) + 1, 1.5) * graph

    small = dict(bank=16, memory=2, tau=0.6, edge=0.4, lambda_u=1.5, lambda_c=1.5, width=7, ema_decay=0.5)
    objective = run("comatch", reference, teacher=True, passes=4, **small)
    assert len(store) > 16 and objective.momentum == 0.5
    objective.first_pass = True
    assert objective.momentum == 0.99


def test_self_tuning():
    queues = [[] for _ in range(K)]

    def reference(o, net, teacher, batch, t):
        (l, u), y = (batch["labeled"], batch["unlabeled"]), array(batch["labeled"]["target"])
        q = [unit(linear(o.projector, net.features(v))) for v in (l["image"], u["strong"])]
        k = [unit(linear(o.key_projector.module, teacher.features(v))) for v in (l["strong2"], u["strong2"])]
        labels = [y, net.p(u["strong"]).argmax(1)]

        def contrast(q, k, label):
            total = []
            for a, own, c in zip(q, k, label, strict=True):
                positives = [own, *queues[c][-3:]]
                everyone = [own, *(v for queue in queues for v in queue[-3:])]
                log_sum = math.log(sum(math.exp(a @ v / 0.07) for v in everyone))
                total.append(-sum(a @ v / 0.07 - log_sum for v in positives) / len(positives))
            return np.mean(total)

        cost = 0.0
        for weight, query, keys, label in zip((1, 1.5), q, k, labels, strict=True):
            cost += weight * contrast(query, keys, label)
            for v, c in zip(keys, label, strict=True):  # unlabeled images meet the labeled keys of their step
                queues[c].append(v)
        return ce(net.logits(l["image"]), y).mean() + cost

    objective = run("self-tuning", reference, queue=3, width=7, lambda_u=1.5)
    assert max(map(len, queues)) > 3
    head = {id(p) for p in objective.param_groups()["head"]}
    assert head == {
        id(p) for p in objective.model.head.parameters()
    }  # 10 times the rate: the classifier, not the projector


def test_sscl():
    proto, similar, keys, labeled, seen = np.zeros((K, 7)), [], [], [[] for _ in range(K)], []

    def reference(o, net, teacher, batch, t):
        x, y, w, s, index = parts(batch, "weak", "strong", "index")
        index = index.tolist()
        v_l, v_w, v_s = (z_of(o.projector, net, v) for v in (x, w, s))
        k_l, k_u = (z_of(o.key_projector.module, teacher, v) for v in (x, w))
        p = net.p(w)
        c = p.argmax(1)
        same = y[:, None] == c[None]
        partner = (array(torch.rand(same.shape)) * same).argmax(1)  # Eq. 4, with the method's own draws
        lam = array(torch._sample_dirichlet(torch.full((len(y), 2), 1.0)))[:, 0][:, None, None, None]
        mixed = z_of(o.projector, net, lam * array(x) + (1 - lam) * array(w)[partner])
        for k in range(K):
            members = [v for v, label in zip(v_l, y, strict=True) if label == k]
            members += [v for v, label, m in zip(mixed, y, same, strict=True) if label == k and m.any()]
            if members:
                fresh = unit(np.sum(members, 0)[None])[0]
                proto[k] = 0.9 * proto[k] + 0.1 * fresh if proto[k].any() else fresh
        length = np.maximum(np.linalg.norm(proto, axis=1, keepdims=True), 1e-12)
        cosine = v_w @ (proto / length).T
        similar.append(softmax(5 * cosine).mean(0))
        p = norm(p * np.mean(similar[-2:], 0))
        mask = p.max(1) >= 0.6
        contrast = []
        for i in range(len(w)):
            s_n = [v_s[i] @ k for j, k in keys[-10:] if j != index[i]]
            seen.append(len(keys[-10:]) - len(s_n))
            alpha = max(0, cosine[i, c[i]])
            pulls = [math.exp(-5 * v_s[i] @ k_u[i])] + [math.exp(-5 * alpha * v_s[i] @ k) for k in labeled[c[i]][-2:]]
            contrast.append(math.log1p(sum(math.exp(5 * (n - 0.25)) for n in s_n) * sum(pulls)))
        keys.extend(zip(index, k_u, strict=True))
        for k, label in zip(k_l, y, strict=True):
            labeled[label].append(k)
        return ce(net.logits(x), y).mean() + 1.5 * (mask * ce(net.logits(s), p)).mean() + 2 * np.mean(contrast)

    run("sscl", reference, rtol=5e-4, width=7, memory=2, queue=10, positives=2, tau=0.6, lambda_u=1.5, lambda_ctr=2.0)
    assert len(keys) > 10 and sum(seen) > 3  # keys of an image itself are no negatives


def test_less():
    def reference(o, net, teacher, batch, t):
        x, y, w, s = parts(batch, "weak", "strong")
        e = unit(array(o.centres.weight))
        p, z_w, z_s = net.p(w), z_of(o.projector, net, w), z_of(o.projector, net, s)
        q = np.exp(z_w @ e.T / 0.05)
        for _ in range(3):
            q = q / q.sum(0) / q.shape[1]
            q = q / q.sum(1, keepdims=True) / q.shape[0]
        mask = p.max(1) >= 0.6
        classes = (mask * ce(net.logits(s), p.argmax(1))).mean()
        clusters = (~mask * ce(z_s @ e.T / 0.1, q * len(q))).mean()
        return ce(net.logits(x), y).mean() + 1.5 * (classes + 2 * clusters)

    run("less", reference, tau=0.6, clusters=9, lambda_u=1.5, lambda_c=2.0, width=7)


def test_sinkhorn_fills_clusters_equally_and_rows_sum_to_one():
    q = assignments(torch.randn(64, 8), 0.5, 50)
    torch.testing.assert_close(q.sum(1), torch.ones(64))
    torch.testing.assert_close(q.sum(0), torch.full((8,), 8.0), rtol=1e-3, atol=1e-3)


def test_products_keep_their_digits_under_autocast():
    a, b = torch.randn(5, 64), torch.randn(7, 64)
    with torch.autocast("cpu", torch.bfloat16):
        out, careless = products(a.bfloat16(), b), a @ b.T
    assert careless.dtype == torch.bfloat16
    np.testing.assert_allclose(out, array(a.bfloat16().float()) @ array(b).T, rtol=1e-5, atol=1e-5)
