#!/usr/bin/env bash
# scikit-image's PSNR grows by 6 dB if one pixel of the reference is slightly below zero.
#
# Expected: the peak for float images is fixed by their type, or comes from the values continuously, so a change of one
# pixel by 1e-7 changes nothing that can be seen.
# Seen: without data_range, the peak is 1 if the smallest reference value is 0 or more, and 2 (from -1 to 1) if it is
# below 0. One value of -1e-7 therefore adds 6.02 dB. Only the reference counts. Nothing is said.
# Why it matters: float images in [0, 1] that were resized with a bicubic filter or scaled back from [-1, 1] have such
# pixels. Some images of a test set then score 6 dB better than others, which is more than the models differ by.
#
# Measured on 2026-11-28 with scikit-image 0.26.0, numpy 2.4.6, Python 3.11.
# Output seen: 0 in the reference: 26.20 dB; -1e-7 instead: 32.22 dB; -1e-7 with data_range=1: 26.20 dB
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet 'scikit-image==0.26.0' 'numpy==2.4.6'
cd "$folder"
venv/bin/python - <<'PY'
import warnings

import numpy as np
from skimage.metrics import peak_signal_noise_ratio

random = np.random.default_rng(0)
reference = random.random((64, 64))
reference[0, 0] = 0.0
restored = np.clip(reference + 0.05 * random.standard_normal(reference.shape), 0, 1)
below = reference.copy()
below[0, 0] = -1e-7
with warnings.catch_warnings():
    warnings.simplefilter("error")
    zero = peak_signal_noise_ratio(reference, restored)
    negative = peak_signal_noise_ratio(below, restored)
    stated = peak_signal_noise_ratio(below, restored, data_range=1.0)
assert abs(zero - -10 * np.log10(np.mean((reference - restored) ** 2))) < 1e-9, zero
assert abs(negative - zero - 20 * np.log10(2)) < 1e-4, (zero, negative)
assert abs(stated - zero) < 1e-4, (zero, stated)
print(f"0 in the reference: {zero:.2f} dB; -1e-7 instead: {negative:.2f} dB; -1e-7 with data_range=1: {stated:.2f} dB")
PY
