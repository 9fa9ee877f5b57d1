# Two commands for a fresh machine with Python 3.11: `make serve` and `make test`. The rest is for people who build Heed.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
DATA ?= data
FLAGS ?=

.PHONY: serve test check clean

# The stamp makes a repeat cost nothing: pip runs again only when the requirements change.
$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || python3 -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

serve: $(VENV)/.installed
	exec $(BIN)/python app.py serve --data $(DATA) $(FLAGS)

# On two cores; the tests of a file stay in their order.
test: $(VENV)/.installed
	$(BIN)/python -m pytest -n 2 --dist loadfile

check: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) build dist *.egg-info
