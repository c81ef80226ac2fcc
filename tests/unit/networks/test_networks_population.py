"""Population statistics of batch norm."""

import pytest
import torch
from torch import nn

from medseg.networks.population import (
    measure_population,
    own_statistics,
    population_statistics,
    running_statistics,
    use_statistics,
)
from medseg.networks.unet import Architecture, UNet
from medseg.networks.window import SlidingWindow


def test_the_variance_between_batches_is_not_lost():
    generator = torch.Generator().manual_seed(0)
    batches = [torch.randn((2, 3, 4, 4, 4), generator=generator) + 5 * i for i in range(4)]
    network = nn.Sequential(nn.BatchNorm3d(3)).eval()
    assert measure_population(network, batches) == 4
    everything = torch.cat(batches).movedim(1, 0).flatten(1).double()
    torch.testing.assert_close(
        network[0].running_mean.double(), everything.mean(1), rtol=0, atol=1e-5
    )
    torch.testing.assert_close(
        network[0].running_var.double(), everything.var(1), rtol=1e-5, atol=0
    )


def test_mode_and_momentum_are_kept():
    network = nn.Sequential(nn.BatchNorm3d(1, momentum=0.3))
    measure_population(network, [torch.randn(1, 1, 2, 2, 2)])
    assert network.training
    assert network[0].training
    assert network[0].momentum == 0.3


def test_a_synchronized_layer_is_measured_like_any_other_and_keeps_its_counter():
    network = nn.Sequential(nn.SyncBatchNorm(1)).eval()
    found = population_statistics(network, [tenths(0, 2), tenths(10, 16)])["0"]
    assert float(found.mean) == 7.0
    assert int(network[0].num_batches_tracked) == 0
    assert float(network[0].running_mean) == 0.0


def test_no_batch_changes_nothing():
    network = nn.Sequential(nn.BatchNorm3d(1))
    assert measure_population(network, []) == 0
    assert float(network[0].running_var) == 1.0


def tenths(*values):
    """Return one batch of one channel that holds these values."""
    return torch.tensor(values, dtype=torch.float32).reshape(1, 1, 1, 1, -1)


def test_both_estimators_of_a_toy_that_can_be_reckoned_by_hand():
    # Variances within: 2 and 18 (unbiased); of 0, 2, 10, 16: mean 7, squares 49 + 25 + 9 + 81 = 164.
    batches = [tenths(0, 2), tenths(10, 16)]
    network = nn.Sequential(nn.BatchNorm3d(1)).eval()
    pooled = population_statistics(network, batches, "pooled")["0"]
    mean = population_statistics(network, batches, "mean_of_batches")["0"]
    assert float(pooled.mean) == float(mean.mean) == 7.0
    assert float(pooled.variance) == pytest.approx(164 / 3)
    assert float(mean.variance) == pytest.approx((2 + 18) / 2)
    assert float(network[0].running_var) == 1.0


def test_mean_of_batches_is_what_update_bn_gives():
    generator = torch.Generator().manual_seed(3)
    batches = [torch.randn((2, 4, 5, 5, 5), generator=generator) * 3 + i for i in range(5)]
    ours, theirs = (nn.Sequential(nn.BatchNorm3d(4)) for _ in range(2))
    measure_population(ours, batches, "mean_of_batches")
    torch.optim.swa_utils.update_bn(batches, theirs)
    torch.testing.assert_close(ours[0].running_mean, theirs[0].running_mean, rtol=0, atol=1e-6)
    torch.testing.assert_close(ours[0].running_var, theirs[0].running_var, rtol=1e-6, atol=0)


def small_network(norm="batch"):
    architecture = Architecture(channels=(4, 8), depth=1, decoder_depth=1)
    return UNet(1, 2, architecture, norm, seed=0).eval()


def test_own_statistics_of_one_window_are_instance_norm():
    image = torch.randn((1, 1, 8, 8, 8), generator=torch.Generator().manual_seed(1)) * 3 + 2
    # In float64: two ways of computing a convolution differ by more than the bound in float32.
    image = image.double()
    batch, instance = small_network("batch").double(), small_network("instance").double()
    window = SlidingWindow((8, 8, 8))
    with torch.no_grad():
        before = window(image, batch)
        use_statistics(batch, own_statistics(batch, image, window))
        own, per_window = window(image, batch), window(image, instance)
    torch.testing.assert_close(own, per_window, rtol=0, atol=1e-6)
    assert not torch.allclose(before, per_window, atol=1e-2)


def test_own_statistics_belong_to_the_case_and_not_to_its_windows():
    # Dark on one side and bright on the other: each window by itself would hide the difference.
    image = torch.randn((1, 1, 8, 8, 16), generator=torch.Generator().manual_seed(1))
    image[..., 8:] += 10
    network, window = small_network(), SlidingWindow((8, 8, 8), overlap=0.0)
    first = own_statistics(network, image, window)["encoder.0.0.1"]
    inputs = network.encoder[0][0][0](torch.cat([image[..., :8], image[..., 8:]]))
    expected = inputs.movedim(1, 0).flatten(1).double()
    torch.testing.assert_close(first.mean, expected.mean(1), rtol=0, atol=1e-5)
    torch.testing.assert_close(first.variance, expected.var(1, correction=0), rtol=1e-5, atol=0)


def test_dropout_is_off_while_statistics_are_measured():
    network = nn.Sequential(nn.Dropout3d(0.5), nn.BatchNorm3d(1)).train()
    measure_population(network, [tenths(0, 2)])
    assert float(network[1].running_mean) == pytest.approx(1.0)
    assert network[0].training
    assert network[1].training


def test_a_norm_without_running_statistics_has_none_to_measure():
    network = small_network("instance")
    assert running_statistics(network) == {}
    assert population_statistics(network, [torch.zeros(1, 1, 8, 8, 8)]) == {}
