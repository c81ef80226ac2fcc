"""`medseg benchmark --what costs`: what each norm costs, by precision, memory format and size."""

from __future__ import annotations

import itertools
import logging
import statistics
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import torch

from medseg.core.environment import versions
from medseg.core.errors import OptionError
from medseg.core.runs import atomic_text, write_json
from medseg.networks.unet import Architecture
from medseg.study.costs_page import render
from medseg.study.costs_timing import Contender, Cost, against, impossible, in_turns, peak_mib
from medseg.study.options import MAX_WARMUP, BenchmarkOptions
from medseg.training.measure import StepJob

CLASSES = 3
BASELINE = "batch"

log = logging.getLogger("medseg")


def benchmark_costs(options: BenchmarkOptions) -> list[Cost]:
    """Measure training step, memory and inference of each norm; log a table.

    Args:
        options: Its norms, channels, patch_size, batch_size, steps, precisions, formats, widths,
            norm_groups and output; a page is written beside the latter.

    Raises:
        OptionError: If a width is not possible, or the output would be the page itself.
    """
    if min(options.widths) < 1:
        raise OptionError(f"--widths must be at least 1; got {options.widths}.")
    page = options.output and options.output.with_suffix(".html")
    if page and page == options.output:
        raise OptionError("--output names the JSON of the table; the page lies beside it.")
    cuda = torch.cuda.is_available()
    device = torch.cuda.get_device_name() if cuda else f"cpu, {torch.get_num_threads()} threads"
    settings = f"patch {options.patch_size}, batch {options.batch_size}"
    log.info("%s; %s; medians of %d rounds in turns", device, settings, options.steps)
    rows = []
    for width, precision, order in itertools.product(
        options.widths, options.precisions, options.formats
    ):
        channels = tuple(width * count for count in options.channels)
        group = _measure_group(channels, precision, order, options, "cuda" if cuda else "cpu")
        _show(group)
        rows += group
    if options.output and page:
        content: dict[str, Any] = {"device": device, **asdict(options), "versions": versions()}
        del content["output"]
        write_json(options.output, {**content, "costs": [asdict(row) for row in rows]})
        with atomic_text(page) as file:
            file.write(render(rows, device, settings, options.steps))
        log.info("page: %s", page)
    return rows


def _measure_group(
    channels: tuple[int, ...], precision: str, order: str, options: BenchmarkOptions, device: str
) -> list[Cost]:
    """Measure all norms of one size, precision and memory format, in turns."""
    i, j, k = options.patch_size
    architecture = Architecture(channels=list(channels), channels_last=order == "channels_last")
    jobs = {
        norm: StepJob(architecture, norm, options.norm_groups, 1, CLASSES, (i, j, k),
                      options.batch_size, device, precision)
        for norm in options.norms
    }  # fmt: skip
    costs = {norm: Cost(norm, channels, precision, order) for norm in jobs}
    able: dict[str, StepJob] = {}
    for norm, job in jobs.items():
        reason = impossible(job)
        memory = None if reason else peak_mib(job)
        if memory is None:
            costs[norm] = replace(costs[norm], reason=reason or "memory does not suffice")
        else:
            costs[norm] = replace(costs[norm], peak_mib=memory)
            able[norm] = job
    if able:
        for norm, times in _timed(able, options.steps).items():
            costs[norm] = replace(costs[norm], **times)
    return list(costs.values())


def _timed(jobs: dict[str, StepJob], rounds: int) -> dict[str, dict[str, Any]]:
    """Return parameters, times and ratios of each norm."""
    norms = list(jobs)
    baseline = norms.index(BASELINE) if BASELINE in norms else 0
    contenders = [Contender(job) for job in jobs.values()]
    device, warmup = contenders[0].job.device, min(rounds, MAX_WARMUP)
    steps = in_turns([contender.train for contender in contenders], warmup, rounds, device)
    for contender in contenders:
        contender.finish()
    # What does not fold is not timed twice: two times of one network differ by noise.
    folding = [contender for contender in contenders if contender.folded]
    actions = [contender.predict for contender in contenders]
    actions += [contender.predict_folded for contender in folding]
    found = in_turns(actions, warmup, rounds, device)
    raw = found[: len(contenders)]
    merged = dict(zip(folding, found[len(contenders) :], strict=True))
    result = {}
    for norm, contender, step, plain in zip(norms, contenders, steps, raw, strict=True):
        fast = merged.get(contender, plain)
        result[norm] = {
            "parameters": sum(p.numel() for p in contender.network.parameters()),
            "step_ms": 1e3 * statistics.median(step),
            "step_ratio": against(step, steps[baseline]),
            "inference_ms": 1e3 * statistics.median(plain),
            "inference_ratio": against(plain, raw[baseline]),
            "folded_ms": 1e3 * statistics.median(fast),
            "folded_ratio": against(fast, raw[baseline]),
        }
    return result


def _show(group: Sequence[Cost]) -> None:
    """Log the table of one size, precision and memory format."""
    channels, precision, order = group[0].group
    log.info("channels %s, %s, %s", channels, precision, order)
    if len({row.reason for row in group}) == 1 and group[0].reason:
        log.info("%s", group[0].reason)
        return
    log.info("%-14s %11s %9s %6s %10s %12s %6s %10s %6s", "norm", "parameters", "step ms", "ratio",
             "peak MiB", "inference ms", "ratio", "folded ms", "ratio")  # fmt: skip
    for row in group:
        if row.reason:
            log.info("%-14s %s", row.norm, row.reason)
            continue
        log.info("%-14s %11d %9.1f %6.2f %10.1f %12.1f %6.2f %10.1f %6.2f", row.norm,
                 row.parameters, row.step_ms, row.step_ratio, row.peak_mib, row.inference_ms,
                 row.inference_ratio, row.folded_ms, row.folded_ratio)  # fmt: skip
