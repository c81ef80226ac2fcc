"""The sliding window: constants stay constant, and it agrees with MONAI's."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.inferers import sliding_window_inference
from torch import nn

from medseg.core.errors import GeometryError, OptionError
from medseg.networks.tiling import axis_corners, gaussian_weight
from medseg.networks.window import SlidingWindow, Walk

SIZES = st.tuples(*[st.integers(1, 23)] * 3)


@settings(max_examples=30, deadline=None)
@given(size=SIZES, overlap=st.sampled_from([0.0, 0.25, 0.5, 0.75]))
def test_a_constant_stays_constant(size, overlap):
    window = SlidingWindow((8, 6, 4), overlap, sw_batch_size=3)
    out = window(torch.zeros(1, 1, *size), lambda patch: torch.full_like(patch, 7.0))
    torch.testing.assert_close(out, torch.full((1, 1, *size), 7.0))


@settings(max_examples=20, deadline=None)
@given(size=SIZES, overlap=st.sampled_from([0.0, 0.5, 0.6]))
def test_a_network_of_single_voxels_gives_the_whole_volume_result(size, overlap):
    network = nn.Conv3d(2, 3, 1)
    image = torch.randn(1, 2, *size)
    with torch.no_grad():
        out = SlidingWindow((8, 6, 4), overlap)(image, network)
        torch.testing.assert_close(out, network(image), rtol=1e-4, atol=1e-5)


def test_it_agrees_with_monai_on_the_same_windows():
    network = nn.Conv3d(1, 2, 3, padding=1)
    image = torch.randn(1, 1, 24, 16, 32)
    with torch.no_grad():
        ours = SlidingWindow((16, 16, 16), 0.5)(image, network)
        theirs = sliding_window_inference(
            image, (16, 16, 16), 4, network, overlap=0.5, mode="gaussian", sigma_scale=0.125
        )
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


def test_the_weight_is_positive_everywhere_and_largest_in_the_middle():
    weight = gaussian_weight((9, 7, 64))
    assert float(weight.min()) > 0
    assert float(weight[4, 3, 31]) == float(weight.max())
    assert float(weight.max()) == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("length", range(8, 40))
def test_windows_cover_the_volume_evenly_and_overlap_as_asked(length):
    starts = axis_corners((0, length), 8, 0.5)
    assert starts[0] == 0
    assert starts[-1] == length - 8
    assert all(b - a <= 4 for a, b in itertools.pairwise(starts))


def test_wrong_requests_are_refused():
    with pytest.raises(OptionError, match=r"overlap must be in \[0, 1\); got 1.0"):
        SlidingWindow((8, 8, 8), 1.0)
    with pytest.raises(GeometryError, match="image must have shape"):
        SlidingWindow((8, 8, 8))(torch.zeros(2, 1, 8, 8, 8), nn.Identity())


def toy(channels=1, classes=3):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv3d(channels, 4, 3, padding=1), nn.Tanh(), nn.Conv3d(4, classes, 3, padding=1)
    )


@settings(max_examples=25, deadline=None)
@given(
    size=SIZES,
    axis=st.integers(0, 2),
    longest=st.integers(1, 7),
    seed=st.integers(0, 99),
    skip=st.booleans(),
)
def test_a_walk_in_any_steps_gives_the_whole_volumes_logits(size, axis, longest, seed, skip):
    rng = torch.Generator().manual_seed(seed)
    image = torch.randn(1, 1, *size, generator=rng)
    image[:, :, : size[0] // 3] = 0
    image = image.clamp_min(0)
    window = SlidingWindow((8, 6, 4), 0.5, 2, skip_empty=skip)
    network = toy()
    with torch.inference_mode():
        whole = window(image, network)[0]
        plane = [
            (0, 0) if a == axis else (n // 3, n // 3 + (n + 1) // 2) for a, n in enumerate(size)
        ]
        walk = Walk(window, image, network, axis, plane, longest)
        start = seed % 2
        while start < size[axis]:
            stop = min(start + 1 + int(torch.randint(longest, (1,), generator=rng)), size[axis])
            box = [
                slice(start, stop) if a == axis else slice(*span) for a, span in enumerate(plane)
            ]
            torch.testing.assert_close(walk.rows(start, stop), whole[:, *box], rtol=0, atol=1e-5)
            start = max(stop - 1, start + 1)  # the halo: the last row once more


def test_a_walk_predicts_each_window_once_and_holds_few_rows():
    calls = []

    def network(crops):
        calls.append(len(crops))
        return crops.expand(-1, 5, -1, -1, -1)

    window = SlidingWindow((8, 8, 8), 0.5, 4)
    walk = Walk(window, torch.zeros(1, 1, 80, 12, 12), network, longest=2)
    for row in range(0, 80, 2):
        walk.rows(row, row + 2)
    assert sum(calls) == 19 * 2 * 2
    held, _ = walk._buffers()
    assert held.shape == (5, 10, 12, 12)


def test_windows_outside_the_box_are_not_predicted():
    calls = []

    def network(crops):
        calls.append(len(crops))
        return crops

    window = SlidingWindow((8, 8, 8), 0.0, 1)
    image = torch.zeros(1, 1, 32, 32, 32)
    Walk(window, image, network, 0, [(0, 32), (9, 15), (0, 17)]).rows(10, 14)
    assert sum(calls) == 1 * 1 * 3


def test_empty_windows_are_skipped_and_are_background():
    calls = []
    network = toy(2)

    def counted(crops):
        calls.append(len(crops))
        return network(crops)

    image = torch.full((1, 2, 48, 24, 24), -1.0)
    image[:, 1, 20:30, 4:10, 10:20] = torch.rand(10, 6, 10)
    with torch.inference_mode():
        everywhere = SlidingWindow((8, 8, 8), 0.5)(image, counted)
        all_windows, calls[:] = sum(calls), []
        skipped = SlidingWindow((8, 8, 8), 0.5, skip_empty=True)(image, counted)
    assert sum(calls) < all_windows / 5
    assert int(skipped[0, :, 0, 0, 0].argmax()) == 0
    assert torch.isfinite(skipped).all()
    inside = (0, slice(None), slice(22, 28), slice(5, 9), slice(12, 18))
    assert skipped[inside].shape == everywhere[inside].shape
    assert not torch.equal(skipped[0, 1:, 22:28], torch.zeros_like(skipped[0, 1:, 22:28]))


def test_a_volume_that_is_empty_everywhere_is_predicted_whole():
    image = torch.full((1, 1, 10, 10, 10), 3.0)
    with torch.inference_mode():
        network = toy()
        plain, skipping = (
            SlidingWindow((8, 8, 8), 0.5, skip_empty=s)(image, network) for s in (False, True)
        )
    torch.testing.assert_close(plain, skipping)


@pytest.mark.parametrize("size", [(24, 16, 32), (16, 40, 24)])
def test_a_walk_agrees_with_monai_on_the_same_windows(size):
    network = toy(1, 4)
    image = torch.randn(1, 1, *size)
    with torch.inference_mode():
        theirs = sliding_window_inference(
            image, (16, 16, 16), 4, network, overlap=0.5, mode="gaussian", sigma_scale=0.125
        )[0]
        walk = Walk(SlidingWindow((16, 16, 16), 0.5), image, network, axis=1, longest=3)
        ours = torch.cat([walk.rows(r, min(r + 3, size[1])) for r in range(0, size[1], 3)], dim=2)
    spread = float(theirs.max() - theirs.min())
    assert float((ours - theirs).abs().max()) <= 1e-4 * spread
    top = theirs.topk(2, dim=0).values
    clear = top[0] - top[1] > 2e-4 * spread
    assert torch.equal(ours.argmax(0)[clear], theirs.argmax(0)[clear])


@pytest.mark.parametrize("skip", [False, True])
def test_crops_are_the_windows_that_are_predicted(skip):
    image = torch.zeros((1, 1, 8, 32, 6))
    for begin in (1, 28):  # nothing in between
        image[:, :, :, begin : begin + 3] = begin
    window = SlidingWindow((8, 8, 8), 0.5, 1, skip)
    seen = []

    def network(windows):
        seen.append(windows.clone())
        return windows

    window(image, network)
    crops = list(window.crops(image))
    assert len(crops) == len(seen) == (2 if skip else 7)
    assert all(torch.equal(crop, windows) for crop, windows in zip(crops, seen, strict=True))


def test_another_overlap_gives_the_same_windows_of_a_small_volume():
    small, large = torch.zeros((1, 1, 8, 6, 4)), torch.zeros((1, 1, 8, 6, 20))
    usual, sparse = SlidingWindow((8, 8, 8), 0.5), SlidingWindow((8, 8, 8), 0.0)
    assert usual.is_same_on(small, sparse)
    assert not usual.is_same_on(large, sparse)
    assert not usual.is_same_on(small, SlidingWindow((8, 8, 16), 0.5))
