"""The loss along its gradient at one batch: its range, and how soon the gradient changes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from medseg.networks.population import batch_mode

FACTORS = (0.5, 1.0, 2.0, 4.0)
"""Distances from the weights, in units; the span of Santurkar (2018), 0.5 to 4."""

PASSES = 1 + len(FACTORS)
"""Forward and backward passes of one look."""


@dataclass(frozen=True)
class Landscape:
    """What lies along the gradient (Santurkar 2018, arXiv 1805.11604, section 3.1).

    Attributes:
        distance: The unit, as a length in the space of the weights.
        loss_range: Largest loss less the smallest, at the weights and at all distances.
        gradient_change: Largest |g' - g| / |g|.
        effective_beta: Largest |g' - g| over its distance, times the squared norm of the weights: a
            network whose norms undo the scale of its weights is to be the same at every scale.
    """

    distance: float
    loss_range: float
    gradient_change: float
    effective_beta: float


def along_gradient(network: nn.Module, loss_of: Callable[[], Tensor], relative: float) -> Landscape:
    """Go along the gradient and come back; weights and running statistics are as before.

    Norms normalize as in training, dropout is off. Gradients are left to the caller untouched.

    Args:
        network: Its parameters are what is moved.
        loss_of: Returns the loss of a fixed batch by the network as it is.
        relative: Unit of the distance, as a share of the norm of the weights: a step of length
            `learning rate * |w|` is comparable between networks of any scale.
    """
    weights = [p for p in network.parameters() if p.requires_grad]
    with batch_mode(network):
        loss, gradient = _look(weights, loss_of)
        kept = [p.detach().clone() for p in weights]
        size, norm = _norm(kept), _norm(gradient)
        unit = relative * size
        losses, changes, betas = [loss], [], []
        try:
            for factor in FACTORS:
                _move(weights, kept, gradient, -factor * unit / norm.clamp_min(1e-30))
                there, turned = _look(weights, loss_of)
                change = _norm([a - b for a, b in zip(turned, gradient, strict=True)])
                losses.append(there)
                changes.append(change / norm)
                betas.append(change / (factor * unit) * size**2)
        finally:
            _move(weights, kept, gradient, None)
    values = torch.stack(losses)
    return Landscape(
        distance=float(unit),
        loss_range=float(values.max() - values.min()),
        gradient_change=float(torch.stack(changes).max()),
        effective_beta=float(torch.stack(betas).max()),
    )


def _look(
    weights: list[nn.Parameter], loss_of: Callable[[], Tensor]
) -> tuple[Tensor, list[Tensor]]:
    with torch.enable_grad():
        loss = loss_of()
        # A level without a supervised head, or a fixed gamma, has no gradient.
        found = torch.autograd.grad(loss, weights, allow_unused=True)
    gradient = [
        torch.zeros_like(w) if g is None else g for w, g in zip(weights, found, strict=True)
    ]
    return loss.detach().double(), gradient


@torch.no_grad()
def _move(
    weights: list[nn.Parameter],
    kept: list[Tensor],
    direction: list[Tensor],
    length: Tensor | None,
) -> None:
    """Set weights to those that were kept, plus a multiple of the direction."""
    for weight, before, along in zip(weights, kept, direction, strict=True):
        weight.copy_(before if length is None else before + length.to(before.dtype) * along)


def _norm(tensors: list[Tensor]) -> Tensor:
    return torch.nn.utils.get_total_norm(tensors).double()
