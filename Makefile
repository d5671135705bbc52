# Galatea: `make demo` animates real photos, `make test` checks everything, `make help` lists the rest.

PYTHON ?= python3.11
# What pip is asked for torch. Another build of the same version: `make setup TORCH="torch==2.13.0+cpu --extra-index-url URL"`.
TORCH ?= torch==2.13.0
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.galatea-setup
DEMO := demo
DEMO_SETTINGS := invert=quick animate=quick storage.prune=true
# A driving video of your own: `make demo DRIVER=path/to/video.mp4`.
DRIVER ?=

.PHONY: help setup lock weights demo browser lint types layers pytest test repro clean

help:
	@echo "make setup    virtual environment in $(VENV): torch, then every pinned dependency, then galatea"
	@echo "              (TORCH=... takes another build of torch: docs/running.md, Set-up)"
	@echo "make demo     animate the demo photos and print where the report is (DRIVER=video.mp4 adds a driving video)"
	@echo "make test     lint, types, layers, tests"
	@echo "make repro    the same stages through DVC (dvc repro), with metrics and plots"
	@echo "make browser  Chromium for the test of the report page (Debian, as root)"
	@echo "make lock     write requirements.lock anew from the environment in $(VENV)"

setup: $(STAMP)

$(STAMP): requirements.lock pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.11 is needed: install it or say make PYTHON=/path/to/python3.11"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint requirements.lock $(TORCH)
	$(BIN)/python -m pip install --quiet --no-deps --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	$(BIN)/python -m pip check
	touch $(STAMP)

lock:
	{ sed -n '/^#/p' requirements.lock; $(BIN)/python -m pip freeze --all --exclude-editable \
		| grep -viE '^(torch|pip|wheel|triton|nvidia-[a-z0-9-]+|cuda-[a-z0-9-]+)==' | sort -f; } > requirements.lock.new
	mv requirements.lock.new requirements.lock

weights: setup
	$(BIN)/galatea models fetch open

demo: weights
	@$(BIN)/python -m pipeline.demo $(DEMO)/photos
	@$(BIN)/galatea run $(DEMO)/photos --out $(DEMO)/run $(DEMO_SETTINGS) \
		--driver smile --driver turn $(if $(DRIVER),--driver "$(DRIVER)")

browser:
	@command -v chromium >/dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null \
		&& apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium >/dev/null; } \
		|| echo "No Chromium here: the browser test will be skipped."

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy

layers: setup
	$(BIN)/lint-imports

pytest: setup weights
	$(BIN)/python -m pytest

test: lint types layers pytest

repro: weights
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/dvc repro

clean:
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache *.egg-info
