"""What dropout takes away from a sample follows from its number, not from its batch."""

import pytest
import torch

from medseg.networks.dropout import ChannelDropout, draw_channels
from medseg.networks.fold import folded
from medseg.networks.unet import Architecture, UNet

P = 0.3


def kept(layer, numbers, seed=0):
    """Return which channels are left of ones, shape (B, C)."""
    draw_channels(layer, seed, numbers)
    return layer(torch.ones(len(numbers), layer.channels, 2, 2, 2))[:, :, 0, 0, 0] > 0


def test_a_sample_loses_the_same_channels_in_any_batch():
    layer = ChannelDropout(P, 64).train()
    together = kept(layer, [5, 6, 7, 8])
    assert torch.equal(torch.cat([kept(layer, [5, 6]), kept(layer, [7, 8])]), together)
    assert torch.equal(kept(layer, [8, 5]), together[[3, 0]])
    assert not torch.equal(together[0], together[1])
    assert not torch.equal(kept(layer, [5], seed=1)[0], together[0])


def test_the_mean_is_kept_and_whole_channels_go():
    layer = ChannelDropout(P, 500).train()
    draw_channels(layer, 0, range(20))
    out = layer(torch.ones(20, 500, 2, 2, 2))
    assert out.mean().item() == pytest.approx(1, abs=0.02)
    assert (out == 0).float().mean().item() == pytest.approx(P, abs=0.02)
    assert torch.equal(out.amin((2, 3, 4)), out.amax((2, 3, 4)))


def test_prediction_loses_nothing_and_without_draws_pytorch_draws():
    layer = ChannelDropout(0.5, 64)
    ones = torch.ones(1, 64, 2, 2, 2)
    torch.manual_seed(0)
    assert (layer.train()(ones) == 0).any()
    draw_channels(layer, 0, [1])
    assert torch.equal(layer.eval()(ones), ones)


def test_layers_of_a_network_draw_apart_and_state_is_unchanged():
    network = UNet(1, 2, Architecture(channels=[8, 8, 8], dropout=P), "batch", seed=0)
    names = set(network.state_dict())
    draw_channels(network, 0, [1, 2])
    layers = [layer for layer in network.modules() if isinstance(layer, ChannelDropout)]
    assert len(layers) == 5
    assert not torch.equal(layers[0].kept, layers[1].kept)
    assert set(network.state_dict()) == names
    assert not any(isinstance(layer, ChannelDropout) for layer in folded(network.eval()).modules())
