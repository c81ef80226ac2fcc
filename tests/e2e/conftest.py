"""One trained run, shared by the tests that only read it."""

import pytest

from medseg.cli import main

TINY = {
    "data.patch_size": "[16, 16, 16]",
    "data.steps_per_epoch": "3",
    "model.network.channels": "[8, 16]",
    "trainer.accelerator": "cpu",
    "trainer.devices": "1",
    "trainer.max_epochs": "2",
}


def fit_arguments(manifest, run_dir, **changes):
    """Return the flags of a training of seconds; `changes` name flags with __ for dots."""
    settings = {"data.manifest": manifest, "run_dir": run_dir, **TINY}
    settings |= {name.replace("__", "."): value for name, value in changes.items()}
    return [text for name, value in settings.items() for text in (f"--{name}", str(value))]


@pytest.fixture
def fit_flags():
    """Return the function that words a tiny training."""
    return fit_arguments


@pytest.fixture(scope="session")
def tiny_run(phantoms, tmp_path_factory):
    """Return the run directory of a tiny training on fold 0."""
    run_dir = tmp_path_factory.mktemp("runs") / "tiny"
    assert main(["fit", *fit_arguments(phantoms, run_dir)]) == 0
    return run_dir
