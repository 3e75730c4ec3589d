"""Do sentences in other words do what they mean, and are those that mean nothing left alone?

    python benchmarks/wordings.py --json benchmarks/results/wordings.json

`wordings.json` was written by somebody who had seen neither reader nor lexicon, and both were made without it. What the
first look at it said is in docs/decisions.md.

    read        share of the wordings whose phrase the reader names (wrong: it names another one)
    obeyed      directional pushes, dreamed from held-out starts: of those in which the block truly goes the named way
                when the phrase is carried out in MuJoCo, the share in which it does in the dream. A wording that is not
                read obeys nothing
    left alone  negations, impossible and meaningless ones: the dream says so and no object moves by 0.1, which is what
                counts as moving wherever sentences are judged
    rewards     imagined eight steps ahead for instructions in other words, against MuJoCo's for what they mean
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import tyro
from section import Results, Section, estimate, made_by, markdown

import worldgym  # noqa: F401  registers the dreams
from worldgym.envs_real.tabletop.cases import ENOUGH, HELD_OUT, held_out_episodes, sentence_cases
from worldgym.envs_real.tabletop.vision import locate
from worldgym.evaluate.fidelity import went_along
from worldgym.metrics import bootstrap, correlation
from worldgym.reader import reader_of
from worldgym.results import current_commit, write_results
from worldgym.world import WorldModel

FILE = Path(__file__).with_name("wordings.json")
FORMS = (
    "{0}.", "{0}!", "Please {1}.", "{1}, please", "Could you {1}?", "{2}", "Now {1}, thank you.", "I want you to {1}.",
)  # fmt: skip
"""Of a phrase: {0} with a capital, {1} as it is, {2} in capitals."""
AHEAD = 8


@dataclass(frozen=True)
class Wordings:
    """Judge the reader and what is dreamed by it."""

    repeats: int = 16
    """Starts for each directional push."""
    episodes: int = 48
    """That rewards are compared in."""
    seed: int = 0
    json: Path | None = None
    """Write the figures here."""


def main(config: Wordings) -> dict[str, Any]:
    commit, given = current_commit(), json.loads(FILE.read_text(encoding="utf-8"))
    world = WorldModel.load("tabletop", "cpu")
    phrases, paraphrases = world.config.phrases, given["paraphrases"]
    polite = {form.format(phrase.capitalize(), phrase, phrase.upper()): phrase for phrase in phrases for form in FORMS}
    metrics = {
        "read": {
            "phrases": shares(phrases, {phrase: (phrase,) for phrase in phrases}),
            "polite": shares(phrases, {said: (phrase,) for said, phrase in polite.items()}),
            "paraphrases": shares(phrases, {said: (phrase,) for said, phrase in paraphrases.items()}),
            "two_steps": shares(phrases, {said: tuple(meant) for said, meant in given["two_steps"].items()}),
        },
        "obeyed": obeyed(config, {"phrases": {p: p for p in phrases}, "polite": polite, "paraphrases": paraphrases}),
        "left_alone": {kind: left_alone(given[kind], config.seed) for kind in ("negations", "impossible", "nonsense")},
        "rewards": rewards(config, world, paraphrases),
    }
    print(json.dumps(metrics, indent=1))
    if config.json:
        write_results(config.json, config.seed, metrics, commit)
    return metrics


def shares(phrases: tuple[str, ...], meant: dict[str, tuple[str, ...]]) -> dict[str, Any]:
    """How many are read as they are meant, and how many as something else."""
    read = [reader_of(phrases).read(said).phrases for said in meant]
    right = np.array([found == wanted for found, wanted in zip(read, meant.values(), strict=True)], float)
    wrong = [bool(found) and found != wanted for found, wanted in zip(read, meant.values(), strict=True)]
    return {
        "count": len(right),
        "share": right.mean(),
        "interval": bootstrap(np.mean, right),
        "wrong": int(np.sum(wrong)),
    }


def obeyed(config: Wordings, kinds: dict[str, dict[str, str]]) -> dict[str, Any]:
    """Directional pushes, said in each of the ways that there are for them, in turn."""
    cases = sentence_cases(config.repeats, config.seed)
    result = {}
    for kind, meant in kinds.items():
        ways = {phrase: [said for said, wanted in meant.items() if wanted == phrase] for phrase in set(cases.sentences)}
        rows = np.array([row for row, phrase in enumerate(cases.sentences) if ways[phrase]])
        said = [ways[cases.sentences[row]][row // 8 % len(ways[cases.sentences[row]])] for row in rows]
        before, after, _ = dreamed(cases.frames[rows], said, config.seed)
        moved = went_along(before, after, cases.objects[rows], cases.directions[rows]) > ENOUGH
        counted = moved[cases.moves[rows] > ENOUGH].astype(float)
        result[kind] = {"count": len(counted), "share": counted.mean(), "interval": bootstrap(np.mean, counted)}
    return result


def left_alone(sentences: list[str], seed: int) -> dict[str, Any]:
    """Of each sentence a dream from another start."""
    cases = sentence_cases(-(-len(sentences) // 8), seed + 1)
    before, after, ok = dreamed(cases.frames[: len(sentences)], sentences, seed)
    still = np.linalg.norm(after - before, axis=-1).max(-1) < ENOUGH
    alone = (still & ~ok).astype(float)
    return {"count": len(alone), "share": alone.mean(), "interval": bootstrap(np.mean, alone)}


def dreamed(frames: np.ndarray, sentences: list[str], seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Places of all objects before and after each sentence, and whether it was understood."""
    dreams = gym.make_vec("worldgym/Tabletop-v0", len(frames), action_mode="text")
    dreams.reset(seed=seed, options={"frames": frames[:, None]})
    after, _, _, _, info = dreams.step(tuple(sentences))
    dreams.close()
    return locate(frames), locate(after), info["action_ok"]


def rewards(config: Wordings, world: WorldModel, paraphrases: dict[str, str]) -> dict[str, Any]:
    """Of those paraphrases whose phrase is an instruction and that are read."""
    known = world.config.instructions
    meant = {said: phrase for said, phrase in paraphrases.items() if phrase in known}
    read = {said: phrase for said, phrase in meant.items() if reader_of(known).read(said).phrase}
    segment, _ = held_out_episodes(config.episodes, AHEAD, HELD_OUT + config.seed)
    foreseen, true = [], []
    for said, phrase in read.items():
        state = world.start(segment.frames[:, :1], instruction=said)
        for when in range(AHEAD):
            state, outcome = world.step(state, segment.actions[:, when], drawn=False)
        foreseen.append(outcome.reward.numpy())
        true.append(segment.rewards[:, AHEAD - 1, known.index(phrase)])
    columns = np.stack(foreseen, 1), np.stack(true, 1)
    return {
        "asked": len(meant),
        "read": len(read),
        "correlation": correlation(*(column.ravel() for column in columns)),
        "interval": bootstrap(lambda *drawn: correlation(*(column.ravel() for column in drawn)), *columns),
    }


def _body(results: Results) -> list[str]:
    metrics = results["metrics"]
    kinds = {
        "phrases": "the world's own phrases", "polite": "with other case, punctuation and politeness",
        "paraphrases": "in other words", "two_steps": "two things in one sentence",
    }  # fmt: skip
    rows = []
    for kind, name in kinds.items():
        read, done = metrics["read"][kind], metrics["obeyed"].get(kind)
        shown = estimate(done["share"], done["interval"], ".0%") if done else "-"
        rows.append(
            [name, str(read["count"]), estimate(read["share"], read["interval"], ".0%"), str(read["wrong"]), shown]
        )
    alone = [
        [name, str(one["count"]), estimate(one["share"], one["interval"], ".0%")]
        for name, one in metrics["left_alone"].items()
    ]
    told = metrics["rewards"]
    return [
        "Sentences by a writer who had seen neither reader nor lexicon (`benchmarks/wordings.json`). Read: as what it "
        "means. Obeyed: directional pushes, of those in which the block goes the named way in MuJoCo when the phrase "
        "is carried out; drawn dreams from held-out starts.",
        "",
        *markdown(["", "sentences", "read", "read as something else", "obeyed"], rows),
        "",
        "Left alone: the dream says that it does not understand, and nothing moves.",
        "",
        *markdown(["", "sentences", "left alone"], alone),
        "",
        f"Instructions in other words: {told['read']} of {told['asked']} are read; rewards imagined {AHEAD} steps "
        f"ahead for those correlate with MuJoCo's by {estimate(told['correlation'], told['interval'], '.3f')}. The "
        "others are refused, with the reason.",
        "",
        made_by(results),
    ]


SECTION = Section(
    "Do other words do?", ("wordings",), "python benchmarks/wordings.py --json benchmarks/results/wordings.json", _body
)


if __name__ == "__main__":
    main(tyro.cli(Wordings))
