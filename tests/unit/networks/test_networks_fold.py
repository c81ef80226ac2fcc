"""Folding leaves the function, and takes away what need not be computed."""

import math

import pytest
import torch
from torch import nn

from medseg.core.errors import CheckpointError
from medseg.networks import fold
from medseg.networks.fold import folded
from medseg.networks.norms import NORMS
from medseg.networks.norms_batch import FrozenBatchNorm
from medseg.networks.unet import Architecture, UNet


def lived_in(norm, seed=0, **plan):
    """Return a network whose statistics, gains, shifts and biases are none of the initial ones."""
    network = UNet(2, 3, Architecture(channels=[8, 16, 24], **plan), norm, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, values in (*network.named_parameters(), *network.named_buffers()):
            if values.ndim == 1:
                values.copy_(0.5 + torch.rand(values.shape, generator=generator))
            elif "batches" not in name:
                values.add_(0.02 * torch.randn(values.shape, generator=generator))
    return network


def image(size=(8, 12, 4), seed=1):
    return torch.randn((2, 2, *size), generator=torch.Generator().manual_seed(seed))


def gap(one, other):
    return float((one - other).abs().max() / (one.max() - one.min()))


@pytest.mark.parametrize("plan", [{}, {"encoder": "residual", "conv_bias": True, "dropout": 0.3}])
@pytest.mark.parametrize("norm", NORMS)
@torch.no_grad()
def test_the_folded_network_is_the_same_function(norm, plan):
    network = lived_in(norm, **plan)
    assert gap(network.eval()(image()), folded(network)(image())) < 5e-6


@pytest.mark.parametrize("norm", NORMS)
def test_only_norms_that_fold_are_gone(norm):
    def norms(net):
        kinds = nn.modules.batchnorm._BatchNorm | nn.InstanceNorm3d | nn.GroupNorm | FrozenBatchNorm
        return sum(isinstance(layer, kinds) for layer in net.modules())

    network = lived_in(norm, encoder="residual")
    assert norms(folded(network)) == (0 if NORMS[norm].folds else norms(network))


@torch.no_grad()
def test_the_original_is_left_alone_and_the_copy_is_for_inference():
    network = lived_in("batch", dropout=0.5).train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    copy = folded(network)
    assert network.training
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert not copy.training
    assert not any(parameter.requires_grad for parameter in copy.parameters())
    assert not any(isinstance(layer, nn.Dropout3d) for layer in copy.modules())
    assert torch.equal(copy.train()(image()), copy(image()))  # nothing left that knows the mode


@pytest.mark.parametrize("variance", [math.nan, -1.0])
def test_statistics_that_make_no_sense_are_refused_in_words(variance):
    network = lived_in("batch")
    network.encoder[1][0][1].running_var[3] = variance
    with pytest.raises(CheckpointError, match=r"10 norms .* by nan of their range"):
        folded(network)


def test_a_folding_that_changes_the_logits_is_noticed(monkeypatch):
    monkeypatch.setattr(fold, "_fold", lambda convolution, norm: None)
    with pytest.raises(CheckpointError, match=r"at most 0\.0001 is accepted"):
        folded(lived_in("batch"))
