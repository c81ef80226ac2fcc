"""A training and its later parts: what must be the same, and whether it can be repeated."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, cast

import pytorch_lightning as pl
import torch

from medseg.core.errors import CheckpointError
from medseg.training.bounds import bounds, needs_an_end
from medseg.training.module import SegmentationModule
from medseg.training.schedule import timer_of

log = logging.getLogger("medseg")


def circumstances(trainer: pl.Trainer) -> dict[str, Any]:
    """Return what a resumed training is compared by; primitives only."""
    module = cast("SegmentationModule", trainer.lightning_module)
    return {
        "data": trainer.datamodule.content_digest,  # type: ignore[attr-defined]
        "threads": torch.get_num_threads(),
        "devices": trainer.world_size,
        "kind": trainer.strategy.root_device.type,
        "compiled": module.compiled,
        "bounds": bounds(trainer),
    }


def refuse_other_data(here: Mapping[str, Any], there: Mapping[str, Any]) -> None:
    """Refuse to go on with other training data.

    Raises:
        CheckpointError: If they changed.
    """
    if there and there["data"] != here["data"]:
        raise CheckpointError(
            "the training data, or the code that prepares them, changed since the checkpoint was "
            "written: an exact continuation is not possible. Train anew, or start from its weights "
            "with --init_from."
        )


def irreproducible(trainer: pl.Trainer) -> list[str]:
    """Return why the same command may give other weights; nothing if it gives the same bits."""
    reasons = []
    if timer_of(trainer):
        reasons.append("bounded by time: the number of steps depends on the machine")
    if (
        trainer.strategy.root_device.type != "cpu"
        and not torch.are_deterministic_algorithms_enabled()
    ):
        reasons.append("on a GPU without --trainer.deterministic true")
    return reasons


def changes(trainer: pl.Trainer, here: Mapping[str, Any], there: Mapping[str, Any]) -> list[str]:
    """Return what changed between two parts of a training that changes the weights; say so.

    Args:
        trainer: Of the part that begins.
        here: Its circumstances.
        there: Those of the part before, empty if there is none; older checkpoints hold fewer.
    """
    words = {
        "threads": "the number of threads",
        "devices": "the number of devices",
        "kind": "the kind of device",
        "compiled": "model.compile",
    }
    pairs = {word: (there.get(key, here[key]), here[key]) for key, word in words.items()}
    if needs_an_end(cast("SegmentationModule", trainer.lightning_module)):
        before = there.get("bounds", {})
        pairs |= {name: (before.get(name, now), now) for name, now in here["bounds"].items()}
    found = [
        f"resumed with a change: {name} was {_shown(before)} and is {_shown(now)}"
        for name, (before, now) in pairs.items()
        if before != now
    ]
    for reason in found:
        log.warning("%s; the weights will not be those of an undisturbed run.", reason)
    if there and timer_of(trainer):
        log.warning(
            "a training bounded by time goes on with the time it has left; how many steps that is "
            "depends on the machine, so the weights are not those of an undisturbed run."
        )
    return found


def _shown(value: Any) -> str:
    return "none" if value is None else str(value)
