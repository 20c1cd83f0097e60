"""Maps of codes: two coordinates for each code, by PCA, t-SNE or UMAP."""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from genbench.core.errors import UserError, refuse_seed_above_32_bits

Method = Literal["pca", "tsne", "umap"]
LEAST = 5  # images: with fewer, the graph of UMAP has no spectrum to start from
FIRST = 50  # principal components that t-SNE starts from (van der Maaten & Hinton 2008, section 4.2)
ITERATIONS = 1000  # of t-SNE: the default of scikit-learn, whose argument has a different name before 1.5
NEIGHBORS = 15  # of UMAP (McInnes et al. 2018, section 5)


def check(count: int, method: Method, perplexity: float = 30.0) -> None:
    """Check that `embed` can map this number of codes.

    Raises:
        UserError: there are too few codes, or umap-learn is not installed.
    """
    if method == "umap" and find_spec("umap") is None:
        raise UserError('UMAP needs the package umap-learn. Install it with `pip install "genbench[umap]"`.')
    if count < LEAST:
        raise UserError(f"A map needs at least {LEAST} images; got {count}.")
    if method == "tsne" and not 1 <= perplexity < count:
        raise UserError(
            f"--perplexity is {perplexity:g}; for {count} images it must be at least 1 and below {count}. It is "
            "roughly the number of neighbors of each image."
        )


def embed(
    codes: Tensor,
    method: Method = "tsne",
    *,
    perplexity: float = 30.0,
    seed: int = 0,
    progress: Callable[[float], object] | None = None,
) -> Tensor:
    """Codes [N, ...] -> coordinates [N, 2], float32. The same codes and seed give the same coordinates on one machine.

    Args:
        codes: Real numbers; all dimensions but the first are flattened
        method: pca (the first two principal components, whose order and scale are kept), tsne (van der Maaten & Hinton
            2008, in the Barnes-Hut approximation of scikit-learn) or umap (McInnes et al. 2018)
        perplexity: Roughly the number of neighbors of a code, for t-SNE
        progress: Called with the fraction of the iterations that are done, for t-SNE

    Raises:
        UserError: there are too few codes, a code is not finite, or umap-learn is not installed.
    """
    check(len(codes), method, perplexity)
    refuse_seed_above_32_bits(seed)
    x = as_array(codes)
    if x.shape[1] == 1:  # a second coordinate that is the same for all
        x = np.pad(x, ((0, 0), (0, 1)))
    if method == "pca":
        from sklearn.decomposition import PCA

        found = PCA(2, random_state=seed).fit_transform(x)
    elif method == "tsne":
        found = _tsne(x, perplexity, seed, progress)
    else:
        found = _umap(x, seed)
    return torch.from_numpy(np.ascontiguousarray(found, dtype=np.float32))


def as_array(codes: Tensor) -> np.ndarray:
    """Codes [N, ...] as float32 [N, D] for scikit-learn.

    Raises:
        UserError: a code is not a real number, or not finite.
    """
    if not codes.is_floating_point():
        raise UserError(
            f"Codes must be real numbers; got {codes.dtype}. Codebook indices have no distances between them."
        )
    if not bool(codes.isfinite().all()):
        raise UserError("Some codes are NaN or infinite. Check the images and the checkpoint.")
    return codes.detach().float().cpu().flatten(1).numpy()


def _tsne(x: np.ndarray, perplexity: float, seed: int, progress: Callable[[float], object] | None) -> np.ndarray:
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    if min(x.shape) > FIRST:
        x = PCA(FIRST, random_state=seed).fit_transform(x)
    fit = TSNE(perplexity=perplexity, init="pca", random_state=seed, verbose=0 if progress is None else 2)
    if not x.std(0).any():
        return np.zeros((len(x), 2))  # all codes are equal
    with contextlib.ExitStack() as stack:
        if progress is not None:
            stack.enter_context(contextlib.redirect_stdout(_Iterations(progress)))
        return fit.fit_transform(x)


class _Iterations(io.TextIOBase):
    """Parses the text that scikit-learn's t-SNE prints, which is its only report of progress."""

    def __init__(self, progress: Callable[[float], object]) -> None:
        self.progress = progress

    def write(self, text: str) -> int:
        if found := re.search(r"Iteration (\d+)", text):
            self.progress(int(found[1]) / ITERATIONS)
        return len(text)


def _umap(x: np.ndarray, seed: int) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a seed allows only one thread, and that images are few
        from umap import UMAP

        # a progress bar for the epochs, on standard error
        bar = {"desc": "UMAP", "disable": None, "leave": False}
        return UMAP(n_neighbors=min(NEIGHBORS, len(x) - 1), random_state=seed, n_jobs=1, tqdm_kwds=bar).fit_transform(x)
