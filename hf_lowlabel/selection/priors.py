"""Prior pseudo-labels (AS3L, Wen et al. 2024, section 4.3) and label spreading (LLGC), the baseline.

    y_prior,i = 1/C sum_j v_j(i),    v_j(i) = share of each class among the labeled images in i's cluster of run j

over C runs of constrained-seed k-means with K = classes, 2 classes, ... C classes. In a cluster without a labeled image
v is uniform: it says nothing, so images far from every label keep a low confidence.
"""

from __future__ import annotations

import numpy as np
import torch

from ..errors import UserError
from ..evaluation.classification import expected_calibration_error
from ..finetuning.functional import sinkhorn
from ..finetuning.graph import Graph
from ..finetuning.uninformative import informative
from .as3l import RUNS
from .clustering import constrained_kmeans

PROPAGATION = ("clusters", "label-spreading")
NEIGHBORS = 50  # of every image in the graph of label spreading


def cluster_priors(
    x: np.ndarray,
    labeled: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
    *,
    counts: list[int] | None = None,
    seed: int = 0,
) -> np.ndarray:
    """AS3L's prior pseudo-labels.

    The paper does not say what a cluster without a labeled image votes for; here for every class alike. The other
    reading, no vote at all, leaves the rest of the runs to decide: with one label a class, 97 % of the images pass a
    fixed threshold of 0.95 then, instead of 5.5 %. Nor does it say whether a cluster votes whose labeled image has been
    assigned to another of its class's clusters; here it does, as the cluster of a class it was seeded as.

    Args:
        x: features, float32 [N, D].
        labeled: rows that have a label, int64 [L].
        labels: their classes, int64 [L] in 0..num_classes - 1.
        num_classes: K.
        counts: clusters of each run (None: K, 2 K, ... 6 K, as far as there are images without a label).
        seed: decides the first centres.

    Returns:
        y_prior, float32 [N, K]; rows sum to 1.

    Raises:
        UserError: where no image, or every one, has a label.
    """
    check(x, labeled, labels, num_classes)
    free = len(x) - len(labeled)
    least = len(np.unique(labels))  # each class with labels has a cluster, however few images are without
    counts = counts or [max(least, min(num_classes * (run + 1), free)) for run in range(RUNS)]
    out = np.zeros((len(x), num_classes), np.float32)
    for run, k in enumerate(counts):
        found, owner = constrained_kmeans(x, k, labeled, labels, seed=1009 * seed + run)
        votes = np.full((k, num_classes), 1 / num_classes, np.float32)
        named = owner >= 0
        votes[named] = np.eye(num_classes, dtype=np.float32)[
            owner[named]
        ]  # the labeled images of a cluster are of one class
        out += votes[found.assigned]
    return out / len(counts)


def graph_priors(
    x: np.ndarray,
    labeled: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
    *,
    k: int = NEIGHBORS,
    alpha: float = 0.99,
    gamma: float = 3.0,
    tolerance: float = 1e-6,
) -> np.ndarray:
    """Label spreading (Zhou et al. 2003) as in Iscen et al. 2019, Eq. 9-10: (I - alpha D^-1/2 W D^-1/2) Z = Y.

    W = A + A^T, A_ij = max(x_i.x_j, 0)^gamma for the k nearest of unit features; solved by conjugate gradients, all
    classes at once. Y_ic = 1 / labeled images of class c, as in their code: with 1, the class with most labels takes
    the rest. Rows of Z are normalised; an image that no label reaches gets a uniform row.

    The finetuning method label-spreading does the same on evened features, with neighbours and alpha chosen by the
    labels. It answers for images outside the graph, and for one that no label reaches never a class without a label.

    Args:
        x: features of unit length, float32 [N, D].
        labeled: rows that have a label, int64 [L].
        labels: their classes, int64 [L] in 0..num_classes - 1.
        num_classes: K.
        k: neighbours of every image in the graph.
        alpha: share that comes from the neighbours.
        gamma: exponent of the similarity.
        tolerance: of the solution: residual over right side.

    Returns:
        float32 [N, K]; rows sum to 1.

    Raises:
        UserError: where no image, or every one, has a label, or the solver does not converge.
    """
    check(x, labeled, labels, num_classes)
    y = np.zeros((len(x), num_classes))
    y[labeled, labels] = 1 / np.bincount(labels, minlength=num_classes)[labels]
    z = Graph(x, k, gamma).solve(y, alpha, tolerance)
    total = z.sum(1, keepdims=True)
    return np.where(total > 0, z / np.maximum(total, 1e-300), 1 / num_classes).astype(np.float32)


def check(x: np.ndarray, labeled: np.ndarray, labels: np.ndarray, num_classes: int) -> None:
    """UserError for labels that priors cannot be made of."""
    if not len(labeled) or len(labeled) != len(labels) or len(labeled) >= len(x):
        raise UserError(
            f"{len(labeled)} of {len(x)} images have a label. Priors need at least one image with a label and one "
            "without."
        )
    if labels.min() < 0 or labels.max() >= num_classes:
        raise UserError(f"The labels go from {labels.min()} to {labels.max()}, but there are {num_classes} classes.")


def balance(priors: np.ndarray, rounds: int = 100) -> np.ndarray:
    """Rows scaled until every class has the same mass N / K (Sinkhorn and Knopp 1967): what class mass normalization
    (Zhu, Ghahramani and Lafferty 2003, section 4) does once, done until rows sum to 1 as well. For classes of similar
    size; where they are, it corrects a class that spread too far over a bridge in the graph. A row that says nothing
    stays so: it takes its share of the classes that are rare in the others, and is no answer. A class that no row says
    anything of keeps no mass: the others share N.
    """
    some, out = informative(priors), priors.astype(np.float32)
    named = priors[some].any(0)
    z = torch.from_numpy(priors[:, named].astype(np.float64) + 1e-9)
    out[np.ix_(some, named)] = sinkhorn(z, rounds).numpy()[some]
    return out


def harden(priors: np.ndarray) -> np.ndarray:
    """The most likely class of every row alone; a row that says nothing stays uniform."""
    hard = np.eye(priors.shape[1], dtype=np.float32)[priors.argmax(1)]
    return np.where(informative(priors)[:, None], hard, 1 / np.float32(priors.shape[1]))


def report(priors: np.ndarray, truth: np.ndarray, labeled: np.ndarray) -> dict[str, float | int]:
    """What the priors are worth; the labeled images themselves take no part in the scores.

    Args:
        priors: float32 [N, K]; rows sum to 1.
        truth: true classes, int64 [N], -1 = not known.
        labeled: rows that have a label, int64 [L].

    Returns:
        Counts; "coverage", the share of images to which some label reached; "classes", how many classes have a labeled
        image; and where the truth is known, accuracy of the most likely class and expected calibration error of the
        images that some label reached.
    """
    rest, reached = np.setdiff1d(np.arange(len(priors)), labeled), informative(priors)
    known = rest[(truth[rest] >= 0) & reached[rest]]
    confidence = priors.max(1)
    out = {
        "images": len(priors),
        "labeled": len(labeled),
        "classes": int(len(np.unique(priors[labeled].argmax(1)))),
        "coverage": float(reached[rest].mean()),
        "confidence": float(confidence[rest].mean()),
    }
    if len(known):
        out["accuracy"] = float((priors[known].argmax(1) == truth[known]).mean())
        out["ece"] = expected_calibration_error(priors[known], truth[known])
    return out
