"""Seconds by kind, on a clock of our own."""

import pytest

from medseg.training import time_shares
from medseg.training.time_shares import TimeShares


@pytest.fixture
def clock(monkeypatch):
    """Return a list whose first entry is the time."""
    now = [0.0]
    monkeypatch.setattr(time_shares.time, "perf_counter", lambda: now[0])
    return now


def spend(profiler, clock, action, seconds, inside=()):
    with profiler.profile(action):
        clock[0] += seconds
        for name, part in inside:
            spend(profiler, clock, name, part)


def step(profiler, clock):
    """Spend one second in all."""
    moved = [("[LightningModule]M.on_after_batch_transfer", 0.1)]
    spend(profiler, clock, "[_TrainingEpochLoop].train_dataloader_next", 0.1)
    spend(profiler, clock, "[Strategy]S.batch_to_device", 0.1, moved)
    closure = [("[Strategy]S.training_step", 0.2), ("[Strategy]S.backward", 0.3)]
    spend(profiler, clock, "[LightningModule]M.optimizer_step", 0.1, closure)
    spend(profiler, clock, "[Callback]C.on_train_batch_end", 0.1)


def test_what_an_action_contains_is_counted_once_and_the_shares_make_one(clock):
    profiler = TimeShares()
    for _ in range(10):
        step(profiler, clock)
    shares = profiler.shares()
    expected = {"data": 0.2, "augmentation": 0.1, "forward": 0.2, "backward": 0.3}
    expected |= {"optimizer": 0.1, "validation": 0.0, "other": 0.1}
    assert shares == pytest.approx(expected, abs=1e-4)
    assert sum(shares.values()) == pytest.approx(1, abs=1e-3)
    assert profiler.seconds_per_batch() == pytest.approx(1.0)


def test_validation_is_one_thing_and_no_step(clock):
    profiler = TimeShares()
    step(profiler, clock)
    step(profiler, clock)
    spend(profiler, clock, "[LightningModule]M.on_validation_start", 1.0)
    spend(profiler, clock, "[Strategy]S.batch_to_device", 1.0)
    spend(profiler, clock, "[LightningModule]M.on_validation_end", 0.0)
    step(profiler, clock)
    step(profiler, clock)
    shares = profiler.shares()
    assert shares["validation"] == pytest.approx(2 / 6, abs=1e-4)
    assert shares["backward"] == pytest.approx(1.2 / 6, abs=1e-4)
    assert profiler.seconds_per_batch() == pytest.approx(1.0)
    assert len(profiler.steps) == 2


def test_what_follows_the_training_does_not_count(clock):
    profiler = TimeShares()
    step(profiler, clock)
    spend(profiler, clock, "[Callback]C.on_train_end", 50.0)
    assert profiler.shares()["backward"] == pytest.approx(0.3, abs=1e-4)


def test_a_training_without_a_step_has_no_shares():
    assert TimeShares().shares() is None
    assert TimeShares().seconds_per_batch() is None


def test_on_a_gpu_one_step_in_many_waits_and_stands_for_the_others(clock, monkeypatch):
    waits = []
    monkeypatch.setattr(time_shares.torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(time_shares.torch.cuda, "synchronize", lambda: waits.append(clock[0]))
    profiler = TimeShares()
    for _ in range(4 * time_shares.SAMPLE_EVERY):
        step(profiler, clock)
    # Six actions a step, each with two marks.
    assert len(waits) == 4 * 12
    assert profiler.shares()["backward"] == pytest.approx(0.3, abs=0.01)
    assert profiler.shares()["other"] == pytest.approx(0.1, abs=0.02)
