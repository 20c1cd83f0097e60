#!/usr/bin/env bash
# Whether a resumed LambdaLR follows the new schedule depends on how the Python callable was written.
#
# Expected: scheduler.load_state_dict restores where the schedule stands. The formula is code and comes from the
# program that runs now, so a run that is resumed with a larger budget decays more slowly.
# Seen: if the formula is a lambda or a function, the new length is used. If it is an object with __call__, the numbers
# inside it are replaced by those of the checkpoint, and the old length is used, in silence. CosineAnnealingLR behaves
# as the object does: it keeps the old T_max, and past it the learning rate rises again, up to its first value.
# Why it matters: a training that is prolonged goes on at a rate that is 0, or that climbs, while its new configuration
# says otherwise.
#
# Measured on 2026-11-28 with torch 2.13.0 (2.14.1 behaves the same), Python 3.11.
# Output seen: resumed at step 5 of 10 with a new length of 100, rate of step 6: function 0.94, object 0.40; cosine
#   resumed at step 10 of 10 with T_max 100: T_max is 10, rate 10 steps later 1.00
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet 'torch==2.13.0' 'numpy==2.4.6'
cd "$folder"
venv/bin/python - <<'PY'
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR


class Linear:
    def __init__(self, length: int):
        self.length = length

    def __call__(self, step: int) -> float:
        return 1 - step / self.length


def linear(length: int):
    return lambda step: 1 - step / length


def resumed(old, new, before: int, after: int):
    """The scheduler built by `new`, given the state of one built by `old` after `before` steps; then `after` steps."""
    states = None
    for make, steps in ((old, before), (new, after)):
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        scheduler = make(optimizer)
        if states is not None:
            optimizer.load_state_dict(states[0])
            scheduler.load_state_dict(states[1])
        for _ in range(steps):
            optimizer.step()
            scheduler.step()
        states = optimizer.state_dict(), scheduler.state_dict()
    return scheduler


def lambda_rate(formula) -> float:
    old, new = (lambda optimizer, length=length: LambdaLR(optimizer, formula(length)) for length in (10, 100))
    return resumed(old, new, 5, 1).get_last_lr()[0]


rates = [lambda_rate(linear), lambda_rate(Linear)]
assert abs(rates[0] - 0.94) < 1e-9 and abs(rates[1] - 0.40) < 1e-9, rates

cosine = resumed(lambda o: CosineAnnealingLR(o, 10), lambda o: CosineAnnealingLR(o, 100), 10, 10)
assert cosine.T_max == 10 and abs(cosine.get_last_lr()[0] - 1) < 1e-6, (cosine.T_max, cosine.get_last_lr())
print(
    "resumed at step 5 of 10 with a new length of 100, "
    f"rate of step 6: function {rates[0]:.2f}, object {rates[1]:.2f}; "
    f"cosine resumed at step 10 of 10 with T_max 100: T_max is {cosine.T_max}, "
    f"rate 10 steps later {cosine.get_last_lr()[0]:.2f}"
)
PY
