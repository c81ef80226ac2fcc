"""The training step of a plan: the largest that memory and time allow, measured where it can be."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from medseg.core.errors import ManifestError, OptionError
from medseg.core.manifest import Manifest
from medseg.data.fingerprint import Fingerprint
from medseg.io.memory import size
from medseg.networks.unet import Architecture, check_architecture
from medseg.training import plan_rules as rules
from medseg.training.budget import in_words
from medseg.training.measure import StepCost, StepJob, measure, reckon
from medseg.training.plan_options import PlanOptions

FEWEST_STEPS = 1000
"""In the time given: with fewer, a smaller patch is worth more than what it leaves out."""

ENOUGH_STEPS = 10_000
"""Steps from which further time is better spent on larger batches."""

MOST_OF_DATA = 0.05
"""Share of the training set's voxels that one batch may hold; nnU-Net's."""

WORTH_IT = 1.2
"""How much faster bfloat16 must be to be taken on a CPU: it costs digits, and some lack units."""

_PROBE_VOXELS = 64**3
"""A first measurement is not larger: it tells the speed of a device nobody knows yet."""

_MARGIN = 0.9
"""Of the memory given that a reckoned size may take."""

_MEASUREMENTS = 4
"""Of most plans: a small patch in two precisions, the patch, a larger batch."""

_TO_START = 20.0
"""Seconds until a fresh process has imported PyTorch and taken short steps: 19 s measured on two
cores that had twice the work they can do."""

SMALLER_IS_BETTER = 0.2
"""Share of the median image below which a patch sees too little of it at once."""

log = logging.getLogger("medseg")


@dataclass(frozen=True)
class Machine:
    """What the training may take.

    Attributes:
        device: `cpu` or `cuda`.
        bytes: Memory.
        seconds: Time.
        there: Whether the device is there to be measured.
    """

    device: str
    bytes: int
    seconds: int
    there: bool


def fitted(
    options: PlanOptions,
    facts: Fingerprint,
    manifest: Manifest,
    machine: Machine,
    spacing: Sequence[float],
) -> tuple[StepJob, StepCost, str]:
    """Return the training step that fits memory and time, what it takes, and what limits its patch.

    The limit is `memory`, `time`, or "" where there is no larger patch.
    """
    candidates = [
        _job(options, manifest, machine, layout) for layout in rules.layouts(facts, spacing)
    ]
    if not candidates:
        raise ManifestError(
            f"{manifest.path}: the images are too small for two levels at {list(spacing)} mm. "
            "Give a finer --spacing."
        )
    job = _that_fits(candidates, machine)
    cost = StepCost(reckon(job), None)
    limit = "memory" if job.patch_size != candidates[0].patch_size else ""
    if machine.there:
        job, cost, slow = _measured(candidates, job, machine)
        limit = slow or limit
    if options.batch_size is None:
        job, cost = _with_more(options, facts, spacing, machine, job, cost)
    check_architecture(job.architecture, job.norm, job.norm_groups, job.patch_size, job.batch_size)
    return job, cost, limit


def _job(
    options: PlanOptions, manifest: Manifest, machine: Machine, layout: rules.Layout
) -> StepJob:
    cuda = machine.device == "cuda"
    batch = options.batch_size or 2
    precision = "32-true"
    if cuda:
        half = machine.there and torch.cuda.is_bf16_supported(including_emulation=False)
        precision = "bf16-mixed" if half else "16-mixed"
    return StepJob(
        architecture=Architecture(
            channels=rules.channels(32 if cuda else 16, len(layout.strides)),
            strides=[list(row) for row in layout.strides],
            kernels=[list(row) for row in layout.kernels],
        ),
        norm=rules.norm_for(batch) if options.norm == "auto" else options.norm,
        norm_groups=options.norm_groups,
        channels=len(manifest.channel_names),
        classes=len(manifest.labels),
        patch_size=layout.patch_size,
        batch_size=batch,
        device=machine.device,
        precision=precision,
    )


def _that_fits(candidates: Sequence[StepJob], machine: Machine) -> StepJob:
    """Return the largest patch that the reckoning says fits.

    Raises:
        OptionError: If not even the smallest does; it says how much that takes.
    """
    for job in candidates:
        if chosen := _within(job, machine):
            return chosen
    least = reckon(_saving(candidates[-1]))
    raise OptionError(
        f"the memory does not suffice: {size(machine.bytes)} are there, the smallest patch, "
        f"{candidates[-1].patch_size} in batches of {candidates[-1].batch_size}, takes "
        f"{size(int(least / _MARGIN) + 1)}. Raise --memory, or take --batch_size 1."
    )


def _within(job: StepJob, machine: Machine) -> StepJob | None:
    """Return a step as it is reckoned to fit: with activation checkpointing only where it must."""
    for chosen in (job, _saving(job)):
        if reckon(chosen) <= _MARGIN * machine.bytes:
            return chosen
    return None


def _saving(job: StepJob) -> StepJob:
    return replace(job, architecture=replace(job.architecture, activation_checkpointing=True))


def _measured(
    candidates: Sequence[StepJob], job: StepJob, machine: Machine
) -> tuple[StepJob, StepCost, str]:
    """Return the largest patch, from `job` on, that is measured to fit memory and time.

    Also what it takes, and what the next larger one did not fit; "" where `job` itself fits.
    """
    # A patch whose step is guessed to take longer is not measured; a long step is taken thrice.
    longest = 3 * machine.seconds / FEWEST_STEPS
    log.info("measuring training steps on the %s, about %s at most",
             "GPU" if machine.device == "cuda" else "CPU",
             in_words(_MEASUREMENTS * _TO_START + longest))  # fmt: skip
    probe = next((c for c in candidates if c.voxels <= _PROBE_VOXELS), candidates[-1])
    probe = min(job, probe, key=lambda each: each.voxels)
    first = measure(probe)
    precision = job.precision
    if machine.device == "cpu" and first.seconds:
        half = measure(replace(probe, precision="bf16-mixed"))
        if half.seconds and first.seconds / half.seconds >= WORTH_IT:
            first, precision = half, "bf16-mixed"
    most, limit = machine.seconds / FEWEST_STEPS, ""
    smaller = [c for c in candidates if c.voxels <= job.voxels]
    for candidate in smaller:
        guess = (first.seconds or 0) * candidate.voxels / probe.voxels
        if guess > most and candidate is not smaller[-1]:
            limit = "time"
            continue
        within = _within(candidate, machine)
        if within is None:
            continue
        chosen = replace(within, precision=precision)
        cost = first if chosen == replace(probe, precision=precision) else measure(chosen)
        log.info("patch %s, batch %d, %s: %s", chosen.patch_size, chosen.batch_size,
                 chosen.precision, cost_words(cost))  # fmt: skip
        if cost.bytes is not None and cost.bytes <= machine.bytes:
            return chosen, cost, limit
        limit = "memory"
    raise OptionError(
        f"the memory does not suffice: no patch was measured to fit {size(machine.bytes)}. "
        "Raise --memory, or take --batch_size 1."
    )


def _with_more(
    options: PlanOptions,
    facts: Fingerprint,
    spacing: Sequence[float],
    machine: Machine,
    job: StepJob,
    cost: StepCost,
) -> tuple[StepJob, StepCost]:
    """Return the largest batch that memory, time and the size of the data set allow."""
    voxels = facts.shapes_at(spacing).prod(axis=1).sum()
    most = int(MOST_OF_DATA * voxels / (job.voxels / job.batch_size))
    if cost.seconds:
        most = min(most, int(machine.seconds / ENOUGH_STEPS / cost.seconds * job.batch_size))
    # Each further patch takes the same: batches far beyond the memory need not be reckoned one by
    # one. Another norm may take a little less.
    room, reckoned = _MARGIN * machine.bytes, reckon(job)
    each = (reckon(replace(job, batch_size=2 * job.batch_size)) - reckoned) / job.batch_size
    most = min(most, job.batch_size + int(1.2 * max(room - reckoned, 0) / each) + 2)
    for batch in range(most - most % 2, job.batch_size, -2):
        norm = rules.norm_for(batch) if options.norm == "auto" else job.norm
        larger = replace(job, batch_size=batch, norm=norm)
        if reckon(larger) > room:
            continue
        if not machine.there:
            return larger, StepCost(reckon(larger), None)
        taken = measure(larger)
        log.info("batch %d: %s", batch, cost_words(taken))
        if taken.bytes is not None and taken.bytes <= machine.bytes:
            return larger, taken
    return job, cost


def cost_words(cost: StepCost) -> str:
    """Return what a step takes, in words."""
    if cost.bytes is None:
        return "does not fit"
    if cost.seconds is None:
        return f"{size(cost.bytes)}, reckoned"
    return f"{cost.seconds:.3g} s a step, {size(cost.bytes)}"
