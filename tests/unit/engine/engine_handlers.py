"""What the workers of the engine's tests run; light, since every worker imports it."""

import os
import queue
import signal
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from medseg.core.errors import CheckpointError


@dataclass(frozen=True)
class Start:
    """Start a handler that runs jobs like `("sleep", 0.1)`, each logged as a line of a file."""

    log: Path
    failure: str = ""

    def __call__(self):
        self.note("start")
        if self.failure == "error":
            raise CheckpointError("runs/a has no checkpoint.")
        if self.failure == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.failure == "kill once" and self.lines().count("start") == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return self.handle

    def handle(self, pairs):
        for key, (verb, value) in pairs:
            self.note(f"{verb} {value}")
            yield key, getattr(self, verb)(value)

    def note(self, line):
        with self.log.open("a") as file:
            file.write(f"{line}\n")

    def lines(self):
        return self.log.read_text().splitlines()

    def echo(self, value):
        return value, os.getpid()

    def die(self, number):
        os.kill(os.getpid(), number)

    def leave(self, code):
        os._exit(code)

    def die_once(self, value):
        if self.lines().count(f"die_once {value}") == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return value, os.getpid()

    def die_with_child(self, value):
        if os.fork() == 0:
            time.sleep(value)
            os._exit(0)
        os.kill(os.getpid(), signal.SIGKILL)

    def sleep(self, value):
        time.sleep(value)
        self.note(f"slept {value}")
        return value

    def fail(self, value):
        raise ValueError(value)

    def big(self, size):
        return bytes(size)

    def length(self, data):
        return len(data)

    def unpicklable(self, value):
        return lambda: value

    def variable(self, name):
        return os.environ.get(name)

    def modules(self, name):
        return name in sys.modules, sys.modules["__main__"].__dict__.get("__file__")


@dataclass(frozen=True)
class Greedy:
    """Start a handler that takes several jobs before it answers the first one."""

    number: int

    def __call__(self):
        return self.handle

    def handle(self, pairs):
        taken = []
        for pair in pairs:
            taken.append(pair)
            if len(taken) == self.number:
                yield from reversed(taken)
                taken.clear()


@dataclass(frozen=True)
class Eager:
    """Start a handler that takes jobs in a thread, ahead of answering them."""

    def __call__(self):
        return self.handle

    def handle(self, pairs):
        taken = queue.SimpleQueue()
        threading.Thread(target=self.read, args=(pairs, taken), daemon=True).start()
        while (pair := taken.get()) is not None:
            time.sleep(0.1)
            if pair[1] == "die":
                os.kill(os.getpid(), signal.SIGKILL)
            yield pair

    def read(self, pairs, taken):
        for pair in pairs:
            taken.put(pair)
        taken.put(None)
