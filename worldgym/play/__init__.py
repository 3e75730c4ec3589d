"""Playing with a dream: in a browser page (`worldgym play`), or through `gymnasium.utils.play`.

from gymnasium.utils.play import play
play(gym.make("worldgym/Tabletop-v0", render_mode="rgb_array"), keys_to_action=arrow_keys(), noop=STILL, zoom=8)
"""

from .keys import STILL, arrow_keys
from .session import Moment, Session, Twin

__all__ = ["STILL", "Moment", "Session", "Twin", "arrow_keys"]
