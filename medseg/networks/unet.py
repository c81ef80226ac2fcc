"""THE 3D U-Net: plain or residual encoder, any depth, anisotropic, any norm."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from medseg.core.errors import GeometryError, OptionError, check_choice
from medseg.networks.blocks import (
    UNIT,
    BlockStyle,
    PlainStage,
    ResidualStage,
    Triple,
    initialize,
)
from medseg.networks.norms import DEFAULT_GROUPS, NORMS, check_norm
from medseg.networks.population import frozen_statistics

_STAGES: dict[str, type[PlainStage | ResidualStage]] = {
    "plain": PlainStage,
    "residual": ResidualStage,
}


@dataclass(frozen=True)
class Architecture:
    """The shape of a U-Net, without its norm.

    Attributes:
        channels: Feature channels of each level, the finest first.
        strides: Downsampling in front of each level; 2 everywhere but the first level if None.
        kernels: Kernel size of each level, odd; 3 everywhere if None.
        depth: Convolutions (plain) or blocks (residual) a level in the encoder.
        decoder_depth: Convolutions a level in the decoder.
        encoder: `plain` or `residual`.
        conv_bias: Bias on convolutions before a norm; None: only where the norm keeps the mean.
        dropout: Probability of dropping a channel after the last norm of a block.
        deep_supervision: Logits also from the coarser decoder levels.
        activation_checkpointing: Compute levels again in backward instead of keeping them.
        channels_last: Keep volumes with the channels last in memory; often faster.
        init_scale: Factor on the initial weights of all convolutions, which are He's.
    """

    channels: list[int] = field(default_factory=lambda: [32, 64, 128, 256])
    strides: list[list[int]] | None = None
    kernels: list[list[int]] | None = None
    depth: int = 2
    decoder_depth: int = 2
    encoder: Literal["plain", "residual"] = "plain"
    conv_bias: bool | None = None
    dropout: float = 0.0
    deep_supervision: bool = True
    activation_checkpointing: bool = False
    channels_last: bool = True
    init_scale: float = 1.0

    def __post_init__(self) -> None:
        smallest = min(self.depth, self.decoder_depth, *self.channels, 1)
        if smallest < 1 or not 0 <= self.dropout < 1:
            raise OptionError(
                "model.network needs channels, depth and decoder_depth >= 1 and dropout in "
                f"[0, 1); got {list(self.channels)}, {self.depth}, {self.decoder_depth}, "
                f"{self.dropout}."
            )
        if not 0 < self.init_scale < math.inf:
            raise OptionError(f"model.network.init_scale must be above 0; got {self.init_scale}.")

    @property
    def level_strides(self) -> tuple[Triple, ...]:
        """Stride in front of each level.

        Raises:
            OptionError: If their number is not that of the levels, or the first is not 1.
        """
        levels = len(self.channels)
        if levels < 2:
            raise OptionError(f"model.network.channels must name at least 2 levels; got {levels}.")
        if self.strides is None:
            return (UNIT, *[(2, 2, 2)] * (levels - 1))
        rows = _triples("model.network.strides", levels, self.strides)
        if rows[0] != UNIT:
            raise OptionError(f"model.network.strides must begin with [1, 1, 1]; got {rows[0]}.")
        return rows

    @property
    def level_kernels(self) -> tuple[Triple, ...]:
        """Kernel size of each level.

        Raises:
            OptionError: If their number is not that of the levels, or one is even.
        """
        levels = len(self.channels)
        rows = _triples("model.network.kernels", levels, self.kernels or [[3, 3, 3]] * levels)
        if any(size % 2 == 0 for row in rows for size in row):
            raise OptionError(f"model.network.kernels must be odd; got {rows}.")
        return rows

    @property
    def divisor(self) -> Triple:
        """What the length of each axis of an image must be divisible by."""
        i, j, k = (math.prod(axis) for axis in zip(*self.level_strides, strict=True))
        return i, j, k


def _triples(option: str, levels: int, rows: Sequence[Sequence[int]]) -> tuple[Triple, ...]:
    if len(rows) != levels or any(len(row) != 3 or min(row) < 1 for row in rows):
        raise OptionError(
            f"{option} must give three sizes >= 1 for each of {levels} levels "
            f"(model.network.channels); got {[list(row) for row in rows]}."
        )
    return tuple((row[0], row[1], row[2]) for row in rows)


class UNet(nn.Module):
    """3D U-Net (Ronneberger 2015, Çiçek 2016), laid out as in nnU-Net (Isensee 2021).

    The logits come from a 1x1x1 convolution without a norm. Every tensor is in the state dict once.

    Args:
        in_channels: Image channels.
        out_channels: Classes, the background included.
        architecture: Levels, blocks and memory layout.
        norm: A row of `medseg.networks.norms.NORMS`.
        norm_groups: Groups of group norm.
        seed: Of the initial weights; PyTorch's current seed if None.

    Raises:
        OptionError: If an argument, or the combination, is not possible.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        architecture: Architecture | None = None,
        norm: str = "batch",
        norm_groups: int = DEFAULT_GROUPS,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        plan = architecture or Architecture()
        self.architecture = plan
        stage = _STAGES[check_choice("model.network.encoder", plan.encoder, _STAGES)]
        channels, strides, kernels = plan.channels, plan.level_strides, plan.level_kernels
        style = BlockStyle(norm, norm_groups, plan.conv_bias, plan.dropout)
        self.encoder = nn.ModuleList(
            stage(before, after, kernel, stride, plan.depth, style)
            for before, after, kernel, stride in zip(
                [in_channels, *channels[:-1]], channels, kernels, strides, strict=True
            )
        )
        levels = range(len(channels) - 2, -1, -1)  # the decoder climbs from the coarsest level
        self.upsample = nn.ModuleList(
            nn.ConvTranspose3d(channels[i + 1], channels[i], strides[i + 1], strides[i + 1])
            for i in levels
        )
        self.decoder = nn.ModuleList(
            PlainStage(2 * channels[i], channels[i], kernels[i], UNIT, plan.decoder_depth, style)
            for i in levels
        )
        supervised = levels if plan.deep_supervision else levels[-1:]
        self.logits = nn.ModuleList(nn.Conv3d(channels[i], out_channels, 1) for i in supervised)
        chosen = torch.initial_seed() % 2**63 if seed is None else seed
        initialize(self, chosen, plan.init_scale)
        if plan.channels_last:
            self.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]

    def forward(self, image: Tensor) -> Tensor:
        """Return logits on the image's grid.

        Args:
            image: Shape (B, C, I, J, K), each axis divisible by `architecture.divisor`.

        Returns:
            Shape (B, classes, I, J, K).

        Raises:
            GeometryError: If an axis is not divisible.
        """
        logits: Tensor = self.logits[-1](self._features(image)[-1])
        return logits

    def heads(self, image: Tensor) -> list[Tensor]:
        """Return the logits of every supervised level, the finest (the image's grid) first."""
        features = self._features(image)[-len(self.logits) :]
        pairs = zip(self.logits, features, strict=True)
        return [logits(feature) for logits, feature in pairs][::-1]

    def _features(self, image: Tensor) -> list[Tensor]:
        """Return the decoder's features, the coarsest first."""
        divisor = self.architecture.divisor
        if any(n % d for n, d in zip(image.shape[2:], divisor, strict=True)):
            raise GeometryError(f"image {tuple(image.shape[2:])} must be divisible by {divisor}.")
        if self.architecture.channels_last:
            image = image.contiguous(memory_format=torch.channels_last_3d)
        skips: list[Tensor] = []
        out = image
        for stage in self.encoder:
            out = self._run(stage, out)
            skips.append(out)
        features = []
        for upsample, stage, skip in zip(self.upsample, self.decoder, skips[-2::-1], strict=True):
            out = self._run(stage, torch.cat([upsample(out), skip], dim=1))
            features.append(out)
        return features

    def _run(self, stage: nn.Module, image: Tensor) -> Tensor:
        if self.architecture.activation_checkpointing and self.training:
            return checkpoint(  # type: ignore[no-any-return]
                stage,
                image,
                use_reentrant=False,
                context_fn=lambda: (nullcontext(), frozen_statistics(stage)),
            )
        return stage(image)  # type: ignore[no-any-return]


def check_architecture(
    architecture: Architecture,
    norm: str,
    norm_groups: int,
    patch_size: Sequence[int],
    batch_size: int,
) -> None:
    """Check that network, norm, patch and batch fit together, before anything is built.

    Raises:
        GeometryError: If the patch does not divide, or leaves a norm too few values.
        OptionError: If the norm is unknown or does not fit the channels.
    """
    check_choice("model.norm", norm, NORMS)
    if norm_groups < 1:
        raise OptionError(f"model.norm_groups must be at least 1; got {norm_groups}.")
    if batch_size < 1:
        raise OptionError(f"data.batch_size must be at least 1; got {batch_size}.")
    divisor = architecture.divisor
    pairs = list(zip(patch_size, divisor, strict=True))
    if any(length < 1 or length % d for length, d in pairs):
        nearest = tuple(max(1, math.ceil(length / d)) * d for length, d in pairs)
        shown = str(divisor[0]) if len(set(divisor)) == 1 else str(divisor)
        raise GeometryError(
            f"data.patch_size {tuple(patch_size)} must be divisible by {shown} on every axis "
            f"({len(architecture.channels)} levels); nearest larger: {nearest}."
        )
    strides = architecture.level_strides
    check_norm(norm, architecture.channels, strides, patch_size, batch_size, norm_groups)
