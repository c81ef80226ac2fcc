"""Kernels for a CPU: the same results as PyTorch's own layers."""

import logging

import pytest
import torch
from torch import nn

from medseg.networks import cpu
from medseg.networks.cpu import OneDnnConv3d, for_cpu
from medseg.networks.fold import relative_difference
from medseg.networks.norms import NORMS
from medseg.networks.unet import Architecture, UNet
from medseg.networks.winograd import SMALLEST, WinogradConv3d

SMALL = Architecture(channels=[16, 32, 48])


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("length", [1, 3, SMALLEST, 9, 10, 11, 16])
def test_filtering_gives_what_the_convolution_gives(length, bias):
    torch.manual_seed(length)
    convolution = nn.Conv3d(16, 5, 3, padding=1, bias=bias)
    image = torch.randn(1, 16, length, 6, 7)
    with torch.inference_mode():
        expected = convolution(image)
        for layout in (torch.contiguous_format, torch.channels_last_3d):
            found = WinogradConv3d(convolution)(image.contiguous(memory_format=layout))
            assert found.shape == expected.shape
            assert relative_difference(expected, found) < 1e-5


def test_images_larger_than_one_chunk_have_no_seam(monkeypatch):
    monkeypatch.setattr("medseg.networks.winograd._CHUNK_VALUES", 16 * 8 * 8 * 4)
    convolution = nn.Conv3d(16, 16, 3, padding=1)
    image = torch.randn(1, 16, 38, 8, 8).to(memory_format=torch.channels_last_3d)
    with torch.inference_mode():
        found = WinogradConv3d(convolution)(image)
        assert relative_difference(convolution(image), found) < 1e-5
    assert found.is_contiguous(memory_format=torch.channels_last_3d)


@pytest.mark.parametrize(
    "change",
    [{"stride": 2}, {"padding": 0}, {"dilation": 2}, {"kernel_size": (1, 3, 3)}, {"groups": 2}],
)
def test_other_convolutions_are_left_alone(change):
    settings = {"kernel_size": 3, "padding": 1} | change
    assert not WinogradConv3d.applies(nn.Conv3d(16, 16, **settings))
    assert WinogradConv3d.applies(nn.Conv3d(16, 16, 3, padding=1))


@pytest.mark.parametrize("encoder", [pytest.param("plain", marks=pytest.mark.slow), "residual"])
@pytest.mark.parametrize("norm", NORMS)
def test_a_network_for_the_cpu_gives_the_same_logits(norm, encoder):
    shape = Architecture(channels=[16, 32], encoder=encoder)
    network = UNet(2, 3, shape, norm, seed=0).eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    fast = for_cpu(network)
    image = torch.randn(1, 2, 16, 12, 20)
    with torch.inference_mode():
        assert relative_difference(network(image), fast(image)) < 1e-5
    assert any(isinstance(layer, WinogradConv3d) for layer in fast.modules())
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_filtering_that_changes_the_logits_is_not_used(monkeypatch, caplog):
    monkeypatch.setattr(logging.getLogger("medseg"), "propagate", True)

    def spoil(network):
        for layer in network.modules():
            if isinstance(layer, OneDnnConv3d):
                layer.weight.data.mul_(1.5)

    monkeypatch.setattr(cpu, "with_winograd", spoil)
    network = UNet(1, 2, SMALL, "none", seed=0).eval()
    fast = for_cpu(network)
    assert "computed plainly" in caplog.text
    image = torch.randn(1, 1, 16, 16, 16)
    with torch.inference_mode():
        assert relative_difference(network(image), fast(image)) < 1e-5
