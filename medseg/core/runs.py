"""The files of a run directory and of an evaluation: their names, and how score files are read."""

from __future__ import annotations

import csv
import json
import math
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import IO, Any

from medseg.core.errors import OptionError


@dataclass(frozen=True)
class RunFiles:
    """Where things lie in one run directory."""

    run_dir: Path

    @property
    def config(self) -> Path:
        """Fully resolved configuration of the training."""
        return self.run_dir / "config.yaml"

    @property
    def fit(self) -> Path:
        """Seconds, peak memory, versions, data hash and norm of the training."""
        return self.run_dir / "fit.json"

    @property
    def curves(self) -> Path:
        """Training curves."""
        return self.run_dir / "metrics.csv"

    @property
    def probes(self) -> Path:
        """What was watched during the training, where that was asked for."""
        return self.run_dir / "probes.json"

    @property
    def after(self) -> Path:
        """What a study measured on the weights afterwards."""
        return self.run_dir / "after.json"

    @property
    def checkpoints(self) -> Path:
        """Folder of best.ckpt and last.ckpt."""
        return self.run_dir / "checkpoints"

    @property
    def predictions(self) -> Path:
        """Folder of label maps."""
        return self.run_dir / "predictions"

    @property
    def scores(self) -> Path:
        """Long table of scores."""
        return self.run_dir / "scores.csv"

    def checkpoint(self, which: str) -> Path:
        """Return the file of `best`, `last` or a path.

        Raises:
            OptionError: If it does not exist; the message says what does.
        """
        path = self.checkpoints / f"{which}.ckpt" if which in ("best", "last") else Path(which)
        if path.is_file():
            return path
        if not self.run_dir.is_dir():
            raise OptionError(f"{self.run_dir}: no such run directory.")
        there = ", ".join(sorted(p.stem for p in self.checkpoints.glob("*.ckpt"))) or "none"
        raise OptionError(
            f"{self.run_dir} has no checkpoint {which!r} ({path}); it has: {there}. "
            "Choose one of these, or train first."
        )


JOURNAL_NAME = "predictions.jsonl"
"""In an output folder of predictions: one JSON line per case, the newest last."""


@dataclass(frozen=True)
class Score:
    """One row of scores.csv.

    Attributes:
        case_id: The case.
        group: The patient or site it belongs to, or "".
        class_name: A foreground class or a named region.
        metric: One of the metric names of `medseg.core.metrics`.
        value: The number; `inf` for distances of missed or invented structures, `nan` if undefined.
    """

    case_id: str
    group: str
    class_name: str
    metric: str
    value: float


@dataclass(frozen=True)
class ScoreFiles:
    """Where one evaluation lies: `--output x.csv`, or a folder meaning folder/scores.csv."""

    scores: Path

    @classmethod
    def at(cls, output: Path) -> ScoreFiles:
        """Return the files for an `--output` value, a path ending in .csv or a folder."""
        return cls(output if output.suffix == ".csv" else output / "scores.csv")

    def _beside(self, name: str) -> Path:
        prefix = "" if self.scores.name == "scores.csv" else f"{self.scores.stem}_"
        return self.scores.with_name(prefix + name)

    @property
    def cases(self) -> Path:
        """Wide table for people, one row per case and class, with the status."""
        return self._beside("cases.csv")

    @property
    def summary(self) -> Path:
        """Per class: mean, interval, n, missed, invented."""
        return self._beside("summary.json")


def make_writable(option: str, folder: Path) -> None:
    """Make an output folder, and find out now whether it can be written to.

    Args:
        option: The flag that names it.
        folder: The folder.

    Raises:
        OptionError: If it cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        cause = "it is a file" if folder.is_file() else error.strerror
        raise OptionError(f"{option} {folder} cannot be written to ({cause}).") from error


def write_scores(path: Path, scores: Iterable[Score]) -> None:
    """Write scores.csv, whole or not at all."""
    with atomic_text(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([field.name for field in fields(Score)])
        for score in scores:
            *words, value = astuple(score)
            writer.writerow([*map(csv_cell, words), repr(float(value))])


def read_scores(path: Path) -> list[Score]:
    """Read scores.csv.

    Raises:
        OptionError: If the file is absent or is not a score file.
    """
    if not path.is_file():
        raise OptionError(f"{path}: no such score file. `medseg evaluate` writes one.")
    columns = [field.name for field in fields(Score)]
    try:
        with path.open(newline="", encoding="utf-8") as file:
            table = csv.reader(file)
            header = next(table, [])
            place = [header.index(name) for name in columns]
            return [_score([row[index] for index in place]) for row in table if row]
    except (LookupError, ValueError, csv.Error) as error:
        raise OptionError(
            f"{path} is not a score file: it needs the columns {','.join(columns)}, "
            "with a number in the last one."
        ) from error


def _score(cells: list[str]) -> Score:
    case_id, group, class_name, metric = map(csv_text, cells[:-1])
    return Score(case_id, group, class_name, metric, float(cells[-1]))


def csv_cell(text: str) -> str:
    """Return `text` so that no spreadsheet takes it for a formula."""
    return f"'{text}" if text[:1] in tuple("=+-@\t\r'") else text


def csv_text(cell: str) -> str:
    """Undo `csv_cell`."""
    return cell.removeprefix("'")


def strict_json(value: Any) -> Any:
    """Return `value` with NaN and infinities replaced by None, since JSON knows neither."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): strict_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [strict_json(item) for item in value]
    return value


def write_json(path: Path, value: Any) -> None:
    """Write valid JSON, whole or not at all."""
    with atomic_text(path) as file:
        json.dump(strict_json(value), file, indent=2, ensure_ascii=False, allow_nan=False)
        file.write("\n")


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """Return the objects of a file of one JSON object a line; none if it cannot be read.

    A line that is no JSON is left out: its writer was killed within it.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    objects = []
    for line in text.split("\n"):  # splitlines would also split at U+2028 within a record
        try:
            content = json.loads(line)
        except ValueError:
            continue
        if isinstance(content, dict):
            objects.append(content)
    return objects


@contextmanager
def atomic_text(path: Path) -> Iterator[IO[str]]:
    """Open a temporary text file that takes the name `path` once it is complete and on disk.

    Raises:
        OptionError: If it cannot be written there.
    """
    try:
        with _temporary_text(path) as file:
            yield file
    except OSError as error:
        raise OptionError(
            f"{path} cannot be written ({error.strerror or error}). "
            "Choose another place, or make room."
        ) from error


@contextmanager
def _temporary_text(path: Path) -> Iterator[IO[str]]:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, usual_mode())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def usual_mode() -> int:
    """Return the permissions of a new file; temporary files are private until they are renamed."""
    umask = os.umask(0)
    os.umask(umask)
    return 0o666 & ~umask
