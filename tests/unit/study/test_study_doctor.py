"""The examination of a run: three modes, exact zeros, sentences, what is refused."""

import json
import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from medseg.cli import main
from medseg.networks.checkpoint import load_trained
from medseg.networks.norms import NORMS
from medseg.networks.population import (
    own_statistics,
    population_statistics,
    running_statistics,
)
from medseg.networks.unet import Architecture, UNet
from medseg.networks.window import SlidingWindow
from medseg.study.doctor_findings import Findings, finding
from medseg.study.doctor_invariance import ALTERATIONS, Altered
from medseg.study.doctor_layers import LayerFinding, Spread, distance, ratio
from medseg.study.doctor_modes import Difference, ModeScores, case_dice, three_modes
from medseg.study.doctor_options import DoctorOptions
from medseg.study.doctor_page import render
from medseg.study.doctor_patient import Examined, admit
from medseg.study.doctor_probes import MateNoise, WindowChange, mate_noise, resized_windows
from medseg.study.doctor_recalibrate import write_recalibrated


class Above(nn.Module):
    """Calls foreground what is brighter than 1 after batch norm."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm3d(1)

    def forward(self, image):
        values = self.norm(image)
        return torch.cat([1 - values, values - 1], dim=1)


@pytest.fixture
def shifted():
    """Return two cases, 10 brighter than what the statistics were made from, and those patches."""
    generator = torch.Generator().manual_seed(0)
    cases, patches = [], []
    for number in range(2):
        label = torch.zeros((1, 8, 8, 8), dtype=torch.uint8)
        label[:, 2:5, 2:5, 2:5] = 1
        image = 0.1 * torch.randn((1, 1, 8, 8, 8), generator=generator) + 4 * label[:, None]
        cases.append(Examined(f"case_{number}", image + 10, label))
        patches.append(image)
    return cases, patches


def test_own_statistics_mend_a_shifted_image_and_precise_ones_do_not(shifted):
    cases, patches = shifted
    network, window = Above().eval(), SlidingWindow((8, 8, 8))
    precise = population_statistics(network, patches)
    own = [own_statistics(network, case.image, window) for case in cases]
    usual = [case_dice(network, case, window) for case in cases]
    scores = three_modes(network, cases, window, usual, (precise, own))
    share = 27 / 512  # everything is called foreground
    assert scores.mean("running") == pytest.approx(2 * share / (1 + share))
    assert scores.mean("precise") == pytest.approx(2 * share / (1 + share))
    assert scores.mean("own") == 1.0
    assert float(network.norm.running_mean) == 0.0


def test_distance_and_ratio_are_in_standard_deviations(shifted):
    cases, patches = shifted
    network = Above().eval()
    precise = population_statistics(network, patches)["norm"]
    own = own_statistics(network, cases[0].image, SlidingWindow((8, 8, 8)))["norm"]
    gap = float((own.mean - precise.mean) / precise.variance.sqrt())
    assert distance(precise, own, precise) == pytest.approx(gap, rel=1e-4)
    doubled = replace(precise, variance=4 * precise.variance)
    assert ratio(precise, doubled) == pytest.approx(2.0, rel=1e-4)
    assert ratio(doubled, precise) == pytest.approx(2.0, rel=1e-4)


LAYER = LayerFinding("deep", 1, 0.1, 0.4, 0.3, 1, 1, 0, Spread(1, 1, 1), Spread(0, 0, 0))


def scores(own, low, cases=8):
    gaps = {"precise": Difference(0.001, -0.001, 0.003), "own": Difference(own, low, 2 * own - low)}
    dice = {"running": [0.81] * cases, "precise": [0.811] * cases, "own": [0.81 + own] * cases}
    return ModeScores(dice, gaps)


def test_the_sentence_names_the_layer_the_dice_and_what_mends():
    told = finding("runs/a", "batch", [replace(LAYER, name="x", running_own=0.1), LAYER],
                   scores(0.05, 0.02))  # fmt: skip
    assert "0.40 SD away from the cases' own at layer deep (mean of all layers 0.25)" in told
    assert "0.810 running, 0.811 precise, 0.860 own" in told
    assert "predict with --norm_statistics own" in told


@pytest.mark.parametrize(("own", "low"), [(0.05, -0.01), (0.004, 0.003)])
def test_an_uncertain_or_small_gain_is_nothing_to_mend(own, low):
    assert finding("a", "batch", [LAYER], scores(own, low)).startswith("nothing to mend")


def test_one_case_decides_nothing():
    told = finding("a", "batch", [LAYER], scores(0.05, math.nan, cases=1))
    assert told.startswith("not decidable with one case")


def test_without_own_statistics_the_distance_is_to_those_of_the_training_patches():
    both = scores(0.0, -0.01)
    two = ModeScores({name: both.dice[name] for name in ("running", "precise")}, {})
    told = finding("a", "batch", [replace(LAYER, running_own=math.nan)], two)
    assert "0.10 SD away from those of the training patches at layer deep" in told
    assert "nan" not in told


def test_statistics_that_never_move_are_not_called_missing():
    told = finding("a", "batch_frozen", [], None)
    assert "'batch_frozen' has running statistics that never move" in told
    assert "keeps no running statistics" not in told
    assert "norm 'group' keeps no running statistics" in finding("a", "group", [], None)


def test_other_windows_fit_the_network():
    window = SlidingWindow((40, 56, 16))
    sizes = [each.roi_size for each in resized_windows(window, (8, 8, 8))]
    assert sizes == [(56, 72, 24), (24, 40, 16)]
    assert len(resized_windows(SlidingWindow((16, 16, 16)), (8, 8, 8))) == 1


def test_alterations_do_what_they_are_called():
    channel = torch.tensor([0.0, 1.0, 4.0]).reshape(3, 1, 1)
    altered = {name: change(channel).flatten() for name, change in ALTERATIONS.items()}
    assert altered["gain 2"].tolist() == [0.0, 2.0, 8.0]
    assert float(altered["gamma 1.5"][1]) == pytest.approx(4 * 0.25**1.5)
    shift = 0.5 * torch.tensor([1.0, 4.0]).std()
    torch.testing.assert_close(altered["shift by 0.5 SD"], channel.flatten() + shift)
    assert float(altered["bias field ±0.3"][2]) == pytest.approx(4 * math.exp(0.3))


class Patches:
    """Training data of random patches."""

    batch_size = 2

    def population(self, batches):
        """Yield batches of patches of different brightness."""
        generator = torch.Generator().manual_seed(0)
        for number in range(batches):
            yield torch.randn((2, 1, 16, 16, 16), generator=generator) * 2 + number % 3


@pytest.mark.parametrize("norm", NORMS)
def test_batch_mates_matter_to_norms_that_depend_on_the_batch_and_to_no_other(norm):
    network = UNet(1, 2, Architecture(channels=(8, 16), depth=1, decoder_depth=1), norm, seed=0)
    patient = SimpleNamespace(
        data=Patches(),
        network=network.eval(),
        device=torch.device("cpu"),
        trained=SimpleNamespace(description=SimpleNamespace(norm=norm)),
    )
    found = mate_noise(patient)
    assert found.batch_size == 2
    assert (found.variance > 0) is NORMS[norm].batch_dependent
    assert (found.variance == 0.0) is not NORMS[norm].batch_dependent


def test_the_page_holds_the_finding_and_the_numbers():
    gap = Difference(-0.0123, -0.02, -0.005)
    found = Findings(
        name="<b>",
        run="/data/runs/<b>",
        checkpoint="last",
        checkpoint_sha256="0" * 64,
        norm="batch",
        fold=3,
        cases=("one", "two"),
        training_patches=200,
        seconds=1.0,
        finding="the finding",
        layers=(LAYER,),
        modes=scores(0.05, 0.02),
        without_own="",
        usual_dice=0.8123,
        mates=MateNoise(2, 16, 0.0, 0.0),
        windows=(WindowChange("overlap 0.25", 0.0421, 0.0012, 0.801, gap),),
        altered=(Altered("gain 2", 0.7994, gap),),
    )
    page = render(found)
    for text in ("the finding", "<h1>&lt;b&gt;</h1>", "0.860", "+0.050 [+0.020, +0.080]", "0.400",
                 "0.042", "0.0012", "0.799", "-0.012 [-0.020, -0.005]", "2 of fold 3",
                 '<td class="num">0</td>'):  # fmt: skip
        assert text in page, text
    other = replace(found, norm="group", modes=None, layers=())
    assert "keeps no running statistics" in render(other)
    assert "statistics that never move" in render(replace(other, norm="batch_frozen"))
    assert "/data/runs/&lt;b&gt;" in page
    assert "the same windows" not in page
    same = replace(found, windows=(replace(found.windows[0], same=True),))
    assert "overlap 0.25 (the same windows on these images)" in render(same)


@pytest.fixture(scope="module", params=["batch", "instance"])
def run(request, phantoms, tmp_path_factory, repository):
    """Return the run directory of a training of three steps."""
    run_dir = tmp_path_factory.mktemp("doctor") / request.param
    words = f"""--config {repository}/pipelines/base.yaml --config {repository}/pipelines/cpu.yaml
        --data.manifest {phantoms} --data.fold 0 --data.patch_size [32,32,32] --data.batch_size 2
        --data.steps_per_epoch 3 --trainer.max_epochs 1 --model.norm {request.param}
        --model.network.channels [4,8] --model.network.depth 1 --model.network.decoder_depth 1
        --model.network.strides null --model.learn_postprocessing false --run_dir {run_dir}"""
    assert main(["fit", *words.split()]) == 0
    return run_dir


def examine(run, output, *more):
    return main(["doctor", "--run", str(run), "--cases_max", "1", "--patches", "4",
                 "--output", str(output), *more])  # fmt: skip


@pytest.mark.slow
def test_a_run_is_examined_and_recalibrated(run, phantoms, tmp_path, capsys):
    copy = tmp_path / "copy"
    batch = run.name == "batch"
    wanted = ["--recalibrate", "pooled", "--recalibrated", str(copy)] if batch else []
    before = (run / "checkpoints/best.ckpt").read_bytes()
    assert examine(run, tmp_path, *wanted) == 0
    found = json.loads((tmp_path / "doctor.json").read_text())
    page = (tmp_path / "doctor.html").read_text()
    assert f"{found['usual_dice']:.3f}" in page
    assert found["finding"].split("'")[0] in page
    assert found["name"] == run.name
    overlap = next(row for row in found["windows"] if row["name"].startswith("overlap"))
    assert overlap["same"] == (overlap["logits"] == 0.0)
    assert len(found["cases"]) == 1
    assert [row["name"] for row in found["altered"]] == list(ALTERATIONS)
    assert (run / "checkpoints/best.ckpt").read_bytes() == before
    if not batch:
        assert found["mates"]["variance"] == 0.0
        assert found["layers"] == []
        assert "keeps no running statistics" in found["finding"]
        return
    assert found["mates"]["variance"] > 0.0
    assert f"{found['layers'][0]['running_own']:.3f}" in page
    old, new = (load_trained(f / "checkpoints/best.ckpt").weights for f in (run, copy))
    changed = {name for name in old if not torch.equal(old[name], new[name])}
    assert changed == {name for name in old if "running_" in name}
    about = json.loads((copy / "fit.json").read_text())["recalibrated"]
    assert (about["estimate"], about["training_patches"], about["from"]) == ("pooled", 4, str(run))
    assert examine(run, tmp_path / "second", *wanted) == 2
    assert "is left alone" in capsys.readouterr().err
    package = tmp_path / "package"
    assert main(["export", "--run", str(copy), "--output", str(package)]) == 0
    predict = ["predict", "--model", str(package), "--input", str(phantoms), "--fold", "0",
               "--output", str(tmp_path / "maps"), "--norm_statistics", "own"]  # fmt: skip
    assert main(predict) == 0
    assert len(list((tmp_path / "maps").rglob("*.nii.gz"))) == 2


@pytest.mark.parametrize(("which", "names"), [("best", ["best"]), ("last", ["best", "last"])])
def test_a_copy_is_found_by_who_names_no_checkpoint(which, names, run, tmp_path):
    if run.name != "batch":
        pytest.skip("nothing to recalibrate")
    options = DoctorOptions(run=run, checkpoint=which, recalibrate="pooled",
                            recalibrated=tmp_path / "copy")  # fmt: skip
    statistics = running_statistics(admit(options).network)
    folder = write_recalibrated(options, 4, "pooled", statistics)
    assert sorted(file.stem for file in (folder / "checkpoints").iterdir()) == names
    assert json.loads((folder / "fit.json").read_text())["recalibrated"]["checkpoint"] == which
    for name in names:
        assert load_trained(folder / "checkpoints" / f"{name}.ckpt")


def test_wrong_requests_are_refused_in_words(run, phantoms, tmp_path, capsys):
    def refused(*words):
        assert main(list(words)) == 2
        return capsys.readouterr().err

    assert "no such run directory" in refused("doctor", "--run", str(tmp_path / "none"))
    assert "--patches must be at least 1" in refused("doctor", "--run", "a", "--patches", "0")
    assert "goes with --recalibrate" in refused("doctor", "--run", "a", "--recalibrated", "b")
    assert "has no fold 9" in refused("doctor", "--run", str(run), "--fold", "9")
    if run.name == "instance":
        told = refused("doctor", "--run", str(run), "--recalibrate", "pooled")
        assert "norm 'instance' keeps no running statistics" in told
        told = refused("predict", "--run", str(run), "--input", str(phantoms), "--output",
                       str(tmp_path / "maps"), "--norm_statistics", "own")  # fmt: skip
        assert "keeps no running statistics to be replaced" in told
