"""Patches: the same for any number of workers, centred where the structures are."""

import numpy as np
import pytest
import torch
from monai import transforms as monai
from torch.utils.data import DataLoader

from medseg.data.patches import NumberSampler, PatchDataset


class Memory:
    """A cache entry that lives in memory."""

    def __init__(self, case_id, shape=(20, 18, 16), where=(15, 3, 8)):
        self.case_id = case_id
        rng = np.random.default_rng(len(case_id))
        self._image = rng.normal(0, 1, (1, *shape)).astype(np.float32)
        self._label = np.zeros(shape, np.uint8)
        self._where = where
        self._label[where] = 1

    def image(self):
        return self._image

    def label(self):
        return self._label

    def foreground(self):
        return np.array([[1, *self._where]], np.int32)


def dataset(patch=(8, 8, 8), foreground=0.5, transforms=None, seed=0, count=3):
    entries = [Memory("x" * (i + 1)) for i in range(count)]
    return PatchDataset(entries, patch, foreground, transforms, seed)


def batches(workers, epoch):
    data = dataset(transforms=monai.Compose([monai.RandGaussianNoised("image", prob=1.0)]))
    sampler = NumberSampler(3, 2, lambda: 3 * epoch)
    return list(DataLoader(data, batch_size=2, sampler=sampler, num_workers=workers))


def test_patches_do_not_depend_on_the_number_of_workers():
    alone, helped = batches(0, 1), batches(2, 1)
    for one, other in zip(alone, helped, strict=True):
        assert torch.equal(one["image"], other["image"])
        assert torch.equal(one["label"], other["label"])


def test_epochs_go_on_where_the_last_one_ended():
    numbers = [batch["number"].tolist() for batch in batches(0, 2)]
    assert numbers == [[12, 13], [14, 15], [16, 17]]


def test_the_rest_of_an_epoch_that_was_cut_off_follows():
    assert list(NumberSampler(4, 2, lambda: 5)) == [10, 11, 12, 13, 14, 15]
    assert list(NumberSampler(4, 2, lambda: 8)) == list(range(16, 24))


def test_devices_share_the_patches_of_one_whatever_their_number():
    alone = list(NumberSampler(3, 4, lambda: 6))
    shared = [list(NumberSampler(3, 2, lambda: 6, rank, 2)) for rank in range(2)]
    joined = [row[n : n + 2] for n in range(0, 6, 2) for row in shared]
    assert [number for part in joined for number in part] == alone


def test_another_seed_gives_other_patches():
    assert not torch.equal(dataset(seed=0)[5]["image"], dataset(seed=1)[5]["image"])


def test_every_pass_uses_every_case_once():
    data = dataset(count=5)
    passes = [sorted(data._case_of(turn * 5 + place) for place in range(5)) for turn in range(4)]
    assert passes == [[0, 1, 2, 3, 4]] * 4
    orders = {tuple(data._case_of(turn * 5 + place) for place in range(5)) for turn in range(4)}
    assert len(orders) > 1


@pytest.mark.parametrize("foreground", [0.0, 0.5, 1.0])
def test_the_share_of_foreground_patches_is_as_asked(foreground):
    data = dataset(patch=(4, 4, 4), foreground=foreground)
    hits = np.mean([int(data[number]["label"].max()) for number in range(400)])
    by_chance = 4 * 4 * 4 / (17 * 15 * 13)  # windows that hold the one voxel, of all windows
    assert hits == pytest.approx(foreground + (1 - foreground) * by_chance, abs=0.08)


def test_a_small_image_is_padded_evenly_with_zeros_as_the_window_does():
    patch = PatchDataset([Memory("x", (4, 6, 8), (1, 1, 1))], (8, 6, 6), 0.0, None, 0)[0]
    assert patch["image"].shape == (1, 8, 6, 6)
    assert float(patch["image"][0, :2].abs().max()) == float(patch["image"][0, 6:].abs().max()) == 0
    assert bool((patch["image"][0, 2:6] != 0).all())
