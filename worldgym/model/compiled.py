"""A step of a few dreams, compiled by OpenVINO: the same arithmetic without the calls between.

One dream's step is a thousand small operations, and most of its time goes into calling them. OpenVINO
(`pip install "worldgym[fast]"`) takes the whole step as one call, in float32. From sixteen dreams on it is arithmetic
that takes time, and nothing is gained.
"""

import warnings

import torch
from torch import Tensor, nn

from ..config import PICTURED
from ..errors import UserError
from .backbone import attention
from .cache import KVCache
from .dynamics import Dynamics
from .outcome_heads import OutcomeVotes
from .pixels import to_uint8
from .tokenizer import Tokenizer


class CompiledStep:
    """The likeliest next frame of a fixed number of dreams, and its picture.

    Raises:
        ImportError: OpenVINO is not installed.
        ValueError: the world is in PAN's layout, whose queries need a mask that is not compiled.
        UserError: OpenVINO cannot compile for this processor.
    """

    def __init__(self, dynamics: Dynamics, tokenizer: Tokenizer, dreams: int):
        try:
            import openvino
        except ImportError:
            raise ImportError('compiled dreams need OpenVINO: pip install "worldgym[fast]"') from None
        config, layout, grid = dynamics.config, dynamics.layout, tokenizer.config.grid
        if layout.queries:
            raise ValueError("a world whose dynamics predict by 'queries' cannot be compiled; 'in_place' can")
        width, latent = tokenizer.config.width, tokenizer.config.latent_channels
        past = torch.zeros(config.layers, dreams, config.kv_heads, layout.cells, config.width // config.heads)
        fused = torch.zeros(dreams, width, grid, grid)
        told = torch.zeros(dreams, config.width)
        inputs = [told, fused, torch.zeros(dreams, latent, grid, grid), fused, told, past, past, torch.zeros(1).long()]
        if config.memory > 1:
            inputs.append(fused)
        if config.from_state:
            inputs.append(torch.zeros(dreams, PICTURED, grid, grid))
        self._kept = layout.kept
        settings = {
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "PERFORMANCE_HINT": "LATENCY",
        }
        core = openvino.Core()

        def compiled(module: nn.Module, examples: list[Tensor]):
            with warnings.catch_warnings(), torch.no_grad():
                warnings.simplefilter("ignore")  # shapes are constants here, which is what tracing warns of
                traced = torch.jit.trace(module, tuple(examples), check_trace=False)
            shapes = [
                [-1 if example is past and at == 3 else n for at, n in enumerate(example.shape)] for example in examples
            ]
            model = openvino.convert_model(traced, example_input=tuple(examples), input=shapes)
            try:
                return core.compile_model(model, "CPU", settings).create_infer_request()
            except RuntimeError as error:
                raise UserError(
                    "OpenVINO cannot compile this world for this processor, which probably lacks AVX2; dream without "
                    "compiling (compiled=False)"
                ) from error

        self._step = compiled(_Step(dynamics, tokenizer), inputs)
        self._decode = compiled(_Decode(tokenizer), [fused])

    def step(
        self,
        cache: KVCache,
        when: Tensor,
        action: Tensor,
        fused: Tensor,
        latent: Tensor,
        context: Tensor,
        instruction: Tensor,
        motion: Tensor | None,
        foreseen: Tensor | None,
    ) -> tuple[Tensor, Tensor, OutcomeVotes, Tensor]:
        """Latents, fused maps, judgements and entropies of the next frames; the cache grows by one step.

        Args:
            when: long [1], the step that all of them are at.
        """
        keys, values = cache.seen()
        given = [action, fused, latent, context, instruction, keys, values, when]
        given += [part for part in (motion, foreseen) if part is not None]
        found = self._step.infer([part.contiguous().numpy() for part in given], share_inputs=True)
        latent, fused, entropy, reward, success, terminated, keys, values = (
            torch.from_numpy(found[index]) for index in range(8)
        )
        cache.append(keys, values, self._kept)
        return latent, fused, OutcomeVotes(reward, success, terminated), entropy

    def decode(self, fused: Tensor) -> Tensor:
        """uint8 [b, h, w, c]."""
        return to_uint8(torch.from_numpy(self._decode.infer([fused.numpy()], share_inputs=True)[0]))


class _Step(nn.Module):
    """`Dynamics.hidden_state` and what follows, with the past as an argument instead of a cache."""

    def __init__(self, dynamics: Dynamics, tokenizer: Tokenizer):
        super().__init__()
        self.dynamics, self.tokenizer = dynamics, tokenizer

    def forward(self, action, fused, latent, context, instruction, keys, values, when, *conditions):
        dynamics, added = self.dynamics, []
        motion = conditions[0] if dynamics.config.memory > 1 else None
        foreseen = conditions[-1] if dynamics.config.from_state else None

        def attend(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            added.append((key, value))
            return attention(query, torch.cat([keys[layer], key], 2), torch.cat([values[layer], value], 2), None)

        tokens = dynamics.step_tokens(fused, action, motion)
        positions = dynamics.layout.step_positions(when[:, None])
        hidden = dynamics.backbone.model(tokens, positions, attend)[:, dynamics.layout.output]
        latent, after, moved, entropy = dynamics.next_frame(
            self.tokenizer, hidden, fused, latent, context, action, motion, foreseen
        )
        votes = dynamics.outcome_heads.score(after, moved, instruction)
        keys, values = (torch.stack(parts) for parts in zip(*added, strict=True))
        return latent, after, entropy, *votes, keys, values


class _Decode(nn.Module):
    def __init__(self, tokenizer: Tokenizer):
        super().__init__()
        self.tokenizer = tokenizer

    def forward(self, fused: Tensor) -> Tensor:
        return self.tokenizer.decode(fused)
