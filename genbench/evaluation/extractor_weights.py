"""Weights of extractors that are not shipped with the package: where they are published, and how to read them
safely."""

from __future__ import annotations

import hashlib
import os
import socket
from pathlib import Path

import torch
from torch import Tensor, nn

from genbench.core.errors import UserError
from genbench.data.module import data_root

# extractors whose weights are downloaded: file, URL of its folder, and the first digits of its SHA-256
PUBLISHED = {
    "inception": (
        "weights-inception-2015-12-05-6726825d.pth",
        "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/",
        "6726825d",
    ),
    "dinov2": (
        "dinov2_vitb14_pretrain.pth",
        "https://dl.fbaipublicfiles.com/dinov2/dinov2_vitb14/",
        None,
    ),
}


def find_weights(name: str, root: Path | None = None) -> Path | None:
    """The file of the published weights, below the data root or in torch's cache; None if it was not downloaded yet."""
    file = PUBLISHED[name][0]
    places = [Path(torch.hub.get_dir()) / "checkpoints" / file]
    if root is not None:
        places.insert(0, root / "extractors" / file)
    return next((place for place in places if place.is_file()), None)


def fetch_weights(name: str, root: Path) -> Path:
    """Download published weights to the data root. Returns the file.

    Raises:
        UserError: the download failed. The message contains the file, its URL and where to save it.
    """
    file, source, prefix = PUBLISHED[name]
    target = root / "extractors" / file
    patience = socket.getdefaulttimeout()
    socket.setdefaulttimeout(10)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(source + file, str(target), hash_prefix=prefix)
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"The weights of the extractor '{name}' were not found and could not be downloaded ({error}). Download "
            f"{source}{file}, and save it as {target} or pass its path with `--extractor.weights`. A different "
            "extractor, such as vgg-random, which needs no weights, gives a different protocol."
        ) from error
    finally:
        socket.setdefaulttimeout(patience)
    return target


def published(name: str, weights: str | os.PathLike | None, root: Path | None) -> tuple[dict[str, Tensor], bool]:
    """The weights, and whether their file has the published hash. True if no hash is published."""
    path = Path(weights) if weights else find_weights(name, root) or fetch_weights(name, root or data_root(None))
    state = safe_load(path, name)
    return state, hashlib.sha256(path.read_bytes()).hexdigest().startswith(PUBLISHED[name][2] or "")


def safe_load(path: Path, name: str) -> dict[str, Tensor]:
    if not path.is_file():
        raise UserError(f"--extractor.weights {path}: the file does not exist.")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file can fail anywhere in the reader
        why = str(error).partition("\n")[0] or type(error).__name__
        raise UserError(f"{path} does not contain weights of the extractor '{name}' ({why}).") from error
    return state


def load_into(network: nn.Module, state: dict[str, Tensor], name: str) -> nn.Module:
    try:
        network.load_state_dict(state)
    except (RuntimeError, TypeError, AttributeError) as error:
        lines = str(error).splitlines()
        raise UserError(f"The weights do not fit the extractor '{name}': {' '.join(lines[:2])[:300]}") from error
    return network
