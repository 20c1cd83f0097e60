#!/usr/bin/env bash
# torchmetrics' merge_state ignores the incoming value of a state with dist_reduce_fx="mean" after one update, and
# refuses a subclass that leaves full_state_update at its default.
#
# Expected: merging two metrics with one update each gives the mean of their two "mean" states, as synchronization of two
# processes does. A subclass that sets neither full_state_update nor dist_sync_on_step can be merged.
# Seen: the merged state is ((u - 1) * incoming + own) / u, where u counts the updates of the own metric alone. After one
# update the incoming state has weight 0, after two it has weight 1/2, after three 2/3, whatever it was made from. And a
# subclass that does not set full_state_update (its default is None) is refused with a message about
# "full_state_update=True", which nobody set.
# Why it matters: evaluations that merge the metrics of several workers report the value of the first worker.
#
# Measured on 2026-11-29 with torchmetrics 1.9.0, torch 2.14.1, Python 3.11.
# Output seen: own 1, incoming 0: merged 1.000 after 1 update, 0.500 after 2, 0.333 after 3; a plain subclass is refused
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet 'torch==2.14.1' 'torchmetrics==1.9.0' 'numpy==2.4.6'
cd "$folder"
venv/bin/python - <<'PY'
import torch
from torchmetrics import Metric


class Plain(Metric):
    """Keeps the mean of the values that it saw last."""

    def __init__(self):
        super().__init__()
        self.add_state("value", torch.tensor(0.0), dist_reduce_fx="mean")

    def update(self, values):
        self.value = values.mean()

    def compute(self):
        return self.value


class Mergeable(Plain):
    full_state_update = False


def merged(updates: int) -> float:
    own, incoming = Mergeable(), Mergeable()
    for _ in range(updates):
        own.update(torch.ones(4))
    incoming.update(torch.zeros(4))
    own.merge_state(incoming)
    return own.compute().item()


found = [merged(updates) for updates in (1, 2, 3)]
assert [round(value, 3) for value in found] == [1.0, 0.5, 0.333], found
one, two = Plain(), Plain()
one.update(torch.ones(4))
two.update(torch.zeros(4))
try:
    one.merge_state(two)
except RuntimeError as error:
    assert "full_state_update=True" in str(error) and Plain.full_state_update is None
else:
    raise AssertionError("a subclass with the default full_state_update was merged")
print(
    f"own 1, incoming 0: merged {found[0]:.3f} after 1 update, {found[1]:.3f} after 2, {found[2]:.3f} after 3; "
    "a plain subclass is refused"
)
PY
