"""Outcomes read from what runs leave behind, of which anything may be missing."""

import csv

import pytest

from medseg.core.runs import RunFiles, Score, write_json, write_scores
from medseg.study.compared_at import compared_at
from medseg.study.flags import SHORT_NAMES
from medseg.study.grid import Run
from medseg.study.planned import LeftOut, Planned
from medseg.study.run_outcomes import collapse, outcomes_of

CASES = ("a", "b", "c")


def settings(norm="batch", batch_size=2, rate=1e-3, seed=0, fold=1, dropout=0.0, init_scale=1.0):
    return {
        "seed_everything": seed,
        "model": {
            "norm": norm,
            "optimization": {"learning_rate": rate},
            "network": {"dropout": dropout, "init_scale": init_scale},
        },
        "data": {"batch_size": batch_size, "fold": fold},
    }


def planned(folder, **cell):
    run = Run({"model.norm": cell.get("norm", "batch"), "seed_everything": cell.get("seed", 0),
               "data.fold": cell.get("fold", 1)}, ())  # fmt: skip
    return Planned(run, RunFiles(folder / run.name), settings(**cell))


def write_curve(entry, rows):
    entry.files.run_dir.mkdir(parents=True, exist_ok=True)
    with entry.files.curves.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(name for row in rows for name in row)))
        writer.writeheader()
        writer.writerows(rows)


def rows(dice, losses=None):
    losses = losses or [1.0 - d for d in dice]
    return [
        {"epoch": i, "step": 10 * (i + 1), "samples": 20 * (i + 1), "seconds": 3.0 * (i + 1),
         "train_seconds": 2.0 * (i + 1), "train/loss": loss, "train/dice": d, "val/dice": d}
        for i, (d, loss) in enumerate(zip(dice, losses, strict=True))
    ]  # fmt: skip


def trained(entry, dice=(0.5, 0.7), scores=None, cases=CASES, group="", **fit):
    """Write the files of a scored run: each case's Dice of two classes."""
    write_curve(entry, rows(dice))
    record = {"interrupted": False, "seconds_per_step": 0.1, "parameters": 7, **fit}
    write_json(entry.files.fit, record)
    table = scores or dict.fromkeys(cases, (0.8, 0.6))
    found = []
    for case, values in table.items():
        for name, value in zip(("left", "right"), values, strict=True):
            found += [
                Score(case, group and f"{group}{case}", name, "dice", value),
                Score(case, "", name, "hd95_mm", float("inf") if value == 0 else 2.0),
                Score(case, "", name, "volume_ref_ml", 1.0),
                Score(case, "", name, "volume_pred_ml", float(value > 0)),
            ]
    write_scores(entry.files.scores, found)
    return entry


def test_scores_curve_and_costs_come_from_the_runs_files(tmp_path):
    entry = trained(planned(tmp_path), scores={"b": (0.8, 0.6), "a": (0.0, 0.4)})
    study = outcomes_of([entry])
    assert study.cases == ("a", "b")
    (outcome,) = study.outcomes
    assert outcome.status == "finished"
    assert outcome.choosing == 0.7
    assert outcome.scores.dice == pytest.approx((0.2, 0.7))
    assert outcome.scores.missed == (1, 0)
    assert outcome.scores.hd95_mm == (float("inf"), 2.0)
    assert outcome.scores.class_dice["right"] == (0.4, 0.6)
    assert outcome.curve.samples == (20.0, 40.0)
    assert outcome.curve.seconds == (2.0, 4.0)
    assert outcome.curve.train_dice == (0.5, 0.7)
    assert (outcome.costs.seconds_per_step, outcome.costs.parameters) == (0.1, 7)
    assert outcome.probes.roughness is None


def test_probes_and_measured_costs_are_read_where_there_are_any(tmp_path):
    entry = trained(planned(tmp_path))
    write_json(entry.files.probes, {"roughness": 0.1, "series": [{"step": 1}], "share": 0.02})
    costs = {"peak_mib": 10.0, "inference_seconds": 0.2, "folded_seconds": None}
    more = {"dice_running": 0.6, "dice_own": 0.7, "invariance": {"gain 2": 0.1, "x": None}}
    write_json(entry.files.after, {**more, "costs": costs})
    (outcome,) = outcomes_of([entry]).outcomes
    assert outcome.probes.roughness == 0.1
    assert outcome.probes.statistics_gap == pytest.approx(0.1)
    assert outcome.probes.invariance == {"gain 2": 0.1}
    assert (outcome.costs.peak_mib, outcome.costs.folded_seconds) == (10.0, None)


def test_cases_that_one_run_did_not_score_are_left_out_for_all(tmp_path):
    one = trained(planned(tmp_path, norm="batch"))
    other = trained(planned(tmp_path, norm="group"), cases=("b", "c", "d"))
    study = outcomes_of([one, other])
    assert study.cases == ("b", "c")
    assert {len(o.scores.dice) for o in study.outcomes} == {2}


def test_folds_of_a_cell_are_one_outcome(tmp_path):
    parts = [
        trained(planned(tmp_path, fold=0), dice=(0.6,), scores={"a": (0.8, 0.8)}),
        trained(planned(tmp_path, fold=1), dice=(0.8,), scores={"b": (0.6, 0.6)}),
    ]
    study = outcomes_of(parts)
    (outcome,) = study.outcomes
    assert study.cases == ("a", "b")
    assert outcome.scores.dice == pytest.approx((0.8, 0.6))
    assert outcome.choosing == pytest.approx(0.7)
    assert outcome.curve is None


def test_units_are_the_groups_of_the_cases(tmp_path):
    study = outcomes_of([trained(planned(tmp_path), group="patient_")])
    assert study.units == ("patient_a", "patient_b", "patient_c")


def test_a_run_that_has_not_begun_is_no_outcome(tmp_path):
    assert outcomes_of([planned(tmp_path)]).outcomes == ()


def test_a_scored_run_counts_though_it_could_not_be_measured_afterwards(tmp_path):
    run = Run({"model.norm": "batch"}, (), {"probes": True})
    entry = trained(Planned(run, RunFiles(tmp_path / run.name), settings()))
    entry.note(status="failed", command="after", exit_code=2, last_line="no such file")
    assert entry.state == "trained"
    (outcome,) = outcomes_of([entry]).outcomes
    assert outcome.status == "finished"
    assert outcome.scores is not None


def test_how_runs_end(tmp_path):
    entries = [planned(tmp_path, seed=seed) for seed in range(6)]
    trained(entries[0], dice=(0.5, 0.0))  # all background at the end
    write_curve(entries[1], rows([0.1]))
    write_json(entries[1].files.fit, {"interrupted": True, "diverged": "the loss of step 3"})
    entries[2].note(status="failed", command="fit", exit_code=1, last_line="out of memory")
    entries[3].note(status="failed", command="fit", exit_code=1, last_line="no such file")
    trained(entries[4])
    entries[5].note(status="failed", command="fit", exit_code=-9, last_line="Epoch 3")
    left = LeftOut("norm=group", settings(norm="group"), "3 groups do not divide 8 channels")
    found = outcomes_of(entries, [left]).outcomes
    assert [o.status for o in found] == [
        "diverged", "diverged", "out of memory", "failed", "finished", "failed", "impossible",
    ]  # fmt: skip
    assert "background" in found[0].reason
    assert found[0].scores is not None  # a result like any other
    assert found[1].reason == "the loss of step 3"
    assert found[1].scores is None
    assert found[5].reason == "killed (out of memory?)"
    assert (found[6].norm, found[6].reason) == ("group", left.reason)


@pytest.mark.parametrize(
    ("losses", "bad"),
    [
        ([1.0, 0.9, 1.1, 1.2, 1.3], True),
        ([1.0, 0.9, 1.1, 1.2, 0.99], False),
        ([1.0, 1.1, 1.2], False),  # too few to say
    ],
)
def test_a_loss_that_stays_above_its_first_has_diverged(losses, bad):
    assert bool(collapse(rows([0.5] * len(losses), losses))) == bad


def varied(folder, name, values, **others):
    """Return a run of each value; None: the cell does not name the flag."""
    return [
        Planned(
            Run({} if value is None else {SHORT_NAMES[name]: value}, ()),
            RunFiles(folder / str(place)),
            settings(**others | ({} if value is None else {name: value})),
        )
        for place, value in enumerate(values)
    ]


def test_norms_are_compared_at_the_configurations_own_value_however_rare(tmp_path):
    for entries in (
        varied(tmp_path, "init_scale", [0.25, 0.25, 4.0, 4.0, 1.0]),
        varied(tmp_path, "init_scale", [0.25, 0.25, 4.0, 4.0, None]),
    ):
        for entry in entries[:-1]:
            trained(entry)
        assert outcomes_of(entries).init_scale == 1.0  # though its only run has not begun
    own = varied(tmp_path, "dropout", [0.0, 0.0, 0.3, None], dropout=0.1)
    assert compared_at(own, "dropout") == 0.1


def test_a_grid_without_the_configurations_value_is_compared_at_the_neutral_or_nearest(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(
        "medseg.study.compared_at.resolved", lambda run: settings(dropout=0.2, init_scale=2.0)
    )
    for name, values, expected in (
        ("dropout", [0.3, 0.2, 0.0, 0.3], 0.2),
        ("dropout", [0.3, 0.0], 0.0),
        ("dropout", [0.5, 0.3, 0.5], 0.3),
        ("init_scale", [0.25, 0.25, 3.0], 3.0),
        ("init_scale", [4.0, 4.0], 4.0),
    ):
        assert compared_at(varied(tmp_path, name, values), name) == expected
    assert compared_at([], "init_scale") == 1.0
