"""The sliding window: constants stay constant, and it agrees with MONAI's."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.inferers import sliding_window_inference
from torch import nn

from medseg.core.errors import GeometryError, OptionError
from medseg.networks.window import SlidingWindow, gaussian_weight, window_corners

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
    starts = sorted({corner[0] for corner in window_corners((length, 8, 8), (8, 8, 8), 0.5)})
    assert starts[0] == 0
    assert starts[-1] == length - 8
    assert all(b - a <= 4 for a, b in itertools.pairwise(starts))


def test_wrong_requests_are_refused():
    with pytest.raises(OptionError, match=r"overlap must be in \[0, 1\); got 1.0"):
        SlidingWindow((8, 8, 8), 1.0)
    with pytest.raises(GeometryError, match="image must have shape"):
        SlidingWindow((8, 8, 8))(torch.zeros(2, 1, 8, 8, 8), nn.Identity())
