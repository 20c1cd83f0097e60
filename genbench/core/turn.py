"""A player's turn in a training step: turns named loss terms into gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import TYPE_CHECKING, Any

from torch import Tensor

from genbench.core.errors import UserError

if TYPE_CHECKING:
    from genbench.core.module import GenerativeModule


class Turn:
    """One player's part of a training step; see `GenerativeModule.turn`."""

    def __init__(self, module: GenerativeModule, player: str) -> None:
        self._module, self._player = module, player
        self.backwards = 0

    def minimize(self, **terms: Tensor) -> None:
        """Add up the named loss terms (scalars) and backpropagate them into this player's gradients."""
        self.log(**terms)
        loss: Any = sum(terms.values())
        if not self.backwards and self._module._micro_batch == 1:
            # here and not after the step: memory freed at the end of a step would cause page faults in the next step
            for p in self._module._own[self._player]:
                p.grad = None
        self._module.manual_backward(loss / self._module.accumulate if self._module.accumulate > 1 else loss)
        self.backwards += 1

    def log(self, **values: Tensor) -> None:
        """Record scalars under this player's name. They are averaged until they are read, and checked for NaN."""
        for name, value in values.items():
            self._module.record(f"{self._player}/{name}", value)


def with_step(training_step: Callable) -> Callable:
    """Wrap a `training_step` so that the model's only optimizer minimizes the loss terms that it returns.

    Raises:
        UserError: it returns no loss terms and took no step, or it returns loss terms and the model has several
            optimizers.
    """

    @wraps(training_step)
    def step(self: GenerativeModule, batch: Any, batch_idx: int) -> dict[str, Tensor] | None:
        terms = training_step(self, batch, batch_idx)
        if type(self).training_step is not step:  # called by a subclass, whose own step minimizes the terms
            return terms
        if terms is None and (self._turned or len(self.players) > 1):  # training_step has taken its own steps
            return None
        if not isinstance(terms, Mapping):
            raise UserError(
                f"training_step of {type(self).__name__} returns a {type(terms).__name__}; expected a dict of loss "
                f"terms, such as {{'reconstruction': loss}}."
            )
        if len(self.players) > 1:
            raise UserError(
                f"training_step of {type(self).__name__} returns loss terms, but the model has several optimizers "
                f"({', '.join(self.players)}). Use `with self.turn(NAME) as turn: turn.minimize(...)` for each."
            )
        (player,) = self.players
        with self.turn(player) as turn:
            turn.minimize(**terms)
        return None

    return step
