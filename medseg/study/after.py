"""What a study measures on the weights of each run once they are trained: after.json."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from medseg.core.errors import CheckpointError
from medseg.core.runs import RunFiles, write_json
from medseg.networks.fold import folded
from medseg.networks.population import (
    frozen_statistics,
    layers_with_statistics,
    population_moments,
    running_statistics,
    statistics_of,
)
from medseg.networks.unet import UNet
from medseg.study.doctor_invariance import invariance
from medseg.study.doctor_layers import SMALL_GAMMA, layer_findings
from medseg.study.doctor_modes import case_dice, mean, own_of_cases, three_modes
from medseg.study.doctor_options import DoctorOptions
from medseg.study.doctor_patient import Examined, Patient, admit
from medseg.study.doctor_probes import mate_noise, window_changes
from medseg.study.measurements import Costs
from medseg.training.loss import supervised_loss
from medseg.training.measure import kept_bytes

CASES = 8
"""Cases of the choosing fold, and as many of the training, that networks are measured on."""

PATCHES = 64
"""Training patches behind precise statistics; a study measures hundreds of small networks."""

ROUNDS = 2
"""Times that each case is labelled to be timed."""

SHIFT_BATCHES = 4
"""Batches behind the variances of `variance_shift`."""


def measure_after(run_dir: Path, cases: int = CASES, patches: int = PATCHES) -> dict[str, Any]:
    """Measure the `last` weights of a run and write after.json.

    Nothing is measured on the cases that a study reports: the run's own validation fold, which
    chooses, and its training cases are what there is.

    Args:
        run_dir: Of `medseg fit`.
        cases: The first so many validation cases, and as many training cases.
        patches: Training patches that statistics are measured over.

    Returns:
        The content: fields of `measurements.Probes` and `costs`, those of `measurements.Costs`.

    Raises:
        OptionError: If this is no run, or its data are not there.
        CheckpointError: If the checkpoint cannot be read.
    """
    started = time.monotonic()
    options = DoctorOptions(run=run_dir, checkpoint="last", cases_max=cases, patches=patches)
    patient = admit(options)
    examined = patient.cases
    usual, windows = window_changes(patient.network, examined, patient.window)
    found: dict[str, Any] = {
        **_modes(patient, examined, mean(usual)),
        **_parameters(patient.network),
        "batch_mate_noise": mate_noise(patient).variance,
        "window_sensitivity": max((change.logits for change in windows), default=math.nan),
        "invariance": {
            altered.name: 0.0 - altered.against.mean
            for altered in invariance(patient, examined, usual)
        },
        "train_dice": mean([_dice(patient, case) for case in patient.training_cases]),
        "variance_shift": variance_shift(patient),
        "costs": asdict(_costs(patient, examined)),
        "cases": [case.case_id for case in examined],
        "seconds": round(time.monotonic() - started, 1),
    }
    write_json(RunFiles(run_dir).after, found)
    return found


def _dice(patient: Patient, case: Examined) -> float:
    return case_dice(patient.network, case, patient.window)


def _modes(patient: Patient, cases: Sequence[Examined], usual: float) -> dict[str, Any]:
    """Return Dice under the three modes; they are one where a norm keeps no statistics."""
    network = patient.network
    if not layers_with_statistics(network):
        dice = dict.fromkeys(("dice_running", "dice_precise", "dice_own"), usual)
        return {**dice, "statistics_distance": None}
    running = running_statistics(network)
    moments = population_moments(network, patient.training_batches())
    precise = statistics_of(moments, "pooled")
    own = own_of_cases(network, cases, patient.window)
    layers = layer_findings(network, running, precise, own)
    modes = three_modes(network, cases, patient.window, (running, precise, own))
    distance = mean([layer.running_own for layer in layers])
    return {**{f"dice_{mode}": modes.mean(mode) for mode in modes.dice},
            "statistics_distance": distance}  # fmt: skip


def norm_layers(network: nn.Module) -> dict[str, nn.Module]:
    """Return every layer with a gamma for each channel, by name."""
    return {
        name: module
        for name, module in network.named_modules()
        if isinstance(getattr(module, "weight", None), nn.Parameter) and module.weight.ndim == 1
    }


def _parameters(network: nn.Module) -> dict[str, Any]:
    """Return the spread of gamma and beta over all channels of all norms."""
    layers = norm_layers(network).values()
    gammas = [layer.get_parameter("weight").detach().double().cpu() for layer in layers]
    biases = [getattr(layer, "bias", None) for layer in layers]
    betas = [bias.detach().double().cpu() for bias in biases if isinstance(bias, Tensor)]
    gamma = torch.cat(gammas) if gammas else None
    beta = torch.cat(betas) if betas else None
    return {
        "gamma_sd": None if gamma is None else float(gamma.std()),
        "gamma_small": None
        if gamma is None
        else float((gamma.abs() < SMALL_GAMMA).double().mean()),
        "beta_sd": None if beta is None else float(beta.std()),
    }


@torch.no_grad()
def variance_shift(patient: Patient) -> float | None:
    """Return the largest ratio over norms of an input's variance in evaluation to that in training.

    Dropout is what makes them differ (Li 2019, arXiv 1801.05134). None without norms.
    """
    network = patient.network
    layers = norm_layers(network)
    if not layers:
        return None
    batches = [b for _, b in zip(range(SHIFT_BATCHES), patient.training_batches(), strict=False)]
    training = network.training
    try:
        with frozen_statistics(network), torch.random.fork_rng(devices=()):
            torch.manual_seed(0)  # dropout draws the same for every run
            network.train()
            in_training = _input_variances(network, layers, batches)
            network.eval()
            in_evaluation = _input_variances(network, layers, batches)
    finally:
        network.train(training)
    return max(in_evaluation[name] / max(in_training[name], 1e-30) for name in layers)


def _input_variances(
    network: nn.Module, layers: dict[str, nn.Module], batches: Sequence[Tensor]
) -> dict[str, float]:
    """Return the variance of each layer's input over batches and voxels, mean over channels."""
    seen: dict[str, list[Tensor]] = {name: [] for name in layers}

    def watch(name: str) -> Any:
        def note(_layer: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            values = arguments[0].double().movedim(1, 0).flatten(1)
            seen[name].append(torch.stack([values.mean(1), values.square().mean(1)]))

        return note

    handles = [layer.register_forward_pre_hook(watch(name)) for name, layer in layers.items()]
    try:
        for batch in batches:
            network(batch)
    finally:
        for handle in handles:
            handle.remove()
    means = {name: torch.stack(parts).mean(0) for name, parts in seen.items()}
    return {name: float((square - first**2).mean()) for name, (first, square) in means.items()}


def _costs(patient: Patient, cases: Sequence[Examined]) -> Costs:
    """Return what the network costs on this machine, as busy as it is."""
    network = patient.network
    batch = next(patient.data.fixed_batches(1))
    image, label = batch["image"].to(patient.device), batch["label"].to(patient.device)
    try:
        merged = folded(network)
    except CheckpointError:  # statistics of a broken training
        merged = network
    raw, fast = _seconds(patient, (network, merged), cases)
    with _training(network):
        peak = _peak_mib(patient, lambda: supervised_loss(network.heads(image), label))
    return Costs(
        peak_mib=peak,
        inference_seconds=raw,
        folded_seconds=fast if layers_with_statistics(network) else raw,
        parameters=sum(p.numel() for p in network.parameters()),
    )


@contextmanager
def _training(network: UNet) -> Iterator[None]:
    """Have a network as it is within a training step; running statistics are kept."""
    parameters = list(network.parameters())
    needed = [p.requires_grad for p in parameters]
    try:
        with frozen_statistics(network), torch.enable_grad():
            network.train().requires_grad_()
            yield
    finally:
        network.eval()
        for parameter, needs in zip(parameters, needed, strict=True):
            parameter.requires_grad_(needs)


def _peak_mib(patient: Patient, loss_of: Any) -> float:
    """Return what a training step takes: on a CPU what backward keeps, shared memory once."""
    if patient.device.type != "cuda":
        return kept_bytes(loss_of) / 2**20
    torch.cuda.reset_peak_memory_stats(patient.device)
    loss_of().backward()
    for parameter in patient.network.parameters():
        parameter.grad = None
    return torch.cuda.max_memory_allocated(patient.device) / 2**20


@torch.no_grad()
def _seconds(patient: Patient, networks: Sequence[UNet], cases: Sequence[Examined]) -> list[float]:
    """Return the median time of a case by each network, in turns: other work slows all alike."""
    times: list[list[float]] = [[] for _ in networks]
    for case in [*cases] * ROUNDS:
        for network, seen in zip(networks, times, strict=True):
            _wait(patient.device)
            started = time.perf_counter()
            patient.window(case.image, network)
            _wait(patient.device)
            seen.append(time.perf_counter() - started)
    return [statistics.median(seen) for seen in times]


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
