#!/usr/bin/env bash
# diffusers' schedulers with `timestep_spacing="trailing"` take one step more than asked for, for some numbers of steps. The
# time step of this last step is -1, which is the noisiest entry in the table of noise levels.
#
# Expected: set_timesteps(61) gives 61 time steps between 0 and 999.
# Seen: DDIM computes them with np.arange(1000, 0, -1000 / 61). Rounding leaves a 62nd value just above 0, which becomes
# time step -1. The sampler calls the network at -1, and `alphas_cumprod[-1]` treats the finished image as if it were at
# the noisiest level. With a network that predicts the noise of the image 0.5 at every level, and images that are
# all 0.5, the image is 78 after the last step.
# 62 of the numbers from 1 to 1,000 are affected; the first are 61, 103, 121, 122 and 201. For 49 others, some time steps
# differ by one from the last of equal parts.
# Why it matters: a sweep over the number of steps shows a sudden loss of quality at single numbers.
#
# Measured on 2026-11-29 with diffusers 0.42.1, torch 2.14.1, numpy 2.4.6, Python 3.11.
# Output seen: 61 steps asked for, 62 taken, the last at -1; affected: 62 of 1000, first 61, 103, 121, 122, 201;
#   image 0.5 after 60 steps: 0.517, after 61: 78.312
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet 'torch==2.14.1' 'numpy==2.4.6' 'diffusers==0.42.1'
cd "$folder"
venv/bin/python - <<'PY'
import torch
from diffusers import DDIMScheduler

scheduler = DDIMScheduler(
    num_train_timesteps=1000, beta_schedule="linear", timestep_spacing="trailing", clip_sample=False
)

affected = []
for n in range(1, 1001):
    scheduler.set_timesteps(n)
    if len(scheduler.timesteps) != n:
        assert len(scheduler.timesteps) == n + 1 and scheduler.timesteps[-1] == -1
        affected.append(n)
assert len(affected) == 62 and affected[:5] == [61, 103, 121, 122, 201], affected[:9]


def sample(n):
    """Sample with the exact network for images that are all 0.5."""
    scheduler.set_timesteps(n)
    x = torch.randn(1, 4, generator=torch.Generator().manual_seed(0))
    for t in scheduler.timesteps:
        bar = scheduler.alphas_cumprod[t if t >= 0 else 0]  # at -1 the image is finished: the cleanest level
        noise = (x - bar.sqrt() * 0.5) / (1 - bar).sqrt()
        x = scheduler.step(noise, t, x).prev_sample
    return x[0, 0].item()


assert abs(sample(60) - 0.5) < 0.02
assert abs(sample(61) - 0.5) > 1
print(
    f"61 steps asked for, 62 taken, the last at -1; affected: {len(affected)} of 1000, first "
    f"{', '.join(map(str, affected[:5]))}; image 0.5 after 60 steps: {sample(60):.3f}, after 61: {sample(61):.3f}"
)
PY
