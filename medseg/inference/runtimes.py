"""A network for other runtimes: OpenVINO and ONNX, as files' content and as functions."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from medseg.core.errors import OptionError
from medseg.networks.unet import UNet

Shape = tuple[int, int, int, int, int]
Runner = Callable[[Tensor], Tensor]

NEEDS = {
    "openvino": ("OpenVINO", ("openvino",), "openvino"),
    "onnx": ("ONNX", ("onnx", "onnxscript", "onnxruntime"), "onnx"),
    "onnxruntime": ("ONNX Runtime", ("onnx", "onnxscript", "onnxruntime"), "onnx"),
}
"""Of each runtime or format: its name, its packages, our extra."""


def check_installed(flag: str, name: str) -> None:
    """Refuse a runtime that is not installed.

    Args:
        flag: What the user typed, for the message.
        name: A key of `NEEDS`.

    Raises:
        OptionError: If a package is missing; the message says how to install it.
    """
    called, packages, extra = NEEDS[name]
    if any(importlib.util.find_spec(package) is None for package in packages):
        raise OptionError(f"{flag} {name} needs {called}: pip install 'medseg[{extra}]'.")


def import_openvino() -> Any:
    """Import OpenVINO without its telemetry, which would report every import to its makers."""
    if "openvino" in sys.modules:
        return importlib.import_module("openvino")
    reporter = "openvino_telemetry"
    before = sys.modules.get(reporter)
    sys.modules[reporter] = None  # type: ignore[assignment] # importing it fails, as if absent
    try:
        return importlib.import_module("openvino")
    finally:
        del sys.modules[reporter]
        if before is not None:
            sys.modules[reporter] = before


def to_openvino(network: UNet, shape: Shape) -> Any:
    """Return the network as an OpenVINO model of one input shape."""
    openvino = import_openvino()
    with quiet_export():
        program = torch.export.export(network, (torch.zeros(shape),))
        model = openvino.convert_model(program)
    model.reshape(list(shape))
    return model


def to_onnx(network: UNet, shape: Shape) -> bytes:
    """Return the network as the content of an ONNX file of one input shape."""
    with quiet_export():
        program = torch.onnx.export(
            network,
            (torch.zeros(shape),),
            dynamo=True,
            verbose=False,
            input_names=["image"],
            output_names=["logits"],
        )
    content: bytes = program.model_proto.SerializeToString()  # type: ignore[union-attr]
    return content


def openvino_runner(model: Any, threads: int) -> Runner:
    """Return a function that runs an OpenVINO model, or the XML file of one, in float32."""
    compiled = (
        import_openvino()
        .Core()
        .compile_model(
            model,
            "CPU",
            {
                "PERFORMANCE_HINT": "LATENCY",
                # Processors with bfloat16 would compute in it by default.
                "INFERENCE_PRECISION_HINT": "f32",
                "INFERENCE_NUM_THREADS": threads,
                # Several processes, each pinned to the first cores, would share these.
                "ENABLE_CPU_PINNING": False,
            },
        )
    )
    request = compiled.create_infer_request()

    def run(window: Tensor) -> Tensor:
        # The output lies in the request's own memory: the next call would write over it.
        outputs = request.infer(
            {0: window.contiguous().numpy()}, share_inputs=True, share_outputs=True
        )
        return torch.from_numpy(outputs[0]).clone()

    return run


def onnx_runner(model: bytes | str, threads: int) -> Runner:
    """Return a function that runs the content, or the path, of an ONNX file."""
    runtime = importlib.import_module("onnxruntime")
    runtime.disable_telemetry_events()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    session = runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda window: torch.from_numpy(session.run(None, {name: window.numpy()})[0])


@contextlib.contextmanager
def quiet_export() -> Iterator[None]:
    """Keep the exporters' remarks on their own internals off the screen."""
    exporter = logging.getLogger("torch.onnx")
    level = exporter.level
    exporter.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        exporter.setLevel(level)


def one_by_one(run: Runner) -> Runner:
    """Return a function of any number of windows from one of a single window."""

    def several(windows: Tensor) -> Tensor:
        if len(windows) == 1:
            return run(windows)
        return torch.cat([run(window[None]) for window in windows])

    return several
