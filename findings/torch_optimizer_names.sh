#!/usr/bin/env bash
# An optimizer that knows the names of its parameters still takes a checkpoint by position, and then takes its names
# too.
#
# Expected: torch.optim.Adam(model.named_parameters()) stores names in its state, so load_state_dict gives each moment
# to the parameter of that name, as a module's load_state_dict does, or raises.
# Seen: the order alone counts. If two layers of one shape were exchanged in the model's __init__, the weights go to
# the right layers and Adam's moments go to the wrong ones, without a warning. Afterwards the optimizer's param_names
# are those of the checkpoint, so that they no longer name its own parameters and the exchange cannot be seen in them.
# Why it matters: reordering attributes of a model looks harmless, loads with strict=True, and spoils a resumed
# training.
#
# Measured on 2026-11-28 with torch 2.13.0 (2.14.1 behaves the same), Python 3.11.
# Output seen: first moments saved: encoder 0.1, decoder 10.0; after loading: decoder 0.1, encoder 10.0; the optimizer
#   calls its parameters encoder.weight, decoder.weight, but they are decoder.weight, encoder.weight
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet 'torch==2.13.0' 'numpy==2.4.6'
cd "$folder"
venv/bin/python - <<'PY'
import warnings

import torch


def build(*layers: str):
    model = torch.nn.Module()
    for layer in layers:
        model.add_module(layer, torch.nn.Linear(2, 2, bias=False))
    return model, torch.optim.Adam(model.named_parameters(), lr=0.1)


def moments(model, optimizer) -> dict[str, float]:
    return {name: round(optimizer.state[p]["exp_avg"][0, 0].item(), 3) for name, p in model.named_parameters()}


model, optimizer = build("encoder", "decoder")
(model.encoder.weight.sum() + 100 * model.decoder.weight.sum()).backward()
optimizer.step()
saved = moments(model, optimizer)
assert saved == {"encoder.weight": 0.1, "decoder.weight": 10.0}, saved

other, resumed = build("decoder", "encoder")
with warnings.catch_warnings():
    warnings.simplefilter("error")
    other.load_state_dict(model.state_dict(), strict=True)
    resumed.load_state_dict(optimizer.state_dict())
assert torch.equal(other.encoder.weight, model.encoder.weight)
loaded = moments(other, resumed)
assert loaded == {"decoder.weight": 0.1, "encoder.weight": 10.0}, loaded
said = resumed.param_groups[0]["param_names"]
true = [name for name, _ in other.named_parameters()]
assert said == ["encoder.weight", "decoder.weight"] and true == ["decoder.weight", "encoder.weight"], (said, true)
print(
    "first moments saved: encoder 0.1, decoder 10.0; after loading: decoder 0.1, encoder 10.0; "
    f"the optimizer calls its parameters {', '.join(said)}, but they are {', '.join(true)}"
)
PY
