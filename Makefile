# `make help` lists the targets.
PYTHON ?= python3
BIN := .venv/bin
# Bytecode is made where a file is first imported, which a third of 18,000 are.
PIP := $(BIN)/python -m pip install --quiet --no-compile
INSTALL := $(PIP) --no-deps --no-build-isolation --editable .
LOCK := uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --upgrade \
  --no-header --no-annotate --no-emit-index-url --quiet
# Of benchmarks/speed.py alone, without what they would bring along.
PEERS := denoising-diffusion-pytorch==2.3.4 accelerate==1.15.0 einops==0.8.2 ema-pytorch==0.8.3 \
  pytorch-fid==0.3.0
# Big activations go back to the kernel after every step unless glibc is told to keep them.
export MALLOC_MMAP_THRESHOLD_ ?= 1073741824
export MALLOC_TRIM_THRESHOLD_ ?= 1073741824
export MALLOC_TOP_PAD_ ?= 67108864

# Of `make gpu`, and arguments such as GPU="--seconds 120".
PARTS := tests bench train
GPU :=
# What Lightning and torchvision do not bring along.
LACKING := docstring.parser jsonargparse typeshed.client rich markdown.it.py mdurl pygments \
  safetensors tokenizers matplotlib contourpy cycler fonttools kiwisolver pyparsing \
  python.dateutil torch.fidelity

# Types are checked while data is fetched and the first tests run.
MAKEFLAGS += --jobs=2

.PHONY: help demo test quick data slow notebooks lint format types docs gpu packed wheels bench tables lock clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.venv/installed: pyproject.toml requirements.lock
	@echo "Installing into .venv; the first time this takes minutes."
	$(PYTHON) -m venv .venv
	$(PIP) --require-hashes -r requirements.lock
	$(INSTALL)
	@touch $@

.venv/tests: pyproject.toml requirements-test.lock
	@echo "Installing into .venv; the first time this takes minutes."
	$(PYTHON) -m venv .venv
	@awk '/^[a-z]/ { half = /^(cuda|nvidia)-/ } { print > (".venv/half" half ".lock") }' \
	  requirements-test.lock
	@# CUDA's gigabytes beside all else; `pip check` sees that nothing is missing.
	$(PIP) --require-hashes --no-deps -r .venv/half1.lock & \
	  $(PIP) --require-hashes --no-deps -r .venv/half0.lock; rest=$$?; wait $$! && exit $$rest
	$(INSTALL)
	$(BIN)/python -m pip check
	@touch .venv/installed $@

demo: .venv/installed ## Train on 1,797 real digits for minutes, draw, and measure
	@if [ -f runs/quickstart/metrics.json ]; then \
	  echo "runs/quickstart is there already and stays as it is; to draw anew, move it away first."; \
	  $(BIN)/python -m diffusion.cli.report runs/quickstart; \
	else \
	  $(BIN)/diffusion fit --config configs/quickstart.yaml --ckpt_path last && \
	  $(BIN)/diffusion test --ckpt_path runs/quickstart/checkpoints/last.ckpt; \
	fi

test: lint types quick ## Lint, types, real data, and all tests but the slow ones

quick: data
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile

data: .venv/tests ## Fetch real data and small pretrained networks for the tests, 340 MB, into data/
	OMP_NUM_THREADS=1 $(BIN)/python tests/fetch_data.py

slow: data ## The slow tests: several processes, killed runs, published networks
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
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --doctest-glob='*.md' docs README.md

gpu: ## On a machine with a GPU and no network: checks, rates, trainings, into runs/gpu
	! ls wheels/*.whl 2>/dev/null || $(PYTHON) -m pip install --quiet --no-index --no-deps --upgrade --target .gpu wheels/*.whl
	@[ -d data/emoji ] || [ -f wheels/data.tar.xz ] || { \
	  echo "wheels/data.tar.xz: not there, nor is data/; expected what make packed makes"; exit 1; }
	[ -d data/emoji ] || $(PYTHON) -m tarfile -e wheels/data.tar.xz .
	for part in $(PARTS); do \
	  PYTHONPATH=.gpu:.:$$PYTHONPATH $(PYTHON) benchmarks/gpu.py $$part $(GPU) || exit 1; done

packed: data ## For `make gpu`: the data it trains on, 34 MB, into wheels/data.tar.xz
	mkdir -p wheels
	tar --create --xz --file wheels/data.tar.xz data/FashionMNIST/raw data/emoji/[gmot]*-32-*

wheels: .venv/installed ## For `make gpu`: what Python 3.12 with Lightning and torchvision lacks, 24 MB
	$(BIN)/python -m pip download --quiet --no-deps --dest wheels \
	  --only-binary :all: --python-version 3.12 --platform manylinux_2_28_x86_64 \
	  --platform manylinux_2_17_x86_64 $$($(BIN)/python -m pip freeze \
	  | grep -iE "^($$(echo $(LACKING) | tr ' ' '|'))==")

bench: .venv/tests ## Speed beside diffusers, denoising-diffusion-pytorch and bare loops, 6 minutes, then memory
	[ -d .cache/peers ] || $(BIN)/python -m pip install --quiet --no-deps --target .cache/peers \
	  $(PEERS) || echo "denoising-diffusion-pytorch cannot be had, and is left out"
	TQDM_DISABLE=1 PYTHONPATH=.cache/peers $(BIN)/python benchmarks/speed.py --threads 2

tables: .venv/installed ## Make the tables and plots of docs/results.md from runs/ddpm_fashion
	$(BIN)/python benchmarks/fashion.py

lock: ## Renew the lock files (needs uv)
	$(LOCK) --output-file requirements.lock
	$(LOCK) --extra test --extra notebooks --constraints requirements.lock \
	  --output-file requirements-test.lock

clean: ## Remove the environment and caches, but no runs
	rm -rf .venv .cache .pytest_cache .ruff_cache
