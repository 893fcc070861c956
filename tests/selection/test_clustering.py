"""K-means, its constrained form and neighbours, against the definitions in float64."""

import importlib.util

import numpy as np
import pytest

from hf_lowlabel.errors import UserError
from hf_lowlabel.evaluation.neighbors import neighbours, unit
from hf_lowlabel.selection import clustering
from hf_lowlabel.selection.clustering import (
    clusters_per_class,
    constrained_kmeans,
    kmeans,
    lloyd,
    nearest,
)

from .conftest import blobs

BACKENDS = [
    "torch",
    "scikit-learn",
    pytest.param(
        "faiss", marks=pytest.mark.skipif(not importlib.util.find_spec("faiss"), reason="faiss is not installed")
    ),
]


def squared_distances(a, b):
    return ((a[:, None].astype(np.float64) - b[None].astype(np.float64)) ** 2).sum(-1)


@pytest.mark.parametrize("on", BACKENDS)
def test_result_is_a_fixed_point_of_the_definition(on):
    x, _ = blobs(6, 40, 12, spread=0.3)
    found = kmeans(x, 6, seed=3, iterations=200, on=on)
    d = squared_distances(x, found.centres)
    assert (found.assigned == d.argmin(1)).all()
    assert found.inertia == pytest.approx(d.min(1).sum(), rel=1e-4)
    for k in range(6):
        np.testing.assert_allclose(found.centres[k], x[found.assigned == k].astype(np.float64).mean(0), atol=1e-5)


@pytest.mark.parametrize("on", BACKENDS)
def test_separate_blobs_are_found_and_a_seed_gives_one_result(on):
    x, y = blobs(5, 25, spread=0.05)
    found, again = (kmeans(x, 5, seed=1, on=on) for _ in range(2))
    assert all(len(np.unique(found.assigned[y == c])) == 1 for c in range(5)) and len(np.unique(found.assigned)) == 5
    assert (found.centres == again.centres).all() and (found.assigned == again.assigned).all()


def test_seeds_start_elsewhere():
    x = np.random.default_rng(0).standard_normal((300, 5)).astype(np.float32)
    assert len({kmeans(x, 7, seed=s, iterations=3, on="torch").inertia for s in range(4)}) == 4


def test_many_clusters_start_at_random_images_not_at_kmeans_plus_plus(monkeypatch):
    import sklearn.cluster

    monkeypatch.setattr(
        sklearn.cluster, "kmeans_plusplus", lambda *a, **k: pytest.fail("k-means++ was asked for many clusters")
    )
    x, _ = blobs(4, 40)
    assert kmeans(x, clustering.PLUS_PLUS + 1, on="torch").assigned.max() <= clustering.PLUS_PLUS


def test_a_sample_gives_nearly_the_same_clusters_and_assigns_every_image():
    x, _ = blobs(6, 300, 12, spread=0.2)
    whole, part = kmeans(x, 6, iterations=50, on="torch"), kmeans(x, 6, iterations=50, sample=400, on="torch")
    d = squared_distances(x, part.centres)
    assert (part.assigned == d.argmin(1)).all() and part.inertia == pytest.approx(d.min(1).sum(), rel=1e-4)
    assert whole.inertia <= part.inertia < 1.05 * whole.inertia


def test_more_clusters_than_distinct_images():
    x = np.repeat(np.eye(3, dtype=np.float32), 10, axis=0)
    for on in ("torch", "scikit-learn"):
        assert kmeans(x, 5, on=on).inertia == pytest.approx(0, abs=1e-5)
    with pytest.raises(UserError, match="31 clusters"):
        kmeans(x, 31)


def reference_constrained(x, centres, rows, may, iterations):
    """Basu et al. 2002, figure 2, one image at a time in float64."""
    x, centres = x.astype(np.float64), centres.astype(np.float64).copy()
    constraint = {int(r): may[i] for i, r in enumerate(rows)}
    for _ in range(iterations):
        groups = [[] for _ in centres]
        for i, row in enumerate(x):
            d = ((row - centres) ** 2).sum(1)
            if i in constraint:
                d = np.where(constraint[i], d, np.inf)
            groups[int(d.argmin())].append(row)
        centres = np.array([np.mean(g, 0) if g else c for g, c in zip(groups, centres)])
    return centres


def test_constrained_steps_equal_the_paper():
    x, y = blobs(3, 30, spread=0.5)
    rows = np.array([2, 9, 17, 40, 63])
    owner = np.array([0, 1, 2, -1, -1])
    may = owner[None] == y[rows][:, None]
    start = x[[1, 5, 20, 33, 50]]
    np.testing.assert_allclose(
        lloyd(x, start, 7, (rows, may)), reference_constrained(x, start, rows, may, 7), atol=1e-5
    )
    assert not np.allclose(lloyd(x, start, 7), lloyd(x, start, 7, (rows, may)), atol=1e-3)


def test_labeled_images_hold_their_clusters_in_every_step():
    """Left to the distances, the image at 9 would go over to the one at 10 and leave its class a mean of 1."""
    x = np.array([[0.0], [9.0], [10.0], [1.0], [2.0], [9.5]], np.float32)
    found, owner = constrained_kmeans(x, 2, np.array([0, 1, 2]), np.array([0, 0, 1]))
    assert owner.tolist() == [0, 1] and found.assigned.tolist() == [0, 0, 1, 0, 0, 1]
    np.testing.assert_allclose(found.centres, [[3.0], [9.75]])


@pytest.mark.parametrize("sample", [None, 40])
def test_labeled_images_stay_in_clusters_of_their_class(sample):
    x, y = blobs(4, 40, spread=0.6)
    labeled = np.array([int(np.flatnonzero(y == c)[j]) for c in range(4) for j in range(3)])
    labels = y[labeled].copy()
    labels[:3] = 1  # wrong on purpose: the constraint holds against the distances
    found, owner = constrained_kmeans(x, 14, labeled, labels, seed=0, sample=sample)
    assert (owner[found.assigned[labeled]] == labels).all()
    assert (owner == -1).sum() == 2 and len(owner) == 14 and len(found.assigned) == len(x)
    others = np.setdiff1d(np.arange(len(x)), labeled)
    assert (found.assigned[others] == squared_distances(x, found.centres)[others].argmin(1)).all()


@pytest.mark.parametrize(
    "counts, k, expected",
    [
        ([1, 1, 1], 3, [1, 1, 1]),
        ([1, 1, 1], 9, [1, 1, 1]),
        ([4, 1, 2], 6, [3, 1, 2]),
        ([4, 4], 3, [2, 1]),
        ([2, 5], 7, [2, 5]),
    ],
)
def test_clusters_of_a_class_never_outnumber_its_labels(counts, k, expected):
    assert clusters_per_class(np.array(counts), k).tolist() == expected


def test_fewer_clusters_than_classes_is_refused():
    x, y = blobs()
    with pytest.raises(UserError, match="4 classes for 3 clusters"):
        constrained_kmeans(x, 3, np.arange(20), y[:20])


def test_neighbours_against_brute_force():
    x = unit(np.random.default_rng(1).standard_normal((70, 6)))
    x[11] = x[30]
    index, distance = neighbours(x, 4)
    d = squared_distances(x, x)
    np.fill_diagonal(d, np.inf)
    np.testing.assert_allclose(distance, np.sort(d, 1)[:, :4], atol=1e-5)
    assert (np.take_along_axis(d, index, 1) <= np.sort(d, 1)[:, 3:4] + 1e-5).all()
    assert index[11, 0] == 30 and index[30, 0] == 11 and distance[11, 0] == pytest.approx(0, abs=1e-6)
    some, _ = neighbours(x, 4, np.array([5, 60]))
    assert (some == index[[5, 60]]).all()
    assert neighbours(x[:3], 10)[0].shape == (3, 2)


def test_nearest_reads_a_mapped_file(tmp_path):
    x, _ = blobs(4, 50)
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    index, distance = nearest(mapped, x[:7])
    d = squared_distances(x, x[:7])
    assert (index == d.argmin(1)).all()
    np.testing.assert_allclose(distance, d.min(1), atol=1e-5)
