"""What a window costs: the network as trained against each backend, in turns, norm by norm."""

from __future__ import annotations

import copy
import importlib.util
import logging
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from medseg.core.environment import versions
from medseg.core.runs import write_json
from medseg.inference.backends import BACKENDS, BackendOptions, build_backend
from medseg.inference.probe import agreement, probe
from medseg.inference.runtimes import NEEDS
from medseg.inference.threads import default_threads
from medseg.networks.unet import Architecture, UNet
from medseg.study.options import BenchmarkOptions

CLASSES = 3
AS_TRAINED = "as trained"
_TORCH = "torch"

log = logging.getLogger("medseg")


@dataclass(frozen=True)
class WindowTime:
    """What one backend takes for one norm.

    Attributes:
        norm: The norm.
        backend: The backend; `as trained` is the network itself, nothing folded or chosen.
        milliseconds: For one window, the fastest of all rounds: other work only ever adds time.
        speed: How many times as fast as the torch backend.
        agreement: Share of the voxels of a probe with the class that the network itself finds.
    """

    norm: str
    backend: str
    milliseconds: float
    speed: float
    agreement: float


def benchmark_backends(options: BenchmarkOptions) -> list[WindowTime]:
    """Time the prediction of windows on the CPU by every backend that is installed.

    Args:
        options: Its norms, channels, patch_size, batch_size (windows at once), steps (rounds) and
            output.
    """
    threads = torch.get_num_threads()
    try:
        rows = [row for norm in options.norms for row in _time_norm(norm, options)]
    finally:
        torch.set_num_threads(threads)
    log.info("cpu, %d threads; windows %s, %d at once, channels %s; fastest of %d rounds in turns",
             default_threads(), options.patch_size, options.batch_size, options.channels,
             options.steps)  # fmt: skip
    log.info(
        "%-12s %-12s %10s %12s %11s", "norm", "backend", "ms/window", "times torch", "agreement"
    )
    for row in rows:
        log.info("%-12s %-12s %10.1f %12.2f %11.6f", row.norm, row.backend, row.milliseconds,
                 row.speed, row.agreement)  # fmt: skip
    if options.output:
        settings = {k: v for k, v in asdict(options).items() if k != "output"}
        write_json(options.output, {"threads": default_threads(), **settings,
                                    "versions": versions(),
                                    "windows": [asdict(row) for row in rows]})  # fmt: skip
    return rows


@torch.inference_mode()
def _time_norm(norm: str, options: BenchmarkOptions) -> list[WindowTime]:
    i, j, k = options.patch_size
    network = _network(norm, options)
    runs: dict[str, Callable[[Tensor], Tensor]] = {AS_TRAINED: copy.deepcopy(network)}
    for backend in filter(_is_installed, BACKENDS):
        chosen = BackendOptions(backend=backend)  # type: ignore[arg-type]
        runs[backend] = build_backend(network, chosen, (i, j, k), 1, torch.device("cpu"))
    windows = torch.randn((options.batch_size, 1, i, j, k))
    seconds = {name: float("inf") for name in runs}
    for number in range(options.steps + 1):
        for name, run in runs.items():
            started = time.perf_counter()
            run(windows)
            if number:  # the first round fills the caches
                seconds[name] = min(seconds[name], time.perf_counter() - started)
    return [
        WindowTime(
            norm,
            name,
            1e3 * seconds[name] / options.batch_size,
            seconds[_TORCH] / seconds[name],
            agreement(network, run, probe((i, j, k), 1))[0],
        )
        for name, run in runs.items()
    ]


def _network(norm: str, options: BenchmarkOptions) -> UNet:
    """Return a network that has seen images, so that batch norm has something to fold."""
    i, j, k = options.patch_size
    network = UNet(1, CLASSES, Architecture(channels=list(options.channels)), norm, seed=0)
    network.train()(probe((i, j, k), 1))
    return network.eval()


def _is_installed(backend: str) -> bool:
    packages = NEEDS[backend][1] if backend in NEEDS else ()
    return all(importlib.util.find_spec(package) is not None for package in packages)
