"""Our weights as a trained model of nnU-Net. Run by nnU-Net's Python; needs nothing of medseg.

    python -I nnunet_side.py FOLDER

FOLDER/network.pt holds our network's description, its weights and one window with its logits.
Written are FOLDER/results, where `nnUNetv2_predict` finds the model, and FOLDER/answer.json.
nnU-Net reads volumes as (z, y, x), we as (x, y, z): all that has three axes is turned round,
convolution kernels included.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

DATASET_ID = 4
DATASET = f"Dataset{DATASET_ID:03d}_Benchmark"
CONFIGURATION = "3d_fullres"
CHECKPOINT = "checkpoint_final.pth"
FILE_ENDING = ".nii.gz"

NORMS = {
    "instance": "torch.nn.modules.instancenorm.InstanceNorm3d",
    "batch": "torch.nn.modules.batchnorm.BatchNorm3d",
}
"""The class, by our name, of each norm that can be compared."""

_TRAINER, _PLANS = "nnUNetTrainer", "nnUNetPlans"
_NETWORK = "dynamic_network_architectures.architectures.unet.PlainConvUNet"
_PACKAGES = ("nnunetv2", "dynamic_network_architectures", "torch", "numpy", "SimpleITK")
_RENAMED = (
    (r"^(?:decoder\.)?encoder\.stages\.(\d+)\.0\.convs\.", r"encoder.\1."),
    (r"^decoder\.stages\.(\d+)\.convs\.", r"decoder.\1."),
    (r"^decoder\.transpconvs\.", "upsample."),
    (r"^decoder\.seg_layers\.", "logits."),
    (r"\.all_modules\.", "."),
    (r"\.conv\.", ".0."),
    (r"\.norm\.", ".1."),
)


def our_name(name: str) -> str:
    """Return what we call a tensor of nnU-Net's PlainConvUNet.

    There a tensor has several names: the decoder holds the encoder, and each block lists its
    layers a second time.
    """
    for theirs, ours in _RENAMED:
        name = re.sub(theirs, ours, name)
    return name


def translated(weights: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return our weights under nnU-Net's names, the axes of kernels turned round.

    Biases that ours leaves out before a norm become zero, and so do logits of coarser levels that
    it has not: they take no part in inference.

    Args:
        weights: State of our network.
        wanted: State of theirs.

    Raises:
        ValueError: If a tensor finds no partner, or one of another shape.
    """
    state = {}
    for name, there in wanted.items():
        ours = weights.get(our_name(name))
        if ours is None and (name.endswith(".bias") or ".seg_layers." in name):
            state[name] = torch.zeros_like(there)
        elif ours is None:
            raise ValueError(f"{name}: nothing in our network")
        else:
            turned = ours.permute(0, 1, 4, 3, 2) if ours.ndim == 5 else ours
            state[name] = turned.contiguous()
        if state[name].shape != there.shape:
            raise ValueError(f"{name}: {tuple(state[name].shape)} for {tuple(there.shape)}")
    if homeless := sorted(set(weights) - {our_name(name) for name in wanted}):
        raise ValueError(f"nothing in nnU-Net's network for {homeless}")
    return state


def plans_of(network: Mapping[str, Any]) -> dict[str, Any]:
    """Return nnU-Net's plans for a network described by `medseg.study.peers.described`."""
    spacing, patch_size = network["spacing"][::-1], network["patch_size"][::-1]
    configuration = {
        "data_identifier": f"{_PLANS}_{CONFIGURATION}",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": patch_size,
        "median_image_size_in_voxels": patch_size,
        "spacing": spacing,
        "normalization_schemes": [_scheme(entry) for entry in network["intensity"]],
        "use_mask_for_norm": [False] * len(network["intensity"]),
        **_resampling(),
        "batch_dice": False,
        "architecture": _architecture(network),
    }
    return {
        "dataset_name": DATASET,
        "plans_name": _PLANS,
        "original_median_spacing_after_transp": spacing,
        "original_median_shape_after_transp": patch_size,
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {CONFIGURATION: configuration},
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {
            str(channel): _window(entry) for channel, entry in enumerate(network["intensity"])
        },
    }


def _scheme(entry: str | list[float]) -> str:
    return "ZScoreNormalization" if isinstance(entry, str) else "CTNormalization"


def _window(entry: str | list[float]) -> dict[str, float]:
    """Return what makes nnU-Net's scaling of CT bring a window to [-1, 1], as ours does."""
    if isinstance(entry, str):
        return {}
    lower, upper = entry
    ends = {"percentile_00_5": lower, "percentile_99_5": upper}
    return {"mean": (lower + upper) / 2, "std": (upper - lower) / 2, **ends}


def _resampling() -> dict[str, Any]:
    """Return nnU-Net's defaults; at equal spacing nothing is resampled."""
    found: dict[str, Any] = {}
    for what, is_seg, order in (("data", False, 3), ("seg", True, 1), ("probabilities", False, 1)):
        found[f"resampling_fn_{what}"] = "resample_data_or_seg_to_shape"
        found[f"resampling_fn_{what}_kwargs"] = {
            "is_seg": is_seg, "order": order, "order_z": 0, "force_separate_z": None,
        }  # fmt: skip
    return found


def _architecture(network: Mapping[str, Any]) -> dict[str, Any]:
    levels = len(network["channels"])
    return {
        "network_class_name": _NETWORK,
        "arch_kwargs": {
            "n_stages": levels,
            "features_per_stage": network["channels"],
            "conv_op": "torch.nn.modules.conv.Conv3d",
            "kernel_sizes": [row[::-1] for row in network["kernels"]],
            "strides": [row[::-1] for row in network["strides"]],
            "n_conv_per_stage": [network["depth"]] * levels,
            "n_conv_per_stage_decoder": [network["decoder_depth"]] * (levels - 1),
            "conv_bias": True,
            "norm_op": NORMS[network["norm"]],
            "norm_op_kwargs": {"eps": 1e-05, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }


def build(network: Mapping[str, Any], plans: Mapping[str, Any]) -> nn.Module:
    """Return nnU-Net's network with our weights, in evaluation mode."""
    planned = plans["configurations"][CONFIGURATION]["architecture"]
    factory = importlib.import_module("nnunetv2.utilities.get_network_from_plans")
    theirs: nn.Module = factory.get_network_from_plans(
        planned["network_class_name"],
        planned["arch_kwargs"],
        planned["_kw_requires_import"],
        len(network["intensity"]),
        network["classes"],
        allow_init=False,
        deep_supervision=False,
    )
    theirs.load_state_dict(translated(network["weights"], theirs.state_dict()))
    return theirs.eval()


def difference(theirs: nn.Module, network: Mapping[str, Any]) -> float:
    """Return the largest difference of the logits on the window, as a share of their range."""
    ours = network["logits"]
    with torch.inference_mode():
        logits = theirs(network["window"].permute(0, 1, 4, 3, 2).contiguous())
    apart = (logits.permute(0, 1, 4, 3, 2) - ours).abs().max()
    return float(apart / (ours.max() - ours.min()))


def write_model(folder: Path, theirs: nn.Module, network: Mapping[str, Any]) -> None:
    """Write what nnU-Net reads of a training: plans, data set and checkpoint."""
    model = folder / DATASET / f"{_TRAINER}__{_PLANS}__{CONFIGURATION}"
    (model / "fold_0").mkdir(parents=True)
    labels = {f"class {index}" if index else "background": index
              for index in range(network["classes"])}  # fmt: skip
    dataset = {
        "channel_names": {str(index): "image" for index in range(len(network["intensity"]))},
        "labels": labels,
        "numTraining": 0,
        "file_ending": FILE_ENDING,
    }
    (model / "dataset.json").write_text(json.dumps(dataset))
    (model / "plans.json").write_text(json.dumps(plans_of(network)))
    content = {
        "network_weights": theirs.state_dict(),
        "trainer_name": _TRAINER,
        "init_args": {"configuration": CONFIGURATION},
        "inference_allowed_mirroring_axes": None,
    }
    torch.save(content, model / "fold_0" / CHECKPOINT)


def main(folder: Path) -> None:
    """Write the model and say how far apart the two networks are on one window."""
    network = torch.load(folder / "network.pt", weights_only=True)
    theirs = build(network, plans_of(network))
    write_model(folder / "results", theirs, network)
    answer = {
        "difference": difference(theirs, network),
        "parameters": sum(p.numel() for p in theirs.parameters()),
        "versions": {name: importlib.metadata.version(name) for name in _PACKAGES},
    }
    (folder / "answer.json").write_text(json.dumps(answer))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
