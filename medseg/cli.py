"""The front door: the table of verbs. Each verb is imported only when it is called."""

from __future__ import annotations

import importlib
import logging
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TextIO

from medseg import __version__
from medseg.core.errors import MedsegError, suggestion


@dataclass(frozen=True)
class Verb:
    """One verb.

    Attributes:
        summary: What it does, one line.
        run: `module:function`; takes the options and returns the exit status or None.
        options: `module:Dataclass` of its flags, or "" if `run` parses its own arguments.
    """

    summary: str
    run: str
    options: str = ""


VERBS = {
    "phantoms": Verb(
        "write a small synthetic CT or MR data set of known truth, with its manifest",
        "medseg.data.phantoms:write_phantoms",
        "medseg.data.options:PhantomOptions",
    ),
    "manifest": Verb(
        "build a manifest from MSD, nnU-Net, BIDS, a CSV or folders; draw folds; convert back",
        "medseg.data.convert:write_manifest",
        "medseg.data.options:ManifestOptions",
    ),
    "check": Verb(
        "check a data set before training: files, geometry, labels, intensities",
        "medseg.check.dataset:check",
        "medseg.check.options:CheckOptions",
    ),
    "plan": Verb(
        "plan a training from the data: one commented configuration that fits memory and time",
        "medseg.training.plan:plan",
        "medseg.training.plan_options:PlanOptions",
    ),
    "fit": Verb("train a network (Lightning CLI)", "medseg.training.cli:fit"),
    "validate": Verb("validate a trained network (Lightning CLI)", "medseg.training.cli:validate"),
    "predict": Verb(
        "label files, folders or manifests with a trained network",
        "medseg.inference.folder:predict",
        "medseg.inference.options:PredictOptions",
    ),
    "evaluate": Verb(
        "score predictions against references",
        "medseg.evaluation.evaluate:evaluate",
        "medseg.evaluation.options:EvaluateOptions",
    ),
    "compare": Verb(
        "compare two or more score files case by case: table, figures, verdict",
        "medseg.evaluation.compare:compare",
        "medseg.evaluation.compare_options:CompareOptions",
    ),
    "report": Verb(
        "write one self-contained HTML report of runs or score files",
        "medseg.report.pages:report",
        "medseg.report.options:ReportOptions",
    ),
    "export": Verb(
        "write a model package: weights, description and card; ONNX and OpenVINO too",
        "medseg.inference.export:export",
        "medseg.inference.options:ExportOptions",
    ),
    "study": Verb(
        "train, predict and score a grid of runs, or all folds of one; resumable",
        "medseg.study.execute:study",
        "medseg.study.options:StudyOptions",
    ),
    "doctor": Verb(
        "examine a run: batch statistics, batch mates, windows, intensities; recalibrate a copy",
        "medseg.study.doctor:doctor",
        "medseg.study.doctor_options:DoctorOptions",
    ),
    "benchmark": Verb(
        "measure on this machine: training steps of each norm, reading, metrics, backends",
        "medseg.study.benchmark:benchmark",
        "medseg.study.options:BenchmarkOptions",
    ),
    "demo": Verb(
        "run the whole story on phantoms in minutes, ending in a report",
        "medseg.study.demo:demo",
        "medseg.study.options:DemoOptions",
    ),
    "env": Verb(
        "print versions, devices and what is installed",
        "medseg.networks.devices:show",
        "medseg.core.environment:EnvOptions",
    ),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb and return its exit status (0 done, 1 bug, 2 wrong request, 3 cases failed)."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in ("-h", "--help", "help"):
        print(usage())
        return 0 if given else 2
    if given[0] in ("-V", "--version"):
        print(f"medseg {__version__}")
        return 0
    _show_log()
    try:
        return _run(given[0], given[1:])
    except MedsegError as error:
        message, status = str(error), 2
    except KeyboardInterrupt:
        message, status = "interrupted", 130
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except Exception:
        message, status = traceback.format_exc(), 1
    print(f"medseg {given[0]}: {message}", file=sys.stderr)
    return status


class _Console(logging.StreamHandler[TextIO]):
    """Shows log lines on whatever standard error is now (tests and notebooks exchange it)."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


def _show_log() -> None:
    """Show the log plainly; a library is silent until asked, a command speaks."""
    log = logging.getLogger("medseg")
    if not any(isinstance(handler, _Console) for handler in log.handlers):
        handler = _Console()
        handler.setFormatter(logging.Formatter("%(message)s"))
        log.addHandler(handler)
        log.setLevel(logging.INFO)
        log.propagate = False


def usage() -> str:
    """Return the help of the command itself."""
    rows = "\n".join(f"  {name:<10} {verb.summary}" for name, verb in VERBS.items())
    return (
        "usage: medseg VERB [--flag value ...]\n\n"
        "Train, run and judge 3D U-Nets on MRI and CT volumes.\n\n"
        f"verbs:\n{rows}\n\n`medseg VERB --help` shows the flags of a verb."
    )


def _run(name: str, arguments: Sequence[str]) -> int:
    if name not in VERBS:
        raise MedsegError(
            f"no such verb.{suggestion(name, VERBS)} `medseg --help` lists the verbs."
        )
    verb = VERBS[name]
    if not verb.options:
        return int(_load(verb.run)(arguments) or 0)
    from medseg.core.options import parse_options

    options = parse_options(_load(verb.options), arguments, name, verb.summary)
    return int(_load(verb.run)(options) or 0)


def _load(target: str) -> Any:
    module, attribute = target.split(":")
    return getattr(importlib.import_module(module), attribute)
