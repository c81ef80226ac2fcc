"""Folder inference against nnU-Net's: same weights, same cases, one machine, one after the other.

What remains different: nnU-Net scales MR by the mean and standard deviation of the whole image
without clipping outliers, adds its window logits in half precision, and takes the Gaussian's centre
half a voxel off.
"""

from __future__ import annotations

import json
import logging
import math
import os
import shlex
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from medseg.core.environment import versions
from medseg.core.errors import MedsegError, OptionError, problems
from medseg.core.runs import RunFiles, ScoreFiles, read_scores, write_json
from medseg.evaluation.evaluate import evaluate
from medseg.evaluation.options import EvaluateOptions
from medseg.networks.checkpoint import load_trained
from medseg.study import nnunet_side
from medseg.study.measuring import measure
from medseg.study.nnunet_side import CHECKPOINT, CONFIGURATION, DATASET_ID, FILE_ENDING
from medseg.study.options import BenchmarkOptions
from medseg.study.peer_table import Side, result_of, tell
from medseg.study.staging import OVERLAP, Staged, check_network, described, stage

LARGEST_DIFFERENCE = 1e-4
"""Of the logits on one window, as a share of their range, for two networks that are the same."""

_COMMAND = "nnUNetv2_predict"
_FOREIGN = ("PYTHON", "nnUNet_")

log = logging.getLogger("medseg")


def benchmark_peer(options: BenchmarkOptions) -> int:
    """Label the same cases by `medseg predict` and by nnU-Net, and log a table.

    Raises:
        OptionError: If an option is missing, or the two cannot be compared on this run or input.
        MedsegError: If one of the two fails, or their networks do not agree.
    """
    run, source, peer_python = _checked(options)
    trained = load_trained(RunFiles(run).checkpoint(options.checkpoint))
    check_network(trained)
    with tempfile.TemporaryDirectory(prefix="medseg-benchmark-") as name:
        work = Path(name)
        staged = stage(source, options.root, options.cases, trained, work)
        torch.save(described(trained, staged.spacing), work / "network.pt")
        answer = _prepare(peer_python, work)
        log.info("%d cases; one window's logits are apart by %.1e of their range", staged.cases,
                 answer["difference"])  # fmt: skip
        ours = _ours(run, options, staged, work)
        theirs = _theirs(peer_python, answer, staged, work)
        between = _mean_dice(work / "nnunet", work / "medseg", work / "between.csv")
    result = result_of(options, staged, answer, (ours, theirs), between)
    tell(result)
    if options.output:
        write_json(options.output, result)
    return 0


def _checked(options: BenchmarkOptions) -> tuple[Path, Path, Path]:
    """Return the run, the input and the peer's Python.

    Raises:
        OptionError: If one is missing, or another option is not possible.
    """
    run, source, python = options.run, options.input, options.peer_python
    found = []
    if run is None:
        found.append("--run is missing: a training of medseg")
    if source is None:
        found.append("--input is missing: a folder of images, or a manifest")
    if python is None:
        found.append("--peer_python is missing: the Python of an environment with nnunetv2")
    elif not (python.parent / _COMMAND).is_file():
        found.append(f"--peer_python {python}: there is no {_COMMAND} beside it")
    if options.cases is not None and options.cases < 1:
        found.append(f"--cases must be at least 1; got {options.cases}")
    if found or run is None or source is None or python is None:
        raise OptionError(problems("benchmark --what nnunet", found))
    return run, source, python.absolute()


def _prepare(peer_python: Path, work: Path) -> dict[str, Any]:
    """Have our weights put into nnU-Net's network, in its own environment; return its answer."""
    script = Path(nnunet_side.__file__)
    command = [str(peer_python), "-I", str(script), str(work)]
    measure(command, work / "prepare.log", _environment(work))
    answer: dict[str, Any] = json.loads((work / "answer.json").read_text())
    if not answer["difference"] <= LARGEST_DIFFERENCE:
        raise MedsegError(
            f"nnU-Net's network with these weights differs by {answer['difference']:.1e} of the "
            f"logits' range on one window, where {LARGEST_DIFFERENCE:.0e} is allowed."
        )
    return answer


def _environment(work: Path) -> dict[str, str]:
    """Return our environment, without our packages, with nnU-Net's folders and defaults."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
    folders = {f"nnUNet_{name}": str(work / name) for name in ("raw", "preprocessed", "results")}
    return {**own, **folders}


def _ours(run: Path, options: BenchmarkOptions, staged: Staged, work: Path) -> Side:
    output = work / "medseg"
    command = [
        *(sys.executable, "-m", "medseg", "predict", "--run", str(run), "--device", "cpu"),
        *("--checkpoint", options.checkpoint, "--overlap", str(OVERLAP)),
        *("--input", str(staged.folder), "--output", str(output)),
        *shlex.split(options.predict_flags),
    ]
    return _side(f"medseg {versions()['medseg']}", command, None, staged, output)


def _theirs(peer_python: Path, answer: dict[str, Any], staged: Staged, work: Path) -> Side:
    output = work / "nnunet"
    command = [
        *(str(peer_python.parent / _COMMAND), "-i", str(staged.folder), "-o", str(output)),
        *("-d", str(DATASET_ID), "-c", CONFIGURATION, "-f", "0", "-chk", CHECKPOINT),
        *("-device", "cpu", "--disable_tta", "-step_size", str(1 - OVERLAP)),
    ]
    name = f"nnunetv2 {answer['versions']['nnunetv2']}"
    return _side(name, command, _environment(work), staged, output)


def _side(
    name: str, command: list[str], environment: dict[str, str] | None, staged: Staged, output: Path
) -> Side:
    """Run one side and score it."""
    log.info("%s: %s", name, shlex.join(command))
    measured = measure(command, output.with_suffix(".log"), environment)
    written = len(list(output.glob(f"*{FILE_ENDING}")))
    if written != staged.cases:
        raise MedsegError(f"{name} wrote {written} label maps for {staged.cases} cases.")
    scores = output.with_suffix(".csv")
    dice = _mean_dice(output, staged.references, scores) if staged.scored else math.nan
    return Side(name, measured, dice)


def _mean_dice(predictions: Path, references: Path, output: Path) -> float:
    """Return the mean over cases, then over classes; what is undefined is left out."""
    with _quiet():
        evaluate(EvaluateOptions(predictions, output, references=references))
    by_class = defaultdict(list)
    for score in read_scores(ScoreFiles.at(output).scores):
        if score.metric == "dice" and not math.isnan(score.value):
            by_class[score.class_name].append(score.value)
    return fmean(fmean(values) for values in by_class.values()) if by_class else math.nan


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the tables of `medseg evaluate` out of ours."""
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)
