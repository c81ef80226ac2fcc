"""A network arranged for a CPU: the same results from faster kernels, one window at a time."""

from __future__ import annotations

import copy
import logging
from dataclasses import replace

import torch
from torch import Tensor, nn

from medseg.networks.convolution import Conv3d
from medseg.networks.fold import TOLERANCE, difference
from medseg.networks.norms_weight import with_plain_weights
from medseg.networks.unet import UNet
from medseg.networks.winograd import with_winograd

log = logging.getLogger("medseg")


class OneDnnConv3d(nn.Conv3d):
    """A convolution by oneDNN always.

    PyTorch sends a batch of one small volume to code of its own that takes twice the time.
    """

    def _conv_forward(self, image: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        padding = [int(length) for length in self.padding]
        return torch.mkldnn_convolution(
            image, weight, bias, padding, self.stride, self.dilation, self.groups
        )


def for_cpu(network: UNet) -> UNet:
    """Return a copy that takes one window at a time and computes it fast (docs/export.md).

    Convolutions of 3x3x3 are done by Winograd's filtering, unless that changes the logits of a
    probe by more than `TOLERANCE` of their range.

    Args:
        network: In evaluation mode; left alone.
    """
    direct = _rearranged(network)
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return direct
    filtered = copy.deepcopy(direct)
    with_winograd(filtered)
    if not (gap := difference(direct, filtered)) <= TOLERANCE:
        log.warning("convolutions are computed plainly: faster ones change the logits by %.2g of "
                    "their range", gap)  # fmt: skip
        return direct
    return filtered


def _rearranged(network: UNet) -> UNet:
    """Return a copy with the channels last in memory and layers that make use of it."""
    result = copy.deepcopy(network).eval().requires_grad_(False)
    with_plain_weights(result)
    for layer in result.modules():
        if type(layer) in (nn.Conv3d, Conv3d) and torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
            layer.__class__ = OneDnnConv3d
    result.architecture = replace(result.architecture, channels_last=True)
    return result.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload, no-any-return]
