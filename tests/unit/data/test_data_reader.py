"""The strict door within MONAI's transforms."""

import numpy as np
import pytest
from monai.transforms import Compose, LoadImage, LoadImaged, Orientationd, SaveImage

from medseg.core.errors import GeometryError, VolumeError
from medseg.core.geometry import Grid
from medseg.data.reader import VolumeReader
from medseg.io import read_volume, write_volume

GRID = Grid((4, 5, 6), np.array([[0, -2.0, 0, 5], [1.5, 0, 0, -7], [0, 0, 3, 9], [0, 0, 0, 1]]))
VALUES = np.arange(120, dtype=np.int16).reshape(GRID.shape)


def loader(cls, *args, **options):
    made = cls(*args, **options)
    made.register(VolumeReader())
    return made


@pytest.mark.parametrize("ending", [".nii.gz", ".mha", ".nrrd"])
def test_values_affine_and_channel_come_as_monai_wants_them(tmp_path, ending):
    write_volume(tmp_path / f"x{ending}", VALUES, GRID)
    image = loader(LoadImage, ensure_channel_first=True)(tmp_path / f"x{ending}")
    np.testing.assert_array_equal(image[0].numpy(), VALUES)
    np.testing.assert_allclose(image.affine.numpy(), GRID.affine)
    assert image.shape == (1, 4, 5, 6)


def test_transforms_behind_it_know_the_orientation(tmp_path):
    write_volume(tmp_path / "x.nii.gz", VALUES, GRID)
    chain = Compose(
        [
            loader(LoadImaged, "image", ensure_channel_first=True),
            Orientationd("image", "RAS", labels=(("L", "R"), ("P", "A"), ("I", "S"))),
        ]
    )
    moved = chain({"image": tmp_path / "x.nii.gz"})["image"]
    np.testing.assert_array_equal(moved[0].numpy(), np.flip(VALUES.transpose(1, 0, 2), 0))


def test_a_damaged_file_is_refused_in_its_own_words_and_by_no_other_reader(tmp_path):
    path = tmp_path / "x.nii.gz"
    write_volume(path, VALUES, GRID)
    path.write_bytes(path.read_bytes()[:-12])
    with pytest.raises(VolumeError, match=r"x\.nii\.gz: truncated: "):
        loader(LoadImage)(path)


def test_files_of_one_image_are_channels_and_share_a_grid(tmp_path):
    paths = [tmp_path / "a.nii.gz", tmp_path / "b.nii.gz"]
    write_volume(paths[0], VALUES, GRID)
    write_volume(paths[1], VALUES + 1, GRID)
    image = loader(LoadImage)(paths)
    np.testing.assert_array_equal(image.numpy(), np.stack([VALUES, VALUES + 1]))
    moved = GRID.affine.copy()
    moved[0, 3] += 1
    write_volume(paths[1], VALUES, Grid(GRID.shape, moved))
    with pytest.raises(GeometryError, match="lie on different grids: position or angle"):
        loader(LoadImage)(paths)


def test_large_labels_stay_exact(tmp_path):
    write_volume(tmp_path / "x.nii.gz", np.full(GRID.shape, 2**24 + 1, np.int32), GRID)
    assert int(loader(LoadImage, dtype=np.int64)(tmp_path / "x.nii.gz").max()) == 2**24 + 1


def test_what_monai_saves_is_read_as_it_was(tmp_path):
    write_volume(tmp_path / "x.nii.gz", VALUES, GRID)
    image = loader(LoadImage, ensure_channel_first=True)(tmp_path / "x.nii.gz")
    SaveImage(tmp_path, output_postfix="", output_ext=".nii", separate_folder=False)(image)
    volume = read_volume(tmp_path / "x.nii", channels=1)
    np.testing.assert_array_equal(volume.array, VALUES)
    assert volume.grid.is_same(GRID)
