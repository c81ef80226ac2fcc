"""`medseg demo`: phantoms, one short training a norm, predictions, scores, one report."""

from __future__ import annotations

import logging
import shutil
import time
from pathlib import Path

from medseg.core.errors import MedsegError, OptionError
from medseg.core.runs import RunFiles
from medseg.data.options import PhantomOptions
from medseg.data.phantoms import write_phantoms
from medseg.evaluation.evaluate import evaluate
from medseg.evaluation.options import EvaluateOptions
from medseg.inference.folder import predict
from medseg.inference.options import PredictOptions
from medseg.networks.norms import NORMS
from medseg.report.options import ReportOptions
from medseg.report.pages import report
from medseg.study.options import DemoOptions
from medseg.training.cli import fit

HELD_OUT_FOLD = 0
SECONDS_BESIDE_TRAINING = 8
"""Of each norm: start, validation, prediction and scores, as measured on two cores."""

MARKER = ".medseg-demo"
"""Lies in a folder that the demo made, and may therefore make anew."""

log = logging.getLogger("medseg")


def demo(options: DemoOptions) -> int:
    """Run the whole story and say where the report lies.

    Raises:
        OptionError: If the output folder holds something else, or a norm is unknown.
        MedsegError: If a step failed.
    """
    if unknown := [norm for norm in options.norms if norm not in NORMS]:
        raise OptionError(f"--norms must be among {', '.join(NORMS)}; got {', '.join(unknown)}.")
    started = time.monotonic()
    output = options.output
    _make_anew(output)
    total = len(options.norms) + 2
    log.info("[1/%d] phantoms: %d synthetic MR volumes of known truth", total, options.cases)
    write_phantoms(PhantomOptions(output=output / "phantoms", cases=options.cases))
    for place, norm in enumerate(options.norms):
        left = (len(options.norms) - place) * (options.seconds + SECONDS_BESIDE_TRAINING)
        log.info("[%d/%d] norm %s: train %d s, predict, evaluate (about %d s left in all)",
                 place + 2, total, norm, options.seconds, left)  # fmt: skip
        _one_norm(norm, options)
    page = output / "report.html"
    log.info("[%d/%d] report", total, total)
    report(ReportOptions(runs=tuple(output / "runs" / norm for norm in options.norms), output=page))
    log.info("done in %.0f s. Open %s in a browser.", time.monotonic() - started, page)
    return 0


def _one_norm(norm: str, options: DemoOptions) -> None:
    """Train, predict the held-out fold and score it."""
    manifest = options.output / "phantoms" / "manifest.json"
    run_dir = options.output / "runs" / norm
    _check(norm, "fit", fit(_fit_arguments(norm, manifest, run_dir, options)))
    files = RunFiles(run_dir)
    # `last`, since `best` was chosen on the very cases that are scored here.
    prediction = PredictOptions(
        run=(run_dir,),
        input=manifest,
        output=files.predictions,
        checkpoint="last",
        fold=HELD_OUT_FOLD,
    )
    _check(norm, "predict", predict(prediction))
    scores = EvaluateOptions(
        predictions=files.predictions,
        manifest=manifest,
        fold=HELD_OUT_FOLD,
        output=files.scores,
        workers=1,
    )
    _check(norm, "evaluate", evaluate(scores))


def _fit_arguments(norm: str, manifest: Path, run_dir: Path, options: DemoOptions) -> list[str]:
    settings = {
        "data.manifest": manifest,
        "data.fold": HELD_OUT_FOLD,
        "data.patch_size": "[32, 32, 32]",
        "data.batch_size": 2,
        "data.steps_per_epoch": 100,
        "data.cache_dir": options.output / "cache",
        "model.norm": norm,
        "model.network.channels": "[8, 16, 32]",
        "trainer.accelerator": "cpu",
        "trainer.devices": 1,
        "trainer.gradient_clip_val": 12.0,
        "model.optimization.learning_rate": 3e-3,  # few steps: every norm must get going
        "trainer.max_epochs": 1000,
        "trainer.max_time": f"00:00:{options.seconds // 60:02d}:{options.seconds % 60:02d}",
        "run_dir": run_dir,
    }
    return [text for key, value in settings.items() for text in (f"--{key}", str(value))]


def _check(norm: str, step: str, status: int) -> None:
    if status:
        raise MedsegError(f"{step} of norm {norm!r} ended with status {status}; see above.")


def _make_anew(folder: Path) -> None:
    """Empty a folder that an earlier demo made; refuse any other that is not empty."""
    if folder.exists() and any(folder.iterdir()):
        if not (folder / MARKER).is_file():
            raise OptionError(
                f"{folder} is not empty and was not made by the demo; choose another --output."
            )
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARKER).write_text("made by `medseg demo`; removed by the next one\n")
