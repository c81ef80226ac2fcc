"""What is known to be wrong with a case before it is read."""

from pathlib import Path

import numpy as np
import pytest

from medseg.core.errors import MedsegError
from medseg.core.geometry import Grid
from medseg.data.transforms import Preprocessing, Reading, read_channels
from medseg.inference.cuts import Footprint
from medseg.inference.inputs import Job, list_jobs
from medseg.inference.plan import Request
from medseg.inference.preflight import look_at
from medseg.io import write_volume
from medseg.networks.window import SlidingWindow

OUT = Path("elsewhere")
READING = Reading()


def write(folder, *names, channels=()):
    grid = Grid.from_spacing((6, 5, 4), (1, 1, 1))
    for name in names:
        write_volume(folder / name, np.zeros((6, 5, 4, *channels), np.int16), grid)


def looked_at(jobs, channels):
    footprint = Footprint(SlidingWindow((8, 8, 8), 0.5, 1), channels, 2, 1 << 12, 1 << 20)
    return look_at(jobs, Request((footprint,), (Preprocessing(),)), READING, None)


@pytest.mark.parametrize(
    ("name", "stored", "channels"),
    [
        ("a.nii.gz", (), 2),
        ("a.nii.gz", (3,), 2),
        ("a.nii.gz", (2,), 1),
        ("a.nrrd", (2,), 1),
        ("a.mha", (2,), 3),
    ],
)
def test_wrong_channels_are_known_from_the_header_as_the_reader_says_it(
    tmp_path, name, stored, channels
):
    write(tmp_path, name, channels=stored)
    (job,), forecast = looked_at([Job("a", (tmp_path / name,), "a.nii.gz")], channels)
    with pytest.raises(MedsegError) as error:
        read_channels(job.images, channels, READING)
    assert (job.code, job.problem) == ("wrong-channels", str(error.value))
    assert (forecast.cases, forecast.problems) == (0, {job.output: job.problem})


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("a_0000.nii.gz", "a_0001.nii.gz for the channel 'PET' is missing"),
        ("a_0001.nii.gz", "a_0000.nii.gz for the channel 'CT' is missing"),
        (
            "a.nrrd",
            "a_0000.nrrd for the channel 'CT' and a_0001.nrrd for the channel 'PET' are missing",
        ),
    ],
)
def test_a_folder_says_which_file_of_a_case_is_missing(tmp_path, name, told):
    write(tmp_path, name, "b_0000.nii.gz", "b_0001.nii.gz")
    jobs = list_jobs(tmp_path, 2, None, None, OUT, channel_names=["CT", "PET"])
    (job, other), _ = looked_at(jobs, 2)
    cause = "wrong-channels: shape (6, 5, 4), where 2 channels were expected"
    assert job.problem == f"{tmp_path / name}: {cause} ({told})"
    assert other.problem == ""


def test_too_many_channels_are_not_called_missing(tmp_path):
    write(tmp_path, "a_0000.nii.gz", channels=(3,))
    (job,), _ = looked_at(list_jobs(tmp_path, 2, None, None, OUT), 2)
    assert "(take out one volume" in job.problem


def test_one_file_of_several_channels_asks_for_the_folder(tmp_path):
    write(tmp_path, "a_0000.nii.gz", "a_0001.nii.gz")
    (job,), _ = looked_at(list_jobs(tmp_path / "a_0000.nii.gz", 2, None, None, OUT), 2)
    assert "(give --input the folder with a file for each" in job.problem


def test_a_wrong_number_of_files_is_known_before_they_are_opened(tmp_path):
    given = Job("a", tuple(tmp_path / f"{n}.nii.gz" for n in range(3)), "a.nii.gz")
    (job,), _ = looked_at([given], 2)
    with pytest.raises(MedsegError) as error:
        read_channels(given.images, 2, READING)
    assert (job.code, job.problem) == ("refused", str(error.value))


@pytest.mark.parametrize(
    ("names", "stored", "channels"),
    [
        (["a.nii.gz"], (), 1),
        (["a.nii.gz"], (1,), 1),
        (["a.nii.gz"], (2,), 2),
        (["a.nrrd"], (2,), 2),
        (["a_0000.nii.gz", "a_0001.nii.gz"], (), 2),
    ],
)
def test_channels_that_fit_are_no_problem(tmp_path, names, stored, channels):
    write(tmp_path, *names, channels=stored)
    (job,), forecast = looked_at(list_jobs(tmp_path, channels, None, None, OUT), channels)
    assert (job.problem, forecast.cases) == ("", 1)
