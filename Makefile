# Two commands for a fresh machine with Python 3.11: `make serve` and `make test`. The rest is for people who build Heed.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
DATA ?= data
FLAGS ?=

.PHONY: serve test check clean

# Byte code is written when a module is first used: most never are, and compiling them all takes as long as the rest
# of the installation. Where the environment forbids writing it, every process would compile torch again.
export PYTHONDONTWRITEBYTECODE :=

# The stamp makes a repeat cost nothing: pip runs again only when the requirements change.
$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || python3 -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt -e '.[dev]'
	touch $@

serve: $(VENV)/.installed
	exec $(BIN)/python app.py serve --data $(DATA) $(FLAGS)

# Browser tests apart and one at a time: their driver keeps an event loop running in its process, which others
# cannot share, and a browser on a busy core is late.
test: $(VENV)/.installed
	$(BIN)/python -m pytest -n 2 --dist loadfile --ignore tests/e2e
	$(BIN)/python -m pytest tests/e2e

check: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) build dist *.egg-info
