"""Clusters of codes, and how well they agree with classes."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from genbench.analysis.embedding import as_array
from genbench.core.errors import UserError, refuse_seed_above_32_bits

Method = Literal["kmeans", "mixture"]
Covariance = Literal["full", "tied", "diag", "spherical"]
STARTS = 10  # random initializations of k-means; the best is kept


@dataclass(frozen=True)
class Clusters:
    """
    cluster      [N] int64, the cluster of each code
    centers      [K, D], the means
    distance     [N], Euclidean distance of each code to the center of its cluster
    probability  [N], of the cluster given the code, for a mixture; else None
    """

    cluster: Tensor
    centers: Tensor
    distance: Tensor
    probability: Tensor | None = None

    def nearest(self, k: int, most: int) -> Tensor:
        """The rows of at most `most` codes of cluster k, those nearest to its center first."""
        rows = (self.cluster == k).nonzero()[:, 0]
        return rows[self.distance[rows].argsort(stable=True)[:most]]


def cluster(
    codes: Tensor, k: int, method: Method = "kmeans", *, covariance: Covariance = "full", seed: int = 0
) -> Clusters:
    """Group codes [N, ...] of real numbers into k clusters, by k-means or a mixture of k Gaussians (scikit-learn).

    Args:
        covariance: Shape of the Gaussians of the mixture

    Raises:
        UserError: there are more clusters than codes, a code is not finite, or the mixture degenerates.
    """
    refuse_seed_above_32_bits(seed)
    x = as_array(codes)
    if not 1 <= k <= len(x):
        raise UserError(f"--k is {k}; it must be from 1 to the number of images, {len(x)}.")
    probability = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fewer distinct codes than clusters leave clusters empty
        if method == "kmeans":
            from sklearn.cluster import KMeans

            fit = KMeans(k, n_init=STARTS, random_state=seed).fit(x)
            found, centers = fit.labels_, fit.cluster_centers_
        else:
            from sklearn.mixture import GaussianMixture

            fit = GaussianMixture(k, covariance_type=covariance, random_state=seed, max_iter=300)
            try:
                likely = fit.fit(x.astype(np.float64)).predict_proba(x.astype(np.float64))
            except ValueError as error:
                raise UserError(
                    f"A mixture of {k} Gaussians with {covariance} covariances cannot be fitted to {len(x)} codes of "
                    f"{x.shape[1]} numbers. Use fewer clusters, more images, or `--covariance diag`."
                ) from error
            found, centers, probability = likely.argmax(1), fit.means_, torch.from_numpy(likely.max(1)).float()
    distance = np.linalg.norm(x - centers[found], axis=1)
    return Clusters(
        torch.from_numpy(found.astype(np.int64)), torch.from_numpy(centers).float(),
        torch.from_numpy(distance).float(), probability,
    )  # fmt: skip


def best_assignment(clusters: Tensor, labels: Tensor) -> dict[int, int]:
    """Assign a different class to each cluster, so that as many images as possible are in a cluster of their class.

    Solved exactly (Kuhn 1955, the Hungarian method). If there are more clusters than classes, some have no class.

    Args:
        clusters: int64 [N], not negative
        labels: int64 [N], not negative

    Example:
        >>> best_assignment(torch.tensor([0, 0, 1, 1]), torch.tensor([3, 3, 0, 3]))
        {0: 3, 1: 0}
    """
    from scipy.optimize import linear_sum_assignment

    both = torch.stack([clusters, labels])
    table = torch.zeros((both.amax(1) + 1).tolist(), dtype=torch.int64)
    table.index_put_((clusters, labels), torch.ones_like(labels), accumulate=True)
    rows, columns = linear_sum_assignment(table.numpy(), maximize=True)
    return dict(zip(rows.tolist(), columns.tolist(), strict=True))


def assignment_accuracy(clusters: Tensor, labels: Tensor) -> float:
    """Fraction of images whose cluster is assigned to their class by `best_assignment` (Xie et al. 2016, equation 10).

    Example:
        >>> assignment_accuracy(torch.tensor([0, 0, 1, 1]), torch.tensor([1, 1, 0, 1]))
        0.75
    """
    assigned = best_assignment(clusters, labels)
    predicted = torch.tensor([assigned.get(k, -1) for k in range(int(clusters.max()) + 1)])[clusters]
    return (predicted == labels).double().mean().item()


def agreement(clusters: Tensor, labels: Tensor) -> dict[str, float]:
    """How well clusters int64 [N] agree with labels int64 [N].

    nmi       normalized mutual information, 0 to 1, with the arithmetic mean of the entropies
    ari       adjusted Rand index: 0 for random clusters, 1 for the classes (Hubert & Arabie 1985)
    accuracy  fraction of images in the cluster that is assigned to their class
    """
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    return {
        "nmi": float(normalized_mutual_info_score(labels.numpy(), clusters.numpy())),
        "ari": float(adjusted_rand_score(labels.numpy(), clusters.numpy())),
        "accuracy": assignment_accuracy(clusters, labels),
    }


def neighbor_accuracy(
    train_codes: Tensor, train_labels: Tensor, test_codes: Tensor, test_labels: Tensor, k: int = 5
) -> float:
    """Accuracy of the majority vote of the k nearest training codes (Euclidean), on the test codes.

    Args:
        train_codes: [N, ...] real numbers
        train_labels: int64 [N]
        test_codes: [M, ...] real numbers
        test_labels: int64 [M]

    Raises:
        UserError: there are fewer training codes than neighbors, or a code is not finite.
    """
    from sklearn.neighbors import KNeighborsClassifier

    if not 1 <= k <= len(train_codes):
        raise UserError(f"k is {k}; it must be from 1 to the number of training codes, {len(train_codes)}.")
    vote = KNeighborsClassifier(k).fit(as_array(train_codes), train_labels.numpy())
    return float(vote.score(as_array(test_codes), test_labels.numpy()))
