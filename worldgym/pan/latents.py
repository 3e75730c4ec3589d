"""What Wan was trained with, frozen: its video autoencoder and its text encoder."""

import torch
from diffusers import AutoencoderKLWan
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from transformers import AutoTokenizer, PreTrainedTokenizerBase, UMT5EncoderModel

from ..model.pixels import to_float, to_uint8


class WanLatents(nn.Module):
    """Videos and sentences as Wan's transformer knows them. Make one with `load`."""

    def __init__(
        self, vae: AutoencoderKLWan, text: UMT5EncoderModel, words: PreTrainedTokenizerBase, length: int = 512
    ):
        super().__init__()
        self.vae, self.text = vae.requires_grad_(False).eval(), text.requires_grad_(False).eval()
        self.words, self.length = words, length

    @classmethod
    def load(cls, name: str, dtype: torch.dtype = torch.bfloat16) -> "WanLatents":
        """From a pipeline in diffusers' format, by hub name or folder; the autoencoder stays in float32."""
        return cls(
            AutoencoderKLWan.from_pretrained(name, subfolder="vae", torch_dtype=torch.float32),
            UMT5EncoderModel.from_pretrained(name, subfolder="text_encoder", dtype=dtype),
            AutoTokenizer.from_pretrained(name, subfolder="tokenizer"),
        )

    @property
    def stride(self) -> int:
        """Frames of a latent frame, but for a video's first, which has one."""
        return self.vae.config.scale_factor_temporal

    @torch.no_grad()
    def encode(self, videos: UInt8[Tensor, "b t h w c"]) -> Float[Tensor, "b k f y x"]:
        """Normalised latents; t is 1 more than a multiple of the stride.

        The most likely latent and not a draw: then a clip's windows fit together.
        """
        if (videos.shape[1] - 1) % self.stride:
            raise ValueError(
                f"a video has {videos.shape[1]} frames; Wan takes one more than a multiple of {self.stride}"
            )
        images = to_float(videos.flatten(0, 1)).unflatten(0, videos.shape[:2]).transpose(1, 2)
        latents = self.vae.encode(images.to(self.vae.dtype)).latent_dist.mode()
        mean, spread = self._scale(latents)
        return (latents - mean) / spread

    @torch.no_grad()
    def decode(
        self, latents: Float[Tensor, "b k f y x"], before: Float[Tensor, "b k e y x"]
    ) -> UInt8[Tensor, "b t h w c"]:
        """Pixels of latent frames, `stride` pictures each.

        Args:
            before: latent frames just before these. The autoencoder is causal and looks back some frames.
        """
        both = torch.cat([before, latents], 2)
        mean, spread = self._scale(both)
        images = self.vae.decode((both * spread + mean).to(self.vae.dtype)).sample.transpose(1, 2)
        images = images[:, -latents.shape[2] * self.stride :]
        return to_uint8(images.flatten(0, 1)).unflatten(0, images.shape[:2])

    @torch.no_grad()
    def read(self, sentences: list[str]) -> Float[Tensor, "b l d"]:
        """Sentences as Wan attends to them: padded to its length, and nothing where nothing is said."""
        asked = self.words(
            sentences, padding="max_length", max_length=self.length, truncation=True, return_tensors="pt"
        ).to(self.text.device)
        hidden = self.text(asked.input_ids, asked.attention_mask).last_hidden_state
        return hidden.float() * asked.attention_mask[..., None]

    def _scale(self, like: Tensor) -> tuple[Tensor, Tensor]:
        config = self.vae.config
        mean, spread = (
            like.new_tensor(part).view(1, -1, 1, 1, 1) for part in (config.latents_mean, config.latents_std)
        )
        return mean, spread
