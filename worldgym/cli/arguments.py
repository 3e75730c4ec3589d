"""What several commands take, with the same name in each."""

from typing import Annotated

import tyro

World = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="WORLD")]
TabletopByDefault = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="[WORLD]")]
