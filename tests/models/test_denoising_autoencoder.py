"""DenoisingAutoencoder: its input is corrupted and its target is not."""

import pytest
import torch

from genbench.core.batch import Batch, DataSpec
from genbench.core.errors import UserError
from genbench.models import DenoisingAutoencoder

SPEC = DataSpec((1, 16, 16))


def test_a_fraction_above_one_is_rejected():
    with pytest.raises(UserError, match="model.amount is 1.5; as a fraction of the pixels it must be at most 1"):
        DenoisingAutoencoder(SPEC, corruption="masking", amount=1.5)


def test_the_input_is_corrupted_and_the_target_is_the_clean_image():
    module = DenoisingAutoencoder(SPEC, corruption="masking", amount=0.5, latent_dim=4, network="mlp", hidden=[8])
    seen = []
    module.encoder.register_forward_pre_hook(lambda net, inputs: seen.append(inputs[0]))
    x = torch.rand(6, 1, 16, 16)
    module.draw.seed("test")
    found = module.validation_step(Batch(x), 0)
    assert (seen[0] == -1).float().mean().item() == pytest.approx(0.5, abs=0.06)
    torch.testing.assert_close(found["spoilt_mse"], (seen[0] - x).square().flatten(1).mean(1))
    torch.testing.assert_close(found["denoised_mse"], (module.reconstruct(seen[0]) - x).square().flatten(1).mean(1))
