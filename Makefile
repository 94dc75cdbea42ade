.DEFAULT_GOAL := help
.PHONY: help run test test-kernels lint format bpf bench bench-schemes clean

PYTHON := .venv/bin/python
# Arguments for what is run: make test ARGS="tests/core -x", make run ARGS=--json
ARGS :=

help: ## Show this list
	@echo "make TARGET [ARGS=...]; each makes .venv first, where it has to:"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' Makefile

run: ## See memory and page some out: memtherm demo, on a child of its own
	@scripts/setup.sh run
	@.venv/bin/memtherm demo $(ARGS)

test: lint ## Lint, then all tests (MEMTHERM_REQUIRE=root,bpf,... turns skips into failures)
	$(PYTHON) -m pytest $(ARGS)

test-kernels: ## Tests in guests of Debian's 6.1, 6.12 and 7.3; root; ARGS="6.1 7.3" for some
	@scripts/setup.sh kernels
	@$(PYTHON) tests/kernels/matrix.py $(ARGS)

lint: ## Format check, ruff, mypy
	@scripts/setup.sh test
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m ruff check .
	$(PYTHON) -m mypy

format: ## Format, and mend what ruff can mend
	@scripts/setup.sh test
	$(PYTHON) -m ruff format .
	$(PYTHON) -m ruff check --fix .

bpf: ## Build the BPF object again
	@scripts/setup.sh bpf
	bpf/build.sh

bench: ## All benchmarks, about 45 minutes, and docs/benchmarks.md; ARGS=--quick takes 2 and writes no docs
	@scripts/setup.sh test
	@scripts/bench.sh $(ARGS)

bench-schemes: ## Real programs with and without memtherm, and docs/schemes.md; root; about 90 minutes
	@scripts/setup.sh test
	@scripts/bench-schemes.sh $(ARGS)

clean: ## Remove .venv and all that was made
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
