"""How cases are labelled: settings that a predictor takes, and the device it runs on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from medseg.core.errors import OptionError
from medseg.networks.checkpoint import Description
from medseg.networks.window import SlidingWindow

SW_BATCH_SIZE = 4
"""Windows in one forward pass on a GPU; on a CPU one is as fast and takes a quarter."""


@dataclass(frozen=True)
class Settings:
    """How cases are labelled.

    Attributes:
        overlap: Overlap of the sliding window, in [0, 1); as in training if None.
        skip_empty: Leave out windows without content; as in training if None.
        sw_batch_size: Windows in one forward pass; 1 on a CPU and 4 on a GPU if None.
        norm_statistics: What batch norm normalizes by: running, or the case's own over all windows.
        tta: Mean over the mirrorings that the training drew too.
        postprocessing: Apply the rules that the training has found to help.
        device: cpu, cuda or cuda:N; a GPU if there is one and None is given.
        max_memory: Most bytes this process may take; any if None.
        backend: What computes the network.
        precision: Of its convolutions, on a GPU.
        compile: Let torch.compile generate code for it first.
        threads: CPU threads; chosen for the machine if None.
    """

    overlap: float | None = None
    skip_empty: bool | None = None
    sw_batch_size: int | None = None
    norm_statistics: Literal["running", "own"] = "running"
    tta: bool = False
    postprocessing: bool = True
    device: str | None = None
    max_memory: int | None = None
    backend: Literal["torch", "openvino", "onnxruntime"] = "torch"
    precision: Literal["float32", "bf16", "fp16"] = "float32"
    compile: bool = False
    threads: int | None = None

    def window(self, description: Description, device: torch.device) -> SlidingWindow:
        """Return how windows lie for a described network."""
        i, j, k = description.task["patch_size"]
        return SlidingWindow(
            (i, j, k),
            description.overlap if self.overlap is None else self.overlap,
            self.sw_batch_size or (1 if device.type == "cpu" else SW_BATCH_SIZE),
            description.skip_empty if self.skip_empty is None else self.skip_empty,
        )


def find_device(name: str | None) -> torch.device:
    """Return a device by its name; a GPU if there is one and None is given.

    Raises:
        OptionError: If there is no such device.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise OptionError(f"--device must be cpu, cuda or cuda:N; got {name!r}.") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise OptionError(f"--device {name}: no CUDA device is available here.")
    return device
