"""PAN's backbone: a pretrained Qwen2.5-VL that holds a conversation with the world (PAN 3.1-3.2).

One round a step: the user shows the state and says the action, the assistant's turn is 256 learned queries, and what
comes out at them is the next state. The language model and its vision tower stay frozen; the queries are trained, and
with them what looks at their outputs.

    <|im_start|>user
    <|vision_start|>[predicted state][what was seen]<|vision_end|>[action]<|im_end|>
    <|im_start|>assistant
    [256 queries]<|im_end|>
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn
from transformers import (
    AutoTokenizer,
    PreTrainedTokenizerBase,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLModel,
)

from ..checkpoint import load_tensors, write_tensors
from ..config import ConversationConfig

TEXT, SEEN, PREDICTED, QUERY, PADDING = range(5)
"""What a token of the conversation is."""
MEAN, SPREAD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
"""Of pixels in [0, 1], as the vision tower was trained."""
ADAPTER = "default"
"""Peft's name for the adapters."""
YES, NO = ("Yes", "yes"), ("No", "no")


class PanBackbone(nn.Module):
    """`Qwen2_5_VLModel` that predicts states. Make one with `load`.

    Args:
        head: the language model's own, with which it answers questions; without one it answers none.
    """

    def __init__(
        self,
        vlm: Qwen2_5_VLModel,
        text: PreTrainedTokenizerBase,
        config: ConversationConfig,
        head: nn.Module | None = None,
    ):
        super().__init__()
        vision = vlm.config.vision_config
        cell = vision.patch_size * vision.spatial_merge_size
        if config.height % cell or config.width % cell or config.frames % vision.temporal_patch_size:
            raise ValueError(
                f"{config.frames} frames of {config.height} x {config.width} pixels do not divide into patches of "
                f"{vision.temporal_patch_size} frames and {cell} x {cell} pixels"
            )
        self.config, self.text = config, text
        self.vlm = vlm.requires_grad_(False)
        self.head = head and head.requires_grad_(False)
        self.queries = nn.Parameter(torch.randn(config.queries, self.width) * 0.02)
        if config.lora_rank:
            _add_lora(vlm, config.lora_rank)

    @classmethod
    def load(
        cls,
        name: str,
        config: ConversationConfig | None = None,
        trained: Path | None = None,
        dtype: torch.dtype = torch.float32,
        speaks: bool = False,
    ) -> "PanBackbone":
        """On a Qwen2.5-VL by hub name or folder.

        Args:
            config: that of `trained` by default.
            trained: folder that `save` wrote; fresh queries otherwise.
            speaks: keep the language model's head, so that it can answer (`agrees`).
        """
        found = None if trained is None else json.loads((trained / "backbone.json").read_text(encoding="utf-8"))
        config = config or ConversationConfig(**(found or {}))
        if found is not None and found != asdict(config):
            raise ValueError(f"{trained} was trained as {found}; this is {asdict(config)}")
        vlm, head = _speaking(name, dtype) if speaks else (Qwen2_5_VLModel.from_pretrained(name, dtype=dtype), None)
        backbone = cls(vlm, AutoTokenizer.from_pretrained(name), config, head)
        if trained is not None:
            weights, wanted = load_tensors(trained / "backbone.safetensors"), backbone.trained()
            if {k: v.shape for k, v in weights.items()} != {k: v.shape for k, v in wanted.items()}:
                raise ValueError(f"the weights in {trained} do not fit {name}")
            backbone.load_state_dict(weights, strict=False)
        return backbone

    def save(self, folder: Path, weights: dict[str, Tensor] | None = None) -> None:
        """What was trained, without the frozen model.

        Args:
            weights: taken instead of its own, which may be shards.
        """
        folder.mkdir(parents=True, exist_ok=True)
        mine = self.trained()
        saved = mine if weights is None else {name: weights[name] for name in mine}
        write_tensors(folder / "backbone.safetensors", saved)
        (folder / "backbone.json").write_text(json.dumps(asdict(self.config), indent=1), encoding="utf-8")

    def trained(self) -> dict[str, Tensor]:
        """The parameters that training moves: queries and, if there are any, adapters."""
        return {name: part.detach() for name, part in self.named_parameters() if part.requires_grad}

    @property
    def width(self) -> int:
        """Of a state's tokens."""
        return self.vlm.config.text_config.hidden_size

    @torch.no_grad()
    def see(self, videos: UInt8[Tensor, "b t h w c"]) -> Float[Tensor, "b m d"]:
        """What the vision tower makes of videos: the state as it was seen."""
        when = torch.linspace(0, videos.shape[1] - 1, self.config.frames).round().long()
        grid = self._grid(self.config.frames).to(videos.device).expand(len(videos), -1)
        seen = self.vlm.get_video_features(self._patches(videos[:, when]), grid).pooler_output
        return torch.stack(list(seen))

    @torch.no_grad()
    def agrees(self, frames: UInt8[Tensor, "b h w c"], question: str) -> Float[Tensor, " b"]:
        """Probability that the language model answers yes and not no, shown each picture.

        It answers as it was pretrained: adapters, if there are any, are left out.
        """
        if self.head is None:
            raise ValueError("this backbone was loaded without the language model's head; load it with speaks=True")
        vision, image = self.vlm.config.vision_config, self.vlm.config.image_token_id
        grid = self._grid(vision.temporal_patch_size)
        count = int(grid.prod()) // vision.spatial_merge_size**2
        before, after = (
            self.text.encode(part, add_special_tokens=False)
            for part in (
                "<|im_start|>user\n<|vision_start|>",
                f"<|vision_end|>{question}<|im_end|>\n<|im_start|>assistant\n",
            )
        )
        ids = torch.tensor([before + [image] * count + after], device=frames.device).expand(len(frames), -1)
        still = frames[:, None].expand(-1, vision.temporal_patch_size, -1, -1, -1)
        with _without_lora(self.vlm):
            hidden = self.vlm(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                pixel_values=self._patches(still),
                image_grid_thw=grid.to(frames.device).expand(len(frames), -1),
                mm_token_type_ids=(ids == image).int(),  # 1 says that it is an image
                use_cache=False,
            ).last_hidden_state
        logits = self.head(hidden[:, -1]).float()
        yes, no = (
            logits[:, [self.text.encode(word, add_special_tokens=False)[0] for word in words]].logsumexp(1)
            for words in (YES, NO)
        )
        return torch.sigmoid(yes - no)

    def forward(
        self,
        seen: Sequence[Float[Tensor, "b m d"]],
        actions: Sequence[Sequence[str]],
        predicted: Sequence[Float[Tensor, "b q d"] | None],
    ) -> Float[Tensor, "b r q d"]:
        """The state after each round.

        Args:
            seen: of each round, what `see` says of the newest chunk.
            actions: [b][r].
            predicted: of each round, what this model said of that chunk: the enhanced state has both. None where
                nothing was predicted: at the first frame, and throughout training (PAN is taught on true states).
        """
        rounds = len(seen)
        if rounds > self.config.rounds or any(len(said) != rounds for said in actions) or len(predicted) != rounds:
            raise ValueError(
                f"got {rounds} states and {sorted({len(said) for said in actions})} actions; a conversation has one "
                f"action a state and at most {self.config.rounds} rounds"
            )
        device = self.queries.device
        rows = [self._write(said, seen[0].shape[1], [part is not None for part in predicted]) for said in actions]
        longest = max(len(row[0]) for row in rows)
        ids, kinds, turns = (
            torch.tensor([row[i] + [fill] * (longest - len(row[i])) for row in rows], device=device)
            for i, fill in ((0, 0), (1, PADDING), (2, -1))
        )
        tokens = self.vlm.get_input_embeddings()(ids)
        tokens = tokens.masked_scatter((kinds == SEEN)[..., None], torch.cat(list(seen), 1).to(tokens))
        enhanced = [part for part in predicted if part is not None]
        if enhanced:
            tokens = tokens.masked_scatter((kinds == PREDICTED)[..., None], torch.cat(enhanced, 1).to(tokens))
        asked = self.queries.to(tokens).repeat(len(ids) * rounds, 1)
        tokens = tokens.masked_scatter((kinds == QUERY)[..., None], asked)
        positions, _ = self.vlm.get_rope_index(
            ids,
            (kinds == SEEN).int() * 2,  # 2 says that it is a video
            video_grid_thw=self._grid(self.config.frames).to(device).expand(len(ids) * rounds, -1),
            second_per_grid_ts=[1] * len(ids) * rounds,  # its own default is too short for many short conversations
            attention_mask=(kinds != PADDING).long(),
        )
        hidden = self.vlm.language_model(
            inputs_embeds=tokens,
            attention_mask={"full_attention": _additive(conversation_mask(kinds, turns), tokens.dtype)},
            position_ids=positions,
            use_cache=False,
        ).last_hidden_state
        return hidden[kinds == QUERY].view(len(ids), rounds, self.config.queries, -1)

    def _write(
        self, actions: Sequence[str], seen: int, enhanced: Sequence[bool]
    ) -> tuple[list[int], list[int], list[int]]:
        """A conversation's token ids, kinds and rounds."""
        ids: list[int] = []
        kinds: list[int] = []
        turns: list[int] = []

        def add(new: list[int], kind: int, turn: int) -> None:
            ids.extend(new)
            kinds.extend([kind] * len(new))
            turns.extend([turn] * len(new))

        def say(text: str, turn: int) -> None:
            add(self.text.encode(text, add_special_tokens=False), TEXT, turn)

        video, queries = self.vlm.config.video_token_id, self.config.queries
        for turn, action in enumerate(actions):
            say("<|im_start|>user\n<|vision_start|>", turn)
            add([0] * queries * enhanced[turn], PREDICTED, turn)
            add([video] * seen, SEEN, turn)
            say(f"<|vision_end|>{action}<|im_end|>\n<|im_start|>assistant\n", turn)
            add([0] * queries, QUERY, turn)
            say("<|im_end|>\n", turn)
        return ids, kinds, turns

    def _patches(self, videos: UInt8[Tensor, "b t h w c"]) -> Float[Tensor, "n k"]:
        """Of all frames, as the vision tower takes them, one video after the other."""
        vision, size = self.vlm.config.vision_config, (self.config.height, self.config.width)
        images = videos.flatten(0, 1).permute(0, 3, 1, 2).float() / 255
        if images.shape[2:] != size:
            images = F.interpolate(images, size, mode="bicubic", antialias=True).clamp(0, 1)
        shape = (1, 3, 1, 1)
        images = (images - images.new_tensor(MEAN).view(shape)) / images.new_tensor(SPREAD).view(shape)
        patches = patchify(
            images.unflatten(0, videos.shape[:2]),
            vision.temporal_patch_size, vision.patch_size, vision.spatial_merge_size,
        )  # fmt: skip
        return patches.flatten(0, 1).to(self.queries.dtype)

    def _grid(self, frames: int) -> Int[Tensor, "1 3"]:
        """Patches of so many frames: times, rows, columns."""
        vision, config = self.vlm.config.vision_config, self.config
        return torch.tensor(
            [[
                frames // vision.temporal_patch_size,
                config.height // vision.patch_size,
                config.width // vision.patch_size,
            ]]
        )  # fmt: skip


def conversation_mask(kinds: Int[Tensor, "b n"], turns: Int[Tensor, "b n"]) -> Tensor:
    """Attention mask, bool [b, 1, n, n]: causal, as the language model was trained; but only the same round's queries
    attend to queries. So later rounds see states and actions of the past, and queries do not accumulate."""
    count = kinds.shape[1]
    causal = torch.ones(count, count, dtype=torch.bool, device=kinds.device).tril()
    query = kinds == QUERY
    own = query[:, :, None] & query[:, None] & (turns[:, :, None] == turns[:, None])
    shown = (kinds != PADDING)[:, None] | torch.eye(count, dtype=torch.bool, device=kinds.device)
    return (causal & shown & (~query[:, None] | own))[:, None]


def patchify(images: Float[Tensor, "b t c h w"], time: int, patch: int, merge: int) -> Float[Tensor, "b n k"]:
    """Patches in the order of the vision tower: those that it merges into one token stand together."""
    batch, frames, channels, height, width = images.shape
    rows, columns = height // (merge * patch), width // (merge * patch)
    parts = images.reshape(batch, frames // time, time, channels, rows, merge, patch, columns, merge, patch)
    parts = parts.permute(0, 1, 4, 7, 5, 8, 3, 2, 6, 9)
    return parts.reshape(batch, -1, channels * time * patch * patch)


def _additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(~mask, torch.finfo(dtype).min)


def _speaking(name: str, dtype: torch.dtype) -> tuple[Qwen2_5_VLModel, nn.Module]:
    """The model and its head, loaded once."""
    loaded: Any = Qwen2_5_VLForConditionalGeneration.from_pretrained(name, dtype=dtype, output_loading_info=True)
    whole, found = loaded
    if missing := sorted(found["missing_keys"]):
        raise ValueError(f"{name} holds no whole Qwen2.5-VL: it lacks {len(missing)} weights, such as {missing[0]}")
    return whole.model, whole.lm_head


@contextmanager
def _without_lora(vlm: nn.Module) -> Iterator[None]:
    adapted = [layer for layer in vlm.modules() if hasattr(layer, "set_scale")]
    for layer in adapted:
        layer.set_scale(ADAPTER, 0.0)
    try:
        yield
    finally:
        for layer in adapted:
            layer.set_scale(ADAPTER, 1.0)


def _add_lora(vlm: Qwen2_5_VLModel, rank: int) -> None:
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise ImportError('lora_rank needs peft: pip install "worldgym[lora]"') from None
    attention = ["q_proj", "k_proj", "v_proj", "o_proj"]
    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=rank, target_modules=attention), vlm.language_model, ADAPTER)
