"""A share of the jobs, for arrays of jobs on a cluster: `--shard 2/8`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from medseg.core.errors import OptionError


@dataclass(frozen=True)
class Shard:
    """One of several shares; every position is in exactly one of them.

    Attributes:
        index: From 0.
        count: How many there are.
    """

    index: int
    count: int

    def takes(self, position: int) -> bool:
        """Return whether the job at this position, from 0, belongs to the share."""
        return position % self.count == self.index


def parse_shard(text: str) -> Shard:
    """Return the share that `index/count` names, index from 0.

    Raises:
        OptionError: If there is no such share.
    """
    found = re.fullmatch(r"([0-9]+)/([0-9]+)", text.strip())
    if not found or int(found[1]) >= int(found[2]):
        raise OptionError(
            "--shard must be INDEX/COUNT with an index from 0 to COUNT - 1, for instance 0/8 to "
            f"7/8 for eight shares; got {text!r}."
        )
    return Shard(int(found[1]), int(found[2]))
