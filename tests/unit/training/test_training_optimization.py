"""Optimizers: fused ones take the same steps, are clipped, and refused where there are none."""

import pytest
import torch

from medseg.core.errors import OptionError
from medseg.networks.unet import Architecture, UNet
from medseg.training.optimization import Optimization, match_strides


def trained(fused, name="adamw", steps=4, scaler=None):
    """Return the weights after steps with gradients of a fixed generator."""
    network = UNet(1, 2, Architecture(channels=[8, 16]), "group", seed=0)
    optimizer = Optimization(name=name, fused=fused).build(network)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        for weight in network.parameters():
            # As autograd keeps it: laid out in memory as the weight is.
            weight.grad = torch.empty_like(weight).copy_(
                torch.randn(weight.shape, generator=generator)
            )
        if scaler is None:
            optimizer.step()
        else:
            for weight in network.parameters():
                weight.grad *= scaler.scale(torch.ones(()))
            scaler.unscale_(optimizer)
            scaler.step(optimizer)
            scaler.update()
    return torch.cat([weight.detach().flatten() for weight in network.parameters()])


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_a_fused_optimizer_takes_the_steps_of_the_plain_one(name):
    plain, fused = trained(False, name), trained(True, name)
    assert float((fused - trained(False, name, 0)).abs().max()) > 1e-3
    torch.testing.assert_close(fused, plain, rtol=1e-5, atol=1e-7)


def test_null_is_fused_where_pytorch_has_it():
    network = torch.nn.Conv3d(1, 2, 3)
    assert Optimization().build(network).param_groups[0]["fused"]
    assert not Optimization(fused=False).build(network).param_groups[0]["fused"]
    elsewhere = torch.nn.Conv3d(1, 2, 3, device="meta")
    assert not Optimization().build(elsewhere).param_groups[0]["fused"]


def test_a_fused_optimizer_is_refused_where_there_is_none():
    with pytest.raises(OptionError, match=r"cpu, cuda, mps; the network is on meta"):
        Optimization(fused=True).build(torch.nn.Conv3d(1, 2, 3, device="meta"))


def test_scaled_gradients_are_unscaled_once_before_a_fused_step():
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    torch.testing.assert_close(trained(True, scaler=scaler), trained(True), rtol=1e-6, atol=1e-8)


def test_infinite_scaled_gradients_skip_a_fused_step():
    network = torch.nn.Conv3d(1, 2, 3)
    before = network.weight.detach().clone()
    optimizer = Optimization(fused=True).build(network)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for weight in network.parameters():
        weight.grad = torch.full_like(weight, torch.inf)
    scaler.scale(torch.ones(()))
    scaler.step(optimizer)
    assert torch.equal(network.weight, before)


@pytest.mark.parametrize("half", [False, True])
def test_gradients_have_the_strides_of_their_weights(half):
    network = UNet(1, 2, Architecture(channels=[8, 16], encoder="residual"), "group", seed=0)
    match_strides(network)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
        heads = network.heads(torch.randn(2, 1, 8, 8, 8))
    sum(head.float().square().sum() for head in heads).backward()
    for name, weight in network.named_parameters():
        assert weight.grad.stride() == weight.stride(), name
