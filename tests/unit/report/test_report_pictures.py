"""Which cases are pictured, where they are cut, and how they are drawn."""

import base64
import io

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.image import imread

from medseg.core.geometry import Grid
from medseg.core.runs import Score, write_scores
from medseg.io import Volume, write_label_map
from medseg.report.choices import MOST_LOST, MOST_PICTURES, lost_structures
from medseg.report.pictures import error_words, gallery
from medseg.report.slices import (
    PREDICTION_COLOUR,
    REFERENCE_COLOUR,
    draw,
    error_centre,
    to_ras,
)
from medseg.report.sources import read_source

GRIDS = {
    "RAS": np.diag([1.0, 1.0, 1.0, 1.0]),
    "LPS": np.diag([-1.0, -1.0, 1.0, 1.0]),
    "ASL": np.array([[0, 0, -1.0, 0], [1.0, 0, 0, 0], [0, 1.0, 0, 0], [0, 0, 0, 1]]),
}


def pixels(image):
    return imread(io.BytesIO(base64.b64decode(image.removeprefix("data:image/png;base64,"))))[
        ..., :3
    ]


def near(picture, colour):
    return np.abs(picture - to_rgb(colour)).max(axis=-1) < 0.08


def test_lost_structures_come_first_then_the_lowest_dice(make_source):
    cases = {f"c{i:02d}": (0.5 + i / 50, 0.5 + i / 50) for i in range(20)} | {"lost": (0.99, 0.0)}
    shown = gallery(make_source(cases=cases), worst=2)
    assert [(picture.case_id, picture.reason) for picture in shown.pictures] == [
        ("lost", "lesion missed"),
        ("c00", "among the lowest Dice of liver and lesion"),
        ("c01", "among the lowest Dice of liver"),
    ]
    assert shown.pictures[0].scores == "liver 0.99, lesion 0.00"


def test_more_lost_structures_than_fit_are_counted(make_source):
    cases = {f"c{i}": (0.9, 0.0) for i in range(MOST_LOST + 3)}
    shown = gallery(make_source(cases=cases), worst=0)
    assert len(shown.pictures) == MOST_LOST
    assert shown.hidden == 3


def test_more_pictures_than_fit_are_counted(make_source):
    cases = {f"c{i:02d}": (0.5 + i / 50, 0.5 + i / 50) for i in range(MOST_PICTURES + 5)}
    shown = gallery(make_source(cases=cases), worst=MOST_PICTURES + 2)
    assert len(shown.pictures) == MOST_PICTURES
    assert (shown.hidden, shown.left_out) == (0, 2)


def test_the_kind_of_error_that_prevails_is_said():
    reference, prediction = np.zeros((10, 1), int), np.zeros((10, 1), int)
    reference[:6], prediction[4:7] = 1, 2
    assert error_words(reference, prediction) == "7 wrong voxels, 57 % of them missing"
    assert error_words(reference, reference) == "no error"


def test_only_the_first_pictures_carry_data_for_the_viewer(make_source):
    shown = gallery(make_source(volumes=True), worst=3, viewer_cases=2).pictures
    assert [picture.preview is not None for picture in shown] == [True, True, False]


def test_the_largest_lost_structure_of_a_case_leads(tmp_path):
    rows = [("a", "cyst", 5.0, 0.0), ("a", "vein", 0.0, 9.0), ("b", "cyst", 7.0, 0.0)]
    write_scores(
        tmp_path / "s.csv",
        [
            Score(case_id, "", name, f"volume_{side}_ml", value)
            for case_id, name, ref, pred in rows
            for side, value in (("ref", ref), ("pred", pred))
        ],
    )
    lost = lost_structures(read_source(tmp_path / "s.csv"))
    assert list(lost) == ["a", "b"]
    assert lost["a"].words == "cyst missed, vein invented"
    assert lost["a"].largest == "vein"


def test_a_lost_structure_is_cut_through_though_another_error_is_larger(make_source):
    lost, low, *_ = gallery(make_source(volumes=True), worst=2).pictures
    assert lost.case_id == "c"
    i, j, k = map(int, lost.place.strip("()").split(","))
    assert i in (9, 10)
    assert j in (7, 8)
    assert k == 6
    assert low.place.startswith(("(2,", "(3,"))  # the liver's missing part


def test_a_picture_has_both_contours(make_source):
    picture = pixels(gallery(make_source(volumes=True), worst=0).pictures[0].image)
    assert near(picture, REFERENCE_COLOUR).sum() > 30
    assert near(picture, PREDICTION_COLOUR).sum() > 30


def test_a_case_on_another_grid_is_not_drawn(make_run):
    run = make_run(volumes=True)
    grid = Grid((12, 10, 8), np.diag([-1.0, -1.0, 3.0, 1.0]))
    write_label_map(run / "predictions" / "2.nii.gz", np.ones((12, 10, 8), np.uint8), grid)
    (picture,) = gallery(read_source(run), worst=0).pictures
    assert picture.image == ""
    assert "prediction lies on another grid than the image: spacing" in picture.note


@pytest.mark.parametrize("kind", ["image", "reference", "predictions"])
def test_a_file_that_is_gone_is_named(make_run, kind):
    run = make_run(volumes=True)
    (run / kind / "2.nii.gz").unlink()
    (picture,) = gallery(read_source(run), worst=0).pictures
    assert picture.note == f"No picture. Not there: {run / kind / '2.nii.gz'}."


def test_relative_paths_say_where_to_write_the_report(make_run):
    run = make_run(volumes=True)
    journal = run / "predictions" / "predictions.jsonl"
    journal.write_text(journal.read_text().replace(str(run), "data"))
    (picture,) = gallery(read_source(run), worst=0).pictures
    assert "Not there: data/image/2.nii.gz, data/reference/2.nii.gz." in picture.note
    assert "`medseg predict` was called in" in picture.note


def test_a_case_without_a_recorded_image_has_no_picture(make_source):
    (picture,) = gallery(make_source(), worst=0).pictures
    assert picture.note == "No picture. predictions.jsonl names no image of this case."


def test_a_damaged_volume_is_said_in_the_words_of_the_reader(make_run):
    run = make_run(volumes=True)
    file = run / "image" / "2.nii.gz"
    file.write_bytes(file.read_bytes()[:-20])
    (picture,) = gallery(read_source(run), worst=0).pictures
    assert "truncated" in picture.note


def test_the_centre_is_the_depth_of_the_largest_connected_error():
    reference = np.zeros((9, 9, 9), int)
    prediction = reference.copy()
    reference[1:6, 2:7, 3:8] = 1
    prediction[8, 8, 8] = 1
    assert error_centre(reference, prediction) == (3, 4, 5)
    assert error_centre(reference, reference) == (3, 4, 5)
    assert error_centre(np.zeros((4, 6, 8)), np.zeros((4, 6, 8))) == (2, 3, 4)


def test_arrays_are_turned_to_right_anterior_superior():
    array = np.arange(24).reshape(2, 3, 4)
    grid = Grid(array.shape, GRIDS["ASL"])
    assert grid.orientation == "ASL"
    assert to_ras(array, grid).shape == (4, 2, 3)
    assert to_ras(array, grid)[0, 0, 0] == array[0, 0, 3]


@pytest.mark.parametrize("orientation", GRIDS)
def test_the_patient_is_seen_as_in_radiology_however_the_file_is_stored(orientation):
    grid = Grid((20, 20, 20), GRIDS[orientation])
    world = np.einsum("ab,bijk->aijk", GRIDS[orientation][:3, :3], np.indices(grid.shape))
    right, anterior, superior = (axis > np.median(axis) for axis in world)
    image = Volume((200 * right + 55 * anterior).astype(np.int16), grid)
    labels = Volume((right & anterior & superior).astype(np.uint8), grid)
    centre = error_centre(labels.array, np.zeros_like(labels.array))
    picture = pixels(draw(image, labels, Volume(np.zeros_like(labels.array), grid), centre))
    grey = picture[:, : picture.shape[1] // 3].mean(axis=-1)  # the axial slice
    half = grey.shape[1] // 2
    assert grey[:, :half].mean() > grey[:, half:].mean() + 0.2
    for panel in np.array_split(near(picture, REFERENCE_COLOUR), 3, axis=1):
        assert panel.sum() > 30  # every slice goes through the structure
    assert grey[: len(grey) // 2].mean() > grey[len(grey) // 2 :].mean()


def test_a_volume_of_one_slice_is_drawn():
    grid = Grid((30, 20, 1), np.diag([1.0, 1.0, 5.0, 1.0]))
    reference = np.zeros(grid.shape, np.uint8)
    reference[5:20, 5:15] = 1
    flat = Volume(np.zeros(grid.shape, np.int16), grid)
    picture = pixels(draw(flat, Volume(reference, grid), Volume(reference, grid), (10, 10, 0)))
    assert near(picture, PREDICTION_COLOUR).any()
