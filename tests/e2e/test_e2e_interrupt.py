"""Ctrl-C and SIGTERM during a training: the exit status, and what is left."""

import signal
import subprocess
import sys
import time

import pytest

from medseg.cli import main
from medseg.networks.checkpoint import load_content


@pytest.mark.parametrize(("sent", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_training_says_so_and_can_be_resumed(
    sent, status, phantoms, fit_flags, tmp_path
):
    run = tmp_path / "run"
    last = run / "checkpoints" / "last.ckpt"
    flags = fit_flags(phantoms, run, trainer__max_epochs=100000)
    # The parent may have been started in the background, where Ctrl-C is ignored and inherited so.
    code = (
        "import signal, sys\nfrom medseg.cli import main\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"sys.exit(main({['fit', *flags]!r}))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not last.exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    process.send_signal(sent)
    assert process.wait(timeout=60) == status
    epoch = load_content(last)["epoch"]
    assert not list(run.rglob("*.tmp"))
    resumed = fit_flags(phantoms, run, trainer__max_epochs=epoch + 2)
    assert main(["fit", *resumed, "--ckpt_path", "last"]) == 0
    assert load_content(last)["epoch"] == epoch + 1


def test_early_stopping_ends_a_training_that_does_not_improve(
    phantoms, fit_flags, repository, tmp_path
):
    run = tmp_path / "run"
    preset = ["--config", str(repository / "pipelines" / "early_stopping.yaml")]
    flags = fit_flags(phantoms, run, trainer__max_epochs=1000)
    still = ["--model.optimization.learning_rate", "1e-12"]
    assert main(["fit", *preset, *flags, *still]) == 0
    assert load_content(run / "checkpoints" / "last.ckpt")["epoch"] < 200
