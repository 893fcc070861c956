"""A graph of similar images, over which labels spread, and the linear head that goes on from there."""

from __future__ import annotations

import numpy as np

from ..errors import UserError
from ..evaluation.neighbors import check_numbers, neighbours, unit
from .linear import NEVER, LeastSquares, softmax
from .uninformative import without_uninformative

MASSES = ("labels", "graph")
NEIGHBOURS, ALPHA, ROUNDS = 20, 0.9, 5
MOST_REACHED = 2000  # labels whose reach is kept, [N, L]: at 20,000 images 320 MB
SHARPNESS = 3.0  # standard deviation of the head's logits when they become beliefs
L2 = 1e-3  # of the head that goes round with the graph, a share of the number of images
HEAD_L2 = 3e-4  # of the layer that is saved
FIRST_STEPS, ALL_STEPS = 3, 10  # of the estimate of shares behind even labels: how uneven they are, and the shares
CHANCE = 0.5  # times 1 / root of the labels of a class: how uneven they look by chance


def rooted(features: np.ndarray) -> np.ndarray:
    """Features made even for comparison, unit float32 [N, D]: those that are never negative (behind a ReLU) by their
    square root (Hellinger's distance; a few large ones decide otherwise), all less their mean.
    """
    return rooted_beside(features, features[:0])[0]


def rooted_beside(features: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(`rooted` features [N, D], others [Q, D] treated as these were)."""
    check_numbers(features)
    check_numbers(others)
    x, y = np.asarray(features, np.float32), np.asarray(others, np.float32)
    if len(x) and x.min() >= 0:
        x, y = np.sqrt(x), np.sqrt(np.maximum(y, 0))
    x, y = unit(x), unit(y)
    mean = x.mean(0)
    return unit(x - mean), unit(y - mean)


class Graph:
    """The k nearest neighbours of every image, and how labels spread over them (Zhou et al. 2004; Iscen et al. 2019).

        Z = (I - alpha D^-1/2 W D^-1/2)^-1 Y,   W = A + A^T,   A_ij = max(x_i.x_j, 0)^gamma for the k nearest

    Args:
        x: unit features, float32 [N, D].
        k: neighbours of every image.
        gamma: exponent of the similarity.
    """

    def __init__(self, x: np.ndarray, k: int = NEIGHBOURS, gamma: float = 3.0):
        from scipy.sparse import csr_matrix, diags

        n = len(x)
        index, distance = neighbours(x, k)
        weight = np.maximum(1 - distance / 2, 0).astype(np.float64) ** gamma  # |a - b|^2 = 2 - 2 a.b
        nothing = ~x.any(1)  # a vector of zeros has no length: it is like no other
        weight[nothing] = 0
        weight[nothing[index]] = 0
        a = csr_matrix((weight.ravel(), index.ravel(), np.arange(n + 1) * index.shape[1]), shape=(n, n))
        w = a + a.T
        scale = diags(1 / np.sqrt(np.maximum(np.asarray(w.sum(1)).ravel(), 1e-12)))
        self.similarity = (scale @ w @ scale).tocsr()

    def solve(self, y: np.ndarray, alpha: float = ALPHA, tolerance: float = 1e-6, most: int = 1000) -> np.ndarray:
        """Z, float64 [N, C] at least 0, by conjugate gradients with all columns at once.

        Args:
            y: right side, float64 [N, C].
            alpha: share that comes from the neighbours.
            tolerance: of the solution: residual over right side.
            most: steps.

        Raises:
            UserError: no solution after `most` steps.
        """
        from scipy.sparse.linalg import LinearOperator, cg

        def apply(v: np.ndarray) -> np.ndarray:  # the columns are one system: sparse products with all cost a fifth
            v = v.reshape(y.shape)
            return (v - alpha * (self.similarity @ v)).ravel()

        whole = LinearOperator((y.size, y.size), matvec=apply, dtype=y.dtype)
        z, left = cg(whole, y.ravel(), rtol=tolerance, atol=0.0, maxiter=most)
        if left:
            raise UserError(f"Label spreading has not converged after {most} steps. Use a smaller alpha.")
        return np.maximum(z.reshape(y.shape), 0)

    def reach(self, rows: np.ndarray, alpha: float = ALPHA, among: int = 1) -> Reach:
        """How far each of some images reaches, [N, len(rows)]: Z is a sum of these columns, whatever their labels.

        Of more than `MOST_REACHED` no matrix is made, which would grow with their square: what asks for a sum of
        columns solves the equation for it. among: how many graphs have one at a time.
        """
        if len(rows) * among > MOST_REACHED:
            return Solved(self, rows, alpha)
        y = np.zeros((self.similarity.shape[0], len(rows)))
        y[rows, np.arange(len(rows))] = 1
        return self.solve(y, alpha, tolerance=1e-4)


class Solved:
    """`Graph.reach` of many images, without the matrix: `self @ y` for y [L, K] is solved when it is asked for."""

    def __init__(self, graph: Graph, rows: np.ndarray, alpha: float):
        self.graph, self.rows, self.alpha = graph, rows, alpha
        self.last: tuple[np.ndarray, np.ndarray] | None = None  # the ways to a head ask for the same one by one

    def __matmul__(self, y: np.ndarray) -> np.ndarray:
        if self.last is None or not np.array_equal(self.last[0], y):
            whole = np.zeros((self.graph.similarity.shape[0], y.shape[1]))
            whole[self.rows] = y
            self.last = y, self.graph.solve(whole, self.alpha, tolerance=1e-4)
        return self.last[1]


Reach = np.ndarray | Solved


def spread(reach: Reach, labels: np.ndarray, num_classes: int, seeds: np.ndarray | None = None) -> np.ndarray:
    """Class probabilities of every image, float64 [N, K], from the labels int [L] of the images whose `reach` [N, L] is
    given; -1 is left out. A label counts 1 / labels of its class. An image that no label reaches gets the same of
    each class that has one, and of every class where none has. seeds: what comes from priors besides, [N, K]
    (`Pool.seeds`); their classes count as such.
    """
    known = labels >= 0
    y = np.zeros((len(labels), num_classes))
    y[np.flatnonzero(known), labels[known]] = 1 / np.bincount(labels[known], minlength=num_classes)[labels[known]]
    z = reach @ y if seeds is None else reach @ y + seeds
    total = z.sum(1, keepdims=True)
    return np.where(total > 0, z / np.maximum(total, 1e-300), evenly(y, *([] if seeds is None else [seeds])))


def evenly(*beliefs: np.ndarray) -> np.ndarray:
    """The same share, [K], of each class that any row of beliefs [N, K] says something of; of all where none does."""
    known = np.any([(p > 0).any(0) for p in beliefs], axis=0)
    return known / known.sum() if known.any() else np.full(len(known), 1 / len(known))


def class_shares(
    labels: np.ndarray, num_classes: int, unlabeled: np.ndarray | None = None, even: np.ndarray | None = None
) -> np.ndarray:
    """Share of each class of all images, from the labels [L], -1 for none; [K].

        lambda / C + (1 - lambda) (n_k + 1) / (L + C),   lambda = min(1, (C - 1) / sum_k (n_k - L/C)^2 / (L/C))

    C classes have labels; one without has 0, or its share in `unlabeled` [K], which sums to 1. Even shares give a
    chi-square of C - 1 by chance, so counts are believed as far as theirs is larger (James and Stein's shrinkage): two
    labels a class, drawn at random, say next to nothing about shares. even: what stands in the place of 1 / C, [K]
    (`shares_behind`).
    """
    counts = np.bincount(labels[labels >= 0], minlength=num_classes).astype(float)
    known = counts > 0
    usual = counts.sum() / known.sum()
    chi_square = float(((counts[known] - usual) ** 2).sum() / usual)
    drawn = min(1.0, (known.sum() - 1) / chi_square) if chi_square else 1.0
    smooth = np.where(known, counts + 1, 0)
    likely = known if even is None else known * even
    shares = drawn * likely / likely.sum() + (1 - drawn) * smooth / smooth.sum()
    absent = np.where(known, 0, 0 if unlabeled is None else unlabeled)
    return absent + (1 - absent.sum()) * shares


def weight_by_class(y: np.ndarray, num_classes: int, even: np.ndarray | None = None) -> np.ndarray:
    """Weights [n] of labels int [n] that sum to 1, those of a class to its share of all images (`class_shares`)."""
    return class_shares(y, num_classes, even=even)[y] / np.bincount(y)[y]


def unevenness(labels: np.ndarray) -> float:
    """Chi-square of the counts of the classes against even ones, by its mean C - 1: about 1 for labels drawn at random
    from as many images of each class, 0 for as many labels of each."""
    counts = np.unique(labels, return_counts=True)[1]
    return float(((counts - counts.mean()) ** 2).sum() / counts.mean() / max(len(counts) - 1, 1))


def shares_behind(beliefs: np.ndarray, labels: np.ndarray) -> np.ndarray | None:
    """Shares of the classes of all images, [K], where labels are as many of each class, or nearly: somebody chose them
    so, and their counts say nothing (`unevenness` below 1). None where the images look evenly divided too.

        pi_k <- 1/N sum_i  p_ik (pi_k / q_k) / sum_j p_ij (pi_j / q_j)      (Saerens, Latinne and Decaestecker 2002)

    from even shares, and stopped early, since beliefs from few labels are too sure; q are the shares that the beliefs
    come from. How far it goes by chance falls with the root of the labels of a class; the shares keep 1 - (that / how
    far it went)^2 of the way (James and Stein), and 1 - chi-square / (C - 1) of that where counts of C classes differ:
    labels drawn at random are believed to be what they are.

    Args:
        beliefs: p [N, K] of all images, half of a probe of the labels, half with even shares.
        labels: their classes, int [L].
    """
    counts = np.bincount(labels, minlength=beliefs.shape[1])
    known = counts > 0
    drawn = unevenness(labels)
    even = first = shares = known / known.sum()
    p = np.where(known, beliefs, 0) / np.where(known, (counts / counts.sum() + even) / 2, 1)
    for step in range(ALL_STEPS):
        likely = p * shares
        shares = (likely / np.maximum(likely.sum(1, keepdims=True), 1e-300)).mean(0)
        shares = shares / shares.sum()
        if step + 1 == FIRST_STEPS:
            first = shares
    far, chance = float(np.abs(first - even).sum()), CHANCE / float(counts[known].mean()) ** 0.5
    return None if far <= chance else even + (1 - drawn) * (1 - (chance / far) ** 2) * (shares - even)


def with_masses(priors: np.ndarray, shares: np.ndarray, rounds: int = 50) -> np.ndarray:
    """Rows scaled until each class has its share of the images (Sinkhorn and Knopp 1967): class mass normalization
    (Zhu, Ghahramani and Lafferty 2003, section 4), repeated until the rows sum to 1 as well.
    """
    z = np.maximum(priors, 1e-12)
    rows, columns = np.ones(len(z)), np.ones(z.shape[1])  # z_ij is scaled by rows_i columns_j
    for _ in range(rounds):
        masses = columns * (rows @ z)
        if np.abs(masses / len(z) - shares).max() < 1e-4:
            break
        columns = columns * shares * len(z) / np.maximum(masses, 1e-300)
        rows = 1 / np.maximum(z @ columns, 1e-300)
    return z * columns * rows[:, None]


class Pool:
    """The features of all images, and what is computed of them once for any labels.

    Args:
        features: float [N, D] of one network.
        k: neighbours of every image in the graph.
    """

    def __init__(self, features: np.ndarray, k: int = NEIGHBOURS):
        x = rooted(features)
        self.graph = Graph(x, min(k, len(x) - 1))
        self.rounds_head = LeastSquares(x)  # goes round with the graph
        self.saved_head = LeastSquares(features)  # is a layer on the network
        self.even: np.ndarray | None = None  # what even labels are taken for (`shares_behind`)

    def look_behind(self, reach: Reach, rows: np.ndarray, labels: np.ndarray, believed: np.ndarray) -> None:
        """Note what shares even labels stand for: by what the graph and a probe of them, [N, K], say of all images.

        Labels that are left out later have had a part in these K numbers.
        """
        if len(np.unique(labels)) > 1 and unevenness(labels) < 1:
            p = self.propagate(reach, rows, labels, believed.shape[1])
            self.even = shares_behind((p + believed) / 2, labels)

    def reach(self, rows: np.ndarray, alpha: float = ALPHA, among: int = 1) -> Reach:
        return self.graph.reach(rows, alpha, among)

    def seeds(self, priors: np.ndarray, weight: float = 1.0, alpha: float = ALPHA) -> np.ndarray:
        """What priors [N, K] of all images send over the graph, [N, K]: a class counts as `weight` labels.

        Rows that say nothing send nothing.
        """
        priors = without_uninformative(priors)
        y = weight * priors / np.maximum(priors.sum(0, keepdims=True), 1e-12)
        return self.graph.solve(y.astype(np.float64), alpha, tolerance=1e-4)

    def propagate(
        self,
        reach: Reach,
        rows: np.ndarray,
        labels: np.ndarray,
        num_classes: int,
        *,
        rounds: int = ROUNDS,
        masses: str = "labels",
        seeds: np.ndarray | None = None,
    ) -> np.ndarray:
        """Beliefs about every image, float64 [N, K]; rows sum to 1, those of labeled images are their labels.

            P_0 = masses(spread(Y));   P_r+1 = (masses(softmax(head(argmax P_r))) + P_0) / 2

        Labels spread over the graph, each class gets its share of the images, a linear head is fitted to the most
        believed class of every image, and its answer, with the same shares, is averaged with the graph's; and so on.

        Args:
            reach: float64 [N, L], of the labeled images.
            rows: which images these are, int64 [L].
            labels: their classes, int [L]; -1: treated as if it had none.
            num_classes: K.
            rounds: how often the head is fitted.
            masses: the shares are those of the "labels", or those that the "graph" gives.
            seeds: what comes from priors besides, [N, K]; a class without a label has the share of the graph then.
        """
        known = labels >= 0
        at, truth = rows[known], np.eye(num_classes)[labels[known]]
        plain = spread(reach, labels, num_classes, seeds)
        plain[at] = truth
        shares = by_graph = plain.mean(0)
        if masses == "labels":
            shares = class_shares(labels, num_classes, None if seeds is None else by_graph, self.even)
        beliefs = first = with_masses(plain, shares)
        for _ in range(rounds):
            hard = np.eye(num_classes)[beliefs.argmax(1)]
            hard[at] = truth
            z = self.rounds_head.predict(hard, L2)
            p = softmax(z / max(float(z.std()), 1e-12) * SHARPNESS)
            beliefs = (with_masses(p, shares) + first) / 2
        beliefs[at] = truth
        return beliefs

    def between(self, beliefs: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Beliefs [N, K] of a probe with shares of two classes halfway between its own and those of the labels, int [L]
        with -1 for one left out: of a few labels it may give nearly all images to one. More classes are left alone."""
        if beliefs.shape[1] != 2:
            return beliefs
        own = beliefs.mean(0)
        return with_masses(beliefs, (class_shares(labels, 2, own, self.even) + own) / 2)

    def layer(self, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The layer of `head` before a class that no target is of is ruled out: for other images what `left_out` is for
        those of the graph."""
        return self.saved_head.fit(targets, HEAD_L2)

    def head(self, targets: np.ndarray, t: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
        """(weight float32 [K, D], bias float32 [K]) of a layer on the network's features, fitted by least squares to
        targets [N, K]; its logits are divided by t.
        """
        weight, bias = self.layer(targets)
        never = targets.max(0) <= 1e-9  # a class that no label is of
        return (weight / t).astype(np.float32), np.where(never, NEVER, bias / t).astype(np.float32)

    def left_out(self, targets: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Logits [n, K] that the layer gives for some images when it is fitted without them."""
        return self.saved_head.left_out(targets, HEAD_L2, rows)


def hardened(beliefs: np.ndarray) -> np.ndarray:
    """The most believed class alone."""
    return np.eye(beliefs.shape[1])[beliefs.argmax(1)]
