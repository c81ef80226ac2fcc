"""How long the runs of a study that are left take, told while it works."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence

from medseg.training.budget import in_words


class Rest:
    """Knows which runs are left; several threads may share one.

    Args:
        names: Of the runs.
        predicted: Their seconds as predicted, by name; empty if not known. Runs that are done
            correct those of the others, all by one factor.
        workers: Runs side by side.
    """

    def __init__(self, names: Sequence[str], predicted: Mapping[str, float], workers: int) -> None:
        self._left = {name: predicted.get(name, 1.0) for name in names}
        self._is_predicted = bool(predicted)
        self._all, self._workers = len(names), workers
        self._begun: dict[str, float] = {}
        self._took = self._predicted = 0.0
        self._lock = threading.Lock()

    def begin(self, name: str) -> str:
        """Note that a run begins; say which of how many it is."""
        with self._lock:
            self._begun[name] = time.monotonic()
            return f"{len(self._begun)} of {self._all}"

    def end(self, name: str, tells: bool) -> str:
        """Note that a run has ended; say how many are left, and about how long they take.

        Args:
            name: Of the run.
            tells: Whether all of it was done since it began, as it is predicted.
        """
        with self._lock:
            predicted = self._left.pop(name)
            if tells and name in self._begun:
                self._took += time.monotonic() - self._begun[name]
                self._predicted += predicted
            words = f"; {len(self._left)} left" if self._left else ""
            known = self._left and (self._is_predicted or self._predicted)
            return f"{words}, about {in_words(self._seconds())}" if known else words

    def _seconds(self) -> float:
        factor = self._took / self._predicted if self._predicted else 1.0
        now = time.monotonic()
        left = [
            max(predicted * factor - (now - self._begun.get(name, now)), 0.0)
            for name, predicted in self._left.items()
        ]
        return sum(left) / min(self._workers, len(left))
