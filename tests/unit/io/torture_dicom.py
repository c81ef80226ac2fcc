"""DICOM series, as folders of slices: whole ones, and the ways they arrive broken."""

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    JPEGLosslessSV1,
    RLELossless,
)
from torture import LPS, Row, affine_of, voxels

CT = "1.2.840.10008.5.1.4.1.1.2"
ROOT = "1.2.826.0.1.3680043.8.498"
FIRST, SECOND = f"{ROOT}.1.1", f"{ROOT}.1.2"
STORED = voxels((9, 8, 6), np.int16) // 16
HU = STORED.astype(np.float64)
# In the patient's LPS axes; columns: along a row, down a column, from slice to slice.
AXIAL = affine_of((0.7, 0.9, 2.5), origin=(-30.0, -41.5, 12.0))
# Rows run to the back, columns to the feet; the normal of that points to the right.
SAGITTAL = AXIAL.copy()
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
