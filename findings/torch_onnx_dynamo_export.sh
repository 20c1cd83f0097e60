#!/usr/bin/env bash
# torch.onnx.export(..., dynamo=True) to a path also writes an empty PATH.data beside a small network, and it loses the
# name of the dynamic axis of an ExportedProgram.
#
# Expected: a network of a few bytes becomes one .onnx file, since external data is for files above 2 GB. The axis that
# torch.export named "batch" is named "batch" in the ONNX file.
# Seen: weights are moved to PATH.data by default (external_data=True), and the file is created even if it stays empty
# because all weights are small. The axis is named by an internal symbol, unless dynamic_shapes is passed a second time.
# Why it matters: a program that hands over the .onnx alone leaves an empty file behind for small networks and breaks for
# larger ones, whose weights are in PATH.data. Users of the file see an axis such as s77 instead of batch.
#
# Measured on 2026-11-29 with torch 2.14.1, onnx 1.23.2, onnxscript 0.7.2, Python 3.11.
# Output seen: files: a.onnx, a.onnx.data (0 bytes); axis: an internal symbol without dynamic_shapes, batch with it
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet 'torch==2.14.1' 'onnx==1.23.2' 'onnxscript==0.7.2' 'numpy==2.4.6'
cd "$folder"
venv/bin/python - <<'PY'
import logging
import warnings
from pathlib import Path

import onnx
import torch

warnings.simplefilter("ignore")
logging.disable(logging.WARNING)

network, x, axes = torch.nn.Linear(2, 3).eval(), torch.zeros(4, 2), ({0: torch.export.Dim("batch")},)
exported = torch.export.export(network, (x,), dynamic_shapes=axes)


def axis(path, **options):
    torch.onnx.export(exported, (), path, dynamo=True, verbose=False, **options)
    return onnx.load(path, load_external_data=False).graph.input[0].type.tensor_type.shape.dim[0].dim_param


lost = axis("a.onnx")
files = {path.name: path.stat().st_size for path in Path().glob("a.onnx*")}
assert set(files) == {"a.onnx", "a.onnx.data"} and files["a.onnx.data"] == 0, files
kept = axis("b.onnx", dynamic_shapes=({0: "batch"},))
assert lost != "batch" and kept == "batch", (lost, kept)
print("files: a.onnx, a.onnx.data (0 bytes); axis: an internal symbol without dynamic_shapes, batch with it")
PY
