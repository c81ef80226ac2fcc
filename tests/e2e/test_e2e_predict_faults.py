"""Faults that folder inference survives: nothing lost, everything said, the exit status right."""

import gzip
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from medseg.cli import main
from medseg.core.manifest import load_manifest
from medseg.inference.labeller import Order
from medseg.inference.predictor import Predictor

VOLATILE = ("time", "attempt", "seconds", "stages", "peak_memory_bytes")
TOKEN = "MEDSEG_TEST_TOKEN"

TRAP = """
import importlib.abc, importlib.machinery, os, pathlib, signal, sys

class Trap(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != "medseg.inference.predictor":
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        load = spec.loader.exec_module

        def exec_module(module):
            load(module)
            plain = module.Predictor.open

            def trapped(self, images, *more):
                name, mark = images[0].name, pathlib.Path(__file__).with_name("killed")
                if name == "poison.nii.gz" or (name == "once.nii.gz" and not mark.exists()):
                    mark.touch()
                    os.kill(os.getpid(), signal.SIGKILL)
                return plain(self, images, *more)

            module.Predictor.open = trapped

        spec.loader.exec_module = exec_module
        return spec

sys.meta_path.insert(0, Trap())
"""
"""Kills the process that opens poison.nii.gz, and the first one that opens once.nii.gz."""


def flags(run, source, output, *more):
    given = ["--run", run, "--checkpoint", "last", "--input", source, "--output", output]
    return ["predict", *map(str, [*given, "--threads", 1, *more])]


def predict(run, source, output, *more):
    return main(flags(run, source, output, "--workers", 0, *more))


def start(arguments, **environment):
    """Start medseg in a process of its own; it and its workers carry its `token`."""
    # The parent may have been started in the background, where Ctrl-C is ignored and inherited so.
    code = (
        "import signal, sys\nfrom medseg.cli import main\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"sys.exit(main({arguments!r}))"
    )
    token = uuid.uuid4().hex
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, TOKEN: token, **environment},
    )
    process.token = token
    return process


def running(token):
    """Return the processes that carry a token."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"{TOKEN}={token}".encode() in path.read_bytes():
                found.append(path.parent.name)
        except OSError:
            continue
    return found


def assert_all_end(token):
    deadline = time.monotonic() + 3
    while (left := running(token)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert left == []


def await_some(process, folder, pattern):
    """Wait until files of this pattern are there, or the process has ended."""
    deadline = time.monotonic() + 60
    while not any(folder.glob(pattern)) and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def records(folder):
    lines = (folder / "predictions.jsonl").read_text().splitlines()
    return {record["case_id"]: record for record in map(json.loads, lines)}


def lines(folder):
    """Return all records of all journals."""
    paths = (folder / ".medseg").glob("journal-*.jsonl")
    return [json.loads(line) for path in paths for line in path.read_text().splitlines()]


def labels(folder):
    return {path.name: path.read_bytes() for path in folder.glob("*.nii.gz")}


def assert_nothing_left(folder):
    assert not list(folder.rglob(".medseg-*"))
    assert not list((folder / ".medseg" / "claims").glob("*"))


def assert_as_undisturbed(folder, reference):
    assert labels(folder) == labels(reference)
    assert stable(folder) == stable(reference)
    assert_nothing_left(folder)


def stable(folder):
    return {
        name: {key: value for key, value in record.items() if key not in VOLATILE}
        for name, record in records(folder).items()
    }


@pytest.fixture(scope="module")
def images(phantoms):
    return load_manifest(phantoms).root / "images"


@pytest.fixture(scope="module")
def good(images):
    return min(images.glob("*.nii.gz"))


@pytest.fixture(scope="module")
def reference(tiny_run, images, tmp_path_factory):
    """Return the output of an undisturbed run."""
    folder = tmp_path_factory.mktemp("undisturbed")
    assert predict(tiny_run, images, folder) == 0
    return folder


@pytest.fixture
def trap(tmp_path):
    folder = tmp_path / "trap"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(TRAP)
    return {"PYTHONPATH": os.pathsep.join([str(folder), *filter(None, sys.path)])}


@pytest.fixture
def mounted(tmp_path):
    """Return a function that mounts a tmpfs; skip where that is not allowed."""
    mounts = []

    def mount(options):
        folder = tmp_path / f"mount{len(mounts)}"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", options, "none", str(folder)]
        if os.geteuid() or subprocess.run(command, capture_output=True).returncode:
            pytest.skip("mounting needs root and the right to mount")
        mounts.append(folder)
        return folder

    yield mount
    for folder in mounts:
        subprocess.run(["umount", str(folder)], check=True)


def kill_and_look(process, folder, reference):
    """Kill a supervisor; what lies under final names must be whole, and no worker survive."""
    process.kill()
    process.communicate()
    assert_all_end(process.token)
    whole = labels(reference)
    assert all(whole[name] == content for name, content in labels(folder).items())


def test_a_killed_supervisor_leaves_nothing_that_resuming_does_not_mend(
    tiny_run, images, reference, tmp_path
):
    process = start(flags(tiny_run, images, tmp_path, "--workers", 1))
    await_some(process, tmp_path, ".medseg/journal-*.jsonl")
    kill_and_look(process, tmp_path, reference)
    done = len(lines(tmp_path))
    assert done < 8
    (tmp_path / ".medseg-elsewhere-1-x.tmp.nii.gz").unlink(missing_ok=True)
    assert predict(tiny_run, images, tmp_path) == 0
    assert_as_undisturbed(tmp_path, reference)


@pytest.mark.slow
def test_a_supervisor_killed_at_ten_random_moments(tiny_run, images, tmp_path):
    source, output, whole = (tmp_path / name for name in ("in", "out", "undisturbed"))
    source.mkdir()
    for path in images.glob("*.nii.gz"):
        for copy in range(2):
            shutil.copy(path, source / f"{copy}_{path.name}")
    assert predict(tiny_run, source, whole) == 0
    moments = random.Random(7)
    for _ in range(10):
        process = start(flags(tiny_run, source, output, "--workers", 1))
        await_some(process, output, ".medseg/claims/*")
        time.sleep(moments.uniform(0, 3.5))  # a worker takes two seconds of imports
        kill_and_look(process, output, whole)
    assert predict(tiny_run, source, output) == 0
    assert_as_undisturbed(output, whole)


def test_a_poison_case_fails_alone_and_a_worker_killed_once_costs_nothing(
    tiny_run, good, trap, tmp_path
):
    source, output = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    for name in ("a", "once", "poison", "z"):
        shutil.copy(good, source / f"{name}.nii.gz")
    process = start(flags(tiny_run, source, output, "--workers", 1), **trap)
    told = process.communicate()[1]
    assert process.returncode == 3, told
    found = records(output)
    assert {name for name, record in found.items() if record["status"] == "ok"} == {
        "a",
        "once",
        "z",
    }
    assert found["poison"]["code"] == "worker-died"
    assert "signal 9" in found["poison"]["message"]
    assert found["poison"]["attempt"] == 2
    assert set(labels(output)) == {"a.nii.gz", "once.nii.gz", "z.nii.gz"}
    assert_nothing_left(output)
    assert_all_end(process.token)


@pytest.mark.slow
def test_a_worker_killed_once_costs_no_case(tiny_run, good, trap, tmp_path):
    source, output = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    for name in ("a", "b", "once", "z"):
        shutil.copy(good, source / f"{name}.nii.gz")
    process = start(flags(tiny_run, source, output, "--workers", 2), **trap)
    told = process.communicate()[1]
    assert process.returncode == 0, told
    assert [record["status"] for record in records(output).values()] == ["ok"] * 4
    assert len(lines(output)) == 4
    assert (tmp_path / "trap" / "killed").exists()
    assert len(set(labels(output).values())) == 1
    assert_nothing_left(output)
    assert_all_end(process.token)


def test_two_supervisors_at_once_do_each_case_once(tiny_run, images, reference, tmp_path):
    both = [start(flags(tiny_run, images, tmp_path, "--workers", 0)) for _ in range(2)]
    told = [process.communicate()[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], told
    assert len(lines(tmp_path)) == 8
    assert_as_undisturbed(tmp_path, reference)


def test_shards_cover_all_cases_once(tiny_run, images, reference, tmp_path):
    for shard in ("0/3", "1/3", "2/3"):
        assert predict(tiny_run, images, tmp_path, "--shard", shard) == 0
    assert len(lines(tmp_path)) == 8
    assert_as_undisturbed(tmp_path, reference)


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("sent", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_finishes_what_it_has_begun(
    sent, status, workers, tiny_run, images, reference, tmp_path
):
    process = start(flags(tiny_run, images, tmp_path, "--workers", workers))
    await_some(process, tmp_path, ".medseg/journal-*.jsonl")
    process.send_signal(sent)
    told = process.communicate()[1]
    assert process.returncode == status, told
    assert_all_end(process.token)
    found = records(tmp_path)
    assert 0 < len(found) < 8
    assert {record["status"] for record in found.values()} == {"ok"}
    assert set(labels(tmp_path)) == {record["output"] for record in found.values()}
    assert_nothing_left(tmp_path)
    assert predict(tiny_run, images, tmp_path) == 0
    assert len(lines(tmp_path)) == 8
    assert_as_undisturbed(tmp_path, reference)
