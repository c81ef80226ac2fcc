"""Lesions: components, their matching and the edges of it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from scipy import ndimage

from medseg.core.lesions import LesionCounts, LesionRule, count_lesions
from medseg.core.metrics import LESION_METRICS, Structure, score_structures

SHAPE = (12, 12, 12)
ANY, HALF = LesionRule(iou=0.0), LesionRule(iou=0.5)


def boxes(*corners):
    """Return a mask of boxes, each given as start and stop along every axis."""
    mask = np.zeros(SHAPE, bool)
    for start, stop in corners:
        mask[start:stop, start:stop, start:stop] = True
    return mask


def count(reference, prediction, rule=ANY, voxel_ml=0.001):
    found = count_lesions(reference, prediction, voxel_ml, rule)
    return found.n_ref, found.n_pred, found.n_matched


def test_lesions_are_matched_missed_and_false():
    reference, prediction = boxes((0, 2), (4, 6)), boxes((4, 6), (8, 9), (10, 11))
    found = count_lesions(reference, prediction, 0.001, ANY)
    assert found == LesionCounts(n_ref=2, n_pred=3, n_matched=1)
    assert found.values == {"lesion_f1": 0.4, "lesions_missed": 1.0, "lesions_false": 2.0}


@pytest.mark.parametrize(("connectivity", "lesions"), [(6, 4), (18, 3), (26, 2)])
def test_connectivity_joins_over_faces_edges_and_corners(connectivity, lesions):
    mask = np.zeros(SHAPE, bool)
    mask[0, 0, 0] = mask[1, 1, 1] = True  # over a corner
    mask[6, 6, 6] = mask[7, 7, 6] = True  # over an edge
    assert count(mask, mask, LesionRule(connectivity)) == (lesions,) * 3


def test_small_components_are_no_lesions_on_either_side():
    reference, prediction = boxes((0, 2), (5, 6)), boxes((0, 2), (9, 10))
    assert count(reference, prediction, LesionRule(min_ml=0.008)) == (1, 1, 1), "8 voxels remain"
    assert count(reference, prediction, LesionRule(min_ml=0.009)) == (0, 0, 0)


def test_one_prediction_over_two_lesions_finds_one():
    reference, prediction = boxes((0, 2), (3, 5)), boxes((0, 5))
    assert count(reference, prediction) == (2, 1, 1)
    assert count(prediction, reference) == (1, 2, 1)


def test_the_best_pair_is_taken_first():
    reference = boxes((0, 4), (5, 6))
    prediction = np.zeros(SHAPE, bool)
    prediction[0:4, 0:4, 1:4] = True  # IoU 0.75
    prediction[0, 0, 0] = True
    prediction[5, 5, 5] = True
    assert count(reference, prediction, HALF) == (2, 2, 2)


@pytest.mark.parametrize(("iou", "matched"), [(0.0, 1), (8 / 27, 1), (0.3, 0)])
def test_threshold_of_iou_is_met_at_equality(iou, matched):
    assert count(boxes((0, 3)), boxes((1, 3)), LesionRule(iou=iou)) == (1, 1, matched)


def test_no_common_voxel_is_no_match_at_threshold_0():
    assert count(boxes((0, 2)), boxes((2, 4))) == (1, 1, 0)


@pytest.mark.parametrize(
    ("sides", "values"),
    [("r", (0.0, 1.0, 0.0)), ("p", (0.0, 0.0, 1.0)), ("", (float("nan"), 0.0, 0.0))],
)
def test_status_table_of_lesions(sides, values):
    empty, box = np.zeros(SHAPE, np.uint8), boxes((1, 3)).astype(np.uint8)
    pair = [box if side in sides else empty for side in "rp"]
    rule = Structure((1,), lesions=LesionRule())
    found = score_structures(*pair, [rule], (1.0, 1.0, 1.0))[0].values
    assert [found[name] for name in LESION_METRICS] == pytest.approx(values, nan_ok=True)


masks = st_numpy.arrays(np.bool_, (5, 5, 5))


@settings(deadline=None, max_examples=60)
@given(masks, masks, st.sampled_from([6, 18, 26]), st.sampled_from([0.0, 0.1, 0.5]))
def test_matching_is_symmetric_and_bounded(one, other, connectivity, iou):
    rule = LesionRule(connectivity, iou=iou)
    n_ref, n_pred, matched = count(one, other, rule)
    assert count(other, one, rule)[:2] == (n_pred, n_ref)
    if iou == 0.5:  # below, equal IoUs may leave a choice
        assert count(other, one, rule)[2] == matched
    assert matched <= min(n_ref, n_pred)
    rank = {6: 1, 18: 2, 26: 3}[connectivity]
    assert n_ref == ndimage.label(one, ndimage.generate_binary_structure(3, rank))[1]
    assert count(one, one, rule) == (n_ref, n_ref, n_ref)
