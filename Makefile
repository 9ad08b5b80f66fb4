# make demo   runs the main job into runs/demo
# make test   lints, checks types and runs every test
# make lint   the checks without the tests
# make clean  removes .venv, caches and runs
PYTHON := .venv/bin/python
.DEFAULT_GOAL := test
.PHONY: demo test lint clean venv

venv:
	@sh .ci/venv

demo: venv
	@$(PYTHON) -m cooptim.cli optimize --out runs/demo

lint: venv
	@$(PYTHON) -m ruff check --quiet .
	@$(PYTHON) -m ruff format --check --quiet . || { echo "run '$(PYTHON) -m ruff format .'"; exit 1; }
	@$(PYTHON) -m mypy --no-error-summary

test: lint
	@$(PYTHON) -m pytest -n 2

clean:
	@rm -rf .venv build dist runs *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
