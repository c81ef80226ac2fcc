"""Augmentation: drawn by patch number, geometry and intensity each as its name says."""

from dataclasses import fields

import pytest
import torch

from medseg.core.errors import OptionError
from medseg.data.augmentation import Augmentation, Augmenter

KINDS = [
    entry.name
    for entry in fields(Augmentation)
    if entry.name not in ("flip_axes", "rotation", "scale", "transforms")
]
GEOMETRY = ("flip", "affine", "elastic")
NOTHING = dict.fromkeys(KINDS, 0.0)


def batch(size=(16, 18, 20), count=4):
    generator = torch.Generator().manual_seed(5)
    image = torch.randn(count, 2, *size, generator=generator)
    label = torch.randint(0, 3, (count, *size), generator=generator).to(torch.uint8)
    label[:, 0] = 255
    return image, label


def box(size=(24, 24, 24)):
    label = torch.zeros(1, *size, dtype=torch.uint8)
    label[:, 5:14, 7:17, 9:20] = 1
    return label[:, None].float(), label


def only(seed=3, spacing=None, **settings):
    return Augmenter(Augmentation(**{**NOTHING, **settings}), seed, spacing)


def test_a_patch_depends_on_seed_and_number_and_not_on_its_batch():
    image, label = batch()
    vary = Augmenter(Augmentation(flip_axes=[0, 2], **dict.fromkeys(KINDS, 0.5)), 7)
    together = vary(image, label, [10, 11, 12, 13])
    for place in range(4):
        alone = vary(image[[place]], label[[place]], [10 + place])
        assert torch.equal(alone[0][0], together[0][place])
        assert torch.equal(alone[1][0], together[1][place])
    other = Augmenter(vary.settings, 8)(image, label, [10, 11, 12, 13])
    assert not torch.equal(other[0], together[0])
    assert not torch.equal(vary(image, label, [20, 21, 22, 23])[0], together[0])


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_changes_the_image_and_only_geometry_the_label(kind):
    image, label = batch()
    kept = image.clone(), label.clone()
    varied, target = only(**{kind: 1.0}, flip_axes=[1])(image, label, range(4))
    for place in range(4):
        assert not torch.equal(varied[place], image[place])
    assert torch.equal(target, label) == (kind not in GEOMETRY)
    assert set(target.unique().tolist()) <= {0, 1, 2, 255}
    assert torch.isfinite(varied).all()
    assert torch.equal(kept[0], image)
    assert torch.equal(kept[1], label)


def test_nothing_is_varied_where_all_is_off():
    image, label = batch()
    varied, target = only()(image, label, range(4))
    assert torch.equal(varied, image)
    assert torch.equal(target, label)


@pytest.mark.parametrize("kind", ["affine", "elastic"])
def test_image_and_label_are_moved_together(kind):
    image, label = box()
    for number in range(5):
        varied, target = only(**{kind: 1.0}, flip_axes=[0])(image, label, [number])
        agree = (varied[0, 0] > 0.5) == (target[0] == 1)
        assert float(agree.float().mean()) > 0.98
        assert 0.4 < int(target.sum()) / int(label.sum()) < 2.2


def test_a_flip_is_exact():
    image, label = batch()
    varied, target = only(flip=1.0, flip_axes=[0, 2])(image, label, range(4))
    assert torch.equal(varied, image.flip([2, 4]))
    assert torch.equal(target, label.flip([1, 3]))


def test_rotation_keeps_volumes_in_mm_where_voxels_are_thick():
    """A rotation in voxels would stretch a box by the ratio of the spacings."""
    label = torch.zeros(1, 48, 48, 12, dtype=torch.uint8)
    label[:, 14:34, 14:34, 3:9] = 1  # 20 x 20 x 24 mm
    turn = only(affine=1.0, rotation=30.0, scale=0.0, spacing=(1.0, 1.0, 4.0))
    for number in range(5):
        _, target = turn(label[:, None].float(), label, [number])
        assert int(target.sum()) == pytest.approx(int(label.sum()), rel=0.1)
        where = torch.nonzero(target[0]).double() * torch.tensor([1.0, 1.0, 4.0])
        spread = torch.linalg.eigvalsh(torch.cov(where.T)).sqrt()
        assert spread.min() > 4.5  # a side of 20 mm has 5.8
        assert spread.max() < 8.5  # one of 24 mm has 6.8


def test_scaling_stays_within_its_range():
    image, label = box()
    ratios = []
    for number in range(40):
        _, target = only(affine=1.0, rotation=0.0, scale=0.2)(image, label, [number])
        ratios.append(int(target.sum()) / int(label.sum()))
    assert min(ratios) > 0.8**3 * 0.5
    assert max(ratios) < 1 / 0.8**3 * 1.2
    assert max(ratios) / min(ratios) > 1.5


def test_noise_is_no_stronger_than_it_says():
    image, label = torch.zeros(40, 1, 12, 12, 12), torch.zeros(40, 12, 12, 12, dtype=torch.uint8)
    varied, _ = only(noise=1.0)(image, label, range(40))
    spreads = varied.std(dim=(1, 2, 3, 4))
    assert float(spreads.max()) < 0.11
    assert float(spreads.mean()) == pytest.approx(0.05, abs=0.015)


def test_gamma_keeps_mean_and_deviation():
    image, label = batch()
    varied, _ = only(gamma=1.0)(image, label, range(4))
    axes = (2, 3, 4)
    torch.testing.assert_close(varied.mean(axes), image.mean(axes), atol=1e-4, rtol=0)
    torch.testing.assert_close(varied.std(axes), image.std(axes), atol=1e-4, rtol=0)


def test_the_share_of_varied_patches_is_as_asked():
    image, label = torch.ones(400, 1, 4, 4, 4), torch.zeros(400, 4, 4, 4, dtype=torch.uint8)
    varied, _ = only(brightness=0.25)(image, label, range(400))
    changed = (varied != 1).flatten(1).any(1).float().mean()
    assert float(changed) == pytest.approx(0.25, abs=0.06)


@pytest.mark.parametrize("wrong", [{"flip_axes": [3]}, {"noise": 1.5}, {"scale": 1.0}])
def test_settings_that_mean_nothing_are_refused(wrong):
    with pytest.raises(OptionError, match=next(iter(wrong))):
        Augmentation(**wrong)
