"""Print the README's tables from benchmarks/results; `--write` puts them into the README, between its markers."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- results: benchmarks/table.py --write -->", "<!-- /results -->"


def load(name: str) -> dict:
    return json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text(encoding="utf-8"))


def tables() -> str:
    """The tables as markdown."""
    parts = [dream_table(load("tabletop_dream")), plan_table(), learn_table(), speed_table(load("bench")), more()]
    return "\n\n".join("\n".join(part) for part in parts)


def dream_table(results: dict) -> list[str]:
    m, machine = results["metrics"], results["hardware"]
    said = m["sentences"]
    lines = [
        f"**Is the dream true?** {m['episodes']} held-out episodes of MuJoCo, dreamed open loop from one real frame; "
        "position errors are medians, in block widths.",
        "",
        "| steps dreamed | " + " | ".join(str(step) for step in STEPS) + " |",
        "|---|" + "---|" * len(STEPS),
        row("PSNR, dB", [f"{m['psnr'][s - 1]:.1f}" for s in STEPS]),
        row("... above repeating the first frame", [f"{m['psnr_gain'][s - 1]:+.1f}" for s in STEPS]),
        row("pusher's position error", [f"{m['pusher_error_blocks'][s - 1]:.2f}" for s in STEPS]),
        row("moved blocks' position error", [blocks(m["moved_block_error_blocks"][s - 1]) for s in STEPS]),
        row("... had they stayed", [blocks(m["moved_block_error_blocks_if_still"][s - 1]) for s in STEPS]),
        row("reward, correlation with MuJoCo's", [f"{m['reward_correlation'][s - 1]:.3f}" for s in STEPS]),
        "",
        f"Tokenizer reconstruction {m['reconstruction_psnr']:.1f} dB; reward correlation over all steps "
        f"{m['reward_correlation_all_steps']:.3f}; uncertainty against true error, rank correlation: token entropy "
        f"{m['uncertainty_rank_correlation']['token_entropy']:.2f}.",
        f'A sentence ("push the red block left") moves the named block the commanded way in {said["obeyed"]} of the '
        f"{said['cases_where_it_really_moved']} held-out cases where it does in MuJoCo ({percent(said['rate'])}, "
        f"95% interval {interval(said['interval'])}).",
        "",
        f"`{results['command']}`, commit {results['commit'][:10]}, {machine['cores']} cores of {machine['cpu']}.",
    ]
    return lines


LEARN_HEAD = ["agent", "learned in", "steps", "of them real", "seeds", "success", "return"]


def learn_table() -> list[str]:
    rows = []
    for agent, where, steps, label in (
        ("sac", "dream", 8000, "the dream alone"), ("sac", "mujoco", 8000, "MuJoCo"), ("sac", "mujoco", 3000, "MuJoCo"),
        ("mbpo", "mujoco", 2500, "MuJoCo, imagining between"),
    ):  # fmt: skip
        rows.append(learn_row(agent.upper(), label, learned("tabletop", agent, where, steps)))
    return [
        '**Can an agent learn in it?** Stable-Baselines3 on "reach the centre", acting on latents, judged in MuJoCo '
        "over 50 seeded episodes without exploration; means over the seeds, and their range.",
        "",
        *markdown(LEARN_HEAD, rows),
        "",
        "All of it: `benchmarks/agents.sh`.",
    ]


def learned(world: str, agent: str, where: str, steps: int) -> list[dict]:
    """The metrics of every seed of a run."""
    found = sorted((ROOT / "benchmarks" / "results").glob(f"{world}_learn_{agent}_{where}_seed*_{steps}.json"))
    return [load(path.stem)["metrics"] for path in found]


SAC_STEPS = {"hopper": 10_000, "reacher": 30_000}
"""Of Stable-Baselines3's SAC in the dreams of Gymnasium's worlds, and in MuJoCo."""


def sac_returns(world: str, steps: int) -> dict[str, np.ndarray]:
    """What SAC returns in MuJoCo, by where it learned, and random torques ("nothing"): by episode, means over seeds."""
    runs = {where: learned(world, "sac", where, steps) for where in ("dream", "mujoco")}
    runs["nothing"] = [load(f"{world}_plan_random")["metrics"]]
    return {
        where: np.mean([[episode["return"] for episode in m["by_episode"]] for m in seeds], 0)
        for where, seeds in runs.items()
    }


def learned_alone(world: str) -> str:
    """A line on agents that learned in a dream alone, without its end."""
    returns = sac_returns(world, SAC_STEPS[world])
    dream, truth, nothing = (returns[where].mean() for where in ("dream", "mujoco", "nothing"))
    return (
        f"- SAC that learned in the {world.capitalize()}'s dream alone returns {dream:.1f} in MuJoCo after "
        f"{SAC_STEPS[world]:,} steps, none of them real, {truth:.1f} after as many in MuJoCo, random torques "
        f"{nothing:.1f}: {percent(share_of_the_way(dream, truth, nothing))} of the way (`benchmarks/{world}.sh`)"
    )


def learn_row(agent: str, where: str, seeds: list[dict]) -> list[str]:
    """Cells below LEARN_HEAD, of the metrics of the same run with several seeds."""
    return [
        agent, where, str(seeds[0]["steps"]), str(seeds[0]["real_steps"]), str(len(seeds)),
        over_seeds([100 * m["success_rate"] for m in seeds], 0) + "%", over_seeds([m["mean_return"] for m in seeds], 2),
    ]  # fmt: skip


def over_seeds(values: list[float | None], digits: int) -> str:
    """The mean and the range over seeds; "lost" where one is infinite."""
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return "lost"
    mean = f"{sum(known) / len(known):.{digits}f}"
    return mean if len(known) == 1 else f"{mean} ({min(known):.{digits}f} to {max(known):.{digits}f})"


def plan_table() -> list[str]:
    lines = [
        "**Can it be planned in?** Success in MuJoCo of the same CEM with the same budget, 50 seeded episodes each, "
        "95% intervals.",
        "",
        "| planned on | reach | push to a place | seconds a decision |",
        "|---|---|---|---|",
    ]
    for name, label in (("dream", "the dream"), ("mujoco", "true physics"), ("random", "nothing: random actions")):
        cells = []
        for task in ("reach", "push"):
            m = load(f"tabletop_plan_{task}_{name}")["metrics"]
            cells.append(f"{percent(m['success_rate'])} ({interval(m['success_interval'])})")
        seconds = load(f"tabletop_plan_push_{name}")["metrics"]["seconds_per_decision"]
        cells.append("-" if seconds is None else f"{seconds:.2f}")
        lines.append(row(label, cells))
    budget = load("tabletop_plan_push_dream")["metrics"]["budget"]
    lines += [
        "",
        f"Horizon {budget['horizon']}, {budget['samples']} samples, {budget['iterations']} iterations, a decision "
        f"every {budget['replan_every']} steps. All of it: `benchmarks/tabletop.sh`.",
    ]
    return lines


def speed_table(results: dict) -> list[str]:
    m, machine = results["metrics"], results["hardware"]
    sizes = list(m["batches"])

    def rates(name: str) -> list[str]:
        found = [m["batches"][size]["figures"].get(name) for size in sizes]
        return ["-" if figure is None else f"{figure['steps_per_second']:.0f}" for figure in found]

    def ratios(name: str, compiled: bool = False) -> list[str]:
        key = "baseline_seconds_over_ours_compiled" if compiled else "baseline_seconds_over_ours"
        found = [m["batches"][size][key].get(name) for size in sizes]
        return ["-" if ratio is None else f"{ratio:.1f}" for ratio in found]

    age, start = m["age"], m["start_up_seconds"]
    looked = {on: f"{found['samples_x_horizon_per_second']:.0f}" for on, found in m["planning"].items()}
    simulators = ", ".join(f"{id} {m['simulators'][id]['steps_per_second']:.0f}" for id in m["simulators"])
    return [
        "**How fast is it?** Imagined steps a second by the number of dreams, and how many times longer the same step "
        "takes otherwise, with as many parameters and by turns in one run. Compiled: by OpenVINO, "
        "`gym.make(..., compiled=True)`; what it is compared with is plain PyTorch.",
        "",
        "| dreams | " + " | ".join(sizes) + " |",
        "|---|" + "---|" * len(sizes),
        row("with pixels", rates("pixels")),
        row("without", rates("latent")),
        row("compiled, with pixels", rates("pixels_compiled")),
        row("compiled, without", rates("latent_compiled")),
        row("futures of a planner, by the draft", rates("evaluate")),
        row("... token by token", rates("evaluate_thorough")),
        row("times longer: 16 tokens a frame one by one, as iVideoGPT ships", ratios("raster_16_as_shipped")),
        row("... than compiled", ratios("raster_16_as_shipped", True)),
        row("times longer: the same with a kept cache", ratios("raster_16_kept_cache")),
        row("... than compiled", ratios("raster_16_kept_cache", True)),
        row("times longer: all scales through the backbone, as SAMPO", ratios("all_scales_kept")),
        row("... than compiled", ratios("all_scales_kept", True)),
        "",
        f"True simulators with rendering, steps a second: {simulators}. A fork into 256 takes "
        f"{percent2(m['fork']['share'])} of evaluating 10 steps; step {age['old_step']} costs "
        f"{age['old_over_young']:.2f} of step {age['young_step']}; a decision of CEM (64 candidates, 10 steps, "
        f"4 rounds) {m['decision']['p50']:.1f} s, which is {looked['dream']} samples x horizon a second, in MuJoCo "
        f"{looked['mujoco']}; `import worldgym` {start['import_worldgym']:.1f} s, "
        f"`gym.make` in a fresh process {start['gym_make']:.1f} s.",
        "",
        f"`{results['command']}`, commit {results['commit'][:10]}, {machine['cores']} cores of {machine['cpu']}, "
        f"{m['dtype'].removeprefix('torch.')}.",
    ]


def of_each_policy(grid: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The tables of a grid but the nominal one, by the policy that acted on them."""
    found: dict[str, list[dict[str, Any]]] = {}
    for one in grid:
        if one["factor"] != "nominal":
            found.setdefault(one["policy"], []).append(one)
    return found


def points_lost(grid: list[dict[str, Any]]) -> str:
    """By each policy, in words."""
    return "; ".join(elsewhere(policy, tables) for policy, tables in of_each_policy(grid).items())


def elsewhere(policy: str, tables: list[dict[str, Any]]) -> str:
    """What other tables cost."""
    inside = [one for one in tables if one["trained"]]
    dearest = max(inside, key=lambda one: one["cost"])
    unseen = max((one for one in tables if not one["trained"]), key=lambda one: one["cost"])
    if max(dearest["cost"], unseen["cost"]) <= 0:
        return f"{policy} none on any of the {len(tables)}"
    return (
        f"{policy} at most {dearest['cost']:.0f} on the {len(inside)} inside the training ranges "
        f"({dearest['factor']} {dearest['value']}), {unseen['cost']:.0f} on the worst of those held out "
        f"({unseen['factor']} {unseen['value']})"
    )


def more() -> list[str]:
    """A line for each of the other questions."""
    ranking = load("tabletop_transfer_reach_the_centre")["metrics"]["ranking"]
    ends = load("hopper_dream")["metrics"]["ends"]
    planning = load("pan_suite")["metrics"]["planning"]
    ways = {name: way["value"] for name, way in planning["ways"].items()}
    drift = load("tabletop_drift")["metrics"]
    kept = drift["variants"]["every 16 steps"]["objects_kept"][drift["looked_at"].index(drift["at"][-1])]
    tables = load("tabletop_zero_shot")["metrics"]["tables"]
    gain = {name: table["psnr_gain"][7] for name, table in tables.items()}
    known = gain["the training's table"]
    friction = max(known - gain[name] for name in ("friction x 0.4", "friction x 2.5"))
    colours = known - gain["colours: green, blue"]
    late = {where: returned.mean() for where, returned in sac_returns("hopper", 30_000).items()}
    sizes = load("tabletop_scaling")["metrics"]
    base, large = (sizes["variants"][name] for name in ("base", "large"))
    gained = sizes["over_base"]["large"]["gain"][sizes["at"].index(8)]
    reached, pushed = (
        points_lost(load(f"tabletop_transfer_{task}")["metrics"]["zero_shot"])
        for task in ("reach_the_centre", "push_to_the_centre")
    )
    drafted = load("tabletop_drafted")["metrics"]
    better = drafted["drafted_better_by"][15]
    slow, quick = (way["seconds_a_step_of_64"] for way in drafted["ways"].values())
    peer = load("peers")["metrics"]["1"]
    pusher = load("peers")["metrics"]["64"]["worldgym"]["pusher_over_it"]
    shown = load("tabletop_decoders")["metrics"]["dreamed"]
    drawn, fast = (percent(shown[name]["sharpness"][1]) for name in ("diffusion, as bundled", "fast decoder"))
    return [
        "**And further**, in [docs/results.md](docs/results.md):",
        "",
        f'- {len(ranking["policies"])} policies of every quality on "reach the centre": returns in the dream correlate '
        f"with those in MuJoCo by {ranking['return_pearson']:.3f}, their order by {ranking['return_spearman']:.2f} "
        "(`benchmarks/transfer.sh`).",
        f"- Drafted dreams (`drafted=True`), which draw no tokens, are {better:.1f} dB truer after 16 steps and "
        f"{slow / quick:.0f} times as fast (`benchmarks/drafted.py`).",
        f"- Planning in the Reacher's dream goes {percent(planning_share('reacher'))} of the way from random torques "
        "to the same planner on true physics (`benchmarks/reacher.sh`), in the Hopper's "
        f"{percent(planning_share('hopper'))}, though that foresees {percent(ends['foreseen']['rate'])} of held-out "
        f"falls within two steps, {ends['steps']} ahead (`benchmarks/hopper.sh`).",
        f"{learned_alone('hopper')}; after 30,000 steps (one seed) {late['dream']:.0f} and {late['mujoco']:.0f}.",
        f"{learned_alone('reacher')}.",
        f"- On tables that differ in one factor, in points of success lost (`benchmarks/transfer.sh`): {reached}. At "
        f"pushing, of other colours, friction and camera alone: {pushed}.",
        f"- Dynamics of {large['parameters']['dynamics'] / 1e6:.1f} M parameters for "
        f"{base['parameters']['dynamics'] / 1e6:.1f} M gain {gained:.1f} dB after 8 steps at as many steps of a short "
        "training (`benchmarks/scaling.sh`).",
        f"- The nearest peer, simulusion's environment over DIAMOND's denoiser at 64 pixels, makes "
        f"{peer['simulusion']['steps_per_second']:.1f} frames a second for one dream; ours "
        f"{peer['worldgym']['steps_per_second']:.0f}, compiled {peer['worldgym, compiled']['steps_per_second']:.0f} "
        f"(`benchmarks/peers.py`). 64 dreams with pixels are {pusher:.0f} times as fast as Gymnasium's Pusher-v5, "
        "rendered as it comes (there, too).",
        f"- The diffusion decoder's frames of a dream have {drawn} of the sharpness of MuJoCo's, the fast one's {fast} "
        "(`benchmarks/decoders.sh`).",
        f"- Searching among sentences in the dream solves {percent(ways['dream'])} of instructions of two and three "
        f"steps in MuJoCo, the same proposer without search {percent(ways['nothing'])} (`benchmarks/pan_suite.sh`).",
        f"- After {drift['at'][-1]} steps a dream still shows {percent(kept)} of its objects (`benchmarks/drift.py`).",
        f"- Friction from 0.4 to 2.5 times the training's costs {friction:.1f} dB after 8 steps, colours never seen "
        f"{colours:.1f}: it paints them as those that it knows (`benchmarks/zero_shot.py`).",
    ]


def planning_share(world: str) -> float:
    """`share_of_the_way` of planning in the dream, from random actions to the same planner on true physics."""
    returns = (load(f"{world}_plan_{on}")["metrics"]["mean_return"] for on in ("dream", "mujoco", "random"))
    return share_of_the_way(*returns)


def share_of_the_way(dream: np.ndarray | float, truth: np.ndarray | float, floor: np.ndarray | float) -> float:
    """How far returns of the dream get from those of the floor (0) to those of the truth (1), of means."""
    low = np.mean(floor)
    return float((np.mean(dream) - low) / (np.mean(truth) - low))


STEPS = (1, 2, 4, 8, 12, 16)


def row(label: str, cells: list[str]) -> str:
    return f"| {label} | " + " | ".join(cells) + " |"


def markdown(head: list[str], rows: list[list[str]]) -> list[str]:
    return [row(head[0], head[1:]), "|---|" + "---|" * (len(head) - 1), *(row(cells[0], cells[1:]) for cells in rows)]


def blocks(error: float | None) -> str:
    return "-" if error is None else f"{error:.2f}"  # after one step nothing has moved yet


def percent(rate: float) -> str:
    return f"{rate:.0%}"


def percent2(share: float) -> str:
    return f"{share:.2%}"


def interval(bounds: list[float]) -> str:
    return f"{bounds[0]:.0%} to {bounds[1]:.0%}"


def main() -> None:
    text = tables()
    if "--write" not in sys.argv:
        print(text)
        return
    readme = ROOT / "README.md"
    before, rest = readme.read_text(encoding="utf-8").split(BEGIN)
    _, after = rest.split(END)
    readme.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
