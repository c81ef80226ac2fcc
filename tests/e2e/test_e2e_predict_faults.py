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
from medseg.inference import folder as folders
from medseg.inference.labeller import Order
from medseg.inference.options import PredictOptions
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
    """Return what lies under final names; a killed writer leaves its temporary file beside them."""
    found = (path for path in folder.glob("*.nii.gz") if not path.name.startswith(".medseg-"))
    return {path.name: path.read_bytes() for path in found}


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
        if os.geteuid() or subprocess.run(command, check=False, capture_output=True).returncode:
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
    assert len(lines(tmp_path)) < 8
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


def test_a_full_disk_leaves_no_part_of_a_file_and_can_be_made_room_on(
    tiny_run, images, reference, mounted
):
    output = mounted("size=96k")  # eight label maps take twice as much
    assert predict(tiny_run, images, output) in (2, 3)
    whole, written = labels(reference), labels(output)
    assert 0 < len(written) < 8
    assert all(whole[name] == content for name, content in written.items())
    assert not list(output.rglob(".medseg-*"))
    codes = {record["code"] for record in lines(output) if record["status"] == "failed"}
    assert codes <= {"write-failed"}
    subprocess.run(["mount", "-o", "remount,size=16m", str(output)], check=True)
    assert predict(tiny_run, images, output) == 0
    assert_as_undisturbed(output, reference)


def test_a_read_only_output_is_refused_before_the_networks_are_loaded(
    tiny_run, images, mounted, monkeypatch, capsys
):
    loaded = []
    monkeypatch.setattr(Order, "load", loaded.append)
    folder = mounted("ro,size=1m")
    assert predict(tiny_run, images, folder) == 2
    assert predict(tiny_run, images, folder / "new") == 2
    assert capsys.readouterr().err.count("cannot be written to (Read-only file system)") == 2
    assert loaded == []


def damaged(source, good):
    """Write files that are no volumes; return the code that each is to fail with."""
    content = good.read_bytes()
    plain = bytearray(gzip.decompress(content))

    def patched(offset, values, kind):
        new = bytearray(plain)
        patch = np.asarray(values, kind).tobytes()
        new[offset : offset + len(patch)] = patch
        return gzip.compress(bytes(new))

    flipped = bytearray(content)
    flipped[-8] ^= 1  # the checksum
    # Offsets of the NIfTI-1 header: dim 40, datatype 70.
    header = b"NDims = 3\nDimSize = 4 4 4\nElementType = MET_SHORT\n"
    files = {
        ("empty.nii.gz", "empty"): b"",
        ("text.nii.gz", "not-a-volume"): b"not an image",
        ("jpeg.nii.gz", "not-a-volume"): gzip.compress(b"\xff\xd8\xff\xe0\0\x10JFIF" + bytes(5000)),
        ("half.nii.gz", "truncated"): content[: len(content) // 2],
        ("flipped.nii.gz", "damaged"): bytes(flipped),
        ("header.nii.gz", "truncated"): gzip.compress(bytes(plain[:200])),
        ("huge.nii.gz", "memory"): patched(40, [3, *[32767] * 3], "<i2"),
        ("negative.nii.gz", "bad-dimensions"): patched(40, [3, -5, 20, 20], "<i2"),
        ("type.nii.gz", "unsupported-type"): patched(70, [9999], "<i2"),
        ("noise.mha", "not-a-volume"): bytes(range(256)) * 4,
        ("absent.mhd", "unreadable"): header + b"ElementDataFile = nowhere.raw\n",
        ("cut.nrrd", "truncated"): b"NRRD0004\ntype: short\ndimension: 3\nsizes: 40 40 40\n",
    }
    for (name, _), bytes_ in files.items():
        (source / name).write_bytes(bytes_)
    return {name.split(".")[0]: code for name, code in files}


def test_damaged_and_foreign_files_fail_by_a_code_and_stop_nothing(
    tiny_run, good, tmp_path, capsys
):
    source, output = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    bad = damaged(source, good)
    for name in ("a", "m", "z"):
        shutil.copy(good, source / f"{name}.nii.gz")
    assert predict(tiny_run, source, output) == 3
    told, found = capsys.readouterr().err, records(output)
    assert set(found) == {*bad, "a", "m", "z"}
    codes = {name: r["code"] for name, r in found.items() if r["status"] == "failed"}
    assert codes == bad
    assert all(f"{name} failed: " in told for name in bad)
    assert set(labels(output)) == {"a.nii.gz", "m.nii.gz", "z.nii.gz"}
    assert_nothing_left(output)


def with_network(monkeypatch, wrap):
    plain = Predictor._backend
    monkeypatch.setattr(Predictor, "_backend", lambda self, *parts: wrap(plain(self, *parts)))


def test_memory_that_runs_out_changes_no_label(tiny_run, images, reference, tmp_path, monkeypatch):
    def wrap(network):
        def call(windows):
            if len(windows) > 1:
                raise torch.OutOfMemoryError("out of memory, for a test")
            return network(windows)

        return call

    with_network(monkeypatch, wrap)
    assert predict(tiny_run, images, tmp_path, "--sw_batch_size", 4) == 0
    assert labels(tmp_path) == labels(reference)
    for record in records(tmp_path).values():
        assert "memory: not enough for 4 windows" in record["warnings"][0]


def test_another_error_of_the_device_fails_the_case_at_once(tiny_run, good, tmp_path, monkeypatch):
    calls = []

    def wrap(network):
        def call(windows):
            calls.append(len(windows))
            raise RuntimeError("CUDA error: device-side assert triggered")

        return call

    with_network(monkeypatch, wrap)
    assert predict(tiny_run, good, tmp_path, "--sw_batch_size", 4) == 3
    assert calls == [4]
    (record,) = records(tmp_path).values()
    assert record["code"] == "bug"
    assert "device-side assert" in record["traceback"]


@pytest.fixture
def half_bad(good, tmp_path):
    """Return a folder in which files 1, 3 and 5 of six are no volumes."""
    source = tmp_path / "in"
    source.mkdir()
    for number in range(6):
        path = source / f"case_{number}.nii.gz"
        if number % 2:
            path.write_bytes(b"not an image")
        else:
            shutil.copy(good, path)
    return source


@pytest.mark.parametrize(("more", "failed"), [(["--fail_fast"], 1), (["--max_failures", "2"], 2)])
def test_failures_end_the_work_as_soon_as_asked(tiny_run, half_bad, tmp_path, more, failed):
    assert predict(tiny_run, half_bad, tmp_path / "out", *more) == 3
    found = [record["status"] for record in records(tmp_path / "out").values()]
    assert found.count("failed") == failed
    assert_nothing_left(tmp_path / "out")


def test_a_dry_run_says_all_and_writes_nothing(tiny_run, half_bad, tmp_path, capsys):
    output = tmp_path / "out"
    assert predict(tiny_run, half_bad, output, "--dry_run") == 3
    told = capsys.readouterr().err
    assert "3 cases, " in told
    assert " windows; predicted peak memory " in told
    assert "a window takes " in told
    assert told.count("cannot be labelled: ") == 3
    assert [path for path in output.rglob("*") if path.is_file()] == []
    for path in half_bad.glob("case_[135]*"):
        path.unlink()
    assert predict(tiny_run, half_bad, output, "--dry_run") == 0


def test_a_dry_run_names_wrong_channels_as_the_run_will(tiny_run, good, tmp_path, capsys):
    source, output = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    shutil.copy(good, source / "a.nii.gz")
    nib.save(nib.Nifti1Image(np.zeros((9, 8, 7, 2), np.int16), np.eye(4)), source / "two.nii.gz")
    assert predict(tiny_run, source, output, "--dry_run") == 3
    told = capsys.readouterr().err
    assert predict(tiny_run, source, output) == 3
    found = records(output)
    assert (found["a"]["status"], found["two"]["code"]) == ("ok", "wrong-channels")
    assert f"cannot be labelled: {found['two']['message']}\n" in told


def test_a_case_that_cannot_keep_the_memory_fails_alone(tiny_run, good, tmp_path, capsys):
    source, output = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    shutil.copy(good, source / "a.nii.gz")
    nib.save(nib.Nifti1Image(np.zeros((400, 400, 400), np.int16), np.eye(4)),
             source / "large.nii.gz")  # fmt: skip
    assert predict(tiny_run, source, output, "--max_memory", "600MiB", "--dry_run") == 3
    assert "raise --max_memory" in capsys.readouterr().err
    assert predict(tiny_run, source, output, "--max_memory", "600MiB") == 3
    found = records(output)
    assert (found["a"]["status"], found["large"]["code"]) == ("ok", "memory")
    assert "stages" not in found["large"]  # refused before it was read


def test_hostile_names_do_no_harm(tiny_run, good, tmp_path, capsys):
    source, output = tmp_path / "in", tmp_path / "out"
    fine = ["two  spaces ", "Übung 脳", "[bold]", "[/]", "=cmd|'calc'!A0", "<script>x</script>",
            "$(touch x)", "%s{0}", "n" * 200]  # fmt: skip
    bad = ["new\nline", "\x1b[2Jscreen", "-dash", os.fsdecode(b"caf\xe9")]
    for name in [*fine, *bad]:
        path = source / f"{name}.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(good, path)
    assert predict(tiny_run, source, output) == 3
    told = capsys.readouterr().err
    assert "\x1b[2J" not in told
    assert "new\nline" not in told
    found = {record["output"]: record["status"] for record in lines(output)}
    assert found == {
        **{f"{name}.nii.gz": "ok" for name in fine},
        **{f"{name}.nii.gz": "failed" for name in bad},
    }
    assert len((output / "predictions.jsonl").read_text().splitlines()) == len(fine) + len(bad)
    assert all((output / f"{name}.nii.gz").is_file() for name in fine)
    assert predict(tiny_run, source, output) == 3
    assert len(lines(output)) == len(fine) + 2 * len(bad)


def test_nothing_of_the_patient_travels_and_nothing_is_executed(
    tiny_run, good, tmp_path, monkeypatch, capsys
):
    image, canary = nib.load(good), b"PHI-CANARY"
    header = image.header
    for field in ("descrip", "aux_file", "intent_name", "db_name"):
        header[field] = canary
    header.extensions.append(nib.nifti1.Nifti1Extension("comment", canary))
    (tmp_path / "in").mkdir()
    nib.save(image, tmp_path / "in" / "x.nii.gz")
    assert gzip.decompress((tmp_path / "in" / "x.nii.gz").read_bytes()).count(canary) == 5
    # Beneath the command line, whose flags are read from annotations by eval.
    options = PredictOptions(tmp_path / "in", tmp_path / "out", (tiny_run,), threads=1, workers=0,
                             uncertainty=True, probabilities=True)  # fmt: skip
    called = []
    for name in ("pickle.loads", "builtins.eval", "os.system"):
        monkeypatch.setattr(name, lambda *given, **_: called.append(given))
    assert folders.predict(options) == 0
    monkeypatch.undo()
    assert called == []
    assert canary.decode() not in "".join(capsys.readouterr())
    written = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert len(written) == 5
    for path in written:
        content = path.read_bytes()
        assert canary not in (gzip.decompress(content) if path.suffix == ".gz" else content)


@pytest.mark.slow
def test_two_hundred_cases_take_the_memory_of_one(tiny_run, good, tmp_path):
    source, output = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    image = nib.load(good)
    nib.save(image.slicer[:20, :20, :20], source / "000.nii.gz")
    for number in range(1, 200):
        shutil.copy(source / "000.nii.gz", source / f"{number:03d}.nii.gz")
    process = start(flags(tiny_run, source, output, "--workers", 2))
    told = process.communicate()[1]
    assert process.returncode == 0, told
    assert_all_end(process.token)
    found = lines(output)
    assert len(found) == 200
    peaks = [record["peak_memory_bytes"] for record in found]
    assert max(peaks) < 1.05 * max(peaks[20:40])
    assert len(set(labels(output).values())) == 1
    assert_nothing_left(output)
