# `make demo` and `make test` work on a fresh machine: each sets up what it needs first.

VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
READY := $(VENV)/.ready
export HF_HUB_OFFLINE ?= 1

.PHONY: help setup demo test test-slow test-all architectures interop lint format docs bench bench-gpu clean

help: ## list these targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(READY) ## create .venv with everything the tests need

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,tensorboard]'
	touch $@

demo: $(READY) ## preprocess the bundled sample, look at it, train a tiny model on it
	rm -rf demo
	$(BIN)/sftkit preprocess --data_config_path sample:data_config.yaml --model_name_or_path sample:model \
	    --packing bfd --pack_length 512 --output_dir demo/shards
	$(BIN)/sftkit inspect-shards demo/shards --rows 2
	$(BIN)/sftkit train --config configs/train_sample.yaml --training_data_path demo/shards --output_dir demo/model

# Tests start many processes, and each would compile the package again if the environment forbade to keep bytecode.
PYTEST := OMP_NUM_THREADS=1 env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -m pytest --numprocesses 2 --dist worksteal

# Generated tests try this many times as many examples.
test: export SFTKIT_EXAMPLES ?= 0.1
test: $(READY) ## the tests, except slow ones
	$(PYTEST) -m "not slow"

test-slow: $(READY) ## only the slow tests: kills, load, fuzzing, clusters
	$(PYTEST) -m slow

test-all: $(READY) ## all tests
	$(PYTEST)

architectures: $(READY) ## train tiny models of all architectures of transformers, and compare them with transformers
	$(PYTEST) tests/training/architectures -m architectures

# Without their dependencies: they pin other versions of numpy, transformers and others than ours.
interop: $(READY) ## shards in other trainers: installs them, and compares the loss of their first batch with ours
	$(BIN)/python -m pip install --quiet --no-deps --requirement tests/interop/requirements.txt
	SFTKIT_INTEROP=1 $(PYTEST) tests/interop tests/shards/test_megatron_formats.py "tests/docs/test_blocks.py::test_the_blocks_of_a_page_work[interop.md]"

lint: $(READY) ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY) ## fix what ruff can fix
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(READY)-docs ## build the documentation in site/; broken links and anchors are errors
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

$(READY)-docs: $(READY)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	touch $@

BENCH_ROWS ?= 88000
BENCH_TOKENIZER ?= sample:model
BENCH_FILE ?=
BENCH_OPTIONS ?=

bench: $(READY)-bench ## speed against peers and floors: BENCH_ROWS=, BENCH_TOKENIZER=, BENCH_FILE=, BENCH_OPTIONS=
	$(BIN)/python -m benchmarks.run --rows $(BENCH_ROWS) --tokenizer $(BENCH_TOKENIZER) $(if $(BENCH_FILE),--file $(BENCH_FILE)) $(BENCH_OPTIONS)

BENCH_GPU_OPTIONS ?= --write docs/performance.md

bench-gpu: $(READY) ## training on one GPU, whether right and how fast, in eight minutes: BENCH_GPU_OPTIONS=
	$(BIN)/python -m benchmarks.gpu.run $(BENCH_GPU_OPTIONS)

$(READY)-bench: $(READY)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[bench]'
	touch $@

clean: ## remove everything generated, except the environment
	rm -rf demo build dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis
