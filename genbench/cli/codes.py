"""Files of latent codes: .npz with the model that the codes belong to, or .npy."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genbench.core import files
from genbench.core.errors import UserError, dimensions

if TYPE_CHECKING:
    from torch import Tensor


def write_codes(path: Path, codes: Tensor, model: Any, names: Sequence[str]) -> None:
    """Write codes [N, *latent] as .npz, with the names of their images and a hash of the model's weights."""
    import numpy as np

    from genbench.evaluation.extractor import state_hash

    owner = state_hash(model.state_dict())
    arrays: dict[str, Any] = {"codes": codes.cpu().numpy(), "names": np.array(names), "model": np.array(owner)}
    files.write(path, lambda file: np.savez_compressed(file, **arrays))


def read_codes(path: str | Path, model: Any) -> Tensor:
    """Read the codes [N, *latent] of a model.

    Raises:
        UserError: the file cannot be read; its codes do not have the model's shape, are not finite, or belong to a
            different model.
    """
    import numpy as np
    import torch

    from genbench.evaluation.extractor import state_hash

    path = Path(path).expanduser()
    name, expected = type(model).__name__, tuple(model.latent_shape)
    if not path.is_file():
        what = f"; it is {files.kind_of(path)}" if path.exists() else ""
        raise UserError(f"There is no file of codes at {path}{what}.{files.near_by(path) if not what else ''}")
    try:
        found: Any = np.load(path, allow_pickle=False)
        if isinstance(found, np.lib.npyio.NpzFile):
            with found:
                codes, owner = found["codes"], str(found["model"]) if "model" in found else None
        else:
            codes, owner = found, None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        why = str(error).splitlines()[0] if str(error) else "it is damaged"
        if "pickle" in why:  # NumPy says so of any file that is neither .npy nor .npz, and advises to load it unsafely
            why = "it contains no array of numbers"
        raise UserError(
            f"{path} is not a file of codes ({why}). Use the `codes.npz` of `latents project`, or a .npy of floats."
        ) from error
    if codes.dtype.kind != "f" or codes.shape[1:] != expected or not len(codes):
        raise UserError(
            f"{path} contains {codes.dtype} of the shape {dimensions(codes.shape[::-1]) or 'of a single number'}, but "
            f"the codes of this {name} are floats of the shape N×{'×'.join(map(str, expected))}. Use the codes of this "
            "model."
        )
    if owner is not None and owner != state_hash(model.state_dict()):
        raise UserError(
            f"{path} contains codes of a different model: the weights of {model.origin[0] if model.origin else name} "
            "differ from those that it was written for. Use the same checkpoint, with `--raw` or `--ema` as before."
        )
    with np.errstate(over="ignore"):
        codes = codes.astype(np.float32)
    if not np.isfinite(codes).all():
        raise UserError(f"{path} contains codes that are not finite in float32. Write them again.")
    return torch.from_numpy(codes).to(model.device)
