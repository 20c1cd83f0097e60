#!/usr/bin/env bash
# torch.load reads a damaged checkpoint without an error, although the file itself can prove the damage.
#
# Expected: a checkpoint is a zip file, and a zip file stores a CRC-32 of every member, so a bit that flips on a disk
# or in a transfer makes the load fail.
# Seen: the CRC-32 of the tensors is written and never checked. One flipped bit turns a weight of 1 into infinity, in
# silence. Python's own zipfile module names the damaged member.
# Why it matters: long trainings are resumed and models are scored from files that were copied between machines. The
# run goes on with a wrong weight, and nothing says so. Check the file with zipfile.ZipFile(path).testzip() first.
#
# Measured on 2026-11-28 with torch 2.13.0 (2.14.1 behaves the same), Python 3.11.
# Output seen: zipfile names archive/data/0 as damaged; torch.load returns w[0] = inf without an error or a warning
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet 'torch==2.13.0' 'numpy==2.4.6'
cd "$folder"
venv/bin/python - <<'PY'
import warnings
import zipfile

import torch

weights = torch.ones(1000)
torch.save({"w": weights}, "model.pt")
with open("model.pt", "r+b") as file:
    # The most significant byte of the first number: float32 is little-endian. One bit makes 1 infinite.
    place = file.read().index(weights.numpy().tobytes()) + 3
    file.seek(place)
    (byte,) = file.read(1)
    file.seek(place)
    file.write(bytes([byte ^ 0x40]))

damaged = zipfile.ZipFile("model.pt").testzip()
assert damaged is not None and damaged.endswith("/data/0"), f"zipfile names {damaged}"
with warnings.catch_warnings():
    warnings.simplefilter("error")
    loaded = torch.load("model.pt", weights_only=True)["w"]
assert loaded[0] == torch.inf and bool((loaded[1:] == 1).all()), f"loaded {loaded}"
print(f"zipfile names archive/data/0 as damaged; torch.load returns w[0] = {loaded[0]} without an error or a warning")
PY
