#!/usr/bin/env bash
# torch.export keeps a torch.Generator that `forward` creates and drops its seed: a network that always adds the same
# noise becomes a program that adds different noise at every call.
#
# Expected: a forward pass that seeds its own generator is deterministic, so the exported program gives the same output
# at every call; or the export fails.
# Seen: torch.export.export (non-strict, the default) stores the Generator as a constant of the program and leaves
# `manual_seed` out of the graph, without a warning. The first call equals the network, later calls do not, also after
# `save` and `load`. With strict=True the export fails.
# Why it matters: networks with fixed noise (dropout masks, noise inputs) pass a check that compares one batch and differ
# from the second batch on. genbench replaces such draws by constants before it exports, and checks two batches.
#
# Measured on 2026-11-29 with torch 2.14.1, Python 3.11.
# Output seen: network: equal calls; program: first call equal to the network, second call different; loaded program: the
#   same; strict: the export fails
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet 'torch==2.14.1' 'numpy==2.4.6'
cd "$folder"
venv/bin/python - <<'PY'
import io
import logging
import warnings

import torch

warnings.simplefilter("ignore")
logging.disable(logging.WARNING)


class Noisy(torch.nn.Module):
    def forward(self, x):
        generator = torch.Generator().manual_seed(1)
        return x + torch.rand(1, 2, generator=generator)


x, network = torch.zeros(3, 2), Noisy()
assert torch.equal(network(x), network(x))

exported = torch.export.export(network, (x,))
file = io.BytesIO()
torch.export.save(exported, file)
file.seek(0)
for program in (exported.module(), torch.export.load(file).module()):
    first, second = program(x), program(x)
    assert torch.equal(first, network(x)), (first, network(x))
    assert not torch.equal(second, network(x)), second
try:
    torch.export.export(network, (x,), strict=True)
except Exception as error:
    failed = type(error).__name__
else:
    raise AssertionError("strict=True no longer fails")
print(
    "network: equal calls; program: first call equal to the network, second call different; loaded program: the same; "
    "strict: the export fails"
)
PY
