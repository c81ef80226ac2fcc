"""Our numbers against those of MONAI and SimpleITK, on constructed and random volumes."""

import numpy as np
import pytest
import SimpleITK
from scipy import ndimage

from medseg.core.lesions import LesionRule, count_lesions
from medseg.core.metrics import score_classes

SPACING = (3.0, 1.0, 0.7)
SHAPE = (16, 36, 44)
TOLERANCE_MM = 1.0


def ball(centre, radius_mm):
    axes = np.meshgrid(*map(np.arange, SHAPE), indexing="ij")
    squares = [(s * (a - c)) ** 2 for a, c, s in zip(axes, centre, SPACING, strict=True)]
    return sum(squares) <= radius_mm**2


def voxels(*places):
    mask = np.zeros(SHAPE, bool)
    mask[tuple(np.transpose(places))] = True
    return mask


def box(*bounds):
    mask = np.zeros(SHAPE, bool)
    mask[tuple(slice(*bound) for bound in bounds)] = True
    return mask


def blob(seed, level=0.02):
    noise = np.random.default_rng(seed).standard_normal(SHAPE)
    return ndimage.gaussian_filter(noise, 2.0) > level


def constructed():
    centre, empty, full = (8, 18, 22), np.zeros(SHAPE, bool), np.ones(SHAPE, bool)
    big, voxel = ball(centre, 12.0), voxels(centre)
    noise = np.random.default_rng(9).random((2, *SHAPE)) < 0.3
    pairs = {
        "both empty": (empty, empty),
        "reference empty": (empty, big),
        "prediction empty": (big, empty),
        "voxel same": (voxel, voxel),
        "voxel shifted in z": (voxel, voxels((9, 18, 22))),
        "voxel shifted in x": (voxel, voxels((8, 18, 23))),
        "voxel in a cube": (voxel, box((7, 10), (17, 20), (21, 24))),
        "ball same": (big, big),
        "ball shifted": (big, ball((9, 18, 22), 12.0)),
        "ball dilated": (big, ndimage.binary_dilation(big)),
        "ball and a far voxel": (big, big | voxels((0, 0, 0))),
        "tiny and huge": (voxels((1, 1, 1)), box((0, 16), (2, 36), (2, 44))),
        "plate shifted": (box((4, 5), (5, 30), (5, 30)), box((5, 6), (5, 30), (5, 30))),
        "touching a corner": (box((0, 5), (0, 9), (0, 9)), box((0, 6), (0, 8), (0, 9))),
        "touching all faces": (full & ~box((5, 9), (9, 20), (9, 20)), full & ~ball(centre, 6.0)),
        "full volume": (full, full & ~voxels((0, 0, 0))),
        "hollow shell": (big & ~ball(centre, 9.0), big),
        "pure noise": tuple(noise),
    }
    for seed in range(6):
        reference = blob(seed)
        wrong = np.random.default_rng(seed).random(SHAPE) < 0.02 * (seed + 1)
        pairs[f"blob {seed}"] = (reference, reference ^ wrong)
    return pairs


PAIRS = constructed()
BOTH = [name for name, (ref, pred) in PAIRS.items() if ref.any() and pred.any()]


def ours(name):
    reference, prediction = (mask.astype(np.uint8) for mask in PAIRS[name])
    return score_classes(reference, prediction, [1], SPACING, TOLERANCE_MM)[0].values


@pytest.fixture(scope="module")
def monai_metrics():
    return pytest.importorskip("monai.metrics")


def tensors(name):
    import torch

    return [torch.from_numpy(mask[None, None].astype(np.float32)) for mask in PAIRS[name]]


def test_every_constructed_pair_is_there():
    assert len(PAIRS) == 24
    assert len(BOTH) == 21


@pytest.mark.parametrize("name", BOTH)
def test_agrees_with_monai(monai_metrics, name):
    ref, pred = tensors(name)
    mine = ours(name)
    common = {"include_background": True, "spacing": SPACING}
    hd = monai_metrics.compute_hausdorff_distance(pred, ref, **common)
    hd95 = monai_metrics.compute_hausdorff_distance(pred, ref, percentile=95, **common)
    assd = monai_metrics.compute_average_surface_distance(pred, ref, symmetric=True, **common)
    nsd = monai_metrics.compute_surface_dice(pred, ref, [TOLERANCE_MM], **common)
    dice = monai_metrics.compute_dice(pred, ref, ignore_empty=False)
    assert mine["dice"] == pytest.approx(dice.item(), abs=1e-6)
    assert mine["hd_mm"] == pytest.approx(hd.item(), abs=1e-4)
    assert mine["hd95_mm"] == pytest.approx(hd95.item(), abs=2e-4)
    assert mine["assd_mm"] == pytest.approx(assd.item(), abs=1e-4)
    assert mine["nsd"] == pytest.approx(nsd.item(), abs=1e-4)


@pytest.mark.parametrize("name", [name for name in PAIRS if name != "both empty"])
def test_dice_and_iou_agree_with_simpleitk(name):
    measure = SimpleITK.LabelOverlapMeasuresImageFilter()
    measure.Execute(*(SimpleITK.GetImageFromArray(mask.astype(np.uint8)) for mask in PAIRS[name]))
    assert ours(name)["dice"] == pytest.approx(measure.GetDiceCoefficient(1), abs=1e-6)
    assert ours(name)["iou"] == pytest.approx(measure.GetJaccardCoefficient(1), abs=1e-6)


@pytest.mark.parametrize("name", BOTH)
def test_pooled_hd95_is_not_above_the_larger_directed_one(name):
    values = ours(name)
    assert values["hd_mm"] >= values["hd95_mm"] >= values["hd95_pooled_mm"]


def small_pairs(count):
    """Yield random small pairs of blobs, noise and boxes, with a random spacing each."""
    rng = np.random.default_rng(7)
    while count:
        shape = tuple(rng.integers(2, 11, 3))
        noise = rng.standard_normal((2, *shape))
        blobs = [ndimage.gaussian_filter(n, rng.uniform(0, 2)) > 0.05 for n in noise]
        blobs[1] = blobs[1] if rng.random() < 0.5 else blobs[0] ^ (rng.random(shape) < 0.1)
        if all(blob.any() for blob in blobs):
            count -= 1
            yield (*blobs, tuple(float(s) for s in rng.uniform(0.3, 5.0, 3)))


def test_agrees_with_monai_on_500_random_volumes(monai_metrics):
    import torch

    worst = dict.fromkeys(["dice", "hd_mm", "hd95_mm", "assd_mm", "nsd"], 0.0)
    for ref, pred, spacing in small_pairs(500):
        mine = score_classes(ref.astype(np.uint8), pred.astype(np.uint8), [1], spacing, 1.0)[0]
        pair = [torch.from_numpy(mask[None, None].astype(np.float32)) for mask in (pred, ref)]
        common = {"include_background": True, "spacing": spacing}
        theirs = {
            "dice": monai_metrics.compute_dice(*pair, ignore_empty=False),
            "hd_mm": monai_metrics.compute_hausdorff_distance(*pair, **common),
            "hd95_mm": monai_metrics.compute_hausdorff_distance(*pair, percentile=95, **common),
            "assd_mm": monai_metrics.compute_average_surface_distance(
                *pair, symmetric=True, **common
            ),
            "nsd": monai_metrics.compute_surface_dice(*pair, [1.0], **common),
        }
        for name, value in theirs.items():
            worst[name] = max(worst[name], abs(value.item() - mine.values[name]))
    limits = {"dice": 1e-6, "hd_mm": 1e-4, "hd95_mm": 2e-4, "assd_mm": 1e-4, "nsd": 1e-4}
    assert {n: w for n, w in worst.items() if w > limits[n]} == {}


@pytest.mark.parametrize("iou", [0.1, 0.5])
def test_lesions_agree_with_panoptica(iou):
    panoptica = pytest.importorskip("panoptica")
    from panoptica.metrics import Metric

    evaluator = panoptica.Panoptica_Evaluator(
        expected_input=panoptica.InputType.SEMANTIC,
        instance_approximator=panoptica.ConnectedComponentsInstanceApproximator(),
        instance_matcher=panoptica.NaiveThresholdMatching(Metric.IOU, iou),
    )
    for ref, pred, _ in small_pairs(40):
        found = count_lesions(ref, pred, 0.001, LesionRule(26, 0.0, iou))
        arrays = (mask.astype(np.uint8) for mask in (pred, ref))
        result = evaluator.evaluate(*arrays, verbose=False)["ungrouped"]
        assert (result.num_ref_instances, result.num_pred_instances, result.tp) == (
            found.n_ref, found.n_pred, found.n_matched,
        )  # fmt: skip
