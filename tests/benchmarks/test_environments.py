"""The table of other people's environments."""

import gymnasium as gym


def test_a_row_of_the_table(load_benchmark):
    metrics = {
        "environment": "CartPole",
        "actions": "Discrete(2)",
        "took": 29.6,
        "dream": {"psnr_gain": [float(step) for step in range(8)], "reward_correlation_all_steps": float("nan")},
        "plan": {"random": {"mean_return": 20.0}, "dream": {"mean_return": 50.0}, "truth": {"mean_return": 80.0}},
    }
    made = {"command": "environments.py", "commit": "0", "hardware": {"cpu": "x", "cores": 2, "threads": 1}}
    *_, row, _, by = load_benchmark("environments").body(made | {"metrics": metrics})
    assert by == "`python environments.py`, commit 0, 1 of 2 cores of x."
    assert row == "| CartPole | Discrete(2) | 30 | +0.0 | +3.0 | +7.0 | - | 20.0 | 50.0 | 80.0 | 50% |"


def test_its_environments_end_in_time(load_benchmark):
    load_benchmark("short_worlds")
    env = gym.make("short/CartPole-v0")
    assert env.spec.max_episode_steps == 200 and env.action_space == gym.spaces.Discrete(2)
    env.close()
