"""Equality with lightly's losses, where lightly is installed."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from hf_lowlabel.pretraining.byol import byol_loss
from hf_lowlabel.pretraining.contrast import info_nce
from hf_lowlabel.pretraining.dino import cross_view_entropy
from hf_lowlabel.pretraining.simclr import nt_xent
from hf_lowlabel.pretraining.simsiam import negative_cosine
from hf_lowlabel.pretraining.vicreg import covariance, variance

loss = pytest.importorskip("lightly.loss")


@pytest.fixture
def two_views():
    g = torch.Generator().manual_seed(0)
    return torch.randn(16, 8, generator=g), torch.randn(16, 8, generator=g)


def close(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


def test_simclr(two_views):
    for tau in (0.5, 0.1):
        z = F.normalize(torch.cat(two_views), dim=1)
        close(nt_xent(z, tau), loss.NTXentLoss(temperature=tau)(*two_views))


def test_simsiam_and_byol(two_views):
    theirs = loss.NegativeCosineSimilarity()(*two_views)
    close(negative_cosine(*two_views).mean(), theirs)
    close(byol_loss(*two_views).mean(), 2 + 2 * theirs)


def test_moco(two_views):
    q, k = two_views
    theirs = loss.NTXentLoss(temperature=0.2, memory_bank_size=(32, 8))
    expected = theirs(q, k)  # without gradient the bank stays as it is
    bank = theirs.memory_bank.bank
    close(info_nce(F.normalize(q, dim=1), F.normalize(k, dim=1), bank, 0.2), expected)


def test_vicreg(two_views):
    a, b = two_views
    ours = 25 * F.mse_loss(a, b) + 25 * (variance(a) + variance(b)) / 2 + covariance(a) + covariance(b)
    close(ours, loss.VICRegLoss()(a, b))


def test_dino(two_views):
    g = torch.Generator().manual_seed(1)
    teacher, student = list(two_views), [torch.randn(16, 8, generator=g) for _ in range(4)]
    theirs = loss.DINOLoss(output_dim=8, teacher_temp=0.07, student_temp=0.1)
    theirs.center += 0.1
    p, q = [((o - 0.1) / 0.07).softmax(1) for o in teacher], [(o / 0.1).log_softmax(1) for o in student]
    close(cross_view_entropy(p, q), theirs(teacher, student, teacher_temp=0.07))
