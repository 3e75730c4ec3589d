"""`worldgym record`: episodes of a real environment as a Minari data set."""

from pkgutil import resolve_name

from ..envs_real.settings import RecordConfig
from ..envs_real.twins import twin_kind


def record(config: RecordConfig) -> None:
    print(f"recorded {resolve_name(twin_kind(config.env).record)(config)}")
    if config.episodes < 20:
        print("training takes 20 episodes or more: of every 20, 18 train, one validates and one tests")
