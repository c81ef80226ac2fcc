"""An evaluation goes on where it was interrupted, and redoes what has changed."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from medseg.evaluation import resume
from medseg.evaluation.evaluate import evaluate
from medseg.evaluation.options import EvaluateOptions
from medseg.evaluation.scoring import score_case

CASES = ("a", "b", "c")


@pytest.fixture
def folders(tmp_path, save, cube):
    """Write three pairs."""
    for number, name in enumerate(CASES):
        save(tmp_path / "refs" / f"{name}.nii.gz", cube())
        save(tmp_path / "pred" / f"{name}.nii.gz", cube(stop=7 + number))
    return tmp_path


@pytest.fixture
def scored_in(folders, monkeypatch):
    """Return a function that evaluates and returns the cases that were scored for it."""

    def go(**options):
        seen = []
        monkeypatch.setattr(
            resume, "score_case", lambda job: seen.append(job.pair.case_id) or score_case(job)
        )
        given = {"references": folders / "refs", "output": folders / "out", "workers": 1} | options
        evaluate(EvaluateOptions(predictions=folders / "pred", **given))
        return seen

    return go


def files_of(folder):
    return {path.name: path.read_bytes() for path in folder.glob("[!.]*")}


def journals(folder):
    return sorted((folder / ".medseg" / "scores.csv").iterdir())


def test_nothing_is_scored_twice_and_the_files_are_the_same(folders, scored_in):
    assert scored_in(lesions=("all",)) == list(CASES)
    before = files_of(folders / "out")
    assert scored_in(lesions=("all",)) == []
    assert files_of(folders / "out") == before
    assert len(journals(folders / "out")) == 1


def test_infinite_and_undefined_values_survive(folders, scored_in, save, cube):
    save(folders / "pred" / "a.nii.gz", cube(value=0))
    save(folders / "pred" / "b.nii.gz", cube(value=2))
    scored_in()
    before = files_of(folders / "out")
    assert b"inf" in before["scores.csv"]
    assert b"nan" in before["scores.csv"]
    assert scored_in() == []
    assert files_of(folders / "out") == before


@pytest.mark.parametrize("side", ["refs", "pred"])
def test_changed_content_is_scored_even_with_the_old_time(folders, scored_in, save, cube, side):
    scored_in()
    path = folders / side / "b.nii.gz"
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    save(path, cube(start=3))
    os.utime(path, ns=times)
    assert scored_in() == ["b"]


def test_touched_but_equal_files_are_not_scored(folders, scored_in):
    scored_in()
    for path in folders.glob("*/*.nii.gz"):
        path.touch()
    assert scored_in() == []


@pytest.mark.parametrize(
    "options",
    [
        {"tolerance_mm": ("3",)}, {"regions": ("x=1",)}, {"lesions": ("1",)}, {"grid_tolerance": 0.1},
        {"overwrite": True},
    ],
)  # fmt: skip
def test_other_options_score_all_anew(scored_in, options):
    scored_in()
    assert scored_in(**options) == list(CASES)


def test_another_version_scores_all_anew(scored_in, monkeypatch):
    scored_in()
    monkeypatch.setattr(resume, "METRIC_VERSION", "medseg voxel-border 99")
    assert scored_in() == list(CASES)


def test_convention_of_empty_dice_needs_no_scoring(scored_in):
    scored_in()
    assert scored_in(empty_dice="one") == []


def test_added_case_is_the_only_one_scored(folders, scored_in, save, cube):
    scored_in()
    for side in ("refs", "pred"):
        save(folders / side / "d.nii.gz", cube())
    assert scored_in() == ["d"]


def test_detached_data_is_part_of_the_file(folders, scored_in, cube):
    import SimpleITK

    for side in ("refs", "pred"):
        (folders / side / "c.nii.gz").unlink()
        image = SimpleITK.GetImageFromArray(cube().T)
        SimpleITK.WriteImage(image, str(folders / side / "c.mhd"))
    assert "c" in scored_in()
    (folders / "pred" / "c.raw").write_bytes(np.ascontiguousarray(cube(stop=9).T).tobytes())
    assert scored_in() == ["c"]


@pytest.mark.parametrize("damage", [b"\xff\xfe{", b'{"case_id": "a"', b"null\n[1]\n"])
def test_damaged_journal_is_scored_again(folders, scored_in, damage):
    scored_in()
    before = files_of(folders / "out")
    (path,) = journals(folders / "out")
    path.write_bytes(damage)
    assert scored_in() == list(CASES)
    assert files_of(folders / "out") == before


def test_damaged_record_of_a_right_key_is_scored_again(folders, scored_in):
    scored_in()
    (path,) = journals(folders / "out")
    rows = [json.loads(line) for line in path.read_text().splitlines() if line]
    rows[1]["scores"] = {"1": {"values": None}}
    path.write_text("\n".join(map(json.dumps, rows)))
    assert scored_in() == ["b"]


def test_killed_half_way_goes_on(folders, save, scored_in):
    rng = np.random.default_rng(0)
    for number in range(12):
        for side in ("refs", "pred"):
            labels = (rng.random((60, 60, 60)) < 0.3).astype(np.uint8)
            save(folders / side / f"n{number:02}.nii.gz", labels)
    arguments = ["evaluate", "--workers", "1", "--predictions", str(folders / "pred"), "--references",
                 str(folders / "refs"), "--output", str(folders / "out")]  # fmt: skip
    process = subprocess.Popen([sys.executable, "-m", "medseg", *arguments])
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        there = (folders / "out" / ".medseg").rglob("*.jsonl")
        if sum(path.read_text().count("case_id") for path in there) >= 4:
            break
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (folders / "out" / "scores.csv").exists()
    done = scored_in()
    assert 0 < len(done) <= 11
    assert scored_in() == []
    resumed = files_of(folders / "out")
    scored_in(overwrite=True)
    assert files_of(folders / "out") == resumed
