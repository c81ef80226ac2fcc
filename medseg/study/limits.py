"""What folder inference keeps: a memory limit on a huge volume, and its pace over many cases."""

from __future__ import annotations

import json
import logging
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import ndimage

from medseg.core.errors import MedsegError
from medseg.core.geometry import Grid
from medseg.core.runs import JOURNAL_NAME, read_json_lines, write_json
from medseg.inference.package import write_package
from medseg.io import write_volume
from medseg.networks.checkpoint import Description
from medseg.networks.unet import Architecture
from medseg.study.measuring import measure, members, resident_bytes
from medseg.study.options import BenchmarkOptions

HUGE, HUGE_CLASSES, MAX_MEMORY = (512, 512, 800), 100, "4GiB"
SMALL, SMALL_CLASSES, MANY = (28, 32, 28), 4, 2000
PATCH = {"memory": [64, 64, 64], "endurance": [32, 32, 32]}
OVERLAP = 0.25
SHARE = 100  # cases whose pace is compared, at either end
LOOK_SECONDS = 0.5

log = logging.getLogger("medseg")


@dataclass(frozen=True)
class Endurance:
    """What many cases in one call showed.

    Attributes:
        cases: How many were labelled.
        seconds: Of the whole call.
        first_rate: Cases per second over the first hundred, start-up left out.
        last_rate: The same over the last hundred.
        early_rss_bytes: Resident memory of all processes after three tenths of the time.
        late_rss_bytes: At the end.
        early_files: Open files of all processes, likewise.
        late_files: At the end.
    """

    cases: int
    seconds: float
    first_rate: float
    last_rate: float
    early_rss_bytes: int
    late_rss_bytes: int
    early_files: int
    late_files: int


def benchmark_limits(options: BenchmarkOptions) -> int:
    """Label a huge volume within a memory limit, or many small ones, and log what it took.

    Raises:
        MedsegError: If a case is not labelled.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        classes = HUGE_CLASSES if options.what == "memory" else SMALL_CLASSES
        _write_model(folder / "model", PATCH[options.what], classes)
        flags = ["--model", str(folder / "model"), "--input", str(folder / "images")]
        flags += ["--output", str(folder / "labels"), "--device", "cpu"]
        if options.what == "memory":
            flags += ["--max_memory", MAX_MEMORY]
        command = [sys.executable, "-m", "medseg", "predict", *flags]
        command += shlex.split(options.predict_flags)
        run = _memory if options.what == "memory" else _endurance
        found = run(folder, command, options.cases or MANY)
    if options.output:
        write_json(options.output, {"what": options.what, **found})
    return 0


def _memory(folder: Path, command: Sequence[str], _cases: int) -> dict[str, Any]:
    """Label the huge volume."""
    write_volume(folder / "images" / "huge.nii.gz", _body(HUGE), _grid(HUGE))
    measured = measure(command, folder / "log")
    (record,) = _records(folder, 1)
    for line in (folder / "log").read_text(encoding="utf-8").splitlines():
        if "windows" in line:
            log.info("predict: %s", line)
    worker = int(record["peak_memory_bytes"])
    log.info("%s voxels, %d classes, --max_memory %s: %.0f s, %d windows",
             " x ".join(map(str, HUGE)), HUGE_CLASSES, MAX_MEMORY, measured.seconds,
             record["windows"])  # fmt: skip
    log.info("peak of all processes: %.0f MiB proportional, %.0f MiB resident; the worker's own "
             "high-water mark %.0f MiB", measured.pss_bytes / 2**20, measured.rss_bytes / 2**20,
             worker / 2**20)  # fmt: skip
    return {**asdict(measured), "worker_peak_bytes": worker, "windows": record["windows"]}


def _endurance(folder: Path, command: Sequence[str], cases: int) -> dict[str, Any]:
    """Label many small volumes."""
    image = _body(SMALL)
    for number in range(cases):
        rolled = np.roll(image, number, axis=0)
        write_volume(folder / "images" / f"case_{number:05d}.nii.gz", rolled, _grid(SMALL))
    started = time.monotonic()
    looks = _watched(command, folder / "log")
    seconds = time.monotonic() - started
    # In the order in which they were done; the time is when a case was recorded.
    moments = sorted(datetime.fromisoformat(r["time"]) for r in _records(folder, cases))
    gaps = [(after - before).total_seconds() for before, after in pairwise(moments)]
    share = min(SHARE, len(gaps) // 2)
    early, late = looks[int(len(looks) * 0.3)], looks[int(len(looks) * 0.95)]  # all are at work
    found = Endurance(
        cases,
        seconds,
        share / sum(gaps[:share]),
        share / sum(gaps[-share:]),
        early[0],
        late[0],
        early[1],
        late[1],
    )
    log.info("%d cases in %.0f s; %.1f cases/s over the first %d, %.1f over the last", cases,
             seconds, found.first_rate, share, found.last_rate)  # fmt: skip
    log.info("resident memory %.0f MiB after three tenths, %.0f MiB at the end; open files %d, %d",
             found.early_rss_bytes / 2**20, found.late_rss_bytes / 2**20, found.early_files,
             found.late_files)  # fmt: skip
    return asdict(found)


def _watched(command: Sequence[str], log_file: Path) -> list[tuple[int, int]]:
    """Run a command; return resident bytes and open files of its processes over time."""
    looks = []
    with log_file.open("wb") as file:
        process = subprocess.Popen(  # noqa: S603
            command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True
        )
        while process.poll() is None:
            there = members(process.pid)
            looks.append((sum(map(resident_bytes, there)), sum(map(_open_files, there))))
            time.sleep(LOOK_SECONDS)
    if process.returncode:
        raise MedsegError(f"predict failed:\n{log_file.read_text(errors='replace')[-2000:]}")
    if left := members(process.pid)[1:]:
        raise MedsegError(f"predict has left the processes {left} behind.")
    return looks


def _open_files(process: int) -> int:
    try:
        return len(os.listdir(f"/proc/{process}/fd"))  # noqa: PTH208
    except OSError:
        return 0


def _records(folder: Path, cases: int) -> list[dict[str, Any]]:
    records = read_json_lines(folder / "labels" / JOURNAL_NAME)
    done = [record for record in records if record["status"] == "ok"]
    if len(done) != cases:
        raise MedsegError(f"{len(done)} of {cases} cases were labelled: {json.dumps(records[:1])}")
    return done


def _write_model(folder: Path, patch_size: list[int], classes: int) -> None:
    """Write a model package with random weights: what it finds matters to no measurement here."""
    task = {
        "manifest": "none",
        "channel_names": ["image"],
        "labels": {"background": 0, **{f"class_{n}": n for n in range(1, classes)}},
        "patch_size": patch_size,
        "batch_size": 2,
        "preprocessing": {"spacing": None, "orientation": "RAS", "intensity": ["zscore"]},
        "train_cases": [],
        "val_cases": [],
    }
    description = Description("batch", 8, Architecture(channels=[8, 16]), task, OVERLAP)
    weights: dict[str, torch.Tensor] = dict(description.build(seed=0).state_dict())
    folder.mkdir()
    write_package(folder, weights, {"description": description.to_primitives()})


def _body(shape: tuple[int, int, int]) -> np.ndarray[Any, np.dtype[np.int16]]:
    """Return a smooth volume with noise, int16."""
    rng = np.random.default_rng(0)
    coarse = rng.normal(0, 300, [max(n // 16, 2) for n in shape]).astype(np.float32)
    zoom = [n / m for n, m in zip(shape, coarse.shape, strict=True)]
    volume = ndimage.zoom(coarse, zoom, order=1, grid_mode=True, mode="nearest")
    noise = rng.integers(-20, 20, (64, 64, 64), dtype=np.int16)
    repeats = [-(-n // 64) for n in shape]
    tiled = np.tile(noise, repeats)[: shape[0], : shape[1], : shape[2]]
    return volume.astype(np.int16) + tiled


def _grid(shape: tuple[int, int, int]) -> Grid:
    return Grid.from_spacing(shape, (0.8, 0.8, 1.0))
