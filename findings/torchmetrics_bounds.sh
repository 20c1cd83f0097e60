#!/usr/bin/env bash
# torchmetrics' KernelInceptionDistance declares the range 0 to 1 and gives values outside of it on both sides, and
# PerceptualPathLength declares that higher is better.
#
# Expected: plot_lower_bound and plot_upper_bound contain every value of a metric, and higher_is_better is its direction.
# Seen: KID is the unbiased estimate of a squared distance without a scale. For two sets of one distribution it is often
# slightly negative, and its size is that of the features to the power of six. The path length of a generator is better if
# it is short (Karras et al. 2019, StyleGAN, section 4.1), and the class says higher_is_better = True.
# Why it matters: code that checks values against the bounds, or that chooses checkpoints by higher_is_better, rejects
# good values or keeps the worst model.
#
# Measured on 2026-11-29 with torchmetrics 1.9.0, torch 2.14.1, Python 3.11.
# Output seen: KID declares 0 to 1; equal distributions: below 0 in 5 of 10 draws; raw pixels: above 1,000,000;
#   PerceptualPathLength.higher_is_better is True
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet 'torch==2.14.1' 'torchvision==0.29.1' 'torchmetrics==1.9.0' 'numpy==2.4.6'
cd "$folder"
venv/bin/python - <<'PY'
import warnings

import torch
from torchmetrics.image.kid import KernelInceptionDistance
from torchmetrics.image.perceptual_path_length import PerceptualPathLength

warnings.simplefilter("ignore")


class Pixels(torch.nn.Module):
    """The first pixels as features."""

    num_features = 8

    def forward(self, images):
        return images.flatten(1)[:, :8].float()


def kid(real, generated, **options):
    metric = KernelInceptionDistance(feature=Pixels(), subsets=10, subset_size=50, **options)
    metric.update(real, real=True)
    metric.update(generated, real=False)
    return metric.compute()[0].item()


assert (KernelInceptionDistance.plot_lower_bound, KernelInceptionDistance.plot_upper_bound) == (0.0, 1.0)
torch.manual_seed(0)
equal = [kid(torch.rand(100, 3, 4, 4), torch.rand(100, 3, 4, 4), normalize=True) for _ in range(10)]
negative = sum(value < 0 for value in equal)
assert negative > 0, equal
bright = torch.randint(0, 256, (100, 3, 4, 4), dtype=torch.uint8)
far = kid(bright, bright // 5)
assert far > 1e6, far
assert PerceptualPathLength.higher_is_better is True
print(
    f"KID declares 0 to 1; equal distributions: below 0 in {negative} of 10 draws; raw pixels: above 1,000,000; "
    "PerceptualPathLength.higher_is_better is True"
)
PY
