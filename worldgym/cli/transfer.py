"""`worldgym transfer`: how far do the plans and agents of a world carry?"""

from pathlib import Path
from typing import Any

import gymnasium as gym

from ..agents.settings import Transfer
from ..envs_real.settings import HELD_OUT
from ..errors import UserError

COLUMNS = 26, 34, 8, 5, 12, 3, 4
"""Widths of a row of the grid of tables."""


def transfer(config: Transfer) -> dict[str, Any]:
    from ..agents.policies import agent_policies
    from ..agents.ranking import MakePolicy, draw_starts
    from ..agents.transfer import Cell, zero_shot
    from ..agents.transfer_report import combination_rows, grid_row, write_report
    from ..envs_real.tabletop import TabletopEnv
    from ..envs_real.tabletop.reasoning import COMBINED, evaluate_planning
    from ..envs_real.tabletop.transfer import varied_tables
    from ..envs_real.twins import held_out_cases, twin_kind, twin_of
    from ..planners.planning import make_policy
    from ..planners.reasoning import elementary, ways
    from ..planners.settings import Planning
    from ..results import current_commit, write_results
    from ..world import WorldModel

    commit = current_commit()
    tables = varied_tables(config.factors)
    world = WorldModel.load(config.world)
    held_out_cases(world.config)
    wanted = world.config.matching(config.instruction)
    seed = HELD_OUT + config.seed  # of no recording

    twin = twin_of(world.config)
    cells = []
    for table in tables:
        asked = [instruction for instruction in wanted if instruction in table.instructions]
        if not asked:
            raise UserError(f"no instruction in {config.instruction} is possible where {table.factor} is {table.value}")
        env = gym.make(world.config.twin, variation=table.variation, instruction=asked[0])
        value = " ".join(map(str, table.value)) if isinstance(table.value, tuple) else str(table.value)
        cells.append(Cell(table.factor, value, table.trained, env, draw_starts(asked, config.table_episodes, seed)))
    carried: dict[str, MakePolicy] = {}
    for folder in config.agents:
        carried |= agent_policies(folder, world, checkpoints=False)
    if config.table_planner:
        budget = Planning(config.world, horizon=config.horizon, samples=config.samples, iterations=config.iterations)
        carried["CEM"] = lambda instruction, seed: make_policy(budget, world, twin, instruction, seed)
    grid = zero_shot(cells, carried)
    combined = None
    if config.combinations:
        speaking = TabletopEnv(action_mode="text")
        known = ways(world, speaking, elementary(world, twin_kind(world.config.twin).objects))
        combined = evaluate_planning(speaking, known, config.combinations, seed, [COMBINED])
        speaking.close()
    metrics = {
        "instructions": wanted,
        "planner": {"name": "cem", "horizon": config.horizon, "samples": config.samples, "rounds": config.iterations},
        "zero_shot": grid,
        "combinations": combined,
    }
    for one in grid:
        print("  ".join(f"{cell:{width}s}" for cell, width in zip(grid_row(one), COLUMNS, strict=True)))
    for row in combination_rows(combined) if combined else []:
        print("  ".join(row))
    page = write_report(
        config.report or Path("runs/transfer") / world.config.name,
        f"How far does {world.config.name} carry?",
        f"{', '.join(config.instruction)}: {len(wanted)} instructions on the Tabletop.",
        grid,
        combined,
    )
    print(f"report: {page}")
    for path in filter(None, (page.with_name("run.json"), config.json)):
        write_results(path, config.seed, metrics, commit)
    return metrics
