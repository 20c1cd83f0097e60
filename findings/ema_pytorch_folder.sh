#!/usr/bin/env bash
# ema-pytorch's PostHocEMA mixes the snapshots of an earlier run into the weights of this one.
#
# Expected: a PostHocEMA object that was just built synthesizes from the snapshots that it took itself, or refuses a
# folder that already holds others.
# Seen: every .pt file in checkpoint_folder is used. The default folder has one fixed name in the working directory,
# the files are named by step alone, and a second, shorter run overwrites some and reads the rest. The weights are
# solved by least squares, so the result need not even lie between the two runs.
# Why it matters: the second of two trainings in one folder gets sampling weights that belong to neither, in silence.
#
# Measured on 2026-11-28 with ema-pytorch 0.8.3, torch 2.13.0 (2.14.1 behaves the same), Python 3.11.
# Output seen: a run whose weight is always 5 synthesizes 5.02 in a folder of its own and -0.67 in a folder where a
#   longer run had a weight of 1
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet 'torch==2.13.0' 'ema-pytorch==0.8.3' 'numpy==2.4.6'
cd "$folder"
venv/bin/python - <<'PY'
import warnings

import torch
from ema_pytorch import PostHocEMA


def synthesize(weight: float, steps: int, folder: str) -> float:
    """The weight that PostHocEMA synthesizes after training steps in which a network's one weight is constant."""
    network = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(network.weight, weight)
    ema = PostHocEMA(
        network, sigma_rels=(0.05, 0.28), update_every=1, checkpoint_every_num_steps=10, checkpoint_folder=folder
    )
    for _ in range(steps):
        ema.update()
    return ema.synthesize_ema_model(sigma_rel=0.15).ema_model.weight.item()


with warnings.catch_warnings():
    warnings.simplefilter("error")
    alone = synthesize(5.0, 30, "own")
    first = synthesize(1.0, 50, "shared")
    second = synthesize(5.0, 30, "shared")
assert abs(alone - 5) < 0.02 and abs(first - 1) < 0.02, (alone, first)
assert abs(second - -0.67) < 0.02, second
print(
    f"a run whose weight is always 5 synthesizes {alone:.2f} in a folder of its own and {second:.2f} in a folder where "
    "a longer run had a weight of 1"
)
PY
