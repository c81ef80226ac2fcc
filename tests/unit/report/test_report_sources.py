"""What is read from a run, and what is said where parts are missing or damaged."""

import json

import pytest

from medseg.core.errors import OptionError
from medseg.core.runs import RunFiles, write_json
from medseg.report.sources import read_source, read_sources


def test_the_status_is_the_one_that_was_evaluated(make_run):
    run = make_run()
    (run / "cases.csv").write_text("case_id,class_name,status,role\na,liver,fp_only,unseen\n")
    source = read_source(run)
    assert source.status("a", "liver") == "fp_only"
    assert source.status("c", "lesion") == "missed"


def test_the_role_in_the_case_table_counts_before_the_journal(make_run):
    run = make_run(trained=("a", "b"))
    (run / "cases.csv").write_text("case_id,class_name,status,role\na,liver,present,unseen\n")
    assert read_source(run).case_ids == ("a", "c")


def test_the_newest_line_of_a_case_counts_and_a_torn_one_does_not(make_run):
    run = make_run()
    journal = RunFiles(run).predictions / "predictions.jsonl"
    line = json.dumps({"case_id": "a", "role": "training"})
    journal.write_text(
        f'{journal.read_text().removesuffix("{torn")}{line}\n[1]\n{{"case_id": "b", "ro'
    )
    assert read_source(run).case_ids == ("b", "c")


def test_curves_keep_the_numbers_of_a_damaged_file(make_run):
    run = make_run()
    RunFiles(run).curves.write_text(
        "step,val/dice,train/loss\n1,,0.5\n2,0.8,oops\n3,nan\n4,0.9,0.4,7\n"
    )
    assert read_source(run).curves == [
        {"step": 1, "train/loss": 0.5},
        {"step": 2, "val/dice": 0.8},
        {"step": 3},
        {"step": 4, "val/dice": 0.9, "train/loss": 0.4},
    ]


def test_damaged_parts_count_as_missing(make_run):
    run = make_run()
    files = RunFiles(run)
    files.fit.write_text("{")
    files.curves.write_bytes(b"\xff\x00\n\xfe")
    (run / "summary.json").write_text("[]")
    (run / "cases.csv").write_text("no,table\nx\n")
    missing = " ".join(read_source(run).missing)
    for name, command in (
        ("fit.json", "fit"),
        ("metrics.csv", "fit"),
        ("summary.json", "evaluate"),
    ):
        assert f"{name} is not there or not readable" in missing
        assert f"`medseg {command}` writes it" in missing


def test_a_whole_run_misses_nothing(make_source):
    assert make_source().missing == ()


def test_a_run_without_scores_says_how_to_get_them(make_run):
    run = make_run()
    RunFiles(run).scores.unlink()
    (sentence,) = read_source(run).missing
    assert "`medseg predict`, then `medseg evaluate`" in sentence


def test_a_score_file_finds_the_label_maps_it_scored(tmp_path, write_score_file):
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "predictions.jsonl").write_text('{"case_id": "a", "role": "training"}\n')
    files = [{"case_id": c, "prediction_file": str(folder / f"{c}.nii.gz")} for c in "abc"]
    write_json(tmp_path / "mine_summary.json", {"metric_per_case": files})
    source = read_source(write_score_file("mine.csv"))
    assert source.predictions == folder
    assert source.case_ids == ("b", "c")


def test_a_score_file_of_any_ending_is_read(write_score_file):
    assert read_source(write_score_file("scores.txt")).case_ids == ("a", "b", "c")


def test_all_wrong_requests_are_named_at_once(tmp_path, make_run):
    (tmp_path / "empty").mkdir()
    run = make_run()
    paths = [tmp_path / "absent", tmp_path / "empty", run, run]
    with pytest.raises(OptionError, match="3 problems") as caught:
        read_sources(paths)
    for words in ("no such run directory", "holds neither", "is named twice"):
        assert words in str(caught.value)


def test_one_wrong_request_is_one_sentence(tmp_path):
    with pytest.raises(
        OptionError, match=r"^--runs .*absent: no such run directory or score file\.$"
    ):
        read_sources([tmp_path / "absent"])


def test_two_runs_of_one_name_are_told_apart(make_run):
    paths = [make_run(within="x"), make_run(within="y")]
    assert [source.name for source in read_sources(paths)] == [str(path) for path in paths]
