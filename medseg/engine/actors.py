"""Workers that are Ray actors: both sides of one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from medseg.engine.member import Member
from medseg.engine.outcome import Handler, Job, Start
from medseg.engine.worker import NO_JOB, Message, portable

ROOM = 2
"""Jobs at an actor: one that it works on, and the next, so that it need not wait for us."""


class Actor(Member[Job]):
    """One actor, seen from here.

    Args:
        ray: The package, connected.
        remote: Class of actors.
        start: What builds the handler.
        tries: How often an actor was started in this place, one after the other, this one included.

    Attributes:
        calls: What it was asked and has not answered.
    """

    def __init__(self, ray: Any, remote: Any, start: Start[Job, Any], tries: int) -> None:
        super().__init__(ROOM, tries)
        self._ray, self._end = ray, "died"
        self._actor = remote.remote()
        self.calls = [self._actor.start.remote(start)]

    def send(self, key: int, job: Job) -> None:
        """Ask for a job."""
        self.calls.append(self._actor.work.remote(key, job))

    def receive(self) -> Message:
        """Return the next answer.

        Raises:
            EOFError: If the actor has died.
        """
        done, self.calls = self._ray.wait(self.calls, num_returns=1)
        try:
            answer: Message = self._ray.get(done[0])
        except self._ray.exceptions.RayTaskError as error:  # what came could not be unpickled
            return "failed", NO_JOB, portable(error)
        except self._ray.exceptions.RayError as error:
            self._end = _words(str(error))
            raise EOFError from error
        return answer

    def dismiss(self) -> None:
        """End it, as it holds nothing."""
        self.kill()

    def kill(self) -> None:
        """End it at once."""
        self._ray.kill(self._actor)

    def end(self) -> str:
        """End what is left of it; return how it ended."""
        self.kill()
        return self._end


class Remote:
    """One actor, at its own place."""

    def start(self, start: Start[Any, Any]) -> Message:
        """Build the handler."""
        try:
            self._handler: Handler[Any, Any] = start()
        except Exception as error:  # noqa: BLE001 - told to the supervisor, who decides
            return "failed", NO_JOB, portable(error)
        return "ready", NO_JOB, None

    def work(self, key: int, job: Any) -> Message:
        """Handle one job."""
        try:
            ((_, result),) = self._handler(iter([(key, job)]))
        except Exception as error:  # noqa: BLE001 - told to the supervisor, who decides
            return "failed", NO_JOB, portable(error)
        return "done", key, portable(result) if isinstance(result, Exception) else result


def talking(ray: Any, actors: Sequence[Actor[Any]], timeout: float) -> list[Actor[Any]]:
    """Return the actors that have answered or have died, waiting for one."""
    calls = {call: actor for actor in actors for call in actor.calls}
    if not calls:
        return []
    ray.wait(list(calls), num_returns=1, timeout=timeout)
    done, _ = ray.wait(list(calls), num_returns=len(calls), timeout=0)
    return list(dict.fromkeys(calls[call] for call in done))


def _words(error: str) -> str:
    """Return the reason in Ray's many words."""
    found = re.search(r"The actor (?:is dead|died) because (.*?)[.\n]", error)
    return f"died ({found[1]})" if found else "died"
