"""A classifier of factors: classes are combinations of values, and positions are kept."""

from itertools import product

import torch
from torch.nn.functional import cross_entropy

from genbench.networks.classifier import FactorClassifier


def network():
    torch.manual_seed(0)
    return FactorClassifier(3, (2, 5, 3)).eval()


def test_the_probability_of_a_class_is_the_product_over_its_values():
    net, x = network(), torch.randn(4, 3, 32, 32)
    features, logits = net(x)
    assert features.shape == (4, 1024) and logits.shape == (4, 30)
    each = [head(features).softmax(1) for head in net.heads]
    for k, values in enumerate(product(range(2), range(5), range(3))):
        expected = each[0][:, values[0]] * each[1][:, values[1]] * each[2][:, values[2]]
        assert torch.allclose(logits[:, k].exp(), expected, atol=1e-6)


def test_the_loss_of_classes_is_the_sum_of_the_losses_of_factors():
    net, x = network(), torch.randn(4, 3, 32, 32)
    features, logits = net(x)
    values = [torch.tensor([0, 1, 1, 0]), torch.tensor([4, 0, 2, 3]), torch.tensor([2, 1, 0, 0])]
    label = values[0] * 15 + values[1] * 3 + values[2]
    for smoothing in (0.0, 0.05):
        parts = [
            cross_entropy(head(features), value, label_smoothing=smoothing)
            for head, value in zip(net.heads, values, strict=True)
        ]
        assert torch.allclose(cross_entropy(logits, label, label_smoothing=smoothing), sum(parts), atol=1e-5)


def test_features_tell_where_an_object_is():
    net, images = network(), torch.zeros(2, 3, 32, 32)
    images[0, :, 4:12, 4:12] = images[1, :, 20:28, 20:28] = 1
    first, second = (net(images)[0] - net(torch.zeros(1, 3, 32, 32))[0]).unflatten(1, (64, 4, 4)).abs().sum(1)
    assert first[:2, :2].sum() > 3 * first[2:, 2:].sum() and second[2:, 2:].sum() > 3 * second[:2, :2].sum()
