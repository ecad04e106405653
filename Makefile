# Everything that people and CI do with a checkout. Each target first makes .venv when it is missing or older than
# the lock: needs Python 3.11 or newer, make, and nothing else (tools/bootstrap.py).

BIN := .venv/bin
INSTALLED := .venv/.installed
PYTHON ?= python3

.DEFAULT_GOAL := help
.PHONY: help demo test check format reference bench fuzz chaos lock clean hunt

help: $(INSTALLED) ## install everything into .venv and show this
	@echo "Ready. Next:"
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1@\2/p' Makefile | while IFS=@ read -r what why; do \
	  printf '%-14s %s\n' "$$what" "$$why"; done
	@echo "The program is $(BIN)/colla; begin with: $(BIN)/colla --help"

demo: $(INSTALLED) ## six nodes lose computers one by one and keep two services alive (KEEP=1, SITE=folder)
	@$(BIN)/colla demo $(if $(filter-out 0 no false,$(KEEP)),--keep) $(if $(SITE),--site "$(SITE)")

test: $(INSTALLED) ## run every test; skips and their reasons stand at the end (ARGS="-k presence")
	@$(BIN)/python -m pytest -n 3 --dist loadscope $(ARGS)

check: $(INSTALLED) ## formatting, lint, types and the layers
	@$(BIN)/ruff format --check --quiet . || { echo "make format mends this" >&2; exit 1; }
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache --no-logo

format: $(INSTALLED) ## format the code and mend what ruff can mend
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

reference: $(INSTALLED) ## write the generated parts of docs/reference again, after a change of what they show
	@$(BIN)/python tools/reference.py

bench: $(INSTALLED) ## the benchmark tables of docs/reference/benchmarks.md (ARGS="--quick")
	@$(BIN)/python -m benchmarks $(ARGS)

fuzz: $(INSTALLED) ## feed hostile bytes to everything that reads bytes from others (ARGS="--inputs 1000000 wire")
	@$(BIN)/python -m fuzz $(ARGS)

chaos: $(INSTALLED) ## random scenarios in virtual time, every safety check on (ARGS="--count 20000 --budget 1h")
	@nice -n 19 $(BIN)/colla simulate chaos $(ARGS)

hunt: $(INSTALLED) ## thousands of small worlds of membership changes under partitions (SEEDS=10000, FILE=results.jsonl)
	@$(BIN)/python -m colla.sim.lab.membership_hunt --seeds $(or $(SEEDS),1000) $(if $(FILE),--file "$(FILE)")

lock: $(INSTALLED) ## resolve requirements.lock again after a change of pyproject.toml (UPGRADE=1: newest versions)
	@$(BIN)/python tools/bootstrap.py lock $(if $(UPGRADE),--upgrade)

clean: ## remove everything that make made
	@rm -rf .venv dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find src tests benchmarks tools -name __pycache__ -type d -prune -exec rm -rf {} +

$(INSTALLED): requirements.lock pyproject.toml tools/bootstrap.py
	@for python in "$(PYTHON)" python3.14 python3.13 python3.12 python3.11 python; do \
	  if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
	    exec "$$python" tools/bootstrap.py install; \
	  fi; \
	done; \
	echo "make: no Python 3.11 or newer found. Install one, or name it: make PYTHON=/path/to/python3" >&2; exit 1
