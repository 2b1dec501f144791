# The ways people work on mergelab. `make help` prints them.

CARGO ?= cargo
# Makes .venv; any Python from 3.11 to 3.13.
PYTHON ?= python3
TORCH := 2.11

REQUIREMENTS := lm-eval-harness/requirements.txt
BOOTSTRAP := lm-eval-harness/bootstrap.txt

# Which torch, and which Python goes with it: one that is named, one that is active, or our own.
active_torch := $(firstword $(wildcard $(VIRTUAL_ENV)/lib/python3*/site-packages/torch-$(TORCH).*.dist-info))
ifneq ($(LIBTORCH),)
  environment :=
  python := $(firstword $(wildcard $(abspath $(LIBTORCH)/../../../../bin/python)) $(PYTHON))
else ifneq ($(and $(VIRTUAL_ENV),$(active_torch),$(filter-out $(CURDIR)/.venv,$(VIRTUAL_ENV))),)
  environment :=
  python := $(VIRTUAL_ENV)/bin/python
  export LIBTORCH := $(dir $(active_torch))torch
else
  environment := .venv/.filled
  python := .venv/bin/python
endif

.DEFAULT_GOAL := help
.PHONY: help setup build quickstart test lint bench bench-merge docs lock clean

help:  ## print this
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@echo
	@echo "Everything is set up on first use: .venv is filled from $(REQUIREMENTS) (several GB, once)."
	@echo "To use a torch $(TORCH) that is there already, activate its environment or set LIBTORCH to its torch folder:"
	@echo "no .venv is made then. Evaluations need lm-eval and transformers in the same environment."

setup: $(environment)  ## fill .venv, unless there is a torch to use

# The stamp is written last: a .venv without it, or older than what is asked for, is made again from nothing.
.venv/.filled: $(REQUIREMENTS) $(BOOTSTRAP)
	@$(PYTHON) -c 'import sys; (3, 11) <= sys.version_info < (3, 14) or sys.exit("mergelab needs Python 3.11 to 3.13, and $(PYTHON) is " + sys.version.split()[0] + "; say which with PYTHON=...")'
	@rm -f $@
	$(PYTHON) -m venv --clear .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $(BOOTSTRAP)
	VIRTUAL_ENV=$(CURDIR)/.venv .venv/bin/uv pip install --quiet --require-hashes --compile-bytecode -r $(REQUIREMENTS)
	ln -sfn "$$(cd .venv && echo lib/python3*/site-packages/torch)" .venv/torch
	@touch $@

build: setup  ## build both programs into target/release
	$(CARGO) build --release -p mergelab -p mergelab-tensor

quickstart: build  ## train two tiny models, merge them, evaluate all, write the table into the README
	target/release/mergelab run experiments/quickstart.yaml

test: setup  ## every test (without libtorch: `cargo test` runs those of the root package)
	$(CARGO) build --workspace
	$(CARGO) test --workspace
	$(python) -W ignore -m unittest discover -s experiments/quickstart
	$(python) -W ignore -m unittest discover -s lm-eval-harness

lint: setup  ## formatting, and clippy with warnings as errors
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings

bench:  ## how much time mergelab itself takes, beside DVC and Snakemake where they are installed (see docs/benchmarks.md)
	$(CARGO) bench -p mergelab --bench overhead

bench-merge: build  ## merging, beside mergekit where it is installed (BENCH_PYTHON) and a plain PyTorch script
	BENCH_TORCH=$(abspath $(python)) $(CARGO) bench -p mergelab --bench merge

docs: build  ## the API documentation, and the experiment file's JSON Schema in docs/
	$(CARGO) doc --workspace --no-deps
	mkdir -p docs
	target/release/mergelab schema > docs/experiment.schema.json

lock: setup  ## pin what the .in files in lm-eval-harness ask for, anew
	.venv/bin/uv pip compile --quiet --universal --generate-hashes --custom-compile-command 'make lock' --no-annotate --no-emit-index-url \
	  --python-version 3.11 lm-eval-harness/requirements.in -o $(REQUIREMENTS)
	.venv/bin/uv pip compile --quiet --universal --generate-hashes --custom-compile-command 'make lock' --no-annotate --no-emit-index-url \
	  --python-version 3.11 lm-eval-harness/bootstrap.in -o $(BOOTSTRAP)

clean:  ## remove build products and .venv; experiments keep their results (.mergelab)
	$(CARGO) clean
	rm -rf .venv
