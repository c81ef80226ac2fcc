"""Every row with running statistics: they can be kept still, and measured anew."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from medseg.networks.norms import NORMS, get_norm
from medseg.networks.norms_weight import standardized
from medseg.networks.population import (
    frozen_statistics,
    measure_population,
    population_statistics,
)
from medseg.networks.unet import Architecture, UNet

RUNNING = [name for name, row in NORMS.items() if row.eval_differs]


def batches(channels=8, size=(4, 4, 4)):
    generator = torch.Generator().manual_seed(0)
    return [2 * torch.randn((3, channels, *size), generator=generator) + i for i in range(3)]


def moved(network):
    with torch.no_grad():
        for batch in batches(1, (8, 8, 8)):
            network.train()(batch)
    return network


@pytest.mark.parametrize("name", RUNNING)
def test_population_statistics_are_those_of_all_values(name):
    layer = get_norm(name, 8)
    assert measure_population(nn.Sequential(layer), batches()) == 3
    values = torch.cat(batches()).double().movedim(1, 0).flatten(1).numpy()
    np.testing.assert_allclose(layer.running_mean, values.mean(1), atol=1e-5)
    np.testing.assert_allclose(layer.running_var, values.var(1, ddof=1), rtol=1e-5)


@pytest.mark.parametrize("name", RUNNING)
def test_running_statistics_move_in_training_and_stay_where_they_are_frozen(name):
    layer = get_norm(name, 8).train()
    with frozen_statistics(layer):
        layer(batches()[2])
    assert torch.equal(layer.running_mean, torch.zeros(8))
    layer(batches()[2])
    # Momentum 0.1 of a mean of 2; ghost's two parts move them twice: 1 - 0.9^2.
    share = 0.19 if name == "ghost" else 0.1
    assert float(layer.running_mean.mean()) == pytest.approx(2 * share, rel=0.1)
    assert layer.num_batches_tracked > 0


def test_frozen_norms_are_not_measured_anew():
    network = UNet(1, 2, Architecture(channels=[8, 16]), "batch_frozen", seed=0)
    network.load_state_dict(
        moved(UNet(1, 2, Architecture(channels=[8, 16]), "batch", seed=0)).state_dict()
    )
    before = copy.deepcopy(network.state_dict())
    measure_population(network, batches(1, (8, 8, 8)))
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_a_standardized_kernel_is_its_papers_formula():
    weight = torch.randn((3, 2, 3, 3, 1), generator=torch.Generator().manual_seed(0)).double()
    rows = weight.numpy().reshape(3, -1)
    expected = (rows - rows.mean(1, keepdims=True)) / np.sqrt(rows.var(1, keepdims=True) + 1e-6)
    np.testing.assert_allclose(standardized(weight).numpy().reshape(3, -1), expected, rtol=1e-12)


def test_batch_renorm_is_measured_without_its_correction_and_keeps_its_progress():
    """A second layer sees what the first one gives: corrected towards old statistics, or not."""
    layers = [get_norm(name, 8) for name in ("batch_renorm", "batch_renorm", "batch", "batch")]
    for layer in layers:
        layer.running_mean.fill_(0.7)
        layer.running_var.fill_(3.0)
    renormed, plain = nn.Sequential(*layers[:2]), nn.Sequential(*layers[2:])
    layers[0].progress.fill_(0.8)
    found, expected = (population_statistics(network, batches()) for network in (renormed, plain))
    for name, values in expected.items():
        torch.testing.assert_close(found[name].mean, values.mean, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(found[name].variance, values.variance, atol=1e-5, rtol=1e-5)
    assert float(layers[0].progress) == pytest.approx(0.8)
