"""How this machine's cores and memory are shared among workers."""

from __future__ import annotations

from medseg.inference.options import PredictOptions
from medseg.inference.preflight import SUPERVISOR_BYTES
from medseg.inference.settings import Settings, find_device
from medseg.inference.threads import default_threads
from medseg.io.memory import parse_bytes

CORES_A_WORKER = 4
"""More threads than this wait for each other more than they help in one window."""


def settings_of(options: PredictOptions, workers: int) -> Settings:
    """Return how each of so many workers labels its cases."""
    allowed = parse_bytes("--max_memory", options.max_memory)
    outside = SUPERVISOR_BYTES if workers else 0
    threads = options.threads or max(default_threads() // max(workers, 1), 1)
    return Settings(
        overlap=options.overlap,
        skip_empty=options.skip_empty,
        norm_statistics=options.norm_statistics,
        sw_batch_size=options.sw_batch_size,
        tta=options.tta,
        postprocessing=options.postprocessing == "on",
        device=options.device,
        max_memory=max(allowed - outside, 0) // max(workers, 1),
        backend=options.backend,
        precision=options.precision,
        compile=options.compile,
        threads=threads,
    )


def worker_counts(options: PredictOptions) -> tuple[int, ...]:
    """Return how many processes are to label, and with how many it is tried again."""
    if options.workers is not None:
        return (options.workers,)
    if options.engine == "ray" or find_device(options.device).type != "cpu":
        return (1,)
    cores = default_threads()
    most = min(max(cores // CORES_A_WORKER, 2), cores)
    return (most, 1) if most > 1 else (1,)
