# Two commands do everything: `make study` and `make test`. Both make the environment first.
PYTHON ?= python3
BIN := .venv/bin
PARALLEL := -n auto --maxprocesses 4 --dist worksteal

.PHONY: all study test test-fast bench lint clean

all: .venv/done

.venv/done: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Steppe needs Python 3.11 or later; try: make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

study: .venv/done
	$(BIN)/steppe run fa-breast-cancer

test: .venv/done
	$(BIN)/pytest $(PARALLEL)

# Most of its time is compilation, which need not be thorough here; `test` compiles as users do
test-fast: .venv/done
	JAX_DISABLE_MOST_OPTIMIZATIONS=1 $(BIN)/pytest $(PARALLEL) -m "not slow"

# PyTorch, which one comparison needs; where it does not install, the rest runs without it
.venv/bench: .venv/done
	-$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[bench]' && touch $@

bench: .venv/bench
	$(BIN)/python benchmarks

lint: .venv/done
	$(BIN)/ruff check
	$(BIN)/ruff format --check

clean:
	rm -rf .venv out build dist
