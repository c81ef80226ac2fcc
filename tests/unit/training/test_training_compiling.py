"""The compiled forward: the same numbers from the same weights, or a refusal in words."""

import copy

import pytest
import pytorch_lightning as pl
import torch

from medseg.core.errors import OptionError
from medseg.networks.unet import Architecture, UNet
from medseg.training import compiling
from medseg.training.compiling import training_forward
from medseg.training.module import SegmentationModule


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(compiling, "BACKEND", "aot_eager")
    torch._dynamo.reset()


def network(**changes):
    return UNet(1, 3, Architecture(channels=[8, 16], **changes), "batch", seed=0).train()


def gradient(plain, heads, image):
    sum(head.square().mean() for head in heads(image)).backward()
    return torch.cat([weight.grad.flatten() for weight in plain.parameters()])


def test_a_compiled_forward_gives_logits_gradients_and_statistics_of_the_plain_one():
    image = torch.randn((2, 1, 8, 8, 8), generator=torch.Generator().manual_seed(0))
    one, other = network(), network()
    heads = training_forward(one, True, "cpu")
    assert heads is not one.heads
    torch.testing.assert_close(gradient(one, heads, image), gradient(other, other.heads, image))
    kept = other.state_dict()
    for name, value in one.state_dict().items():
        torch.testing.assert_close(value, kept[name])
    assert list(one.state_dict()) == list(kept)


def test_a_later_step_is_not_compiled_again():
    torch._dynamo.utils.counters.clear()
    plain = network()
    heads = training_forward(plain, True, "cpu")
    for _ in range(3):
        gradient(plain, heads, torch.randn(2, 1, 8, 8, 8))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
    assert not torch._dynamo.utils.counters["graph_break"]


def test_it_is_refused_with_activation_checkpointing():
    with pytest.raises(OptionError, match="does not go with"):
        training_forward(network(activation_checkpointing=True), True, "cpu")


def test_it_is_refused_in_words_where_no_compiler_is_there(monkeypatch):
    monkeypatch.setattr(compiling, "BACKEND", "inductor")
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(OptionError, match="C\\+\\+ compiler; there is no 'no-such-compiler'"):
        training_forward(network(), True, "cpu")
    monkeypatch.setenv("CXX", "true")
    monkeypatch.setattr(compiling.importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(OptionError, match="triton"):
        training_forward(network(), True, "cuda")
    training_forward(network(), True, "cpu")


def test_a_copy_of_the_module_trains_its_own_network():
    # As the range test of the learning rate does.
    task = {"channel_names": ["image"], "labels": {"background": 0, "organ": 1},
            "patch_size": [8, 8, 8], "batch_size": 1}  # fmt: skip
    module = SegmentationModule(network=Architecture(channels=[8, 16]), task=task, compile=True)
    other = copy.deepcopy(module)
    assert other._heads.__self__ is other.network
    module.trainer = other.trainer = pl.Trainer(accelerator="cpu", devices=1, logger=False)
    module.on_fit_start()
    other.on_fit_start()
    for mine in (module, other):
        mine.network.zero_grad()
        mine._heads(torch.randn(1, 1, 8, 8, 8))[0].sum().backward()
        assert mine.network.logits[-1].weight.grad is not None
        mine.network.zero_grad()
    assert list(module.state_dict()) == list(other.state_dict())
