"""The loss along its gradient, where it can be worked out by hand."""

import pytest
import torch
from torch import nn

from medseg.networks.unet import Architecture, UNet
from medseg.training.landscape import FACTORS, along_gradient


def parabola(curvature, place):
    """Return one weight, and half its square times the curvature as a loss."""
    network = nn.Linear(1, 1, bias=False).double()
    with torch.no_grad():
        network.weight.fill_(place)
    return network, lambda: 0.5 * curvature * network.weight.square().sum()


def test_a_parabola_has_its_curvature_as_effective_beta():
    network, loss = parabola(curvature=3.0, place=2.0)
    seen = along_gradient(network, loss, relative=0.01)
    assert seen.distance == pytest.approx(0.02)
    # Times the squared norm of the weights.
    assert seen.effective_beta == pytest.approx(3.0 * 4.0)
    # The gradient falls with the weight: by four units of a hundredth.
    assert seen.gradient_change == pytest.approx(max(FACTORS) * 0.01)
    ends = 0.5 * 3 * (2.0**2 - (2.0 - max(FACTORS) * 0.02) ** 2)
    assert seen.loss_range == pytest.approx(ends)


def test_the_scale_of_the_weights_changes_nothing_where_the_loss_does_not_see_it():
    generator = torch.Generator().manual_seed(0)
    data, target = torch.randn(8, 5, generator=generator), torch.randn(8, generator=generator)

    def seen(scale):
        network = nn.Linear(5, 1, bias=False).double()
        with torch.no_grad():
            network.weight.copy_(scale * torch.linspace(-1, 1, 5))

        def loss():
            direction = network.weight[0] / network.weight.norm()
            return (data.double() @ direction - target).square().mean()

        return along_gradient(network, loss, relative=0.05)

    small, large = seen(0.1), seen(10.0)
    assert small.effective_beta == pytest.approx(large.effective_beta)
    assert small.gradient_change == pytest.approx(large.gradient_change)
    assert small.loss_range == pytest.approx(large.loss_range)


@pytest.mark.parametrize("norm", ["batch", "batch_renorm", "switchable", "group", "batch_frozen"])
def test_weights_buffers_modes_and_gradients_are_left_as_they_were(norm):
    architecture = Architecture(channels=[4, 8], dropout=0.5)
    network = UNet(1, 2, architecture, norm, 2, seed=0).train()
    image = torch.randn(2, 1, 8, 8, 8, generator=torch.Generator().manual_seed(1))
    network(image).square().mean().backward()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    gradients = [p.grad.clone() for p in network.parameters() if p.grad is not None]
    drawn = torch.random.get_rng_state()
    seen = along_gradient(network, lambda: network(image).square().mean(), relative=0.01)
    assert seen.gradient_change > 0
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    after = [p.grad for p in network.parameters() if p.grad is not None]
    assert all(map(torch.equal, gradients, after))
    assert torch.equal(drawn, torch.random.get_rng_state())
    assert network.training
