"""Which norms a run may start from."""

import pytest

from medseg.core.errors import CheckpointError
from medseg.networks.checkpoint import Description
from medseg.networks.unet import Architecture
from medseg.training.contradictions import refuse_contradictions


def described(norm):
    task = {"channel_names": {"0": "CT"}, "labels": {"background": 0}}
    return Description(norm, 8, Architecture(), task, 0.5)


def test_frozen_batch_norm_starts_from_a_batch_run_but_does_not_resume_it():
    asked, there = described("batch_frozen"), described("batch")
    refuse_contradictions(asked, there, with_data=False)
    with pytest.raises(CheckpointError, match="batch_frozen contradicts the checkpoint"):
        refuse_contradictions(asked, there)


def test_norms_of_other_families_are_refused():
    with pytest.raises(CheckpointError, match="group contradicts the checkpoint"):
        refuse_contradictions(described("group"), described("batch"), with_data=False)
