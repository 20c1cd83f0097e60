"""Paths, arithmetic and directions of codes, against SciPy, closed forms and the singular value decomposition."""

import numpy as np
import pytest
import torch
from scipy.spatial import geometric_slerp
from scipy.stats import norm
from torch import nn

from genbench.analysis.latents import (
    activation_steps,
    arithmetic,
    decode,
    encode,
    first_activations,
    interpolate,
    principal_steps,
    quantile_grid,
    traverse,
)
from genbench.core.batch import DataSpec
from genbench.core.errors import UserError
from genbench.models import DCGAN, SNGAN, VAE, ConditionalGAN, ConditionalVAE, TextConditionalGAN

LABELS = DataSpec((1, 16, 16), "label", ("zero", "one", "two"))


@pytest.mark.parametrize("path", ["linear", "spherical"])
def test_the_ends_of_a_path_are_exactly_the_ends(path):
    a, b = torch.randn(50, 3, 4), torch.randn(50, 3, 4)
    codes = interpolate(a, b, 7, path)
    assert codes.shape == (50, 7, 3, 4)
    assert torch.equal(codes[:, 0], a) and torch.equal(codes[:, -1], b)


def test_a_linear_path_is_a_straight_line_at_constant_speed():
    a, b = torch.randn(2, 5, 8, dtype=torch.float64)
    expected = np.linspace(a.numpy(), b.numpy(), 9, axis=1)
    np.testing.assert_allclose(interpolate(a, b, 9), expected, atol=1e-14)


def test_a_spherical_path_is_that_of_scipy():
    a, b = nn.functional.normalize(torch.randn(2, 20, 6, dtype=torch.float64), dim=2)
    codes = interpolate(a, b, 11, "spherical")
    for k in range(20):
        expected = geometric_slerp(a[k].numpy(), b[k].numpy(), np.linspace(0, 1, 11))
        np.testing.assert_allclose(codes[k], expected, atol=1e-12)


def test_a_spherical_path_between_gaussian_codes_keeps_their_typical_length():
    a, b = torch.randn(2, 200, 100)
    length = interpolate(a, b, 3, "spherical")[:, 1].norm(dim=1)
    straight = interpolate(a, b, 3, "linear")[:, 1].norm(dim=1)
    assert abs(length.mean() - 10) < 0.3  # the square root of the dimensions
    assert abs(straight.mean() - 50**0.5) < 0.3


@pytest.mark.parametrize("factor", [1.0, 2.0, -1.0])
def test_a_spherical_path_between_parallel_codes_is_straight(factor):
    a = torch.randn(4, 5)
    codes = interpolate(a, factor * a, 5, "spherical")
    torch.testing.assert_close(codes, interpolate(a, factor * a, 5, "linear"))


def test_a_path_of_one_step_is_refused():
    with pytest.raises(UserError, match="steps is 1; it must be at least 2"):
        interpolate(torch.zeros(1, 2), torch.ones(1, 2), 1)


def test_arithmetic_of_equal_codes_returns_the_first_exactly():
    a, b = torch.randn(1, 64), 1e3 * torch.randn(5, 64)
    assert torch.equal(arithmetic(a, b, b), a[0])


def test_arithmetic_is_the_sum_of_the_means():
    a, b, c = torch.randn(3, 7, 2, 3, dtype=torch.float64)
    torch.testing.assert_close(arithmetic(a, b, c), a.mean(0) - b.mean(0) + c.mean(0))


def test_principal_steps_are_the_eigenvectors_of_the_covariance_times_the_deviations():
    codes = torch.randn(500, 6, dtype=torch.float64) @ torch.randn(6, 6, dtype=torch.float64)
    values, vectors = np.linalg.eigh(np.cov(codes.numpy().T))
    steps = principal_steps(codes.unflatten(1, (2, 3)), 4)
    assert steps.shape == (4, 2, 3)
    for k, step in enumerate(steps.flatten(1).numpy()):
        expected = vectors[:, -1 - k] * values[-1 - k] ** 0.5
        np.testing.assert_allclose(step * np.sign(step @ expected), expected, atol=1e-8)


class Linear(nn.Module):
    """A generator whose first layer is a matrix of known singular vectors."""

    latent_shape, latent_dtype = (5,), "float32"

    def __init__(self):
        super().__init__()
        left, right = torch.linalg.qr(torch.randn(20, 5))[0], torch.linalg.qr(torch.randn(5, 5))[0]
        self.right = right
        self.first = nn.Linear(5, 20)
        self.first.weight.data = left @ torch.diag(torch.tensor([16.0, 8.0, 4.0, 2.0, 1.0])) @ right.T
        self.second = nn.Linear(20, 16)

    def decode(self, z):
        return self.second(self.first(z).relu()).unflatten(1, (1, 4, 4))


def test_directions_of_a_linear_first_layer_are_its_right_singular_vectors():
    model = Linear()
    z = torch.randn(20_000, 5)
    # with an exactly isotropic sample, nothing is left to chance
    z = (z - z.mean(0)) @ torch.linalg.inv(torch.linalg.cholesky(torch.cov(z.T))).T
    steps = activation_steps(model, z, 5)
    for k in range(5):
        assert abs(steps[k] @ model.right[:, k]) == pytest.approx(1, abs=1e-3)
        assert steps[k].norm() == pytest.approx(1, abs=1e-3)  # one standard deviation


@pytest.mark.parametrize(
    ("model", "features"),
    [
        (lambda: DCGAN(DataSpec((1, 16, 16)), latent_dim=6, width=4), 8 * 16),
        (lambda: SNGAN(DataSpec((3, 32, 32)), latent_dim=6, width=4), 4 * 16),
        (lambda: ConditionalGAN(LABELS, latent_dim=6, width=4), 8 * 16),
    ],
)
def test_the_activations_are_those_of_the_first_layer(model, features):
    model = model().eval()
    z, label = torch.randn(10, 6), torch.arange(10) % 3 if model.conditional else None
    before = [parameter.requires_grad for parameter in model.parameters()]
    found = first_activations(model, z, label, batch_size=4)
    assert found.shape == (10, features)
    assert [parameter.requires_grad for parameter in model.parameters()] == before
    given = z if label is None else torch.cat([z, nn.functional.one_hot(label, 3)], 1)
    if hasattr(model.generator, "project"):
        expected = model.generator.project(given)
    else:
        expected = model.generator[1](given[:, :, None, None]).flatten(1)
    torch.testing.assert_close(found, expected.detach())


def test_a_layer_of_the_caption_is_not_the_first_layer():
    spec = DataSpec((1, 16, 16), "caption", (), ("<pad>", "a", "red", "star"), 3)
    model = TextConditionalGAN(spec, latent_dim=6, width=4, text_dim=8).eval()
    z = torch.randn(5, 6)
    found = first_activations(model, z, torch.tensor([[1, 2, 3]]).expand(5, 3))
    assert found.std(0).min() > 0  # it differs between latents


def test_more_directions_than_dimensions_are_refused():
    with pytest.raises(UserError, match="7 principal directions of 100 codes with 6 dimensions; expected 1 to 6"):
        principal_steps(torch.randn(100, 6), 7)


def test_the_first_direction_of_a_gan_changes_the_image_more_than_the_last():
    model = Linear()
    steps = activation_steps(model, torch.randn(2000, 5), 5)
    z = torch.randn(50, 5)
    change = [(decode(model, z + 3 * s) - decode(model, z - 3 * s)).abs().mean() for s in (steps[0], steps[-1])]
    assert change[0] > 3 * change[1]


def test_traversal_moves_along_one_direction_at_a_time():
    code, steps = torch.randn(2, 3), torch.randn(4, 2, 3)
    moved = traverse(code, steps, torch.tensor([-2.0, 0.0, 1.0]))
    assert moved.shape == (4, 3, 2, 3)
    for k in range(4):
        assert torch.equal(moved[k, 1], code)
        torch.testing.assert_close(moved[k, 0], code - 2 * steps[k])
        torch.testing.assert_close(moved[k, 2], code + steps[k])


def test_the_quantile_grid_is_that_of_scipy():
    z = quantile_grid(20).numpy()
    expected = norm.ppf((np.arange(20) + 0.5) / 20)
    for row in range(20):
        np.testing.assert_allclose(z[row, :, 0], expected, rtol=1e-6)
        np.testing.assert_allclose(z[row, :, 1], expected[19 - row], rtol=1e-6)  # upward


def test_each_code_of_the_quantile_grid_stands_for_the_same_probability():
    z = quantile_grid(5).numpy()
    np.testing.assert_allclose(np.diff(norm.cdf(z[0, :, 0])), 0.2, atol=1e-6)


def test_encoding_and_decoding_pass_the_condition_only_where_it_is_taken():
    x, label = torch.rand(4, 1, 16, 16) * 2 - 1, torch.tensor([0, 1, 2, 0])
    plain, conditional = VAE(LABELS, latent_dim=3, width=4).eval(), ConditionalVAE(LABELS, latent_dim=3, width=4).eval()
    torch.testing.assert_close(encode(plain, x, label), plain.encode(x).detach())
    z = encode(conditional, x, label)
    torch.testing.assert_close(z, conditional.encode(x, condition=label).detach())
    assert not decode(conditional, z, label).requires_grad
    assert not torch.equal(decode(conditional, z, label), decode(conditional, z, (label + 1) % 3))
