"""A whole body: 512 x 512 x 600 voxels and 100 classes within 3 GB."""

import re
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest

SHAPE = (512, 512, 600)
LIMIT_KB = 3_000_000
CODE = """
import resource, sys
from medseg.cli import main
status = main(sys.argv[1:])
sys.stderr.write(f"peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss} kB\\n")
sys.exit(status)
"""


def hundred_ellipsoids(shift):
    labels = np.zeros(SHAPE, np.uint8, order="F")
    places = [(i, j, k) for i in range(5) for j in range(5) for k in range(4)]
    for value, (i, j, k) in enumerate(places, start=1):
        centre, radii = np.array([51 + 102 * i, 51 + 102 * j, 75 + 150 * k]), (45, 40, 60)
        start = np.array(centre) - radii
        box = tuple(slice(a, a + 2 * r + 1) for a, r in zip(start, radii, strict=True))
        grid = np.ogrid[tuple(slice(-r, r + 1) for r in radii)]
        inside = sum((a / r) ** 2 for a, r in zip(grid, radii, strict=True)) <= 1
        labels[box][inside] = value
    return np.roll(labels, shift, 0)


@pytest.mark.slow
def test_memory_for_a_whole_body_of_100_classes(tmp_path):
    for side, shift in (("refs", 0), ("pred", 2)):
        (tmp_path / side).mkdir()
        image = nib.Nifti1Image(hundred_ellipsoids(shift), np.diag([0.8, 0.8, 1.0, 1.0]))
        nib.save(image, tmp_path / side / "body.nii.gz")
    arguments = ["evaluate", "--predictions", str(tmp_path / "pred"), "--references",
                 str(tmp_path / "refs"), "--output", str(tmp_path / "out"), "--workers", "1",
                 "--regions", "all=" + ",".join(map(str, range(1, 101)))]  # fmt: skip
    command = [sys.executable, "-c", CODE, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(re.search(r"peak (\d+) kB", done.stderr)[1]) < LIMIT_KB
    lines = (tmp_path / "out" / "cases.csv").read_text().splitlines()
    assert len(lines) == 1 + 101
    assert all(",present," in line for line in lines[1:])
