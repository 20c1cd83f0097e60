"""The FID Inception with seeded random weights, in torch-fidelity's own file format: parity needs no download."""

from __future__ import annotations

import io
from pathlib import Path
from unittest.mock import patch

import torch
from torch import nn
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3


def write_weights(path: Path, seed: int = 0) -> Path:
    """Weights at random, batch normalisation fitted to noise images, so that signals live to the last layer."""
    empty = io.BytesIO()
    torch.save({}, empty)
    empty.seek(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        with patch.object(FeatureExtractorInceptionV3, "load_state_dict"):
            network = FeatureExtractorInceptionV3("inception-v3-compat", ["2048", "logits_unbiased"], empty)
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if isinstance(module, nn.BatchNorm2d):
                module.train().momentum = None
        with torch.no_grad():
            coarse = torch.randint(0, 256, (8, 3, 12, 12), dtype=torch.uint8)
            network(coarse.repeat_interleave(8, 2).repeat_interleave(8, 3))
            nn.init.normal_(network.fc.weight, 0, 0.5)
    torch.save(network.state_dict(), path)
    return path
