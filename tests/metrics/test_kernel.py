"""The kernel distance against torch-fidelity, subset by subset."""

import pytest
import torch
from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, KEY_METRIC_KID_STD, kid_features_to_metric

from genbench.core.errors import UserError
from genbench.metrics import kernel
from genbench.metrics.kernel import kernel_distance


def torch_fidelitys(fake, real, subsets, subset_size, seed=2020):
    found = kid_features_to_metric(
        fake, real, kid_subsets=subsets, kid_subset_size=subset_size, rng_seed=seed, verbose=False
    )
    return found[KEY_METRIC_KID_MEAN], found[KEY_METRIC_KID_STD]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("n", "m", "subsets", "size"), [(120, 90, 50, 40), (400, 500, 7, 30), (60, 60, 3, 60)])
def test_it_equals_torch_fidelitys(n, m, subsets, size, dtype):
    fake, real = 1.2 * torch.randn(n, 32, dtype=dtype) + 0.2, torch.randn(m, 32, dtype=dtype)
    ours, theirs = kernel_distance(fake, real, subsets, size), torch_fidelitys(fake, real, subsets, size)
    assert ours == pytest.approx(theirs, rel=1e-5, abs=1e-6)


def test_it_equals_torch_fidelitys_for_any_seed():
    fake, real = torch.randn(2, 80, 8, dtype=torch.float64)
    ours = kernel_distance(fake, real, 5, 20, seed=7)
    assert ours == pytest.approx(torch_fidelitys(fake, real, 5, 20, seed=7), rel=1e-9)
    assert ours != kernel_distance(fake, real, 5, 20)


@pytest.mark.parametrize("block", [7, 1024])
def test_one_matrix_for_all_subsets_and_one_for_each_give_the_same(block, monkeypatch):
    monkeypatch.setattr(kernel, "BLOCK", block)
    x, y = torch.randn(50, 6), torch.randn(40, 6)
    of_x, of_y = (torch.stack([torch.randperm(n)[:20] for _ in range(8)]) for n in (50, 40))
    whole, each = (way(x, of_x, y, of_y) for way in (kernel._sums_of_whole, kernel._sums_of_each))
    torch.testing.assert_close(whole, each, rtol=1e-12, atol=0)


def test_the_method_with_fewer_multiplications_is_used(monkeypatch):
    taken = []
    for way in ("_sums_of_whole", "_sums_of_each"):
        monkeypatch.setattr(kernel, way, lambda x, *_, way=way: taken.append(way))
    rows = torch.zeros(100, 20, dtype=torch.long)
    for n in (100, 1000):
        kernel._sums(torch.zeros(n, 64), rows, torch.zeros(n, 64), rows)
    assert taken == ["_sums_of_whole", "_sums_of_each"]


def test_it_is_near_zero_for_one_distribution_and_grows_with_the_shift():
    real, fake = torch.randn(2, 300, 16)
    same, near, far = (kernel_distance(fake + shift, real, 20, 100)[0] for shift in (0, 0.2, 1))
    assert abs(same) < 0.01 and near > 2 * abs(same) and far > 10 * near


def test_too_few_or_non_finite_features_are_errors():
    with pytest.raises(UserError, match=r"subsets of 50 \(`--kid-subset-size`\) needs at least 50 real images; got 40"):
        kernel_distance(torch.randn(60, 4), torch.randn(40, 4), subset_size=50)
    with pytest.raises(UserError, match="those of 1 of 60"):
        kernel_distance(torch.randn(60, 4).index_fill(0, torch.tensor(3), torch.inf), torch.randn(60, 4), 2, 50)
