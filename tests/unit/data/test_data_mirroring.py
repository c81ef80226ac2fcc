"""Whether cases look alike mirrored, for sets whose truth is known."""

import numpy as np
import pytest

from medseg.data.mirroring import CELLS, Mirrored, compare_mirrored, outline

RAS, LAS = np.eye(4), np.diag([-1.0, 1, 1, 1])


def blob(shape, centre, radius=0.25):
    """Return a ball; centre and radius are shares of the image."""
    axes = [(np.arange(n) + 0.5) / n for n in shape]
    grid = np.meshgrid(*axes, indexing="ij")
    return sum((g - c) ** 2 for g, c in zip(grid, centre, strict=True)) < radius**2


def outline_of(inside, affine=RAS):
    """Return the outline of one class."""
    return outline(inside.astype(np.uint8), 1, affine)


def data_set(lateral, shapes=((35, 50, 36), (31, 44, 40)), count=20):
    """Return the outlines of cases whose structure lies at `lateral(rng)` from left to right."""
    rng = np.random.default_rng(0)
    return [
        outline_of(blob(shapes[n % len(shapes)], (lateral(rng), 0.5, rng.normal(0.5, 0.05))))
        for n in range(count)
    ]


@pytest.mark.parametrize("shape", [(16, 16, 16), (35, 50, 37), (7, 300, 3)])
def test_an_outline_is_the_share_of_foreground(shape):
    found = outline_of(np.ones(shape, dtype=bool))
    assert found.shape == (CELLS, CELLS, CELLS, 1)
    np.testing.assert_allclose(found, 1, atol=1e-3)
    inside = blob(shape, (0.4, 0.5, 0.6))
    assert outline_of(inside).astype(float).mean() == pytest.approx(inside.mean(), rel=1e-3)


def test_each_class_has_its_own_outline_and_other_values_none():
    label = np.full((16, 16, 16), 255, np.uint8)
    label[:8], label[8:12, :8] = 0, 3
    found = outline(label, 3, RAS).astype(float).sum(axis=(0, 1, 2))
    np.testing.assert_allclose(found, [0, 0, 2 * 4 * 8])


def test_an_outline_is_in_ras_order_whatever_the_file_is():
    inside = blob((20, 24, 28), (0.3, 0.4, 0.6))
    expected = outline_of(inside)
    np.testing.assert_allclose(outline_of(inside[::-1], LAS), expected, atol=1e-3)
    turned = np.moveaxis(inside, 0, 2)
    affine = RAS[:, [1, 2, 0, 3]]
    np.testing.assert_allclose(outline_of(turned, affine), expected, atol=1e-3)


@pytest.mark.parametrize("length", [5, 16, 35, 100])
def test_a_symmetric_shape_is_its_own_mirror_image(length):
    found = outline_of(blob((length, 20, 20), (0.5, 0.5, 0.5)))
    np.testing.assert_allclose(found, found[::-1], atol=1e-3)


def test_structures_of_one_side_are_unlike_their_mirror_images():
    sideways, front, head = compare_mirrored(data_set(lambda rng: rng.normal(0.3, 0.03)))
    assert sideways.own == sideways.cases == 20
    assert sideways.is_unlike
    assert not sideways.is_alike
    assert front.is_alike  # in the middle
    assert head.is_alike  # about the middle


@pytest.mark.parametrize(
    "lateral",
    [
        lambda rng: 0.5 + 0.25 * rng.choice([-1, 1]),  # of either side
        lambda rng: rng.normal(0.5, 0.05),  # in the middle
        lambda rng: rng.normal(0.52, 0.01),  # all a little to one side: hardly to be seen
    ],
)
def test_structures_of_both_sides_and_of_the_middle_are_not_unlike(lateral):
    assert not compare_mirrored(data_set(lateral))[0].is_unlike


def test_classes_that_change_places_are_unlike_though_all_of_them_together_are_not():
    rng = np.random.default_rng(0)
    label = np.zeros((20, 20, 20), np.uint8)
    outlines = []
    for start in rng.integers(4, 7, 20):
        case = label.copy()
        case[5:15, start:10, 5:15], case[5:15, 10 : 20 - start, 5:15] = 1, 2
        outlines.append(outline(case, 2, RAS))
    sideways, front, head = compare_mirrored(outlines)
    assert sideways.is_alike
    assert front.is_unlike
    assert front.mirrored < 0.01
    assert head.is_alike


def test_a_few_cases_show_nothing():
    sideways, *_ = compare_mirrored(data_set(lambda _: 0.25, count=9))
    assert not sideways.is_unlike
    assert not sideways.is_alike
    assert compare_mirrored([]) == (Mirrored(),) * 3
    empty = outline_of(np.zeros((8, 8, 8), dtype=bool))
    assert compare_mirrored([empty] * 12) == (Mirrored(),) * 3
