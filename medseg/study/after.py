"""What a study measures on the weights of each run once they are trained: after.json."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medseg.core.runs import RunFiles, write_json
from medseg.study.after_costs import costs
from medseg.study.after_layers import parameter_spread, variance_shift
from medseg.study.doctor_invariance import invariance
from medseg.study.doctor_modes import case_dice, mean
from medseg.study.doctor_options import DoctorOptions
from medseg.study.doctor_patient import Examined, Patient, admit
from medseg.study.doctor_probes import mate_noise, window_changes
from medseg.study.doctor_statistics import Compared, compare_statistics

CASES = 8
"""Cases of the choosing fold, and as many of the training, that networks are measured on."""

PATCHES = 64
"""Training patches behind precise statistics; a study measures hundreds of small networks."""


def measure_after(run_dir: Path, cases: int = CASES, patches: int = PATCHES) -> dict[str, Any]:
    """Measure the `last` weights of a run and write after.json.

    Nothing is measured on the cases that a study reports: the run's own validation fold, which
    chooses, and its training cases are what there is.

    Args:
        run_dir: Of `medseg fit`.
        cases: The first so many validation cases, and as many training cases.
        patches: Training patches that statistics are measured over.

    Returns:
        The content: fields of `measurements.Probes` and `costs`, those of `measurements.Costs`;
        NaN, null in the file, where weights are those of a diverged training.

    Raises:
        OptionError: If this is no run, or its data are not there.
        CheckpointError: If the checkpoint cannot be read.
    """
    started = time.monotonic()
    options = DoctorOptions(run=run_dir, checkpoint="last", cases_max=cases, patches=patches)
    patient = admit(options)
    examined = patient.cases
    usual, windows = window_changes(patient.network, examined, patient.window)
    found: dict[str, Any] = {
        **_modes(patient, examined, usual),
        **parameter_spread(patient.network),
        "batch_mate_noise": mate_noise(patient).variance,
        "window_sensitivity": max((change.logits for change in windows), default=math.nan),
        "invariance": {
            altered.name: 0.0 - altered.against.mean
            for altered in invariance(patient, examined, usual)
        },
        "train_dice": mean([_dice(patient, case) for case in patient.training_cases]),
        "variance_shift": variance_shift(patient),
        "costs": costs(patient, examined),
        "cases": [case.case_id for case in examined],
        "seconds": round(time.monotonic() - started, 1),
    }
    write_json(RunFiles(run_dir).after, found)
    return found


def _dice(patient: Patient, case: Examined) -> float:
    return case_dice(patient.network, case, patient.window)


def _modes(patient: Patient, cases: Sequence[Examined], usual: Sequence[float]) -> dict[str, Any]:
    """Return Dice under the three modes; they are one where a norm keeps no statistics.

    What needs a case's own statistics is None where one window leaves too few values for them.
    """
    seen = compare_statistics(patient, cases, usual)
    dice = {mode: _mode(seen, mode, usual) for mode in ("running", "precise", "own")}
    compared = seen.layers and not seen.without_own
    distance = mean([layer.running_own for layer in seen.layers]) if compared else None
    return {**{f"dice_{mode}": dice[mode] for mode in dice}, "statistics_distance": distance}


def _mode(seen: Compared, mode: str, usual: Sequence[float]) -> float | None:
    if seen.modes is None:
        return mean(usual)
    return seen.modes.mean(mode) if mode in seen.modes.dice else None
