"""Files that appear whole or not at all, and what killed writers leave."""

import os
import platform
import subprocess
import sys
import time

import pytest

from medseg.core.errors import VolumeError
from medseg.io.atomic import sweep, whole_file

WRITE = """
import pathlib, sys
from medseg.io.atomic import whole_file

with whole_file(pathlib.Path(sys.argv[1]) / "x.nii.gz") as temporary:
    temporary.write_bytes(b"half")
    print(temporary, flush=True)
    input()
"""


@pytest.fixture
def writer(tmp_path):
    """Return a process that is writing into a folder and waits."""
    command = [sys.executable, "-c", WRITE, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        yield process
        process.kill()


def test_what_a_killed_writer_has_left_is_swept_even_if_nobody_has_waited_for_it(writer, tmp_path):
    assert len(list(tmp_path.iterdir())) == 1
    assert sweep(tmp_path) == 0
    writer.kill()
    os.waitid(os.P_PID, writer.pid, os.WEXITED | os.WNOWAIT)
    assert sweep(tmp_path) == 1
    assert list(tmp_path.iterdir()) == []


def test_what_another_host_writes_is_left_for_a_day(tmp_path):
    assert platform.node() != "elsewhere"
    path = tmp_path / ".medseg-elsewhere-1-abc.tmp.nii.gz"
    path.touch()
    assert sweep(tmp_path) == 0
    os.utime(path, (time.time() - 25 * 3600,) * 2)
    assert sweep(tmp_path) == 1


def test_only_temporary_files_are_swept(tmp_path):
    for name in ("a.nii.gz", ".medseg-notes", ".b.tmp"):
        (tmp_path / name).touch()
    assert sweep(tmp_path) == 0
    assert len(list(tmp_path.iterdir())) == 3


def fail_to_write(path):
    with whole_file(path) as temporary:
        temporary.write_text("half")
        raise OSError(28, "no room")


def test_a_writer_that_fails_leaves_what_was_there(tmp_path):
    path = tmp_path / "x.nii.gz"
    path.write_text("before")
    with pytest.raises(VolumeError, match="no room"):
        fail_to_write(path)
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]
