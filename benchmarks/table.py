"""Print the README's tables from benchmarks/results; `--write` puts them into the README, between its markers."""

import sys

import numpy as np
import ranking
from guided import mean_of
from gymnasium_worlds import imagined_alone, learned_alone, planning_share, sac_returns
from imagined import WORLDS
from improving import best_round
from learning import LEARN_HEAD, learn_row, learned, share_of_the_way
from section import ROOT, Results, load, markdown, percent, row
from tabletop import PLANNING, dream_table, plan_table
from transfer import points_lost

BEGIN, END = "<!-- results: benchmarks/table.py --write -->", "<!-- /results -->"


def tables() -> str:
    """The tables as markdown."""
    plans = plan_table(*map(load, PLANNING.files))
    parts = [dream_table(load("tabletop_dream")), plans, learn_table(), speed_table(load("bench")), more()]
    return "\n\n".join("\n".join(part) for part in parts)


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


def speed_table(results: Results) -> list[str]:
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
        row("futures of a planner, in the recurrent state", rates("evaluate")),
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
        f"4 rounds) {1000 * m['decision']['p50']:.0f} ms, which is {looked['dream']} samples x horizon a second, in "
        f"MuJoCo {looked['mujoco']}; `import worldgym` {start['import_worldgym']:.1f} s, "
        f"`gym.make` in a fresh process {start['gym_make']:.1f} s.",
        "",
        f"`{results['command']}`, commit {results['commit'][:10]}, {machine['cores']} cores of {machine['cpu']}, "
        f"{m['dtype'].removeprefix('torch.')}.",
    ]


def pictures_reached() -> str:
    """Goals that are pictures, in the dream, on true physics and by chance."""
    metrics = load("goals_reacher")["metrics"]
    planners, pairs = metrics["planners"], metrics["pairs"] * len(metrics["seeds"])
    dream, truth, chance = (
        [percent(one["reached"][rule]["rate"]) for rule in ("moderate", "strict")] for one in planners.values()
    )
    return (
        f"- Asked for a picture of the Reacher, CEM in its state gets there in {dream[0]} of {pairs} pairs, by the "
        f"strict one of CLEAR-LeWM's rules in {dream[1]}; on true physics in {truth[0]} and {truth[1]}, by chance in "
        f"{chance[0]} and {chance[1]} (`benchmarks/goals.py reacher`)."
    )


def more() -> list[str]:
    """A line for each of the other questions."""
    ranked = [
        f"{m['return_pearson']:.3f} ({called}, {len(m['policies'])} policies)"
        for called, m in ((called, load(task)["metrics"]) for task, called in ranking.TASKS.items())
    ]
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
    imagined = {name: load(f"{name}_imagined")["metrics"] for name in WORLDS}
    faster = [
        f"{one['imagined'] / one['MuJoCo']:.1f} with {futures}"
        for futures, one in imagined["tabletop"]["speed"]["samples_x_horizon_per_second"].items()
    ]
    truths = [
        f"{m['ways']['imagined']['reward_correlation'][m['at'].index(8)]:.3f} in the {name.capitalize()}"
        for name, m in imagined.items()
    ]
    peer = load("peers")["metrics"]["1"]
    pusher = load("peers")["metrics"]["64"]["worldgym"]["pusher_over_it"]
    shown = load("tabletop_decoders")["metrics"]["dreamed"]
    drawn, fast = (percent(shown[name]["sharpness"][1]) for name in ("diffusion, as bundled", "fast decoder"))
    return [
        "**And further**, in [docs/results.md](docs/results.md):",
        "",
        f"- Policies of every quality: returns in the dream correlate with those in MuJoCo by {', '.join(ranked)} "
        "(`benchmarks/ranking.sh`). States of Reacher and Hopper flatter the agents that learned in them.",
        f"- Futures that planners imagine in the recurrent state, times as many a second as MuJoCo's on the Tabletop: "
        f"{' and '.join(faster)} futures. Rewards correlate with the truth, 8 steps ahead, by {', '.join(truths)} "
        "(`benchmarks/imagined.py`).",
        f"- Planning in the Reacher's state goes {percent(planning_share('reacher'))} of the way from random torques "
        f"to the same planner on true physics (`benchmarks/reacher.sh`), in the Hopper's state "
        f"{percent(planning_share('hopper'))}. That dream foresees "
        f"{percent(ends['foreseen']['rate'])} of held-out falls within two steps, {ends['steps']} ahead "
        "(`benchmarks/hopper.sh`).",
        pictures_reached(),
        guided_planning(),
        improved(),
        other_words(),
        f"{learned_alone('hopper')}; after 30,000 steps (one seed) {late['dream']:.0f} and {late['mujoco']:.0f}.",
        f"{learned_alone('reacher')}.",
        f"{imagined_alone()}.",
        f"- On tables that differ in one factor, in points of success lost (`benchmarks/transfer.sh`): {reached}, both "
        "by a draft that came before the recurrent state. At pushing, of other colours, friction and camera alone: "
        f"{pushed}.",
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
        "- Measured before frames followed the state: speed, agents and ranks on the Tabletop, transfer, decoders, and "
        "tables never seen. The Hopper's rounds were run before lived frames counted among those whose principal "
        "components teach a state.",
    ]


def guided_planning() -> str:
    """What agents that imagine do, and a planner that they guide."""
    hopper, pushing = (load(f"{world}_guided")["metrics"]["rows"] for world in ("hopper", "tabletop"))

    low, high = mean_of(hopper, "random actions"), mean_of(hopper, "CEM on true physics")
    alone, both = (share_of_the_way(mean_of(hopper, name), high, low) for name in ("CEM alone", "CEM, both"))
    return (
        "- Agents that imagine in the recurrent state, without a real step (three seeds, `benchmarks/guided.py`): one "
        f"that learned to push a block to the centre does so in "
        f"{percent(mean_of(pushing, 'the actor alone', 'success_rate'))} of its episodes in MuJoCo; one of the Hopper "
        f"returns {mean_of(hopper, 'the actor alone'):.1f}, and guides CEM to {mean_of(hopper, 'CEM, both'):.1f}, "
        f"{percent(both)} of the way from random torques to the same planner on true physics, for {percent(alone)} "
        "without a guide."
    )


def improved() -> str:
    """What an agent of the Hopper does once its dream learned from what it did."""
    runs = load("hopper_improved")["metrics"]["runs"]
    before = load("hopper_guided")["metrics"]["rows"]
    after = [row for run in runs for row in run["rows"]]
    low, high = mean_of(before, "random actions"), mean_of(before, "CEM on true physics")
    alone = share_of_the_way(mean_of(after, "CEM alone"), high, low)
    steps = np.mean([best_round(run)["real_steps"] for run in runs])
    return (
        f"- After rounds of `worldgym improve`, in which the Hopper's dream learns from what an agent of it and a "
        f"planner do, {steps:,.0f} real steps on average, that agent returns {mean_of(after, 'the actor alone'):.1f} "
        f"({len(runs)} seeds, `benchmarks/improving.sh`), CEM on true physics {high:.1f}, and it guides CEM to "
        f"{mean_of(after, 'CEM, both'):.1f}; without it CEM goes {percent(alone)} of "
        "the way. The recording that the world had seen before, with rewards, is not among these steps."
    )


def other_words() -> str:
    """How sentences that the reader was not made for fare."""
    metrics = load("wordings")["metrics"]
    read, alone = metrics["read"]["paraphrases"], metrics["left_alone"].values()
    still = sum(one["share"] * one["count"] for one in alone) / sum(one["count"] for one in alone)
    return (
        f"- Of {read['count']} sentences in words that the reader was not made for {percent(read['share'])} are read, "
        f"{read['wrong'] or 'none'} as something else; of {sum(one['count'] for one in alone)} that forbid, ask for "
        f"the impossible or mean nothing {percent(still)} are left alone (`benchmarks/wordings.py`)."
    )


def percent2(share: float) -> str:
    return f"{share:.2%}"


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
