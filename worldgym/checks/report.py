"""What the checkers of checks.py and vector_checks.py share: the report, the runner, and ways to compare."""

import pickle
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.utils.env_checker import data_equivalence

ROUNDING = 1e-4
"""What a batch of another size may change in a float; an integer may move by one."""


@dataclass
class Report:
    """What was checked. `str(report)` is a table to read."""

    passed: list[str] = field(default_factory=list)
    not_applicable: dict[str, str] = field(default_factory=dict)
    """Check -> why it was not made."""
    failed: dict[str, str] = field(default_factory=dict)
    """Check -> what was got, and what was expected."""

    def __str__(self) -> str:
        """A line for each check and result; the modes of a vector environment share one."""
        lines: dict[tuple[str, str], list[str]] = {}
        results = [("ok  ", name, "") for name in self.passed]
        results += [("n/a ", name, f": {why}") for name, why in self.not_applicable.items()]
        results += [("FAIL", name, f": {why}") for name, why in self.failed.items()]
        for mark, name, why in results:
            check, _, mode = name.partition(" [")
            lines.setdefault((f"  {mark}  {check}", why), []).append(mode.rstrip("]"))
        return "\n".join(
            line + (f" [{', '.join(modes)}]" if any(modes) else "") + why for (line, why), modes in lines.items()
        )


class ConformanceError(AssertionError):
    """An environment broke its promises; `report` has all of them."""

    def __init__(self, subject: str, report: Report):
        self.report = report
        total = len(report.failed) + len(report.passed)
        super().__init__(f"{subject} fails {len(report.failed)} of {total} checks\n{report}")


class DoesNotApply(Exception):
    """Raised by a check that has nothing to look at."""


def run_checks(
    subject: str,
    checks: Iterable[tuple[str, Callable[[Any], None], Any]],
    left_out: Mapping[str, str],
    report: Report,
) -> Report:
    checks = list(checks)
    if unknown := set(left_out) - {name_of(check) for _, check, _ in checks}:
        known = "; ".join(dict.fromkeys(name_of(check) for _, check, _ in checks))
        raise ValueError(f"not_applicable names unknown checks {sorted(unknown)}; known are {known}")
    for name, check, argument in checks:
        if name_of(check) in left_out:
            report.not_applicable[name] = left_out[name_of(check)]
            continue
        try:
            check(argument)
        except DoesNotApply as reason:
            report.not_applicable[name] = str(reason)
        except AssertionError as error:
            report.failed[name] = str(error)
        except Exception as error:
            report.failed[name] = f"raised {type(error).__name__}: {error}"
        else:
            report.passed.append(name)
    if report.failed:
        raise ConformanceError(subject, report)
    return report


def name_of(check: Callable) -> str:
    return check.__name__.strip("_").replace("_", " ")


# -- comparing -------------------------------------------------------------------------------------------------


def close(one: Any, other: Any) -> bool:
    """Whether two observations, or whatever is made of them, are equal to within rounding."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(close(one[key], other[key]) for key in one)
    if isinstance(one, (tuple, list)):
        return len(one) == len(other) and all(close(a, b) for a, b in zip(one, other, strict=True))
    one, other = np.asarray(one), np.asarray(other)
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    if one.dtype.kind == "f":
        return np.allclose(one, other, rtol=ROUNDING, atol=ROUNDING)
    if one.dtype.kind in "iu":
        return bool((np.abs(one.astype(np.int64) - other.astype(np.int64)) <= 1).all())
    return bool(np.all(one == other))


def check_in_space(value: Any, space: gym.Space, source: str) -> None:
    """Contained, and of the space's very dtype."""
    dtype = getattr(value, "dtype", None)
    assert value in space, f"the observation of {source} is not in {space}: {describe(value)}"
    assert dtype is None or dtype == space.dtype, f"the observation of {source} is {dtype}; its space is {space.dtype}"


def describe(value: Any) -> str:
    """Briefly, for an error."""
    if isinstance(value, np.ndarray) and value.size > 8:
        return f"{value.dtype} {value.shape} from {value.min()} to {value.max()}"
    return f"{type(value).__name__} {value!r:.80}"


@contextmanager
def refusal(what: str) -> Iterator[None]:
    """A block that has to raise a ValueError or TypeError."""
    try:
        yield
    except (ValueError, TypeError):
        return
    except Exception as error:
        raise AssertionError(
            f"{what} raised {type(error).__name__}: {error}; expected a ValueError or TypeError"
        ) from error
    raise AssertionError(f"{what} was accepted; expected a ValueError or TypeError")


def bad_actions(space: gym.Space) -> Iterator[tuple[str, Any]]:
    """What a single environment with this action space has to refuse, each with a name."""
    yield "None", None
    match space:
        case gym.spaces.Box():
            yield "a wrong shape", np.zeros((*space.shape, 2), space.dtype)
            yield "a string", "forward"
            if space.dtype.kind == "f":
                yield "nan", np.full(space.shape, np.nan, space.dtype)
                yield "infinity", np.full(space.shape, np.inf, space.dtype)
        case gym.spaces.Discrete():
            yield "an index past the last", space.start + space.n
            yield "an index before the first", space.start - 1
            yield "a fraction", 0.5
        case gym.spaces.MultiDiscrete():
            yield "a wrong shape", np.zeros((*space.shape, 2), space.dtype)
            yield "an index past the last", space.start + space.nvec
            yield "fractions", np.full(space.shape, 0.5)
        case gym.spaces.MultiBinary():
            yield "a wrong shape", np.zeros((*space.shape, 2), space.dtype)
            yield "a two", np.full(space.shape, 2, space.dtype)
        case gym.spaces.Dict():
            yield "a part missing", {}
            yield "a number", 3
        case gym.spaces.Tuple():
            yield "a part too few", space.sample()[:-1]
            yield "a number", 3
        case gym.spaces.OneOf():
            yield "a number", 3
            yield "an index past the last", (len(space.spaces), 0)
        case gym.spaces.Text():
            yield "a number", 3
            yield "a list", ["forward"]


def global_randomness() -> dict[str, bytes]:
    """The state of numpy's and torch's global generators. (`random` is left out: the type checker uses it.)"""
    states = {"numpy": pickle.dumps(np.random.get_state())}
    if torch := sys.modules.get("torch"):
        states["torch"] = torch.get_rng_state().numpy().tobytes()
    return states


class Keeper:
    """Stands before an environment and keeps what it returns, with a copy made at once; or scribbles over it."""

    def __init__(self, env: Any, spoil: bool = False):
        self.env, self.spoil = env, spoil
        self.results: list[tuple[Any, Any]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.env, name)

    def reset(self, **arguments: Any) -> Any:
        return self._keep(self.env.reset(**arguments))

    def step(self, action: Any) -> Any:
        return self._keep(self.env.step(action))

    def _keep(self, result: Any) -> Any:
        copy = deepcopy(result)
        self.results.append((result, copy))
        if self.spoil:
            _scribble(result)
        return copy

    def check(self) -> None:
        """That no later call has changed what an earlier one returned."""
        for count, (result, copy) in enumerate(self.results):
            source = f"step {count}" if count else "reset"
            assert data_equivalence(result, copy, exact=True), f"what {source} returned was changed by a later step"


def _scribble(value: Any) -> None:
    if isinstance(value, dict):
        for item in value.values():
            _scribble(item)
        value.clear()
    elif isinstance(value, (tuple, list)) or (isinstance(value, np.ndarray) and value.dtype == object):
        for item in value:
            _scribble(item)
    elif isinstance(value, np.ndarray) and value.flags.writeable:
        value[...] = np.ones_like(value) if value.dtype == bool else 77
