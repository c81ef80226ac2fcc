"""Learning rates that are behind stop early; norms and finished runs never do."""

import json
import sys

import pytest

from medseg.core.errors import OptionError
from medseg.core.runs import RunFiles, write_json
from medseg.study import doing
from medseg.study.crew import Crew
from medseg.study.execute import _work
from medseg.study.grid import Run, runs_of
from medseg.study.halving import expected_shares, note_halved, reached
from medseg.study.options import StudyOptions
from medseg.study.planned import Planned
from medseg.study.run_outcomes import outcomes_of

RATES = [0.001, 0.01, 0.1]
DICE = {0.001: 0.5, 0.01: 0.8, 0.1: 0.3}
SETTINGS = {
    "data": {"manifest": "x.json", "root": None, "fold": 2, "batch_size": 2, "steps_per_epoch": 10},
    "trainer": {"max_steps": 40},
    "model": {
        "norm": "batch",
        "optimization": {"learning_rate": 0.01},
        "network": {"dropout": 0.0, "init_scale": 1.0},
    },
    "seed_everything": 0,
}


def planned(place, rungs=(1,), norms=("batch", "group"), seeds=(0, 1), rates=RATES):
    cells = [
        {"model.norm": norm, "model.optimization.learning_rate": rate, "seed_everything": seed}
        for norm in norms
        for rate in rates
        for seed in seeds
    ]
    runs = [Run(cell, (), rungs=rungs) for cell in cells]
    return [Planned(run, RunFiles(place / "runs" / run.name), SETTINGS) for run in runs]


def rate_of(entry):
    return entry.run.cell["model.optimization.learning_rate"]


def train(entry, dice, kept=True):
    """Leave what a training leaves that was validated so often."""
    entry.files.run_dir.mkdir(parents=True, exist_ok=True)
    rows = "".join(f"{n},{20 * n},{10 * n},{n},{value}\n" for n, value in enumerate(dice, 1))
    entry.files.curves.write_text(f"epoch,samples,step,seconds,val/dice\n{rows}")
    if kept:
        entry.files.checkpoints.mkdir(exist_ok=True)
        (entry.files.checkpoints / "last.ckpt").touch()


def test_the_worse_half_of_each_norms_rates_stops(tmp_path):
    entries = planned(tmp_path)
    for entry in entries:
        train(entry, [DICE[rate_of(entry)]])
    halved = note_halved(entries)
    assert len(halved) == 4  # one of three rates, of two norms and two seeds
    assert all("learning_rate=0.1" in name for name in halved)
    behind = [entry for entry in entries if entry.state == "halved"]
    assert {entry.run.name for entry in behind} == set(halved)
    assert all(entry.is_done for entry in behind)
    assert "0.300 on fold 2 after 1 validations; 0.01 had 0.800, 0.001 had 0.500" in (
        behind[0].why_not
    )
    assert note_halved(entries) == []  # told once


def test_a_rate_is_judged_by_the_mean_of_its_seeds(tmp_path):
    entries = planned(tmp_path, norms=("batch",), rates=[0.001, 0.01])
    for entry, dice in zip(entries, [0.9, 0.2, 0.5, 0.7], strict=True):
        train(entry, [dice])
    assert {rate_of(entry) for entry in entries if entry.run.name in note_halved(entries)} == {
        0.001
    }


def test_equal_rates_keep_the_smaller_one(tmp_path):
    entries = planned(tmp_path, norms=("batch",), seeds=(0,), rates=[0.01, 0.001])
    for entry in entries:
        train(entry, [0.5])
    note_halved(entries)
    assert [entry.state for entry in entries] == ["halved", "interrupted"]


def test_nothing_is_judged_before_all_are_there(tmp_path):
    entries = planned(tmp_path, norms=("batch",))
    for entry in entries[:-1]:
        train(entry, [DICE[rate_of(entry)]])
    assert note_halved(entries) == []
    write_json(entries[-1].files.fit, {"interrupted": True, "diverged": "loss is NaN"})
    assert reached(entries[-1], 1) == 0.0
    assert len(note_halved(entries)) == 1  # the seed that diverged is a result, not halved away


def test_each_rung_halves_again(tmp_path):
    entries = planned(tmp_path, rungs=(1, 3), norms=("batch",), seeds=(0,), rates=[1, 2, 3, 4])
    for entry, dice in zip(entries, [0.1, 0.5, 0.6, 0.2], strict=True):
        train(entry, [dice])
    note_halved(entries)
    alive = [entry for entry in entries if not entry.is_done]
    assert [rate_of(entry) for entry in alive] == [2, 3]
    for entry, late in zip(alive, [0.9, 0.7], strict=True):
        train(entry, [0.5, 0.6, late])
    note_halved(entries)
    assert [entry.state for entry in entries] == ["halved", "interrupted", "halved", "halved"]


def test_what_has_come_to_its_end_stays(tmp_path):
    entries = planned(tmp_path, norms=("batch",), seeds=(0,), rates=[0.01, 0.1])
    for entry in entries:
        train(entry, [DICE[rate_of(entry)]])
        write_json(entry.files.fit, {"interrupted": False})
    assert note_halved(entries) == []


def test_without_halving_a_halved_run_goes_on(tmp_path):
    entries = planned(tmp_path)
    for entry in entries:
        train(entry, [DICE[rate_of(entry)]])
    note_halved(entries)
    assert {entry.state for entry in planned(tmp_path, rungs=())} == {"interrupted"}
    later = planned(tmp_path, rungs=(2,))  # a later rung has not come yet
    assert note_halved(later) == []
    assert {entry.state for entry in later} == {"interrupted"}


def test_a_halved_run_is_an_outcome_and_chooses_nothing(tmp_path):
    entries = planned(tmp_path, norms=("batch",), seeds=(0,))
    for entry in entries:
        train(entry, [DICE[rate_of(entry)]])
    note_halved(entries)
    (outcome,) = outcomes_of(entries).outcomes  # the others have not ended
    assert outcome.status == "halved"
    assert "0.300 on fold 2" in outcome.reason


def test_expected_shares_count_what_stops(tmp_path):
    entries = planned(tmp_path)  # 4 validations; after the first, two of three rates go on
    shares = expected_shares(entries)
    assert shares[entries[0].run.name] == pytest.approx((1 + 3 * 2 / 3) / 4)
    assert expected_shares(planned(tmp_path, rungs=())) == {}


FAKE = """
import json, pathlib, re, sys
place = pathlib.Path(sys.argv[1])
rate = re.search("learning_rate=([0-9.]+)", place.name)[1]
dice = {"0.001": 0.5, "0.01": 0.8, "0.1": 0.3}[rate]
for command in json.loads(sys.argv[2]):
    print(command[0], flush=True)
    with (place / f"{command[0]}.log").open("a") as log:
        print("called", *command, file=log)
    if command[0] == "fit":
        pause = "--pause_after_epochs" in command
        rows = int(command[-1]) if pause else 4
        (place / "checkpoints").mkdir(exist_ok=True)
        (place / "checkpoints" / "last.ckpt").touch()
        (place / "metrics.csv").write_text("epoch,val/dice\\n" + f"0,{dice}\\n" * rows)
        (place / "fit.json").write_text(json.dumps({"interrupted": pause}))
    if command[0] == "evaluate":
        (place / "scores.csv").write_text("")
"""


def test_a_study_trains_to_the_rung_and_finishes_who_is_ahead(tmp_path, monkeypatch):
    script = tmp_path / "fake.py"
    script.write_text(FAKE)
    monkeypatch.setattr(doing, "CHAIN", (sys.executable, str(script)))
    entries = planned(tmp_path, norms=("batch",), seeds=(0,))
    _work(Crew(StudyOptions(config=(), output=tmp_path, threads=1), {}), entries)
    assert {rate_of(entry): entry.state for entry in entries} == {
        0.001: "scored",
        0.01: "scored",
        0.1: "halved",
    }
    begun = (entries[0].files.run_dir / "fit.log").read_text().splitlines()
    assert [line.split("--")[-1] for line in begun] == ["pause_after_epochs 1", "ckpt_path last"]
    assert not (entries[2].files.run_dir / "predict.log").exists()
    record = json.loads((entries[2].files.run_dir / "study.json").read_text())
    assert (record["status"], record["digest"]) == ("halved", entries[2].run.digest)


GOOD = {
    "config": [],
    "budget": {"steps": 40, "validations": 4},
    "fixed": {"batch_size": 2},
    "grid": {"learning_rate": [0.1, 0.01]},
    "halving": [1],
}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"halving": [4]}, "validations below 4"),
        ({"halving": [0]}, "validations below 4"),
        ({"halving": [2, 1]}, "ascending"),
        ({"halving": 1}, "as in [1]; got 1"),
        ({"halving": []}, "as in [1]"),
        ({"halving": [True]}, "as in [1]"),
        ({"budget": None}, "budget"),
        ({"grid": {"seed": [0, 1]}}, "two values of learning_rate"),
        ({"grid": {"learning_rate": [0.1]}}, "two values of learning_rate"),
    ],
)
def test_a_halving_that_cannot_be_is_refused(change, words, tmp_path):
    content = {k: v for k, v in {**GOOD, **change}.items() if v is not None}
    with pytest.raises(OptionError) as refused:
        runs_of(content, tmp_path / "study.yaml")
    assert words in str(refused.value)


def test_halving_changes_nothing_of_what_is_asked_of_a_run(tmp_path):
    with_it = runs_of(GOOD, tmp_path / "study.yaml")
    without = runs_of({k: v for k, v in GOOD.items() if k != "halving"}, tmp_path / "study.yaml")
    assert [run.rungs for run in with_it] == [(1,), (1,)]
    assert [run.digest for run in with_it] == [run.digest for run in without]
