"""`worldgym transfer`: does a world rank policies as MuJoCo does, and how far do its plans carry?"""

from pathlib import Path
from typing import Any

import gymnasium as gym

from ..agents.settings import Transfer
from ..errors import UserError

COLUMNS = 26, 34, 8, 5, 12, 3, 4
"""Widths of a row of the grid of tables."""


def transfer(config: Transfer) -> dict[str, Any]:
    from ..agents.transfer import Cell, draw_starts, rank_policies, zero_shot
    from ..agents.transfer_report import combination_rows, grid_row, write_report
    from ..envs_real.tabletop import TabletopEnv, locate
    from ..envs_real.tabletop.cases import BLOCK_WIDTH, HELD_OUT
    from ..envs_real.tabletop.reasoning import COMBINED, evaluate_planning
    from ..envs_real.tabletop.transfer import varied_tables
    from ..envs_real.twins import held_out_cases, twin_kind, twin_of
    from ..planners.reasoning import elementary, ways
    from ..results import current_commit, write_results
    from ..world import WorldModel

    commit = current_commit()
    for folder in config.agents:
        if not (folder / "learning.json").exists():
            raise UserError(f"{folder} holds no agent; `worldgym learn WORLD --out {folder}` makes one")
    tables = varied_tables(config.factors)
    world = WorldModel.load(config.world)
    held_out_cases(world.config)
    wanted = world.config.matching(config.instruction)
    seed = HELD_OUT % 2**31 + config.seed  # of no recording

    twin, dream = twin_of(world.config), gym.make("worldgym/Dream-v0", world=config.world)
    ranking = None
    if config.episodes:
        starts = draw_starts(wanted, config.episodes, seed)
        ranking = rank_policies(dream, twin, _policies(config, world, twin), starts, locate, BLOCK_WIDTH / 2)
    cells = []
    for table in tables:
        asked = [instruction for instruction in wanted if instruction in table.instructions]
        if not asked:
            raise UserError(f"no instruction in {config.instruction} is possible where {table.factor} is {table.value}")
        env = gym.make(world.config.twin, variation=table.variation, instruction=asked[0])
        value = " ".join(map(str, table.value)) if isinstance(table.value, tuple) else str(table.value)
        cells.append(Cell(table.factor, value, table.trained, env, draw_starts(asked, config.table_episodes, seed)))
    carried = dict(_agent(folder, "", world) for folder in config.agents)
    if config.table_planner:
        carried["CEM"] = _planner(config, world, twin, config.samples, config.iterations)
    grid = zero_shot(cells, carried)
    combined = None
    if config.combinations:
        speaking = TabletopEnv(action_mode="text")
        known = ways(world, speaking, elementary(world, twin_kind(world.config.twin).objects))
        combined = evaluate_planning(speaking, known, config.combinations, seed, [COMBINED])
        speaking.close()
    metrics = {
        "instructions": wanted,
        "ranking": ranking and ranking.metrics,
        "planner": {"name": "cem", "horizon": config.horizon, "samples": config.samples, "rounds": config.iterations},
        "zero_shot": grid,
        "combinations": combined,
    }
    if ranking:
        ranked = ranking.metrics
        print(
            f"{len(ranked['policies'])} policies, {config.episodes} episodes each, mean return in the dream and in "
            f"MuJoCo: Pearson {ranked['return_pearson']:.2f}, Spearman {ranked['return_spearman']:.2f}; "
            f"success: Pearson {ranked['success_pearson']:.2f}"
        )
    for one in grid:
        print("  ".join(f"{cell:{width}s}" for cell, width in zip(grid_row(one), COLUMNS, strict=True)))
    for row in combination_rows(combined) if combined else []:
        print("  ".join(row))
    page = write_report(
        config.report or Path("runs/transfer") / world.config.name,
        f"How far does {world.config.name} carry?",
        f"{', '.join(config.instruction)}: {len(wanted)} instructions on the Tabletop.",
        ranking,
        grid,
        combined,
    )
    print(f"report: {page}")
    for path in filter(None, (page.with_name("run.json"), config.json)):
        write_results(path, config.seed, metrics, commit)
    return metrics


def _planner(config: Transfer, world, twin: gym.Env, samples: int, iterations: int):
    """CEM in the dream, as a maker of policies."""
    from ..planners.planning import make_policy
    from ..planners.settings import Planning

    budget = Planning(config.world, horizon=config.horizon, samples=samples, iterations=iterations)
    return lambda instruction, seed: make_policy(budget, world, twin, instruction, seed)


def _agent(folder: Path, age: str, world) -> tuple[str, Any]:
    """An agent of `worldgym learn`, by what it is, and as a maker of policies."""
    from ..agents.learning import load_policy, policy_of

    model, made = load_policy(folder, world, age)
    called, sees = f"{made.agent} of {made.where}, {model.num_timesteps} steps", made.sees
    assert sees is not None
    return called, lambda instruction, seed: policy_of(model, world, sees)


def _policies(config: Transfer, world, twin: gym.Env) -> dict[str, Any]:
    """Policies of every quality by name: scripted ones that see, planners, and agents on their way."""
    from ..agents.learning import checkpoints
    from ..envs_real.tabletop.transfer import SCRIPTED, SeenSkill, other_goal

    def scripted(arguments: dict[str, Any]):
        return lambda instruction, seed: SeenSkill(instruction, seed=seed, **arguments)

    policies: dict[str, Any] = {name: scripted(arguments) for name, arguments in SCRIPTED.items()}
    policies["script, another goal"] = lambda instruction, seed: SeenSkill(other_goal(instruction, seed), seed=seed)
    for samples, iterations in sorted({(4, 1), (config.samples, config.iterations)}):
        policies[f"CEM, {samples} x {iterations}"] = _planner(config, world, twin, samples, iterations)
    for folder in config.agents:
        policies |= dict(_agent(folder, age, world) for age in checkpoints(folder))
    return policies
