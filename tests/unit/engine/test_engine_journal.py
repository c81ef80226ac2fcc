"""The journal: nothing that was added is lost, whoever added it, however its writer ended."""

import json
import subprocess
import sys
import tracemalloc
from collections import Counter

import pytest

from medseg.core.errors import OptionError
from medseg.core.runs import read_json_lines
from medseg.engine import journal as module
from medseg.engine.journal import Journal


def test_the_newest_record_of_a_key_counts(tmp_path):
    journal = Journal(tmp_path)
    journal.add({"output": "a", "status": "failed"})
    journal.add({"output": "b", "status": "ok"})
    journal.add({"output": "a", "status": "ok"})
    assert journal.newest("a")["status"] == "ok"
    assert journal.newest("c") is None
    assert "a" in journal
    assert "c" not in journal
    assert len(journal) == 2
    assert Journal(tmp_path).newest("a") == journal.newest("a")


def test_time_decides_among_journals_then_their_names(tmp_path):
    for name, time in [("h-1", "2026-01-02T00:00:00+00:00"), ("h-2", "2026-01-01"), ("h-3", 1)]:
        line = json.dumps({"output": "a", "time": time, "by": name})
        (tmp_path / f"journal-{name}.jsonl").write_text(line + "\n")
    assert Journal(tmp_path).newest("a")["by"] == "h-1"
    tie = json.dumps({"output": "a", "time": "2026-01-02T01:00:00+01:00", "by": "h-9"})
    (tmp_path / "journal-h-9.jsonl").write_text(tie + "\n")
    assert Journal(tmp_path).newest("a")["by"] == "h-9"


def test_records_of_others_are_seen_after_a_refresh(tmp_path):
    mine, theirs = Journal(tmp_path), Journal(tmp_path)
    theirs.add({"output": "a", "status": "ok"})
    assert mine.newest("a") is None
    mine.refresh()
    assert mine.newest("a")["status"] == "ok"
    mine.add({"output": "b", "status": "ok"})
    assert len(list(tmp_path.glob("journal-*.jsonl"))) == 2


def test_a_refresh_reads_only_what_is_new(tmp_path, monkeypatch):
    mine, theirs = Journal(tmp_path), Journal(tmp_path)
    for number in range(3):
        theirs.add({"output": f"{number}"})
    mine.refresh()
    seen = []
    monkeypatch.setattr(mine, "_take_in", lambda line, *_: seen.append(json.loads(line)["output"]))
    theirs.add({"output": "new"})
    mine.refresh()
    mine.refresh()
    assert seen == ["new"]


def test_a_torn_line_is_passed_over_and_never_added_to(tmp_path):
    journal = Journal(tmp_path)
    journal.add({"output": "a", "status": "ok"})
    (path,) = tmp_path.iterdir()
    with path.open("ab") as file:
        file.write(b'{"output": "b", "sta')
    resumed = Journal(tmp_path)  # of the same host and process
    resumed.add({"output": "c", "status": "ok"})
    again = Journal(tmp_path)
    assert again.newest("a")["status"] == again.newest("c")["status"] == "ok"
    assert again.newest("b") is None
    assert path.read_bytes().endswith(b'"sta')


def test_a_line_being_written_is_read_when_it_is_whole(tmp_path):
    path = tmp_path / "journal-h-1.jsonl"
    path.write_bytes(b'{"output": "a", ')
    journal = Journal(tmp_path)
    with path.open("ab") as file:
        file.write(b'"x": 1}\n')
    journal.refresh()
    assert journal.newest("a") == {"output": "a", "x": 1}


@pytest.mark.parametrize("line", [b"\x00\xff\n", b"[1]\n", b'"a"\n', b'{"output": 3}\n', b"{}\n"])
def test_lines_that_are_no_records_are_passed_over(tmp_path, line):
    (tmp_path / "journal-h-1.jsonl").write_bytes(line + b'{"output": "a", "time": "soon"}\n')
    journal = Journal(tmp_path)
    assert len(journal) == 1
    assert "a" in journal


NAMES = ["a b", "a\nb", "\u2028", "\udcff.nii", "[/]", "=cmd", "</script>", "ä", "../x", ""]


def test_hostile_names_survive(tmp_path):
    journal = Journal(tmp_path / "records")
    for name in NAMES:
        journal.add({"output": name})
    assert [Journal(tmp_path / "records").newest(name)["output"] for name in NAMES] == NAMES
    merged = tmp_path / "merged.jsonl"
    journal.merge(merged)
    assert [record["output"] for record in read_json_lines(merged)] == sorted(NAMES)


def test_merged_is_the_newest_of_each_key_in_order(tmp_path):
    first, second = Journal(tmp_path), Journal(tmp_path)
    first.add({"output": "b", "n": 1})
    first.add({"output": "a", "n": 2, "value": float("nan")})
    second.add({"output": "b", "n": 3})
    first.merge(tmp_path / "merged.jsonl")
    records = read_json_lines(tmp_path / "merged.jsonl")
    assert [(record["output"], record["n"]) for record in records] == [("a", 2), ("b", 3)]
    assert records[0]["value"] is None


def test_a_record_that_does_not_fit_the_disk_leaves_no_trace(tmp_path, monkeypatch):
    journal = Journal(tmp_path)
    journal.add({"output": "a"})
    (path,) = tmp_path.iterdir()
    before = path.read_bytes()

    def full(_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(module.os, "fsync", full)
        with pytest.raises(OptionError, match="No space left on device"):
            journal.add({"output": "b"})
    assert path.read_bytes() == before
    journal.add({"output": "c"})
    assert "b" not in Journal(tmp_path)
    assert "c" in Journal(tmp_path)


def test_memory_is_modest_for_many_records(tmp_path):
    text = "x" * 2000
    with (tmp_path / "journal-h-1.jsonl").open("w") as file:
        for number in range(10_000):
            file.write(json.dumps({"output": f"case_{number:06d}.nii.gz", "text": text}) + "\n")
    tracemalloc.start()
    journal = Journal(tmp_path)
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(journal) == 10_000
    assert used / 10_000 < 500


SHARED = """
import sys, time
from pathlib import Path
from medseg.engine.claims import Claims
from medseg.engine.journal import Journal
folder = Path({folder!r})
journal = Journal(folder)
with Claims(folder / "claims") as claims:
    print("ready", flush=True)
    input()
    for number in range(50):
        key = f"case_{{number}}"
        if not claims.take(key):
            continue
        journal.refresh()
        if key not in journal:
            time.sleep(0.005)
            journal.add({{"output": key}})
        claims.release(key)
"""


def test_two_processes_share_a_folder_and_record_each_job_once(tmp_path):
    code = SHARED.format(folder=str(tmp_path))
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        process.communicate(timeout=30)
        assert process.returncode == 0
    journals = sorted(tmp_path.glob("journal-*.jsonl"))
    written = [len(read_json_lines(path)) for path in journals]
    assert len(written) == 2
    assert sum(written) == 50
    counts = Counter(r["output"] for path in journals for r in read_json_lines(path))
    assert set(counts.values()) == {1}
    assert list((tmp_path / "claims").iterdir()) == []
