"""Networks whose batch norms take the statistics of the very case that is labelled."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from medseg.core.errors import OptionError
from medseg.inference.settings import Settings
from medseg.networks.checkpoint import Trained
from medseg.networks.norms import NORMS, no_statistics
from medseg.networks.population import own_statistics, use_statistics
from medseg.networks.unet import UNet
from medseg.networks.window import SlidingWindow


def check_case_statistics(members: Sequence[Trained], settings: Settings) -> None:
    """Refuse a case's own statistics where they cannot be had.

    Raises:
        OptionError: If no network keeps running statistics that they would replace, or the network
            is compiled before the case is known.
        GeometryError: If one window leaves a norm too few values.
    """
    if settings.norm_statistics == "running":
        return
    found = [member.description for member in members]
    if not any(NORMS[description.norm].eval_differs for description in found):
        why = "; ".join(sorted({no_statistics(description.norm) for description in found}))
        raise OptionError(f"--norm_statistics own: {why}. Drop the flag.")
    if settings.backend != "torch" or settings.compile:
        raise OptionError(
            "--norm_statistics own changes the network with each case, and needs --backend torch "
            "without --compile."
        )
    for description in found:
        description.check_own_statistics()


def of_case(member: Trained, image: Tensor, window: SlidingWindow) -> UNet:
    """Return a network that normalizes by the statistics of one case.

    Args:
        member: What was trained.
        image: The preprocessed case, shape (1, C, I, J, K).
        window: How the windows lie.
    """
    network = member.network().to(image.device)
    use_statistics(network, own_statistics(network, image, window))
    return network
