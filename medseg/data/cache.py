"""Preprocessed cases on disk: never stale, never half-written.

An entry is a folder named by a hash of everything it depends on: the content of the files, the
preprocessing, the label table and the versions of the code that made it. It appears by a rename,
complete, and an entry whose files are not as its own list says is made again.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import monai
import numpy as np
import torch
from numpy.typing import NDArray

from medseg.core.errors import (
    GeometryError,
    ManifestError,
    MedsegError,
    VolumeError,
    problems,
)
from medseg.core.manifest import Case, Manifest
from medseg.data import resample, transforms
from medseg.data.transforms import (
    IGNORE_INDEX,
    Prepared,
    Preprocessing,
    canonical_grid,
    prepare_case,
)
from medseg.io import (
    dicom,
    dicom_files,
    labels,
    layout,
    metaimage,
    nifti,
    npy,
    nrrd,
    read,
    read_grid,
    stream,
    text,
    volume_files,
)
from medseg.io.memory import Room
from medseg.io.stream import open_regular

_READERS = (read, layout, stream, nifti, metaimage, nrrd, text, npy, dicom, dicom_files, labels)
_CODE = (transforms, resample, *_READERS)
"""The modules that decide what an entry holds: a change in one of them makes new entries."""

MAX_FOREGROUND = 10_000
"""Voxel positions kept per class to sample patches around."""

Progress = Callable[[Iterable[Any], str, int], Iterable[Any]]


@dataclass(frozen=True)
class Entry:
    """A preprocessed case on disk; arrays are mapped, not loaded.

    Attributes:
        case_id: The case.
        folder: Where it lies.
    """

    case_id: str
    folder: Path

    def image(self) -> NDArray[np.float32]:
        """Return the image, shape (C, I, J, K)."""
        return np.load(self.folder / "image.npy", mmap_mode="r")  # type: ignore[no-any-return]

    def label(self) -> NDArray[np.uint8]:
        """Return the class indices, shape (I, J, K)."""
        return np.load(self.folder / "label.npy", mmap_mode="r")  # type: ignore[no-any-return]

    def foreground(self) -> NDArray[np.int32]:
        """Return rows (class, i, j, k) of foreground voxels to sample around, class by class."""
        path = self.folder / "foreground.npy"
        return np.load(path, mmap_mode="r")  # type: ignore[no-any-return]


class Cache:
    """Preprocessed cases of one manifest under one preprocessing.

    Args:
        folder: Where entries lie; may be shared by many runs.
        manifest: The data set.
        preprocessing: How its cases become network input.
    """

    def __init__(self, folder: Path, manifest: Manifest, preprocessing: Preprocessing) -> None:
        self.folder = folder
        self.manifest = manifest
        self.preprocessing = preprocessing
        self._room = Room()  # anew whenever cases are prepared: others take memory meanwhile

    def prepare(self, cases: Sequence[Case], progress: Progress | None = None) -> list[Entry]:
        """Return the entries of `cases`, made where they are not there yet.

        Raises:
            ManifestError: If cases are refused; it lists all of them, each with its reason.
        """
        self._room = Room()
        with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
            results = pool.map(self._attempt, cases)
            shown = progress(results, "preprocessing", len(cases)) if progress else results
            done = list(shown)
        found = [
            f"case {case.case_id!r}: {result}"
            for case, result in zip(cases, done, strict=True)
            if isinstance(result, MedsegError)
        ]
        if found:
            raise ManifestError(problems(self.manifest.path, found))
        return [result for result in done if isinstance(result, Entry)]

    def _attempt(self, case: Case) -> Entry | MedsegError:
        try:
            return self.entry(case)
        except (VolumeError, GeometryError) as error:
            return error

    def entry(self, case: Case) -> Entry:
        """Return the entry of one case, made if it is not there or not whole."""
        folder = self.folder / self._key(case)
        if not _is_whole(folder):
            paths = [self.manifest.file(name) for name in case.images]
            label = self.manifest.file(case.label) if case.label else None
            channels = len(self.manifest.channel_names)
            with self._room.taken(_bytes_of(paths[0], channels, self.preprocessing)):
                prepared = prepare_case(
                    paths,
                    label,
                    channels,
                    list(self.manifest.labels.values()),
                    self.preprocessing,
                    self.manifest.ignore_value,
                )
                _store(folder, prepared)
        return Entry(case.case_id, folder)

    def _key(self, case: Case) -> str:
        parts: dict[str, Any] = {
            "code": _code_digest(),
            "monai": monai.__version__,
            "numpy": np.__version__,
            "torch": torch.__version__,
            "preprocessing": asdict(self.preprocessing),
            "labels": list(self.manifest.labels.values()),
            "ignore": self.manifest.ignore_value,
            "channels": len(self.manifest.channel_names),
            "images": len(case.images),
            "files": [
                [_digest(part) for part in volume_files(path)] for path in self.manifest.files(case)
            ],
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def _bytes_of(image: Path, channels: int, preprocessing: Preprocessing) -> int:
    """Return about what preparing a case takes: 42 bytes a voxel were measured for one channel."""
    try:
        original = read_grid(image)
    except VolumeError:  # told where it is read
        return 0
    shapes = (original.shape, canonical_grid(original, preprocessing).shape)
    return (32 + 10 * channels) * max(map(math.prod, shapes))


def default_folder() -> Path:
    """Return the user's cache folder (XDG_CACHE_HOME, or ~/.cache)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "medseg"


@functools.cache
def _code_digest() -> str:
    sources = "".join(inspect.getsource(module) for module in _CODE)
    return hashlib.sha256(sources.encode()).hexdigest()


def _digest(path: Path) -> str:
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_whole(folder: Path) -> bool:
    """Return whether every file of an entry has the size its list says."""
    try:
        sizes: dict[str, int] = json.loads((folder / "sizes.json").read_text(encoding="utf-8"))
        return all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError):
        return False


def _store(folder: Path, prepared: Prepared) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".making-", dir=folder.parent))
    try:
        _save(temporary / "image.npy", prepared.image)
        if prepared.label is not None:
            _save(temporary / "label.npy", prepared.label)
            _save(temporary / "foreground.npy", _foreground(prepared.label))
        sizes = {path.name: path.stat().st_size for path in sorted(temporary.iterdir())}
        with (temporary / "sizes.json").open("w", encoding="utf-8") as file:
            json.dump(sizes, file)
            file.flush()
            os.fsync(file.fileno())
        try:
            temporary.rename(folder)
        except OSError:
            if _is_whole(folder):
                return  # another process was faster; its entry has the same content
            shutil.rmtree(folder, ignore_errors=True)
            temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _save(path: Path, array: NDArray[Any]) -> None:
    with path.open("wb") as file:
        np.save(file, np.ascontiguousarray(array), allow_pickle=False)
        file.flush()
        os.fsync(file.fileno())


def _foreground(label: NDArray[np.uint8]) -> NDArray[np.int32]:
    """Return rows (class, i, j, k): all voxels of a class, or an even choice of them."""
    rows = [np.empty((0, 4), dtype=np.int32)]
    for index in np.unique(label):
        if index in (0, IGNORE_INDEX):
            continue
        where = np.argwhere(label == index).astype(np.int32)
        where = where[:: max(1, len(where) // MAX_FOREGROUND)]
        rows.append(np.insert(where, 0, int(index), axis=1))
    return np.concatenate(rows)
