"""Folder inference: every case labelled or recorded as failed; one bad case stops nothing."""

from __future__ import annotations

import logging
import sys

from medseg.core.errors import OptionError
from medseg.inference.inputs import refuse_file
from medseg.inference.options import PredictOptions
from medseg.inference.preflight import check_space, make_writable, tell
from medseg.inference.sharing import worker_counts
from medseg.inference.work import SOME_FAILED, Work
from medseg.io.atomic import sweep
from medseg.io.dicom_seg import check_highdicom

log = logging.getLogger("medseg")


def predict(options: PredictOptions) -> int:
    """Label every case of `options.input`.

    Returns:
        0, or 3 if some cases failed; each is named on screen and in predictions.jsonl.

    Raises:
        OptionError: If there is nothing to do, or the output is no folder that can be written.
        CheckpointError: If a run's checkpoint cannot be read.
        KeyboardInterrupt: After Ctrl-C, once the cases that were being worked on are finished.
    """
    if sys.platform == "win32":
        raise OptionError(
            "predict does not run on Windows: it relies on atomic renames. Use WSL or Linux."
        )
    refuse_file(options.output, options.input, options.format)
    make_writable(options.output)
    sweep(options.output)
    if options.format == "dicom_seg":
        check_highdicom()
        log.warning("DICOM-SEG copies the name and the study of each patient into the label maps")
    for workers in worker_counts(options):
        work = Work.of(options, workers)
        if workers > 1 and options.workers is None and not work.has_room:
            continue
        todo, forecast = work.look_ahead()
        if all(job.code != "memory" for job in todo):
            break  # otherwise fewer workers leave more to each case
    tell(forecast, work.request, work.workers, work.allowed)
    check_space(options.output, forecast)
    if options.dry_run:
        if forecast.windows:
            work.tell_time(forecast.windows)
        return SOME_FAILED if forecast.problems else 0
    return work.do(todo)
