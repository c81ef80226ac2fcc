"""Slabs, blocks and plans: the same labels as from whole logits, in the memory that was planned."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from torch import nn

from medseg.core.geometry import Grid
from medseg.data.resample import GridMap, resample
from medseg.data.transforms import Preprocessing, canonical_grid
from medseg.inference.cuts import Cut, Footprint, best_cut
from medseg.inference.plan import Request
from medseg.inference.slabs import Source, blocks
from medseg.io.memory import parse_bytes
from medseg.networks.window import SlidingWindow

CLASSES = 4


def network(seed):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv3d(1, 5, 3, padding=1), nn.Tanh(), nn.Conv3d(5, CLASSES, 3, padding=1)
    ).eval()


def case(seed, tilt=False):
    """Return an image's grid and a preprocessing, any orientation, spacing and angle."""
    rng = np.random.default_rng(seed)
    shape = tuple(int(n) for n in rng.integers(1, 22, 3))
    axes = np.eye(3)[rng.permutation(3)] * rng.choice([-1, 1], 3)
    turn = Rotation.from_rotvec(rng.normal(size=3) * rng.choice([0, 0.2])).as_matrix()
    affine = np.eye(4)
    affine[:3, :3] = turn @ axes * rng.uniform(0.6, 2.5, 3)
    affine[:3, 3] = rng.normal(size=3) * 30
    if tilt:
        affine[:3, :3] = affine[:3, :3] @ [[1, 0, 0], [0, 1, 0.25], [0, 0, 1]]
    spacing = [None, [1.0, 1.0, 1.0], [0.8, 1.5, 2.0]][int(rng.integers(3))]
    return Grid(shape, affine), Preprocessing(
        spacing=spacing, orientation=str(rng.choice(["RAS", "LPS", "PIR"]))
    )


def whole_logits(source, original):
    with torch.inference_mode():
        logits = source.window(source.image, source.network)[0]
        return resample(logits, source.grid, original)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    axis=st.integers(0, 2),
    pieces=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    step=st.integers(1, 9),
    tilt=st.booleans(),
    members=st.integers(1, 2),
)
def test_blocks_give_what_whole_logits_give(seed, axis, pieces, step, tilt, members):
    original, first = case(seed, tilt)
    plans = [first, replace(first, spacing=[1.3, 0.9, 1.1])][:members]
    sources = []
    for number, preprocessing in enumerate(plans):
        grid = canonical_grid(original, preprocessing)
        rng = torch.Generator().manual_seed(seed)
        image = torch.randn(1, 1, *grid.shape, generator=rng)
        roi = [(8, 6, 4), (5, 7, 8)][number]
        sources.append(Source(network(number), SlidingWindow(roi, 0.5, 2), image, grid))
    counts = [1, 1, 1]
    for other, count in zip((a for a in range(3) if a != axis), pieces, strict=True):
        counts[other] = min(count, original.shape[other])
    cut = Cut(axis, tuple(counts), min(step, original.shape[axis]), 0, 0, 0)
    found = torch.full((CLASSES, *original.shape), torch.nan)
    with torch.inference_mode():
        for box, values in blocks(sources, original, cut, torch.device("cpu")):
            place = (slice(None), *(slice(*span) for span in box))
            assert bool(torch.isnan(found[place]).all())  # each voxel once
            found[place] = values
    wanted = [whole_logits(source, original) for source in sources]
    if members == 1:
        expected = wanted[0]
    else:
        expected = (sum(logits.softmax(0) for logits in wanted) / members).log()
    spread = float(expected.max() - expected.min())
    assert float((found - expected).abs().max()) <= 1e-4 * spread
    top = expected.topk(2, dim=0).values
    clear = top[0] - top[1] > 2e-4 * spread
    assert torch.equal(found.argmax(0)[clear], expected.argmax(0)[clear])


def footprint(classes=40, roi=(32, 32, 32), overlap=0.5):
    return Footprint(SlidingWindow(roi, overlap, 1), 1, classes, 8 * roi[0] ** 3, 1 << 20)


def test_more_memory_never_costs_more_windows_and_every_plan_keeps_its_limit():
    original = Grid.from_spacing((150, 170, 200), (1, 1, 1))
    request = Request((footprint(),), (Preprocessing(),))
    free = request.plan(original, [original], 0)
    assert free.cut.windows == free.cut.fewest
    windows = []
    for share in (1.0, 0.8, 0.6, 0.5, 0.4, 0.35):
        limit = int(free.bytes * share)
        plan = request.plan(original, [original], 0, limit)
        if plan is not None:
            assert plan.bytes <= limit
            windows.append(plan.cut.windows)
    assert windows[0] == free.cut.fewest
    assert windows == sorted(windows)
    assert windows[-1] > windows[0]
    assert request.plan(original, [original], 0, 1 << 20) is None


def test_memory_does_not_grow_with_the_length_of_the_volume():
    request = Request((footprint(),), (Preprocessing(),))
    slabs = []
    for length in (400, 1600):
        grid = Grid.from_spacing((64, 64, length), (1, 1, 1))
        slabs.append(request.plan(grid, [grid], 0).cut.slab_bytes)
    assert slabs[0] == slabs[1]


def test_windows_are_counted_as_they_are_predicted():
    original = Grid.from_spacing((40, 30, 50), (1, 1, 1))
    calls = []

    def counted(windows):
        calls.append(len(windows))
        return windows.expand(-1, 3, -1, -1, -1)

    window = SlidingWindow((16, 16, 16), 0.5, 1)
    source = Source(counted, window, torch.zeros(1, 1, *original.shape), original)
    mark = Footprint(window, 1, 3, 16**3, 0)
    for room in (None, 500_000, 300_000):
        calls.clear()
        cut = best_cut(original, [mark], [original], room)
        for _ in blocks([source], original, cut, torch.device("cpu")):
            pass
        assert sum(calls) == cut.windows
        assert room is None or cut.slab_bytes <= room
    assert cut.windows > cut.fewest


def test_probabilities_are_walked_along_the_first_axis():
    original = Grid.from_spacing((20, 30, 90), (1, 1, 1))
    request = Request((footprint(4),), (Preprocessing(),), probabilities=True)
    assert request.plan(original, [original], 0).cut.axis == 0
    assert replace(request, probabilities=False).plan(original, [original], 0).cut.axis == 2


def test_a_span_of_a_target_needs_its_neighbours_in_the_source():
    source, target = (
        Grid.from_spacing((10, 10, 10), (2, 2, 2)),
        Grid.from_spacing((19, 10, 5), (1, 2, 4)),
    )
    grids = GridMap(source, target)
    assert grids.needed([(0, 3), (2, 5), (1, 3)]) == ((0, 2), (2, 5), (2, 5))
    assert grids.needed([(3, 4), (0, 1), (4, 5)]) == ((1, 3), (0, 1), (8, 9))


@pytest.mark.parametrize(
    ("text", "count"), [("4GiB", 4 << 30), ("900MB", 900 << 20), ("1.5g", 3 << 29), ("2048", 2048)]
)
def test_sizes_are_read(text, count):
    assert parse_bytes("--max_memory", text) == count
    assert 0 < parse_bytes("--max_memory", "50%") < parse_bytes("--max_memory", "100%")


@pytest.mark.parametrize("text", ["", "4 apples", "-1GiB", "0%", "101%", "1e9", "0"])
def test_other_sizes_are_refused(text):
    with pytest.raises(Exception, match="must be a size such as 4GiB"):
        parse_bytes("--max_memory", text)
