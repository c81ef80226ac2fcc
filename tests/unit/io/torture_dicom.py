"""DICOM series, as folders of slices: whole ones, and the ways they arrive broken."""

import os
from functools import partial

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLosslessSV1,
    RLELossless,
)
from torture import LPS, Row, affine_of, voxels
from torture_nifti import nifti

CT = "1.2.840.10008.5.1.4.1.1.2"
ROOT = "1.2.826.0.1.3680043.8.498"
FIRST, SECOND = f"{ROOT}.1.1", f"{ROOT}.1.2"
STORED = voxels((9, 8, 6), np.int16) // 16
HU = STORED.astype(np.float64)
# In the patient's LPS axes; columns: along a row, down a column, from slice to slice.
AXIAL = affine_of((0.7, 0.9, 2.5), origin=(-30.0, -41.5, 12.0))
# Rows run to the back, columns to the feet; the normal of that points to the right.
SAGITTAL = AXIAL[[2, 0, 1, 3]] @ np.diag([1, -1, -1, 1])
SAGITTAL[:3, :3] = np.array([[0, 0, -1], [1, 0, 0], [0, -1, 0]]) @ np.diag([0.7, 0.9, 2.5])
CORONAL = AXIAL.copy()
CORONAL[:3, :3] = np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]]) @ np.diag([0.7, 0.9, 2.5])
OBLIQUE = affine_of((0.7, 0.9, 2.5), rotation=(0.3, -0.2, 0.1), origin=(-30.0, -41.5, 12.0))
TILTED = AXIAL.copy()
TILTED[1, 2] = 0.6


def one(array, lps, k, series=FIRST, kind=np.int16, **tags):
    """Return one slice of a volume as a DICOM data set; a tag given as None is left out."""
    steps = np.linalg.norm(lps[:3, :2], axis=0)
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.SOPClassUID, made.SOPInstanceUID = CT, f"{series}.{k + 1}"
    made.file_meta.MediaStorageSOPClassUID = CT
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.StudyInstanceUID, made.SeriesInstanceUID, made.FrameOfReferenceUID = (
        f"{ROOT}.1",
        series,
        f"{ROOT}.9",
    )
    made.PatientName, made.PatientID, made.Modality = "Nobody", "0", "CT"
    made.InstanceNumber, made.SeriesNumber = k + 1, 1
    made.ImageOrientationPatient = [float(v) for v in (lps[:3, :2] / steps).T.ravel()]
    made.ImagePositionPatient = [float(v) for v in lps[:3] @ (0, 0, k, 1)]
    # The standard's order: between rows first, then between columns.
    made.PixelSpacing = [float(steps[1]), float(steps[0])]
    made.SliceThickness = float(np.linalg.norm(lps[:3, 2]))
    made.Columns, made.Rows = array.shape[:2]
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    made.PixelRepresentation = int(np.issubdtype(kind, np.signedinteger))
    made.BitsAllocated = made.BitsStored = np.dtype(kind).itemsize * 8
    made.HighBit = made.BitsStored - 1
    made.RescaleIntercept, made.RescaleSlope = 0, 1
    made.PixelData = array[:, :, k].astype(kind).tobytes(order="F")
    made["PixelData"].VR = "OW"
    for tag, value in tags.items():
        if value is None:
            delattr(made, tag)
        else:
            setattr(made, tag, value)
    return made


def saved(dataset, path):
    """Write one slice as a DICOM file."""
    path.parent.mkdir(exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)


def series(
    array=STORED, lps=AXIAL, keep=None, change=None, after=None, name="IM{:04d}.dcm", **tags
):
    """Return a builder of a folder of slices.

    Args:
        array: The voxels stored, x first.
        lps: Voxel index to mm in the patient's LPS axes.
        keep: The slices that are written; all by default.
        change: Called with each data set and its slice number before it is written.
        after: Called with the folder at the end.
        name: File name by slice number.
        tags: Set in every slice.
    """

    def build(folder):
        for k in range(array.shape[2]) if keep is None else keep:
            dataset = one(array, lps, k, **tags)
            if change:
                change(dataset, k)
            saved(dataset, folder / "series" / name.format(k))
        if after:
            after(folder / "series")
        return folder / "series"

    return build


def by_simpleitk(path):
    """Read as SimpleITK does, positions turned to RAS: the check of the builders."""
    import SimpleITK

    names = SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(path))
    image = SimpleITK.ReadImage(names)
    affine = np.eye(4)
    affine[:3, 3] = image.TransformIndexToPhysicalPoint((0, 0, 0))
    for axis, step in enumerate(np.eye(3, dtype=int).tolist()):
        affine[:3, axis] = image.TransformIndexToPhysicalPoint(step) - affine[:3, 3]
    return SimpleITK.GetArrayFromImage(image).T.astype(float), LPS @ affine


def good(name, build, array=HU, lps=AXIAL, should="accept", peer=by_simpleitk, **rest):
    """Return a row that must be accepted; values are compared as numbers, whatever their type."""
    return Row(name, build, should, array.astype(np.float64), LPS @ lps, peer=peer, **rest)


def bad(name, build, **rest):
    """Return a row that must be refused."""
    return Row(name, build, "reject", **rest)


def at(chosen, **tags):
    """Return a change of some tags in one slice."""

    def change(dataset, k):
        for tag, value in tags.items() if k == chosen else ():
            if value is None:
                delattr(dataset, tag)
            else:
                setattr(dataset, tag, value)

    return change


def place(chosen, millimetres):
    """Return a change that moves one slice along z."""

    def change(dataset, k):
        if k == chosen:
            x, y, z = dataset.ImagePositionPatient
            dataset.ImagePositionPatient = [x, y, z + millimetres]

    return change


def per_slice(dataset, k):
    """Give each slice its own scale, as PET scanners do."""
    dataset.RescaleSlope, dataset.RescaleIntercept = 0.5 + k, -10 * k


def coded(syntax):
    """Return a change of the transfer syntax."""

    def change(dataset, k):
        if syntax == RLELossless:
            dataset.compress(RLELossless)
        dataset.file_meta.TransferSyntaxUID = syntax
        if syntax == ExplicitVRBigEndian:
            dataset.PixelData = np.frombuffer(dataset.PixelData, "<i2").astype(">i2").tobytes()

    return change


def jpeg(dataset, k):
    """Announce JPEG and hold junk."""
    dataset.file_meta.TransferSyntaxUID = JPEGLosslessSV1
    dataset.PixelData = encapsulate([b"junk" * 50])
    dataset["PixelData"].is_undefined_length = True


def second(folder, keep=range(6), **tags):
    """Add another series to a folder."""
    for k in keep:
        saved(one(STORED[::-1], AXIAL, k, SECOND, **tags), folder / f"B{k}.dcm")


def clutter(folder):
    """Add what lies about in real folders."""
    (folder / "README.txt").write_text("slices of nobody")
    (folder / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    (folder / "Thumbs.db").write_bytes(b"")
    (folder / "preview.jpg").write_bytes(b"\xff\xd8\xff\xe0junk")


def cut(size, k=3):
    """Return an act that keeps the first `size` bytes of one slice, or drops the last ones."""

    def act(folder):
        path = folder / f"IM{k:04d}.dcm"
        path.write_bytes(path.read_bytes()[:size])

    return act


def zero_end(folder):
    """Overwrite the last bytes of one slice with zeros."""
    path = folder / "IM0003.dcm"
    path.write_bytes(path.read_bytes()[:-60] + bytes(60))


def again(folder):
    """Copy one slice under another name."""
    (folder / "copy.dcm").write_bytes((folder / "IM0002.dcm").read_bytes())


def shuffled(folder):
    """Give the files names without extension whose order is not the order of the slices."""
    for path, name in zip(sorted(folder.iterdir()), ("e", "b", "f", "a", "d", "c"), strict=True):
        path.rename(folder / name)


def named(name, build):
    """Return a builder that names one file of the folder that `build` makes."""
    return lambda folder: build(folder) / name


def structure(folder):
    """Build a folder of one DICOM file without pixels, as a structure set is one."""
    tags = dict.fromkeys(
        (
            "PixelData",
            "Rows",
            "Columns",
            "ImagePositionPatient",
            "ImageOrientationPatient",
            "PixelSpacing",
        )
    )
    return series(keep=[0], Modality="RTSTRUCT", **tags)(folder)


def frames(folder):
    """Build a folder of one file with several frames and no place for each."""
    data = STORED.tobytes(order="F")
    return series(keep=[0], NumberOfFrames=6, PixelData=data)(folder)


UNSIGNED = voxels((9, 8, 6), np.uint16) % 4096
SCALED = STORED * (0.5 + np.arange(6)) - 10 * np.arange(6)
COLOUR = {
    "SamplesPerPixel": 3,
    "PhotometricInterpretation": "RGB",
    "PlanarConfiguration": 0,
    "BitsAllocated": 8,
    "BitsStored": 8,
    "HighBit": 7,
    "PixelRepresentation": 0,
    "PixelData": bytes(9 * 8 * 3),
}
GOOD = [
    good("DICOM series dir", series()),
    good("DICOM, 16 bits unsigned", series(UNSIGNED, kind=np.uint16), UNSIGNED),
    good(
        "DICOM, 12 bits stored in 16",
        series(UNSIGNED, kind=np.uint16, BitsStored=12, HighBit=11),
        UNSIGNED,
    ),
    good("DICOM, 8 bits", series(UNSIGNED % 256, kind=np.uint8), UNSIGNED % 256),
    good(
        "DICOM, intercept -1024",
        series(UNSIGNED, kind=np.uint16, RescaleIntercept=-1024),
        UNSIGNED - 1024.0,
    ),
    good("DICOM, slope and intercept per slice (PET)", series(change=per_slice), SCALED),
    good("DICOM, no rescale tags", series(RescaleSlope=None, RescaleIntercept=None)),
    good("DICOM, sagittal", series(lps=SAGITTAL), lps=SAGITTAL),
    good("DICOM, coronal", series(lps=CORONAL), lps=CORONAL),
    good("DICOM, oblique", series(lps=OBLIQUE), lps=OBLIQUE),
    good("DICOM, names in no order", series(after=shuffled)),
    good(
        "DICOM, names from top to bottom",
        series(name="IM{0:d}.dcm", change=lambda d, k: setattr(d, "InstanceNumber", 6 - k)),
    ),
    good("DICOM, no instance numbers", series(InstanceNumber=None)),
    good("DICOM, other files beside the slices", series(after=clutter), quiet=False),
    good(
        "DICOM, a FIFO beside the slices",
        series(after=lambda folder: os.mkfifo(folder / "pipe")),
        should="either",
        peer=None,
    ),
    good("DICOM, implicit VR", series(change=coded(ImplicitVRLittleEndian))),
    good("DICOM, deflated", series(change=coded(DeflatedExplicitVRLittleEndian)), peer=None),
    good("DICOM, RLE", series(change=coded(RLELossless)), should="either", peer=None),
    good(
        "DICOM, big-endian (retired)",
        series(change=coded(ExplicitVRBigEndian)),
        should="either",
        peer=None,
    ),
    good("DICOM, slices thicker than their distance", series(SliceThickness=5.0), quiet=False),
    good("DICOM, no SliceThickness", series(SliceThickness=None)),
    good("DICOM, positions rounded to 0.001 mm", series(change=place(3, 0.001))),
    good(
        "DICOM, gantry tilt",
        series(lps=TILTED),
        lps=TILTED,
        should="either",
        quiet=False,
        peer=None,
    ),
    good("DICOM, two slices", series(keep=[0, 1]), HU[:, :, :2]),
    good("DICOM, one slice", series(keep=[0]), HU[:, :, :1], should="either", peer=None),
    good(
        "DICOM, two series, one chosen",
        series(after=second),
        options={"series_uid": FIRST},
        quiet=False,
        peer=None,
    ),
    good(
        "DICOM, two series, the other chosen",
        series(after=second),
        HU[::-1],
        options={"series_uid": SECOND},
        quiet=False,
        peer=None,
    ),
    good("DICOM, the only series named", series(), options={"series_uid": FIRST}),
    good(
        "DICOM, one file of a series",
        named("IM0002.dcm", series()),
        HU[:, :, 2:3],
        AXIAL @ np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 2], [0, 0, 0, 1]]),
        should="either",
        peer=None,
    ),
]
BAD = [
    bad("DICOM dir with 2 series", series(after=second)),
    bad("DICOM dir with a scout of one slice", series(after=partial(second, keep=[0]))),
    bad("DICOM, series_uid that is not there", series(), options={"series_uid": f"{ROOT}.7"}),
    bad("DICOM series with 2 slices missing", series(keep=[0, 1, 4, 5])),
    bad("DICOM series with 1 slice missing", series(keep=[0, 1, 2, 4, 5])),
    bad("DICOM, slice moved by 1 mm", series(change=place(3, 1.0))),
    bad("DICOM, a slice twice", series(after=again)),
    bad("DICOM, two slices in one place", series(change=place(3, -2.5))),
    bad(
        "DICOM, mixed orientation",
        series(change=at(3, ImageOrientationPatient=[1, 0, 0, 0, 0, -1])),
    ),
    bad(
        "DICOM, orientation 2 degrees off in a slice",
        series(change=at(3, ImageOrientationPatient=[0.99939, 0.0349, 0, -0.0349, 0.99939, 0])),
    ),
    bad("DICOM, mixed spacing", series(change=at(3, PixelSpacing=[0.9, 0.8]))),
    bad("DICOM, mixed size", series(change=at(3, Rows=4, PixelData=bytes(9 * 4 * 2)))),
    bad(
        "DICOM, slice moved sideways",
        series(change=at(3, ImagePositionPatient=[-20.0, -41.5, 19.5])),
    ),
    bad("DICOM, slice truncated (half of its pixels)", series(after=cut(-72))),
    bad("DICOM, slice without its last byte", series(after=cut(-1))),
    bad("DICOM, slice truncated in its header", series(after=cut(500))),
    bad("DICOM, slice of its first 140 bytes", series(after=cut(140))),
    bad("DICOM, slice of 0 bytes", series(after=cut(0))),
    bad("DICOM, last slice truncated in its header", series(after=cut(500, 5))),
    bad("DICOM, last slice without its last byte", series(after=cut(-1, 5))),
    good(
        "DICOM, last slice of 0 bytes",
        series(after=cut(0, 5)),
        HU[:, :, :5],
        should="doubt",
        peer=None,
    ),
    bad("DICOM, slice without position", series(change=at(3, ImagePositionPatient=None))),
    bad("DICOM, slice without orientation", series(change=at(3, ImageOrientationPatient=None))),
    bad("DICOM, no positions at all", series(ImagePositionPatient=None)),
    bad("DICOM, no orientation at all", series(ImageOrientationPatient=None)),
    bad("DICOM, no PixelSpacing", series(PixelSpacing=None)),
    bad("DICOM, PixelSpacing 0", series(PixelSpacing=[0, 0.7])),
    bad("DICOM, slice without pixels", series(change=at(3, PixelData=None))),
    bad("DICOM, pixels fewer than Rows x Columns", series(change=at(3, PixelData=bytes(100)))),
    bad("DICOM, Rows 65535 in 700 bytes", series(Rows=65535, Columns=65535)),
    bad("DICOM, orientation of zeros", series(ImageOrientationPatient=[0, 0, 0, 0, 0, 0])),
    bad("DICOM, rows along columns", series(ImageOrientationPatient=[1, 0, 0, 1, 0, 0])),
    bad("DICOM, RGB", series(**COLOUR)),
    bad("DICOM, slope NaN", series(RescaleSlope="NaN")),
    bad("DICOM, structure set only", structure),
    bad("DICOM, many frames without places", frames),
    bad("DICOM, RLE damaged", series(change=coded(RLELossless), after=zero_end)),
    bad("DICOM, JPEG announced, junk inside", series(change=jpeg)),
    good(
        "DICOM, MONOCHROME1",
        series(PhotometricInterpretation="MONOCHROME1"),
        should="either",
        peer=None,
    ),
    good(
        "DICOM, a NIfTI among the slices",
        series(after=lambda folder: (folder / "label.nii").write_bytes(nifti())),
        should="either",
        peer=None,
    ),
]
ROWS = [*GOOD, *BAD]
