# Every target depends on `setup`, which makes .venv once and again when the requirements change.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
AUDIT_STAMP := $(VENV)/.installed-audit

.PHONY: setup demo test test-audit audit slow lint format bench docs clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -c constraints.txt torch==2.13.0
	$(BIN)/python -m pip install -q -c constraints.txt -e ".[dev,math-verify,tensorboard]"
	touch $@

$(AUDIT_STAMP): $(STAMP)
	$(BIN)/python -m pip install -q -c constraints.txt -e ".[audit]"
	touch $@

demo: setup ## GRPO and Dr. GRPO side by side on a small base model, about 5 minutes the first time
	$(BIN)/zerolab demo

test: setup ## under 6 minutes on two cores
	$(BIN)/python -m pytest -n 2

test-audit: $(AUDIT_STAMP) ## the battery on an installed TRL, under 2 minutes
	$(BIN)/python -m pytest -m audit tests/audit_peers

audit: $(AUDIT_STAMP) ## measures every variant of TRL and writes its table into docs/audit.md
	mkdir -p runs/audit
	$(BIN)/zerolab audit trl --json runs/audit/trl.json
	$(BIN)/python -m zerolab.audit.audit_document docs/audit.md $(sort $(wildcard runs/audit/*.json))

slow: setup ## longer proofs: fuzzing, long runs
	$(BIN)/python -m pytest -n 2 -m slow

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup ## ratios in one run, each printed with what it was measured against
	$(BIN)/python benchmarks/sampling.py
	$(BIN)/python benchmarks/grading.py

docs: setup ## what the code writes: docs/config.md, the tables of docs/algorithms.md, the outputs of docs/walkthrough.md
	$(BIN)/python -m zerolab.reference docs
	$(BIN)/python docs/walkthrough.py

clean:
	rm -rf .pytest_cache .ruff_cache .mypy_cache .hypothesis dist build
