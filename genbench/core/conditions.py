"""Conditions of a conditional model: classes by name or number, captions, and the default for samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from genbench.core.batch import Batch, DataSpec, per_image, to_tokens
from genbench.core.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from genbench.core.module import GenerativeModule


def class_number(given: int | str, classes: Sequence[str], setting: str) -> int:
    """The number of a class that is given by its name or, if no class has that name, by its number.

    Raises:
        UserError: there is no such class; the message begins with `setting`.
    """
    if str(given) in classes:
        return list(classes).index(str(given))
    if str(given).isdecimal() and len(str(given)) < 10 and int(given) < len(classes):
        return int(given)
    listed = ", ".join(classes[:20]) + (" ..." if len(classes) > 20 else "")
    raise UserError(
        f"{setting}: there is no class '{given}'. Choose from: {listed}.{did_you_mean(str(given), classes)}"
    )


def of_class(n: int, given: int | str, spec: DataSpec, setting: str) -> Tensor:
    """The condition of n images of one class, int64 [n]; `given` and errors as in `class_number`."""
    return torch.full((n,), class_number(given, spec.classes, setting))


def of_caption(n: int, caption: str, spec: DataSpec) -> Tensor:
    """The condition of n images of one caption, int64 [n, L].

    Raises:
        UserError: the vocabulary lacks a word of the caption, or it is too long.
    """
    return torch.tensor(to_tokens(caption, spec.vocabulary, spec.caption_length)).expand(n, -1)


def in_turn(module: GenerativeModule, n: int, real: Batch | None = None) -> Tensor | None:
    """Conditions for `n` samples; None for an unconditional model.

    int64 labels [n]: 0, 1, ..., K - 1, 0, ...; or the captions [n, L] of real images, repeated.
    """
    if not module.conditional:
        return None
    place = torch.arange(n, device=module.device)
    if module.spec.target == "caption":
        assert real is not None and real.caption is not None, "captions come from real images"
        return real.caption.to(module.device)[place % len(real)]
    return place % len(module.spec.classes)


def columns(module: GenerativeModule) -> int | None:
    """Columns of a grid of samples: one per class for at most 16 classes; None for a square grid."""
    by_class = module.conditional and module.spec.target == "label" and len(module.spec.classes) <= 16
    return len(module.spec.classes) if by_class else None


def of_batch(module: GenerativeModule, batch: Batch, dropout: float = 0.0) -> Tensor | None:
    """The condition of a training batch, labels [B] or captions [B, L]; None for an unconditional model.

    dropout  share of the images that get the null condition, see `null`
    """
    if not module.conditional:
        return None
    if module.spec.target == "caption":
        assert batch.caption is not None, "the data's target is `caption`"
        condition = batch.caption
    else:
        condition = module.labels_of_all(batch)
    if dropout == 0:
        return condition
    dropped = per_image(module.draw(torch.rand, len(condition)) < dropout, condition)
    nulls = null(condition, module.spec)
    assert nulls is not None, "there is a condition"
    return torch.where(dropped, nulls, condition)


def null(condition: Tensor | None, spec: DataSpec) -> Tensor | None:
    """The null condition of classifier-free guidance (Ho & Salimans 2022), in the shape of `condition`: the label K,
    which is no class, or captions of padding alone."""
    if condition is None:
        return None
    return torch.full_like(condition, 0 if condition.ndim == 2 else len(spec.classes))


def refuse_unused(conditional: bool, dropout: float, default: float = 0.1) -> None:
    """Raise UserError if `condition_dropout` was set for an unconditional model; 0 drops nothing there."""
    if not conditional and dropout not in (0, default):
        raise UserError(
            f"model.condition_dropout is {dropout:g}, but this model is unconditional. Set `--model.conditional true`, "
            "or remove `--model.condition_dropout`."
        )


def refuse_without(spec: DataSpec) -> None:
    """Raise UserError if the data has no labels or captions to condition a model on."""
    if spec.target not in ("label", "caption") or (spec.target == "caption" and not spec.caption_length):
        raise UserError(
            "model.conditional is true, but this data has no labels, and no captions of a common length. Choose other "
            "data, or set `--model.conditional false`."
        )
