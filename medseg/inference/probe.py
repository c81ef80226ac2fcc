"""Whether a network computed in another way still finds the same classes."""

from __future__ import annotations

import copy

import torch
from torch import Tensor
from torch.nn import functional as F

from medseg.core.errors import OptionError
from medseg.inference.runtimes import Runner
from medseg.networks.fold import relative_difference
from medseg.networks.unet import UNet

AGREEMENT = 0.9999
"""Share of a probe's voxels where another runtime must find the class that torch finds."""

_PROBE_WINDOWS = 4
_BLOB_VOXELS = 4  # the coarse grid of the probe's smooth part has one value in so many voxels
_NOISE = 0.3  # standard deviation beside the smooth part's 1: the grain of a scaled MRI or CT


def probe(roi_size: tuple[int, int, int], in_channels: int) -> Tensor:
    """Return windows that look like scaled images, always the same: smooth blobs and noise.

    Returns:
        Shape (4, in_channels, *roi_size), mean about 0, standard deviation about 1.
    """
    generator = torch.Generator().manual_seed(0)
    shape = (_PROBE_WINDOWS, in_channels, *roi_size)
    coarse = [max(2, length // _BLOB_VOXELS) for length in roi_size]
    blobs = F.interpolate(
        torch.randn((*shape[:2], *coarse), generator=generator),
        size=roi_size,
        mode="trilinear",
    )
    noise = torch.randn(shape, generator=generator)
    return blobs / blobs.std() + _NOISE * noise


@torch.inference_mode()
def agreement(network: UNet, run: Runner, windows: Tensor) -> tuple[float, float]:
    """Compare a backend with the network as trained, window by window to spare memory.

    Returns:
        Share of the voxels of equal class, and the largest difference of the logits as a share of
        their range in that window.
    """
    plain = copy.deepcopy(network).eval().to(windows.device)
    shares, gaps = [], []
    for window in windows.split(1):  # type: ignore[no-untyped-call]
        expected, found = plain(window), run(window)
        shares.append(float((expected.argmax(1) == found.argmax(1)).double().mean()))
        gaps.append(relative_difference(expected, found))
    return sum(shares) / len(shares), max(gaps)


def check_agreement(
    flag: str, network: UNet, run: Runner, roi_size: tuple[int, int, int], in_channels: int
) -> tuple[float, float]:
    """Return the agreement on the probe if it is enough.

    Args:
        flag: What the user typed, for the message.
        network: As trained.
        run: The network computed in another way.
        roi_size: Size of the windows.
        in_channels: Image channels.

    Raises:
        OptionError: If fewer than `AGREEMENT` of the voxels get the same class.
    """
    same, gap = agreement(network, run, probe(roi_size, in_channels))
    if not same >= AGREEMENT:
        raise OptionError(
            f"{flag} finds the class that torch finds in {same:.6f} of a probe's voxels, where "
            f"{AGREEMENT} are needed. Leave it out for this network."
        )
    return same, gap
