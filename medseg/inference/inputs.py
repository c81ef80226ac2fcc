"""What `medseg predict --input` means: a file, a folder or a manifest, as a list of cases."""

from __future__ import annotations

import logging
import os
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from medseg.core.errors import OptionError, VolumeError, problems
from medseg.core.manifest import (
    ENDINGS,
    VOLUME_ENDINGS,
    Case,
    Manifest,
    case_id_of,
    case_id_problem,
    load_manifest,
)
from medseg.inference.options import Format
from medseg.io import volume_files
from medseg.io.dicom_files import holds_dicom

_NAMED = 5
_CHANNEL = re.compile(r"_(\d{4})$")  # nnU-Net's suffix of the files of a multi-channel case

_ONE_FILE = "give --input the folder with a file for each channel, or one file that holds them all"
"""What to do if --input is one file with too few channels."""

log = logging.getLogger("medseg")


@dataclass(frozen=True)
class Job:
    """One case to label.

    Attributes:
        case_id: Its name.
        images: One file per channel, or one file for all.
        output: Where its label map goes, relative to the output folder.
        reference: Its label file, if known.
        problem: Why it cannot be labelled, if that is known before it is read.
        code: Short name of the problem.
        missing: What to do if its one file holds too few channels.
    """

    case_id: str
    images: tuple[Path, ...]
    output: str
    reference: Path | None = None
    problem: str = ""
    code: str = ""
    missing: str = ""

    @property
    def uncertainty(self) -> str:
        """Where the map of its uncertainty goes."""
        return f"{_stem(self.output)}_uncertainty.nii.gz"

    @property
    def probabilities(self) -> str:
        """Where its probabilities go."""
        return f"{_stem(self.output)}_probabilities.npy"


def _stem(output: str) -> str:
    """Return the path of a label map without its ending."""
    return next(output.removesuffix(end) for end in _WRITTEN if output.endswith(end))


_WRITTEN = (".nii.gz", ".mha", ".nrrd", ".dcm")
"""Endings of label maps."""


def parts_of(image: Path) -> tuple[Path, ...]:
    """Return all files that hold an image; the one that was named if its header is refused."""
    try:
        return volume_files(image)
    except (VolumeError, OSError):
        return (image,)  # what is wrong with it is said when it is read


def list_jobs(
    source: Path,
    channels: int,
    root: Path | None,
    fold: int | None,
    output: Path,
    written: Format = "source",
    maps: bool = False,
    channel_names: Sequence[str] = (),
) -> list[Job]:
    """Return the cases of a file, folder or manifest.

    Args:
        source: What the user named.
        channels: Image channels the network takes.
        root: Folder a manifest's paths are relative to.
        fold: Only this fold of a manifest.
        output: Folder of the label maps; where it lies within the source it is no input.
        written: Format of the label maps.
        maps: Whether uncertainty or probabilities are written beside them.
        channel_names: Names of the channels, for messages.

    Raises:
        OptionError: If there is none, two would be written to one file, or one would replace an
            input.
        ManifestError: If a manifest is wrong or files it needs are absent.
    """
    if source.suffix == ".json":
        jobs = _of_manifest(load_manifest(source, root), fold, written)
    elif root is not None or fold is not None:
        raise OptionError("--root and --fold go with a manifest as --input.")
    elif source.is_dir():
        jobs = _of_files(source, _volumes_below(source, output), channels, written)
        names = channel_names or [str(channel) for channel in range(channels)]
        jobs = [replace(job, missing=_missing(source, job.images, names)) for job in jobs]
    elif source.exists():
        jobs = _of_files(source.parent, [source], channels, written)
        jobs = [replace(job, missing=_ONE_FILE) for job in jobs]
    else:
        raise OptionError(f"--input {source}: no such file or folder.")
    if not jobs:
        raise OptionError(
            f"--input {source}: no volume ({', '.join(VOLUME_ENDINGS)}, or a DICOM series) found."
        )
    _refuse_collisions(jobs, output, maps)
    return [replace(job, problem=job.problem or _problem(job, written)) for job in jobs]


def _problem(job: Job, written: Format) -> str:
    """Say what one case suffers from, which is no reason to refuse the others."""
    if problem := case_id_problem(job.case_id):
        return f"{job.images[0]}: case id {job.case_id!r} {problem}. Rename the file."
    if written == "dicom_seg" and not job.images[0].is_dir():
        return f"{job.images[0]}: DICOM-SEG refers to the slices of a DICOM series. Write NIfTI."
    return ""


def _of_manifest(manifest: Manifest, fold: int | None, written: Format) -> list[Job]:
    cases: tuple[Case, ...] = (*manifest.training, *manifest.test)
    if fold is not None:
        cases = manifest.in_folds([fold])
        manifest.require_files(cases)
    return [
        Job(
            case.case_id,
            tuple(manifest.file(name) for name in case.images),
            case.case_id + _ending(case.images[0], written),
            manifest.file(case.label) if case.label else None,
        )
        for case in cases
    ]


def _volumes_below(folder: Path, output: Path) -> list[Path]:
    """Return the volumes of a folder and its subfolders, links to folders included.

    Raises:
        OptionError: If a subfolder cannot be read: its cases would be missing silently.
    """

    def refuse(error: OSError) -> None:
        raise OptionError(f"--input {error.filename} cannot be read ({error.strerror}).")

    found, skipped = [], []
    entered = {output.resolve(), folder.resolve()}
    for name, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        place = Path(name)
        folders[:] = sorted(
            inner
            for inner in folders
            if not inner.startswith(".") and _is_new(place / inner, entered)
        )
        files = sorted(place / inner for inner in names if not inner.startswith("."))
        volumes = [file for file in files if file.name.lower().endswith(VOLUME_ENDINGS)]
        if holds_dicom(place):
            volumes.insert(0, place)
        elif not place.name.startswith("."):
            skipped += [file for file in files if not file.name.lower().endswith(ENDINGS)]
        found += volumes
    if skipped:
        log.info("%d files are no volumes by their names: %s", len(skipped),
                 ", ".join(repr(file.name) for file in skipped[:_NAMED]))  # fmt: skip
    return found


def _is_new(folder: Path, entered: set[Path]) -> bool:
    """Remember a folder by its true place; a link may lead back into where one was."""
    place = folder.resolve()
    new = place not in entered
    entered.add(place)
    return new


def _ending(image: Path | str, written: Format) -> str:
    """Return the ending of a label map."""
    if written == "dicom_seg":
        return ".dcm"
    ending = Path(image).suffix.lower() if written == "source" else ""
    return {".mha": ".mha", ".mhd": ".mha", ".nrrd": ".nrrd", ".nhdr": ".nrrd"}.get(
        ending, ".nii.gz"
    )


def _of_files(folder: Path, files: list[Path], channels: int, written: Format) -> list[Job]:
    """Make each file a case; for several channels, group the files of nnU-Net's naming."""
    places = [_place(folder, file) for file in files]
    if channels == 1:
        # nnU-Net's names end with 0000, all of them; in others four digits are a number.
        named = all(place.name.endswith("_0000") for place in places)
        pairs = [
            (_without_channel(place) if named and not file.is_dir() else place, [file])
            for place, file in zip(places, files, strict=True)
        ]
    else:
        groups: dict[Path, list[Path]] = defaultdict(list)
        for place, file in zip(places, files, strict=True):
            groups[_without_channel(place)].append(file)
        pairs = list(groups.items())
    wrong = [_wrong_channels(place, group, channels) for place, group in pairs]
    if wrong and all(wrong):
        raise OptionError(problems("--input", wrong))
    return [
        Job(
            place.name,
            tuple(group),
            place.as_posix() + _ending(group[0], written),
            problem=problem,
            code="wrong-channels" if problem else "",
        )
        for (place, group), problem in zip(pairs, wrong, strict=True)
    ]


def _place(folder: Path, volume: Path) -> Path:
    """Return where a case lies below the input folder, by its name."""
    if volume.is_dir():  # a DICOM series; the input folder itself may be one
        return Path(folder.resolve().name) if volume == folder else volume.relative_to(folder)
    return volume.parent.relative_to(folder) / case_id_of(volume.name)


def _without_channel(place: Path) -> Path:
    return place.with_name(_CHANNEL.sub("", place.name))


def _wrong_channels(place: Path, group: list[Path], channels: int) -> str:
    """Say so if the files of a case are not the channels 0000, 0001, … or one file with all."""
    if len(group) == 1:
        return ""
    expected = [f"{channel:04d}" for channel in range(channels)]
    suffixes = [_CHANNEL.search(case_id_of(file.name)) for file in group]
    if [s and s[1] for s in suffixes] == expected:
        return ""
    names = ", ".join(file.name for file in group)
    return f"case {place.as_posix()!r} needs the channels {expected}; it has {names}"


def _missing(folder: Path, images: Sequence[Path], channel_names: Sequence[str]) -> str:
    """Say which files of a case are missing, if the folder holds one that lacks channels."""
    if len(images) == len(channel_names) or images[0] == folder:
        return ""  # the folder of a DICOM series has no others beside it
    case_id = case_id_of(images[0].name)
    stem, ending = _CHANNEL.sub("", case_id), images[0].name.removeprefix(case_id)
    there = {image.name for image in images}
    absent = [
        f"{name} for the channel {channel!r}"
        for number, channel in enumerate(channel_names)
        if (name := f"{stem}_{number:04d}{ending}") not in there
    ]
    return f"{' and '.join(absent)} {'is' if len(absent) == 1 else 'are'} missing"


def refuse_file(output: Path, source: Path, written: Format) -> None:
    """Find out whether the output folder is named like a label map.

    Args:
        output: Folder of the label maps.
        source: What the user named as --input.
        written: Format of the label maps.

    Raises:
        OptionError: If it is, and no such folder exists.
    """
    # os.path, since Path.is_dir raises on a name that is too long
    if not output.name.lower().endswith((*ENDINGS, *_WRITTEN)) or os.path.isdir(output):  # noqa: PTH112
        return
    name = "named after the case"
    if os.path.isfile(source) and source.suffix != ".json":  # noqa: PTH113
        name = _of_files(source.parent, [source], 1, written)[0].output
    raise OptionError(
        f"--output {output} is named like a file and must be a folder: name one, and the label map "
        f"will be {name} in it."
    )


def _refuse_collisions(jobs: list[Job], output: Path, maps: bool) -> None:
    found = []
    given = {
        path.resolve() for job in jobs for path in (*job.images, job.reference) if path is not None
    }
    taken: dict[str, Job] = {}
    for job in jobs:
        # Without case: two names that differ in it are one file on many systems.
        for name in (job.output, job.uncertainty, job.probabilities)[: 3 if maps else 1]:
            other = taken.setdefault(name.casefold(), job)
            if other is not job:
                found.append(f"{other.images[0]} and {job.images[0]} would both be {name}")
                break
        if (output / job.output).resolve() in given:
            found.append(f"{output / job.output} is an input and would be replaced by a label map")
    if found:
        raise OptionError(problems("--input", found))
