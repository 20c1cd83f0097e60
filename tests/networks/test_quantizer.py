"""The codebook is updated as k-means updates its centers, and the gradient passes straight through."""

import pytest
import torch
from sklearn.cluster import KMeans

from genbench.networks.quantizer import Quantizer


def maps(n=64, dim=2, seed=0):
    torch.manual_seed(seed)
    return torch.randn(n, dim, 2, 2)


def flat(z):
    return z.movedim(1, -1).flatten(0, -2)


def test_the_nearest_vector_is_that_of_smallest_distance():
    quantizer, z = Quantizer(7, 2), maps()
    quantizer.vectors.normal_()
    expected = torch.cdist(flat(z), quantizer.vectors).argmin(1)
    assert torch.equal(quantizer.nearest(z).flatten(), expected)
    torch.testing.assert_close(flat(quantizer.look_up(quantizer.nearest(z))), quantizer.vectors[expected])


def test_a_moving_average_with_decay_0_is_a_k_means_step():
    z, quantizer = maps(), Quantizer(5, 2, decay=0.0)
    start = flat(z)[:5].clone()
    quantizer.vectors.copy_(start)
    for steps in (1, 2, 3):
        quantizer.learn(z, quantizer.nearest(z))
        theirs = KMeans(5, init=start.numpy(), n_init=1, max_iter=steps, algorithm="lloyd", tol=0).fit(flat(z).numpy())
        torch.testing.assert_close(quantizer.vectors, torch.from_numpy(theirs.cluster_centers_), rtol=1e-5, atol=1e-5)


def test_the_moving_average_is_that_of_counts_and_sums():
    z, quantizer = maps(), Quantizer(3, 2, decay=0.9)
    quantizer.vectors.copy_(flat(z)[:3])
    quantizer.sum.copy_(quantizer.vectors)
    code = quantizer.nearest(z).flatten()
    count = torch.stack([(code == k).sum() for k in range(3)]).float()
    total = torch.stack([flat(z)[code == k].sum(0) for k in range(3)])
    expected = (0.9 * quantizer.sum + 0.1 * total) / (0.9 * quantizer.count + 0.1 * count)[:, None]
    quantizer.learn(z, code.view(64, 2, 2))
    torch.testing.assert_close(quantizer.vectors, expected)


@pytest.mark.parametrize("codebook", ["ema", "gradient"])
def test_the_gradient_passes_straight_through(codebook):
    z, quantizer = maps().requires_grad_(), Quantizer(5, 2, codebook)
    out, code, terms = quantizer(z)
    weight = torch.randn_like(z)
    (out * weight).sum().backward()
    torch.testing.assert_close(z.grad, weight)
    torch.testing.assert_close(out.detach(), quantizer.look_up(code).detach())
    assert set(terms) == ({"commitment"} if codebook == "ema" else {"commitment", "codebook"})


def test_both_terms_are_the_squared_distance_with_gradient_to_one_side_each():
    z, quantizer = maps().requires_grad_(), Quantizer(5, 2, "gradient")
    _, code, terms = quantizer(z)
    distance = (flat(z) - quantizer.vectors[code.flatten()]).square().mean()
    for name, moved, still in (("commitment", z, quantizer.vectors), ("codebook", quantizer.vectors, z)):
        assert terms[name].item() == pytest.approx(distance.item(), rel=1e-5)
        a, b = torch.autograd.grad(terms[name], (moved, still), retain_graph=True, allow_unused=True)
        assert a.abs().sum() > 0 and b is None


def test_perplexity_counts_the_codes_in_use():
    quantizer = Quantizer(8, 2, decay=0.0)
    for used in (1, 4, 8):
        quantizer.learn(torch.zeros(2, 2, 4, 8), torch.arange(64).view(2, 4, 8) % used)
        assert quantizer.perplexity.item() == pytest.approx(used, rel=1e-5)


@pytest.mark.parametrize("codebook", ["ema", "gradient"])
def test_dead_codes_are_replaced_by_encoder_outputs_and_others_stay(codebook):
    quantizer, z = Quantizer(4, 2, codebook, decay=0.0), maps() + 5
    before = quantizer.vectors.detach().clone()
    quantizer.learn(torch.zeros(1, 2, 2, 2), torch.tensor([[[0, 0], [1, 1]]]))
    if codebook == "ema":
        before = quantizer.vectors.clone()
    assert quantizer.restart_dead_codes(z, torch.tensor([0.0, 0.3, 0.6, 0.999]), least=0.1).item() == 2
    vectors = quantizer.vectors.detach()
    assert torch.equal(vectors[:2], before[:2])
    for k in (2, 3):
        assert (flat(z) == vectors[k]).all(1).any()


def test_restarting_codes_does_not_change_the_usage_statistics():
    quantizer, code = Quantizer(64, 2), torch.arange(64).view(1, 8, 8) % 4
    seen = []
    for step in range(1, 801):
        z = torch.randn(1, 2, 8, 8)
        quantizer.learn(z, code)
        if step % 100 == 0:
            quantizer.restart_dead_codes(z, torch.rand(64), least=0.1)
            seen.append((quantizer.codebook_usage.item(), quantizer.perplexity.item()))
    assert seen[-1] == (4 / 64, pytest.approx(4, rel=0.05)) and seen[-2][0] == 4 / 64


def test_an_unused_vector_does_not_move():
    quantizer = Quantizer(2, 2, decay=0.5)
    before = quantizer.vectors[1].clone()
    for _ in range(300):
        quantizer.learn(torch.randn(1, 2, 2, 2), torch.zeros(1, 2, 2, dtype=torch.int64))
    torch.testing.assert_close(quantizer.vectors[1], before)
