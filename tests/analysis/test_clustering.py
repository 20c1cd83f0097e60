"""Clusters and their agreement with classes, against brute force and closed forms."""

from itertools import permutations

import numpy as np
import pytest
import torch

from genbench.analysis.clustering import agreement, assignment_accuracy, best_assignment, cluster, neighbor_accuracy
from genbench.core.errors import UserError


def blobs(k=3, each=40, spread=0.1, seed=0):
    """Points around k centers far apart, in order, and their classes."""
    generator = torch.Generator().manual_seed(seed)
    centers = 10 * torch.eye(k, 4)
    label = torch.arange(k).repeat_interleave(each)
    return centers[label] + spread * torch.randn(len(label), 4, generator=generator), label


@pytest.mark.parametrize("seed", range(20))
def test_the_assignment_is_the_best_of_all_permutations_of_five_clusters(seed):
    generator = torch.Generator().manual_seed(seed)
    clusters, labels = torch.randint(5, (2, 60), generator=generator)
    best = max((torch.tensor(order)[clusters] == labels).double().mean().item() for order in permutations(range(5)))
    assert assignment_accuracy(clusters, labels) == best


def test_two_clusters_never_get_one_class():
    clusters, labels = torch.tensor([0, 0, 1, 1, 2]), torch.tensor([1, 1, 1, 1, 0])
    assigned = best_assignment(clusters, labels)
    assert len(set(assigned.values())) == len(assigned) == 2 and assigned[2] == 0
    assert assignment_accuracy(clusters, labels) == 3 / 5


def test_fewer_clusters_than_classes_leave_classes_without_a_cluster():
    assert assignment_accuracy(torch.tensor([0, 0, 0]), torch.tensor([4, 4, 2])) == pytest.approx(2 / 3)


@pytest.mark.parametrize("method", ["kmeans", "mixture"])
def test_separate_blobs_are_found_with_their_centers(method):
    x, label = blobs()
    found = cluster(x, 3, method)
    assert agreement(found.cluster, label) == {"nmi": pytest.approx(1), "ari": 1, "accuracy": 1}
    for k, name in best_assignment(found.cluster, label).items():
        assert torch.allclose(found.centers[k], x[label == name].mean(0), atol=1e-3)
    distance = (x - found.centers[found.cluster]).norm(dim=1)
    assert torch.allclose(found.distance, distance, atol=1e-4)
    assert (found.probability is None) == (method == "kmeans")
    if method == "mixture":
        assert (found.probability > 0.999).all()


def test_the_nearest_members_come_first_and_belong_to_the_cluster():
    x, _ = blobs()
    found = cluster(x, 3)
    rows = found.nearest(1, 10)
    assert len(rows) == 10 and (found.cluster[rows] == 1).all()
    assert (found.distance[rows].diff() >= 0).all()
    others = found.distance[found.cluster == 1].sort().values
    assert torch.equal(found.distance[rows], others[:10])


def test_the_seed_decides_the_clusters():
    x = torch.randn(200, 6)
    assert torch.equal(cluster(x, 7, seed=3).cluster, cluster(x, 7, seed=3).cluster)


def test_independent_labels_have_no_agreement():
    """Every cluster holds every class equally: no information, and chance level."""
    clusters, labels = torch.arange(4).repeat_interleave(4), torch.arange(4).repeat(4)
    found = agreement(clusters, labels)
    assert found["nmi"] == pytest.approx(0, abs=1e-9) and found["accuracy"] == 0.25 and found["ari"] < 0


def test_nmi_of_a_merged_pair_of_classes_is_its_closed_form():
    """Classes 0 and 1 in one cluster, 2 and 3 in another: I = log 2, entropies log 4 and log 2."""
    labels = torch.arange(4).repeat_interleave(5)
    assert agreement(labels // 2, labels)["nmi"] == pytest.approx(np.log(2) / ((np.log(4) + np.log(2)) / 2))


@pytest.mark.parametrize("k", [0, 6])
def test_more_clusters_than_codes_are_refused(k):
    with pytest.raises(UserError, match="from 1 to the number of images, 5"):
        cluster(torch.randn(5, 2), k)


def test_codebook_indices_and_nan_are_refused():
    with pytest.raises(UserError, match="indices"):
        cluster(torch.zeros(5, 2, dtype=torch.int64), 2)
    with pytest.raises(UserError, match="NaN"):
        cluster(torch.full((5, 2), torch.nan), 2)


def test_equal_codes_are_one_cluster_and_the_others_are_empty():
    found = cluster(torch.ones(6, 2), 3)
    assert len(found.cluster.unique()) == 1 and (found.distance == 0).all()


@pytest.mark.parametrize("k", [1, 5])
def test_neighbor_accuracy_equals_brute_force(k):
    generator = torch.Generator().manual_seed(1)
    train, test = torch.randn(80, 3, generator=generator), torch.randn(30, 3, generator=generator)
    train_label, test_label = (train[:, 0] > 0).long(), (test[:, 0] > 0).long()
    near = torch.cdist(test, train).topk(k, largest=False).indices
    votes = train_label[near].double().mean(1).gt(0.5).long()
    expected = (votes == test_label).double().mean().item()
    assert neighbor_accuracy(train, train_label, test, test_label, k) == pytest.approx(expected)


def test_more_neighbors_than_training_codes_are_refused():
    with pytest.raises(UserError, match="number of training codes, 3"):
        neighbor_accuracy(torch.randn(3, 2), torch.zeros(3), torch.randn(2, 2), torch.zeros(2), k=4)
