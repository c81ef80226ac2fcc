"""Metrics against geometry, against their own symmetries, and at the edges."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from medseg.core import surfaces
from medseg.core.errors import GeometryError
from medseg.core.labels import class_indices, confusion, label_values
from medseg.core.metrics import (
    LESION_METRICS,
    METRICS,
    Structure,
    score_classes,
    score_structures,
)
from medseg.core.surfaces import border, surface_distances, surface_metrics

SPACING = (3.0, 1.0, 0.7)
DISTANCES = [name for name, metric in METRICS.items() if metric.is_distance]
PLAIN = [name for name in METRICS if name not in LESION_METRICS]
SYMMETRIC = ["dice", "iou", "nsd", *DISTANCES]


def score(reference, prediction, spacing=SPACING, tolerance_mm=1.0):
    return score_classes(reference, prediction, [1], spacing, tolerance_mm)[0]


def box(shape, start, stop):
    mask = np.zeros(shape, np.uint8)
    mask[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))] = 1
    return mask


def ball(shape, centre, radius_mm, spacing):
    axes = np.meshgrid(*map(np.arange, shape), indexing="ij")
    squares = [(s * (a - c)) ** 2 for a, c, s in zip(axes, centre, spacing, strict=True)]
    return (sum(squares) <= radius_mm**2).astype(np.uint8)


masks = st_numpy.arrays(
    np.uint8,
    st_numpy.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=6),
    elements=st.integers(0, 1),
)
examples = settings(deadline=None, max_examples=50)
spacings = st.tuples(*[st.floats(0.2, 6.0)] * 3)


@st.composite
def pairs(draw):
    reference = draw(masks)
    prediction = draw(st_numpy.arrays(np.uint8, reference.shape, elements=st.integers(0, 1)))
    assume(reference.any() and prediction.any())
    return reference, prediction


# analytic


@pytest.mark.parametrize(("axis", "steps"), [(0, 2), (1, 3), (2, 5)])
def test_hd_of_a_translated_box_is_the_shift(axis, steps):
    start, stop = np.array([4, 5, 6]), np.array([9, 11, 14])
    moved = np.eye(3, dtype=int)[axis] * steps
    values = score(
        box((20, 20, 24), start, stop), box((20, 20, 24), start + moved, stop + moved)
    ).values
    assert values["hd_mm"] == pytest.approx(steps * SPACING[axis], abs=1e-12)
    assert values["volume_difference_ml"] == 0.0


def test_counts_and_volumes_of_overlapping_boxes():
    result = score(box((6, 6, 6), (0, 0, 0), (4, 4, 4)), box((6, 6, 6), (2, 0, 0), (6, 4, 2)))
    assert (result.status, result.n_ref, result.n_pred, result.n_overlap) == ("present", 64, 32, 16)
    assert result.values["dice"] == pytest.approx(2 * 16 / 96)
    assert result.values["iou"] == pytest.approx(16 / 80)
    assert result.values["precision"] == 0.5
    assert result.values["recall"] == 0.25
    assert result.values["volume_ref_ml"] == pytest.approx(64 * 2.1 / 1000)
    assert result.values["volume_difference_ml"] == pytest.approx(-32 * 2.1 / 1000)
    assert result.values["relative_volume_difference"] == -0.5


def sphere_points(centre, radius, count=4000):
    """Return points spread evenly over a sphere (Fibonacci lattice)."""
    turn, height = np.arange(count) * np.pi * (3 - 5**0.5), 1 - 2 * (np.arange(count) + 0.5) / count
    ring = np.sqrt(1 - height**2)
    points = np.stack([ring * np.cos(turn), ring * np.sin(turn), height], axis=1)
    return centre + radius * points


def exact_sphere_metrics(spheres, tolerance_mm):
    (c1, r1), (c2, r2) = spheres
    there = np.abs(np.linalg.norm(sphere_points(c1, r1) - c2, axis=1) - r2)
    back = np.abs(np.linalg.norm(sphere_points(c2, r2) - c1, axis=1) - r1)
    areas = np.repeat([r1**2, r2**2], len(there))  # a voxel border has points by area
    both = np.concatenate([there, back])
    return {
        "hd_mm": both.max(),
        "hd95_mm": max(np.percentile(there, 95), np.percentile(back, 95)),
        "assd_mm": np.average(both, weights=areas),
        "nsd": np.average(both <= tolerance_mm, weights=areas),
    }


@pytest.mark.parametrize(
    ("spacing", "errors"),
    [
        ((1.0, 1.0, 1.0), {"hd_mm": 0.5, "hd95_mm": 0.25, "assd_mm": 0.1, "nsd": 0.05}),
        ((3.0, 1.0, 0.7), {"hd_mm": 1.3, "hd95_mm": 0.6, "assd_mm": 0.4, "nsd": 0.1}),
    ],
)
def test_spheres_are_near_their_closed_forms(spacing, errors):
    rng = np.random.default_rng(1)
    shape, found = [int(50 / s) for s in spacing], {name: [] for name in errors}
    for _ in range(8):
        first = (25 + rng.uniform(-1, 1, 3), rng.uniform(12, 17))
        second = (first[0] + rng.uniform(-3, 3, 3), rng.uniform(12, 17))
        masks = [ball(shape, c / spacing, r, spacing) for c, r in (first, second)]
        exact = exact_sphere_metrics((first, second), 2.0)
        values = score(*masks, spacing, tolerance_mm=2.0).values
        for name in errors:
            found[name].append(abs(values[name] - exact[name]))
    for name, limit in errors.items():
        assert np.mean(found[name]) <= limit, name


def test_surface_is_the_voxels_with_a_face_neighbour_outside():
    cube = box((5, 5, 5), (1, 1, 1), (4, 4, 4)).astype(bool)
    assert border(cube).sum() == 26
    assert not border(cube)[2, 2, 2]
    assert border(np.ones((3, 3, 3), bool)).sum() == 26, "outside the volume is background"


def test_reductions_of_known_distances():
    one, other = np.arange(21.0), np.full(2, 30.0)
    values = surface_metrics(one, other, tolerance_mm=4.0)
    assert values["hd_mm"] == 30.0
    assert values["hd95_mm"] == 30.0
    assert values["hd95_pooled_mm"] == pytest.approx(np.percentile([*one, 30, 30], 95))
    assert values["assd_mm"] == pytest.approx((210 + 60) / 23)
    assert values["masd_mm"] == pytest.approx((10 + 30) / 2)
    assert values["nsd"] == pytest.approx(5 / 23)


def test_hd95_is_the_larger_of_the_two_directions():
    reference = box((30, 30, 30), (5, 5, 5), (15, 15, 15))
    prediction = reference.copy()
    prediction[25:29, 5:15, 5:15] = 1  # a false island: far from the reference, not the reverse
    values = score(reference, prediction, (1.0, 1.0, 1.0)).values
    assert values["hd95_mm"] == pytest.approx(14.0)
    assert score(prediction, reference, (1.0, 1.0, 1.0)).values["hd95_mm"] == values["hd95_mm"]


def test_tolerance_is_met_by_a_spacing_rounded_to_float32():
    spacing = [float(np.float32(0.8))] * 3
    one, other = box((9, 5, 5), (2, 2, 2), (3, 3, 3)), box((9, 5, 5), (4, 2, 2), (5, 3, 3))
    assert spacing[0] > 0.8
    assert score(one, other, spacing, tolerance_mm=1.6).values["nsd"] == 1.0


def test_axes_that_are_not_at_right_angles_give_world_distances_and_volumes():
    axes = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 1.5], [0.0, 0.0, 2.0]])  # a gantry tilt
    one, other = box((5, 9, 9), (2, 4, 2), (3, 5, 3)), box((5, 9, 9), (2, 4, 4), (3, 5, 5))
    values = score(one, other, axes).values
    assert values["hd_mm"] == pytest.approx(5.0), "2 slices of (1.5, 2.0) mm"
    assert values["volume_ref_ml"] == pytest.approx(2.0 / 1000)


# symmetries


@examples
@given(pairs(), spacings)
def test_metrics_are_symmetric(pair, spacing):
    one, other = score(*pair, spacing), score(*reversed(pair), spacing)
    for name in SYMMETRIC:
        assert one.values[name] == pytest.approx(other.values[name], rel=1e-9), name
    assert one.values["precision"] == other.values["recall"]
    assert one.values["volume_difference_ml"] == -other.values["volume_difference_ml"]


@examples
@given(pairs(), spacings, st.permutations(range(3)), st.sets(st.integers(0, 2)))
def test_flips_and_transposes_change_nothing(pair, spacing, order, flipped):
    turned = [np.flip(array, tuple(flipped)).transpose(order) for array in pair]
    one, other = score(*pair, spacing), score(*turned, [spacing[axis] for axis in order])
    for name in PLAIN:
        if name != "nsd":  # a distance within rounding of the tolerance may fall on either side
            assert one.values[name] == pytest.approx(other.values[name], rel=1e-9, abs=1e-12), name


@examples
@given(pairs(), spacings, st.floats(0.1, 10.0))
def test_distances_scale_with_the_spacing(pair, spacing, factor):
    one, other = score(*pair, spacing), score(*pair, [factor * s for s in spacing])
    for name in DISTANCES:
        assert other.values[name] == pytest.approx(factor * one.values[name], rel=1e-9), name
    assert other.values["dice"] == one.values["dice"]
    assert other.values["volume_ref_ml"] == pytest.approx(
        factor**3 * one.values["volume_ref_ml"], rel=1e-9
    )


@examples
@given(pairs(), st.integers(1, 4), st.sampled_from("CF"))
def test_zero_padding_and_memory_order_change_nothing(pair, width, order):
    padded = [np.asarray(np.pad(array, width), order=order) for array in pair]
    one, other = score(*pair), score(*padded)
    for name in PLAIN:
        assert one.values[name] == pytest.approx(other.values[name], rel=1e-9, abs=1e-12), name


@examples
@given(pairs(), st.lists(st.floats(0.1, 20.0), min_size=2, max_size=5))
def test_nsd_does_not_fall_with_the_tolerance(pair, tolerances):
    values = [score(*pair, tolerance_mm=t).values["nsd"] for t in sorted(tolerances)]
    assert values == sorted(values)


@examples
@given(pairs(), spacings)
def test_mean_distances_stay_below_the_largest(pair, spacing):
    values = score(*pair, spacing).values
    largest = values["hd_mm"] * (1 + 1e-12)
    assert all(values[name] <= largest for name in DISTANCES)


@examples
@given(pairs(), spacings)
def test_pooled_hd95_stays_below_the_larger_directed_one(pair, spacing):
    # Interpolation between two distances of few voxels can turn the order of the linear
    # percentiles around; the distances they lie between keep it always.
    directed = surface_distances(*(array.astype(bool) for array in pair), spacing)
    larger = max(np.percentile(d, 95, method="higher") for d in directed)
    assert score(*pair, spacing).values["hd95_pooled_mm"] <= larger * (1 + 1e-12)


@examples
@given(masks, spacings)
def test_identical_masks_are_perfect(mask, spacing):
    assume(mask.any())
    values = score(mask, mask, spacing).values
    assert all(values[name] == 0.0 for name in DISTANCES)
    assert all(values[name] == 1.0 for name in ("dice", "iou", "precision", "recall", "nsd"))


# edges

NAN, INF = float("nan"), float("inf")
STATUS_TABLE = {
    "missed": {
        "dice": 0.0, "iou": 0.0, "precision": NAN, "recall": 0.0,
        "hd_mm": INF, "hd95_mm": INF, "hd95_pooled_mm": INF, "assd_mm": INF, "masd_mm": INF,
        "nsd": 0.0, "volume_ref_ml": 0.0168, "volume_pred_ml": 0.0,
        "volume_difference_ml": -0.0168, "relative_volume_difference": -1.0,
    },
    "fp_only": {
        "dice": 0.0, "iou": 0.0, "precision": 0.0, "recall": NAN,
        "hd_mm": INF, "hd95_mm": INF, "hd95_pooled_mm": INF, "assd_mm": INF, "masd_mm": INF,
        "nsd": 0.0, "volume_ref_ml": 0.0, "volume_pred_ml": 0.0168,
        "volume_difference_ml": 0.0168, "relative_volume_difference": NAN,
    },
    "absent": {
        "dice": NAN, "iou": NAN, "precision": NAN, "recall": NAN,
        "hd_mm": NAN, "hd95_mm": NAN, "hd95_pooled_mm": NAN, "assd_mm": NAN, "masd_mm": NAN,
        "nsd": NAN, "volume_ref_ml": 0.0, "volume_pred_ml": 0.0,
        "volume_difference_ml": 0.0, "relative_volume_difference": NAN,
    },
}  # fmt: skip


@pytest.mark.parametrize("status", STATUS_TABLE)
def test_status_table_of_empty_structures(status):
    empty, cube = np.zeros((5, 5, 5), np.uint8), box((5, 5, 5), (1, 1, 1), (3, 3, 3))
    result = score(
        cube if status == "missed" else empty, cube if status == "fp_only" else empty, SPACING
    )
    assert result.status == status
    assert list(result.values) == PLAIN
    assert result.values == pytest.approx(STATUS_TABLE[status], nan_ok=True)


def test_classes_are_scored_apart_and_other_values_are_background():
    reference = np.zeros((8, 8, 8), np.int16)
    reference[:4], reference[4:6] = 7, 300
    prediction = np.where(reference == 7, 7, 0).astype(np.int16)
    prediction[7] = 99
    first, second, third = score_classes(reference, prediction, [300, 7, 5], SPACING)
    assert (first.status, second.status, third.status) == ("missed", "present", "absent")
    assert second.values["dice"] == 1.0


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int64])
def test_class_indices_follow_the_given_order(dtype):
    labels = np.array([[0, 3, 7], [7, 3, 1]], dtype)
    assert class_indices(labels, [7, 3]).tolist() == [[0, 2, 1], [1, 2, 0]]


def test_class_indices_of_negative_and_huge_values():
    labels = np.array([-1, 0, 5, 2**40])
    assert class_indices(labels, [5, 2**40, -1]).tolist() == [3, 0, 1, 2]


def test_more_classes_than_a_byte_counts():
    labels = np.arange(600).reshape(2, 300, 1)
    scores = score_classes(labels, labels, list(range(1, 600)), SPACING)
    assert [s.n_ref for s in scores] == [1] * 599
    assert all(s.values["dice"] == 1.0 for s in scores)


def test_confusion_has_the_reference_in_rows():
    table = confusion(np.array([0, 1, 1, 2]), np.array([0, 2, 1, 2]), 3)
    assert table.tolist() == [[1, 0, 0], [0, 1, 1], [0, 0, 1]]


def test_ignored_voxels_count_for_nobody():
    reference = box((8, 8, 8), (2, 2, 2), (6, 6, 6))
    prediction = reference.copy()
    prediction[6:] = 1  # wrong, but only where nobody knows
    reference[6:] = 255
    (result,) = score_classes(reference, prediction, [1], SPACING, ignore_value=255)
    assert (result.n_ref, result.n_pred) == (64, 64)
    assert result.values["dice"] == 1.0
    assert result.values["hd_mm"] == 0.0


def test_a_region_is_the_union_of_its_classes_and_may_overlap_another():
    rng = np.random.default_rng(3)
    reference, prediction = rng.integers(0, 5, (2, 9, 10, 11)).astype(np.uint8)
    regions = [(1, 2, 3), (1, 3), (4,), (3, 9)]
    found = score_structures(reference, prediction, [Structure(r) for r in regions], SPACING)
    for region, one in zip(regions, found, strict=True):
        masks = [np.isin(labels, region).astype(np.uint8) for labels in (reference, prediction)]
        (alone,) = score_classes(*masks, [1], SPACING)
        assert (one.n_ref, one.n_pred, one.n_overlap) == (
            alone.n_ref, alone.n_pred, alone.n_overlap,
        )  # fmt: skip
        assert one.values == pytest.approx(alone.values)


def test_a_mistake_within_a_region_is_none_of_the_region():
    reference = box((8, 8, 8), (1, 1, 1), (5, 5, 5))
    prediction = reference * 2
    parts = [Structure((1,)), Structure((2,)), Structure((1, 2))]
    one, two, whole = score_structures(reference, prediction, parts, SPACING)
    assert (one.status, two.status, whole.status) == ("missed", "fp_only", "present")
    assert whole.values["dice"] == 1.0


def test_each_structure_has_its_tolerance():
    one, other = box((9, 5, 5), (2, 2, 2), (3, 3, 3)), box((9, 5, 5), (4, 2, 2), (5, 3, 3))
    parts = [Structure((1,), 1.0), Structure((1,), 2.0)]
    strict, loose = score_structures(one, other, parts, (1.0, 1.0, 1.0))
    assert (strict.values["nsd"], loose.values["nsd"]) == (0.0, 1.0)


@pytest.mark.parametrize("share", [0.5, 0.01])
def test_noise_far_from_the_reference_has_the_distances_of_a_tree(share, monkeypatch):
    reference = ball((40, 60, 60), (20, 30, 30), 6.0, SPACING).astype(bool)
    noise = np.random.default_rng(0).random(reference.shape) < share
    turn = np.array([[0.36, 0.48, -0.8], [-0.8, 0.6, 0.0], [0.48, 0.64, 0.6]], np.float32)
    turned = (turn @ np.diag(SPACING)).astype(np.float32)  # right angles up to rounding
    for spacing in (SPACING, turned):
        found = surface_distances(reference, noise, spacing)
        with monkeypatch.context() as patch:
            patch.setattr(surfaces, "_transform_is_faster", lambda *_: False)
            by_tree = surface_distances(reference, noise, spacing)
        for one, other in zip(found, by_tree, strict=True):
            limit = 1e-12 if spacing is SPACING else 1e-5
            np.testing.assert_allclose(one, other, rtol=0, atol=limit)


def test_only_noise_and_only_right_angles_take_the_transform(monkeypatch):
    asked = []
    transform = surfaces._transformed
    monkeypatch.setattr(surfaces, "_transformed", lambda *a: asked.append(1) or transform(*a))
    organ = ball((40, 60, 60), (20, 30, 30), 20.0, SPACING).astype(bool)
    noise = np.random.default_rng(0).random(organ.shape) < 0.5
    surface_distances(organ, np.roll(organ, 1, 1), SPACING)
    assert asked == []
    surface_distances(organ, noise, SPACING)
    assert asked
    asked.clear()
    surface_distances(organ[:20, :30, :30], noise[:20, :30, :30], np.triu(np.ones((3, 3))))
    assert asked == [], "a tilted gantry: no distance transform knows it"


def test_values_are_found_whatever_the_type_and_order():
    for dtype, order in ((np.uint8, "C"), (np.int64, "F"), (np.uint64, "C")):
        labels = np.asarray(np.arange(24).reshape(2, 3, 4) % 7, dtype, order)
        assert label_values(labels) == set(range(7))
    assert label_values(np.array([-3, 2**40])) == {-3, 2**40}


def test_shapes_that_differ_are_refused():
    with pytest.raises(GeometryError, match="differ"):
        score_classes(np.zeros((2, 2, 2), int), np.zeros((2, 2, 3), int), [1], SPACING)
