"""The rows of the norm registry; `medseg.networks.norms` is where to use them from."""

from __future__ import annotations

from torch import nn

from medseg.networks import norms_batch as batch
from medseg.networks import norms_sample as sample
from medseg.networks.norms_cpu import GroupNorm, InstanceNorm
from medseg.networks.norms_row import (
    Norm,
    of_batch,
    of_ghost,
    of_group,
    of_layer,
    of_sample,
    of_voxel,
    unlimited,
)
from medseg.networks.norms_switchable import SwitchableNorm

EPS = 1e-5
"""Added to every variance; PyTorch's and nnU-Net's value."""

NORMS: dict[str, Norm] = {
    "none": Norm(
        lambda _channels, _groups: nn.Identity(),
        "nothing",
        unlimited,
        "-",
        saved=0,
        removes_mean=False,
        folds=True,
    ),
    "batch": Norm(
        lambda channels, _groups: nn.BatchNorm3d(channels, eps=EPS),
        "batch and voxels, per channel",
        of_batch,
        "Ioffe & Szegedy 2015, arXiv 1502.03167",
        saved=1,
        batch_dependent=True,
        eval_differs=True,
        folds=True,
        family="batch",
    ),
    "sync_batch": Norm(
        lambda channels, _groups: batch.SyncBatchNorm(channels, eps=EPS),
        "batch of all devices and voxels, per channel",
        of_batch,
        "torch.nn.SyncBatchNorm",
        saved=1,
        batch_dependent=True,
        eval_differs=True,
        folds=True,
        family="batch",
    ),
    "batch_frozen": Norm(
        lambda channels, _groups: batch.FrozenBatchNorm(channels, EPS),
        "nothing: running statistics, gamma and beta stay",
        unlimited,
        "Wu & Johnson 2021, arXiv 2105.07576",
        saved=0,
        folds=True,
        family="batch",
    ),
    "ghost": Norm(
        lambda channels, _groups: batch.GhostBatchNorm(channels, EPS),
        "two samples of the batch and voxels, per channel",
        of_ghost,
        "Hoffer 2017, arXiv 1705.08741",
        saved=1,
        batch_dependent=True,
        eval_differs=True,
        folds=True,
        family="batch",
    ),
    "batch_renorm": Norm(
        lambda channels, _groups: batch.BatchRenorm(channels, EPS),
        "batch and voxels, per channel, corrected to running ones",
        of_batch,
        "Ioffe 2017, arXiv 1702.03275",
        saved=1,
        batch_dependent=True,
        eval_differs=True,
        folds=True,
    ),
    "instance": Norm(
        lambda channels, _groups: InstanceNorm(channels, eps=EPS, affine=True),
        "voxels, per sample and channel",
        of_sample,
        "Ulyanov 2016, arXiv 1607.08022",
        saved=1,
    ),
    "group": Norm(
        lambda channels, groups: GroupNorm(groups, channels, eps=EPS),
        "voxels and the channels of a group, per sample",
        of_group,
        "Wu & He 2018, arXiv 1803.08494",
        saved=1,
        groups=True,
    ),
    "layer": Norm(
        lambda channels, _groups: GroupNorm(1, channels, eps=EPS),
        "voxels and all channels, per sample",
        of_layer,
        "Ba 2016, arXiv 1607.06450, as group norm with one group",
        saved=1,
    ),
    "layer_channel": Norm(
        lambda channels, _groups: sample.ChannelLayerNorm(channels, EPS),
        "channels, per voxel",
        of_voxel,
        "Liu 2022, arXiv 2201.03545",
        saved=1,
    ),
    "rms": Norm(
        lambda channels, _groups: sample.ChannelRmsNorm(channels, EPS),
        "channels, per voxel, no mean",
        of_voxel,
        "Zhang & Sennrich 2019, arXiv 1910.07467",
        saved=2,
        removes_mean=False,
    ),
    "group_ws": Norm(
        lambda channels, groups: GroupNorm(groups, channels, eps=EPS),
        "as group, and the weights of a kernel",
        of_group,
        "Qiao 2019, arXiv 1903.10520",
        saved=1,
        groups=True,
        standardizes=True,
    ),
    "frn": Norm(
        lambda channels, _groups: sample.FilterResponseNorm(channels, EPS),
        "voxels, per sample and channel, no mean",
        of_sample,
        "Singh & Krishnan 2020, arXiv 1911.09737",
        saved=2,
        removes_mean=False,
        activation=sample.ThresholdedUnit,
    ),
    "evonorm_s0": Norm(
        lambda channels, groups: sample.EvoNormS0(channels, groups, EPS, activate=False),
        "voxels and the channels of a group, per sample, no mean",
        of_group,
        "Liu 2020, arXiv 2004.02967",
        saved=3,
        removes_mean=False,
        groups=True,
        activation=sample.LearnedSwish,
        fused=lambda channels, groups: sample.EvoNormS0(channels, groups, EPS),
    ),
    "switchable": Norm(
        lambda channels, _groups: SwitchableNorm(channels, EPS),
        "learned mixture of instance, layer and batch",
        of_sample,
        "Luo 2018, arXiv 1806.10779",
        saved=1,
        batch_dependent=True,
        eval_differs=True,
    ),
    "grn": Norm(
        lambda channels, _groups: sample.GlobalResponseNorm(channels, EPS),
        "voxels, per sample and channel, against the mean over channels",
        of_voxel,
        "Woo 2023, arXiv 2301.00808",
        saved=1,
        removes_mean=False,
    ),
}
