#!/usr/bin/env bash
# Lightning's EMAWeightAveraging in a GAN can replace the trained network by the untrained one when training ends.
#
# Expected: update_every_n_steps=2 averages the weights after every second batch, whatever the number of optimizers.
# Seen: Lightning's global_step counts the steps of every optimizer, so with two optimizers it grows by 2 per batch.
# The callback updates where (global_step - 1) is a multiple of update_every_n_steps. That number is always odd, so
# with any even interval no update ever happens, in silence. At the end of training the average, which is a copy of the
# weights before the first step, is copied into the model. With an interval of 1 or 3 it works.
# Why it matters: GANs have two optimizers. Everything that was learned is gone from the model after fit, while the
# losses on the way were right.
#
# Measured on 2026-11-28 with lightning 2.6.6, torch 2.13.0 (2.14.1 behaves the same), Python 3.11.
# Output seen: two optimizers, 20 batches, weight from 0 to -20: every 1: 20 updates, ends at -19.00; every 2: 0
#   updates, ends at 0.00; every 3: 7 updates, ends at -17.05; one optimizer, every 2: 10 updates, ends at -17.00
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet 'torch==2.13.0' 'lightning==2.6.6' 'numpy==2.4.6'
cd "$folder"
venv/bin/python -W ignore - <<'PY'
import logging

import lightning as L
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging

for name in ("lightning", "lightning.pytorch", "lightning.pytorch.utilities.rank_zero"):
    logging.getLogger(name).setLevel(logging.ERROR)


class Networks(L.LightningModule):
    def __init__(self, optimizers: int):
        super().__init__()
        self.automatic_optimization = False
        self.weights = torch.nn.ParameterList(torch.zeros(1) for _ in range(optimizers))

    def configure_optimizers(self):
        return [torch.optim.SGD([weight], lr=1.0) for weight in self.weights]

    def training_step(self, batch, index):
        optimizers = self.optimizers()
        for optimizer in optimizers if isinstance(optimizers, list) else [optimizers]:
            optimizer.zero_grad()
            self.manual_backward(sum(weight.sum() for weight in self.weights))
            optimizer.step()
        self.trained = self.weights[0].item()


def fit(optimizers: int, every: int) -> tuple[int, float]:
    """Updates of the average, and the first network's weight after fit. Each batch lowers it by 1."""
    callback, model = EMAWeightAveraging(decay=0.5, update_every_n_steps=every), Networks(optimizers)
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = L.Trainer(max_epochs=1, accelerator="cpu", callbacks=[callback], **quiet)
    trainer.fit(model, torch.utils.data.DataLoader(torch.zeros(20, 1)))
    assert model.trained == -20
    return int(callback._average_model.n_averaged), round(model.weights[0].item(), 2)


seen = [fit(2, 1), fit(2, 2), fit(2, 3), fit(1, 2)]
assert seen == [(20, -19.0), (0, 0.0), (7, -17.05), (10, -17.0)], seen
one, two, three, single = (f"{updates} updates, ends at {weight:.2f}" for updates, weight in seen)
print(
    f"two optimizers, 20 batches, weight from 0 to -20: every 1: {one}; every 2: {two}; every 3: {three}; "
    f"one optimizer, every 2: {single}"
)
PY
