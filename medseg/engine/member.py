"""What a crew knows of a worker, whatever it runs on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Generic

from medseg.engine.outcome import Job
from medseg.engine.source import Task
from medseg.engine.worker import Message


class Member(ABC, Generic[Job]):
    """A worker: the jobs it holds, and how to talk to it.

    Args:
        room: How many jobs it may hold.
        tries: How often a worker was started in this place, one after the other, this one included.

    Attributes:
        ready: The handler is built.
        held: Jobs it was given and has not answered, by key.
        begun: Keys of those that the handler is known to have taken.
    """

    def __init__(self, room: int, tries: int) -> None:
        self.room, self.tries = room, tries
        self.ready = self._is_isolated = False
        self.held: dict[int, Task[Job]] = {}
        self.begun: set[int] = set()

    @property
    def has_room(self) -> bool:
        """Whether it may be given another job."""
        return self.ready and not self._is_isolated and len(self.held) < self.room

    def give(self, task: Task[Job], *, alone: bool = False) -> None:
        """Send a job; one that is to be alone keeps others away until it is answered."""
        self.held[task.key] = task
        self._is_isolated = alone
        self.send(task.key, task.job)

    def answered(self, key: int) -> Task[Job]:
        """Return the task that was answered; it is no longer held."""
        self._is_isolated = False
        self.begun.discard(key)
        return self.held.pop(key)

    def suspects(self) -> set[int]:
        """Return the keys of what may have killed it: what was begun, or else what was next."""
        return self.begun or set(list(self.held)[:1])

    @abstractmethod
    def send(self, key: int, job: Job) -> None:
        """Send a job; that a worker is dead is noticed when it is listened to, not here."""

    @abstractmethod
    def receive(self) -> Message:
        """Return the next message.

        Raises:
            EOFError: If the worker has died.
        """

    @abstractmethod
    def dismiss(self) -> None:
        """Let it go, as there are no more jobs."""

    @abstractmethod
    def kill(self) -> None:
        """End it at once."""

    @abstractmethod
    def end(self) -> str:
        """Wait until it is gone; return how it ended, in words that follow `the process`."""
