"""What a training step takes: reckoned from shapes alone, or measured in a process of its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from medseg.engine.outcome import WorkerDiedError
from medseg.engine.supervisor import supervise
from medseg.io.memory import peak_bytes
from medseg.networks.devices import is_out_of_memory
from medseg.networks.unet import Architecture, UNet
from medseg.training.loss import supervised_loss

PROCESS_BYTES = 500 << 20
"""`medseg fit` without its network: PyTorch, MONAI, Lightning and patches; 485 MiB measured on a
CPU."""

CUDA_BYTES = 500 << 20
"""A CUDA context with its libraries, beyond what PyTorch's allocator counts; a usual size."""

_LIBRARY_BYTES = 100 << 20
"""Of a CPU's convolution library once it runs: what a step of the smallest network takes."""

_COPIES = 5
"""Of the weights: they, their gradient, AdamW's two averages, the averaged weights."""

_WORKSPACE = 3
"""Of the largest tensor, beside what backward needs: gradients on their way, and the
convolutions' own buffers. Tests compare the sum with what is measured."""

_SHORT = 1.0
"""Seconds below which a step is timed more often."""


@dataclass(frozen=True)
class StepJob:
    """A training step.

    Attributes:
        architecture: The network.
        norm: Its norm.
        norm_groups: Groups of group norm.
        channels: Image channels.
        classes: The background included.
        patch_size: Voxels.
        batch_size: Patches.
        device: `cpu` or `cuda`.
        precision: As Lightning names it: `32-true`, `bf16-mixed` or `16-mixed`.
    """

    architecture: Architecture
    norm: str
    norm_groups: int
    channels: int
    classes: int
    patch_size: tuple[int, int, int]
    batch_size: int
    device: str
    precision: str

    @property
    def voxels(self) -> int:
        """Voxels of the batch."""
        i, j, k = self.patch_size
        return self.batch_size * i * j * k

    def build(self) -> UNet:
        """Return the network, on PyTorch's current default device."""
        return UNet(self.channels, self.classes, self.architecture, self.norm, self.norm_groups, 0)

    def autocast(self) -> torch.autocast:
        """Return the context of the job's precision."""
        half = torch.float16 if self.precision == "16-mixed" else torch.bfloat16
        return torch.autocast(self.device, half, enabled=self.precision != "32-true")

    def forward(self, network: UNet, image: Tensor, label: Tensor) -> Tensor:
        """Return the loss, in the job's precision."""
        with self.autocast():
            return supervised_loss(network.heads(image), label)

    def batch(self, device: str) -> tuple[Tensor, Tensor]:
        """Return noise and labels on a device."""
        size = (self.batch_size, *self.patch_size)
        image = torch.zeros((self.batch_size, self.channels, *self.patch_size), device=device)
        if device != "meta":
            image.normal_()
        return image, torch.zeros(size, dtype=torch.uint8, device=device)


@dataclass(frozen=True)
class StepCost:
    """What a step takes.

    Attributes:
        bytes: Memory of the whole training; None if it did not fit.
        seconds: Of a step; None if it was only reckoned.
    """

    bytes: int | None
    seconds: float | None


def kept_bytes(compute: Callable[[], Tensor]) -> int:
    """Return the bytes that backward will need of a computation; shared memory counts once."""
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage.nbytes()  # noqa: SLF001 - no address on the meta device
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = compute()
    del result  # until here all that was kept is there, and no storage has another's name
    return sum(kept.values())


def reckon(job: StepJob) -> int:
    """Return the bytes a training takes, from the shapes of what backward keeps.

    Nothing is computed and no memory taken: the network lives on PyTorch's meta device.
    """
    with torch.device("meta"):
        network = job.build().train()
        image, label = job.batch("meta")
        # Autocast acts on the device at hand; on the meta device the step stays in float32.
        kept = kept_bytes(lambda: supervised_loss(network.heads(image), label))
    largest = 4 * job.voxels * max(2 * job.architecture.channels[0], job.classes)
    weights = 4 * sum(parameter.numel() for parameter in network.parameters())
    share = 1.0 if job.precision == "32-true" else 0.6  # norms and losses keep float32
    fixed = CUDA_BYTES if job.device == "cuda" else PROCESS_BYTES + _LIBRARY_BYTES
    return int(fixed + _COPIES * weights + share * (kept + _WORKSPACE * largest))


def measure(job: StepJob) -> StepCost:
    """Run some steps in a fresh process, which alone is harmed if the memory does not suffice."""
    (outcome,) = supervise(_start, [job], workers=1, attempts=1)
    if isinstance(outcome.error, WorkerDiedError):
        return StepCost(None, None)  # killed by the system: more memory than there is
    if outcome.error is not None:
        raise outcome.error
    return outcome.result or StepCost(None, None)


def measure_within(
    jobs: Sequence[StepJob], seconds: float, threads: int
) -> Iterator[tuple[StepJob, float]]:
    """Yield jobs with the seconds of a step, run one after the other in one fresh process.

    Args:
        jobs: The first is always run.
        seconds: After which no further one begins.
        threads: CPU threads of that process.
    """
    ends = time.monotonic() + seconds
    done: list[StepJob] = []
    outcomes = supervise(
        _start, jobs, workers=1, attempts=1,
        may_go_on=lambda: not done or time.monotonic() < ends,
        environment={"OMP_NUM_THREADS": str(threads)},
    )  # fmt: skip
    for outcome in outcomes:
        done.append(outcome.job)
        if outcome.result and outcome.result.seconds is not None:
            yield outcome.job, outcome.result.seconds


def _start() -> Any:
    return _handle


def _handle(jobs: Iterator[tuple[int, StepJob]]) -> Iterator[tuple[int, StepCost]]:
    for key, job in jobs:
        yield key, _measured(job)


def _measured(job: StepJob) -> StepCost:
    """Train a few steps on noise."""
    try:
        return _steps(job)
    except (RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            return StepCost(None, None)
        raise


def _steps(job: StepJob) -> StepCost:
    cuda = job.device == "cuda"
    before = peak_bytes()
    network = job.build().to(job.device).train()
    optimizer = torch.optim.AdamW(network.parameters())
    image, label = job.batch(job.device)
    seconds: list[float] = []
    while len(seconds) < 3 or (len(seconds) < 8 and sum(seconds) < _SHORT):
        started = time.perf_counter()
        optimizer.zero_grad()
        job.forward(network, image, label).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if cuda:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    weights = 4 * sum(parameter.numel() for parameter in network.parameters())  # the averaged ones
    if cuda:
        taken = torch.cuda.max_memory_reserved() + CUDA_BYTES
    else:
        taken = max(peak_bytes() - before, 0) + PROCESS_BYTES
    # The first step allocates and chooses algorithms; what else runs here disturbs some others.
    return StepCost(taken + weights, min(seconds[1:]))
