"""DICOM files and NIfTI volumes, read with pydicom and nibabel (the extra `medical`).

Values are in the scanner's units, such as Hounsfield units of a CT. Slope and intercept are applied here, and the range
is applied in `genbench.data.ranges`.
"""

from __future__ import annotations

import gzip
import importlib
import re
from typing import Any, BinaryIO

import numpy as np

from genbench.core.errors import UserError
from genbench.data.ranges import Levels

NIFTI = (".nii", ".nii.gz")
EXTENSIONS = (".dcm", ".dicom", *NIFTI)


def kind_of(name: str) -> str | None:
    """`dicom` or `nifti`, by a file's name."""
    lower = name.lower()
    return "nifti" if lower.endswith(NIFTI) else "dicom" if lower.endswith(EXTENSIONS) else None


def nameless(name: str) -> bool:
    """Whether a file without extension may be DICOM: scanners use names such as IM0001 or 1.2.840.113619.2."""
    return re.fullmatch(r"[^.]+|[\d.]+", name.rpartition("/")[2]) is not None


def is_dicom(file: BinaryIO) -> bool:
    """Whether the letters DICM follow the preamble of 128 bytes."""
    return file.read(132)[128:] == b"DICM"


def _library(name: str, what: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(
            f"{what} cannot be read without {name}. Install it with `pip install 'genbench[medical]'`, or move such "
            "files to a different folder."
        ) from error


# ---- DICOM ------------------------------------------------------------------------------------------------------


def dicom_frames(file: BinaryIO, name: str) -> tuple[int, tuple[int, int]] | None:
    """Number of frames, and width and height; None if the file has no pixels, such as a report or a DICOMDIR.

    Raises UserError if the file is not a DICOM file.
    """
    pydicom = _library("pydicom", name)
    tags = ["NumberOfFrames", "Rows", "Columns", "PhotometricInterpretation"]
    try:
        found = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=tags)
        if "Rows" not in found or "PhotometricInterpretation" not in found:
            return None
        return int(found.get("NumberOfFrames") or 1), (int(found.Columns), int(found.Rows))
    except Exception as error:  # pydicom may raise any exception for a broken file
        raise _unreadable(name, "DICOM", error) from error


def read_dicom(file: BinaryIO, name: str, frame: int) -> np.ndarray | Levels:
    """One frame: [H, W] in the scanner's units, or [H, W, 3] for a color image.

    Files with a slope or intercept are returned as float32, even if slope and intercept are 1 and 0, since other slices
    of the series may have other values. Files of 8 bits with slope 1 and intercept 0, and files without a slope or
    intercept, keep the stored type. Raises UserError if the file cannot be read.
    """
    pydicom = _library("pydicom", name)
    pixels = importlib.import_module("pydicom.pixels")
    try:
        found = pydicom.dcmread(file, stop_before_pixels=True)
        syntax = found.file_meta.TransferSyntaxUID
        if not pixels.get_decoder(syntax).is_available:
            raise UserError(
                f"{name} is compressed as {syntax.name}, and no decoder for it is installed. Install "
                "`pylibjpeg[all]`, or decompress the file, for example with `gdcmconv --raw` or `dcmdjpeg`."
            )
        file.seek(0)
        array = pixels.pixel_array(file, index=frame)  # reads only this frame
        kind = found.PhotometricInterpretation
        if kind == "PALETTE COLOR":
            return pixels.apply_color_lut(array, found)
        if found.SamplesPerPixel == 3:
            return array  # converted to RGB
        array = _rescaled(array, found, frame, pixels)
        return Levels(array, inverted=True) if kind == "MONOCHROME1" else array
    except UserError:
        raise
    except Exception as error:
        raise _unreadable(name, "DICOM", error) from error


def _rescaled(array: np.ndarray, found: Any, frame: int, pixels: Any) -> np.ndarray:
    """Apply the slope and intercept of the frame, of all frames, or of the file."""
    if "ModalityLUTSequence" in found:
        return pixels.apply_modality_lut(array, found).astype(np.float32)
    place = found
    groups = [*found.get("SharedFunctionalGroupsSequence", [])]
    groups += [*found.get("PerFrameFunctionalGroupsSequence", [])][frame : frame + 1]
    for group in groups:
        if given := group.get("PixelValueTransformationSequence"):
            place = given[0]
    given = [place.get(name) not in (None, "") for name in ("RescaleSlope", "RescaleIntercept")]
    slope, intercept = float(place.get("RescaleSlope") or 1), float(place.get("RescaleIntercept") or 0)
    if (slope, intercept) == (1, 0) and (not any(given) or array.dtype.itemsize == 1):
        return array
    return array.astype(np.float32) * np.float32(slope) + np.float32(intercept)


# ---- NIfTI ------------------------------------------------------------------------------------------------------


def nifti_slices(file: BinaryIO, name: str) -> tuple[int, tuple[int, int]]:
    """Number of axial slices, and their width and height. Raises UserError if the file is not a volume."""
    volume, axes = _volume(file, name)
    sides = np.empty(3, int)
    sides[axes[:, 0].astype(int)] = volume.shape[:3]
    return int(sides[2]), (int(sides[0]), int(sides[1]))


def read_nifti(file: BinaryIO, name: str) -> np.ndarray:
    """Axial slices [N, H, W] from feet to head; rows from front to back, columns from the patient's left to right.

    If the axes are not those of an identity affine, nibabel reorders them. Each slice is then rotated with
    `numpy.rot90`. Slope and intercept are applied: values are float32, or the stored type if the file has neither.
    Raises UserError if the file cannot be read.
    """
    volume, axes = _volume(file, name)
    try:
        stored = volume.dataobj
        plain = stored.slope == 1 and stored.inter == 0 and volume.get_data_dtype().kind != "f"
        array = np.asanyarray(stored) if plain else volume.get_fdata(dtype=np.float32, caching="unchanged")
        array = _library("nibabel", name).apply_orientation(array.reshape(array.shape[:3]), axes)
        return np.rot90(array, axes=(0, 1)).transpose(2, 0, 1)
    except Exception as error:  # for example for a truncated file
        raise _unreadable(name, "NIfTI", error) from error


def _volume(file: BinaryIO, name: str) -> tuple[Any, np.ndarray]:
    """The volume, and the orientation of its axes for nibabel's `apply_orientation` (right, anterior, superior)."""
    nibabel = _library("nibabel", name)
    try:
        packed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        stream = gzip.GzipFile(fileobj=file) if packed else file
        second = 540 in (int.from_bytes(head := stream.read(4), "little"), int.from_bytes(head, "big"))
        stream.seek(0)
        found = (nibabel.Nifti2Image if second else nibabel.Nifti1Image).from_stream(stream)
        if found.get_data_dtype().kind not in "iuf":
            raise ValueError(f"its values are of type {found.get_data_dtype()}; only gray values are supported")
        if len(found.shape) < 3 or any(side != 1 for side in found.shape[3:]):
            raise ValueError(f"its shape is {list(found.shape)}; expected three dimensions. Split it into volumes")
        axes = nibabel.io_orientation(found.affine)
        if np.isnan(axes).any():
            raise ValueError("its affine does not define the directions of its axes")
        return found, axes
    except Exception as error:  # nibabel may raise any exception for a broken file
        raise _unreadable(name, "NIfTI", error) from error


def _unreadable(name: str, kind: str, error: Exception) -> UserError:
    reason = " ".join(str(error).split()) or type(error).__name__
    if type(error).__name__ == "InvalidDicomError":  # pydicom's message recommends `force=True`, which users cannot set
        reason = "it does not begin with the preamble and the letters DICM"
    return UserError(f"{name} cannot be read as a {kind} file ({reason}). Replace it or remove it.")
