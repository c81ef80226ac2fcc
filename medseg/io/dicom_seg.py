"""DICOM-SEG out, by highdicom (extra `dicom`). It copies patient and study from the source."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg import __version__
from medseg.core.errors import OptionError, VolumeError
from medseg.io.atomic import whole_file
from medseg.io.dicom import open_series

MAKER = "medseg"
_MAY_BE_EMPTY = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime",
    "StudyID", "AccessionNumber", "ReferringPhysicianName", "PositionReferenceIndicator",
)  # fmt: skip
"""Tags of type 2 of the Patient, Study and Frame of Reference modules (PS3.3)."""

_SERIES_NUMBER = 900  # far from a scanner's own


def check_highdicom() -> None:
    """Find out whether DICOM-SEG can be written.

    Raises:
        OptionError: If not; it says what to install.
    """
    if importlib.util.find_spec("highdicom") is None:
        raise OptionError("DICOM-SEG output needs highdicom: pip install 'medseg[dicom]'.")


def write_dicom_seg(
    path: Path,
    label: NDArray[Any],
    source: Path,
    class_names: Sequence[str],
    series_uid: str | None = None,
) -> None:
    """Write class indices as a DICOM-SEG of type LABELMAP, one frame for every source slice.

    Args:
        path: Target, replaced only by a complete file.
        label: Class indices, shape of the source's grid; 0 is the background.
        source: Folder of the DICOM series.
        class_names: Name of each class, the background first.
        series_uid: The series, if the folder holds several.

    Raises:
        VolumeError: `not-a-series` if the source is no DICOM series, `write-failed` if the disk
            refuses or what was written reads back differently.
    """
    if not source.is_dir():
        raise VolumeError(source, "not-a-series", "DICOM-SEG refers to the slices of a series",
                          "write NIfTI for other inputs")  # fmt: skip
    paths = open_series(source, series_uid).paths
    frames = np.ascontiguousarray(label.T)  # slices, rows, columns
    # highdicom answers tags that a source lacks or misuses by any of these.
    failures = (OSError, ValueError, AttributeError, KeyError, TypeError)
    with whole_file(path, failures, "see to space and permissions, or write NIfTI") as temporary:
        _segmentation(paths, frames, class_names).save_as(temporary)
        _read_back(temporary, paths, frames)


def _segmentation(paths: Sequence[Path], frames: NDArray[Any], class_names: Sequence[str]) -> Any:
    import highdicom

    return highdicom.seg.Segmentation(
        source_images=[_with_all_tags(path) for path in paths],
        pixel_array=frames.astype(np.uint8),
        segmentation_type=highdicom.seg.SegmentationTypeValues.LABELMAP,
        segment_descriptions=[
            _description(number, name) for number, name in enumerate(class_names) if number > 0
        ],
        series_instance_uid=highdicom.UID(),
        series_number=_SERIES_NUMBER,
        series_description=f"{MAKER} {', '.join(class_names[1:])}"[:64],
        sop_instance_uid=highdicom.UID(),
        instance_number=1,
        manufacturer=MAKER,
        manufacturer_model_name=MAKER,
        software_versions=__version__,
        device_serial_number="0",
        omit_empty_frames=False,  # else a volume comes back with fewer slices than it has
    )


def _with_all_tags(path: Path) -> Any:
    """Return a slice's tags; those that may be empty but not absent are added where absent."""
    import pydicom

    slice_ = pydicom.dcmread(path, stop_before_pixels=True)
    for keyword in _MAY_BE_EMPTY:
        if keyword not in slice_:
            setattr(slice_, keyword, "")
    return slice_


def _description(number: int, name: str) -> Any:
    import highdicom
    from pydicom.sr.codedict import codes

    return highdicom.seg.SegmentDescription(
        segment_number=number,
        segment_label=name[:64],
        segmented_property_category=codes.SCT.AnatomicalStructure,
        segmented_property_type=codes.SCT.AnatomicalStructure,
        algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=highdicom.AlgorithmIdentificationSequence(
            name=MAKER, version=__version__, family=codes.DCM.ArtificialIntelligence
        ),
    )


def _read_back(path: Path, paths: Sequence[Path], frames: NDArray[Any]) -> None:
    """Compare what lies there, slice by slice as its references say, with what was meant."""
    import highdicom
    import pydicom

    headers = (pydicom.dcmread(source, specific_tags=["SOPInstanceUID"]) for source in paths)
    written = highdicom.seg.segread(path).get_pixels_by_source_instance(
        [header.SOPInstanceUID for header in headers],
        combine_segments=True,
        ignore_spatial_locations=True,
    )
    if not np.array_equal(written, frames):
        raise OSError("the file read back differs")
