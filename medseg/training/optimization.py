"""How the weights are found: optimizer and learning rate."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from medseg.core.errors import OptionError
from medseg.training.schedule import Schedule

FUSED_DEVICES = {"cpu", "cuda", "mps"}
"""Kinds of devices for which PyTorch 2.10 and later have fused AdamW and SGD."""


def match_strides(network: nn.Module) -> None:
    """Give gradients the strides of their weights where memory does not tell one from another.

    Kernels of one voxel or of one channel lie in memory the same way with the channels first or
    last, only the strides have two names, and which one a gradient gets depends on the precision.
    DDP compares the names, and warns.
    """
    for weight in network.parameters():
        last = torch.channels_last_3d
        if weight.ndim == 5 and weight.is_contiguous() and weight.is_contiguous(memory_format=last):
            hook = partial(_with_strides, stride=weight.stride())
            weight.register_hook(hook)  # type: ignore[no-untyped-call]


def _with_strides(gradient: Tensor, stride: tuple[int, ...]) -> Tensor:
    return gradient.reshape(-1).as_strided(gradient.shape, stride)


@dataclass(frozen=True)
class Optimization:
    """How the weights are found. No weight decay on norms and biases, whatever the norm.

    Attributes:
        name: `adamw`, or `sgd` with Nesterov momentum.
        learning_rate: At its peak.
        weight_decay: On convolution weights.
        momentum: Of SGD.
        schedule: `cosine`, `poly` or `constant`; ends where max_time, max_steps or max_epochs ends.
        warmup: Share of the training in which the rate rises.
        fused: Take the step in one kernel over all weights; null: wherever PyTorch has one.
    """

    name: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    momentum: float = 0.99
    schedule: Schedule = "cosine"
    warmup: float = 0.05
    fused: bool | None = None

    def __post_init__(self) -> None:
        if self.learning_rate <= 0 or self.weight_decay < 0 or not 0 <= self.warmup < 1:
            raise OptionError(
                "model.optimization needs learning_rate > 0, weight_decay >= 0 and warmup in "
                f"[0, 1); got {self.learning_rate}, {self.weight_decay}, {self.warmup}."
            )

    def build(self, network: nn.Module) -> torch.optim.Optimizer:
        """Return the optimizer of a network's parameters.

        Raises:
            OptionError: If a fused one is asked for where PyTorch has none.
        """
        weights = [p for p in network.parameters() if p.ndim > 1]
        others = [p for p in network.parameters() if p.ndim <= 1]
        groups: list[dict[str, Any]] = [
            {"params": weights, "weight_decay": self.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ]
        fused = self._fuses({p.device.type for p in network.parameters()})
        optimizer: torch.optim.Optimizer
        if self.name == "sgd":
            optimizer = torch.optim.SGD(groups, self.learning_rate, self.momentum,
                                        nesterov=self.momentum > 0, fused=fused)  # fmt: skip
        else:
            optimizer = torch.optim.AdamW(groups, self.learning_rate, fused=fused)
        # A fused one would unscale the gradients of 16-mixed itself, too late to clip them, and
        # Lightning refuses to clip in any mixed precision. Without this they are unscaled before.
        optimizer._step_supports_amp_scaling = False  # noqa: SLF001
        return optimizer

    def _fuses(self, devices: set[str]) -> bool:
        there = devices <= FUSED_DEVICES
        if self.fused and not there:
            raise OptionError(
                f"PyTorch has fused optimizers for {', '.join(sorted(FUSED_DEVICES))}; the network "
                f"is on {', '.join(sorted(devices))}. Drop --model.optimization.fused."
            )
        return there if self.fused is None else self.fused
