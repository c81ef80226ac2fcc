"""Grids: spacing, orientation, and when two are one."""

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from medseg.core.errors import GeometryError
from medseg.core.geometry import Grid, rounded

SHAPE = (11, 21, 31)


def turned(grid, degrees, axis=(1.0, 2.0, 3.0)):
    way = np.array(axis) / np.linalg.norm(axis)
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_rotvec(np.deg2rad(degrees) * way).as_matrix()
    return Grid(grid.shape, affine @ grid.affine)


def changed(grid, row, column, amount):
    affine = grid.affine.copy()
    affine[row, column] += amount
    return Grid(grid.shape, affine)


@pytest.fixture
def grid():
    return Grid.from_spacing(SHAPE, (0.5, 1.0, 3.0))


def test_a_grid_from_its_spacing_is_ras(grid):
    assert grid.spacing == (0.5, 1.0, 3.0)
    assert grid.orientation == "RAS"
    assert grid.voxel_volume_ml == pytest.approx(0.0015)
    np.testing.assert_allclose(grid.corners[-1], [5.0, 20.0, 90.0])
    assert grid.diagonal_mm == pytest.approx(np.sqrt(25 + 400 + 8100))


def test_spacing_follows_the_array_axes_and_not_the_world():
    affine = np.array([[0, 0, -2.0, 0], [0.7, 0, 0, 0], [0, 1.3, 0, 0], [0, 0, 0, 1]])
    grid = Grid(SHAPE, affine)
    assert grid.spacing == (0.7, 1.3, 2.0)
    assert grid.orientation == "ASL"


@given(
    st.sampled_from(["RAS", "LPS", "PIR", "SAL", "IRP", "ALI"]),
    st.tuples(*[st.floats(-1, 1)] * 3).filter(lambda way: np.linalg.norm(way) > 0.1),
    st.floats(0, 35),
)
def test_an_oblique_grid_keeps_the_orientation_it_is_nearest_to(letters, way, degrees):
    affine = np.eye(4)
    for axis, (world, sign) in enumerate(nib.orientations.axcodes2ornt(letters)):
        affine[:3, axis] = sign * np.eye(3)[int(world)]
    assert "".join(nib.aff2axcodes(affine)) == letters
    assert turned(Grid(SHAPE, affine), degrees, way).orientation == letters


@pytest.mark.parametrize("seed", range(30))
def test_no_orientation_uses_a_letter_twice_at_any_angle(seed):
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_quat(np.random.default_rng(seed).normal(size=4)).as_matrix()
    letters = Grid(SHAPE, affine).orientation
    assert sorted("RLAPSI".index(letter) // 2 for letter in letters) == [0, 1, 2]


def test_a_sheared_grid_has_the_volume_of_its_slices(grid):
    """Gantry tilt moves slices along each other; their distance does not change."""
    assert changed(grid, 1, 2, 0.8).voxel_volume_ml == pytest.approx(grid.voxel_volume_ml)


@pytest.mark.parametrize(("moved_mm", "same"), [(0.004, True), (0.006, False)])
def test_grids_are_one_up_to_a_hundredth_of_the_smallest_spacing(grid, moved_mm, same):
    other = changed(grid, 2, 3, moved_mm)
    assert grid.displacement(other) == pytest.approx(moved_mm / 0.5)
    assert grid.is_same(other) is same
    assert other.is_same(grid) is same


def test_a_small_error_of_spacing_adds_up_over_the_volume(grid):
    """0.002 mm a voxel over 30 voxels is 0.06 mm; a matrix comparison would not see it."""
    other = changed(grid, 2, 2, 0.002)
    assert grid.displacement(other) == pytest.approx(30 * 0.002 / 0.5)
    assert not grid.is_same(other)


def test_single_precision_keeps_a_grid_the_same(grid):
    far = turned(changed(grid, 0, 3, 800.0), 20)
    assert far.is_same(Grid(SHAPE, far.affine.astype(np.float32)))


def test_other_shapes_are_infinitely_far(grid):
    other = Grid((11, 21, 30), grid.affine)
    assert grid.displacement(other) == np.inf
    assert not grid.is_same(other, tolerance=1e9)


@pytest.mark.parametrize(
    ("other", "told"),
    [
        (
            Grid.from_spacing((11, 21, 30), (0.5, 1.0, 3.0)),
            r"shape (11, 21, 31) against (11, 21, 30)",
        ),
        (Grid(SHAPE, np.diag([-0.5, 1.0, 3.0, 1.0])), "orientation RAS against LAS"),
        (
            Grid.from_spacing(SHAPE, (0.5, 1.0, 3.3)),
            "spacing (0.5, 1.0, 3.0) mm against (0.5, 1.0, 3.3) mm",
        ),
        (
            changed(Grid.from_spacing(SHAPE, (0.5, 1.0, 3.0)), 0, 3, 7.0),
            "position or angle: corners up to 7 mm apart",
        ),
    ],
)
def test_the_difference_is_told_in_words(grid, other, told):
    assert grid.difference(other) == told


@pytest.mark.parametrize(
    ("affine", "told"),
    [
        (np.eye(3), "4 x 4"),
        (np.diag([1.0, 0.0, 1.0, 1.0]), "singular"),
        (np.diag([1.0, np.nan, 1.0, 1.0]), "finite"),
    ],
)
def test_an_impossible_affine_is_refused(affine, told):
    with pytest.raises(GeometryError, match=told):
        Grid(SHAPE, affine)


def test_numbers_in_messages_keep_their_significant_digits():
    assert rounded([0.123456, 1234.56, 0.0]) == (0.1235, 1235.0, 0.0)


@pytest.mark.parametrize(
    ("shift", "agreement"), [(0.001, "same"), (0.2, "close"), (0.6, "different")]
)
def test_agreement_is_told_in_shares_of_the_smallest_spacing(shift, agreement):
    grid = Grid.from_spacing((4, 5, 6), (2, 3, 5))
    moved = grid.affine.copy()
    moved[0, 3] += shift * 2
    assert grid.agreement(Grid(grid.shape, moved)) == agreement
    assert grid.agreement(Grid((4, 5, 7), moved)) == "different"
