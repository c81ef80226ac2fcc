"""Processes of a fork server: what they write, how they end, what outlives whom."""

import fcntl
import os
import signal
import sys
import threading
import time

import pytest

from medseg.engine.forking import LOST, ForkServer

SCRIPT = """
import os, signal, sys, time
from medseg.engine.forking import serve

arguments = serve(int(sys.argv[1]))
if arguments is not None:
    what, *more = arguments
    print(what, os.getsid(0) == os.getpid(), os.environ["COLOUR"], flush=True)
    print("said", file=sys.stderr)
    if what == "wait":
        time.sleep(30)
    if what == "open":
        listed = os.listdir("/proc/self/fd")
        print(len(listed), flush=True)
    sys.exit(int(more[0]) if more else 0)
"""


ENVIRONMENT = {**os.environ, "COLOUR": "blue", "PYTHONPATH": os.pathsep.join(["", *sys.path])}


@pytest.fixture
def command(tmp_path):
    (tmp_path / "server.py").write_text(SCRIPT)
    return [sys.executable, str(tmp_path / "server.py")]


@pytest.fixture
def server(command):
    """Return a server; it has ended afterwards."""
    made = ForkServer(command, ENVIRONMENT)
    yield made
    made.close()


def begin(server, tmp_path, *arguments):
    """Start a process; return it with the file that it writes to."""
    path = tmp_path / f"{arguments[0]}.log"
    with path.open("wb") as log, (tmp_path / "kept").open("ab") as kept:
        return server.start(arguments, log.fileno(), log.fileno(), kept.fileno()), path


def said(path, words):
    deadline = time.monotonic() + 20
    while words not in path.read_text() and time.monotonic() < deadline:
        time.sleep(0.02)
    return path.read_text()


def test_a_process_has_its_arguments_its_streams_and_its_exit_status(server, tmp_path):
    process, path = begin(server, tmp_path, "told", 7)
    assert process.wait() == 7
    assert path.read_text() == "told True blue\nsaid\n"


def test_several_run_at_once_and_one_ends_alone(server, tmp_path):
    waiting, path = begin(server, tmp_path, "wait")
    short, _ = begin(server, tmp_path, "short")
    assert short.wait() == 0
    said(path, "wait")
    waiting.send_signal(signal.SIGTERM)
    assert waiting.wait() == -signal.SIGTERM
    waiting.send_signal(signal.SIGTERM)  # to nobody


def test_a_signal_right_after_the_start_is_not_lost(server, tmp_path):
    for _ in range(20):
        process, _ = begin(server, tmp_path, "wait")
        process.send_signal(signal.SIGTERM)
        assert process.wait() == -signal.SIGTERM


def test_no_process_holds_what_belongs_to_another(server, tmp_path):
    alone, path = begin(server, tmp_path, "open")
    alone.wait()
    before = said(path, "said").splitlines()[-1]
    waiting, _ = begin(server, tmp_path, "wait")
    second, path = begin(server, tmp_path, "open")
    second.wait()
    assert path.read_text().splitlines()[-1] == before
    waiting.send_signal(signal.SIGKILL)
    assert waiting.wait() == -signal.SIGKILL


def test_a_process_outlives_server_and_client_and_keeps_its_lock(command, tmp_path):
    server, path = ForkServer(command, ENVIRONMENT), tmp_path / "log"
    with path.open("wb") as log, (tmp_path / "lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        process = server.start(["wait"], log.fileno(), log.fileno(), lock.fileno())
    said(path, "wait")
    server.close()
    assert process.wait() == LOST
    with (tmp_path / "lock").open("ab") as lock:
        with pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        process.send_signal(signal.SIGKILL)
        fcntl.flock(lock, fcntl.LOCK_EX)


def test_nobody_waits_for_a_server_that_only_starts_once_it_is_cancelled(tmp_path):
    server = ForkServer([sys.executable, "-c", "import time; time.sleep(60)"], os.environ)
    threading.Timer(0.2, server.cancel).start()
    begun = time.monotonic()
    assert begin(server, tmp_path, "told")[0] is None
    server.close()
    assert time.monotonic() - begun < 10


def test_a_server_that_works_is_not_cancelled(server, tmp_path):
    assert begin(server, tmp_path, "told")[0].wait() == 0
    server.cancel()
    assert begin(server, tmp_path, "told")[0].wait() == 0


def test_who_asks_a_server_that_failed_is_told(tmp_path):
    server = ForkServer([sys.executable, "-c", "raise SystemExit(1)"], os.environ)
    assert begin(server, tmp_path, "told")[0] is None
    server._process.wait()
    assert begin(server, tmp_path, "told")[0] is None
    server.close()
