"""`medseg plan`: a data set, a device, memory and time, turned into one readable configuration."""

from __future__ import annotations

import logging

import torch

from medseg.core.errors import ManifestError, OptionError, check_choice
from medseg.core.manifest import Case, Manifest, load_manifest
from medseg.core.runs import make_writable
from medseg.data.fingerprint import fingerprint
from medseg.engine.progress import track
from medseg.io.memory import available_bytes, parse_bytes
from medseg.networks.norms import NORMS
from medseg.training import plan_rules as rules
from medseg.training.budget import in_words
from medseg.training.plan_draft import Draft
from medseg.training.plan_files import write_plan
from medseg.training.plan_fit import Machine, cost_words, fitted
from medseg.training.plan_options import PlanOptions

LEAST_STEPS = 100
"""Fewer cannot be called a training."""

log = logging.getLogger("medseg")


def plan(options: PlanOptions) -> int:
    """Write a configuration that fits the data, the memory and the time; return 0.

    Raises:
        OptionError: If an option is wrong, or the memory does not suffice for the smallest network.
        ManifestError: If the data set cannot be planned from.
    """
    _check(options)
    machine = machine_of(options)
    manifest = load_manifest(options.manifest, options.root)
    train_folds, train, val = _split(manifest, options.fold)
    make_writable("--output", options.output.parent)
    facts = fingerprint(manifest, train, lambda cases, n: track(cases, "reading", n))
    spacing = options.spacing or rules.target_spacing(facts)
    draft = Draft(manifest, train_folds, train, val, facts, machine, tuple(spacing),
                  *fitted(options, facts, manifest, machine, spacing))  # fmt: skip
    _refuse_haste(draft)
    _tell_of_batch(options, draft)
    write_plan(draft, options)
    log.info("%s: %s", options.output, _summary(draft))
    log.info("train with: medseg fit --config %s", options.output)
    return 0


def _check(options: PlanOptions) -> None:
    if options.norm != "auto":
        check_choice("--norm", options.norm, NORMS)
    if options.batch_size is not None and options.batch_size < 1:
        raise OptionError(f"--batch_size must be at least 1; got {options.batch_size}.")
    if options.spacing and (len(options.spacing) != 3 or min(options.spacing) <= 0):
        raise OptionError(f"--spacing must be three lengths in mm; got {list(options.spacing)}.")
    if options.output.suffix not in (".yaml", ".yml"):
        raise OptionError(f"--output must end in .yaml; got {options.output}.")
    if options.output.is_dir():
        raise OptionError(f"--output {options.output} is a folder; name a file.")
    if options.output.exists() and not options.overwrite:
        raise OptionError(f"{options.output} exists. Choose another --output, or --overwrite.")


def machine_of(options: PlanOptions) -> Machine:
    """Return the device, and the memory and time it may take.

    Raises:
        OptionError: If they cannot be read.
    """
    there = torch.cuda.is_available()
    cuda = options.device == "gpu" or (options.device == "auto" and there)
    seconds = rules.parse_seconds("--time", options.time)
    if not cuda:
        limit = parse_bytes("--memory", options.memory)
        return Machine("cpu", min(limit, available_bytes()), seconds, there=True)
    if not there and "%" in options.memory:
        raise OptionError("no GPU is here: give its --memory as a size, such as 8GiB.")
    total = torch.cuda.get_device_properties(0).total_memory if there else None
    return Machine("cuda", parse_bytes("--memory", options.memory, total), seconds, there)


def _refuse_haste(draft: Draft) -> None:
    if draft.steps is not None and draft.steps < LEAST_STEPS:
        needed = int(draft.machine.seconds * LEAST_STEPS / max(draft.steps, 1)) + 1
        raise OptionError(
            f"--time {in_words(draft.machine.seconds)} is enough for {draft.steps} steps on this "
            f"machine, even of the smallest patch; nothing is learned in fewer than {LEAST_STEPS}. "
            f"Give it {in_words(needed)} or more."
        )


def _tell_of_batch(options: PlanOptions, draft: Draft) -> None:
    """Say where a batch that was chosen changes what a norm computes."""
    job = draft.job
    if NORMS[job.norm].batch_dependent and options.batch_size is None and job.batch_size != 2:
        log.info(
            "batch %d instead of 2: norm %r takes its statistics over the batch, so it computes "
            "something else than at 2; --batch_size keeps it the same among plans.",
            job.batch_size, job.norm,
        )  # fmt: skip


def _split(
    manifest: Manifest, fold: int
) -> tuple[list[int] | None, tuple[Case, ...], tuple[Case, ...]]:
    """Return the training folds (None: all others) and the cases of both sides.

    A fold without a single file on this disk is left out and named: it is held back on purpose.
    """
    if len(manifest.folds) < 2:
        raise ManifestError(
            f"{manifest.path} has {len(manifest.folds)} folds; a plan needs two. "
            "Draw some: medseg manifest --folds 5."
        )
    manifest.split(fold)  # a fold that does not exist is refused before others are spoken of
    others = [other for other in manifest.folds if other != fold]
    present = manifest.present_folds()
    if present and fold not in present:
        raise ManifestError(
            f"{manifest.path}: no file of fold {fold} is here, so nothing could be validated. "
            f"Take --fold {present[0]}, or another that is here: {', '.join(map(str, present))}."
        )
    kept = [other for other in others if other in present] or others
    if held := [other for other in others if other not in kept]:
        log.warning("fold %s: no file is there; left out", ", ".join(map(str, held)))
    train, val = manifest.split(fold, kept)
    manifest.require_files((*train, *val))
    return (kept if kept != others else None), train, val


def _summary(draft: Draft) -> str:
    job = draft.job
    steps = (
        f", about {draft.steps} steps in {in_words(draft.machine.seconds)}" if draft.steps else ""
    )
    return (
        f"{job.norm} norm, batch {job.batch_size} of {job.patch_size} at "
        f"{list(draft.spacing)} mm, {len(job.architecture.channels)} levels, {job.precision}; "
        f"{cost_words(draft.cost)}{steps}"
    )
