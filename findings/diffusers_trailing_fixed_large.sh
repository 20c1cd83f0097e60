#!/usr/bin/env bash
# diffusers' DDPMScheduler with `variance_type="fixed_large"` and `timestep_spacing="trailing"` adds noise to the finished
# image.
#
# Expected: no noise is added in the last step, as in algorithm 2 of Ho et al. 2020 (z = 0 for t = 1).
# Seen: noise is left out only where the time step is 0. The last time step of trailing spacing is not 0 unless all steps
# are taken: it is 99 for 10 of 1000 steps. `fixed_small` is not affected, since its variance is 0 there. With a
# network that always returns the exact image, which is 0.5 everywhere, the result has a standard deviation of 0.32 after
# 10 steps and of 0.08 after 50.
# Why it matters: both settings are often recommended, trailing for few steps and fixed_large for likelihood or quality of
# full chains; together they give noisy images that look like those of an undertrained network.
#
# Measured on 2026-11-29 with diffusers 0.42.1, torch 2.14.1, numpy 2.4.6, Python 3.11.
# Output seen: standard deviation of a constant image; fixed_large: trailing 10 steps 0.323, 50 steps 0.077, 1000 steps
#   0.000, leading 10 steps 0.000; fixed_small: trailing 10 steps 0.000
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet 'torch==2.14.1' 'numpy==2.4.6' 'diffusers==0.42.1'
cd "$folder"
venv/bin/python - <<'PY'
import torch
from diffusers import DDPMScheduler

image = torch.full((1, 1, 64, 64), 0.5)


def deviation(variance, spacing, steps):
    scheduler = DDPMScheduler(
        num_train_timesteps=1000, beta_schedule="linear", variance_type=variance, timestep_spacing=spacing,
        prediction_type="sample", clip_sample=False,
    )
    scheduler.set_timesteps(steps)
    x = torch.randn(image.shape, generator=torch.Generator().manual_seed(0))
    noise = torch.Generator().manual_seed(1)
    for t in scheduler.timesteps:
        x = scheduler.step(image, t, x, generator=noise).prev_sample  # the network returns the image itself
    return x.std().item()


large = [deviation("fixed_large", "trailing", n) for n in (10, 50, 1000)] + [deviation("fixed_large", "leading", 10)]
small = deviation("fixed_small", "trailing", 10)
assert abs(large[0] - 0.323) < 0.02 and abs(large[1] - 0.077) < 0.01, large
assert large[2] < 1e-3 and large[3] < 1e-3 and small < 1e-3, (large, small)
print(
    "standard deviation of a constant image; fixed_large: trailing 10 steps {:.3f}, 50 steps {:.3f}, 1000 steps {:.3f}, "
    "leading 10 steps {:.3f}; fixed_small: trailing 10 steps {:.3f}".format(*large, small)
)
PY
