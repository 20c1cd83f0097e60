"""Options of a model's methods: their choices and bounds."""

import re
from typing import Literal

import pytest

from genbench.core.arguments import Count, Share
from genbench.core.capabilities import check_options, choices
from genbench.core.errors import UserError


def test_options_outside_of_their_bounds_or_choices_are_refused():
    class Model:
        def sample(self, seeds, *, sampler: Literal["euler", "heun"] = "euler", steps: Count = 5, eta: Share = 0.0):
            return seeds

    assert choices(Model().sample) == {"sampler": ("euler", "heun")}
    check_options(Model().sample, {"sampler": "heun", "steps": 3, "eta": 0.5})
    for given, message in (
        ({"sampler": "hein"}, "sampler is 'hein'. Choose from: euler, heun. Did you mean 'heun'?"),
        ({"steps": 0}, "steps is 0; it must be at least 1."),
        ({"steps": 2.5}, "steps is 2.5; it must be a whole number."),
        ({"eta": 1.5}, "eta is 1.5; it must lie between 0 and 1."),
    ):
        with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
            check_options(Model().sample, given)
