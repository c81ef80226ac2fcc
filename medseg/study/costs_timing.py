"""The costs of one network after another: memory alone, then times in turns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from medseg.core.errors import MedsegError
from medseg.networks.devices import is_out_of_memory
from medseg.networks.fold import folded, folds
from medseg.networks.unet import UNet, check_architecture
from medseg.training.measure import StepJob, kept_bytes
from medseg.training.optimization import Optimization

CLIP = 12.0
"""Norm of all gradients at which `medseg fit` clips by default (pipelines/base.yaml)."""


@dataclass(frozen=True)
class Cost:
    """What one network takes.

    Times are medians over rounds. Ratios are medians of the ratio within each round to the same
    network with the baseline's norm: batch norm, or the first where that is not among them.

    Attributes:
        norm: Its norm.
        channels: Of each level.
        precision: As of `medseg fit`.
        format: channels_last or contiguous.
        parameters: Of the network.
        step_ms: Training step: forward, loss, backward, clipping, optimizer.
        step_ratio: Against the baseline's.
        peak_mib: Peak of the allocator on a GPU; on a CPU what backward keeps, shared memory once.
        inference_ms: Forward of one batch, in evaluation.
        inference_ratio: Against the baseline's.
        folded_ms: The same once norms are folded; that of `inference_ms` where none can be.
        folded_ratio: Against the baseline's `inference_ms`.
        reason: Why there are no figures; empty where there are.
    """

    norm: str
    channels: tuple[int, ...]
    precision: str
    format: str
    parameters: int | None = None
    step_ms: float | None = None
    step_ratio: float | None = None
    peak_mib: float | None = None
    inference_ms: float | None = None
    inference_ratio: float | None = None
    folded_ms: float | None = None
    folded_ratio: float | None = None
    reason: str = ""

    @property
    def group(self) -> tuple[tuple[int, ...], str, str]:
        """What it shares with those it is compared with."""
        return self.channels, self.precision, self.format


class Contender:
    """A network that trains, then predicts, on one batch of noise.

    Args:
        job: Its step.
    """

    def __init__(self, job: StepJob) -> None:
        self.job = job
        self.network = job.build().to(job.device).train()
        self.optimizer = Optimization().build(self.network)
        self.scaler = torch.amp.GradScaler(job.device, enabled=job.precision == "16-mixed")
        self.image, self.label = job.batch(job.device)
        self.folded: UNet | None = None

    def train(self) -> None:
        """Take one step, as `medseg fit` does."""
        self.optimizer.zero_grad()
        loss = self.job.forward(self.network, self.image, self.label)
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self.scaler.unscale_(self.optimizer)
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), CLIP)
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def finish(self) -> None:
        """Go over to prediction, and fold what folds."""
        del self.optimizer
        if folds(self.job.norm):
            self.folded = folded(self.network)
        self.network.eval().requires_grad_(False)

    def predict(self) -> None:
        """Predict one batch with the network as trained."""
        self._predict(self.network)

    def predict_folded(self) -> None:
        """Predict one batch with the folded network."""
        self._predict(self.folded or self.network)

    def _predict(self, network: UNet) -> None:
        with torch.inference_mode(), self.job.autocast():
            network(self.image)


def impossible(job: StepJob) -> str:
    """Return why a network cannot be trained, in words; nothing if it can."""
    if job.precision == "16-mixed" and job.device == "cpu":
        return "16-mixed needs a GPU: on a CPU Lightning trains in bf16-mixed instead"
    try:
        check_architecture(
            job.architecture, job.norm, job.norm_groups, job.patch_size, job.batch_size
        )
    except MedsegError as error:
        return str(error)
    return ""


def peak_mib(job: StepJob) -> float | None:
    """Return the memory of a training step in MiB, of this network alone; None: not enough.

    On a GPU the allocator's peak within a second step, weights and optimizer included; on a CPU
    the tensors that backward keeps.
    """
    try:
        return _peak_mib(job)
    except (RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            return None
        raise


def _peak_mib(job: StepJob) -> float:
    before = torch.cuda.memory_allocated() if job.device == "cuda" else 0
    contender = Contender(job)
    if job.device != "cuda":
        network, image, label = contender.network, contender.image, contender.label
        return kept_bytes(lambda: job.forward(network, image, label)) / 2**20
    contender.train()  # the optimizer's averages and the libraries' workspaces are there then
    torch.cuda.reset_peak_memory_stats()
    contender.train()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def in_turns(
    actions: Sequence[Callable[[], object]], warmup: int, rounds: int, device: str
) -> list[list[float]]:
    """Time actions one after another, round after round: a busy machine slows all alike.

    Returns:
        Seconds of each round that counts, for each action.
    """
    seconds: list[list[float]] = [[] for _ in actions]
    for number in range(warmup + rounds):
        for place, action in enumerate(actions):
            started = time.perf_counter()
            action()
            if device == "cuda":
                torch.cuda.synchronize()
            if number >= warmup:
                seconds[place].append(time.perf_counter() - started)
    return seconds


def against(seconds: Sequence[float], baseline: Sequence[float]) -> float:
    """Return the median of the ratios within each round."""
    return statistics.median(a / b for a, b in zip(seconds, baseline, strict=True))
