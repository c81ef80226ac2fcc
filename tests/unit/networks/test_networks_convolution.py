"""A batch of one small volume is computed in halves, and nothing but the time changes."""

import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from medseg.networks.convolution import Conv3d
from medseg.networks.unet import Architecture, UNet


def gradients(layer, image):
    image = image.clone().requires_grad_()
    out = layer(image)
    weights = torch.linspace(-1, 1, out.numel()).reshape(out.shape)
    (out * weights).sum().backward()
    found = [image.grad, *(p.grad for p in layer.parameters())]
    return out.detach(), [g.clone() for g in found]


@pytest.mark.parametrize("kernel", [(3, 3, 3), (1, 3, 3), (3, 1, 1), (5, 3, 3)])
@pytest.mark.parametrize("stride", [1, 2, (2, 1, 1), (3, 2, 1)])
@pytest.mark.parametrize("length", [1, 2, 5, 8, 9])
def test_output_and_gradients_are_those_of_pytorchs(kernel, stride, length):
    padding = tuple(n // 2 for n in kernel)
    usual = nn.Conv3d(3, 4, kernel, stride, padding)
    ours = Conv3d(3, 4, kernel, stride, padding)
    ours.load_state_dict(usual.state_dict())
    image = torch.randn(1, 3, length, 7, 6, generator=torch.Generator().manual_seed(length))
    image = image.contiguous(memory_format=torch.channels_last_3d)
    (out, found), (expected, wanted) = gradients(ours, image), gradients(usual, image)
    assert torch.allclose(out, expected, atol=1e-5)
    for one, other in zip(found, wanted, strict=True):
        assert torch.allclose(one, other, atol=1e-4)


def slow_calls(network, image):
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        network(image).sum().backward()
    counts = {event.key: event.count for event in seen.key_averages()}
    return counts.get("aten::slow_conv3d_forward", 0)


@pytest.mark.parametrize("norm", ["batch", "group_ws"])
def test_no_layer_of_a_network_but_the_logits_is_left_to_the_slow_code(norm):
    network = UNet(1, 2, Architecture(channels=[8, 16]), norm, 2, seed=0)
    image = torch.randn(1, 1, 16, 16, 16)
    assert slow_calls(nn.Conv3d(1, 8, 3, padding=1), image) == 1  # PyTorch still has that rule
    # Of 1x1x1 the slow code is the faster on one thread.
    assert slow_calls(network, image) <= 1


def test_larger_batches_and_larger_volumes_are_left_to_pytorch():
    layer = Conv3d(2, 2, 3, padding=1)
    for shape in ((2, 2, 8, 8, 8), (1, 2, 110, 100, 3)):
        image = torch.randn(shape)
        usual = nn.functional.conv3d(image, layer.weight, layer.bias, padding=1)
        assert torch.equal(layer(image), usual)
