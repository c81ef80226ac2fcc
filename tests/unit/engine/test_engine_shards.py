"""Shards: together they take every position once."""

import pytest

from medseg.core.errors import OptionError
from medseg.engine.shards import Shard, parse_shard


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_shards_take_every_position_once(count):
    shards = [parse_shard(f"{index}/{count}") for index in range(count)]
    assert shards[0] == Shard(0, count)
    for position in range(20):
        assert sum(shard.takes(position) for shard in shards) == 1


@pytest.mark.parametrize("text", ["3/3", "-1/3", "1", "", "1/0", "a/b", "1/2/3", "1.0/2", "٣/٤"])
def test_a_share_that_does_not_exist_is_refused(text):
    with pytest.raises(OptionError, match="--shard must be INDEX/COUNT"):
        parse_shard(text)
