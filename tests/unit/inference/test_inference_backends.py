"""A backend is the network it was made of, only faster; what cannot be is refused in words."""

import importlib.util
import itertools
import shutil
import sys

import pytest
import torch

from medseg.core.errors import OptionError
from medseg.inference import backends, runtimes
from medseg.inference.backends import BackendOptions, build_backend
from medseg.inference.probe import probe
from medseg.inference.threads import default_threads
from medseg.networks.norms import NORMS
from medseg.networks.unet import Architecture, UNet

ROI = (8, 12, 8)
CPU = torch.device("cpu")


def network(norm="batch", **plan):
    net = UNet(2, 3, Architecture(channels=[8, 16], **plan), norm, seed=0)
    with torch.no_grad():
        for _ in range(3):
            net(probe(ROI, 2))  # in training mode: moves batch norm's statistics
    return net.eval()


def installed(backend):
    packages = runtimes.NEEDS[backend][1] if backend != "torch" else ()
    if missing := [name for name in packages if importlib.util.find_spec(name) is None]:
        pytest.skip(f"{', '.join(missing)} is not installed")


def build(net, roi=ROI, **options):
    return build_backend(net, BackendOptions(threads=1, **options), roi, 2, CPU)


def gap(one, other):
    return float((one - other).abs().max() / (one.max() - one.min()))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("backend", backends.BACKENDS)
@torch.inference_mode()
def test_every_backend_gives_the_logits_of_the_network(backend, norm):
    installed(backend)
    net = network(norm)
    run = build(net, backend=backend)
    for batch in (3, 1, 2):  # the last batch of a volume is smaller
        windows = torch.randn((batch, 2, *ROI), generator=torch.Generator().manual_seed(batch))
        logits = run(windows)
        assert logits.shape == (batch, 3, *ROI)
        assert logits.dtype == torch.float32
        assert gap(net(windows), logits) < 2e-5


@pytest.mark.parametrize("backend", backends.BACKENDS)
@torch.inference_mode()
def test_results_do_not_share_memory(backend):
    installed(backend)
    run = build(network(), backend=backend)
    first = run(torch.zeros((1, 2, *ROI)))
    kept = first.clone()
    run(torch.ones((1, 2, *ROI)))
    assert torch.equal(first, kept)


@pytest.mark.parametrize("backend", backends.BACKENDS)
@torch.inference_mode()
def test_windows_may_lie_in_memory_in_any_way(backend):
    installed(backend)
    net = network()
    windows = torch.randn((2, *ROI[::-1], 2), generator=torch.Generator().manual_seed(0))
    windows = windows.permute(0, 4, 3, 2, 1)
    assert gap(net(windows), build(net, backend=backend)(windows)) < 2e-5


@pytest.mark.parametrize("axes", [(0,), (1, 2), (0, 1, 2)])
@torch.inference_mode()
def test_mirroring_is_the_mean_over_all_flips(axes):
    net, windows = network("instance"), probe(ROI, 2)
    expected = torch.zeros((len(windows), 3, *ROI))
    for flips in itertools.product([False, True], repeat=len(axes)):
        dims = [axis + 2 for axis, flip in zip(axes, flips, strict=True) if flip]
        expected += net(windows.flip(dims)).flip(dims) if dims else net(windows)
    expected /= 2 ** len(axes)
    run = build(net, mirror_axes=axes)
    assert gap(expected, run(windows)) < 2e-5
    # The mean over all flips knows no side any more.
    assert gap(run(windows.flip(axes[0] + 2)).flip(axes[0] + 2), run(windows)) < 2e-5


@torch.inference_mode()
def test_the_network_itself_is_left_alone():
    net = network("instance").train()
    before = [type(layer) for layer in net.modules()], net.architecture
    build(net)
    assert ([type(layer) for layer in net.modules()], net.architecture) == before
    assert net.training


@torch.inference_mode()
def test_a_network_that_cannot_be_folded_is_run_as_it_is(caplog):
    net = network("batch")
    net.encoder[0][0][1].running_var[2] = -1.0
    with caplog.at_level("WARNING", logger="medseg"):
        run = build(net)
    assert "run as it was trained: folding" in caplog.text
    assert torch.equal(run(probe(ROI, 2)).isnan(), net(probe(ROI, 2)).isnan())


def test_a_backend_that_disagrees_is_refused_with_its_agreement(monkeypatch):
    installed("onnxruntime")
    monkeypatch.setattr(backends, "onnx_runner", lambda *_: lambda w: torch.randn((1, 3, *ROI)))
    with pytest.raises(OptionError, match=r"class that torch finds in 0\.3\d+ of a probe"):
        build(network(), backend="onnxruntime")


def test_a_few_voxels_in_ten_thousand_are_too_many(monkeypatch):
    installed("onnxruntime")
    net = network()

    def nearly(window):
        logits = net(window).clone()
        logits[0, :, 0, 0, 0] = logits[0, :, 0, 0, 0].flip(0)  # one voxel of 768 in each window
        return logits

    monkeypatch.setattr(backends, "onnx_runner", lambda *_: nearly)
    with pytest.raises(OptionError, match=r"finds in 0\.99\d+ of a probe"):
        build(net, backend="onnxruntime")


@pytest.mark.parametrize(("backend", "extra"), [("openvino", "openvino"), ("onnxruntime", "onnx")])
def test_a_missing_package_is_named_with_its_extra(monkeypatch, backend, extra):
    monkeypatch.setattr(runtimes.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(OptionError, match=rf"--backend {backend} needs .*medseg\[{extra}\]"):
        build(network(), backend=backend)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"precision": "bf16"}, "--precision bf16 is for GPUs"),
        ({"backend": "tflite"}, "--backend must be one of torch, openvino, onnxruntime"),
        ({"backend": "openvino", "precision": "fp16"}, "computes in float32"),
        ({"backend": "openvino", "compile": True}, "drop --compile"),
        ({"mirror_axes": (0, 3)}, "mirror_axes"),
        ({"mirror_axes": (1, 1)}, "mirror_axes"),
    ],
)
def test_what_cannot_be_is_refused_in_words(options, words):
    with pytest.raises(OptionError, match=words):
        build(network(), **options)
    with pytest.raises(OptionError, match="at least 1; got 0"):
        BackendOptions(threads=0)


def test_other_runtimes_are_refused_on_a_gpu():
    options = BackendOptions(backend="openvino")
    with pytest.raises(OptionError, match="runs on the CPU; got --device cuda"):
        build_backend(network(), options, ROI, 2, torch.device("cuda"))


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("precision", "tolerance"), [("float32", 2e-3), ("bf16", 0.05), ("fp16", 0.01)]
)
@torch.inference_mode()
def test_a_gpu_gives_the_logits_of_the_cpu(precision, tolerance):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    net = network()
    options = BackendOptions(precision=precision)
    run = build_backend(net, options, ROI, 2, torch.device("cuda"))
    logits = run(probe(ROI, 2).cuda())
    assert logits.dtype == torch.float32
    assert gap(net(probe(ROI, 2)), logits.cpu()) < tolerance


def test_openvino_is_imported_without_its_telemetry():
    installed("openvino")
    runtimes.import_openvino()
    reporter = sys.modules["openvino.tools.ovc.convert_impl"].tm
    assert reporter.__name__ == "openvino.tools.ovc.telemetry_stub"


def test_the_probe_is_always_the_same_and_looks_like_a_scaled_image():
    windows = probe((40, 56, 40), 1)
    assert torch.equal(windows, probe((40, 56, 40), 1))
    assert windows.shape == (4, 1, 40, 56, 40)
    assert abs(float(windows.mean())) < 0.1
    assert 0.9 < float(windows.std()) < 1.2
    neighbours = torch.corrcoef(
        torch.stack([windows[..., 1:].flatten(), windows[..., :-1].flatten()])
    )[0, 1]
    assert 0.6 < float(neighbours) < 0.95  # neither noise nor a ramp


class TestThreads:
    """default_threads on made-up machines."""

    def machine(self, tmp_path, monkeypatch, cpus, siblings=None, files=None):
        monkeypatch.setattr(
            backends.default_threads.__globals__["os"],
            "sched_getaffinity",
            lambda _: set(cpus),
            raising=False,
        )
        for cpu, core in (siblings or {}).items():
            place = tmp_path / f"sys/devices/system/cpu/cpu{cpu}/topology"
            place.mkdir(parents=True)
            (place / "thread_siblings_list").write_text(f"{core}\n")
        for name, text in (files or {}).items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)
        return default_threads(tmp_path / "sys", tmp_path / "proc")

    def test_two_hardware_threads_of_a_core_count_once(self, tmp_path, monkeypatch):
        siblings = {0: "0,4", 1: "1,5", 4: "0,4", 5: "1,5", 2: "2,6"}
        assert self.machine(tmp_path, monkeypatch, [0, 1, 4, 5], siblings) == 2

    def test_affinity_counts_where_the_topology_is_not_told(self, tmp_path, monkeypatch):
        assert self.machine(tmp_path, monkeypatch, [3, 4, 5]) == 3

    def test_a_containers_quota_counts_even_from_the_group_around(self, tmp_path, monkeypatch):
        files = {
            "proc/self/cgroup": "0::/pod/box\n",
            "sys/fs/cgroup/pod/box/cpu.max": "max 100000\n",
            "sys/fs/cgroup/pod/cpu.max": "150000 100000\n",
        }
        assert self.machine(tmp_path, monkeypatch, range(8), files=files) == 2

    def test_a_quota_of_the_older_kind_counts(self, tmp_path, monkeypatch):
        files = {
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "300000\n",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
        }
        assert self.machine(tmp_path, monkeypatch, range(8), files=files) == 3
        (tmp_path / "sys/fs/cgroup/cpu/cpu.cfs_quota_us").write_text("-1\n")
        assert self.machine(tmp_path, monkeypatch, range(8)) == 8

    def test_a_quota_below_one_core_leaves_one_thread(self, tmp_path, monkeypatch):
        files = {"sys/fs/cgroup/cpu.max": "20000 100000\n"}
        assert self.machine(tmp_path, monkeypatch, range(4), files=files) == 1


@pytest.mark.slow
@torch.inference_mode()
def test_compiled_code_gives_the_logits_of_the_network_for_every_size_of_batch():
    if shutil.which("c++") is None and shutil.which("g++") is None:
        pytest.skip("torch.compile needs a C++ compiler")
    for norm in ("batch", "instance"):
        net = network(norm)
        run = build(net, compile=True)
        for batch in (2, 1):
            windows = torch.randn((batch, 2, *ROI), generator=torch.Generator().manual_seed(batch))
            assert gap(net(windows), run(windows)) < 2e-5
