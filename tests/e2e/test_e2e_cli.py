"""The front door: quick, and without torch until it is needed."""

import subprocess
import sys

import pytest

from medseg.cli import VERBS, main

LIGHTNING = {"fit", "validate"}
HEAVY = ("torch", "monai", "pytorch_lightning")


def imports_after(arguments):
    code = (
        "import sys\nfrom medseg.cli import main\n"
        f"status = main({arguments!r})\n"
        f"print('HEAVY', [m for m in {HEAVY!r} if m in sys.modules], status)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[-1], done.stdout + done.stderr


@pytest.mark.parametrize("arguments", [[], ["--help"], ["--version"], ["predcit"]])
def test_the_front_door_imports_nothing_heavy(arguments):
    last, text = imports_after(arguments)
    assert last.startswith("HEAVY [] ")
    assert "medseg" in text


@pytest.mark.parametrize("verb", sorted(set(VERBS) - LIGHTNING))
def test_help_and_usage_errors_import_nothing_heavy(verb):
    last, text = imports_after([verb, "--help"])
    assert last == "HEAVY [] 0"
    assert f"usage: medseg {verb}" in text
    last, text = imports_after([verb, "--nosuchflag", "1"])
    assert last == "HEAVY [] 2"
    assert "nosuchflag" in text


@pytest.mark.parametrize("verb", sorted(LIGHTNING))
def test_lightning_verbs_show_their_flags(verb, capsys):
    assert main([verb, "--help"]) == 0
    text = capsys.readouterr().out
    for flag in ("--model.norm", "--data.manifest", "--run_dir", "--trainer.max_time"):
        assert flag in text


def test_an_unknown_verb_is_answered_with_the_nearest(capsys):
    assert main(["predcit"]) == 2
    assert "Did you mean 'predict'?" in capsys.readouterr().err


def test_evaluate_and_report_start_without_torch():
    code = (
        "import sys, medseg.evaluation.evaluate, medseg.report.pages\n"
        f"sys.exit(any(m in sys.modules for m in {HEAVY!r}))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_prediction_starts_without_lightning():
    code = "import sys, medseg.inference.folder; sys.exit('pytorch_lightning' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
