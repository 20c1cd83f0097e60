#!/usr/bin/env bash
# torchvision's transforms v2 flip the first of two tensors and leave its pair as it is.
#
# Expected: v2 transforms take any structure and apply the same random parameters to everything in it, so a pair of
# tensors (input and target of image-to-image translation) is flipped together.
# Seen: if nothing in the structure is a tv_tensors.Image or a PIL image, the first plain tensor is taken for the image
# and every further one passes through unchanged; next to an Image, all plain tensors do. No error and no warning.
# Why it matters: a paired model (pix2pix, colorization, super-resolution) is trained on half of its pairs with the
# target mirrored against the input. Wrap every image in tv_tensors.Image.
#
# Measured on 2026-11-28 with torchvision 0.29.1 and torch 2.14.1, Python 3.11.
# Output seen: RandomHorizontalFlip(p=1): tensor, tensor -> True, False; Image, tensor -> True, False; Image, Image ->
#   True, True
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet 'torch==2.14.1' 'torchvision==0.29.1' 'numpy==2.4.6'
cd "$folder"
venv/bin/python - <<'PY'
import warnings

import torch
from torchvision.transforms import v2
from torchvision.tv_tensors import Image

picture = torch.arange(4.0).reshape(1, 2, 2)
flip = v2.RandomHorizontalFlip(p=1.0)


def flipped(first, second) -> tuple[bool, bool]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pair = flip({"input": first, "target": second})
    assert all(torch.equal(v, picture) or torch.equal(v, picture.flip(-1)) for v in pair.values())
    return not torch.equal(pair["input"], picture), not torch.equal(pair["target"], picture)


plain = flipped(picture.clone(), picture.clone())
mixed = flipped(Image(picture), picture.clone())
wrapped = flipped(Image(picture), Image(picture))
assert (plain, mixed, wrapped) == ((True, False), (True, False), (True, True)), (plain, mixed, wrapped)
print(
    "RandomHorizontalFlip(p=1): tensor, tensor -> True, False; Image, tensor -> True, False; Image, Image -> True, True"
)
PY
