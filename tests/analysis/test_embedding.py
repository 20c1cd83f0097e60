"""Maps of codes: against the singular value decomposition, and by what a map must keep."""

import sys

import pytest
import torch

from genbench.analysis import embedding
from genbench.analysis.clustering import neighbor_accuracy
from genbench.analysis.embedding import embed
from genbench.core.errors import UserError


def blobs(each=40, dims=8):
    generator = torch.Generator().manual_seed(0)
    label = torch.arange(3).repeat_interleave(each)
    return 8 * torch.eye(3, dims)[label] + torch.randn(len(label), dims, generator=generator), label


def test_pca_gives_the_first_two_principal_components():
    x, _ = blobs()
    centered = x.double() - x.double().mean(0)
    u, s, _ = torch.linalg.svd(centered, full_matrices=False)
    expected, found = u[:, :2] * s[:2], embed(x, "pca").double()
    assert torch.allclose(found.abs(), expected.abs(), atol=1e-4)  # a component has no sign


@pytest.mark.parametrize("method", ["tsne", "umap"])
def test_a_map_keeps_separate_groups_separate_and_follows_from_the_seed(method):
    x, label = blobs()
    found = embed(x, method, perplexity=10, seed=1)
    assert found.shape == (120, 2) and found.dtype == torch.float32 and bool(found.isfinite().all())
    assert neighbor_accuracy(found[::2], label[::2], found[1::2], label[1::2]) > 0.95
    assert torch.equal(found, embed(x, method, perplexity=10, seed=1))


def test_codes_of_any_shape_are_flattened():
    x, _ = blobs()
    assert torch.equal(embed(x.reshape(-1, 2, 2, 2), "pca"), embed(x, "pca"))


def test_progress_grows_to_the_end_and_does_not_change_the_map(capsys):
    x, _ = blobs()
    seen = []
    found = embed(x, "tsne", perplexity=10, progress=seen.append)
    assert seen == sorted(seen) and seen[-1] == 1 and len(seen) >= 10
    assert torch.equal(found, embed(x, "tsne", perplexity=10))
    assert capsys.readouterr().out == ""


def test_one_latent_dimension_is_drawn_on_a_line():
    found = embed(torch.arange(10.0)[:, None], "pca")
    assert torch.allclose(found[:, 1], torch.zeros(10), atol=1e-6)
    assert torch.allclose(found[:, 0].diff().abs(), torch.ones(9), atol=1e-5)


@pytest.mark.parametrize("method", ["pca", "tsne", "umap"])
def test_few_images_and_equal_images_have_a_map(method):
    count = embedding.LEAST
    assert embed(torch.randn(count, 60), method, perplexity=2).shape == (count, 2)
    assert bool(embed(torch.ones(count, 3), method, perplexity=2).isfinite().all())


def test_bad_input_is_refused():
    with pytest.raises(UserError, match="at least 5 images; got 4"):
        embed(torch.randn(4, 3), "pca")
    with pytest.raises(UserError, match="below 20"):
        embed(torch.randn(20, 3), "tsne")
    with pytest.raises(UserError, match="indices"):
        embed(torch.zeros(20, 3, dtype=torch.int64), "pca")
    with pytest.raises(UserError, match="NaN"):
        embed(torch.full((20, 3), torch.nan), "pca")


def test_a_missing_umap_is_a_sentence_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "umap", None)
    monkeypatch.setattr(embedding, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r'pip install "genbench\[umap\]"'):
        embed(torch.randn(20, 3), "umap")
