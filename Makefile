# Two commands for a fresh machine (Python >= 3.11, make): `make demo` and `make test`.
# Each sets up .venv by itself; set PYTHON to choose another interpreter.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO_OUT ?= demo-out

.PHONY: demo test test-browser test-slow test-training lint format docs screenshots clean help

help:
	@echo "make demo   spot the words in the sample images and show how to query them"
	@echo "make test   run the fast test suite"
	@echo "make docs   build the documentation into build/site"
	@echo "make lint   ruff, ruff format --check, mypy --strict"

$(BIN)/.runtime: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

$(BIN)/.test: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test,browse,ppocr]'
	@touch $@ $(BIN)/.runtime

$(BIN)/.dev: $(BIN)/.test
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

$(BIN)/.docs: $(BIN)/.runtime
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[docs]'
	@touch $@

demo: $(BIN)/.runtime
	$(BIN)/python jobs/demo.py --out $(DEMO_OUT)

test: $(BIN)/.test
	$(BIN)/python -m pytest

test-browser: $(BIN)/.test  # needs Chromium (apt-get install chromium)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[browser-test]'
	$(BIN)/python -m pytest -m browser

test-slow: $(BIN)/.test
	$(BIN)/python -m pytest -m slow --timeout=3600

test-training: $(BIN)/.test  # fetches PyTorch; `make test` skips these without it
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[train]'
	$(BIN)/python -m pytest tests/unit/training

docs: $(BIN)/.docs
	$(BIN)/mkdocs build --strict

screenshots: $(BIN)/.test  # the pictures in docs/; needs Chromium
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[browser-test]'
	$(BIN)/python jobs/demo.py --out $(DEMO_OUT)
	$(BIN)/python jobs/screenshots.py $(DEMO_OUT) docs --search st --mode prefix

lint: $(BIN)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(BIN)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) $(DEMO_OUT) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
