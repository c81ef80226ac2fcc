"""Where the time of a training goes, measured at the points that Lightning itself marks."""

from __future__ import annotations

import statistics
import time
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.profilers import Profiler

KINDS = {
    "train_dataloader_next": "data",
    "batch_to_device": "data",
    "on_after_batch_transfer": "augmentation",
    "training_step": "forward",
    "backward": "backward",
    "optimizer_step": "optimizer",
}
"""Kind of time of an action, by the last word of its name; what an action contains is its own."""

VALIDATION = "validation"
END = "end"

SAMPLE_EVERY = 25
"""On a GPU one step in so many is measured: each mark in it waits for the device."""


class TimeShares(Profiler):
    """Add up seconds by kind: data, augmentation, forward, backward, optimizer, validation.

    Of this process since it began to train; a resumed run counts anew.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seconds = dict.fromkeys([*KINDS.values(), VALIDATION], 0.0)
        self.steps: list[float] = []
        self._kinds: dict[str, str | None] = {}
        self._open: list[tuple[str, float]] = []
        self._sampled = 0
        self._begun: float | None = None
        self._ended: float | None = None
        self._last: float | None = None
        self._validating: float | None = None

    def start(self, action_name: str) -> None:
        """Begin an action."""
        kind = self._kind(action_name)
        if kind == END and self._ended is None:  # post-processing, for one, is no training
            self._ended = time.perf_counter()
        if kind in (None, END) or (self._validating is not None and kind != VALIDATION):
            return
        if kind == VALIDATION:
            self._validation(action_name)
            return
        if action_name.endswith("train_dataloader_next"):
            self._next_step()
        self._open.append((str(kind), self._now()))

    def stop(self, action_name: str) -> None:
        """End an action; what lay within it is not counted twice."""
        if not self._open or self._kind(action_name) != self._open[-1][0]:
            return
        kind, started = self._open.pop()
        seconds = self._now() - started
        if self._measures:
            self.seconds[kind] += seconds
            if self._open:
                self.seconds[self._open[-1][0]] -= seconds

    def shares(self) -> dict[str, float] | None:
        """Return each kind's share of the time, `other` being the rest; None if nothing ran."""
        if self._begun is None or not self._sampled:
            return None
        ended = time.perf_counter() if self._ended is None else self._ended
        wall = ended - self._begun
        validation = self.seconds[VALIDATION]
        scale = (len(self.steps) or 1) / self._sampled if self._waits else 1.0
        parts = {k: v * scale for k, v in self.seconds.items() if k != VALIDATION}
        room = max(wall - validation, 1e-9)
        # Measured steps do not overlap with the device's work, so they are a little long.
        shrink = min(1.0, room / max(sum(parts.values()), 1e-9))
        parts = {kind: seconds * shrink for kind, seconds in parts.items()}
        parts |= {VALIDATION: validation, "other": room - sum(parts.values())}
        return {kind: round(max(seconds, 0.0) / wall, 4) for kind, seconds in parts.items()}

    def seconds_per_batch(self) -> float | None:
        """Return the median seconds from one batch to the next within an epoch."""
        return round(statistics.median(self.steps), 6) if self.steps else None

    def _kind(self, action: str) -> str | None:
        if action not in self._kinds:
            word = action.rsplit(".", 1)[-1]
            of_module = action.startswith("[LightningModule]")
            if of_module and word in ("on_validation_start", "on_validation_end"):
                self._kinds[action] = VALIDATION
            elif word == "on_train_end":
                self._kinds[action] = END
            else:
                known = not action.startswith("[Callback]")
                self._kinds[action] = KINDS.get(word) if known else None
        return self._kinds[action]

    def _validation(self, action: str) -> None:
        now = time.perf_counter()
        if action.endswith("_start"):
            self._validating, self._last = now, None
        elif self._validating is not None:
            # A trial validation comes before the training, and is no part of it.
            self.seconds[VALIDATION] += 0.0 if self._begun is None else now - self._validating
            self._validating = None

    def _next_step(self) -> None:
        """Take the time from the last batch to this one."""
        now = time.perf_counter()
        self._begun = now if self._begun is None else self._begun
        if self._last is not None:
            self.steps.append(now - self._last)
        self._last = now
        self._sampled += self._measures

    @property
    def _waits(self) -> bool:
        return bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]

    @property
    def _measures(self) -> bool:
        return not self._waits or len(self.steps) % SAMPLE_EVERY == SAMPLE_EVERY - 1

    def _now(self) -> float:
        if self._waits and self._measures:
            torch.cuda.synchronize()
        return time.perf_counter()


def time_record(trainer: pl.Trainer) -> dict[str, Any]:
    """Return what fit.json says about time; nothing where another profiler was asked for."""
    profiler = trainer.profiler  # type: ignore[attr-defined]
    if not isinstance(profiler, TimeShares):
        return {}
    batch = profiler.seconds_per_batch()
    return {
        "seconds_per_step": batch and batch * trainer.accumulate_grad_batches,
        "time_shares": profiler.shares(),
    }
