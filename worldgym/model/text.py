"""Sentences as token ids: a byte-level BPE trained on the world's phrases, so that any string is accepted."""

from pathlib import Path

import torch
from tokenizers import Tokenizer as BPE
from tokenizers import decoders, models, pre_tokenizers, trainers
from torch import Tensor

MAX_TOKENS = 48


class PhraseTokenizer:
    """Wraps a `tokenizers` BPE; its JSON travels in the checkpoint."""

    def __init__(self, bpe: BPE):
        self.bpe = bpe

    @classmethod
    def train(cls, phrases: tuple[str, ...], vocabulary: int) -> "PhraseTokenizer":
        bpe = BPE(models.BPE())
        bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        bpe.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocabulary,
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            special_tokens=["<s>"],
            show_progress=False,
        )
        bpe.train_from_iterator(phrases, trainer)
        return cls(bpe)

    @classmethod
    def from_json(cls, text: str) -> "PhraseTokenizer":
        return cls(BPE.from_str(text))

    @classmethod
    def load(cls, path: Path) -> "PhraseTokenizer":
        if not path.exists():
            raise FileNotFoundError(f"{path} is missing from the checkpoint")
        try:
            return cls.from_json(path.read_text(encoding="utf-8"))
        except Exception as error:  # what tokenizers raises for bad JSON has no narrower type
            raise ValueError(f"{path} is damaged: {error}") from None

    def to_json(self) -> str:
        return self.bpe.to_str()

    def encode(self, phrases: list[str]) -> tuple[Tensor, Tensor]:
        """(ids long [p, l], lengths long [p]); each begins with <s>, what exceeds 48 tokens is cut."""
        rows = [[0, *encoding.ids[: MAX_TOKENS - 1]] for encoding in self.bpe.encode_batch(list(phrases))]
        lengths = torch.tensor([len(row) for row in rows])
        ids = torch.zeros(len(rows), int(lengths.max()), dtype=torch.long)
        for index, row in enumerate(rows):
            ids[index, : len(row)] = torch.tensor(row)
        return ids, lengths
