"""Instance and group norm on a CPU: PyTorch's results and gradients, by faster ways."""

import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from medseg.networks.norms_cpu import GroupNorm, InstanceNorm
from medseg.networks.unet import Architecture, UNet

LAYOUTS = [torch.contiguous_format, torch.channels_last_3d]


def pair(name, channels, dtype=torch.float32):
    """Return our layer and PyTorch's with the same gamma and beta."""
    if name == "instance":
        ours, usual = InstanceNorm(channels, affine=True), nn.InstanceNorm3d(channels, affine=True)
    else:
        groups = {"group": channels // 2, "layer": 1, "single": channels}[name]
        ours, usual = GroupNorm(groups, channels), nn.GroupNorm(groups, channels)
    with torch.no_grad():
        ours.weight.copy_(torch.linspace(-1, 2, channels))
        ours.bias.copy_(torch.linspace(1, 3, channels))
    usual.load_state_dict(ours.state_dict())
    return ours.to(dtype), usual.to(dtype)


def passes(layer, image, towards):
    """Return the output and all gradients."""
    image = image.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    out = layer(image)
    out.backward(towards)
    return [out.detach(), image.grad, layer.weight.grad, layer.bias.grad]


def volume(shape, dtype=torch.float32, seed=0, mean=0.0):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(shape, generator=generator) + mean).to(dtype)


@pytest.mark.parametrize("name", ["instance", "group", "layer", "single"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("of_gradient", LAYOUTS)
@pytest.mark.parametrize("batch", [1, 3])
def test_output_and_gradients_are_those_of_pytorch_in_double_precision(
    name, layout, of_gradient, batch
):
    ours, usual = pair(name, 6, torch.float64)
    shape = (batch, 6, 4, 3, 5)
    image = volume(shape, torch.float64).contiguous(memory_format=layout)
    towards = volume(shape, torch.float64, seed=1).contiguous(memory_format=of_gradient)
    # PyTorch 2.13's own instance norm of one sample takes a gradient with the channels last for one
    # with the channels first, and returns another gradient without a word.
    known = passes(usual, image, towards.contiguous())
    for found, expected in zip(passes(ours, image, towards), known, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


HALF, SINGLE = (torch.bfloat16, 3.0), (torch.float32, 1000.0)


@pytest.mark.parametrize(
    ("name", "dtype", "mean"),
    [(name, *values) for name in ("group", "single") for values in (HALF, SINGLE)]
    + [("instance", *HALF)],  # in single precision that of batch norm
)
def test_rounding_is_no_worse_than_pytorchs(name, dtype, mean):
    shape = (2, 8, 6, 7, 5)
    image = volume(shape, dtype, mean=mean).to(memory_format=torch.channels_last_3d)
    towards = volume(shape, dtype, seed=1).to(memory_format=torch.channels_last_3d)
    ours, usual = pair(name, 8)
    truth = passes(pair(name, 8, torch.float64)[0], image.double(), towards.double())
    for found, known, true in zip(
        passes(ours, image, towards), passes(usual, image, towards), truth, strict=True
    ):
        assert found.dtype == known.dtype
        gap = (found.double() - true).norm()
        assert gap <= 1.5 * (known.double() - true).norm() + 1e-6 * true.norm()


@pytest.mark.parametrize("name", ["instance", "group", "layer", "single"])
def test_gradients_are_those_of_finite_differences(name):
    layer = pair(name, 4, torch.float64)[0]
    image = volume((2, 4, 2, 3, 2), torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(layer, (image,))


@pytest.mark.parametrize("name", ["instance", "group", "layer"])
def test_of_an_empty_batch_there_is_an_empty_one_and_no_gradient(name):
    found = passes(pair(name, 4)[0], volume((0, 4, 2, 3, 2)), volume((0, 4, 2, 3, 2)))
    assert [tuple(each.shape) for each in found] == [(0, 4, 2, 3, 2)] * 2 + [(4,)] * 2
    assert not any(each.any() for each in found[2:])


@pytest.mark.parametrize("norm", ["instance", "group", "group_ws"])
def test_a_step_keeps_the_channels_last_and_leaves_pytorchs_slow_passes_aside(norm):
    network = UNet(1, 2, Architecture(channels=[8, 16]), norm, 4, seed=0)
    seen = []
    for layer in network.modules():
        if isinstance(layer, nn.InstanceNorm3d | nn.GroupNorm):
            layer.register_forward_hook(lambda _layer, _given, out: seen.append(out))
    with profile(activities=[ProfilerActivity.CPU]) as calls, torch.autocast("cpu", torch.bfloat16):
        network(volume((2, 1, 16, 16, 16))).sum().backward()
    counts = {event.key for event in calls.key_averages()}
    assert not counts & {"aten::instance_norm", "aten::native_group_norm_backward"}
    assert all(out.is_contiguous(memory_format=torch.channels_last_3d) for out in seen)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("name", ["instance", "group"])
def test_a_traced_layer_is_pytorchs(name):
    ours, usual = pair(name, 4)
    image = volume((1, 4, 3, 4, 5))
    traced = torch.jit.trace(ours, image)
    assert f"aten::{name}_norm" in str(traced.inlined_graph)
    torch.testing.assert_close(traced(image), usual(image))
