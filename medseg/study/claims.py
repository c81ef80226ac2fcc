"""The claims of the batch-normalization literature, each judged by the numbers of one study.

A claim is about the study's baseline, batch norm unless it names another, against every other
norm; its verdict is about the network without a norm (`claim_rows.conclude`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from medseg.study.claim_rows import Claim
from medseg.study.claims_dropout import with_dropout
from medseg.study.claims_network import batch_statistics, differs_from_peers, regularizes
from medseg.study.claims_scores import more_accurate
from medseg.study.claims_speed import faster
from medseg.study.claims_stability import less_sensitive, stabler
from medseg.study.claims_training import higher_rates, smoother
from medseg.study.outcomes import Study

CLAIMS: tuple[Callable[[Study], Claim], ...] = (
    faster,
    stabler,
    more_accurate,
    smoother,
    higher_rates,
    less_sensitive,
    regularizes,
    with_dropout,
    batch_statistics,
    differs_from_peers,
)


def judge_claims(study: Study) -> tuple[Claim, ...]:
    """Judge every claim, in the order of the literature."""
    claims = tuple(judge(study) for judge in CLAIMS)
    if study.baseline in study.norms:
        return claims
    because = f"The study has no network with {study.baseline} norm: grid.norm must name it."
    return tuple(replace(claim, because=because) for claim in claims)
