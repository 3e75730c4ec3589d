"""`worldgym shard`: data sets in shards, which training streams."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Shard:
    """Copy recorded episodes into shards, which training streams from a disk, from object storage or from the hub.

    For example:
        worldgym shard --dataset mine/arm-v0 --out file://shards/arm
        worldgym shard --dataset mine/arm-v1 --out file://shards/arm
        worldgym train tokenizer --dataset file://shards/arm
    """

    dataset: str = "worldgym/tabletop-v0"
    """Minari id of the recorded episodes, or a LeRobot data set, lerobot:URL."""
    out: str = "file://shards/tabletop"
    """URL of the data set in shards; what is there already is added to. With the package for it, any that fsspec knows:
    s3://bucket/name, gs://bucket/name, hf://datasets/user/name."""


def shard(config: Shard) -> None:
    from ..data import episodes_and_about
    from ..shards import write_shards

    episodes, about = episodes_and_about(config.dataset)
    print(f"added {write_shards(config.out, config.dataset, about, episodes)} episodes to {config.out}")
