"""`medseg doctor`: what a run's norms do between training and prediction, and how to mend it."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import asdict

from medseg.core.errors import OptionError
from medseg.core.runs import RunFiles, atomic_text, write_json
from medseg.inference.labeller import sha256
from medseg.networks.population import Moments, statistics_of
from medseg.study.doctor_findings import Findings, finding
from medseg.study.doctor_invariance import invariance
from medseg.study.doctor_modes import mean
from medseg.study.doctor_options import DoctorOptions
from medseg.study.doctor_page import render
from medseg.study.doctor_patient import Patient, admit
from medseg.study.doctor_probes import mate_noise, window_changes
from medseg.study.doctor_recalibrate import check_recalibration, write_recalibrated
from medseg.study.doctor_statistics import compare_statistics

log = logging.getLogger("medseg")


def doctor(options: DoctorOptions) -> int:
    """Examine a run, write doctor.json and doctor.html, and recalibrate a copy if asked to.

    Raises:
        OptionError: If this is no run, its data are not there, or it has nothing to recalibrate.
        CheckpointError: If the checkpoint cannot be read, or the copy cannot be written.
    """
    patient = admit(options)
    check_recalibration(options, patient)
    findings, moments = examine(options, patient)
    content = asdict(findings)
    write_json(options.home / "doctor.json", content)
    with atomic_text(options.home / "doctor.html") as file:
        file.write(render(findings))
    log.info("%s", findings.finding)
    log.info("details: %s", options.home / "doctor.html")
    if options.recalibrate is not None:
        statistics = statistics_of(moments, options.recalibrate)
        folder = write_recalibrated(
            options, findings.training_patches, options.recalibrate, statistics
        )
        log.info("recalibrated run: %s", folder)
    return 0


def examine(options: DoctorOptions, patient: Patient) -> tuple[Findings, Mapping[str, Moments]]:
    """Measure everything; the run is left alone.

    Returns:
        What was found, and what layers saw of the training patches.

    Raises:
        OptionError: If there is no case to examine with.
    """
    started = time.monotonic()
    network, cases = patient.network, patient.cases
    if not cases:
        raise OptionError(f"fold {patient.data.fold} has no case to examine with.")
    log.info("[1/3] windows and batch mates")
    usual, windows = window_changes(network, cases, patient.window)
    mates = mate_noise(patient)
    log.info("[2/3] statistics of %d training patches and %d cases, where norms keep any",
             patient.training_patches, len(cases))  # fmt: skip
    seen = compare_statistics(patient, cases, usual)
    if seen.without_own:
        log.warning("left out: %s", seen.without_own)
    log.info("[3/3] altered intensities")
    altered = invariance(patient, cases, usual)
    norm = patient.trained.description.norm
    findings = Findings(
        name=options.run.resolve().name,
        run=str(options.run),
        checkpoint=options.checkpoint,
        checkpoint_sha256=sha256(RunFiles(options.run).checkpoint(options.checkpoint)),
        norm=norm,
        fold=patient.data.fold,
        cases=tuple(case.case_id for case in cases),
        training_patches=patient.training_patches if seen.modes else 0,
        seconds=round(time.monotonic() - started, 1),
        finding=finding(str(options.run), norm, seen.layers, seen.modes),
        layers=tuple(seen.layers),
        modes=seen.modes,
        without_own=seen.without_own,
        usual_dice=mean(usual),
        mates=mates,
        windows=tuple(windows),
        altered=tuple(altered),
    )
    return findings, seen.moments
