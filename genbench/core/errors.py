"""Errors and warnings for the user."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress


class UserError(Exception):
    """An error that the user can fix: the message says what was given, what was expected and what to do.

    The command line prints the message without a traceback and exits with 2.
    """


class NonFiniteLoss(UserError):
    """A loss term became NaN or infinite. The message names the optimizer, the term and the images seen."""


class LostProcess(UserError):
    """A process of a run on several devices ended, and the others cannot continue without it."""


class Interrupted(Exception):
    """A signal stopped training, and a checkpoint was saved."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by signal {signum}")
        self.signum = signum


def warn(text: str) -> None:
    """Print a warning to stderr."""
    with suppress(OSError):  # the terminal may be closed
        print(f"warning: {text}", file=sys.stderr, flush=True)


def reason(error: BaseException) -> str:
    """An exception as one line of text."""
    text = str(error).strip().partition("\n")[0]
    return text if isinstance(error, (OSError, UserError)) and text else f"{type(error).__name__}: {text}".rstrip(": ")


def no_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on the CPU or a GPU."""
    if isinstance(error, MemoryError):  # also NumPy's
        return True
    # PyTorch raises a RuntimeError for the CPU, and its subclass OutOfMemoryError for a GPU
    return type(error).__name__ == "OutOfMemoryError" or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    )


def refuse_below(least: float, settings: Mapping[str, float | None]) -> None:
    """Raise UserError for a setting below `least`. Keys are names as the user wrote them; None means not set."""
    for name, value in settings.items():
        if value is not None and value < least:
            raise UserError(f"{name} is {value}; it must be at least {least}.")


def refuse_seed_above_32_bits(seed: int) -> None:
    """Raise UserError for a seed that scikit-learn does not take."""
    if not 0 <= seed < 2**32:
        raise UserError(f"--seed is {seed}; it must be from 0 to {2**32 - 1}.")


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """` Did you mean 'width'?` if `given` is similar to one of `known`, else "". It ends an error message."""
    by_spelling = {name.lower().replace("-", "_"): name for name in known}
    by_spelling |= {name.lower().rpartition(".")[2]: by_spelling[name] for name in list(by_spelling) if "." in name}
    near = difflib.get_close_matches(given.lower().replace("-", "_"), by_spelling, n=1, cutoff=0.6)
    return f" Did you mean '{by_spelling[near[0]]}'?" if near else ""


def some(names: Sequence[str], most: int = 3) -> str:
    """The first names and the number of the others.

    Example:
        >>> some(["a", "b", "c", "d", "e"])
        'a, b, c and 2 more'
    """
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def counted(number: int, what: str) -> str:
    """A number with a noun in the singular or plural.

    Example:
        >>> counted(1, "image"), counted(2000, "image")
        ('1 image', '2,000 images')
    """
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def dimensions(shape: Sequence[int]) -> str:
    """[C, H, W] as text: `32×32×3`."""
    return "×".join(map(str, reversed(shape)))
