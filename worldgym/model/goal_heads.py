"""What goals are judged by: where a frame lies along the principal components of the recording's frames.

Training reads these off every state and off every observed frame (train/recurrent_state.py), those of little variance
enlarged. How far two of them are apart says how differently everything lies, at the price of a small product.
"""

from jaxtyping import Float
from torch import Tensor, nn

from ..config import RecurrentConfig

COMPONENTS = 256


class GoalHeads(nn.Module):
    """Two heads: off a state, and off a frame's embedding, from which rewards are read, too.

    Args:
        outputs: of the second head; the first of them are the components.
    """

    def __init__(self, config: RecurrentConfig, outputs: int):
        super().__init__()
        hidden = config.head_width
        self.seen = nn.Sequential(nn.Linear(config.embedding, hidden), nn.SiLU(), nn.Linear(hidden, outputs))
        self.components = nn.Sequential(nn.Linear(config.width, hidden), nn.SiLU(), nn.Linear(hidden, COMPONENTS))

    def of_frames(self, embedded: Float[Tensor, "b e"]) -> Float[Tensor, "b p"]:
        return self.seen(embedded)[:, :COMPONENTS]
