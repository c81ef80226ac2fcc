"""The hand-written norms against the papers' formulas, other libraries and PyTorch's own."""

import copy
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from medseg.core.errors import GeometryError, OptionError
from medseg.networks.convolution import Conv3d
from medseg.networks.fold import folded
from medseg.networks.norms import (
    EPS,
    NORMS,
    check_norm,
    get_norm,
    interchangeable,
    register_in_monai,
)
from medseg.networks.norms_batch import (
    BatchRenorm,
    FrozenBatchNorm,
    GhostBatchNorm,
    SyncBatchNorm,
    set_progress,
)
from medseg.networks.norms_sample import EvoNormS0, FilterResponseNorm, GlobalResponseNorm
from medseg.networks.norms_weight import StandardizedConv3d, standardize
from medseg.networks.population import frozen_statistics
from medseg.networks.unet import Architecture, UNet

BY_HAND = [
    *("batch_frozen", "ghost", "batch_renorm", "layer_channel"),
    *("rms", "frn", "evonorm_s0", "switchable", "grn"),
]
DOCS = Path(__file__).parents[3] / "docs" / "norms.md"


def volumes(batch=3, channels=4, size=(2, 3, 2), seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((batch, channels, *size), generator=generator, dtype=dtype) * 2 + 1


def layer(name, channels=4, groups=2, seed=1):
    """Return a norm with its own activation, float64, none of its parameters at its start."""
    made = get_norm(name, channels, groups, activate=True).double().train()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in made.parameters():
            value.copy_(torch.rand(value.shape, generator=generator) + 0.5)
    return made


def channel(parameter):
    return parameter.detach().numpy().reshape(1, -1, 1, 1, 1)


def formula(name, made, x):
    """Return what the paper says, in NumPy, float64."""
    voxels = (2, 3, 4)
    norm = made[0] if isinstance(made, nn.Sequential) else made
    g, b = channel(norm.weight), channel(norm.bias)
    if name == "layer_channel":
        return (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + EPS) * g + b
    if name == "rms":
        return x / np.sqrt((x**2).mean(1, keepdims=True) + EPS) * g + b
    if name == "frn":
        y = x / np.sqrt((x**2).mean(voxels, keepdims=True) + EPS) * g + b
        return np.maximum(y, channel(made[1].threshold))
    if name == "grn":
        length = np.sqrt((x**2).sum(voxels, keepdims=True))
        return x * (1 + g * length / (length.mean(1, keepdims=True) + EPS)) + b
    if name == "evonorm_s0":
        grouped = x.reshape(len(x), norm.groups, -1)
        deviation = np.sqrt(grouped.var(2) + EPS).repeat(x.shape[1] // norm.groups, 1)
        gate = 1 / (1 + np.exp(-channel(norm.swish.slope) * x))
        return x * gate / deviation[:, :, None, None, None] * g + b
    axes = [voxels, (1, *voxels), (0, *voxels)]
    weights = [np.exp(w.detach().numpy()) for w in (norm.mean_weight, norm.variance_weight)]
    weights = [w / w.sum() for w in weights]
    mean = sum(w * x.mean(a, keepdims=True) for w, a in zip(weights[0], axes, strict=True))
    variance = sum(w * x.var(a, keepdims=True) for w, a in zip(weights[1], axes, strict=True))
    return (x - mean) / np.sqrt(variance + EPS) * g + b


@pytest.mark.parametrize("name", ["layer_channel", "rms", "frn", "grn", "evonorm_s0", "switchable"])
@settings(max_examples=5, deadline=None)
@given(
    batch=st.integers(1, 3),
    channels=st.sampled_from([2, 4, 6]),
    size=st.tuples(*[st.integers(1, 4)] * 3),
)
def test_a_norm_is_its_papers_formula(name, batch, channels, size):
    image, made = volumes(batch, channels, size), layer(name, channels)
    expected = formula(name, made, image.numpy())
    np.testing.assert_allclose(made(image).detach().numpy(), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", BY_HAND)
def test_gradients_are_those_of_finite_differences(name):
    made = layer(name, channels=2)
    parameters = [p for p in made.parameters() if p.requires_grad]
    set_progress(made, 0.0)  # r and d are constants to the gradient, not to differences
    image = volumes(2, 2, (2, 2, 1)).requires_grad_()
    assert torch.autograd.gradcheck(lambda image, *_: made(image), (image, *parameters))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", BY_HAND)
def test_half_precision_survives_values_of_300(name, dtype):
    image = (300 * volumes(2, 8, (4, 4, 4), dtype=torch.float32)).to(dtype).requires_grad_()
    made = get_norm(name, 8, activate=True).train()
    expected = copy.deepcopy(made)(image.float()).detach()
    for context in (torch.autocast("cpu", dtype, enabled=flag) for flag in (False, True)):
        with context:
            out = copy.deepcopy(made)(image)
        out.float().mean().backward()
        assert out.dtype == dtype
        assert torch.isfinite(out).all()
        assert torch.isfinite(image.grad).all()
        gap = (out.detach().float() - expected).abs().max() / expected.abs().max()
        assert float(gap) < 2 * torch.finfo(dtype).eps


@pytest.mark.parametrize("name", BY_HAND)
def test_the_memory_layout_is_kept_and_changes_nothing(name):
    made, image = layer(name), volumes()
    last = image.contiguous(memory_format=torch.channels_last_3d)
    out = copy.deepcopy(made)(last)
    assert out.is_contiguous(memory_format=torch.channels_last_3d)
    torch.testing.assert_close(out, copy.deepcopy(made)(image), check_stride=False)


@pytest.mark.parametrize("name", NORMS)
def test_a_permuted_batch_gives_the_permuted_output(name):
    image, order = volumes(4, 8), [2, 3, 0, 1]  # ghost: the parts stay together
    made = layer(name, 8)
    out, permuted = copy.deepcopy(made)(image), copy.deepcopy(made)(image[order])
    torch.testing.assert_close(permuted, out[order])


@pytest.mark.parametrize("name", NORMS)
def test_a_layer_keeps_what_its_row_says_for_backward(name):
    image = volumes(2, 8, (12, 12, 12), dtype=torch.float32).requires_grad_()
    kept = {}

    def note(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        made = get_norm(name, 8, activate=True).train()
        _out = made(image)
    assert sum(kept.values()) / image.nbytes == pytest.approx(NORMS[name].saved, abs=0.3)


def test_ghost_norm_is_batch_norm_of_each_part_one_after_the_other():
    image = volumes(5)
    ghost, batch = (layer(name) for name in ("ghost", "batch"))
    assert isinstance(ghost, GhostBatchNorm)
    expected = torch.cat([batch(part) for part in image.split([2, 2, 1])])
    torch.testing.assert_close(ghost(image), expected)
    torch.testing.assert_close(ghost.running_var, batch.running_var)
    ghost.virtual_batch = 3
    torch.testing.assert_close(ghost(image), torch.cat([batch(image[:3]), batch(image[3:])]))


def test_renormalization_starts_as_batch_norm_and_ends_as_what_evaluation_does():
    image = volumes(4)
    renorm, batch = layer("batch_renorm"), layer("batch")
    set_progress(renorm, BatchRenorm.PLAIN)
    torch.testing.assert_close(renorm(image), batch(image))
    torch.testing.assert_close(renorm.running_mean, batch.running_mean)
    torch.testing.assert_close(renorm.running_var, batch.running_var)
    set_progress(renorm, 1.0)  # these statistics are within the limits
    expected = copy.deepcopy(renorm).eval()(image)
    torch.testing.assert_close(renorm(image), expected)


def test_renormalization_is_clipped_by_its_schedule():
    renorm = layer("batch_renorm")
    image = 1000 * volumes(4) + 9000
    plain = layer("batch")(image)
    gamma, beta = (p.detach().reshape(1, -1, 1, 1, 1) for p in (renorm.weight, renorm.bias))
    for share, r, d in ((0.0, 1, 0), (0.175, 2, 4.5), (1.0, 3, 5)):
        made = copy.deepcopy(renorm)
        set_progress(made, share)
        expected = ((plain - beta) / gamma * r + d) * gamma + beta
        torch.testing.assert_close(made(image), expected, rtol=1e-5, atol=1e-3)


def test_renormalization_computed_again_is_the_same():
    renorm, image = layer("batch_renorm"), volumes()
    first = renorm(image)
    with frozen_statistics(renorm):
        assert torch.equal(renorm(image), first)


def test_the_progress_is_part_of_the_state():
    renorm, other = get_norm("batch_renorm", 4), get_norm("batch_renorm", 4)
    set_progress(renorm, 0.2)
    other.load_state_dict(renorm.state_dict())
    assert float(other.progress) == pytest.approx(0.2)


def test_frozen_norm_is_batch_norm_in_evaluation_and_never_moves():
    batch = layer("batch")
    batch(volumes(seed=4))
    frozen = get_norm("batch_frozen", 4).double().train()
    frozen.load_state_dict(batch.state_dict())
    assert isinstance(frozen, FrozenBatchNorm)
    before = copy.deepcopy(frozen.state_dict())
    torch.testing.assert_close(frozen(volumes()), batch.eval()(volumes()))
    assert all(torch.equal(value, before[key]) for key, value in frozen.state_dict().items())
    assert not any(p.requires_grad for p in frozen.parameters())


def test_rows_of_one_family_take_one_anothers_state():
    states = {name: set(get_norm(name, 8).state_dict()) for name in NORMS}
    pairs = [(a, b) for a in NORMS for b in NORMS if interchangeable(a, b)]
    assert ("batch", "batch_frozen") in pairs
    assert ("batch", "batch_renorm") not in pairs
    assert all(states[a] == states[b] for a, b in pairs)


def test_sync_batch_on_one_cpu_is_batch_norm_with_a_process_group_too(tmp_path):
    made, batch = layer("sync_batch"), layer("batch")
    assert isinstance(made, SyncBatchNorm)
    torch.testing.assert_close(made(volumes()), batch(volumes()))
    if torch.distributed.is_initialized():
        return
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path / 'meeting'}", rank=0, world_size=1
    )
    try:
        torch.testing.assert_close(made(volumes(seed=2)), batch(volumes(seed=2)))
    finally:
        torch.distributed.destroy_process_group()


def test_standardized_kernels_have_mean_0_and_variance_1_until_folded():
    network = UNet(2, 2, Architecture(channels=[8, 16], encoder="residual"), "group_ws", seed=0)
    kinds = {type(layer) for layer in network.modules() if isinstance(layer, nn.Conv3d)}
    # The logits, kernels of two weights, and all others.
    assert kinds == {nn.Conv3d, Conv3d, StandardizedConv3d}
    plain = folded(network)
    weight = plain.encoder[1][0].body[0][0].weight
    assert not any(isinstance(layer, StandardizedConv3d) for layer in plain.modules())
    variance, mean = torch.var_mean(weight, (1, 2, 3, 4), correction=0)
    torch.testing.assert_close(mean, torch.zeros(16), rtol=0, atol=1e-5)
    torch.testing.assert_close(variance, torch.ones(16), rtol=1e-3, atol=0)


def test_timms_layers_agree_on_volumes_of_depth_one():
    layers = pytest.importorskip("timm.layers", exc_type=ImportError)
    flat = volumes(2, 4, (5, 6, 1), dtype=torch.float32)
    convolution = nn.Conv3d(4, 3, (3, 3, 1), padding=(1, 1, 0), bias=False)
    theirs = layers.StdConv2d(4, 3, 3, padding=1)
    theirs.weight.data = convolution.weight.data[..., 0].clone()
    pairs = [
        (FilterResponseNorm(4, EPS), layers.FilterResponseNormTlu2d(4, apply_act=False, eps=EPS)),
        (EvoNormS0(4, 2, EPS), layers.EvoNorm2dS0(4, groups=2, eps=EPS)),
        (GlobalResponseNorm(4, EPS), layers.GlobalResponseNorm(4, EPS, channels_last=False)),
        (standardize(nn.Sequential(convolution)), theirs),
    ]
    for ours, other in pairs:
        torch.testing.assert_close(ours(flat)[..., 0], other(flat[..., 0]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "channels", "batch", "message"),
    [
        ("frn", 8, 4, "'frn' has 1 value"),
        ("switchable", 8, 4, "'switchable' has 1 value"),
        ("ghost", 8, 3, "'ghost' has 1 value"),
        ("batch_renorm", 8, 2, "'batch_renorm' has 2 value"),
        ("evonorm_s0", 16, 4, "'evonorm_s0' has 2 value"),
        ("rms", 2, 4, "'rms' has 2 value"),
    ],
)
def test_too_few_values_are_refused_with_the_level(name, channels, batch, message):
    with pytest.raises(GeometryError, match=rf"{message}\(s\) per statistic at level 1"):
        check_norm(name, (32, channels), ((1, 1, 1), (2, 2, 2)), (2, 2, 2), batch)


@pytest.mark.parametrize("name", [name for name, row in NORMS.items() if row.groups])
def test_groups_are_never_adapted(name):
    with pytest.raises(
        OptionError, match=f"{name}' needs channels divisible by 8; got channels 12"
    ):
        get_norm(name, 12)


def monai_network(norm, **settings):
    nets = pytest.importorskip("monai.networks.nets")
    return nets.UNet(3, 1, 8, (8, 16), (2,), num_res_units=1, norm=norm, **settings)


@pytest.mark.parametrize("name", [name for name, row in NORMS.items() if not row.standardizes])
def test_monais_unet_trains_a_step_with_every_row_by_name(name):
    register_in_monai()
    register_in_monai()  # again is nothing
    network = monai_network(f"medseg_{name}").train()
    kind = type(get_norm(name, 8, activate=True))
    assert any(type(module) is kind for module in network.modules())
    before = [p.detach().clone() for p in network.parameters() if p.requires_grad]
    network(volumes(2, 1, (8, 8, 8), dtype=torch.float32)).square().mean().backward()
    torch.optim.SGD(network.parameters(), lr=0.1).step()
    after = [p for p in network.parameters() if p.requires_grad]
    assert any(not torch.equal(a, b) for a, b in zip(after, before, strict=True))


def test_monais_networks_take_groups_and_refusals_are_in_words():
    nets = pytest.importorskip("monai.networks.nets")
    register_in_monai()
    norm = ("medseg_group", {"num_groups": 4})
    network = nets.DynUNet(
        3, 1, 3, [3, 3, 3], [1, 2, 2], [2, 2], filters=[8, 8, 16], norm_name=norm
    )
    groups = {layer.num_groups for layer in network.modules() if isinstance(layer, nn.GroupNorm)}
    assert groups == {4}
    network(volumes(1, 1, (8, 8, 8), dtype=torch.float32)).sum().backward()
    nets.SegResNet(3, init_filters=8, blocks_down=(1, 1), blocks_up=(1,), norm=norm)
    with pytest.raises(OptionError, match="'group' needs channels divisible by 3"):
        monai_network(("medseg_group", {"num_groups": 3}))
    with pytest.raises(OptionError, match=r"call medseg\.networks\.norms_weight\.standardize"):
        monai_network("medseg_group_ws")
    with pytest.raises(OptionError, match="is for volumes; got 2 axes"):
        nets.UNet(2, 1, 8, (8, 16), (2,), norm="medseg_group")


def test_the_documented_table_is_the_registry():
    rows = dict(
        re.findall(r"^\| `(\w+)` \| (.*) \|$", DOCS.read_text(encoding="utf-8"), re.MULTILINE)
    )
    yes = {True: "yes", False: "no"}
    for name, row in NORMS.items():
        facts = (
            *(row.over, yes[row.batch_dependent], yes[row.eval_differs], yes[row.removes_mean]),
            *(yes[row.folds], str(row.saved), yes[row.activation is not None], row.source),
        )
        assert rows[name] == " | ".join(facts)
    assert list(rows) == list(NORMS)
