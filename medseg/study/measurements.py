"""What is measured of one training: scores, curve, probes, costs; None where it was not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class CaseScores:
    """Scores on the reporting cases, in the order of `Study.cases`; NaN where undefined.

    Attributes:
        dice: Mean over the foreground classes of each case: the primary score.
        missed: Structures not predicted, in each case.
        invented: Structures predicted where there are none.
        hd95_mm: Mean over the foreground classes; infinite where a structure is lost.
        nsd: Mean over the foreground classes.
        class_dice: Dice of each foreground class.
    """

    dice: tuple[float, ...]
    missed: tuple[int, ...] | None = None
    invented: tuple[int, ...] | None = None
    hd95_mm: tuple[float, ...] | None = None
    nsd: tuple[float, ...] | None = None
    class_dice: Mapping[str, tuple[float, ...]] | None = None


@dataclass(frozen=True)
class Curve:
    """Validations during one training, on the choosing fold; all of the same length.

    Attributes:
        samples: Patches seen, ascending.
        steps: Steps of the optimizer.
        seconds: Of training, validations left out.
        dice: Mean foreground Dice.
        train_dice: Of training patches, as the network is in training.
    """

    samples: tuple[float, ...]
    steps: tuple[float, ...]
    seconds: tuple[float, ...]
    dice: tuple[float, ...]
    train_dice: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Probes:
    """What was watched during the training of one network, or measured on it afterwards.

    Attributes:
        roughness: SD of the detrended loss from step to step.
        gradient_spikes: Gradient norms above ten times their running median, per 1000 steps.
        loss_range: Width of the loss along the gradient at a fixed batch (Santurkar, 2018).
        gradient_change: Relative change of the gradient along it, |g' - g| / |g|.
        effective_beta: Effective smoothness along it, scaled by the squared norm of the weights.
        batch_mate_noise: Variance of a patch's logits over random batch mates, in training mode.
        statistics_distance: Standardized distance of running from the case's own statistics.
        dice_running: Dice with running statistics, on the choosing fold.
        dice_precise: With statistics measured anew on training patches.
        dice_own: With the statistics of the case itself; equal to `dice_running` by definition
            where a norm keeps no running statistics.
        train_dice: Of training cases at the end, without augmentation.
        gamma_sd: Spread of the learned gamma, which starts at 1.
        gamma_small: Share of |gamma| below 0.01.
        beta_sd: Spread of the learned beta, which starts at 0.
        variance_shift: Variance of a norm's input in evaluation against that in training, the
            larger over the smaller, at the norm where they differ most.
        window_sensitivity: Difference of the logits between two sizes of the window.
        invariance: Dice lost to each change of the image (gain, gamma, bias field, ...).
    """

    roughness: float | None = None
    gradient_spikes: float | None = None
    loss_range: float | None = None
    gradient_change: float | None = None
    effective_beta: float | None = None
    batch_mate_noise: float | None = None
    statistics_distance: float | None = None
    dice_running: float | None = None
    dice_precise: float | None = None
    dice_own: float | None = None
    train_dice: float | None = None
    gamma_sd: float | None = None
    gamma_small: float | None = None
    beta_sd: float | None = None
    variance_shift: float | None = None
    window_sensitivity: float | None = None
    invariance: Mapping[str, float] | None = None

    @property
    def statistics_gap(self) -> float | None:
        """Dice that differs between running and own statistics, whichever is higher."""
        if self.dice_running is None or self.dice_own is None:
            return None
        return abs(self.dice_running - self.dice_own)


@dataclass(frozen=True)
class Costs:
    """What one network costs.

    Attributes:
        seconds_per_step: Of training.
        peak_mib: Of training, on the device.
        inference_seconds: Of one case.
        folded_seconds: Likewise with its norms folded into the convolutions; the same as
            `inference_seconds` where nothing folds.
        parameters: Their number.
    """

    seconds_per_step: float | None = None
    peak_mib: float | None = None
    inference_seconds: float | None = None
    folded_seconds: float | None = None
    parameters: int | None = None
