"""Every preset parses against the real command line; every command in the texts is one."""

import re
import shlex
import shutil
from pathlib import Path

import pytest

from medseg import cli
from medseg.core.options import build_parser
from medseg.study.flags import name_of
from medseg.study.grid import read_study
from medseg.study.planned import plan_runs
from medseg.training.cli import fit

PRESETS = ["gpu", "cpu", "smoke", "sgd", "early_stopping", "data/phantoms_mr", "data/phantoms_ct", "data/hippocampus",
           "data/sarcoma_pet", "data/sarcoma_petct", "recipe", "cpu_bf16"]  # fmt: skip
STUDIES = [
    "studies/norms_quick",
    "studies/norms_standard",
    "studies/norms_robustness",
    "studies/ablation",
]
TEXTS = [
    "README.md",
    "docs/manifest.md",
    "docs/results.md",
    "docs/volumes.md",
    "docs/check.md",
    "docs/metrics.md",
    "docs/statistics.md",
    "docs/report.md",
    "docs/postprocessing.md",
    "docs/export.md",
    "docs/predict.md",
    "docs/scale.md",
    "docs/training.md",
    "docs/study.md",
    "docs/norm_study.md",
    "docs/norms.md",
    "docs/budget.md",
    "docs/plan.md",
    "docs/doctor.md",
]


@pytest.fixture(autouse=True)
def _at_home(repository, monkeypatch):
    monkeypatch.chdir(repository)


def test_the_list_of_presets_is_complete(repository):
    there = {path.relative_to(repository / "pipelines").with_suffix("").as_posix()
             for path in (repository / "pipelines").rglob("*.yaml")}  # fmt: skip
    assert there == {"base", *PRESETS, *STUDIES}


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_parses_against_the_real_command_line(preset, capsys):
    flags = ["--config", "pipelines/base.yaml", "--config", f"pipelines/{preset}.yaml"]
    if not preset.startswith("data/"):
        flags += ["--data.manifest", "data_manifests/phantoms.json"]
    with pytest.raises(SystemExit) as end:
        fit([*flags, "--print_config"])
    assert end.value.code in (0, None)
    assert "patch_size" in capsys.readouterr().out


@pytest.mark.parametrize("name", STUDIES)
def test_every_run_of_every_study_can_be_built(name, tmp_path):
    alike = ("data.fold", "seed_everything")  # one fold and seed is built as any other
    runs = {
        name_of({flag: value for flag, value in run.cell.items() if flag not in alike}): run
        for run in read_study(Path(f"pipelines/{name}.yaml"))
    }
    assert len(plan_runs(list(runs.values()), tmp_path).runs) == len(runs)


def commands():
    for name in TEXTS:
        text = (Path(__file__).parents[2] / name).read_text(encoding="utf-8").replace("\\\n", " ")
        blocks = re.findall(r"^```\w*\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
        for line in "\n".join(blocks).splitlines():
            if line.strip().startswith("medseg "):
                yield line.strip()


@pytest.mark.parametrize("command", list(commands()))
def test_every_command_of_the_texts_is_one(command, capsys, tmp_path):
    verb, *arguments = shlex.split(command, comments=True)[1:]
    if verb.startswith("-"):
        assert cli.main([verb]) == 0
    elif arguments == ["--help"]:
        assert cli.main([verb, "--help"]) == 0
    elif cli.VERBS[verb].options:
        options = cli._load(cli.VERBS[verb].options)
        parser = build_parser(options, verb, "")
        parser.parse_args([a for a in arguments if a not in ("...", "…", "&")])
    else:
        # A plan is written by the command before; a preset of the same data stands in for it.
        arguments = [a.replace("plans/", "pipelines/data/") for a in arguments]
        if "--ckpt_path" in arguments:  # and for the configuration that a run keeps
            arguments[arguments.index("--run_dir") + 1] = str(tmp_path)
            shutil.copy("pipelines/data/hippocampus.yaml", tmp_path / "config.yaml")
        with pytest.raises(SystemExit) as end:
            fit([*arguments, "--print_config"])
        assert end.value.code in (0, None)
