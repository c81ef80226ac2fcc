"""A trained network as a fast function of windows: torch, OpenVINO or ONNX Runtime."""

from __future__ import annotations

import copy
import itertools
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from medseg.core.errors import CheckpointError, OptionError, check_choice
from medseg.inference.probe import check_agreement
from medseg.inference.runtimes import (
    Runner,
    check_installed,
    one_by_one,
    onnx_runner,
    openvino_runner,
    to_onnx,
    to_openvino,
)
from medseg.inference.threads import default_threads
from medseg.networks.cpu import for_cpu
from medseg.networks.fold import folded
from medseg.networks.unet import UNet

BACKENDS = ("torch", "openvino", "onnxruntime")
_DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

log = logging.getLogger("medseg")


@dataclass(frozen=True)
class BackendOptions:
    """How a network is run.

    Attributes:
        backend: What computes it; openvino and onnxruntime are extras and run on the CPU.
        precision: bf16 and fp16 compute convolutions in 16 bits, on GPUs only.
        compile: Let torch.compile generate code for each size of batch first; takes a minute.
        threads: CPU threads; the physical cores this process may use if not given.
        mirror_axes: Mean of the logits over all mirrorings of these axes; 0, 1, 2 = I, J, K.
    """

    backend: Literal["torch", "openvino", "onnxruntime"] = "torch"
    precision: Literal["float32", "bf16", "fp16"] = "float32"
    compile: bool = False
    threads: int | None = None
    mirror_axes: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        check_choice("--backend", self.backend, BACKENDS)
        check_choice("--precision", self.precision, _DTYPES)
        if self.threads is not None and self.threads < 1:
            raise OptionError(f"threads must be at least 1; got {self.threads}.")
        axes = self.mirror_axes
        if len(set(axes)) < len(axes) or not set(axes) <= {0, 1, 2}:
            raise OptionError(f"mirror_axes must be different ones of 0, 1, 2; got {axes}.")
        if self.backend != "torch" and (self.compile or self.precision != "float32"):
            raise OptionError(
                f"--backend {self.backend} computes in float32 and compiles by itself; drop "
                "--compile and --precision, or take --backend torch."
            )


def build_backend(
    network: UNet,
    options: BackendOptions,
    roi_size: tuple[int, int, int],
    in_channels: int,
    device: torch.device,
) -> Callable[[Tensor], Tensor]:
    """Prepare a network for prediction; sets the number of torch's threads on a CPU.

    Args:
        network: Trained; left alone.
        options: How it is run.
        roi_size: Size of the windows.
        in_channels: Image channels.
        device: Where windows and logits lie.

    Returns:
        A function of windows (B, C, *roi_size), float32, any B, to logits (B, classes, *roi_size),
        float32. It is to be called under `torch.inference_mode()`.

    Raises:
        OptionError: If device and options do not go together, a package is missing, or another
            runtime disagrees with torch.
    """
    _check_device(options, device)
    threads = options.threads or default_threads()
    if device.type == "cpu":
        torch.set_num_threads(threads)
    ready = _folded(network)
    if options.backend == "torch":
        run = _torch_runner(ready, options, device)
    else:
        check_installed("--backend", options.backend)
        shape = (1, in_channels, *roi_size)
        if options.backend == "openvino":
            single = openvino_runner(to_openvino(ready, shape), threads)
        else:
            single = onnx_runner(to_onnx(ready, shape), threads)
        run = one_by_one(single)
        flag = f"--backend {options.backend}"
        same, _ = check_agreement(flag, network, run, roi_size, in_channels)
        log.info("%s finds torch's class in %.6f of a probe's voxels", options.backend, same)
    return _mirrored(run, options.mirror_axes) if options.mirror_axes else run


def _check_device(options: BackendOptions, device: torch.device) -> None:
    if options.backend != "torch" and device.type != "cpu":
        raise OptionError(f"--backend {options.backend} runs on the CPU; got --device {device}.")
    if options.precision != "float32" and device.type == "cpu":
        raise OptionError(
            f"--precision {options.precision} is for GPUs; on a CPU the network runs in float32."
        )


def _folded(network: UNet) -> UNet:
    try:
        return folded(network)
    except CheckpointError as error:
        log.warning("the network is run as it was trained: %s", error)
        return copy.deepcopy(network).eval().requires_grad_(False)


def _torch_runner(network: UNet, options: BackendOptions, device: torch.device) -> Runner:
    network = network.to(device)
    if options.compile:
        # Each size of batch is compiled by itself: code for any size is slower, and can fail.
        # Helper processes of the compiler, dozens by default, would count against the memory.
        os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
        run: Runner = torch.compile(network, dynamic=False)
    elif device.type == "cpu":
        # One window at a time stays in the caches and needs a fraction of the memory.
        run = one_by_one(for_cpu(network))
    else:
        run = network
    return _reduced(run, _DTYPES[options.precision], device)


def _reduced(run: Runner, dtype: torch.dtype, device: torch.device) -> Runner:
    if dtype == torch.float32:
        return run

    def reduced(windows: Tensor) -> Tensor:
        with torch.autocast(device.type, dtype):
            return run(windows).float()

    return reduced


def _mirrored(run: Runner, axes: tuple[int, ...]) -> Runner:
    """Return the mean of the logits over all mirrorings of some axes."""
    subsets = [
        [axis + 2 for axis in chosen]
        for count in range(len(axes) + 1)
        for chosen in itertools.combinations(axes, count)
    ]

    def mirrored(windows: Tensor) -> Tensor:
        total = run(windows)
        for dims in subsets[1:]:
            total += run(windows.flip(dims)).flip(dims)
        return total.div_(len(subsets))

    return mirrored
