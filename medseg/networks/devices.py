"""`medseg env`: what there is to compute on, and with which versions; and when it is exhausted."""

from __future__ import annotations

import logging
import os
import platform
import sys

import torch
from torch import Tensor

from medseg.core.environment import EnvOptions, versions

_SIGNS = (
    "DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_ALLOC_FAILED",
)
"""Words of errors for which PyTorch has no type of its own."""

log = logging.getLogger("medseg")


def show(_options: EnvOptions) -> int:
    """Log versions and devices."""
    rows = {
        "system": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "executable": sys.executable,
        **versions(),
        "devices": ", ".join(_devices()),
    }
    width = max(map(len, rows))
    log.info("\n".join(f"{name:<{width}}  {value}" for name, value in rows.items()))
    return 0


def _devices() -> list[str]:
    if not torch.cuda.is_available():
        return ["cpu (no CUDA device)"]
    devices = map(torch.cuda.get_device_properties, range(torch.cuda.device_count()))
    return [f"{device.name} ({device.total_memory / 2**30:.0f} GiB)" for device in devices]


def runs_on_cpu(image: Tensor) -> bool:
    """Return whether PyTorch computes this now, on a CPU, and does not only write it down."""
    return (
        image.device.type == "cpu"
        and not torch.jit.is_tracing()  # type: ignore[no-untyped-call, attr-defined]
        and not torch.compiler.is_compiling()
    )


def is_out_of_memory(error: Exception) -> bool:
    """Return whether an error says that memory has run out, and nothing else."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _SIGNS)
