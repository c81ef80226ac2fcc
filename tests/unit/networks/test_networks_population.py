"""Population statistics of batch norm."""

import torch
from torch import nn

from medseg.networks.population import measure_population


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
    assert network[0].momentum == 0.3


def test_no_batch_changes_nothing():
    network = nn.Sequential(nn.BatchNorm3d(1))
    assert measure_population(network, []) == 0
    assert float(network[0].running_var) == 1.0
