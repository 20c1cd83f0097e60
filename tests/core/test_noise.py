"""Noise depends only on its seed and its position."""

import torch
from scipy.stats import kstest

from genbench.core.noise import Draws, mix, per_seed


def test_the_same_seed_gives_the_same_noise_bit_for_bit_at_any_batch_size_and_order():
    seeds = torch.tensor([9, 2, 5, 2**40, 0])
    together = per_seed(torch.randn, seeds, (3, 7))
    for k in range(5):
        assert torch.equal(per_seed(torch.randn, seeds[k : k + 1], (3, 7))[0], together[k])
    assert torch.equal(per_seed(torch.randn, seeds.flip(0), (3, 7)), together.flip(0))


def test_noise_of_many_seeds_is_standard_normal_and_uncorrelated():
    z = per_seed(torch.randn, torch.arange(4000), (5,))
    assert kstest(z.flatten().numpy(), "norm").pvalue > 0.01
    correlation = torch.corrcoef(torch.cat([z[:-1], z[1:]], 1).T) - torch.eye(10)
    assert correlation.abs().max() < 0.06  # about four standard errors of 4,000 pairs


def test_no_seeds_give_no_noise():
    assert per_seed(torch.randn, torch.arange(0), (3,)).shape == (0, 3)


def test_processes_draw_the_rows_of_one_global_batch():
    whole = Draws()
    whole.seed("train", 1, 64)
    expected = whole(torch.randn, 8, 3)
    parts = []
    for rank in range(4):
        draws = Draws(rank, 4)
        draws.seed("train", 1, 64)
        parts.append(draws(torch.randn, 2, 3))
    assert torch.equal(torch.cat(parts), expected)
    assert not torch.equal(parts[0], parts[1])


def test_mix_has_fixed_values_and_distinguishes_its_parts():
    # a run resumed by a later version must draw what it would have drawn
    assert mix("train", 0, 64) == mix("train", 0, 64)
    assert mix(0) == 0xE220A8397B1DCDAF >> 1  # the first output of SplitMix64 from state 0 (Vigna's reference)
    keys = [("a", 1), ("a", 2), ("b", 1), (1, "a"), ("a", 1, 0)]
    assert len({mix(*key) for key in keys}) == len(keys)
    assert all(0 <= mix(-5, n) < 2**63 for n in range(100))
