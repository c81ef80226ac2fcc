"""What is said before a training starts."""

import pytest

from medseg.networks.norms import NORMS
from medseg.training.advice import SMALL_BATCH, WARM_UP, Settings, advice

QUIET = {
    "norm": "instance",
    "batch_size": 2,
    "devices": 1,
    "accumulate": 1,
    "steps_per_epoch": 250,
    "schedule": "cosine",
    "early_stopping": False,
}


def said(**changes):
    return " ".join(advice(Settings(**QUIET | changes)))


def test_nothing_is_said_where_nothing_is_to_say():
    assert said() == ""
    assert said(norm="batch", batch_size=SMALL_BATCH) == ""
    assert said(accumulate=5) == ""
    assert said(early_stopping=True, schedule="constant") == ""


@pytest.mark.parametrize("norm", NORMS)
def test_a_small_batch_is_told_of_norms_that_depend_on_it_and_of_no_other(norm):
    assert ("error rises below" in said(norm=norm)) is NORMS[norm].batch_dependent
    told = said(norm=norm, accumulate=5)
    assert ("accumulated gradients do not enlarge" in told) is NORMS[norm].batch_dependent


def test_accumulation_names_both_batches_and_the_alternative():
    told = said(norm="batch", batch_size=2, accumulate=5)
    assert "over the 2 patches of a batch, not over the 10 behind a step" in told
    assert "--model.norm instance or group" in told


def test_devices_share_the_batch_of_sync_batch_only():
    assert said(norm="sync_batch", batch_size=2, devices=4) == ""
    assert "over the 2 patches of a batch" in said(norm="batch", batch_size=2, devices=4)


def test_ghost_norm_is_judged_by_the_samples_that_it_normalizes_together():
    assert "over 2 of the 8 patches of a batch: its error" in said(norm="ghost", batch_size=8)
    assert "over 1 of the 3 patches" in said(norm="ghost", batch_size=3)
    told = said(norm="ghost", batch_size=16, accumulate=5)
    assert "over 2 of the 16 patches of a batch, not over the 80 behind a step" in told


@pytest.mark.parametrize("norm", NORMS)
def test_a_batch_that_each_device_has_for_itself_is_told(norm):
    alone = NORMS[norm].batch_dependent and norm != "sync_batch"
    assert ("on each of 4 devices alone" in said(norm=norm, devices=4)) is alone


def test_statistics_that_never_move_need_a_run_to_start_from():
    assert "--init_from" in said(norm="batch_frozen")
    assert "--init_from" not in said(norm="batch_frozen", started=True)


def test_an_epoch_that_ends_within_a_step_is_told():
    assert "gradients of 2 batches only, divided by 4" in said(accumulate=4)


def test_early_stopping_under_a_falling_rate_is_told():
    told = said(early_stopping=True)
    assert "high learning rate" in told
    assert "--trainer.max_time" in told


def test_a_validation_before_the_statistics_have_settled_is_told():
    told = said(norm="batch", batch_size=SMALL_BATCH, first_validation=WARM_UP - 1)
    assert f"after {WARM_UP - 1} batches" in told
    assert "--model.norm instance or group" in told
    assert said(norm="batch", batch_size=SMALL_BATCH, first_validation=WARM_UP) == ""
    assert said(norm="batch", batch_size=SMALL_BATCH, first_validation=1, averaged=True) == ""
    assert said(norm="group", first_validation=1) == ""


def test_mirrored_sides_are_named():
    assert "LV, RV have a side" in said(mirrored_sides=["LV", "RV"])
