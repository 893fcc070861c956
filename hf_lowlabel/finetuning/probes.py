"""Baselines on frozen features: nearest neighbours, logistic regression, label spreading. No network is trained.

features [N, D] of the labeled and unlabeled images with labels int [N], -1 for unlabeled; query [Q, D]; every function
returns class probabilities float32 [Q, num_classes], 0 for a class without a label. They answer in seconds, and with
strong pretrained features they are hard to beat. The classes are what `hf-lowlabel finetune --method` runs of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

import numpy as np
import torch

from ..errors import UserError
from ..evaluation.neighbors import neighbor_votes
from ..methods import Method
from ..ranges import BelowOne, Count, Limits, Positive
from .graph import (
    ALPHA,
    MASSES,
    NEIGHBOURS,
    ROUNDS,
    Graph,
    Pool,
    Reach,
    Solved,
    evenly,
    hardened,
    rooted_beside,
    spread,
)
from .graph_choice import ALPHAS, GRAPHS, likeliest
from .linear import (
    ProbeBeliefs,
    first_of_each,
    labeled_rows,
    left_out_in_turn,
    probe_head,
    softmax,
)
from .pooling import pooled_rows, tell_pooled
from .temperature import KNOWN_T, temperature, usual_t


def knn(
    features: np.ndarray,
    labels: np.ndarray,
    query: np.ndarray,
    *,
    num_classes: int,
    k: int = 20,
    temperature: float = 0.07,
) -> np.ndarray:
    """p_c propto sum of exp(s_j / T) over the k most similar labeled images j of class c (Wu et al. 2018, section 3.4).

    s_j: cosine similarity. k: neighbours that vote, at most the number of labels. temperature: T.
    """
    x, y = (torch.from_numpy(np.ascontiguousarray(a)) for a in labeled_rows(features, labels))
    asked = torch.from_numpy(np.ascontiguousarray(query))
    return neighbor_votes(x, y, asked, num_classes=num_classes, k=k, temperature=temperature).numpy()


def label_spreading(
    features: np.ndarray,
    labels: np.ndarray,
    query: np.ndarray,
    *,
    num_classes: int,
    neighbours: int | None = None,
    alpha: float | None = None,
    copies: np.ndarray | None = None,
) -> np.ndarray:
    """Labels spread over the graph of all images (`Graph`, on `rooted` features); queries ask their neighbours in it.

        p_q propto sum_{j in N_k(q)} max(s_qj, 0)^3 F_j;   an image of the graph keeps its own F

    neighbours: of each image in the graph. alpha: share that comes from the neighbours. None: the value of `GRAPHS`
    and `ALPHAS` that `likeliest` finds. copies: what images share with each other, int [N, 2], or None (`group_of`).
    """
    labeled_rows(features, labels)
    rows = np.flatnonzero(labels >= 0)
    x, asked = rooted_beside(features, query)
    k, a = neighbours, alpha
    if k is None or a is None:
        ways = [(i, j) for i in ([k] if k else GRAPHS) for j in (ALPHAS if a is None else [a])]
        k, a = likeliest(x, labels, ways, num_classes, copies)
    graph = Graph(x, min(k, len(x) - 1))
    return ask(x, spread(Solved(graph, rows, a), labels[rows], num_classes), asked, k)


def ask(x: np.ndarray, beliefs: np.ndarray, query: np.ndarray, k: int) -> np.ndarray:
    """Vote, float32 [Q, K], of the k images of x [N, D] that are nearest to each query [Q, D], all of length 1."""
    bank, out = torch.from_numpy(x), np.empty((len(query), beliefs.shape[1]), np.float32)
    for start in range(0, len(query), 1024):
        near, at = (torch.from_numpy(query[start : start + 1024]) @ bank.T).topk(min(k, len(x)), dim=1)
        weight, index = near.clamp_min(0).double().numpy() ** 3, at.numpy()
        weight[near[:, 0].numpy() > 1 - 1e-5, 1:] = 0  # an image of the graph, or its copy
        votes = (weight[:, :, None] * beliefs[index]).sum(1)
        total = votes.sum(1, keepdims=True)
        out[start : start + 1024] = np.where(total > 0, votes / np.maximum(total, 1e-300), evenly(beliefs))
    return out


class FrozenMethod(Method):
    """A method that reads the features of a network as it is: `fit_predict` is all it does."""

    verb, frozen = "finetune", True
    spreads_priors: ClassVar[bool] = False  # `head` takes priors [N, K]; else their most probable class is a label
    takes_copies: ClassVar[bool] = (
        False  # copies: what images share, int [N, 2] (`group_of`); settings are chosen by it
    )
    of_pixels: ClassVar[bool] = False  # fits a layer to feature maps and masks, and not to features of images
    needs = "features of all images, no training"

    def fit_predict(
        self, features: np.ndarray, labels: np.ndarray, query: np.ndarray, *, num_classes: int
    ) -> np.ndarray:
        """Class probabilities of the query images.

        Args:
            features: [N, D] of the labeled and unlabeled images.
            labels: int [N], -1 where there is none.
            query: [Q, D], features of the images to predict.
            num_classes: K.

        Returns:
            float32 [Q, K], 0 for a class without a label.

        Raises:
            UserError: no label, or too few to fit.
        """
        raise TypeError(f"{type(self).__name__} must define fit_predict(features, labels, query, num_classes)")


class KNN(FrozenMethod):
    """`knn` on `rooted` features (Wu et al. 2018, arXiv 1805.01978, section 3.4).

    k: neighbours that vote, at most the number of labels. temperature: T of their similarity.
    """

    paper = "Wu et al., Unsupervised feature learning via non-parametric instance discrimination, section 3.4"
    year, arxiv = 2018, "1805.01978"

    def __init__(self, *, k: Count = 20, temperature: Positive = 0.07):
        self.k, self.temperature = k, temperature

    def fit_predict(self, features, labels, query, *, num_classes):
        x, asked = rooted_beside(features, query)
        return knn(x, labels, asked, num_classes=num_classes, k=self.k, temperature=self.temperature)


class Probe(FrozenMethod):
    """`linear.probe_head`. l2: weight of the penalty; None: by cross-validation. max_iter: of the solver."""

    paper = "logistic regression on frozen features"
    year = 2019
    prior = "may"
    takes_copies = True

    def __init__(self, *, l2: Positive | None = None, max_iter: Count = 1000):
        self.l2, self.max_iter = l2, max_iter

    def head(
        self, features: np.ndarray, labels: np.ndarray, *, num_classes: int, copies: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """(weight float32 [K, D], bias float32 [K]) of the linear layer that predicts."""
        own = dict(l2=self.l2, max_iter=self.max_iter, copies=copies)
        return probe_head(features, labels, num_classes=num_classes, **own)

    def fit_predict(self, features, labels, query, *, num_classes):
        weight, bias = self.head(features, labels, num_classes=num_classes)
        return softmax(query.astype(np.float64) @ weight.T.astype(np.float64) + bias).astype(np.float32)


class LabelSpreading(FrozenMethod):
    """`label_spreading` (Zhou et al. 2004, section 2). neighbours: in the graph. alpha: share from the neighbours.
    None: by the labels.
    """

    paper = "Zhou et al., Learning with local and global consistency"
    year = 2004
    takes_copies = True

    def __init__(self, *, neighbours: Count | None = None, alpha: BelowOne | None = None):
        self.neighbours, self.alpha = neighbours, alpha

    def fit_predict(self, features, labels, query, *, num_classes, copies=None):
        own = dict(neighbours=self.neighbours, alpha=self.alpha, copies=copies)
        return label_spreading(features, labels, query, num_classes=num_classes, **own)


class Propagation(FrozenMethod):
    """Labels spread over the graph of all images and a linear head that goes on from there (`Pool.propagate`).

    neighbours: in the graph. alpha: share from the neighbours. rounds: of graph and head. masses: whose share each
    class gets of all images, that of the "labels" or that of the "graph". with_probe: what is believed of an image is
    the mean of this and of what a probe says. blend: all of these with shares [4] in what the head is fitted to: by the
    labels, by the graph, with a probe, a probe alone (`Pool.between`); with priors [6], the first two with these too.
    prior_weight: labels of each class that priors (--prior) count as, which spread over the graph beside the labels.
    Above `MOST_POOLED` images a random part of them makes the graph (`pooled_rows`).
    """

    paper = "label spreading, class masses and self-training on frozen features"
    year = 2026
    prior = "may"
    spreads_priors = True
    takes_copies = True

    @classmethod
    def check(cls, settings: Mapping[str, Any]) -> None:
        blend = settings["blend"]
        if blend is not None and not is_mixture(blend):
            raise UserError(f"blend is {blend}. Give four shares of 0 or more that sum to 1, or with priors six.")

    def __init__(
        self,
        *,
        neighbours: Count = NEIGHBOURS,
        alpha: BelowOne = ALPHA,
        rounds: Count = ROUNDS,
        masses: Annotated[str, Limits(choices=MASSES)] = "labels",
        with_probe: bool = False,
        blend: Sequence[float] | None = None,
        prior_weight: Positive = 1.0,
    ):
        self.neighbours, self.alpha, self.rounds = neighbours, alpha, rounds
        self.masses, self.with_probe, self.blend = masses, with_probe, blend
        self.prior_weight = prior_weight

    def targets(
        self,
        pool: Pool,
        reach: Reach,
        rows: np.ndarray,
        labels: np.ndarray,
        believed: np.ndarray,
        seeds: np.ndarray | None = None,
    ) -> np.ndarray:
        """What the head is fitted to, float64 [N, K].

        Args:
            pool: the features of all images.
            reach: [N, L], of the labeled ones.
            rows: which these are, int64 [L].
            labels: their classes, int [L], -1 for one whose label is left out.
            believed: [N, K], what a probe of the same labels says.
            seeds: [N, K], what priors send over the graph (`Pool.seeds`).

        Raises:
            UserError: `blend` has no share for the priors, or one and there are none.
        """

        def propagated(masses: str, seeds: np.ndarray | None) -> np.ndarray:
            own = dict(rounds=self.rounds, masses=masses, seeds=seeds)
            return pool.propagate(reach, rows, labels, believed.shape[1], **own)

        if self.blend is not None:
            if len(self.blend) != (4 if seeds is None else 6):
                raise UserError("blend has four shares without --prior and six with it. Give as many, or leave it out.")
            out, by_graph = (propagated(masses, None) for masses in MASSES)
            alone = pool.between(believed, labels)
            parts = [hardened(out), hardened(by_graph), (out + believed) / 2, alone]
            if seeds is not None:
                parts += [hardened(propagated(masses, seeds)) for masses in MASSES]
            return sum(share * part for share, part in zip(self.blend, parts, strict=True))
        out = propagated(self.masses, seeds)
        return (out + believed) / 2 if self.with_probe else hardened(out)

    def head(
        self,
        features: np.ndarray,
        labels: np.ndarray,
        *,
        num_classes: int,
        priors: np.ndarray | None = None,
        copies: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """(weight float32 [K, D], bias float32 [K]) of the linear layer that predicts; priors: [N, K], or None."""
        labeled_rows(features, labels)
        some, count = pooled_rows(labels), int((labels >= 0).sum())
        features, labels = features[some], labels[some]
        rows = np.flatnonzero(labels >= 0)
        tell_pooled(len(rows), count)
        pool, y = Pool(features, k=self.neighbours), labels[rows]
        shows = None if copies is None else copies[some][rows]
        reach, probe = pool.reach(rows, self.alpha), ProbeBeliefs(features, rows, y, num_classes, shows)
        seeds = None if priors is None else pool.seeds(priors[some], self.prior_weight, self.alpha)
        pool.look_behind(reach, rows, y, probe(y))

        def targets(known: np.ndarray) -> np.ndarray:
            return self.targets(pool, reach, rows, known, probe(known), seeds)

        logits, truth, once = [], [], first_of_each(len(y), shows)
        for out in left_out_in_turn(y, copies=shows):
            logits.append(pool.left_out(targets(np.where(out, -1, y)), rows[out & once]))
            truth.append(y[out & once])
        t = usual_t(num_classes)
        if logits:
            t = temperature(np.concatenate(logits), np.concatenate(truth), usual=t, width=KNOWN_T)
        return pool.head(targets(y), t)

    def fit_predict(self, features, labels, query, *, num_classes):
        weight, bias = self.head(features, labels, num_classes=num_classes)
        return softmax(query.astype(np.float64) @ weight.T.astype(np.float64) + bias).astype(np.float32)


def is_mixture(shares: object) -> bool:
    """Whether these are shares of the four parts of a blend, or of six with priors."""
    if not isinstance(shares, (list, tuple)) or len(shares) not in (4, 6):
        return False
    return all(isinstance(w, (int, float)) and w >= 0 for w in shares) and abs(sum(shares) - 1) <= 0.01
