"""The network's training forward, compiled by choice; its weights and their names stay."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor

from medseg.core.errors import OptionError
from medseg.networks.unet import UNet

BACKEND = "inductor"
"""PyTorch's own compiler."""

Heads = Callable[[Tensor], list[Tensor]]


def training_forward(network: UNet, compiled: bool, device: str) -> Heads:
    """Return what gives the logits of every supervised level in training.

    Args:
        network: Stays as it is; it keeps validating and being kept.
        compiled: Whether to compile; the first step then takes as long as that takes.
        device: Kind of the device that trains.

    Raises:
        OptionError: If it cannot be compiled.
    """
    if not compiled:
        return network.heads
    if network.architecture.activation_checkpointing:
        raise OptionError(
            "--model.compile does not go with --model.network.activation_checkpointing, which "
            "PyTorch cannot compile where batch statistics must not be counted twice. Drop one."
        )
    if missing := _missing_compiler(device):
        raise OptionError(f"--model.compile needs {missing}. Install it, or drop --model.compile.")
    # mypy knows no more of what torch.compile returns than that it can be called.
    return cast("Heads", torch.compile(network.heads, backend=cast("Any", BACKEND)))


def _missing_compiler(device: str) -> str:
    """Return what the compiler lacks on this machine; nothing if it has all."""
    if BACKEND != "inductor":
        return ""
    # What PyTorch calls if CXX does not say otherwise (torch/_inductor/config.py, cpp.cxx).
    name = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
    if device == "cuda" and importlib.util.find_spec("triton") is None:
        return "the package triton on a GPU"
    return "" if shutil.which(name) else f"a C++ compiler; there is no {name!r}"
