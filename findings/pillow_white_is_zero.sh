#!/usr/bin/env bash
# Pillow inverts a white-is-zero TIFF with 8 bits and does not invert one with 16 bits.
#
# Expected: a TIFF says in one tag whether 0 is white or black. A reader honors it at every depth, or at none.
# Seen: with 8 bits, Pillow gives 255 minus the stored number. With 16 bits, it gives the stored number. Mode, info and
# warnings do not tell the two cases apart.
# Why it matters: scanners and microscopes write such files. The same scan, saved once with 8 and once with 16 bits,
# enters a data set as a picture and as its negative. tag_v2[262] == 0 tells that the image is white-is-zero.
#
# Measured on 2026-11-28 with Pillow 13.0.0, tifffile 2026.3.3 (which writes the files), numpy 2.4.6, Python 3.11.
# Output seen: stored 0, 10, 200, 255: 8 bits read as 255, 245, 55, 0 (L); 16 bits read as 0, 10, 200, 255 (I;16)
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet 'pillow==13.0.0' 'tifffile==2026.3.3' 'numpy==2.4.6'
cd "$folder"
venv/bin/python - <<'PY'
import warnings

import numpy as np
import tifffile
from PIL import Image

stored = [0, 10, 200, 255]
read = {}
for dtype in (np.uint8, np.uint16):
    tifffile.imwrite("scan.tif", np.array([stored], dtype), photometric="miniswhite")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with Image.open("scan.tif") as image:
            assert image.tag_v2[262] == 0  # PhotometricInterpretation: white is zero
            read[image.mode] = np.asarray(image).ravel().tolist()
assert read == {"L": [255, 245, 55, 0], "I;16": stored}, read
print("stored 0, 10, 200, 255: 8 bits read as 255, 245, 55, 0 (L); 16 bits read as 0, 10, 200, 255 (I;16)")
PY
