"""Costs of norms: memory against known sizes, times in turns, and what cannot be is named."""

import json
import re

import pytest
import torch

from medseg.core.errors import OptionError
from medseg.networks.blocks import ConvNorm
from medseg.networks.unet import Architecture
from medseg.study import costs, costs_timing
from medseg.study.benchmark import benchmark
from medseg.study.costs_page import LABEL, WIDTH, render
from medseg.study.costs_timing import Cost, against, impossible, in_turns, peak_mib
from medseg.study.options import BenchmarkOptions
from medseg.training.measure import StepJob


def job(norm="batch", precision="32-true", channels=(8, 16), device="cpu", **changes):
    architecture = Architecture(channels=list(channels), **changes)
    return StepJob(architecture, norm, 8, 1, 3, (16, 16, 16), 2, device, precision)


def kept(norm, **changes):
    return peak_mib(job(norm, **changes)) * 2**20


def test_a_norm_keeps_its_input_once_more_than_no_norm():
    network, inputs = job().build().train(), []
    for block in network.modules():
        if isinstance(block, ConvNorm):
            block[1].register_forward_hook(lambda _m, given, _out: inputs.append(given[0].nbytes))
    network.heads(torch.zeros(2, 1, 16, 16, 16))
    assert len(inputs) == 6
    more = kept("batch") - kept("none")
    vectors = 6 * 5 * 16 * 4  # gamma, mean and deviation of each layer, of at most 16 channels
    assert sum(inputs) <= more <= sum(inputs) + vectors


def test_frozen_statistics_keep_no_more_than_no_norm_and_rms_keeps_two_inputs():
    wide = {"channels": (32, 64)}  # one number a voxel that rms keeps beside is then little
    none, batch = kept("none", **wide), kept("batch", **wide)
    assert kept("batch_frozen", **wide) == pytest.approx(none, rel=0.01)
    assert kept("rms", **wide) - none == pytest.approx(2 * (batch - none), rel=0.05)


def test_half_precision_and_activation_checkpointing_keep_less():
    assert kept("batch", precision="bf16-mixed") < 0.75 * kept("batch")
    assert kept("batch", activation_checkpointing=True) < 0.75 * kept("batch")


def test_memory_that_does_not_suffice_is_told_and_other_errors_are_not_hidden(monkeypatch):
    class Failing:
        def __init__(self, _job):
            raise RuntimeError(self.words)

    monkeypatch.setattr(costs_timing, "Contender", Failing)
    Failing.words = "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"
    assert peak_mib(job()) is None
    Failing.words = "shapes differ"
    with pytest.raises(RuntimeError, match="shapes differ"):
        peak_mib(job())


def test_actions_take_turns_and_the_first_rounds_do_not_count(monkeypatch):
    done, clock = [], iter(range(1000))
    monkeypatch.setattr(costs_timing.time, "perf_counter", lambda: next(clock))
    seconds = in_turns([lambda: done.append("a"), lambda: done.append("b")], 2, 3, "cpu")
    assert "".join(done) == "ababababab"
    assert seconds == [[1, 1, 1], [1, 1, 1]]


def test_a_ratio_does_not_see_a_machine_that_slows_down():
    # Both take three times as long in the last two rounds.
    assert against([1.0, 1.2, 3.6, 3.6], [1.0, 1.0, 3.0, 3.0]) == pytest.approx(1.2)


def test_16_mixed_needs_a_gpu_and_groups_must_divide():
    assert "16-mixed needs a GPU" in impossible(job(precision="16-mixed"))
    assert impossible(job(precision="16-mixed", device="cuda")) == ""
    assert "divisible by 8; got channels (12, 24)" in impossible(job("group", channels=(12, 24)))
    assert impossible(job("instance", channels=(12, 24))) == ""


def test_groups_are_those_that_are_asked_for(tmp_path):
    reasons = []
    for groups in (8, 4):
        path = tmp_path / f"{groups}.json"
        options = BenchmarkOptions(
            ("group",), (12, 16), (8, 8, 8), 1, 1, path, "costs", precisions=("32-true",),
            formats=("contiguous",), norm_groups=groups,
        )  # fmt: skip
        assert benchmark(options) == 0
        content = json.loads(path.read_text())
        assert content["norm_groups"] == groups
        reasons.append(content["costs"][0]["reason"])
    assert "divisible by 8" in reasons[0]
    assert reasons[1] == ""


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    path = tmp_path_factory.mktemp("costs") / "costs.json"
    options = BenchmarkOptions(
        ("none", "batch", "group"), (12, 16), (8, 8, 8), 1, 2, path, "costs",
        precisions=("bf16-mixed", "16-mixed"), formats=("contiguous",), widths=(1, 2),
    )  # fmt: skip
    assert benchmark(options) == 0
    return json.loads(path.read_text()), path.with_suffix(".html").read_text()


def test_every_cell_is_in_the_file_with_figures_or_a_reason(measured):
    rows = measured[0]["costs"]
    cells = {(row["norm"], row["channels"][0], row["precision"]) for row in rows}
    assert len(rows) == len(cells) == 12
    for row in rows:
        possible = row["precision"] == "bf16-mixed" and (row["norm"], row["channels"][0]) != (
            "group", 12,
        )  # fmt: skip
        assert bool(row["reason"]) != possible
        figures = ("step_ms", "step_ratio", "peak_mib", "inference_ms", "folded_ms", "parameters")
        assert all((row[name] or 0) > 0 for name in figures) == possible
        if possible and row["norm"] == "batch":
            assert row["step_ratio"] == row["inference_ratio"] == 1
            assert row["folded_ms"] != row["inference_ms"]
        elif possible:  # the same network is not timed twice
            assert row["folded_ms"] == row["inference_ms"]
    assert measured[0]["precisions"] == ["bf16-mixed", "16-mixed"]


def test_the_page_draws_and_names_every_cell_and_loads_nothing(measured):
    page = measured[1]
    assert page.count("<section>") == 4
    assert page.count('class="lost"') == 7
    assert page.count('<rect class="bar"') == 3 * 5
    assert "16-mixed needs a GPU" in page
    assert not re.search(r"(src|href)=|<script|style=", page)


def test_bars_are_as_long_as_their_ratios():
    rows = [
        Cost("batch", (8,), "32-true", "contiguous", 1, 10.0, 1.0, 1.0, 4.0, 1.0, 2.0, 0.5),
        Cost("rms", (8,), "32-true", "contiguous", 1, 20.0, 2.0, 1.0, 4.0, 1.0, 4.0, 1.0),
    ]
    page = render(rows, "cpu", "patch", 3)
    found = re.findall(r'<rect class="bar" x="\d+" y="[\d.]+" width="([\d.]+)"', page)
    assert [float(width) / WIDTH * 2 for width in found] == [1, 1, 0.5, 2, 1, 1]
    assert f'class="one" x1="{LABEL + WIDTH / 2}"' in page


def test_without_batch_norm_the_first_norm_is_the_baseline(tmp_path):
    options = BenchmarkOptions(("layer", "none"), (8, 16), (8, 8, 8), 1, 1, what="costs",
                               precisions=("32-true",), formats=("channels_last",))  # fmt: skip
    first, second = costs.benchmark_costs(options)
    assert first.step_ratio == first.inference_ratio == 1
    assert second.step_ratio == pytest.approx(second.step_ms / first.step_ms)


def test_wrong_requests_are_refused(tmp_path):
    with pytest.raises(OptionError, match="--widths must be at least 1"):
        benchmark(BenchmarkOptions(what="costs", widths=(0,)))
    with pytest.raises(OptionError, match="page lies beside it"):
        benchmark(BenchmarkOptions(what="costs", output=tmp_path / "costs.html"))


@pytest.mark.gpu
def test_a_gpu_counts_its_allocator_and_trains_in_16_mixed():
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    full, half = (
        peak_mib(job(precision=precision, channels=(32, 64), device="cuda"))
        for precision in ("32-true", "16-mixed")
    )
    assert 0 < half < full
    options = BenchmarkOptions(("batch", "group"), (8, 16), (16, 16, 16), 2, 3, what="costs",
                               precisions=("32-true", "16-mixed"))  # fmt: skip
    assert not any(row.reason for row in costs.benchmark_costs(options))
