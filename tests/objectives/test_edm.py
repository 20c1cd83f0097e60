"""EDM's preconditioning and loss, term by term, as in table 1 of Karras et al. 2022."""

import pytest
import torch

from genbench.objectives.edm import Preconditioning
from tests.objectives.test_diffusion import Fixed


@pytest.mark.parametrize("sigma_data", [0.5, 1.4])
def test_the_denoiser_is_equation_7_with_the_coefficients_of_table_1(sigma_data):
    x, sigma = torch.randn(4, 1, 2, 2).double(), torch.tensor([0.002, 0.3, 2.0, 80.0]).double()
    seen = []

    def net(x, time):
        seen.append((x, time))
        return torch.sin(x) + 1

    found = Preconditioning(sigma_data).denoise(net, x, sigma)
    for k, s in enumerate(sigma.tolist()):
        c_skip = sigma_data**2 / (s**2 + sigma_data**2)
        c_out = s * sigma_data / (sigma_data**2 + s**2) ** 0.5
        c_in = 1 / (s**2 + sigma_data**2) ** 0.5
        torch.testing.assert_close(seen[0][0][k], c_in * x[k])
        torch.testing.assert_close(seen[0][1][k], torch.tensor(s).double().log() / 4)
        torch.testing.assert_close(found[k], c_skip * x[k] + c_out * (torch.sin(c_in * x[k]) + 1))


def test_the_loss_is_equation_8_with_the_weight_and_noise_of_table_1():
    edm = Preconditioning(0.5)
    x, noise, normal = torch.randn(5, 3).double(), torch.randn(5, 3).double(), torch.randn(5).double()
    found = edm.loss(lambda x, time: torch.cos(x), x, Fixed(normal, noise))
    sigma = torch.exp(-1.2 + 1.2 * normal)
    weight = (sigma**2 + 0.25) / (0.5 * sigma) ** 2
    denoised = edm.denoise(lambda x, time: torch.cos(x), x + sigma[:, None] * noise, sigma)
    torch.testing.assert_close(found["mse"], weight * (denoised - x).square().mean(1))


def test_input_and_target_of_the_network_have_unit_variance_and_equal_weight():
    """The purpose of the coefficients (appendix B.6): for data of standard deviation sigma_data."""
    edm = Preconditioning(1.4)
    x, noise = 1.4 * torch.randn(200_000).double(), torch.randn(200_000).double()
    for s in (0.05, 1.0, 20.0):
        sigma, noisy = torch.tensor([s]).double(), x + s * noise
        out = edm.denoise(lambda x, time: 0 * x + 1, torch.zeros(1, 1).double(), sigma).item()
        skip = edm.denoise(lambda x, time: 0 * x, torch.ones(1, 1).double(), sigma).item()
        into = (edm.denoise(lambda x, time: x, noisy[None], sigma)[0] - skip * noisy) / out
        assert into.std().item() == pytest.approx(1, abs=0.01)
        assert ((x - skip * noisy) / out).std().item() == pytest.approx(1, abs=0.01)
        weight = (s**2 + 1.4**2) / (s * 1.4) ** 2
        assert weight * out**2 == pytest.approx(1)


def test_half_precision_images_are_denoised_in_float32():
    found = Preconditioning().denoise(lambda x, time: x.half(), torch.randn(2, 3).half(), torch.ones(2))
    assert found.dtype == torch.float32
