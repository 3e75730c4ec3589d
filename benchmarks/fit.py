"""How the benchmarks train models of their own."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from tqdm import tqdm

from worldgym.train.loop import schedule


def fit(
    learned: Sequence[nn.Parameter], loss: Callable[[int], Tensor], steps: int, rate: float, title: str,
    warm_up: int = 200, betas: tuple[float, float] = (0.9, 0.999), decay: float = 0.01, clip: float = 1.0,
) -> list[float]:  # fmt: skip
    """Minimise `loss(step)` by AdamW in bfloat16 on the CPU, as `worldgym train` schedules it; its values in order.

    Args:
        rate: at its peak.
        clip: the most that the norm of the gradients may be.
    """
    optimizer, values = torch.optim.AdamW(learned, rate, betas=betas, weight_decay=decay), []
    for step in (progress := tqdm(range(steps), desc=title, unit="step", mininterval=5)):
        for group in optimizer.param_groups:
            group["lr"] = rate * schedule(step, steps, warm_up)
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16):
            total = loss(step)
        total.backward()
        nn.utils.clip_grad_norm_(learned, clip)
        optimizer.step()
        values.append(total.item())
        if step % 20 == 0:
            progress.set_postfix(loss=f"{values[-1]:.4f}")
    return values
