"""DICOM files and NIfTI volumes are read in the scanner's units and with the right orientation."""

import sys
import zipfile

import nibabel
import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRLittleEndian, JPEGLSLossless, SecondaryCaptureImageStorage, generate_uid

from genbench.core.errors import UserError
from genbench.data import PairedFolder
from tests.helpers.image_files import everything, folder, load, same, stretched, truth


def dicom(file, pixels, kind="MONOCHROME2", frames=None, **more):
    """A DICOM file of pixels [H, W], [H, W, 3], or of `frames` such."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = more.pop("syntax", ExplicitVRLittleEndian)
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = SecondaryCaptureImageStorage, generate_uid()
    out = Dataset()
    out.file_meta = meta
    out.SOPClassUID, out.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    shape = pixels.shape[1:] if frames else pixels.shape
    out.Rows, out.Columns, out.SamplesPerPixel = *shape[:2], 3 if len(shape) == 3 else 1
    if len(shape) == 3:
        out.PlanarConfiguration = 0
    out.PhotometricInterpretation = kind
    out.BitsAllocated = out.BitsStored = pixels.dtype.itemsize * 8
    out.HighBit, out.PixelRepresentation = out.BitsStored - 1, int(pixels.dtype.kind == "i")
    if frames:
        out.NumberOfFrames = frames
    for name, value in ({"PixelData": pixels.tobytes()} | more).items():
        setattr(out, name, value)
    out.save_as(file, enforce_file_format=True)


def scans(path, pixels, suffix=".dcm", **more):
    return folder(path, pixels, lambda file, picture: dicom(file, picture, **more), suffix)


def volume(path, pixels, affine=None, kind=nibabel.Nifti1Image, name="volume.nii.gz"):
    """A folder with a NIfTI of pixels [X, Y, Z]."""
    path.mkdir(parents=True, exist_ok=True)
    nibabel.save(kind(pixels, np.eye(4) if affine is None else affine), path / name)
    return path


# ---- DICOM --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["MONOCHROME1", "MONOCHROME2"])
def test_slope_intercept_and_inversion_are_applied(tmp_path, kind):
    low, high = (0, 4095) if kind == "MONOCHROME2" else (4095, 0)
    data = load(scans(tmp_path, stretched(low, high, "u2"), kind=kind, RescaleSlope=2, RescaleIntercept=-1024))
    found, (note,) = everything(data)
    assert same(found, truth())
    assert data.arguments["range"] == "-1024,7166" and "The range -1024,7166 is used" in note


def test_a_window_applies_to_measured_values_before_inversion(tmp_path):
    for kind, expected in {"MONOCHROME2": truth(), "MONOCHROME1": 255 - truth()}.items():
        path = scans(tmp_path / kind, stretched(864, 1264, "u2"), kind=kind, RescaleSlope=1, RescaleIntercept=-1024)
        assert same(everything(load(path, window="40,400"))[0], expected)


def test_slices_with_slope_1_and_intercept_0_have_the_units_of_their_series(tmp_path):
    slopes = [1, 0.5, 2]
    numbers = iter(range(len(truth())))

    def write(file, picture):
        slope = slopes[next(numbers) % 3]
        dicom(file, (picture * 16 / slope).astype("u2"), RescaleSlope=slope, RescaleIntercept=0)

    data = load(folder(tmp_path, truth().astype(float), write, ".dcm"))
    found, (note,) = everything(data)
    assert same(found, truth()) and data.arguments["range"] == "0,4080" and "The range 0,4080 is used" in note


def test_8_bit_images_keep_their_type_if_slope_and_intercept_change_nothing(tmp_path):
    data = load(scans(tmp_path, truth(), RescaleSlope=1, RescaleIntercept=0))
    found, notes = everything(data)
    assert same(found, truth()) and not notes and data.arguments["range"] == "dtype"


def test_a_file_without_the_preamble_of_dicom_is_refused(tmp_path):
    path = scans(tmp_path, truth())
    for file in path.iterdir():
        file.write_bytes(file.read_bytes()[132:])
    with pytest.raises(
        UserError, match=r"\.dcm cannot be read as a DICOM file \(it does not begin with the preamble and .*DICM"
    ) as refused:
        everything(load(path))
    assert "force" not in str(refused.value)


def test_scans_without_slope_and_intercept_keep_their_stored_type(tmp_path):
    data = load(scans(tmp_path, truth()))
    found, notes = everything(data)
    assert same(found, truth()) and not notes
    assert data.arguments["range"] == "dtype"


def test_frames_are_images_and_have_slopes_of_their_own(tmp_path):
    groups = []
    for slope in (1, 2):
        given, group = Dataset(), Dataset()
        given.RescaleSlope, given.RescaleIntercept = slope, 100
        group.PixelValueTransformationSequence = [given]
        groups.append(group)
    pixels = np.full((2, 8, 8), 50, np.uint16)
    path = scans(tmp_path, [pixels] * 6, frames=2, PerFrameFunctionalGroupsSequence=groups)
    with pytest.warns(
        UserWarning, match=r"6 files have several frames \(00.dcm has 2 frames\): each is used as an image"
    ):
        data = load(path, range="0,255")
    assert sorted(everything(data)[0][:, 0, 0, 0].tolist()) == [150] * 6 + [200] * 6


@pytest.mark.parametrize(("kind", "expected"), [("RGB", [200, 100, 50]), ("YBR_FULL", [91, 255, 150])])
def test_color_is_rgb(tmp_path, kind, expected):
    pixels = np.broadcast_to(np.array([200, 100, 50], np.uint8), (8, 8, 3)).copy()
    found = everything(load(scans(tmp_path, [pixels] * 4, kind=kind), channels=3))[0]
    assert abs(found[0, :, 0, 0].astype(int) - expected).max() <= 1


def test_palettes_of_scans_are_converted_to_rgb(tmp_path):
    names = ("Red", "Green", "Blue")
    table = {f"{name}PaletteColorLookupTableDescriptor": [256, 0, 8] for name in names}
    ramps = (bytes(range(256)), bytes(range(255, -1, -1)), bytes(256))
    table |= {f"{name}PaletteColorLookupTableData": ramp for name, ramp in zip(names, ramps, strict=True)}
    path = scans(tmp_path, [np.full((8, 8), 200, np.uint8)] * 4, kind="PALETTE COLOR", **table)
    assert everything(load(path, channels=3, range="dtype"))[0][0, :, 0, 0].tolist() == [200, 55, 0]


@pytest.mark.parametrize("name", ["IM{:04d}", "1.2.840.{}"])
def test_scans_need_no_extension(tmp_path, name):
    for k, picture in enumerate(truth()):
        dicom(str(tmp_path / name.format(k)), picture)
    (tmp_path / "README").write_text("scans of nobody")
    with pytest.warns(UserWarning, match="1 files that are not images are ignored: README"):
        data = load(tmp_path)
    assert same(everything(data)[0], truth())


def test_reports_without_pixels_are_named_and_ignored(tmp_path):
    scans(tmp_path, truth())
    dicom(str(tmp_path / "report.dcm"), truth()[0])
    from pydicom import dcmread

    report = dcmread(tmp_path / "report.dcm")
    del report.PixelData, report.Rows, report.Columns
    report.save_as(tmp_path / "report.dcm")
    with pytest.warns(UserWarning, match="1 DICOM files without pixels are ignored: report.dcm"):
        data = load(tmp_path)
    assert len(everything(data)[0]) == 24


def test_the_error_for_a_missing_decoder_says_what_to_install(tmp_path):
    stream = encapsulate([b"\xff\xd8\xff\xf7" + bytes(40)])
    scans(tmp_path, truth()[:4], syntax=JPEGLSLossless, PixelData=stream)
    with pytest.raises(
        UserError, match=r"dcm is compressed as JPEG-LS .*no decoder for it is installed. Install `pylibjpeg"
    ):
        everything(load(tmp_path))


def test_damaged_scans_are_named(tmp_path):
    (tmp_path / "a.dcm").write_bytes(b"no scan")
    with pytest.raises(UserError, match=r"a.dcm cannot be read as a DICOM file"):
        load(tmp_path)
    path = scans(tmp_path / "cut", truth()[:4])
    for file in path.iterdir():
        file.write_bytes(file.read_bytes()[:-30])
    with pytest.raises(UserError, match=r"\d.dcm cannot be read as a DICOM file"):
        everything(load(path))


# ---- NIfTI --------------------------------------------------------------------------------------------------------


def axes_of(code):
    """What nibabel makes of the identity to get the axes of `code`."""
    return nibabel.orientations.axcodes2ornt(code)


BLOCK = np.random.default_rng(0).integers(0, 256, size=(10, 8, 6)).astype(np.uint8)  # to the right, front and head


def slices(path):
    data = load(path, frames="each", resize_mode="pad", size=10, range="dtype")
    return [data.reader.stored(picture) for picture, _ in data.images["train"]], data


def test_slices_with_an_identity_affine_are_rotated_by_90_degrees(tmp_path):
    found, data = slices(volume(tmp_path, BLOCK))
    assert len(found) == 6
    assert all(np.array_equal(found[k], np.rot90(BLOCK[:, :, k])) for k in range(6))
    assert str(data.images["train"][3][0]) == "volume.nii.gz slice 3"


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("code", ["LPS", "LAS", "RPI", "PSR", "ASL", "SAL"])
def test_slices_do_not_depend_on_the_order_of_the_axes_in_the_file(tmp_path, code, kind):
    whole = nibabel.Nifti1Image(BLOCK, np.eye(4))
    turned = whole.as_reoriented(nibabel.orientations.ornt_transform(axes_of("RAS"), axes_of(code)))
    assert "".join(nibabel.aff2axcodes(turned.affine)) == code
    found, _ = slices(volume(tmp_path, np.asarray(turned.dataobj), turned.affine, kind, "a.nii"))
    assert all(np.array_equal(found[k], np.rot90(BLOCK[:, :, k])) for k in range(6))


def test_scaling_of_a_volume_is_applied_and_a_range_is_found(tmp_path):
    block = np.rot90(truth()[:6] * 4.0 - 100, -1, axes=(1, 2)).transpose(1, 2, 0)
    image = nibabel.Nifti1Image(block, np.eye(4))
    image.set_data_dtype(np.int16)  # nibabel chooses slope and intercept
    nibabel.save(image, tmp_path / "volume.nii.gz")
    with pytest.warns(UserWarning, match="images are frames of the same file as the training images"):
        data = load(tmp_path)
    found, (note,) = everything(data)
    assert same(found, truth()[:6], within=1) and "floating-point images (float32)" in note
    low, high = map(float, data.arguments["range"].split(","))
    assert (round(low), round(high)) == (-100, 920)


def test_a_single_volume_may_be_the_path_and_a_zip_may_hold_several(tmp_path):
    path = volume(tmp_path, BLOCK)
    assert len(everything(load(path / "volume.nii.gz", resize_mode="pad", size=10))[0]) == 6
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for k in range(4):
            archive.write(path / "volume.nii.gz", f"{k}/volume.nii.gz")
    data = load(tmp_path / "all.zip", resize_mode="pad", size=10, labels=False)
    assert len(everything(data)[0]) == 24
    assert len(data.source("test")) == 6  # a whole volume


@pytest.mark.parametrize(
    ("pixels", "sentence"),
    [
        (np.zeros((8, 8, 3, 5), np.int16), r"its shape is \[8, 8, 3, 5\]; expected three dimensions"),
        (np.zeros((8, 8), np.int16), r"its shape is \[8, 8\]"),
        (np.zeros((8, 8, 3), [("R", "u1"), ("G", "u1"), ("B", "u1")]), "only gray values are supported"),
    ],
)
def test_volumes_of_other_shapes_or_types_are_refused(tmp_path, pixels, sentence):
    with pytest.raises(UserError, match=f"volume.nii.gz cannot be read as a NIfTI file .*{sentence}"):
        load(volume(tmp_path, pixels))


def test_damaged_volumes_are_named(tmp_path):
    path = volume(tmp_path, BLOCK) / "volume.nii.gz"
    for content in (b"no volume", path.read_bytes()[:300]):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"volume.nii.gz cannot be read as a NIfTI file"):
            everything(load(tmp_path, resize_mode="pad", size=10))


# ---- both ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("suffix", "library"), [(".dcm", "pydicom"), (".nii.gz", "nibabel")])
def test_without_the_extra_the_error_has_the_command_that_installs_it(tmp_path, monkeypatch, suffix, library):
    (tmp_path / f"a{suffix}").write_bytes(b"")
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(UserError, match=rf"cannot be read without {library}. .*pip install 'genbench\[medical\]'"):
        load(tmp_path)


def test_scans_and_volumes_may_be_pairs(tmp_path):
    scans(tmp_path / "A", truth(), RescaleSlope=1, RescaleIntercept=-1000)
    scans(tmp_path / "B", stretched(0, 900, "u2"))
    data = load(tmp_path, PairedFolder)
    batch = data.source("train").everything
    assert np.array_equal(batch.image.numpy(), batch.source.numpy())
    assert data.arguments["range"] == "-1000,-745/0,900"
