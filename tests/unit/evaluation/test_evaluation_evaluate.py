"""`medseg evaluate` from files to files."""

import csv
import json
import math

import numpy as np
import pytest

from medseg.cli import main
from medseg.core.errors import MedsegError, OptionError
from medseg.core.metrics import LESION_METRICS, METRIC_VERSION, METRICS
from medseg.core.runs import read_scores
from medseg.evaluation.evaluate import evaluate
from medseg.evaluation.options import EvaluateOptions


def run(tmp_path, **options):
    options = {"predictions": tmp_path / "predictions", "workers": 1} | options
    return evaluate(EvaluateOptions(output=tmp_path / "out", **options))


def summary_in(tmp_path):
    def refuse(text):
        raise AssertionError(f"{text} is not JSON")

    return json.loads((tmp_path / "out" / "summary.json").read_text(), parse_constant=refuse)


def cases_in(tmp_path):
    with (tmp_path / "out" / "cases.csv").open(newline="") as file:
        return {(row["case_id"], row["class_name"]): row for row in csv.DictReader(file)}


def scores_in(tmp_path):
    rows = read_scores(tmp_path / "out" / "scores.csv")
    return {(row.case_id, row.class_name, row.metric): row.value for row in rows}


def note(tmp_path, *records):
    path = tmp_path / "predictions" / "predictions.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


# with a manifest


def test_manifest_gives_references_classes_and_groups(tmp_path, data_set, save, cube, screen):
    manifest = data_set({"a": 0, "b": 1})
    save(tmp_path / "predictions" / "a.nii.gz", cube())
    save(tmp_path / "predictions" / "sub" / "b.nii", cube(stop=8))
    assert run(tmp_path, manifest=manifest) == 0
    scores = scores_in(tmp_path)
    assert len(scores) == 2 * 2 * (len(METRICS) - len(LESION_METRICS))
    assert scores["a", "organ", "dice"] == 1.0
    assert scores["b", "organ", "dice"] == pytest.approx(2 * 64 / (64 + 96))
    assert scores["b", "organ", "hd_mm"] == pytest.approx(2.0)
    assert scores["b", "organ", "volume_ref_ml"] == pytest.approx(64 * 3.0 / 1000)
    assert math.isnan(scores["a", "tumour", "dice"])
    assert read_scores(tmp_path / "out" / "scores.csv")[0].group == "patient of a"
    row = cases_in(tmp_path)["b", "organ"]
    assert (row["status"], row["n_ref"], row["n_pred"], row["value"]) == (
        "present",
        "64",
        "96",
        "1",
    )
    assert row["spacing_mm"] == "1 x 1.5 x 2"
    assert cases_in(tmp_path)["a", "tumour"]["status"] == "absent"
    assert "organ" in screen.text
    assert METRIC_VERSION in screen.text


def test_summary_holds_means_counts_and_definitions(tmp_path, data_set, save, cube):
    manifest = data_set({"a": 0, "b": 0, "c": 0})
    save(tmp_path / "predictions" / "a.nii.gz", cube())
    save(tmp_path / "predictions" / "b.nii.gz", cube(stop=8))
    save(tmp_path / "predictions" / "c.nii.gz", cube(value=4))
    assert run(tmp_path, manifest=manifest) == 0
    summary = summary_in(tmp_path)
    dice = summary["classes"]["organ"]["metrics"]["dice"]
    assert dice["mean"] == pytest.approx((1 + 0.8 + 0) / 3)
    assert (dice["n"], dice["n_missed"], dice["n_invented"], dice["n_absent"]) == (3, 1, 0, 0)
    assert dice["ci_method"] == "t"
    assert dice["ci_low"] < dice["mean"] < dice["ci_high"]
    assert summary["classes"]["organ"]["missed_rate"]["rate"] == pytest.approx(1 / 3)
    hd = summary["classes"]["organ"]["metrics"]["hd_mm"]
    diagonal = math.hypot(11 * 1.0, 9 * 1.5, 7 * 2.0)
    assert (hd["mean"], hd["n"], hd["median"]) == (pytest.approx(1.0), 2, pytest.approx(2.0))
    assert hd["mean_with_penalty"] == pytest.approx((0 + 2 + diagonal) / 3)
    assert summary["penalty"]["largest_mm"] == pytest.approx(diagonal)
    tumour = summary["classes"]["tumour"]
    assert tumour["metrics"]["dice"]["mean"] == 0.0
    assert tumour["invented_rate"]["of"] == 3
    assert tumour["metrics"]["hd_mm"]["mean"] is None
    assert summary["foreground"]["dice"] == {"mean": pytest.approx(0.3), "n_classes": 2}
    assert (summary["tolerance_mm"], summary["grid_tolerance"]) == (2.0, 0.01)
    assert summary["metric_version"] == METRIC_VERSION
    assert summary["chosen_on_scored_cases"] is False


def test_summary_has_the_keys_of_nnunet(tmp_path, data_set, save, cube):
    manifest = data_set({"a": 0, "b": 0})
    save(tmp_path / "predictions" / "a.nii.gz", cube())
    save(tmp_path / "predictions" / "b.nii.gz", cube(stop=8))
    run(tmp_path, manifest=manifest)
    summary = summary_in(tmp_path)
    case = summary["metric_per_case"][1]
    assert case["metrics"]["1"] == {
        "Dice": 0.8, "IoU": pytest.approx(64 / 96), "TP": 64, "FP": 32, "FN": 0, "TN": 864,
        "n_pred": 96, "n_ref": 64,
    }  # fmt: skip
    assert case["prediction_file"].endswith("b.nii.gz")
    assert summary["mean"]["1"]["Dice"] == pytest.approx(0.9)
    assert summary["mean"]["1"]["FP"] == 16
    assert summary["mean"]["4"]["Dice"] is None
    assert summary["foreground_mean"]["Dice"] == pytest.approx(0.9)


def test_only_the_fold_asked_for_is_scored(tmp_path, data_set, save, cube, screen):
    manifest = data_set({"a": 0, "b": 1})
    for case_id in "ab":
        save(tmp_path / "predictions" / f"{case_id}.nii.gz", cube())
    assert run(tmp_path, manifest=manifest, fold=1) == 0
    assert {case_id for case_id, *_ in scores_in(tmp_path)} == {"b"}
    assert "not scored: 'a'" in screen.text


def test_case_without_prediction_fails_and_the_rest_is_scored(
    tmp_path, data_set, save, cube, screen
):
    manifest = data_set({"a": 0, "b": 0})
    save(tmp_path / "predictions" / "a.nii.gz", cube())
    assert run(tmp_path, manifest=manifest) == 3
    assert "case 'b' is not scored: no prediction" in screen.text
    cases = summary_in(tmp_path)["cases"]
    assert (cases["given"], cases["scored"], cases["failed"]) == (2, 1, {"b": "no prediction"})


@pytest.mark.parametrize("side", ["labels", "predictions"])
def test_label_value_outside_the_table_fails_its_case(tmp_path, data_set, save, cube, side):
    manifest = data_set({"a": 0, "b": 0})
    for case_id in "ab":
        save(tmp_path / "predictions" / f"{case_id}.nii.gz", cube())
    save(tmp_path / side / "b.nii.gz", cube(value=3))
    assert run(tmp_path, manifest=manifest) == 3
    reason = summary_in(tmp_path)["cases"]["failed"]["b"]
    assert "foreign-label" in reason
    assert f"{side}/b.nii.gz" in reason
    assert ": 3 (" in reason


def test_ignored_label_counts_for_nobody(tmp_path, data_set, save, cube):
    labels = {"background": 0, "organ": 1, "ignore": 255}
    manifest = data_set({"a": 0}, labels=labels)
    reference = cube()
    reference[6:] = 255
    save(tmp_path / "labels" / "a.nii.gz", reference)
    save(tmp_path / "predictions" / "a.nii.gz", cube(stop=12))
    assert run(tmp_path, manifest=manifest) == 0
    assert scores_in(tmp_path)["a", "organ", "dice"] == 1.0
    assert summary_in(tmp_path)["metric_per_case"][0]["metrics"]["1"]["TN"] == 6 * 80 - 64


@pytest.mark.parametrize(
    ("affine", "words"),
    [
        (np.diag([1.0, 1.5, 2.5, 1.0]), "spacing"),
        (np.diag([-1.0, 1.5, 2.0, 1.0]), "orientation RAS against LAS"),
        ([[1, 0, 0, 0.1], [0, 1.5, 0, 0], [0, 0, 2, 0], [0, 0, 0, 1]], "position"),
    ],
)
def test_another_grid_is_refused(tmp_path, data_set, save, cube, affine, words):
    manifest = data_set({"a": 0, "b": 0})
    save(tmp_path / "predictions" / "a.nii.gz", cube())
    save(tmp_path / "predictions" / "b.nii.gz", cube(), np.array(affine, float))
    assert run(tmp_path, manifest=manifest) == 3
    reason = summary_in(tmp_path)["cases"]["failed"]["b"]
    assert "different grids" in reason
    assert words in reason


def test_grid_tolerance_accepts_a_small_shift(tmp_path, data_set, save, cube):
    manifest = data_set({"a": 0})
    affine = np.diag([1.0, 1.5, 2.0, 1.0])
    affine[0, 3] = 0.1
    save(tmp_path / "predictions" / "a.nii.gz", cube(), affine)
    assert run(tmp_path, manifest=manifest, grid_tolerance=0.2) == 0
    assert summary_in(tmp_path)["grid_tolerance"] == 0.2


def test_nothing_scored_is_a_wrong_request(tmp_path, data_set, save, cube):
    manifest = data_set({"a": 0})
    save(tmp_path / "predictions" / "a.nii.gz", cube()[:, :, :5])
    with pytest.raises(
        MedsegError, match=r"no case could be scored(.|\n)*a: .*shape \(12, 10, 8\)"
    ):
        run(tmp_path, manifest=manifest)
    assert not (tmp_path / "out" / "scores.csv").exists()


# with a folder of references


def test_folder_pairs_by_name_and_names_what_is_left_over(tmp_path, save, cube, screen):
    save(tmp_path / "refs" / "a.nii.gz", cube(value=2))
    save(tmp_path / "refs" / "lonely.nii.gz", cube())
    save(tmp_path / "predictions" / "a.nii", cube(value=2, stop=8))
    save(tmp_path / "predictions" / "extra.nii.gz", cube())
    assert run(tmp_path, references=tmp_path / "refs") == 0
    assert scores_in(tmp_path)["a", "2", "dice"] == pytest.approx(0.8)
    cases = summary_in(tmp_path)["cases"]
    assert cases["unmatched_predictions"] == ["extra"]
    assert cases["unmatched_references"] == ["lonely"]
    assert "'extra'" in screen.text
    assert "'lonely'" in screen.text


def test_every_case_has_a_row_for_every_value_found_anywhere(tmp_path, save, cube):
    save(tmp_path / "refs" / "a.nii.gz", cube(value=2))
    save(tmp_path / "predictions" / "a.nii.gz", cube(value=2))
    save(tmp_path / "refs" / "b.nii.gz", cube(value=1))
    save(tmp_path / "predictions" / "b.nii.gz", cube(value=5))
    assert run(tmp_path, references=tmp_path / "refs") == 0
    rows = cases_in(tmp_path)
    status = {key: row["status"] for key, row in rows.items()}
    assert status == {
        ("a", "1"): "absent", ("a", "2"): "present", ("a", "5"): "absent",
        ("b", "1"): "missed", ("b", "2"): "absent", ("b", "5"): "fp_only",
    }  # fmt: skip
    assert scores_in(tmp_path)["b", "1", "hd95_mm"] == math.inf
    assert rows["b", "1"]["hd95_mm"] == "inf"


def test_two_files_of_one_case_are_ambiguous(tmp_path, save, cube):
    for name in ("a.nii.gz", "sub/a.nii.gz", "b.nii.gz"):
        save(tmp_path / "predictions" / name, cube())
        save(tmp_path / "refs" / name, cube())
    assert run(tmp_path, references=tmp_path / "refs") == 3
    assert summary_in(tmp_path)["cases"]["failed"]["a"].startswith(
        "2 files could be its prediction"
    )


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.linspace(0, 1, 960, dtype=np.float32).reshape(12, 10, 8), "not whole"),
        (np.full((12, 10, 8), -1, np.int16), "no class has: -1"),
        (np.full((12, 10, 8), np.nan, np.float32), "NaN"),
        (np.zeros((12, 10, 8, 2), np.uint8), "wrong-channels"),
    ],
)
def test_files_that_are_no_label_maps_are_refused(tmp_path, save, cube, array, words):
    for case_id in "ab":
        save(tmp_path / "refs" / f"{case_id}.nii.gz", cube())
        save(tmp_path / "predictions" / f"{case_id}.nii.gz", cube())
    save(tmp_path / "predictions" / "b.nii.gz", array)
    assert run(tmp_path, references=tmp_path / "refs") == 3
    assert words in summary_in(tmp_path)["cases"]["failed"]["b"]


def test_more_values_than_a_label_table_has_are_refused(tmp_path, save):
    image = np.arange(1200, dtype=np.int16).reshape(10, 12, 10)
    save(tmp_path / "refs" / "a.nii.gz", image)
    save(tmp_path / "predictions" / "a.nii.gz", image)
    with pytest.raises(MedsegError, match="1200 different values"):
        run(tmp_path, references=tmp_path / "refs")


def test_label_map_stored_as_real_numbers_is_read(tmp_path, save, cube):
    save(tmp_path / "refs" / "a.nii.gz", cube())
    save(tmp_path / "predictions" / "a.nii.gz", cube().astype(np.float32) * 0.9999999)
    assert run(tmp_path, references=tmp_path / "refs") == 0
    assert scores_in(tmp_path)["a", "1", "dice"] == 1.0


@pytest.mark.parametrize("name", ["=cmd()", "[red]x[]", "@x", 'a,b"c', "{0}%s", "Größe 大"])
def test_hostile_case_names_come_back_as_they_are(tmp_path, save, cube, name):
    save(tmp_path / "refs" / f"{name}.nii.gz", cube())
    save(tmp_path / "predictions" / f"{name}.nii.gz", cube())
    assert run(tmp_path, references=tmp_path / "refs") == 0
    assert scores_in(tmp_path)[name, "1", "dice"] == 1.0
    (case_id, _), row = next(iter(cases_in(tmp_path).items()))
    assert case_id[0] not in "=@", "a spreadsheet takes it for a formula"
    assert row["status"] == "present"


def test_worker_processes_give_the_same_files(tmp_path, data_set, save, cube, monkeypatch):
    monkeypatch.setattr("medseg.evaluation.evaluate.WORTH_A_WORKER", 1)
    manifest = data_set({"a": 0, "b": 0, "c": 0})
    for case_id, stop in (("a", 5), ("b", 7)):
        save(tmp_path / "predictions" / f"{case_id}.nii.gz", cube(stop=stop))
    save(tmp_path / "predictions" / "c.nii.gz", cube(value=9))
    results = []
    for workers in (1, 2):
        assert run(tmp_path, manifest=manifest, workers=workers, overwrite=True) == 3
        files = sorted((tmp_path / "out").glob("[!.]*"))
        results.append({path.name: path.read_bytes() for path in files})
    assert set(results[0]) == {"scores.csv", "cases.csv", "summary.json"}
    assert results[0] == results[1]


# what predict noted


def test_training_cases_are_scored_but_kept_out_of_the_means(
    tmp_path, data_set, save, cube, screen
):
    manifest = data_set({"a": 0, "b": 0})
    save(tmp_path / "predictions" / "a.nii.gz", cube())
    save(tmp_path / "predictions" / "b.nii.gz", cube(stop=8))
    note(
        tmp_path,
        {"case_id": "a", "status": "ok", "message": "", "role": "training", "checkpoint": "last"},
        {"case_id": "b", "status": "ok", "message": "", "role": "unseen", "checkpoint": "last"},
    )
    assert run(tmp_path, manifest=manifest) == 0
    assert scores_in(tmp_path)["a", "organ", "dice"] == 1.0
    assert cases_in(tmp_path)["a", "organ"]["role"] == "training"
    summary = summary_in(tmp_path)
    assert summary["classes"]["organ"]["metrics"]["dice"]["mean"] == pytest.approx(0.8)
    assert summary["classes"]["organ"]["metrics"]["dice"]["n"] == 1
    assert summary["mean"]["1"]["Dice"] == pytest.approx(0.8)
    assert (summary["cases"]["scored"], summary["cases"]["in_means"]) == (2, 1)
    assert summary["cases"]["training_kept_out_of_means"] == ["a"]
    assert "cases with the names of training cases, kept out of all means: 'a'" in screen.text


def test_nothing_but_training_cases_has_no_mean(tmp_path, data_set, save, cube):
    manifest = data_set({"a": 0})
    save(tmp_path / "predictions" / "a.nii.gz", cube())
    note(tmp_path, {"case_id": "a", "status": "ok", "role": "training"})
    assert run(tmp_path, manifest=manifest) == 0
    summary = summary_in(tmp_path)
    assert summary["classes"]["organ"]["metrics"]["dice"]["mean"] is None
    assert summary["mean"]["1"] == {}
    assert len(summary["metric_per_case"]) == 1


@pytest.mark.parametrize(
    ("checkpoint", "role", "chosen"),
    [
        ("best", "validation", True),
        ("runs/a/checkpoints/best.ckpt", "validation", True),
        ("last", "validation", False),
        ("best", "unseen", False),
    ],
)
def test_checkpoint_chosen_on_the_scored_cases_is_told(
    tmp_path, data_set, save, cube, screen, checkpoint, role, chosen
):
    manifest = data_set({"a": 0})
    save(tmp_path / "predictions" / "a.nii.gz", cube())
    note(tmp_path, {"case_id": "a", "status": "ok", "role": role, "checkpoint": checkpoint})
    assert run(tmp_path, manifest=manifest) == 0
    assert summary_in(tmp_path)["chosen_on_scored_cases"] is chosen
    assert screen.text.count("--checkpoint last") == int(chosen)


@pytest.mark.parametrize(
    ("applied", "role", "told"),
    [
        ("on", "validation", True),
        ("off", "validation", False),
        ("none", "validation", False),
        (None, "validation", False),
        ("on", "unseen", False),
    ],
)
def test_postprocessing_learned_on_the_scored_cases_is_told(
    tmp_path, data_set, save, cube, screen, applied, role, told
):
    manifest = data_set({"a": 0})
    save(tmp_path / "predictions" / "a.nii.gz", cube())
    line = {"case_id": "a", "status": "ok", "role": role, "checkpoint": "last"}
    note(tmp_path, line | ({"postprocessing": applied} if applied else {}))
    assert run(tmp_path, manifest=manifest) == 0
    assert summary_in(tmp_path)["postprocessing_learned_on_scored_cases"] is told
    assert screen.text.count("--postprocessing off") == int(told)


def test_stale_prediction_of_a_failed_case_is_not_scored(tmp_path, data_set, save, cube):
    manifest = data_set({"a": 0, "b": 0})
    for case_id in "ab":
        save(tmp_path / "predictions" / f"{case_id}.nii.gz", cube())
    note(
        tmp_path,
        {"case_id": "b", "status": "ok"},
        {"case_id": "b", "status": "failed", "message": "image is truncated"},
    )
    assert run(tmp_path, manifest=manifest) == 3
    reason = summary_in(tmp_path)["cases"]["failed"]["b"]
    assert reason == "predict failed on it: image is truncated"


def test_newest_line_counts_and_a_torn_one_does_not(tmp_path, data_set, save, cube):
    manifest = data_set({"a": 0})
    save(tmp_path / "predictions" / "a.nii.gz", cube())
    path = note(
        tmp_path,
        {"case_id": "a", "status": "failed", "message": "no memory"},
        {"case_id": "a", "status": "ok", "role": "unseen"},
    )
    path.write_text(path.read_text() + '[1]\n{"case_id": "a", "status": "fai')
    assert run(tmp_path, manifest=manifest) == 0
    assert summary_in(tmp_path)["metric_per_case"][0]["role"] == "unseen"


# warnings and requests


@pytest.mark.parametrize(("tolerance", "warned"), [(1.9, True), (2.0, False)])
def test_tolerance_below_the_spacing_is_told(
    tmp_path, data_set, save, cube, screen, tolerance, warned
):
    manifest = data_set({"a": 0})
    save(tmp_path / "predictions" / "a.nii.gz", cube())
    assert run(tmp_path, manifest=manifest, tolerance_mm=(str(tolerance),)) == 0
    assert ("below the largest spacing" in screen.text) == warned
    assert summary_in(tmp_path)["cases"]["spacing_above_tolerance"] == (["a"] if warned else [])


def test_tolerance_reaches_the_surface_distance(tmp_path, data_set, save, cube):
    manifest = data_set({"a": 0})
    save(tmp_path / "predictions" / "a.nii.gz", cube(stop=7))
    found = []
    for tolerance in (0.5, 1.0):
        run(tmp_path, manifest=manifest, tolerance_mm=(str(tolerance),))
        found.append(scores_in(tmp_path)["a", "organ", "nsd"])
    assert found[0] < found[1] == 1.0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "either --references FOLDER or --manifest FILE"),
        ({"references": "refs", "manifest": "manifest.json"}, "either --references"),
        ({"references": "refs", "fold": 1}, "go with --manifest"),
        ({"references": "nowhere"}, "nowhere: no such folder"),
        ({"references": "empty"}, "holds no label map"),
        ({"references": "predictions"}, "same folder"),
        ({"references": "refs", "tolerance_mm": ("0",)}, "--tolerance_mm must be above 0"),
        ({"references": "refs", "tolerance_mm": ("nan",)}, "--tolerance_mm"),
        ({"references": "refs", "grid_tolerance": -1.0, "workers": -1}, "2 problems"),
        ({"references": "refs", "predictions": "empty"}, "--predictions .* holds no label map"),
    ],
)
def test_impossible_requests_are_refused_in_words(tmp_path, save, cube, options, words):
    (tmp_path / "empty").mkdir()
    for side in ("refs", "predictions"):
        save(tmp_path / side / "a.nii.gz", cube())
    given = {k: tmp_path / v if isinstance(v, str) else v for k, v in options.items()}
    with pytest.raises(OptionError, match=words):
        run(tmp_path, **given)


def test_maps_without_any_structure_have_no_class(tmp_path, save, cube):
    for side in ("refs", "predictions"):
        save(tmp_path / side / "a.nii.gz", cube(value=0))
    with pytest.raises(MedsegError, match="every label map is empty"):
        run(tmp_path, references=tmp_path / "refs")


def test_output_that_is_a_file_is_refused_before_the_work(tmp_path, save, cube):
    for side in ("refs", "predictions"):
        save(tmp_path / side / "a.nii.gz", cube())
    (tmp_path / "out").write_text("in the way")
    with pytest.raises(OptionError, match="cannot be made"):
        run(tmp_path, references=tmp_path / "refs")


def test_command_line_writes_beside_a_named_csv(tmp_path, save, cube, capsys):
    for side in ("refs", "predictions"):
        save(tmp_path / side / "a.nii.gz", cube())
    folders = [f"--{name}={tmp_path / name}" for name in ("predictions",)]
    status = main(
        ["evaluate", *folders, f"--references={tmp_path / 'refs'}", "--workers=1",
         f"--output={tmp_path / 'fold0.csv'}"]
    )  # fmt: skip
    assert status == 0
    assert (tmp_path / "fold0_cases.csv").is_file()
    assert (tmp_path / "fold0_summary.json").is_file()
    assert "1.000" in capsys.readouterr().err


def test_command_line_says_2_when_nothing_is_scored(tmp_path, save, cube, capsys):
    save(tmp_path / "refs" / "a.nii.gz", cube())
    save(tmp_path / "predictions" / "b.nii.gz", cube())
    status = main(
        ["evaluate", "--predictions", str(tmp_path / "predictions"), "--references",
         str(tmp_path / "refs"), "--output", str(tmp_path / "out")]
    )  # fmt: skip
    assert status == 2
    assert "have the same name" in capsys.readouterr().err
