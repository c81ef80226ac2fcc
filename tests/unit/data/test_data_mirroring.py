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


def data_set(lateral, shapes=((35, 50, 36), (31, 44, 40)), count=20):
    """Return the outlines of cases whose structure lies at `lateral(rng)` from left to right."""
    rng = np.random.default_rng(0)
    return [
        outline(blob(shapes[n % len(shapes)], (lateral(rng), 0.5, rng.normal(0.5, 0.05))), RAS)
        for n in range(count)
    ]


@pytest.mark.parametrize("shape", [(16, 16, 16), (35, 50, 37), (7, 300, 3)])
def test_an_outline_is_the_share_of_foreground(shape):
    found = outline(np.ones(shape, dtype=bool), RAS)
    assert found.shape == (CELLS,) * 3
    np.testing.assert_allclose(found, 1, atol=1e-5)
    inside = blob(shape, (0.4, 0.5, 0.6))
    assert outline(inside, RAS).mean() == pytest.approx(inside.mean(), rel=1e-4)


def test_an_outline_is_in_ras_order_whatever_the_file_is():
    inside = blob((20, 24, 28), (0.3, 0.4, 0.6))
    expected = outline(inside, RAS)
    np.testing.assert_allclose(outline(inside[::-1], LAS), expected, atol=1e-6)
    turned = np.moveaxis(inside, 0, 2)
    affine = RAS[:, [1, 2, 0, 3]]
    np.testing.assert_allclose(outline(turned, affine), expected, atol=1e-6)


@pytest.mark.parametrize("length", [5, 16, 35, 100])
def test_a_symmetric_shape_is_its_own_mirror_image(length):
    found = outline(blob((length, 20, 20), (0.5, 0.5, 0.5)), RAS)
    np.testing.assert_allclose(found, found[::-1], atol=1e-5)


def test_structures_of_one_side_are_unlike_their_mirror_images():
    found = compare_mirrored(data_set(lambda rng: rng.normal(0.3, 0.03)))
    assert found.own == found.cases == 20
    assert found.is_unlike


@pytest.mark.parametrize(
    "lateral",
    [
        lambda rng: 0.5 + 0.25 * rng.choice([-1, 1]),  # of either side
        lambda rng: rng.normal(0.5, 0.05),  # in the middle
        lambda rng: rng.normal(0.52, 0.01),  # all a little to one side: hardly to be seen
    ],
)
def test_structures_of_both_sides_and_of_the_middle_are_alike(lateral):
    assert not compare_mirrored(data_set(lateral)).is_unlike


def test_a_few_cases_show_nothing():
    assert not compare_mirrored(data_set(lambda _: 0.25, count=9)).is_unlike
    assert compare_mirrored([]) == Mirrored()
    empty = outline(np.zeros((8, 8, 8), dtype=bool), RAS)
    assert compare_mirrored([empty] * 12) == Mirrored()
