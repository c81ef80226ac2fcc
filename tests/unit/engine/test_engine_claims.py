"""Claims: each key has one owner; the dead and the silent lose theirs, the living do not."""

import json
import os
import subprocess
import sys
import threading
import time
from functools import partial

import pytest

from medseg.core.errors import OptionError
from medseg.engine.claims import Claims


@pytest.fixture
def claims(tmp_path):
    with Claims(tmp_path / "claims") as claims:
        yield claims


@pytest.fixture
def other(tmp_path):
    with Claims(tmp_path / "claims") as other:
        yield other


def claim_file(claims):
    (path,) = claims._folder.glob("*.json")
    return path


def change(path, **fields):
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def dead_process():
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    return done.pid


def test_a_key_is_taken_once(claims, other):
    assert claims.take("a")
    assert not other.take("a")
    assert not claims.take("a")
    assert other.take("b")


def test_a_released_key_is_free(claims, other):
    claims.take("a")
    claims.release("a")
    assert other.take("a")


def test_closing_releases_all_and_leaves_no_file(tmp_path):
    with Claims(tmp_path) as claims:
        assert all(claims.take(str(number)) for number in range(5))
        assert len(list(tmp_path.iterdir())) == 5
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "key", ["../../x", "a\nb", "\udcff.nii", "\ud800", "x" * 5000, "</script>", ""]
)
def test_any_name_can_be_claimed(claims, other, key):
    assert claims.take(key)
    assert not other.take(key)


def test_the_claim_of_a_dead_process_is_free(claims, other):
    claims.take("a")
    change(claim_file(claims), process=dead_process(), token="gone")
    assert other.take("a")
    assert not claims.take("a")
    assert len(list(claims._folder.glob("*"))) == 1


def test_a_process_id_used_again_is_not_its_owner(claims, other):
    claims.take("a")
    change(claim_file(claims), started="1", token="gone")
    assert other.take("a")


def test_a_silent_host_loses_its_claim_after_a_while(claims, other):
    claims.take("a")
    path = claim_file(claims)
    change(path, machine="far away", token="gone")
    os.utime(path, (time.time() - 280,) * 2)
    assert not other.take("a")
    os.utime(path, (time.time() - 320,) * 2)
    assert other.take("a")


def test_a_claim_without_a_name_is_free_after_a_while(claims, other):
    claims.take("a")
    path = claim_file(claims)
    path.write_text("")
    assert not other.take("a")
    os.utime(path, (time.time() - 320,) * 2)
    assert other.take("a")


def test_a_sign_of_life_keeps_a_claim(tmp_path):
    with (
        Claims(tmp_path, heartbeat=0.05, stale=0.5) as claims,
        Claims(tmp_path, stale=0.5) as other,
    ):
        assert claims.take("a")
        for _ in range(10):
            time.sleep(0.1)
            assert not other.take("a")


def test_who_lost_a_claim_does_not_release_that_of_another(claims, other):
    claims.take("a")
    path = claim_file(claims)
    content = path.read_text()
    change(path, process=dead_process(), token="gone")
    other.take("a")
    claims.release("a")
    claims.close()
    assert path.exists()
    assert path.read_text() != content


def test_of_many_thieves_one_succeeds(tmp_path):
    dead = dead_process()
    for number in range(20):
        with Claims(tmp_path) as first:
            first.take(f"{number}")
            change(claim_file(first), process=dead, token="gone")
            thieves = [Claims(tmp_path) for _ in range(8)]
            taken = race([partial(thief.take, f"{number}") for thief in thieves])
            assert sum(taken) == 1
            for thief in thieves:
                thief.close()
        assert list(tmp_path.iterdir()) == []


def race(functions):
    """Return what the functions return, called at the same moment in threads."""
    barrier, results = threading.Barrier(len(functions)), []

    def call(function):
        barrier.wait()
        results.append(function())

    threads = [threading.Thread(target=call, args=(function,)) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_who_clears_away_takes_nothing_from_who_wants_it(tmp_path):
    dead = dead_process()
    with Claims(tmp_path) as wants:
        for number in range(20):
            clears = Claims(tmp_path)
            clears.take(f"{number}")
            change(clears._path(f"{number}"), process=dead, token="gone")
            assert race([partial(wants.take, f"{number}"), clears.close]).count(True) == 1


def test_a_claim_is_stolen_though_a_thief_died_over_it(claims, other):
    claims.take("a")
    path = claim_file(claims)
    dead = dead_process()
    change(path, process=dead, token="gone")
    right = path.with_name(f"{path.stem}-gone.json")
    right.write_text(path.read_text())
    change(right, token="thief")
    assert other.take("a")
    assert [file.name for file in claims._folder.glob("*.json")] == [path.name]


def test_what_the_dead_have_left_is_cleared_away(tmp_path):
    with Claims(tmp_path) as living:
        living.take("a")
        with Claims(tmp_path) as claims:
            claims.take("b")
            path = claims._path("b")
            change(path, process=dead_process(), token="gone")
            for name in ("gone", "by-thief"):
                path.with_name(f"{path.stem}-{name}.json").write_text(path.read_text())
        assert list(tmp_path.iterdir()) == [living._path("a")]


def test_a_folder_that_cannot_be_made_is_said(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OptionError, match="file/claims cannot be written to"):
        Claims(tmp_path / "file" / "claims")
