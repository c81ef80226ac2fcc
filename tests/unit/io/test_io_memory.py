"""Threads share memory: what does not fit beside the others waits."""

import threading
import time

import pytest

from medseg.io.memory import Room


def most_at_once(room, wants):
    """Return the most bytes that threads had at once."""
    lock, taken, most = threading.Lock(), 0, 0

    def work(count):
        nonlocal taken, most
        with room.taken(count):
            with lock:
                taken += count
                most = max(most, taken)
            time.sleep(0.02)
            with lock:
                taken -= count

    threads = [threading.Thread(target=work, args=(count,)) for count in wants]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    return most


def test_no_more_is_taken_than_there_is():
    assert most_at_once(Room(100), [40] * 6) == 80
    assert most_at_once(Room(1000), [40] * 6) == 240


def test_what_is_larger_than_all_goes_alone():
    assert most_at_once(Room(100), [300, 40, 300, 40]) == 300


def test_an_error_gives_it_back():
    room = Room(100)
    with pytest.raises(ValueError, match="broken"), room.taken(100):
        raise ValueError("broken")
    assert most_at_once(room, [100]) == 100
