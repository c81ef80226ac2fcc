"""What a worker does: read the next case while the network runs, and write the last one."""

from __future__ import annotations

import hashlib
import queue
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from medseg.core.errors import MedsegError
from medseg.data.transforms import Reading
from medseg.inference.files import label_writer, probability_file, write_uncertainty
from medseg.inference.gate import Gate
from medseg.inference.inputs import Job, parts_of
from medseg.inference.options import Format
from medseg.inference.package import is_package, load_model, model_file
from medseg.inference.plan import Request
from medseg.inference.predictor import Opened, Prediction, Predictor, Sink
from medseg.inference.settings import Settings
from medseg.io.memory import peak_bytes
from medseg.networks.checkpoint import Trained

Record = dict[str, Any]
Keyed = tuple[int, Job]


@dataclass(frozen=True)
class Order:
    """What a worker is started with; it is sent to a fresh process.

    Attributes:
        models: Run directories and model packages.
        checkpoint: Of the runs: `best`, `last` or a path.
        settings: How cases are labelled.
        reading: What the reader is told.
        output: Folder of the label maps.
        format: Of the label maps.
        probabilities: Whether they are written.
        uncertainty: Whether it is written.
    """

    models: tuple[Path, ...]
    checkpoint: str
    settings: Settings
    reading: Reading
    output: Path
    format: Format = "source"
    probabilities: bool = False
    uncertainty: bool = False

    def __call__(self) -> Labeller:
        """Load the networks."""
        return Labeller(self)

    def load(self) -> list[Trained]:
        """Read the networks.

        Raises:
            OptionError: If there is no such run, package or checkpoint.
            CheckpointError: If one cannot be read.
        """
        return [load_model(path, self._checkpoint(path)) for path in self.models]

    def asked(self, request: Request) -> Request:
        """Return what is asked of every case, with the maps that are written."""
        return replace(request, probabilities=self.probabilities, uncertainty=self.uncertainty)

    def files(self) -> list[Path]:
        """Return the file whose content decides what each network predicts."""
        return [model_file(path, self._checkpoint(path)) for path in self.models]

    def _checkpoint(self, path: Path) -> str:
        # Among runs, a package goes along with any checkpoint; alone, it refuses what it has not.
        mixed = not all(map(is_package, self.models))
        return "best" if mixed and is_package(path) else self.checkpoint


@dataclass
class _Case:
    """A case on its way through a worker."""

    key: int
    job: Job
    opened: Opened | None = None
    result: Prediction | None = None
    record: Record = field(default_factory=dict)
    bytes: int = 0
    is_new: bool = True

    @property
    def is_over(self) -> bool:
        return "status" in self.record


class Labeller:
    """Label cases one after the other; reading and writing go on beside the network.

    Args:
        order: See `Order`.
    """

    def __init__(self, order: Order) -> None:
        self._order = order
        self._predictor = Predictor(order.load(), order.settings)
        self._predictor.request = order.asked(self._predictor.request)
        names = list(self._predictor.descriptions[0].task["labels"])
        self._write_label = label_writer(
            order.format, names, self._predictor.label_values, order.reading.series_uid
        )
        learned = any(each.postprocessing for each in self._predictor.descriptions)
        self._postprocessing = "on" if self._predictor.rules else "off" if learned else "none"
        self._gate = Gate(self._predictor.limit)

    def __call__(self, jobs: Iterator[Keyed]) -> Iterator[tuple[int, Record]]:
        """Label each job and yield its key and what became of it."""
        events: queue.SimpleQueue[_Case | BaseException | None] = queue.SimpleQueue()
        unread = threading.Semaphore(1)  # one case waits for the network, no more
        reader = threading.Thread(target=self._read_all, args=(jobs, events, unread), daemon=True)
        reader.start()
        writing: queue.SimpleQueue[_Case | None] = queue.SimpleQueue()
        writer = threading.Thread(target=self._write_all, args=(writing, events), daemon=True)
        writer.start()
        try:
            yield from self._work_off(events, writing, unread)
            reader.join()
        finally:
            # Nothing is left half written, and no thread runs on while the interpreter ends.
            writing.put(None)
            writer.join()

    def _work_off(
        self,
        events: queue.SimpleQueue[_Case | BaseException | None],
        writing: queue.SimpleQueue[_Case | None],
        unread: threading.Semaphore,
    ) -> Iterator[tuple[int, Record]]:
        """Run the network on what has been read, and yield what is over."""
        inside, reading = 0, True
        while reading or inside:
            case = events.get()
            if isinstance(case, BaseException):
                raise case
            if case is None:
                reading = False
                continue
            if case.is_new:
                case.is_new = False
                unread.release()
                inside += 1
                if not case.is_over:
                    self._stage("network", case, self._label)
                    if not case.is_over:
                        writing.put(case)
                        continue
            inside -= 1
            yield case.key, case.record

    def _read_all(
        self,
        jobs: Iterator[Keyed],
        events: queue.SimpleQueue[_Case | BaseException | None],
        unread: threading.Semaphore,
    ) -> None:
        try:
            for key, job in jobs:
                unread.acquire()
                case = _Case(key, job)
                self._stage("read", case, self._read)
                events.put(case)
        except BaseException as error:  # noqa: BLE001 - raised again where jobs are asked for
            events.put(error)
        else:
            events.put(None)

    def _write_all(
        self,
        writing: queue.SimpleQueue[_Case | None],
        events: queue.SimpleQueue[_Case | BaseException | None],
    ) -> None:
        while (case := writing.get()) is not None:
            self._stage("write", case, self._write)
            events.put(case)

    def _stage(self, name: str, case: _Case, work: Callable[[_Case], None]) -> None:
        """Do one part of a case's work; an error is the outcome of this case alone."""
        started = time.monotonic()
        try:
            work(case)
        except Exception as error:  # noqa: BLE001 - one case must not stop the others
            case.record |= failure(error)
            case.opened = case.result = None
        stages = case.record.setdefault("stages", {})
        stages[name] = round(time.monotonic() - started, 3)
        if case.is_over:
            self._gate.release(case.bytes)
            case.record["seconds"] = round(sum(stages.values()), 3)
            case.record["peak_memory_bytes"] = peak_bytes()

    def _read(self, case: _Case) -> None:
        plan = self._predictor.estimate(case.job.images, self._order.reading)
        case.bytes = plan.bytes
        self._gate.acquire(case.bytes)
        case.opened = self._predictor.open(case.job.images, self._order.reading, plan)
        # After the reader, which says in its own words what is wrong with a part that is absent.
        case.record["image_sha256"] = [
            sha256(part) for image in case.job.images for part in parts_of(image)
        ]
        case.record["windows"] = plan.cut.windows
        case.record["predicted_memory_bytes"] = self._predictor.request.fixed_bytes + plan.bytes

    def _label(self, case: _Case) -> None:
        opened, order = case.opened, self._order
        if opened is None:
            return
        classes = len(self._predictor.label_values)
        file: AbstractContextManager[Sink | None] = nullcontext()
        if order.probabilities:
            path = order.output / case.job.probabilities
            file = probability_file(path, classes, opened.grid.shape)
        with file as sink:
            case.result = self._predictor.label(opened, order.uncertainty, sink)
        case.opened = None  # the image is not needed any more

    def _write(self, case: _Case) -> None:
        job, order = case.job, self._order
        if case.result is None:
            return
        result = self._predictor.postprocess(case.result)
        files = [job.output]
        if order.uncertainty:
            write_uncertainty(order.output / job.uncertainty, result, job)
            files.append(job.uncertainty)
        if order.probabilities:
            files.append(job.probabilities)
        for name in {job.uncertainty, job.probabilities} - set(files):
            (order.output / name).unlink(missing_ok=True)  # of an earlier call, by other weights
        # Last, since a label map says that the case is done.
        self._write_label(order.output / job.output, result, job)
        hashes = {name: sha256(order.output / name) for name in files}
        case.result = None
        case.record |= {
            "status": "ok",
            "message": "",
            "warnings": list(result.warnings),
            "postprocessing": self._postprocessing,
            "output_sha256": hashes[job.output],
            "files": hashes,
        }


def failure(error: Exception, code: str = "") -> Record:
    """Return what the journal says of a case that failed."""
    if isinstance(error, MedsegError):
        code = code or getattr(error, "code", "refused")
        return {"status": "failed", "code": code, "message": str(error)}
    if isinstance(error, OSError):
        return {"status": "failed", "code": code or "unreadable", "message": str(error)}
    message = f"{type(error).__name__}: {error}"
    lines = "".join(traceback.format_exception(error))
    return {"status": "failed", "code": code or "bug", "message": message, "traceback": lines}


def sha256(path: Path) -> str:
    """Return the hash of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
