# `make help` lists the targets.
PYTHON ?= python3
BIN := .venv/bin
# Big activations go back to the kernel after every step unless glibc is told to keep them.
export MALLOC_MMAP_THRESHOLD_ ?= 1073741824
export MALLOC_TRIM_THRESHOLD_ ?= 1073741824
export MALLOC_TOP_PAD_ ?= 67108864

.PHONY: help demo test slow notebooks lint format types docs tables clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.venv/installed: pyproject.toml
	@echo "Installing into .venv; the first time this takes minutes."
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

.venv/tests: .venv/installed
	$(BIN)/python -m pip install --quiet --editable '.[test,notebooks]'
	@touch $@

demo: .venv/installed ## Train on 1,797 real digits for about a minute, draw, and measure
	@if [ -f runs/quickstart/metrics.json ]; then \
	  echo "runs/quickstart is there already and stays as it is; to draw anew, move it away first."; \
	else \
	  $(BIN)/diffusion fit --config configs/quickstart.yaml --ckpt_path last && \
	  $(BIN)/diffusion test --ckpt_path runs/quickstart/checkpoints/last.ckpt --verbose false; \
	fi
	@$(BIN)/python -m diffusion.training.report runs/quickstart

test: lint types ## Lint, types, and all tests but the slow ones
	$(BIN)/python -m pytest

slow: .venv/tests ## The slow tests: several processes, killed runs, published networks
	$(BIN)/python -m pytest -m slow

notebooks: .venv/tests ## Execute the notebooks in place
	$(BIN)/python -m jupyter nbconvert --to notebook --execute --inplace notebooks/*.ipynb

lint: .venv/tests ## ruff, check and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/tests ## pyright
	$(BIN)/pyright --pythonpath $(BIN)/python

format: .venv/tests ## Let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: .venv/tests ## Run the examples inside the documentation
	$(BIN)/python -m pytest --doctest-glob='*.md' docs README.md

tables: .venv/installed ## Make the tables and plots of docs/results.md from runs/ddpm_fashion
	$(BIN)/python benchmarks/fashion.py

clean: ## Remove the environment and caches, but no runs
	rm -rf .venv .cache .pytest_cache .ruff_cache
