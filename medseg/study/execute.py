"""`medseg study`: trains, predicts and scores every run of a grid, each in processes of its own."""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import logging
import os
import platform
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import yaml

from medseg.core.errors import MedsegError, OptionError
from medseg.core.manifest import load_manifest
from medseg.core.runs import RunFiles, write_json
from medseg.engine.parallel import default_workers
from medseg.engine.shards import parse_shard
from medseg.networks.unet import Architecture, check_architecture
from medseg.report.options import ReportOptions
from medseg.report.pages import report
from medseg.study.folds import cross_validation
from medseg.study.grid import Run, is_study, read_study
from medseg.study.options import StudyOptions
from medseg.study.out_of_fold import collect
from medseg.training.cli import fit

ASKED = "study.json"
"""In each run's folder: what was asked of it."""

log = logging.getLogger("medseg")


@dataclass(frozen=True)
class Planned:
    """A run that can be trained.

    Attributes:
        run: What is asked.
        files: Where it lies.
        settings: The resolved configuration.
    """

    run: Run
    files: RunFiles
    settings: dict[str, Any]

    @property
    def state(self) -> str:
        """`scored`, `trained`, `interrupted` or `new`."""
        fitted = _read(self.files.fit)
        if fitted and not fitted["interrupted"]:
            return "scored" if self.files.scores.is_file() else "trained"
        last = self.files.checkpoints / "last.ckpt"
        return "interrupted" if last.is_file() else "new"

    @property
    def data(self) -> list[str]:
        """Flags that name its validation cases."""
        data = self.settings["data"]
        root = ["--root", str(data["root"])] if data["root"] else []
        return ["--manifest", str(data["manifest"]), *root, "--fold", str(data["fold"])]

    def steps(self) -> Iterator[list[str]]:
        """Yield the commands that are left to do, each one only once the last one has ended."""
        files, place = self.files, ["--run_dir", str(self.files.run_dir)]
        if self.state in ("new", "interrupted"):
            resume = ["--ckpt_path", "last"] if self.state == "interrupted" else []
            yield ["fit", *self.run.arguments, *place, *resume]
        # `last`: `best` was chosen on the very cases that are scored here.
        images = ["--input", *self.data[1:]]
        folder = ["--output", str(files.predictions)]
        yield ["predict", "--run", str(files.run_dir), "--checkpoint", "last", *images, *folder]
        scores = ["--predictions", str(files.predictions), "--output", str(files.scores)]
        yield ["evaluate", *scores, *self.data, "--workers", "1"]


def study(options: StudyOptions) -> int:
    """Run a study; return 3 if runs failed, 130 or 143 if it was interrupted.

    Raises:
        OptionError: If the study cannot be read, or its folder holds another one.
    """
    runs = _runs(options)
    planned = _plan(runs, options.output)
    mine = [entry for place, entry in enumerate(planned) if parse_shard(options.shard).takes(place)]
    for entry in mine:
        log.info("%-11s %s", entry.state, entry.run.name)
    if options.dry_run:
        return 0
    crew = _Crew(options)
    failed = crew.work([entry for entry in mine if entry.state != "scored"])
    if crew.signalled:
        log.info("interrupted; the same command goes on")
        return 128 + crew.signalled
    waiting = [entry.run.name for entry in planned if entry.state != "scored"]
    others = [name for name in waiting if name not in failed]
    if others and failed and options.fail_fast:
        log.error("--fail_fast: %d runs were not done: %s", len(others), ", ".join(others))
    elif others:
        log.info("%d runs are left to other shares: no report yet", len(others))
    else:
        _finish(planned, options.output)
    for name, reason in failed.items():
        log.error("%s failed: %s", name, reason)
    return 3 if failed else 0


def _runs(options: StudyOptions) -> list[Run]:
    if missing := [str(path) for path in options.config if not path.is_file()]:
        raise OptionError(f"--config: no such file: {', '.join(missing)}.")
    if is_study(options.config[0]):
        if len(options.config) > 1:
            raise OptionError("--config takes one study, or configuration files of medseg fit.")
        return read_study(options.config[0])
    data = _resolved(Run({}, options.config))["data"]
    manifest = load_manifest(Path(data["manifest"]), data["root"] and Path(data["root"]))
    return cross_validation(options.config, manifest, options.folds)


def _plan(runs: Sequence[Run], output: Path) -> list[Planned]:
    """Return the runs that can be trained; say which cannot, and why.

    Raises:
        OptionError: If a run's folder holds what was asked otherwise, or none can be trained.
    """
    planned, changed = [], []
    for run in runs:
        files = RunFiles(output / "runs" / run.name)
        settings = _resolved(run)
        try:
            _check(settings)
        except MedsegError as error:
            log.warning("left out %s: %s", run.name, error)
            continue
        asked = _read(files.run_dir / ASKED)
        if asked and asked["digest"] != run.digest:
            changed.append(run.name)
        planned.append(Planned(run, files, settings))
    if changed:
        raise OptionError(
            f"{output} holds runs that were asked otherwise: {', '.join(changed[:5])}. "
            "Choose another --output, or undo the change of the configuration."
        )
    if not planned:
        raise OptionError("no run of this study can be trained; see above.")
    return planned


def _check(settings: dict[str, Any]) -> None:
    model, data = settings["model"], settings["data"]
    network = Architecture(**model["network"])
    groups, patch = model["norm_groups"], data["patch_size"]
    check_architecture(network, model["norm"], groups, patch, data["batch_size"])


def _resolved(run: Run) -> dict[str, Any]:
    """Return the whole configuration of a run, as `medseg fit` understands it.

    Raises:
        OptionError: If it does not.
    """
    text, told = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(text), contextlib.redirect_stderr(told):
            fit([*run.arguments, "--print_config"])
    except SystemExit as end:
        if end.code:
            reason = told.getvalue().strip().splitlines()[-1:] or ["unknown"]
            raise OptionError(f"run {run.name}: {reason[0]}") from end
    settings: dict[str, Any] = yaml.safe_load(text.getvalue())
    return settings


class _Crew:
    """Does the commands of runs, some side by side; a signal ends all of them in good order."""

    def __init__(self, options: StudyOptions) -> None:
        self.options = options
        self.signalled = 0
        self._stopped = threading.Event()
        self._running: set[subprocess.Popen[bytes]] = set()
        threads = options.threads or max(1, default_workers() // max(options.workers, 1))
        self._threads = str(threads)
        self._environment = {**os.environ, "OMP_NUM_THREADS": self._threads}

    def work(self, planned: Sequence[Planned]) -> dict[str, str]:
        """Do all that is left of the runs; return the failed ones with the reason of each."""
        failed: dict[str, str] = {}
        handlers = {number: signal.signal(number, self._note) for number in _SIGNALS}
        try:
            with ThreadPoolExecutor(max(self.options.workers, 1)) as pool:
                for entry, reason in zip(planned, pool.map(self._one, planned), strict=True):
                    if reason:
                        failed[entry.run.name] = reason
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
        return failed

    def _one(self, entry: Planned) -> str:
        """Do one run; return why it failed, or nothing."""
        if self._stopped.is_set():
            return ""
        asked = {"digest": entry.run.digest, "cell": dict(entry.run.cell)}
        write_json(entry.files.run_dir / ASKED, asked)
        with _alone(entry.files.run_dir, self._stopped) as handle:
            return "" if handle is None else self._do(entry, handle)

    def _do(self, entry: Planned, handle: int) -> str:
        if entry.state == "scored":  # meanwhile, by another process
            return ""
        for command in entry.steps():
            log_file = entry.files.run_dir / f"{command[0]}.log"
            # Predict counts its own threads; it does not follow OMP_NUM_THREADS.
            own = ["--threads", self._threads] if command[0] == "predict" else []
            status = self._call([*command, *own], log_file, handle)
            if self.signalled:
                return ""
            if status:
                if self.options.fail_fast:
                    self._stopped.set()
                return f"{command[0]} ended with status {status}; see {command[0]}.log"
            if self._stopped.is_set():
                return ""
        log.info("done        %s", entry.run.name)
        return ""

    def _call(self, command: Sequence[str], path: Path, handle: int) -> int:
        with path.open("ab") as file:
            # A group of its own: Ctrl-C reaches the study alone, which tells its processes.
            process = subprocess.Popen(  # noqa: S603 - our own command
                [sys.executable, "-m", "medseg", *command],
                stdout=file,
                stderr=file,
                env=self._environment,
                start_new_session=True,
                pass_fds=(handle,),
            )
            self._running.add(process)
            if self.signalled:
                process.send_signal(signal.SIGTERM)
            status = process.wait()
            self._running.discard(process)
        return status

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.signalled = number
        self._stopped.set()
        for process in list(self._running):
            process.send_signal(signal.SIGTERM)


@contextlib.contextmanager
def _alone(run_dir: Path, stopped: threading.Event) -> Iterator[int | None]:
    """Wait until nobody works on a run, and keep others off it; yield None if stopped meanwhile.

    The processes of the run hold the lock as well: where the study is killed, they go on, and the
    study that is started again waits for them.
    """
    with (run_dir / ".lock").open("a+") as file:
        told = False
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not told:
                    file.seek(0)
                    holder = file.read().strip() or "another process"
                    log.info("waiting     %s: %s works on it", run_dir.name, holder)
                    told = True
            if stopped.wait(1):
                yield None
                return
        file.truncate(0)
        file.write(f"study {os.getpid()} on {platform.node()}, or a process it started,")
        file.flush()
        yield file.fileno()


_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def _finish(planned: Sequence[Planned], output: Path) -> None:
    """Gather the out-of-fold predictions of each variant, and report on all runs."""
    scored = [entry for entry in planned if entry.state == "scored"]
    if not scored:
        return
    variants: dict[str, list[Planned]] = {}
    for entry in planned:
        variants.setdefault(entry.run.variant, []).append(entry)
    for name, entries in variants.items():
        if missing := [entry.run.name for entry in entries if entry.state != "scored"]:
            # Some folds are not the whole set, and must not look like it.
            log.error("no out-of-fold scores of %s: %s missing", name, ", ".join(missing))
            continue
        folds = {int(entry.settings["data"]["fold"]): entry.files for entry in entries}
        if len(folds) > 1:
            data = entries[0].settings["data"]
            root = data["root"] and Path(data["root"])
            place = output / "oof" / (name if len(variants) > 1 else "")
            collect(load_manifest(Path(data["manifest"]), root), folds, place)
    runs = tuple(entry.files.run_dir for entry in scored)
    report(ReportOptions(runs=runs, output=output / "report.html"))
    log.info("report: %s", output / "report.html")


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content
