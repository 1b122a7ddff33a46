# One environment, .venv, made from pyproject.toml and constraints.txt by tools/setup.sh.
SHELL := /bin/bash
BIN := .venv/bin
export HF_HUB_OFFLINE = 1
# no look at the network for a newer pyright
export PYRIGHT_PYTHON_IGNORE_WARNINGS = 1

.DEFAULT_GOAL := help
.PHONY: help setup browser demo test test-long check bench docs clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' Makefile

setup: ## make .venv with every extra (PYTHON=... names the interpreter)
	@tools/setup.sh all

browser: setup ## Chromium and axe-core for the tests of the pages
	@tools/browser.sh

demo: ## train an adapter on the embedded model and check it beside the others
	@tools/setup.sh core
	@$(BIN)/tunediff demo

test: browser ## all tests but the long campaigns
	$(BIN)/python -m pytest -n 2 -m "not long"

test-long: browser ## the long campaigns
	$(BIN)/python -m pytest -m long

check: setup ## ruff, types, layers, generated pages
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/python -m pytest -q tests/test_layers.py
	$(BIN)/python tools/command_pages.py --check

bench: setup ## speed and memory against the naive way (ARGS=--write keeps the table)
	$(BIN)/python -m benchmarks $(ARGS)

docs: setup ## write docs/commands/ again from --help
	$(BIN)/python tools/command_pages.py

clean: ## remove .venv and every cache (never runs/)
	rm -rf .venv build dist tests/axe/node_modules .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
