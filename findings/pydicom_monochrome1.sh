#!/usr/bin/env bash
# No display function of pydicom inverts a MONOCHROME1 image, in which the lowest value is white.
#
# Expected: pixel_array, apply_voi_lut or at least apply_presentation_lut, whose name promises values ready for a
# display, inverts an image whose Photometric Interpretation is MONOCHROME1, as a viewer does.
# Seen: apply_presentation_lut looks at the element Presentation LUT Shape alone, which many radiographs do not have.
# The whole chain modality, window, presentation gives the same array for MONOCHROME1 and MONOCHROME2.
# Why it matters: chest X-ray sets hold both kinds. Without a rule of one's own, a part of the training images is a
# negative, bones black, and the generative model learns a mixture of both.
#
# Measured on 2026-11-28 with pydicom 3.0.2, numpy 2.4.6, Python 3.11.
# Output seen: after all three functions MONOCHROME1 0, 1365, 2730, 4095; MONOCHROME2 0, 1365, 2730, 4095; with
#   Presentation LUT Shape INVERSE: 4095, 2730, 1365, 0 (MONOCHROME1), 4095, 2730, 1365, 0 (MONOCHROME2)
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet 'pydicom==3.0.2' 'numpy==2.4.6'
cd "$folder"
venv/bin/python - <<'PY'
import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.pixels import apply_modality_lut, apply_presentation_lut, apply_voi_lut
from pydicom.uid import ExplicitVRLittleEndian


def displayed(photometric: str, shape: str | None = None) -> list[int]:
    """A radiograph of 2x2 pixels with 12 bits, after the three functions that prepare values for a display."""
    image = Dataset()
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.Modality = "CR"
    image.Rows = image.Columns = 2
    image.SamplesPerPixel, image.PixelRepresentation = 1, 0
    image.BitsAllocated, image.BitsStored, image.HighBit = 16, 12, 11
    image.PhotometricInterpretation = photometric
    image.WindowCenter, image.WindowWidth = 2048, 4096
    if shape:
        image.PresentationLUTShape = shape
    image.add_new("PixelData", "OW", np.array([0, 1365, 2730, 4095], "<u2").tobytes())
    values = apply_voi_lut(apply_modality_lut(image.pixel_array, image), image)
    return np.rint(apply_presentation_lut(values, image)).astype(int).ravel().tolist()


kinds = ("MONOCHROME1", "MONOCHROME2")
plain = [displayed(kind) for kind in kinds]
inverse = [displayed(kind, "INVERSE") for kind in kinds]
assert plain == [[0, 1365, 2730, 4095]] * 2, plain
assert inverse == [[4095, 2730, 1365, 0]] * 2, inverse
print(
    "after all three functions MONOCHROME1 0, 1365, 2730, 4095; MONOCHROME2 0, 1365, 2730, 4095; "
    "with Presentation LUT Shape INVERSE: 4095, 2730, 1365, 0 (MONOCHROME1), 4095, 2730, 1365, 0 (MONOCHROME2)"
)
PY
