"""What is tried where a device runs out of memory: less and less of it, the same labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from medseg.core.errors import VolumeError
from medseg.core.geometry import Grid
from medseg.inference.cuts import Cut, best_cut
from medseg.inference.plan import Plan, Request

_FINER = (4, 16)
"""How much thinner slabs become in the end."""


@dataclass(frozen=True)
class Rung:
    """One way of labelling a case.

    Attributes:
        sw_batch_size: Windows in one forward pass.
        device: Where logits are added up.
        cut: The pieces in which this is done.
    """

    sw_batch_size: int
    device: torch.device
    cut: Cut

    @property
    def words(self) -> str:
        """What it takes, for a message."""
        slab = f"{self.cut.slab_bytes / 2**20:.0f} MiB of logits on {self.device}"
        return f"{self.sw_batch_size} windows at a time and {slab}"


def rungs(
    request: Request,
    plan: Plan,
    original: Grid,
    grids: Sequence[Grid],
    device: torch.device,
    limit: int | None,
) -> Iterator[Rung]:
    """Yield ways of labelling a case, each taking less than the one before.

    Args:
        request: What is asked.
        plan: How it was to be labelled.
        original: The grid of the label map.
        grids: The networks' grids.
        device: Where the networks run.
        limit: Most bytes of this machine's memory for the case; any if None.
    """
    rung = Rung(request.footprints[0].window.sw_batch_size, device, plan.cut)
    yield rung
    while rung.sw_batch_size > 1:
        rung = replace(rung, sw_batch_size=rung.sw_batch_size // 2)
        yield rung
    room = plan.cut.slab_bytes
    if device.type != "cpu":
        rung = replace(rung, device=torch.device("cpu"))
        # Until now the machine's own memory held no logits.
        room = room if limit is None else min(room, limit - plan.labelling)
        cut = best_cut(original, request.footprints, grids, room, request.axes)
        if cut is not None:
            rung = replace(rung, cut=cut)
            yield rung
    for finer in _FINER:
        cut = best_cut(original, request.footprints, grids, room // finer, request.axes)
        if cut is not None:
            yield replace(rung, cut=cut)


def exhausted() -> VolumeError:
    """Return the error of a case for which the least does not suffice."""
    return VolumeError(
        "the case",
        "memory",
        "the device runs out of it even for one window at a time and the thinnest slabs",
        "close what else uses the device, or take another --device",
    )
