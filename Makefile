# `make` alone lists the targets. Everything runs in .venv: `make demo` installs what running takes, the others the
# tools on top.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
BIN := $(CURDIR)/.venv/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
CORES := $(shell getconf _NPROCESSORS_ONLN)
RUNS := .venv/.runs
READY := .venv/.ready

# Without a screen MuJoCo renders through EGL; macOS has its own renderer.
ifeq ($(shell uname -s),Linux)
MUJOCO_GL ?= egl
export MUJOCO_GL
endif

# Says what is missing, and how to get it, before anything is downloaded.
define PREFLIGHT
import ctypes, os, sys
if sys.version_info < (3, 11):
    sys.exit("WorldGym needs Python 3.11 or newer, and %s is %s. Name another: make setup PYTHON=python3.12"
             % (sys.executable, sys.version.split()[0]))
try:
    import ensurepip, venv
except ImportError:
    sys.exit("This Python cannot make virtual environments. On Debian and Ubuntu: apt-get install python3-venv")
def loads(*libraries):
    for library in libraries:
        try:
            return ctypes.CDLL(library)
        except OSError:
            pass
missing = []
if os.environ.get("MUJOCO_GL") == "egl":
    missing += [] if loads("libEGL.so.1") else ["libegl1"]
    missing += [] if loads("libOpenGL.so.0", "libGL.so.1") else ["libgl1"]
if missing:
    sys.exit("MuJoCo renders the real worlds without a screen through EGL, which is not complete on this machine.\n"
             "  On Debian and Ubuntu: apt-get install %s\n"
             "  With a screen instead: make MUJOCO_GL=glfw ..." % " ".join(missing))
endef
export PREFLIGHT

define SMOKE
import sys, mujoco
try:
    mujoco.GLContext(8, 8).make_current()
except Exception as error:
    sys.exit(f"MuJoCo cannot open a renderer: {error}\n"
             "  On Debian and Ubuntu the drivers come with: apt-get install libegl1 libgl1 libgl1-mesa-dri")
endef
export SMOKE

# Ten dreamed steps of what pip made of the wheel and its dependencies alone.
define DREAM
import pathlib, sys
import gymnasium as gym, worldgym
assert pathlib.Path(worldgym.__file__).is_relative_to(sys.prefix), worldgym.__file__
dream = gym.make("worldgym/Tabletop-v0")
dream.reset(seed=0)
for _ in range(10):
    frame, *_ = dream.step(dream.action_space.sample())
print(f"the wheel, in an environment of its own, dreamed ten steps: frames {frame.shape}")
endef
export DREAM

# The wheel holds one top-level name, and imports where there is no checkout beside it.
define WHEEL_CHECK
import importlib, pathlib
site = pathlib.Path.cwd()
names = sorted(path.name for path in site.iterdir() if path.suffix != ".dist-info" and path.name != "bin")
assert names == ["worldgym"], f"the wheel installs {names}; it may install worldgym alone"
for name in ("worldgym", "worldgym.train", "worldgym.planners", "worldgym.agents", "worldgym.envs_real"):
    origin = pathlib.Path(importlib.import_module(name).__file__)
    assert origin.is_relative_to(site), f"{name} came from {origin}, not from the wheel"
print("the wheel installs worldgym alone, and imports")
endef
export WHEEL_CHECK

.PHONY: help setup demo test check format wheel build docs clean

help: ## list the targets
	@sed -nE 's/^([a-z]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 15

setup: $(READY) ## make .venv and install WorldGym with its tools into it

$(RUNS): pyproject.toml constraints.txt
	@command -v "$(PYTHON)" >/dev/null || { echo "$(PYTHON) not found. Name a Python: make setup PYTHON=..." >&2; exit 1; }
	@"$(PYTHON)" -c "$$PREFLIGHT"
	"$(PYTHON)" -m venv .venv
	@echo "Installing into .venv (the first time this takes a few minutes and about 2 GB)"
	$(INSTALL) -e .
	@$(BIN)/python -c "$$SMOKE"
	@touch $@

$(READY): $(RUNS)
	$(INSTALL) -e ".[dev]"
	@touch $@

demo: $(RUNS) ## dream, plan and act: the tour in one command
	$(BIN)/worldgym demo

# Not `python -m pytest`, which would put the bare folders on the path. A worker of one thread for each core takes little
# more than half the time of one worker with all of them.
test: setup ## run the tests (ARGS="-m slow", ARGS="-n 0 -k planner")
	OMP_NUM_THREADS=1 $(BIN)/pytest -n $(CORES) --dist loadfile $(ARGS)

# mypy and import-linter read the installed wheel, from a folder in which no checkout is in sight.
check: wheel ## lint, formatting, arrows of dependencies, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	cd build/site && $(BIN)/lint-imports --config ../../pyproject.toml --no-cache
	cd build/site && $(BIN)/mypy --config-file ../../pyproject.toml --cache-dir ../../.mypy_cache -p worldgym

format: setup ## sort the imports, apply safe fixes, format
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

# build/ goes first: setuptools would pack what an earlier build left in it.
wheel: setup
	@rm -rf build dist
	$(BIN)/python -m build --wheel --no-isolation --outdir dist . >/dev/null
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target build/site dist/*.whl
	@cd build/site && $(BIN)/python -c "$$WHEEL_CHECK"

build: wheel ## build the wheel into dist/, install it into a clean environment and dream ten steps there
	"$(PYTHON)" -m venv build/clean
	@build/clean/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt dist/*.whl
	@cd build/clean && bin/python -c "$$DREAM"

docs: wheel ## the documentation as a site in build/docs; a link that leads nowhere is an error
	@$(INSTALL) -e ".[docs]"
	$(BIN)/mkdocs build --strict

clean: ## remove .venv, builds and caches; runs/ and data/ stay
	rm -rf .venv build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
