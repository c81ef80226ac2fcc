"""Numbers from a sequence of losses and of gradients."""

import numpy as np
import pytest

from medseg.training.probes import MEDIAN_OF, roughness, spikes


def test_roughness_is_the_noise_of_a_loss_and_not_its_trend():
    noise = np.random.default_rng(0).normal(0, 0.1, 20_000)
    trend = np.linspace(5, 0, 20_000)
    assert roughness(trend) == pytest.approx(0, abs=1e-3)
    assert roughness(trend + noise) == pytest.approx(0.1, rel=0.02)


@pytest.mark.parametrize("losses", [[], [1.0], [1.0, np.nan, 1.0], [1.0, np.inf]])
def test_a_loss_that_is_too_short_or_not_finite_has_no_roughness(losses):
    assert roughness(np.array(losses)) is None


def test_spikes_are_counted_against_the_gradients_before_them():
    norms = np.ones(MEDIAN_OF + 500)
    norms[200], norms[300], norms[400] = 10.5, 9.5, np.nan
    assert spikes(norms) == pytest.approx(1000 * 2 / 500)


def test_gradients_that_grow_slowly_are_no_spikes():
    assert spikes(np.geomspace(1, 1e6, 5000)) == 0


def test_too_few_steps_have_no_median():
    assert spikes(np.ones(MEDIAN_OF)) is None
