"""`medseg env`: what there is to compute on, and with which versions."""

from __future__ import annotations

import logging
import os
import platform
import sys

import torch

from medseg.core.environment import EnvOptions, versions

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
