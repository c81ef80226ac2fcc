"""What `medseg fit` adds to the bare network: a step with and without augmentation, by kind."""

from __future__ import annotations

import json
import logging
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from medseg.core.environment import versions
from medseg.core.errors import MedsegError
from medseg.core.runs import RunFiles, write_json
from medseg.data.options import PhantomOptions
from medseg.data.phantoms import write_phantoms
from medseg.networks.norms import DEFAULT_GROUPS
from medseg.networks.unet import Architecture, UNet
from medseg.study.options import BenchmarkOptions
from medseg.training.cli import fit
from medseg.training.loss import supervised_loss

CASES = 4
WARMUP = 5
CLASSES = 4
"""Of the phantoms."""

log = logging.getLogger("medseg")


def benchmark_training(options: BenchmarkOptions) -> None:
    """Time the bare forward and backward and a real step of each norm; log a table."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with _quiet():
            write_phantoms(PhantomOptions(output=folder / "phantoms", cases=CASES))
        for norm in options.norms:
            bare = [bare_seconds(norm, options)]
            row: dict[str, Any] = {"norm": norm}
            for key, flags in (("plain", ["--data.augmentation", "null"]), ("augmented", [])):
                record = _trained(norm, options, folder / f"{norm}_{key}", flags)
                row[key], row[f"{key}_shares"] = record["seconds_per_step"], record["time_shares"]
                bare.append(bare_seconds(norm, options))
            row["bare"] = statistics.median(bare)
            rows.append(row)
    _show(rows, options)
    if options.output:
        settings = {k: v for k, v in asdict(options).items() if k != "output"}
        write_json(options.output, {**settings, "versions": versions(), "timings": rows})


def bare_seconds(norm: str, options: BenchmarkOptions) -> float:
    """Return the median seconds of forward, loss and backward on one batch that is there."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    shape = Architecture(channels=list(options.channels))
    network = UNet(1, CLASSES, shape, norm, DEFAULT_GROUPS)
    network = network.to(device).train()
    image = torch.randn((options.batch_size, 1, *options.patch_size), device=device)
    label = torch.zeros((options.batch_size, *options.patch_size), dtype=torch.uint8, device=device)
    seconds = []
    for _ in range(WARMUP + options.steps):
        network.zero_grad()
        started = time.perf_counter()
        supervised_loss(network.heads(image), label).backward()  # type: ignore[no-untyped-call]
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[WARMUP:])


def _trained(norm: str, options: BenchmarkOptions, run: Path, flags: list[str]) -> dict[str, Any]:
    """Train as a user would, without validation; return fit.json."""
    settings = {
        "data.manifest": run.parent / "phantoms" / "manifest.json",
        "data.cache_dir": run.parent / "cache",
        "data.patch_size": list(options.patch_size),
        "data.batch_size": options.batch_size,
        "data.steps_per_epoch": WARMUP + options.steps,
        "model.norm": norm,
        "model.network.channels": list(options.channels),
        "trainer.accelerator": "auto",
        "trainer.devices": 1,
        "trainer.gradient_clip_val": 12.0,
        "trainer.limit_val_batches": 0,
        "trainer.max_epochs": 1,
        "run_dir": run,
    }
    words = [text for key, value in settings.items() for text in (f"--{key}", str(value))]
    with _quiet():
        status = fit([*words, *flags])
    if status:
        raise MedsegError(f"training with norm {norm!r} ended with status {status}.")
    content: dict[str, Any] = json.loads(RunFiles(run).fit.read_text(encoding="utf-8"))
    return content


def _show(rows: list[dict[str, Any]], options: BenchmarkOptions) -> None:
    device = "cuda" if torch.cuda.is_available() else f"cpu, {torch.get_num_threads()} threads"
    log.info("%s; patch %s, batch %d, channels %s; median of %d steps", device,
             options.patch_size, options.batch_size, options.channels, options.steps)  # fmt: skip
    log.info("%-12s %10s %10s %7s %12s %7s", "norm", "bare ms", "step ms", "ratio",
             "augmented ms", "ratio")  # fmt: skip
    for row in rows:
        log.info("%-12s %10.1f %10.1f %7.2f %12.1f %7.2f", row["norm"], 1e3 * row["bare"],
                 1e3 * row["plain"], row["plain"] / row["bare"], 1e3 * row["augmented"],
                 row["augmented"] / row["bare"])  # fmt: skip
    for row in rows:
        for key in ("plain", "augmented"):
            parts = (row[f"{key}_shares"] or {}).items()
            shares = ", ".join(f"{kind} {100 * share:.1f} %" for kind, share in parts if share)
            log.info("%s, %s: %s", row["norm"], key, shares)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the trainings' own lines out of the table."""
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)
