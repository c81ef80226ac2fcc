"""Where figures come from, and what the page says they allow."""

import pytest

from medseg.core.runs import Score, read_scores, write_scores
from medseg.report.conclusions import conclusions
from medseg.report.provenance import (
    data_set,
    flow_rows,
    missing_parts,
    provenance_rows,
)
from medseg.report.sources import read_source


def said(*sources):
    return " ".join(conclusions(sources))


def test_what_differs_between_runs_names_them(make_source):
    first = make_source("batch", fit={"device": "cpu", "train_folds": [1, 2]})
    second = make_source("group", fit={"device": "gpu", "train_folds": [1, 2], "precision": "16"})
    rows = dict(provenance_rows([first, second]))
    assert rows["Device"] == "cpu (batch) · gpu (group)"
    assert rows["Training folds"] == "1, 2"
    assert rows["Precision"] == "16 (group)"
    assert rows["Checkpoint"] == "last"
    assert rows["Metric definitions"] == "medseg voxel-border 1"
    assert "Threads" not in rows


def test_dates_and_versions_are_readable(make_source):
    fit = {
        "finished": "2026-11-23T01:20:58+0000",
        "versions": {"torch": "2.13.0", "monai": "1.6.1"},
    }
    rows = dict(provenance_rows([make_source(fit=fit)]))
    assert rows["Training finished"] == "2026-11-23 01:20"
    assert rows["Versions"] == "torch 2.13.0, monai 1.6.1"


def test_the_data_set_is_named_after_its_manifest_if_it_has_no_name(make_source):
    assert data_set([make_source(fit={"data_set": "", "manifest": "x/hips.json"})]) == "hips"


def test_every_case_that_was_given_is_accounted_for(make_source):
    flow = {"given": 5, "failed": {"d": "truncated"}, "unmatched_references": ["e"]}
    (row,) = flow_rows([make_source(trained=("a",), summary={"cases": flow})])
    assert (row["given"], row["failed"], row["trained"], row["scored"]) == ("5", "1", "1", "2")
    assert row["reasons"] == "d: truncated; e: reference without prediction"


def test_a_long_list_of_failures_is_cut_and_counted(make_source):
    failed = {f"case{i}": "gone" for i in range(20)}
    (row,) = flow_rows([make_source(summary={"cases": {"failed": failed}})])
    assert row["given"] == "23"
    assert row["reasons"].endswith("case7: gone; and 12 more")


def test_one_run_is_descriptive_only(make_source):
    text = said(make_source())
    assert "Descriptive only: one run; one seed" in text
    assert "3 cases: intervals (Student's t) are wide" in text
    assert "1 structure was missed or invented" in text
    assert "Below about 50 cases" in text


def test_several_runs_are_compared_elsewhere(make_source):
    text = said(make_source("batch"), make_source("group", fit={"seed": 1}))
    assert "2 runs; 2 seeds" in text
    assert "What the runs differ in is under Verdict" in text


def test_scores_of_unknown_training_claim_no_seed(write_score_file):
    text = said(read_source(write_score_file("other.csv")))
    assert "which seeds the networks were trained is not recorded" in text
    assert "one seed" not in text


def test_a_run_without_scores_concludes_nothing(make_run):
    run = make_run()
    (run / "scores.csv").unlink()
    assert conclusions([read_source(run)]) == []


@pytest.mark.parametrize(
    ("summary", "words"),
    [
        ({"chosen_on_scored_cases": True}, "chosen on the very cases that are scored"),
        ({"grid_tolerance": 0.4}, "--grid_tolerance"),
        ({"cases": {"spacing_above_tolerance": ["a"]}}, "NSD reads too high"),
    ],
)
def test_a_flaw_is_said_with_its_run(make_source, summary, words):
    sound = make_source("batch")
    assert words not in said(sound)
    assert words in said(make_source("group", summary=summary))
    text = said(sound, make_source("layer", summary=summary))
    assert words in text
    assert "(In layer.)" in text


def test_an_interrupted_training_is_said(make_source):
    assert "The training was interrupted." in said(make_source(fit={"interrupted": True}))


def test_runs_of_other_cases_tolerances_or_data_are_not_comparable(make_source):
    one = make_source("batch", fit={"data_digest": "x"})
    other = make_source(
        "group", cases={"a": (1, 1)}, fit={"data_digest": "y"}, summary={"tolerance_mm": 3.0}
    )
    text = said(one, other)
    assert "not scored on the same cases" in text
    assert "different tolerances of NSD" in text
    assert "their data digests differ" in text
    assert "different definitions" not in text


def test_unlike_steps_of_trainings_bounded_by_time_are_said(make_source):
    def steps(**runs):
        return said(*(
            make_source(name, within=str(runs), fit={"steps": n, "max_seconds": 60, **more})
            for name, (n, more) in runs.items()
        ))  # fmt: skip

    text = steps(batch=(268, {}), instance=(372, {}), group=(142, {}), layer=(144, {}))
    assert "most in instance (372), fewest in group (142)" in text
    assert "from the clock and not from what the runs vary" in text
    assert "equal --trainer.max_steps" in text
    assert "clock" not in steps(batch=(125, {}), group=(100, {}))
    assert "clock" not in steps(batch=(372, {"max_seconds": None}), group=(142, {}))
    assert "clock" not in steps(batch=(372, {}), group=(142, {"interrupted": True}))
    assert "clock" not in steps(batch=(372, {}), group=(142, {"stopped_early": {"step": 142}}))


def test_cases_that_share_a_patient_make_intervals_too_narrow(make_run):
    run = make_run()
    rows = [
        Score(s.case_id, "p" if s.case_id in "ab" else "q", s.class_name, s.metric, s.value)
        for s in read_scores(run / "scores.csv")
    ]
    write_scores(run / "scores.csv", rows)
    source = read_source(run)
    assert flow_rows([source])[0]["groups"] == "2"
    assert "too narrow" in said(source)


def test_what_several_runs_miss_is_said_once(make_run):
    runs = [make_run(name) for name in ("batch", "group", "layer")]
    for run in runs:
        (run / "metrics.csv").unlink()
    (runs[0] / "fit.json").unlink()
    curves, fit = sorted(missing_parts([read_source(run) for run in runs]), reverse=True)
    assert curves.startswith("metrics.csv")
    assert "In" not in curves
    assert fit.endswith("(In batch.)")
