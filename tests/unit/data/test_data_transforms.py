"""Preprocessing: orientation, spacing, intensities, labels; and the way back."""

import itertools

import numpy as np
import pytest
import torch
from monai import transforms as monai
from monai.data import MetaTensor
from monai.transforms import Orientation, Spacing
from scipy.spatial.transform import Rotation

from medseg.core.errors import GeometryError, OptionError, VolumeError
from medseg.core.geometry import Grid
from medseg.data.resample import GridMap, resample
from medseg.data.transforms import (
    IGNORE_INDEX,
    Preprocessing,
    canonical_grid,
    prepare_case,
    scale_intensity,
    transformed,
)
from medseg.io import write_volume

ORIENTATIONS = {
    "RAS": np.diag([1.0, 1.5, 2.0, 1.0]),
    "LPS": np.diag([-1.0, -1.5, 2.0, 1.0]),
    "PIR": np.array([[0, 0, 2.0, 3], [-1.0, 0, 0, 5], [0, -1.5, 0, 7], [0, 0, 0, 1]]),
    "SAL": np.array([[0, 0, -2.0, 3], [0, 1.5, 0, 5], [1.0, 0, 0, 7], [0, 0, 0, 1]]),
    "oblique": np.array([[0.96, -0.42, 0, 1], [0.28, 1.44, 0, 2], [0, 0, 2.0, 3], [0, 0, 0, 1]]),
}
SHAPE = (14, 12, 10)


def world_function(grid):
    """Return a smooth function of the world position on a grid."""
    index = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), axis=-1)
    x, y, z = np.moveaxis(index @ grid.affine[:3, :3].T + grid.affine[:3, 3], -1, 0)
    return (100 + x + 2 * y - 3 * z).astype(np.float32)


def centred(affine):
    """Move an affine so that the middle of the volume is the world's origin."""
    moved = affine.copy()
    moved[:3, 3] = -affine[:3, :3] @ ((np.asarray(SHAPE) - 1) / 2)
    return moved


@pytest.mark.parametrize("name", ORIENTATIONS)
@pytest.mark.parametrize("spacing", [None, [1.0, 1.0, 1.0], [2.0, 1.5, 3.0]])
def test_a_smooth_volume_comes_back_to_its_own_grid(tmp_path, name, spacing):
    grid = Grid(SHAPE, centred(ORIENTATIONS[name]))
    values = world_function(grid)
    write_volume(tmp_path / "x.nii", values, grid)
    preprocessing = Preprocessing(spacing=spacing, intensity=[[-1e4, 1e4]])
    case = prepare_case([tmp_path / "x.nii"], None, 1, (), preprocessing)
    assert case.grid.orientation == "RAS"
    if spacing:
        assert case.grid.spacing == pytest.approx(spacing, rel=1e-3)
    back = resample(torch.from_numpy(case.image), case.grid, case.original)[0].numpy() * 1e4
    inside = (slice(3, -3),) * 3  # beyond the last voxel centre the edge value is taken
    np.testing.assert_allclose(back[inside], values[inside], atol=0.2)


@pytest.mark.parametrize("name", ["RAS", "LPS", "PIR", "SAL"])
def test_a_reoriented_file_gives_the_same_network_input(tmp_path, name):
    grids = [Grid(SHAPE, centred(ORIENTATIONS["RAS"]))]
    values = np.random.default_rng(0).normal(50, 9, SHAPE).astype(np.float32)
    source = torch.from_numpy(values)[None]
    order = {"RAS": (0, 1, 2), "LPS": (0, 1, 2), "PIR": (1, 2, 0), "SAL": (2, 1, 0)}[name]
    shape = tuple(SHAPE[axis] for axis in order)
    flips = {"RAS": "+++", "LPS": "--+", "PIR": "--+", "SAL": "++-"}[name]
    matrix = np.zeros((3, 3))
    for axis, (world, sign) in enumerate(zip(order, flips, strict=True)):
        matrix[world, axis] = (1.0, 1.5, 2.0)[world] * (1 if sign == "+" else -1)
    affine = np.eye(4)
    affine[:3, :3] = matrix
    affine[:3, 3] = -matrix @ ((np.asarray(shape) - 1) / 2)
    grids.append(Grid(shape, affine))
    assert grids[1].orientation == name
    images = []
    for number, grid in enumerate(grids):
        path = tmp_path / f"{number}.nii"
        write_volume(path, resample(source, grids[0], grid)[0].numpy(), grid)
        images.append(prepare_case([path], None, 1, (), Preprocessing()).image)
    np.testing.assert_array_equal(images[0], images[1])


def scaled_intensity(image, intensity):
    out = image.clone()
    scale_intensity(out, intensity)
    return out


@pytest.mark.parametrize("orientation", ["RAS", "LPI"])
@pytest.mark.parametrize("spacing", [None, [1.0, 1.3, 2.0], [0.7, 0.7, 0.7]])
@pytest.mark.parametrize("seed", range(6))
def test_orientation_and_spacing_give_what_monais_transforms_give(seed, spacing, orientation):
    rng = np.random.default_rng(seed)
    shape = tuple(int(n) for n in rng.integers(5, 30, 3))
    turned = Rotation.from_rotvec(rng.normal(size=3)).as_matrix()
    affine = np.eye(4)
    affine[:3, :3] = turned * rng.uniform(0.5, 3, 3)
    affine[:3, 3] = rng.normal(size=3) * 50
    values, grid = torch.randn(2, *shape), Grid(shape, affine)
    theirs = MetaTensor(values, affine=torch.from_numpy(affine))
    theirs = Orientation(orientation, labels=(("L", "R"), ("P", "A"), ("I", "S")))(theirs)
    if spacing:
        theirs = Spacing(spacing, mode="bilinear", padding_mode="border")(theirs)
    target = canonical_grid(grid, Preprocessing(spacing=spacing, orientation=orientation))
    assert target.is_same(Grid(tuple(theirs.shape[1:]), theirs.affine.numpy()), 1e-9)
    ours = resample(values, grid, target)
    torch.testing.assert_close(ours, theirs.as_tensor(), rtol=0, atol=1e-4)


def test_a_gantry_tilt_is_taken_out_and_every_voxel_stays_inside():
    affine = np.diag([1.2, 0.8, 3.0, 1.0])
    affine[:3, :3] = affine[:3, :3] @ [[1, 0, 0], [0, 1, 0.3], [0, 0, 1]]
    grid = Grid((20, 24, 12), affine)
    target = canonical_grid(grid, Preprocessing(spacing=[1.0, 1.0, 3.0]))
    axes = target.affine[:3, :3] / np.asarray(target.spacing)
    np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=1e-9)
    place = np.linalg.solve(target.affine[:3, :3], (grid.corners - target.affine[:3, 3]).T)
    assert place.min() > -1e-6
    assert (place.max(axis=1) < np.asarray(target.shape) - 0.5 + 1e-6).all()


@pytest.mark.parametrize("tilt", [0.0, 0.2])
def test_boxes_sampled_apart_fit_without_a_seam(tilt):
    source = Grid((14, 12, 10), np.diag([1.3, 0.9, 2.0, 1.0]))
    affine = np.array([[0, tilt, -0.8, 15], [1.1, 0, 0, 0.3], [0, 1.7, 0, -0.4], [0, 0, 0, 1]])
    target = Grid((9, 11, 20), affine)
    values = torch.randn(3, *source.shape)
    whole, grids = resample(values, source, target), GridMap(source, target)
    assert (grids.parallel is None) == bool(tilt)
    for box in itertools.product([(0, 4), (4, 9)], [(0, 11)], [(0, 7), (7, 8), (8, 20)]):
        needed = grids.needed(box)
        part = values[:, *(slice(*span) for span in needed)]
        assert part.numel() < values.numel()
        out = grids.sample(part, [span[0] for span in needed], box)
        torch.testing.assert_close(
            out, whole[:, *(slice(*span) for span in box)], rtol=0, atol=2e-5
        )


def test_zscore_is_over_the_images_own_nonzero_voxels_whatever_their_scale():
    rng = np.random.default_rng(0)
    image = torch.from_numpy(rng.normal(100, 10, (1, 20, 20, 20)).astype(np.float32))
    image[:, :10] = 0
    small, large = (scaled_intensity(image * factor, ["zscore"]) for factor in (1.0, 1e4))
    torch.testing.assert_close(small, large, rtol=1e-3, atol=1e-3)
    foreground = small[:, 10:]
    assert float(foreground.mean()) == pytest.approx(0, abs=0.02)
    assert float(foreground.std()) == pytest.approx(1, abs=0.05)
    assert float(small[:, :10].max()) < -5  # the background stays apart from the mean


def test_a_window_clips_and_scales_to_one():
    image = torch.tensor([-2000.0, -1000.0, -300.0, 400.0, 3000.0]).reshape(1, 5, 1, 1)
    scaled = scaled_intensity(image, [[-1000.0, 400.0]])
    torch.testing.assert_close(scaled.flatten(), torch.tensor([-1.0, -1.0, 0.0, 1.0, 1.0]))


def test_constant_and_empty_images_stay_finite():
    for value in (0.0, 7.0):
        assert torch.isfinite(scaled_intensity(torch.full((1, 4, 4, 4), value), ["zscore"])).all()


def test_intensity_options_are_checked():
    with pytest.raises(OptionError, match="'zscore' or a window"):
        Preprocessing(intensity=["z-score"])
    with pytest.raises(OptionError, match="3 entries for 2 channels"):
        scale_intensity(torch.zeros(2, 4, 4, 4), ["zscore"] * 3)
    with pytest.raises(OptionError, match="three lengths"):
        Preprocessing(spacing=[1.0, 1.0])


def write_pair(folder, label, image_grid=None, label_grid=None):
    grid = image_grid or Grid(label.shape, np.eye(4))
    write_volume(folder / "image.nii", np.ones(grid.shape, np.float32), grid)
    write_volume(folder / "label.nii", label, label_grid or grid)
    return [folder / "image.nii"], folder / "label.nii"


def test_label_values_are_mapped_to_classes_and_ignore_is_kept_apart(tmp_path):
    label = np.array([0, 7, 300, 99], np.int32).reshape(4, 1, 1)
    images, path = write_pair(tmp_path, label)
    case = prepare_case(images, path, 1, (0, 7, 300), Preprocessing(), ignore_value=99)
    assert case.label.ravel().tolist() == [0, 1, 2, IGNORE_INDEX]


def test_unknown_and_fractional_labels_are_refused(tmp_path):
    images, path = write_pair(tmp_path, np.array([0, 1, 5, 6], np.uint8).reshape(4, 1, 1))
    with pytest.raises(VolumeError, match=r"unknown-label: values \[5, 6\]"):
        prepare_case(images, path, 1, (0, 1), Preprocessing())
    images, path = write_pair(tmp_path, np.array([0, 1.3], np.float32).reshape(2, 1, 1))
    with pytest.raises(VolumeError, match="not-a-label"):
        prepare_case(images, path, 1, (0, 1), Preprocessing())


def test_a_label_on_another_grid_is_refused_in_words(tmp_path):
    grids = [Grid((4, 4, 4), np.diag([1.0, 1.0, z, 1.0])) for z in (1.0, 1.2)]
    images, path = write_pair(tmp_path, np.zeros((4, 4, 4), np.uint8), *grids)
    with pytest.raises(
        GeometryError, match=r"spacing \(1.0, 1.0, 1.2\) mm against \(1.0, 1.0, 1.0\) mm"
    ):
        prepare_case(images, path, 1, (0, 1), Preprocessing())


def test_channels_on_another_grid_are_brought_onto_the_first(tmp_path):
    coarse = Grid((6, 6, 6), centred_cube(6, 2.0))
    fine = Grid((24, 24, 24), centred_cube(24, 0.5))
    paths = []
    for number, grid in enumerate((coarse, fine)):
        paths.append(tmp_path / f"{number}.nii")
        write_volume(paths[-1], world_function(grid), grid)
    case = prepare_case(paths, None, 2, (), Preprocessing(intensity=[[-1e3, 1e3]]))
    assert case.image.shape == (2, 6, 6, 6)
    np.testing.assert_allclose(case.image[1], case.image[0], atol=1e-4)


def centred_cube(count, spacing):
    affine = np.diag([spacing, spacing, spacing, 1.0])
    affine[:3, 3] = -spacing * (count - 1) / 2
    return affine


def test_resampling_swapped_axes_is_exact_and_a_shift_is_linear():
    values = torch.randn(2, 4, 5, 6)
    source = Grid((4, 5, 6), np.eye(4))
    swapped = Grid((6, 4, 5), np.array([[0, 1, 0, 0], [0, 0, 1, 0], [-1, 0, 0, 5], [0, 0, 0, 1.0]]))
    assert torch.equal(resample(values, source, swapped), values.permute(0, 3, 1, 2).flip(1))
    half = np.eye(4)
    half[0, 3] = 0.5
    shifted = resample(values, source, Grid((3, 5, 6), half))
    torch.testing.assert_close(shifted, (values[:, :-1] + values[:, 1:]) / 2)


def test_own_monai_transforms_depend_on_their_seed_alone():
    image, label = torch.rand(1, 12, 12, 12), torch.randint(0, 3, (12, 12, 12), dtype=torch.uint8)
    label[0] = IGNORE_INDEX
    both = ["image", "label"]

    def build():
        return monai.Compose(
            [monai.RandFlipd(both, prob=0.5, spatial_axis=0), monai.RandGaussianNoised("image", 1)]
        )

    used = build()
    first = transformed(used, image.clone(), label.clone(), 11)
    transformed(used, image.clone(), label.clone(), 12)
    again = transformed(build(), image.clone(), label.clone(), 11)
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], image)
    assert set(first[1].unique().tolist()) <= {0, 1, 2, IGNORE_INDEX}


def test_own_monai_transforms_must_keep_the_shape():
    crop = monai.Compose([monai.CenterSpatialCropd(["image", "label"], 4)])
    with pytest.raises(OptionError, match=r"must keep the shape .* became \(1, 4, 4, 4\)"):
        transformed(crop, torch.rand(1, 8, 8, 8), torch.zeros(8, 8, 8, dtype=torch.uint8), 0)
