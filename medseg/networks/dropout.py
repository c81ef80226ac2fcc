"""Dropout of whole channels, drawn for each sample whatever the batch and the device."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

_DRAWS = 4
"""Sets these draws apart from the others under the same seed."""


class ChannelDropout(nn.Dropout3d):
    """Take whole channels away in training, and scale up the others (Tompson 2015).

    As PyTorch's, unless `draw_channels` has drawn what it takes away from the next batch.

    Args:
        p: Probability that a channel is taken away.
        channels: Of the images that come.
    """

    def __init__(self, p: float, channels: int) -> None:
        super().__init__(p)
        self.channels = channels
        self.kept: Tensor | None = None

    def forward(self, image: Tensor) -> Tensor:
        """Return the image, shape (B, C, I, J, K), without some of its channels."""
        if not self.training or self.kept is None:
            return super().forward(image)
        scale = self.kept.to(image.device, image.dtype) / (1 - self.p)
        return image * scale[:, :, None, None, None]


def draw_channels(network: nn.Module, seed: int, numbers: Sequence[int]) -> None:
    """Draw what dropout takes away from the next batch: of each sample by its number alone.

    Args:
        network: Whose `ChannelDropout` layers are told.
        seed: Of the training.
        numbers: Of the samples.
    """
    layers = [layer for layer in network.modules() if isinstance(layer, ChannelDropout)]
    if not layers:
        return
    sizes = [layer.channels for layer in layers]
    draws = np.stack(
        [np.random.default_rng([seed, _DRAWS, number]).random(sum(sizes)) for number in numbers]
    )
    for layer, part in zip(layers, np.split(draws, np.cumsum(sizes)[:-1], axis=1), strict=True):
        layer.kept = torch.from_numpy(part >= layer.p)
