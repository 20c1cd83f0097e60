#!/usr/bin/env bash
# After PyTorch's new precision switches have been used, reading an old one raises; writing the old one does not.
#
# Expected: torch.get_float32_matmul_precision() is a plain getter that can be called at any time, above all on a
# machine without a GPU, where TF32 does not exist.
# Seen: once any code has set torch.backends.cuda.matmul.fp32_precision, both old getters for matrix products raise
# RuntimeError. torch.backends.cudnn.allow_tf32 can still be read. Setting an old switch works, and repairs the
# getters.
# Why it matters: a function that saves the precision, sets its own and restores the old one fails if any imported
# module used the new names, perhaps after a whole training and before its result is saved.
#
# Measured on 2026-11-28 with torch 2.13.0 (2.14.1 behaves the same), Python 3.11, no GPU.
# Output seen: after fp32_precision = "tf32": get_float32_matmul_precision raises RuntimeError, cuda.matmul.allow_tf32
#   raises RuntimeError, cudnn.allow_tf32 is True; after both old setters the getter says high
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet 'torch==2.13.0' 'numpy==2.4.6'
cd "$folder"
venv/bin/python - <<'PY'
import torch


def outcome(read) -> str:
    try:
        return f"is {read()}"
    except RuntimeError:
        return "raises RuntimeError"


reads = {
    "get_float32_matmul_precision": torch.get_float32_matmul_precision,
    "cuda.matmul.allow_tf32": lambda: torch.backends.cuda.matmul.allow_tf32,
    "cudnn.allow_tf32": lambda: torch.backends.cudnn.allow_tf32,
}
before = {name: outcome(read) for name, read in reads.items()}
assert not any("raises" in value for value in before.values()), before

torch.backends.cuda.matmul.fp32_precision = "tf32"
after = {name: outcome(read) for name, read in reads.items()}
assert list(after.values()) == ["raises RuntimeError", "raises RuntimeError", "is True"], after

torch.set_float32_matmul_precision("high")
torch.backends.cuda.matmul.allow_tf32 = True
repaired = torch.get_float32_matmul_precision()
assert repaired == "high", repaired
said = ", ".join(f"{name} {value}" for name, value in after.items())
print(f'after fp32_precision = "tf32": {said}; after both old setters the getter says {repaired}')
PY
