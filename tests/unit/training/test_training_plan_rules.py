"""The rules of a plan, as numbers."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medseg.core.errors import OptionError
from medseg.data.fingerprint import ChannelFacts, ClassFacts, Fingerprint
from medseg.data.mirroring import Mirrored
from medseg.training import plan_rules as rules


def facts_of(shapes, spacings):
    return Fingerprint(
        cases=tuple(f"c{n}" for n in range(len(shapes))),
        shapes=tuple(shapes),
        spacings=tuple(spacings),
        channels=(channel("MR"),),
        classes=(ClassFacts("a", len(shapes), 1.0, 0.1),),
        mirrored=(Mirrored(),) * 3,
    )


def channel(name, lowest=0.0, low=10.0, high=50.0):
    return ChannelFacts(name, lowest, low, 20.0, high, 20.0, 5.0)


def test_the_target_spacing_is_the_median():
    facts = facts_of([(10, 10, 10)] * 3, [(1, 1, 2), (1.2, 1, 2), (2, 1, 2.5)])
    assert rules.target_spacing(facts) == (1.2, 1, 2)


def test_a_very_coarse_axis_takes_the_tenth_percentile():
    thick = [5.0] * 8 + [2.0, 2.0]
    facts = facts_of([(10, 10, 10)] * 10, [(1, 1, slice_) for slice_ in thick])
    assert rules.target_spacing(facts) == pytest.approx((1, 1, np.percentile(thick, 10)))


def test_it_never_gets_finer_than_the_other_axes():
    facts = facts_of([(10, 10, 10)] * 10, [(1, 1, 5.0)] * 8 + [(1, 1, 0.5)] * 2)
    assert rules.target_spacing(facts) == (1, 1, 1)


def test_hippocampus_gets_the_levels_of_nnunet():
    strides, kernels = rules.levels((1, 1, 1), (35, 50, 36))
    assert strides == ((1, 1, 1), (2, 2, 2), (2, 2, 2), (2, 2, 2))
    assert set(kernels) == {(3, 3, 3)}


def test_thick_slices_are_halved_and_mixed_later():
    strides, kernels = rules.levels((0.625, 0.625, 3.6), (256, 256, 20))
    # 0.625 -> 1.25 -> 2.5 mm in plane until the slices, 3.6 mm, are no more than twice as coarse.
    assert strides[:4] == ((1, 1, 1), (2, 2, 1), (2, 2, 1), (2, 2, 2))
    assert kernels[:4] == ((3, 3, 1), (3, 3, 1), (3, 3, 3), (3, 3, 3))


@pytest.mark.parametrize(
    ("spacing", "size"),
    [((1, 1, 1), (256, 256, 6)), ((1.56, 1.56, 10), (216, 256, 10)), ((1, 1, 1), (256, 256, 1))],
)
def test_a_short_axis_takes_no_kernel_from_the_others(spacing, size):
    _, kernels = rules.levels(spacing, size)
    assert all(kernel[:2] == (3, 3) for kernel in kernels)
    through = [kernel[2] for kernel in kernels]
    assert through == sorted(through)  # once 3, always 3


def test_a_flat_image_is_halved_in_plane():
    strides, _ = rules.levels((1, 1, 1), (64, 64, 5))
    assert all(stride[2] == 1 for stride in strides)
    assert len(strides) == 5


@settings(deadline=None, max_examples=60)
@given(
    spacing=st.tuples(*[st.floats(0.2, 10)] * 3),
    size=st.tuples(*[st.integers(1, 600)] * 3),
)
def test_every_layout_divides_and_keeps_its_bottleneck(spacing, size):
    facts = facts_of([size], [spacing])
    found = list(rules.layouts(facts, spacing))
    volumes = [layout.voxels for layout in found]
    for layout in found:
        assert 2 <= len(layout.strides) == len(layout.kernels) <= rules.MOST_LEVELS
        divisor = np.prod(layout.strides, axis=0)
        assert not (np.asarray(layout.patch_size) % divisor).any()
        halved = divisor > 1
        bottom = np.asarray(layout.patch_size) // divisor
        assert (bottom[halved] >= rules.SMALLEST_BOTTLENECK).all()
    assert len(set(volumes)) >= len(volumes) // 2  # it gets smaller, not round and round
    if found:
        assert (np.asarray(found[0].patch_size) >= np.asarray(size)).all()
    else:
        assert max(size) < 2 * rules.SMALLEST_BOTTLENECK


def test_channels_double_up_to_a_cap():
    assert rules.channels(32, 6) == [32, 64, 128, 256, 320, 320]


@pytest.mark.parametrize(
    ("facts", "value"),
    [
        (channel("CT", -1000, -80, 123), [-80, 123]),
        (channel("unnamed", -1024, -80, 123), [-80, 123]),
        (channel("FDG-PET", 0, 0.1, 19.93), [0, 19.9]),
        (channel("T1w", 0, 3, 800), "zscore"),
        (channel("contrast", 0, 3, 800), "zscore"),  # not CT, though it has these letters
        (channel("CT", 0, 7, 7), "zscore"),  # a window without width
    ],
)
def test_intensities_are_scaled_by_their_kind(facts, value):
    assert rules.intensity(facts)[0] == value


ALIKE, UNLIKE = Mirrored(20, 11, 0.8, 0.8), Mirrored(20, 19, 0.87, 0.59)
UNSURE = Mirrored(20, 14, 0.8, 0.6)  # less alike, though not in nearly all cases


@pytest.mark.parametrize(
    ("names", "axes"), [(["liver"], [0, 1, 2]), (["liver", "kidney_left"], [])]
)
def test_sides_forbid_mirroring(names, axes):
    found, reason = rules.flip_axes(names, [ALIKE] * 3)
    assert found == axes
    assert ("kidney_left: a mirrored image" in reason) is (not axes)


@pytest.mark.parametrize(
    ("mirrored", "axes"),
    [
        ([UNLIKE, UNLIKE, UNLIKE], []),
        ([ALIKE, UNLIKE, ALIKE], [0, 2]),
        ([UNLIKE, ALIKE, UNLIKE], [1]),
        ([UNSURE, UNSURE, UNSURE], [0]),  # a body is about symmetric, but not upside down
        ([Mirrored(), Mirrored(), Mirrored()], [0]),
    ],
)
def test_an_axis_is_mirrored_where_cases_look_alike(mirrored, axes):
    assert rules.flip_axes(["tumour"], mirrored)[0] == axes


def test_the_reason_tells_how_alike_they_are():
    _, reason = rules.flip_axes(["anterior"], [UNLIKE, ALIKE, ALIKE])
    assert "(similarity 0.87); mirrored left and right 0.59 (19 of 20 cases less alike)" in reason


def test_the_norm_follows_the_batch():
    assert [rules.norm_for(n) for n in (1, 4, 5, 15, 16)] == [
        "instance", "instance", "group", "group", "batch"]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("15m", 900), ("1.5h", 5400), ("2 d", 172800), ("00:01:00:05", 3605)],
)
def test_durations_are_read(text, seconds):
    assert rules.parse_seconds("--time", text) == seconds


@pytest.mark.parametrize("text", ["", "15", "m", "-3m", "0s", "1:2:3", "1h30"])
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(OptionError, match="--time must be a duration"):
        rules.parse_seconds("--time", text)


def test_a_smaller_patch_keeps_the_aspect_of_the_images():
    facts = facts_of([(512, 512, 100)], [(0.8, 0.8, 4.0)])
    small = next(la for la in rules.layouts(facts, (0.8, 0.8, 4.0)) if la.voxels < 300_000)
    i, j, k = small.patch_size
    assert i == j
    assert 2.5 < i / k < 10
    assert math.prod(small.patch_size) == small.voxels
