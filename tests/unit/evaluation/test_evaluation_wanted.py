"""Regions, tolerances and lesions as they are asked for, and as they come out."""

import json
import math

import numpy as np
import pytest

from medseg.cli import main
from medseg.core.errors import OptionError
from medseg.core.metrics import LESION_METRICS
from medseg.core.runs import read_scores
from medseg.evaluation.evaluate import evaluate
from medseg.evaluation.options import EvaluateOptions


@pytest.fixture
def run(tmp_path):
    """Return a function that scores tmp_path/predictions and returns the summary."""

    def go(**options):
        options = {"predictions": tmp_path / "predictions", "workers": 1} | options
        evaluate(EvaluateOptions(output=tmp_path / "out", **options))
        return json.loads((tmp_path / "out" / "summary.json").read_text())

    return go


@pytest.fixture
def scores(tmp_path):
    """Return a function that reads scores.csv by case, class and metric."""
    return lambda: {
        (row.case_id, row.class_name, row.metric): row.value
        for row in read_scores(tmp_path / "out" / "scores.csv")
    }


@pytest.fixture
def mixed(tmp_path, data_set, save, cube):
    """Return the manifest of one case whose organ was predicted as tumour."""
    manifest = data_set({"a": 0})
    save(tmp_path / "predictions" / "a.nii.gz", cube(value=4))
    return manifest


@pytest.mark.parametrize("words", [("both=organ,tumour",), ("both=1, 4",), ("both=4,organ,1",)])
def test_region_is_a_row_of_its_own_name(run, mixed, scores, words):
    summary = run(manifest=mixed, regions=words)
    assert scores()["a", "organ", "dice"] == 0.0
    assert scores()["a", "both", "dice"] == 1.0
    assert scores()["a", "both", "hd_mm"] == 0.0
    assert list(summary["classes"]) == ["organ", "tumour", "both"]
    assert summary["classes"]["both"]["value"] is None
    assert sorted(summary["classes"]["both"]["values"]) == [1, 4]
    assert summary["foreground"]["dice"]["mean"] == 0.0, "regions do not enter the mean of classes"


def test_regions_have_the_keys_of_nnunet(run, mixed):
    summary = run(manifest=mixed, regions=("both=1,4",))
    assert list(summary["mean"]) == ["1", "4", "(1, 4)"]
    assert summary["metric_per_case"][0]["metrics"]["(1, 4)"]["TP"] == 64
    assert summary["foreground_mean"]["Dice"] == 0.0


@pytest.mark.parametrize(
    "content", [{"both": [1, 4]}, {"labels": {"background": 0, "both": ["organ", "tumour"]}}]
)
def test_regions_from_a_file(run, mixed, tmp_path, scores, content):
    path = tmp_path / "regions.json"
    path.write_text(json.dumps(content))
    run(manifest=mixed, regions=(str(path),))
    assert scores()["a", "both", "dice"] == 1.0


def test_regions_without_a_manifest_are_of_values(run, tmp_path, save, cube, scores, screen):
    save(tmp_path / "refs" / "a.nii.gz", cube(value=1))
    save(tmp_path / "predictions" / "a.nii.gz", cube(value=3))
    run(references=tmp_path / "refs", regions=("whole=1,2,3", "none=7"))
    assert scores()["a", "whole", "dice"] == 1.0
    assert math.isnan(scores()["a", "none", "dice"])
    assert "no label map holds a value of 'none'" in screen.text


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"regions": ("x=organ,tumor",)}, "no class 'tumor'.*Did you mean 'tumour'"),
        ({"regions": ("x=1,2",)}, "no class '2'"),
        ({"regions": ("x=0,1",)}, "no class '0'"),
        ({"regions": ("organ=1",)}, "'organ': needs a name of its own"),
        ({"regions": ("x=1", "x=4")}, "'x': needs a name of its own"),
        ({"regions": ("=1",)}, "'': needs a name"),
        ({"regions": ("whole",)}, r"must be as `whole=1,2,3` or a .json file; got 'whole'"),
        ({"regions": ("nowhere.json",)}, "nowhere.json cannot be read"),
        ({"tolerance_mm": ("2", "liver=3")}, "no class 'liver'; there are organ, tumour"),
        ({"tolerance_mm": ("2", "3")}, "2 numbers for all classes"),
        ({"tolerance_mm": ("organ=0",)}, "above 0.*'organ=0'"),
        ({"lesions": ("organs",)}, "no class 'organs'.*Did you mean 'organ'"),
        ({"lesion_min_ml": -1.0, "lesion_iou": 2.0}, "2 problems"),
    ],
)
def test_impossible_wishes_are_refused_in_words(run, mixed, options, words):
    with pytest.raises(OptionError, match=words):
        run(manifest=mixed, **options)


@pytest.mark.parametrize("content", ["[1]", "{}", "nonsense", '{"x": 3}'])
def test_region_file_without_a_region_is_refused(run, mixed, tmp_path, content):
    path = tmp_path / "regions.json"
    path.write_text(content)
    with pytest.raises(OptionError, match=r"regions\.json"):
        run(manifest=mixed, regions=(str(path),))


def test_a_name_is_no_class_where_values_are(run, tmp_path, save, cube):
    for side in ("refs", "predictions"):
        save(tmp_path / side / "a.nii.gz", cube())
    with pytest.raises(OptionError, match="without --manifest, classes are named by their value"):
        run(references=tmp_path / "refs", tolerance_mm=("liver=3",))


def test_tolerance_by_class(run, tmp_path, data_set, save, cube, scores):
    manifest = data_set({"a": 0})
    labels, moved = cube(2, 4), cube(3, 5)
    labels[7:9, 2:6, 2:6], moved[8:10, 2:6, 2:6] = 4, 4
    save(tmp_path / "labels" / "a.nii.gz", labels)
    save(tmp_path / "predictions" / "a.nii.gz", moved)
    summary = run(manifest=manifest, tolerance_mm=("0.5", "tumour=1"))
    assert scores()["a", "organ", "nsd"] < scores()["a", "tumour", "nsd"] == 1.0
    assert summary["tolerance_mm"] == {"organ": 0.5, "tumour": 1.0}
    assert summary["classes"]["tumour"]["tolerance_mm"] == 1.0
    assert run(manifest=manifest, tolerance_mm=("0.5",))["tolerance_mm"] == 0.5


def test_lesions_are_counted_for_the_classes_asked(run, tmp_path, mixed, save, cube, scores):
    two = cube()
    two[9:11, 0:2, 0:2] = 1
    save(tmp_path / "labels" / "a.nii.gz", two)
    save(tmp_path / "predictions" / "a.nii.gz", cube())
    summary = run(manifest=mixed, lesions=("organ",), lesion_min_ml=0.001, lesion_iou=0.5)
    found = scores()
    assert [found["a", "organ", name] for name in LESION_METRICS] == [2 / 3, 1.0, 0.0]
    assert not {name for _, of, name in found if of == "tumour"} & set(LESION_METRICS)
    assert summary["lesion_rule"] == {"connectivity": 26, "min_ml": 0.001, "iou": 0.5}
    header, organ, tumour = (tmp_path / "out" / "cases.csv").read_text().splitlines()
    assert header.endswith(
        "lesion_f1,lesions_missed,lesions_false,lesions_ref,lesions_pred,lesions_matched"
    )
    assert organ.endswith(",2,1,1")
    assert tumour.endswith(",,,,,,")
    assert run(manifest=mixed)["lesion_rule"] is None


def test_lesions_of_all_include_absent_classes(run, mixed, scores, tmp_path, save, cube):
    save(tmp_path / "predictions" / "a.nii.gz", cube())
    run(manifest=mixed, lesions=("all",), regions=("both=1,4",))
    assert scores()["a", "both", "lesion_f1"] == 1.0
    assert math.isnan(scores()["a", "tumour", "lesion_f1"])
    assert scores()["a", "tumour", "lesions_missed"] == 0.0


@pytest.mark.parametrize(("convention", "dice"), [("nan", None), ("one", 1.0)])
def test_dice_of_two_empty_maps_by_either_convention(
    run, tmp_path, data_set, save, cube, convention, dice
):
    manifest = data_set({"a": 0})
    save(tmp_path / "predictions" / "a.nii.gz", cube())
    summary = run(manifest=manifest, empty_dice=convention)
    assert summary["classes"]["tumour"]["metrics"]["dice"]["mean"] == dice
    assert summary["classes"]["tumour"]["metrics"]["hd_mm"]["mean"] is None
    assert summary["empty_dice"] == convention


def test_confusion_between_classes_is_summed_over_cases(run, tmp_path, data_set, save, cube):
    manifest = data_set(
        {"a": 0, "b": 0}, labels={"background": 0, "organ": 1, "tumour": 4, "ignore": 9}
    )
    save(tmp_path / "predictions" / "a.nii.gz", cube(value=4))
    save(tmp_path / "predictions" / "b.nii.gz", cube(stop=5))
    reference = cube()
    reference[11] = 9
    save(tmp_path / "labels" / "b.nii.gz", reference)
    confusion = run(manifest=manifest)["confusion"]
    assert confusion["values"] == [0, 1, 4]
    voxels = np.array(confusion["voxels"])
    assert voxels.tolist() == [[960 - 64 + 960 - 64 - 80, 0, 0], [16, 48, 64], [0, 0, 0]]


def test_relaxed_grid_is_recorded_with_its_case(run, tmp_path, data_set, save, cube, screen):
    affine = np.diag([1.0, 1.5, 2.0, 1.0])
    affine[0, 3] = 0.1
    manifest = data_set({"a": 0})
    save(tmp_path / "predictions" / "a.nii.gz", cube(), affine)
    summary = run(manifest=manifest, grid_tolerance=0.2)
    assert summary["grid_tolerance"] == 0.2
    assert any(
        "grids differ by more than 0.01" in w for w in summary["metric_per_case"][0]["warnings"]
    )
    assert "grids differ by more than 0.01" in screen.text


def test_flags_reach_the_scores(tmp_path, mixed, scores):
    status = main(
        ["evaluate", f"--manifest={mixed}", f"--predictions={tmp_path / 'predictions'}", "--workers=1",
         f"--output={tmp_path / 'out'}", "--regions", "both=organ,tumour", "--tolerance_mm", "2", "both=3",
         "--lesions", "both", "--lesion_connectivity", "6", "--empty_dice", "one"]
    )  # fmt: skip
    assert status == 0
    assert scores()["a", "both", "lesion_f1"] == 1.0
