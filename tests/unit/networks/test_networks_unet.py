"""The U-Net: nnU-Net's size, any shape, messages."""

import pytest
import torch
from torch import nn

from medseg.core.errors import GeometryError, OptionError
from medseg.networks.blocks import window_means
from medseg.networks.norms import NORMS
from medseg.networks.unet import Architecture, UNet, check_architecture


def parameters(network):
    return sum(p.numel() for p in network.parameters())


def test_nnunets_hippocampus_plan_has_nnunets_number_of_parameters():
    kept_bias = UNet(1, 3, Architecture(conv_bias=True), norm="instance")
    assert parameters(kept_bias) == 5_603_177
    assert parameters(UNet(1, 3, norm="instance")) == 5_601_769


def test_bias_is_left_out_only_where_a_norm_removes_the_mean():
    for name, row in NORMS.items():
        first = next(m for m in UNet(1, 2, norm=name).modules() if isinstance(m, nn.Conv3d))
        assert (first.bias is None) is row.removes_mean


def test_the_logits_have_no_norm_and_every_tensor_is_in_the_state_once():
    network = UNet(1, 3, norm="batch")
    assert all(isinstance(layer, nn.Conv3d) for layer in network.logits)
    pointers = [value.data_ptr() for value in network.state_dict().values() if value.ndim]
    assert len(pointers) == len(set(pointers))


def test_deep_supervision_gives_the_finest_head_first():
    network = UNet(1, 3, Architecture(channels=[8, 16, 24]), seed=0)
    heads = network.heads(torch.zeros(1, 1, 8, 12, 16))
    assert [tuple(head.shape) for head in heads] == [(1, 3, 8, 12, 16), (1, 3, 4, 6, 8)]
    torch.testing.assert_close(heads[0], network(torch.zeros(1, 1, 8, 12, 16)))


def test_without_deep_supervision_there_is_one_head():
    network = UNet(1, 3, Architecture(channels=[8, 16, 24], deep_supervision=False))
    assert len(network.heads(torch.zeros(1, 1, 8, 8, 8))) == len(network.logits) == 1


def test_anisotropic_kernels_and_strides_keep_the_thick_axis():
    plan = Architecture(
        channels=[8, 16, 32],
        strides=[[1, 1, 1], [2, 2, 1], [2, 2, 2]],
        kernels=[[3, 3, 1], [3, 3, 3], [3, 3, 3]],
    )
    assert plan.divisor == (4, 4, 2)
    network = UNet(2, 2, plan, norm="instance")
    assert network.encoder[1](torch.zeros(1, 8, 8, 8, 6)).shape == (1, 16, 4, 4, 6)
    assert network(torch.zeros(1, 2, 8, 8, 6)).shape == (1, 2, 8, 8, 6)


def test_the_residual_encoder_adds_a_shortcut_and_learns_at_any_depth():
    plan = Architecture(channels=[8, 16, 16], encoder="residual", depth=3)
    network = UNet(1, 2, plan, norm="group")
    assert network(torch.zeros(1, 1, 8, 8, 8)).shape == (1, 2, 8, 8, 8)
    block = network.encoder[2][0].eval()
    for parameter in block.body.parameters():
        nn.init.zeros_(parameter)
    image = torch.rand(1, 16, 4, 4, 4)
    torch.testing.assert_close(block(image), nn.functional.avg_pool3d(image, 2))


def test_dropout_comes_after_the_last_norm_of_a_block():
    stage = UNet(1, 2, Architecture(channels=[8, 16], dropout=0.2)).encoder[0]
    kinds = [[type(layer).__name__ for layer in block] for block in stage]
    assert kinds == [
        ["Conv3d", "BatchNorm3d", "LeakyReLU"],
        ["Conv3d", "BatchNorm3d", "ChannelDropout", "LeakyReLU"],
    ]


def test_activation_checkpointing_changes_no_gradient():
    image = torch.randn(1, 1, 8, 8, 8)
    gradients = []
    for flag in (False, True):
        plan = Architecture(channels=[8, 16], activation_checkpointing=flag)
        network = UNet(1, 2, plan, norm="instance", seed=0)
        network(image).square().mean().backward()
        gradients.append([p.grad for p in network.parameters() if p.grad is not None])
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, recomputed)


def test_channels_last_changes_the_layout_and_not_the_result():
    image = torch.randn(1, 1, 8, 8, 8)
    plans = [Architecture(channels=[8, 16], channels_last=flag) for flag in (False, True)]
    contiguous, last = (UNet(1, 2, plan, norm="batch", seed=0).eval() for plan in plans)
    torch.testing.assert_close(contiguous(image), last(image), rtol=1e-4, atol=1e-5)
    layout = torch.channels_last_3d
    kernel = last.encoder[1][0][0].weight
    assert kernel.is_contiguous(memory_format=layout)
    assert not contiguous.encoder[1][0][0].weight.is_contiguous(memory_format=layout)


@pytest.mark.parametrize(
    ("patch", "message"),
    [
        (
            (48, 48, 20),
            r"\(48, 48, 20\) must be divisible by 8 on every axis \(4 levels\); nearest larger: \(48, 48, 24\)",
        ),
        ((0, 8, 8), r"nearest larger: \(8, 8, 8\)"),
    ],
)
def test_a_patch_that_does_not_divide_is_refused_with_the_nearest_that_does(patch, message):
    with pytest.raises(GeometryError, match=message):
        check_architecture(Architecture(), "batch", 8, patch, 2)


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ({"strides": [[1, 1, 1]]}, "strides must give three sizes"),
        ({"strides": [[2, 2, 2]] * 4}, r"must begin with \[1, 1, 1\]"),
        ({"kernels": [[3, 3, 2]] * 4}, "must be odd"),
        ({"channels": [8]}, "at least 2 levels"),
    ],
)
def test_an_impossible_architecture_is_refused(plan, message):
    with pytest.raises(OptionError, match=message):
        UNet(1, 2, Architecture(**plan))


def test_an_image_that_does_not_divide_is_refused():
    with pytest.raises(GeometryError, match="must be divisible by"):
        UNet(1, 2)(torch.zeros(1, 1, 8, 8, 9))


def test_activation_checkpointing_moves_batch_statistics_once():
    image = torch.randn(2, 1, 8, 8, 8)
    statistics = []
    for flag in (False, True):
        plan = Architecture(channels=[8, 16], activation_checkpointing=flag)
        network = UNet(1, 2, plan, norm="batch", seed=0)
        network(image).square().mean().backward()
        statistics.append(network.encoder[0][0][1].running_mean)
    torch.testing.assert_close(statistics[0], statistics[1])


@pytest.mark.parametrize("size", [(1, 2, 2), (2, 2, 2)])
def test_means_over_windows_are_pytorchs_average_pooling(size):
    image = torch.randn(2, 3, 4, 6, 8, dtype=torch.float64, requires_grad=True)
    image = image.contiguous(memory_format=torch.channels_last_3d)
    expected = torch.nn.functional.avg_pool3d(image, size)
    found = window_means(image, size)
    torch.testing.assert_close(found, expected)
    gradients = [torch.autograd.grad(out.square().sum(), image)[0] for out in (found, expected)]
    torch.testing.assert_close(*gradients)
