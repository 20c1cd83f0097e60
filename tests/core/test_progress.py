"""The progress of a loop inside a model is shown only to its caller."""

import pytest
import torch

from genbench.core.progress import steps, watched
from genbench.networks.pixelcnn import GatedPixelCNN
from genbench.samplers.pixelcnn import draw


def test_progress_of_a_pixelcnns_rows_is_passed_to_the_caller():
    seen = []

    def wrap(items):
        for item in items:
            yield item
            seen.append(item)

    net, u = GatedPixelCNN(2, 1, width=2, layers=1, kernel=3), torch.rand(2, 1, 3, 4)
    with watched(wrap):
        found = draw(net, u)
    assert seen == [0, 1, 2] and torch.equal(found, draw(net, u)) and len(seen) == 3


def test_an_error_inside_resets_the_wrapper():
    with pytest.raises(KeyError), watched(lambda items: []):
        raise KeyError
    assert list(steps([1, 2])) == [1, 2]
