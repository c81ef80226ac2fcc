"""Choices of the step, through the command line."""

import torch

from medseg.cli import main
from medseg.networks.checkpoint import load_content
from medseg.training import compiling


def weights(run):
    return load_content(run / "checkpoints" / "last.ckpt")["state_dict"]


def test_fused_steps_are_clipped_in_mixed_precision(phantoms, fit_flags, tmp_path):
    common = {"trainer__precision": "bf16-mixed", "trainer__max_epochs": "1",
              "trainer__limit_val_batches": "0"}  # fmt: skip
    runs = {}
    for name, fused, clip in (("fused", "true", 1e-3), ("plain", "false", 1e-3)):
        run = tmp_path / name
        changes = {"model__optimization__name": "sgd", "model__optimization__learning_rate": "0.1"}
        flags = fit_flags(phantoms, run, **common, **changes)
        flags += ["--trainer.gradient_clip_val", str(clip), "--model.optimization.fused", fused]
        assert main(["fit", *flags]) == 0
        runs[name] = weights(run)
    for key, value in runs["plain"].items():
        torch.testing.assert_close(runs["fused"][key], value, rtol=1e-4, atol=1e-6)


def test_a_resumed_run_keeps_its_kind_of_step(phantoms, fit_flags, tmp_path, capsys):
    run = tmp_path / "run"
    flags = fit_flags(phantoms, run, trainer__max_epochs="1", trainer__limit_val_batches="0")
    assert main(["fit", *flags]) == 0
    again = [*flags, "--ckpt_path", "last", "--model.optimization.fused", "false"]
    assert main(["fit", *again]) == 2
    assert "--model.optimization.fused False contradicts" in capsys.readouterr().err


def test_a_compiled_training_ends_with_the_checkpoint_of_a_plain_one(
    phantoms, fit_flags, tmp_path, monkeypatch
):
    monkeypatch.setattr(compiling, "BACKEND", "aot_eager")
    torch._dynamo.reset()
    found = {}
    for name in ("true", "false"):
        run = tmp_path / name
        flags = fit_flags(phantoms, run, trainer__max_epochs="1", model__ema_decay="0.9")
        assert main(["fit", *flags, "--model.compile", name]) == 0
        found[name] = weights(run)
    assert list(found["true"]) == list(found["false"])
    for key, value in found["false"].items():
        torch.testing.assert_close(found["true"][key], value, rtol=1e-4, atol=1e-5)
