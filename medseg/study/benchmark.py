"""Step time of each norm, and what Lightning and our module add to a bare PyTorch loop."""

from __future__ import annotations

import contextlib
import logging
import statistics
import time
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from medseg.core.environment import versions
from medseg.core.errors import OptionError
from medseg.core.runs import write_json
from medseg.networks.norms import NORMS
from medseg.networks.unet import Architecture, UNet
from medseg.study.backends import benchmark_backends
from medseg.study.costs import benchmark_costs
from medseg.study.limits import benchmark_limits
from medseg.study.options import MAX_WARMUP, BenchmarkOptions
from medseg.study.peers import benchmark_peer
from medseg.study.reading import benchmark_reading
from medseg.study.rule_simulation import benchmark_recommendation
from medseg.study.scoring import benchmark_scoring
from medseg.study.training_time import benchmark_training
from medseg.training.loss import supervised_loss
from medseg.training.module import SegmentationModule
from medseg.training.optimization import Optimization

CLASSES = 3
ROUNDS = 3
"""Bare and Lightning loops alternate this often, so that a drift of the machine meets both."""

log = logging.getLogger("medseg")


@dataclass(frozen=True)
class Timing:
    """Seconds per training step of one norm: medians over all timed steps.

    Attributes:
        norm: The norm.
        bare: Of a plain PyTorch loop with the same network, loss, optimizer, patch and batch.
        lightning: Of `medseg fit`'s module under the Lightning trainer.
        parameters: Of the network.
    """

    norm: str
    bare: float
    lightning: float
    parameters: int

    @property
    def overhead(self) -> float:
        """What Lightning and the module add, as a share of the bare step."""
        return self.lightning / self.bare - 1


def benchmark(options: BenchmarkOptions) -> int:
    """Time what was asked for; log a table.

    Raises:
        OptionError: If a norm is unknown, or a number is not possible.
    """
    if unknown := [norm for norm in options.norms if norm not in NORMS]:
        raise OptionError(f"--norms must be among {', '.join(NORMS)}; got {', '.join(unknown)}.")
    if len(options.patch_size) != 3 or options.steps < 1:
        raise OptionError("--patch_size takes three lengths and --steps at least 1.")
    if options.what == "reading":
        benchmark_reading(options.steps)
        return 0
    if options.what == "metrics":
        benchmark_scoring(options.steps)
        return 0
    if options.what == "nnunet":
        return benchmark_peer(options)
    if options.what in ("memory", "endurance"):
        return benchmark_limits(options)
    others = {
        "backends": benchmark_backends,
        "costs": benchmark_costs,
        "training": benchmark_training,
        "recommendation": benchmark_recommendation,
    }
    if options.what in others:
        others[options.what](options)
        return 0
    timings = [time_norm(norm, options) for norm in options.norms]
    device = "cuda" if torch.cuda.is_available() else f"cpu, {torch.get_num_threads()} threads"
    log.info("%s; patch %s, batch %d, channels %s; median of %d steps", device, options.patch_size,
             options.batch_size, options.channels, ROUNDS * options.steps)  # fmt: skip
    log.info("%-12s %12s %12s %12s %10s", "norm", "parameters", "bare ms", "lightning ms", "added")
    for timing in timings:
        log.info("%-12s %12d %12.1f %12.1f %9.1f%%", timing.norm, timing.parameters,
                 1e3 * timing.bare, 1e3 * timing.lightning, 100 * timing.overhead)  # fmt: skip
    if options.output:
        rows = [{**asdict(timing), "overhead": timing.overhead} for timing in timings]
        settings = {k: v for k, v in asdict(options).items() if k != "output"}
        write_json(options.output, {"device": device, **settings, "versions": versions(),
                                    "timings": rows})  # fmt: skip
    return 0


def time_norm(norm: str, options: BenchmarkOptions) -> Timing:
    """Time bare and Lightning steps of one norm, in turns."""
    module = _module(norm, options)
    bare_seconds: list[float] = []
    lightning_seconds: list[float] = []
    for _ in range(ROUNDS):
        bare_seconds += _bare_steps(module, options)
        lightning_seconds += _lightning_steps(module, options)
    return Timing(
        norm,
        statistics.median(bare_seconds),
        statistics.median(lightning_seconds),
        sum(p.numel() for p in module.network.parameters()),
    )


def _module(norm: str, options: BenchmarkOptions) -> SegmentationModule:
    task = {
        "channel_names": ["image"],
        "labels": {str(index): index for index in range(CLASSES)},
        "patch_size": list(options.patch_size),
        "batch_size": options.batch_size,
    }
    return SegmentationModule(
        norm=norm, network=Architecture(channels=list(options.channels)), task=task
    )


def _batch(options: BenchmarkOptions) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shape = (options.batch_size, *options.patch_size)
    return {
        "image": torch.randn((shape[0], 1, *shape[1:]), generator=generator),
        "label": torch.randint(CLASSES, shape, generator=generator, dtype=torch.uint8),
    }


def _bare_steps(module: SegmentationModule, options: BenchmarkOptions) -> list[float]:
    """Train a copy of the network by hand; return the seconds of each timed step."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network: UNet = module.description.build(seed=0).to(device).train()
    optimizer = Optimization().build(network)
    batch = _batch(options)
    seconds = []
    warmup = min(options.steps, MAX_WARMUP)
    for step in range(warmup + options.steps):
        started = time.perf_counter()
        image, label = batch["image"].to(device), batch["label"].to(device)
        optimizer.zero_grad()
        supervised_loss(network.heads(image), label).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(network.parameters(), 12.0)
        optimizer.step()
        _wait(device)
        if step >= warmup:
            seconds.append(time.perf_counter() - started)
    return seconds


class _Same(Dataset[dict[str, Tensor]]):
    """One patch again and again: loading costs nothing."""

    def __init__(self, batch: dict[str, Tensor], length: int) -> None:
        self.batch, self.length = batch, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        place = index % len(self.batch["image"])
        return {name: values[place] for name, values in self.batch.items()}


class _Clock(pl.Callback):
    """Takes the time from the start of one step to the start of the next."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_train_batch_start(
        self, _trainer: pl.Trainer, module: pl.LightningModule, *_: Any
    ) -> None:
        _wait(module.device)
        self.times.append(time.perf_counter())


def _lightning_steps(module: SegmentationModule, options: BenchmarkOptions) -> list[float]:
    """Train under Lightning as `medseg fit` does; return the seconds of each timed step."""
    warmup = min(options.steps, MAX_WARMUP)
    steps = warmup + options.steps + 1
    clock = _Clock()
    patches = _Same(_batch(options), steps * options.batch_size)
    with _quiet():
        trainer = pl.Trainer(
            accelerator="gpu" if torch.cuda.is_available() else "cpu",
            devices=1,
            max_steps=steps,
            gradient_clip_val=12.0,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[clock],
        )
        trainer.fit(module, DataLoader(patches, batch_size=options.batch_size))
    spans = [after - before for before, after in zip(clock.times, clock.times[1:], strict=False)]
    return spans[warmup:]


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep Lightning's hints out of the table."""
    lightning = logging.getLogger("pytorch_lightning")
    level = lightning.level
    lightning.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        lightning.setLevel(level)
