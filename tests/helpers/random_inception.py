"""The FID Inception with seeded random weights, in torch-fidelity's own file format: parity needs no download."""

from __future__ import annotations

import io
from pathlib import Path
from unittest.mock import patch

import torch
from torch import nn
from torch.nn.functional import interpolate
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3


def write_weights(path: Path, seed: int = 0) -> Path:
    """Weights at random, batch normalization fitted to noise images, features of the size that trained ones have.

    Normalized values are shifted by 1.5 standard deviations. Without the shift half of all units stand at the kink of
    their ReLU, and such a network magnifies the rounding of float32, in any memory format alike, from 3e-7 to 2e-5.
    """
    empty = io.BytesIO()
    torch.save({}, empty)
    empty.seek(0)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        with patch.object(FeatureExtractorInceptionV3, "load_state_dict"):
            network = FeatureExtractorInceptionV3("inception-v3-compat", ["2048", "logits_unbiased"], empty)
        for name, module in network.named_modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if isinstance(module, nn.BatchNorm2d):
                module.train().momentum = None
                module.bias.fill_(1.5)
                if name.startswith("Mixed_7c"):  # the last: features of about 0.5
                    module.weight.div_(3)
                    module.bias.div_(3)
        noise = [interpolate(torch.randint(0, 256, (4, 3, n, n)).float(), (96, 96)) for n in (4, 8, 16, 32)]
        network(torch.cat(noise).to(torch.uint8))
        nn.init.normal_(network.fc.weight, 0, 0.3)
    torch.save(network.state_dict(), path)
    return path
