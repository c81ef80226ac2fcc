"""`medseg compare`: from score files to the verdict, and what it refuses."""

import csv
import json

import numpy as np
import pytest

from medseg import cli
from medseg.core.errors import OptionError
from medseg.core.runs import Score, write_scores
from medseg.evaluation.compare import compare
from medseg.evaluation.compare_options import CompareOptions

BASE = np.linspace(0.7, 0.9, 24)
NOISE = np.random.default_rng(0).normal(0, 0.004, 24)


@pytest.fixture
def scores(tmp_path):
    """Return a function that writes a score file and returns its path."""

    def write(
        name, values=BASE, classes=("organ",), metrics=("dice", "hd95_mm"), start=0, groups=None
    ):
        rows = [
            Score(f"case_{i:02d}", (groups or {}).get(i, ""), class_name, metric,
                  float(v) if metric == "dice" else 10 * (1 - float(v)))
            for i, v in enumerate(values, start) for class_name in classes for metric in metrics
        ]  # fmt: skip
        write_scores(tmp_path / name, rows)
        return tmp_path / name

    return write


def run(tmp_path, *paths, **options):
    assert compare(CompareOptions(tuple(paths), tmp_path / "out", **options)) == 0
    return json.loads((tmp_path / "out" / "comparison.json").read_text())


def test_the_verdict_is_on_standard_output_and_the_files_are_there(tmp_path, scores, capsys):
    a, b = scores("batch/scores.csv"), scores("group/scores.csv", BASE + 0.012 + NOISE)
    status = cli.main(["compare", "--scores", str(a), str(b), "--output", str(tmp_path / "out")])
    out, err = capsys.readouterr()
    assert status == 0
    assert out.startswith("group is better than batch by 0.01")
    assert out.count("\n") == 1
    assert "One training each of batch, group" in err
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "comparison.html", "comparison.csv", "comparison.json",
    }  # fmt: skip


def test_the_table_has_a_row_for_each_pair_and_endpoint(tmp_path, scores):
    files = [
        scores(f"{k}/scores.csv", BASE + NOISE * j, ("organ", "tumour"))
        for j, k in enumerate("abc")
    ]
    content = run(tmp_path, *files)
    with (tmp_path / "out" / "comparison.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    keys = [(row["first"], row["second"], row["metric"], row["class_name"]) for row in rows]
    assert keys[:3] == [("a", "b", "dice", ""), ("a", "c", "dice", ""), ("b", "c", "dice", "")]
    assert len(keys) == len(set(keys)) == 3 * (1 + 2 + 3)
    assert float(rows[0]["difference"]) == pytest.approx(NOISE.mean())
    assert content["primary"][0]["difference"] == pytest.approx(NOISE.mean())
    assert content["schema"] == "medseg-comparison-1"


def test_json_stays_valid_where_numbers_are_not_defined(tmp_path, scores):
    a, b = scores("a/scores.csv", [0.5]), scores("b/scores.csv", [0.6])
    content = json.loads((run(tmp_path, a, b) and (tmp_path / "out" / "comparison.json")).read_text(),
                         parse_constant=pytest.fail)  # fmt: skip
    assert content["primary"][0]["ci_low"] is None
    assert content["primary"][0]["outcome"] == "too few"


def test_files_of_one_name_are_seeds_of_one_variant(tmp_path, scores):
    files = [
        scores(f"{k}.csv", BASE + shift)
        for k, shift in (("a1", 0), ("a2", 0.01), ("b1", 0.02), ("b2", 0.03))
    ]
    content = run(tmp_path, *files, variants=("batch", "batch", "group", "group"))
    assert [level["name"] for level in content["levels"]] == ["batch", "group"]
    assert content["levels"][0]["seed_means"] == pytest.approx([0.8, 0.81])
    assert content["primary"][0]["difference"] == pytest.approx(0.02)
    assert content["primary"][0]["ci_method"] == "two-level bootstrap"


def test_a_variant_is_named_after_its_run_directory_or_its_file(tmp_path, scores):
    files = [
        scores("lr0.1/scores.csv").parent,
        scores("lr0.2/scores.csv"),
        scores("other.tool.csv"),
    ]
    content = run(tmp_path, *files)
    assert [level["name"] for level in content["levels"]] == ["lr0.1", "lr0.2", "other.tool"]


def test_training_cases_and_cases_of_one_file_only_are_left_out_and_named(tmp_path, scores, caplog):
    a, b = scores("a/scores.csv"), scores("b/scores.csv", BASE + NOISE, start=2)
    (a.parent / "cases.csv").write_text("case_id,role\ncase_05,training\ncase_06,validation\n")
    caplog.set_level("WARNING", "medseg")
    content = run(tmp_path, a, b)
    assert content["n_cases"] == 21
    assert "Cases that trained a network, left out: 1 (case_05)." in content["notes"]
    assert (
        "Cases that are not in all files, left out: 4 (case_00, case_01, case_24, case_25)."
        in content["notes"]
    )
    files = {f["variant"]: (f["scored"], f["trained"], f["unmatched"]) for f in content["files"]}
    assert files == {"a": (24, 1, 2), "b": (24, 0, 3)}


def test_training_cases_are_known_from_the_journal_too(tmp_path, scores):
    a, b = scores("a/scores.csv"), scores("b/scores.csv", BASE + NOISE)
    journal = a.parent / "predictions" / "predictions.jsonl"
    journal.parent.mkdir()
    journal.write_text('{"case_id": "case_03", "role": "training"}\n')
    assert run(tmp_path, a, b)["n_cases"] == 23
    assert run(tmp_path, a.parent, b.parent)["n_cases"] == 23


def test_scans_of_a_patient_count_once_unless_told_otherwise(tmp_path, scores):
    groups = {i: f"patient {i // 3}" for i in range(24)}
    a = scores("a/scores.csv", groups=groups)
    b = scores("b/scores.csv", BASE + 0.012 + NOISE)  # another tool that knows no groups
    assert run(tmp_path, a, b)["primary"][0]["n"] == 8
    assert run(tmp_path, a, b, unit="case")["primary"][0]["n"] == 24


def test_classes_and_metrics_that_not_all_have_are_left_out_and_named(tmp_path, scores):
    a = scores("a/scores.csv", classes=("organ", "tumour"), metrics=("dice",))
    content = run(tmp_path, a, scores("b/scores.csv"))
    assert "Classes that are not in all files, left out: 1 (tumour)." in content["notes"]
    assert any(note.startswith("Metrics that not all files have") and "2 (hd95_mm, nsd)" in note
               for note in content["notes"])  # fmt: skip
    assert content["descriptive"] == []


def test_surface_dice_of_two_tolerances_is_not_compared(tmp_path, scores):
    files = [scores(f"{k}/scores.csv", metrics=("dice", "nsd")) for k in "ab"]
    for path, tolerance in zip(files, (1.0, 2.0), strict=True):
        (path.parent / "summary.json").write_text(json.dumps({"tolerance_mm": tolerance}))
    content = run(tmp_path, *files, metrics=("nsd",))
    assert content["descriptive"] == []
    (files[0].parent / "summary.json").write_text('{"tolerance_mm": 2.0}')
    assert run(tmp_path, *files, metrics=("nsd",))["descriptive"][0]["metric"] == "nsd"


def test_a_checkpoint_chosen_on_the_scored_cases_is_noted(tmp_path, scores):
    a, b = scores("a/scores.csv"), scores("b/scores.csv")
    (a.parent / "summary.json").write_text('{"chosen_on_scored_cases": true}')
    notes = run(tmp_path, a, b)["notes"]
    assert any(
        note.startswith("Checkpoints chosen on cases that are scored here") for note in notes
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scores": ("a.csv",)}, "--scores needs two or more"),
        ({"scores": ("a.csv", "a.csv")}, "is named twice"),
        ({"scores": ("a.csv", "nowhere.csv")}, r"nowhere\.csv: no such file or folder"),
        (
            {"variants": ("x",)},
            "--variants must name the variant of each of the 2 score files; got 1",
        ),
        ({"variants": ("x", "x")}, "all files belong to 'x'"),
        (
            {"scores": ("a.csv", "b/a.csv")},
            "--variants is needed to tell the files named 'a' apart",
        ),
        ({"difference": 0.0}, "--difference must be between 0 and 1; got 0.0"),
        ({"metrics": ("dise",)}, "got 'dise'. Did you mean 'dice'"),
        ({"metrics": ("volume_difference_ml",)}, "--metrics must be one of dice"),
    ],
)
def test_wrong_requests_are_refused_in_words(tmp_path, scores, options, message):
    for name in ("a.csv", "b.csv", "b/a.csv"):
        scores(name)
    given = {"scores": ("a.csv", "b.csv")} | options
    given["scores"] = tuple(tmp_path / name for name in given["scores"])
    with pytest.raises(OptionError, match=message):
        compare(CompareOptions(output=tmp_path / "out", **given))
    assert not (tmp_path / "out").exists()


def test_all_damaged_files_are_named_at_once(tmp_path, scores):
    a, b = scores("a.csv"), scores("b.csv", [1.4, 0.5])
    a.write_text(a.read_text() + "case_00,,organ,dice,0.3\n")
    with pytest.raises(OptionError, match="has 2 problems") as error:
        compare(CompareOptions((a, b), tmp_path / "out"))
    assert "1 scores are there more than once, the first for case 'case_00'" in str(error.value)
    assert "Dice must lie between 0 and 1" in str(error.value)


def test_groups_that_contradict_each_other_are_refused(tmp_path, scores):
    a, b = scores("a.csv", groups={0: "p1"}), scores("b.csv", groups={0: "p2"})
    with pytest.raises(OptionError, match="case 'case_00' is of group 'p2', elsewhere of 'p1'"):
        compare(CompareOptions((a, b), tmp_path / "out"))
    assert compare(CompareOptions((a, b), tmp_path / "out", unit="case")) == 0


def test_files_without_a_common_case_or_class_are_refused(tmp_path, scores):
    a = scores("a.csv")
    b = scores("b.csv", BASE[:1], start=50)
    with pytest.raises(OptionError) as error:
        compare(CompareOptions((a, b), tmp_path / "out"))
    told = f"2 ({a} with 24 cases, {b} with 1 case)"
    assert f"no case id is in all files: {told}." in str(error.value)
    with pytest.raises(OptionError, match="no class is in all files"):
        compare(CompareOptions((a, scores("c.csv", classes=("other",))), tmp_path / "out"))


def test_files_that_share_only_cases_that_trained_a_network_are_refused(tmp_path, scores):
    a, b = scores("a/scores.csv", BASE[:3]), scores("b/scores.csv", BASE[:2], start=1)
    (a.parent / "cases.csv").write_text("case_id,role\ncase_01,training\n")
    (b.parent / "cases.csv").write_text("case_id,role\ncase_02,training\n")
    with pytest.raises(OptionError) as error:
        compare(CompareOptions((a, b), tmp_path / "out"))
    assert str(error.value) == (
        "all case ids that are in each of the files trained a network: 2 (case_01, case_02); "
        f"files: 2 ({a} with 3 cases, {b} with 2 cases). Score cases that none was trained on."
    )


def test_a_run_directory_without_scores_is_refused(tmp_path, scores):
    (tmp_path / "empty").mkdir()
    with pytest.raises(OptionError, match="holds no scores; `medseg evaluate` writes them"):
        compare(CompareOptions((scores("a.csv"), tmp_path / "empty"), tmp_path / "out"))
