"""The whole line on phantoms: check, fit, predict, evaluate, report; MR and CT."""

import csv
import json

import pytest

from medseg.cli import main


def run(verb, *flags):
    return main([verb, *map(str, flags)])


@pytest.mark.parametrize("modality", ["mr", "ct"])
def test_from_a_manifest_to_a_report(modality, phantoms, ct_phantoms, repository, tmp_path):
    manifest = {"mr": phantoms, "ct": ct_phantoms}[modality]
    out = tmp_path / "run"
    presets = ["base", "cpu", f"data/phantoms_{modality}"]
    configs = [f for p in presets for f in ("--config", repository / "pipelines" / f"{p}.yaml")]
    assert run("check", "--manifest", manifest) == 0
    small = ["--data.patch_size", "[16,16,8]", "--model.network.channels", "[8,16,16]"]
    budget = ["--trainer.max_epochs", 2, "--data.steps_per_epoch", 4]
    place = ["--data.manifest", manifest, "--data.root", manifest.parent, "--run_dir", out]
    assert run("fit", *configs, *place, *small, *budget, "--data.fold", 1) == 0
    flags = ["--run", out, "--checkpoint", "last", "--input", manifest, "--fold", 1]
    assert run("predict", *flags, "--output", out / "predictions") == 0
    flags = ["--predictions", out / "predictions", "--manifest", manifest, "--fold", 1]
    assert run("evaluate", *flags, "--output", out / "scores.csv", "--workers", 1) == 0
    with (out / "scores.csv").open(newline="") as file:
        scores = list(csv.DictReader(file))
    assert len({row["case_id"] for row in scores}) == 2
    dice = [float(row["value"]) for row in scores if row["metric"] == "dice"]
    assert len(dice) == 6
    assert all(0 <= value <= 1 for value in dice)
    json.loads((out / "summary.json").read_text(), parse_constant=pytest.fail)
    assert run("report", "--runs", out, "--output", tmp_path / "report.html") == 0
    page = (tmp_path / "report.html").read_text()
    assert "batch" in page
    assert scores[0]["case_id"] in page


@pytest.mark.slow
def test_phantoms_are_learned_in_two_minutes_but_not_perfectly(repository, tmp_path, monkeypatch):
    monkeypatch.chdir(repository)
    assert run("phantoms", "--output", tmp_path / "mr") == 0
    configs = [
        f for p in ("base", "cpu", "data/phantoms_mr") for f in ("--config", f"pipelines/{p}.yaml")
    ]
    place = ["--data.manifest", tmp_path / "mr/manifest.json", "--data.root", tmp_path / "mr"]
    best = {}
    for name, budget in (
        ("untrained", "--trainer.max_steps=1"),
        ("trained", "--trainer.max_time=00:00:02:00"),
    ):
        assert run("fit", *configs, *place, "--run_dir", tmp_path / name, budget) == 0
        best[name] = json.loads((tmp_path / name / "fit.json").read_text())["best_val_dice"]
    assert best["untrained"] < 0.15
    # The best intensity threshold, chosen with the truth known, reaches 0.40.
    assert 0.6 < best["trained"] < 0.98


@pytest.mark.slow
def test_the_demo_ends_in_a_report(tmp_path):
    assert (
        run(
            "demo",
            "--output",
            tmp_path / "demo",
            "--seconds",
            5,
            "--norms",
            "batch",
            "layer",
            "--cases",
            8,
        )
        == 0
    )
    assert (tmp_path / "demo" / "report.html").stat().st_size > 50_000
    assert run("demo", "--output", tmp_path / "demo", "--norms", "grup") == 2
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    assert run("demo", "--output", tmp_path / "mine") == 2
    assert (tmp_path / "mine" / "thesis.txt").exists()
