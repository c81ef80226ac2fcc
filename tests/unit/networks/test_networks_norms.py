"""Every row of the registry, and the identities between rows."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from medseg.core.errors import GeometryError, OptionError
from medseg.networks.norms import EPS, NORMS, check_norm, get_norm
from medseg.networks.norms_batch import set_progress
from medseg.networks.unet import Architecture, UNet

SMALL = Architecture(channels=[8, 16])
STRIDES = ((1, 1, 1), (2, 2, 2))


def volumes(batch=2, channels=8, size=(4, 5, 6), seed=0):
    return torch.randn((batch, channels, *size), generator=torch.Generator().manual_seed(seed))


def with_affine(layer, seed=3):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.rand(parameter.shape, generator=generator) + 0.5)
    return layer


@pytest.mark.parametrize("name", NORMS)
def test_every_norm_trains_a_step_and_moves_every_parameter(name):
    network = UNet(1, 3, SMALL, norm=name, seed=0)
    learned = [(k, v) for k, v in network.named_parameters() if v.requires_grad]
    before = {key: value.clone() for key, value in learned}
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    loss = sum(head.square().mean() for head in network.heads(volumes(2, 1, (8, 8, 8))))
    loss.backward()
    optimizer.step()
    assert torch.isfinite(loss)
    still = [key for key, value in learned if torch.equal(value, before[key])]
    assert still == []


@pytest.mark.parametrize("name", NORMS)
def test_every_norm_gets_the_same_convolution_weights_for_one_seed(name):
    reference = UNet(1, 3, SMALL, norm="batch", seed=5)
    torch.rand(17)  # what was drawn before must not matter
    network = UNet(1, 3, SMALL, norm=name, seed=5)

    def weights(net):
        kinds = nn.Conv3d | nn.ConvTranspose3d
        return [m.weight for m in net.modules() if isinstance(m, kinds)]

    assert len(weights(network)) == len(weights(reference))
    assert all(torch.equal(a, b) for a, b in zip(weights(network), weights(reference), strict=True))


@pytest.mark.parametrize("name", NORMS)
def test_every_norm_survives_a_state_round_trip(name):
    network, image = UNet(1, 2, SMALL, norm=name, seed=0), volumes(2, 1, (8, 8, 8))
    network.train()(image)
    copy = UNet(1, 2, SMALL, norm=name, seed=1)
    copy.load_state_dict(network.state_dict())
    assert torch.equal(network.eval()(image), copy.eval()(image))


@pytest.mark.parametrize("name", NORMS)
def test_every_norm_takes_another_window_size(name):
    network = UNet(1, 2, SMALL, norm=name, seed=0).eval()
    assert network(volumes(1, 1, (12, 8, 10))).shape == (1, 2, 12, 8, 10)


@pytest.mark.parametrize("name", [name for name in NORMS if name != "none"])
def test_every_norm_is_affine_and_normalizes(name):
    layer = get_norm(name, 8)
    assert layer.weight.shape == layer.bias.shape == (8,)
    set_progress(layer, 0.0)
    out = layer.train()(5 + 3 * volumes()).detach()
    if name in ("batch_frozen", "grn"):  # the identity at first, by definition
        torch.testing.assert_close(out, 5 + 3 * volumes(), rtol=2e-5, atol=0)
    elif name == "switchable":
        assert float(out.mean()) == pytest.approx(0, abs=5e-3)
        assert float(out.std(correction=0)) == pytest.approx(1, abs=5e-2)
    elif NORMS[name].removes_mean:
        assert float(out.mean()) == pytest.approx(0, abs=1e-5)
        assert float(out.std(correction=0)) == pytest.approx(1, abs=1e-3)
    elif name == "evonorm_s0":
        assert float(out.std(correction=0)) == pytest.approx(1, abs=1e-2)
    else:
        assert float(out.square().mean()) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("name", NORMS)
def test_batch_dependence_is_as_the_row_says(name):
    layer = get_norm(name, 8).train()
    one, mates = volumes(1, seed=1), volumes(1, seed=2)
    first = layer(torch.cat([one, mates]))[:1]
    second = layer(torch.cat([one, 4 * mates]))[:1]
    assert torch.equal(first, second) is not NORMS[name].batch_dependent


@pytest.mark.parametrize("name", NORMS)
def test_training_and_evaluation_differ_as_the_row_says(name):
    layer, image = get_norm(name, 8), volumes()
    assert torch.equal(layer.train()(image), layer.eval()(image)) is not NORMS[name].eval_differs


def test_batch_norm_of_one_sample_is_instance_norm_bit_for_bit():
    image = volumes(1)
    batch, instance = with_affine(get_norm("batch", 8)), with_affine(get_norm("instance", 8))
    assert torch.equal(batch.train()(image), instance(image))


def test_instance_norm_is_group_norm_with_a_group_per_channel():
    image = volumes()
    instance, group = with_affine(get_norm("instance", 8)), with_affine(get_norm("group", 8, 8))
    torch.testing.assert_close(instance(image), group(image), rtol=0, atol=1e-6)


def test_layer_norm_is_pytorchs_over_channels_and_voxels():
    image = volumes()
    expected = F.layer_norm(image, image.shape[1:], eps=EPS)
    torch.testing.assert_close(get_norm("layer", 8)(image), expected, rtol=0, atol=1e-6)


def test_an_unknown_norm_is_answered_with_the_nearest_name():
    with pytest.raises(
        OptionError, match=r"model.norm must be one of .*got 'grup'. Did you mean 'group'"
    ):
        get_norm("grup", 8)


def test_groups_that_do_not_divide_are_said_not_changed():
    with pytest.raises(
        OptionError, match=r"'group' needs channels divisible by 8; got channels \(12, 24\)"
    ):
        check_norm("group", (12, 24), STRIDES, (8, 8, 8), 2)
    with pytest.raises(OptionError, match="divisible by 5"):
        get_norm("group", 8, 5)


@pytest.mark.parametrize(
    ("name", "batch", "values"), [("batch", 1, 1), ("batch", 2, 2), ("instance", 8, 1)]
)
def test_a_one_voxel_bottleneck_is_refused_where_the_norm_would_erase_it(name, batch, values):
    with pytest.raises(
        GeometryError, match=rf"'{name}' has {values} value\(s\) per statistic at level 1"
    ):
        check_norm(name, (8, 16), STRIDES, (2, 2, 2), batch)


def test_two_values_per_group_are_refused_and_more_are_not():
    with pytest.raises(GeometryError, match="'group' has 2 value"):
        check_norm("group", (8, 16), STRIDES, (2, 2, 2), 4, groups=8)
    check_norm("group", (8, 16), STRIDES, (2, 2, 2), 4, groups=4)
    check_norm("layer", (8, 16), STRIDES, (2, 2, 2), 1)
    check_norm("none", (8, 16), STRIDES, (2, 2, 2), 1)
