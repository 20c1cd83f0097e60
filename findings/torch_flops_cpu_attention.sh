#!/usr/bin/env bash
# PyTorch's FlopCounterMode counts no FLOPs for scaled_dot_product_attention on a CPU, without a warning. It counts them
# with the math backend, and for the fused kernels of GPUs.
#
# Expected: 4 * heads * tokens^2 * features = 33,554,432 FLOPs for a forward pass with 2 heads, 512 tokens and 16
# features, as the math backend gives.
# Seen: 0. On a CPU the call runs as aten::_scaled_dot_product_flash_attention_for_cpu, for which the table of formulas
# has no entry; operators without an entry count as 0.
# Why it matters: FLOPs that are counted on a CPU make networks with attention look cheaper than they are, and a
# comparison of two networks is wrong if one of them is written with plain matrix products.
#
# Measured on 2026-11-29 with torch 2.14.1, Python 3.11.
# Output seen: default backend on a CPU: 0 FLOPs; math backend: 33554432 FLOPs; largest difference of the outputs below
#   1e-5
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet 'torch==2.14.1' 'numpy==2.4.6'
cd "$folder"
venv/bin/python - <<'PY'
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.flop_counter import FlopCounterMode

torch.manual_seed(0)
query, key, value = torch.randn(3, 1, 2, 512, 16)


def count(*backends):
    with FlopCounterMode(display=False) as counter, sdpa_kernel(list(backends)):
        out = scaled_dot_product_attention(query, key, value)
    return counter.get_total_flops(), out


found, fused = count(SDPBackend.FLASH_ATTENTION, SDPBackend.MATH)
expected, plain = count(SDPBackend.MATH)
assert (fused - plain).abs().max() < 1e-5
assert expected == 4 * 2 * 512**2 * 16, expected
assert found == 0, found
print(f"default backend on a CPU: {found} FLOPs; math backend: {expected} FLOPs; largest difference of the outputs below 1e-5")
PY
