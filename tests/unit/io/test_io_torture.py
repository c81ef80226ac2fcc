"""The torture table: every crafted file is read rightly, warned of, or refused in words."""

import json
import pickle
import re
import subprocess
import sys
import threading
import time
import types
from pathlib import Path

import numpy as np
import pytest
import torture_dicom_rows
import torture_files
import torture_itk
import torture_itk_bad
import torture_nifti
import torture_nifti_bad
import torture_nrrd
import torture_nrrd_bad
from torture import AFFINE, file
from torture_nifti import IDS, nifti

from medseg.core.errors import VolumeError
from medseg.io import read_volume

ROWS = [
    *torture_nifti.ROWS,
    *torture_nifti_bad.ROWS,
    *torture_files.ROWS,
    *torture_itk.GOOD,
    *torture_itk_bad.BAD,
    *torture_nrrd.GOOD,
    *torture_nrrd_bad.BAD,
    *torture_dicom_rows.ROWS,
]
REFUSED = [row for row in ROWS if row.should == "reject"]
CHECKED = [row for row in ROWS if row.peer]
# Damaged where the format can still be told from the first words of the file.
TELLING = [
    row
    for row in [*torture_itk_bad.BAD, *torture_nrrd_bad.BAD, *torture_files.NUMPY]
    if row.should == "reject"
    and not re.search("in the header|only|without NDims|named|npz", row.name)
]
EXECUTABLE = [row for row in REFUSED if "pickle" in row.name or "a call" in row.name]
SECONDS = 5.0
HANG_SECONDS = 20.0
MEMORY_GB = 1.5
AFFINE_MM = 1e-4

READ_ALL = """
import json, resource, sys, time
from pathlib import Path
from medseg.core.errors import VolumeError
from medseg.io import read_volume

results = []
for path, options in json.load(sys.stdin):
    start = time.monotonic()
    try:
        read_volume(Path(path), **options)
        said = "accepted"
    except VolumeError:
        said = "refused"
    except BaseException as error:
        said = repr(error)
    results.append((said, time.monotonic() - start))
# ru_maxrss of a child begins with the peak of the process that started it; VmHWM does not.
peak_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
status = Path("/proc/self/status")
if status.exists():
    peak_kb = int(status.read_text().split("VmHWM:")[1].split()[0])
json.dump({"results": results, "peak_kb": peak_kb}, sys.stdout)
"""


def names(rows):
    """Parametrize over rows, with their names as ids."""
    return pytest.mark.parametrize("row", rows, ids=[row.name for row in rows])


def attempt(path, options):
    """Read a file in a thread that may hang; return the volume or the error, and the seconds."""
    came = types.SimpleNamespace(path=path, volume=None, error=None, seconds=HANG_SECONDS)

    def read():
        start = time.monotonic()
        try:
            came.volume = read_volume(path, **options)
        except BaseException as error:  # noqa: BLE001 (a traceback is a finding)
            came.error = error
        came.seconds = time.monotonic() - start

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    thread.join(HANG_SECONDS)
    if thread.is_alive():
        came.error = TimeoutError(f"no answer after {HANG_SECONDS} s")
    return came


@pytest.fixture(scope="session")
def outcome(tmp_path_factory):
    """Return a function that builds and reads a row, once for all tests."""
    known = {}

    def of(row):
        if row.name not in known:
            path = row.build(tmp_path_factory.mktemp("torture"))
            known[row.name] = attempt(path, row.options)
        return known[row.name]

    return of


def assert_values(got, truth):
    """Compare voxels: integers exactly with their type; scaled values up to float32 rounding."""
    assert got.shape == truth.shape
    if truth.dtype.kind != "f":
        assert got.dtype == truth.dtype
        np.testing.assert_array_equal(got, truth)
        return
    share = 1e-12 if got.dtype == truth.dtype else 1e-6
    scale = np.abs(truth[np.isfinite(truth)]).max()
    np.testing.assert_allclose(got, truth, rtol=share, atol=share * scale)


def test_the_table_is_large_and_its_names_are_unique():
    assert len(ROWS) >= 90
    assert len({row.name for row in ROWS}) == len(ROWS)
    assert sum(row.should == "accept" for row in ROWS) >= 90


@names(CHECKED)
def test_the_truth_of_a_row_is_what_another_library_reads(row, tmp_path):
    array, affine = row.peer(row.build(tmp_path))
    assert_values(array.astype(row.array.dtype), row.array)
    np.testing.assert_allclose(affine, row.affine, rtol=0, atol=AFFINE_MM)


@names(ROWS)
def test_row_is_read_rightly_or_warned_of_or_refused(row, outcome):
    came = outcome(row)
    if came.error is not None:
        assert isinstance(came.error, VolumeError), repr(came.error)
        assert row.should not in ("accept", "warn"), str(came.error)
        assert row.code in (None, came.error.code)
        return
    volume = came.volume
    assert row.should != "reject", f"accepted: {volume.grid}, {volume.warnings}"
    assert_values(volume.array, row.array)
    assert volume.grid.shape == (*row.array.shape, 1, 1)[:3]
    if row.affine is not None:
        np.testing.assert_allclose(volume.grid.affine, row.affine, rtol=0, atol=AFFINE_MM)
    assert all(re.fullmatch(r"[a-z0-9-]+: .+", text) for text in volume.warnings)
    if row.should in ("warn", "doubt"):
        assert volume.warnings != []
    if row.should == "accept" and row.quiet:
        assert volume.warnings == []


@names(REFUSED)
def test_refusal_names_path_code_cause_and_cure(row, outcome):
    came = outcome(row)
    assert isinstance(came.error, VolumeError), repr(came.error)
    text = str(came.error)
    assert re.fullmatch(r".+: [a-z0-9-]+: .+ \(.+\)", text, re.DOTALL)
    assert str(came.path.parent) in text
    assert re.fullmatch(r"[a-z0-9-]+", came.error.code)
    # One sentence a person can read, not the collected output of a library.
    assert "\n" not in came.error.cause
    assert 5 < len(came.error.cause) < 400


@names(TELLING)
def test_a_damaged_volume_is_not_called_an_unknown_file(row, outcome):
    unknown = next(other for other in ROWS if other.name == "text file named .nii.gz")
    assert outcome(row).error.code != outcome(unknown).error.code


def test_no_row_takes_long_or_hangs(outcome):
    slow = {row.name: outcome(row).seconds for row in ROWS if outcome(row).seconds > SECONDS}
    assert slow == {}


def test_hostile_files_take_neither_time_nor_memory(outcome, tmp_path):
    control = file("scan.nii", nifti())(tmp_path)
    asked = [(str(control), {}), *((str(outcome(row).path), row.options) for row in REFUSED)]
    done = subprocess.run(
        [sys.executable, "-c", READ_ALL],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    told = json.loads(done.stdout)
    said = [words for words, _ in told["results"]]
    assert said[0] == "accepted"
    wrong = [
        (row.name, words)
        for row, words in zip(REFUSED, said[1:], strict=True)
        if words != "refused"
    ]
    assert wrong == []
    assert max(seconds for _, seconds in told["results"]) < SECONDS
    assert told["peak_kb"] < MEMORY_GB * 1e6


@names(EXECUTABLE)
def test_nothing_in_a_file_is_executed(row, tmp_path, monkeypatch):
    path = row.build(tmp_path)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    attempt(path, row.options)
    assert list(Path().iterdir()) == []


def test_the_trap_in_the_pickles_would_snap(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pickle.loads(pickle.dumps(torture_files.Trap()))
    assert Path(torture_files.MARKER).is_dir()


def test_ids_beyond_2_24_stay_distinct_when_an_intercept_is_added(tmp_path):
    content = nifti(IDS.astype(np.int32), scl_slope=1, scl_inter=5)
    volume = read_volume(file("ids.nii", content)(tmp_path))
    np.testing.assert_array_equal(volume.array, IDS + 5)
    np.testing.assert_allclose(volume.grid.affine, AFFINE, atol=AFFINE_MM)
